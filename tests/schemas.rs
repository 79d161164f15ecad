//! Guards the evolution of the Avro schemas: whatever was published stays readable, by old readers and new.

use std::path::{Path, PathBuf};

use apache_avro::Schema;
use apache_avro::schema_compatibility::SchemaCompatibility;
use countersign::wire::audit::AUDIT_SCHEMA;
use countersign::wire::challenge::CHALLENGE_SCHEMA;
use countersign::wire::workflow::WORKFLOW_SCHEMA;

/// The schemas in use, by the name of their files.
const CURRENT: [(&str, &str); 3] =
    [("audit", AUDIT_SCHEMA), ("challenge", CHALLENGE_SCHEMA), ("workflow", WORKFLOW_SCHEMA)];

fn published(of: &str) -> Vec<(PathBuf, Schema)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas/published");
    let number = |path: &Path| -> Option<u32> {
        let name = path.file_stem()?.to_str()?;
        name.strip_prefix(of)?.strip_prefix('-')?.parse().ok()
    };
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| number(path).is_some())
        .collect();
    files.sort_by_key(|path| number(path));
    let read = |path: PathBuf| {
        let schema = Schema::parse_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        (path, schema)
    };
    files.into_iter().map(read).collect()
}

#[test]
fn every_published_schema_reads_and_is_read_by_every_other_of_its_kind() {
    for (of, _) in CURRENT {
        let published = published(of);
        assert!(!published.is_empty(), "no `{of}-N.avsc`");
        for (written, writer) in &published {
            for (reading, reader) in &published {
                if let Err(error) = SchemaCompatibility::can_read(writer, reader) {
                    panic!("{} cannot read {}: {error}", reading.display(), written.display());
                }
            }
        }
    }
}

#[test]
fn the_schemas_in_use_are_the_newest_that_were_published() {
    for (of, text) in CURRENT {
        let (path, newest) = published(of).pop().unwrap();
        let current = Schema::parse_str(text).unwrap();
        assert_eq!(
            current.canonical_form(),
            newest.canonical_form(),
            "`schemas/{of}.avsc` differs from {}: publish it as the next number",
            path.display()
        );
    }
}

#[test]
fn every_published_file_is_of_a_schema_in_use() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas/published");
    let files = std::fs::read_dir(folder).unwrap().count();
    assert_eq!(files, CURRENT.iter().map(|(of, _)| published(of).len()).sum::<usize>());
}

#[test]
fn the_guard_sees_a_field_without_default_and_a_changed_type() {
    let (_, old) = published("audit").remove(0);
    let change = |from: &str, to: &str| {
        let text = AUDIT_SCHEMA.replacen(from, to, 1);
        assert_ne!(text, AUDIT_SCHEMA, "the change did not take");
        Schema::parse_str(&text).unwrap()
    };
    let new_field = change("\"fields\": [", "\"fields\": [{\"name\": \"extra\", \"type\": \"string\"},");
    assert!(SchemaCompatibility::can_read(&old, &new_field).is_err());
    let changed = change("\"type\": \"boolean\"", "\"type\": \"bytes\"");
    assert!(SchemaCompatibility::can_read(&old, &changed).is_err());
}
