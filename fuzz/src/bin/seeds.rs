//! Writes the seeds of every target below a folder: `seeds <folder>` makes `<folder>/<target>/<number>`.

fn main() -> std::io::Result<()> {
    let folder = std::env::args().nth(1).expect("the folder to write to");
    for target in countersign_fuzz::TARGETS {
        let of = std::path::Path::new(&folder).join(target.name);
        std::fs::create_dir_all(&of)?;
        for (number, seed) in (target.seeds)().iter().enumerate() {
            std::fs::write(of.join(format!("seed-{number:04}")), seed)?;
        }
    }
    Ok(())
}
