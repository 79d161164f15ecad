//! The page names tests, and each of them exists where it says.

const PAGE: &str = include_str!("../../docs/security-review.md");
const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Where a path of the page is.
fn place(path: &str) -> String {
    match path.split('/').next().unwrap_or_default() {
        "laws" | "review" | "kafka" => format!("{ROOT}/tests/{path}"),
        "fuzz" => format!("{ROOT}/tests/fuzz.rs"),
        "src" | "tests" => format!("{ROOT}/{path}"),
        _ => format!("{ROOT}/src/authorize/{path}"),
    }
}

/// The last cell of every row of the tables that say where something is shown.
fn shown() -> impl Iterator<Item = &'static str> {
    let (tables, _) = PAGE.split_once("\n## Time\n").expect("the last part, which is of costs");
    let rows = tables.lines().filter(|line| line.starts_with("| ") && !line.ends_with("| shown by |"));
    rows.filter_map(|row| row.trim_end_matches(" |").rsplit(" | ").next())
}

#[test]
fn every_test_that_the_page_names_exists() {
    let mut looked = 0;
    for cell in shown() {
        let mut text = String::new();
        for ticked in cell.split('`').skip(1).step_by(2) {
            let name = match ticked.split_once(": ") {
                Some((path, name)) => {
                    text = std::fs::read_to_string(place(path))
                        .unwrap_or_else(|_| panic!("no file for `{path}`"));
                    name
                }
                // A benchmark stands for itself.
                None if ticked.starts_with("benches/") => {
                    assert!(std::path::Path::new(ROOT).join(ticked).is_file(), "{ticked}");
                    continue;
                }
                None => ticked,
            };
            assert!(
                text.contains(&format!("fn {name}(")) || text.contains(&format!("    {name}: \"")),
                "`{name}` is not where the page says"
            );
            looked += 1;
        }
    }
    assert!(looked > 50, "only {looked} names were found");
}
