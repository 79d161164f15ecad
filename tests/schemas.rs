//! Guards the evolution of the Avro schemas: whatever was published stays readable, by old readers and new.

use std::path::{Path, PathBuf};

use apache_avro::Schema;
use apache_avro::schema_compatibility::SchemaCompatibility;
use countersign::wire::audit::AUDIT_SCHEMA;

fn published() -> Vec<(PathBuf, Schema)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas/published");
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    let number = |path: &PathBuf| -> u32 {
        let name = path.file_stem().unwrap().to_str().unwrap();
        name.strip_prefix("audit-").and_then(|number| number.parse().ok()).expect("audit-N.avsc")
    };
    files.sort_by_key(number);
    let read = |path: PathBuf| {
        let schema = Schema::parse_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        (path, schema)
    };
    files.into_iter().map(read).collect()
}

#[test]
fn every_published_audit_schema_reads_and_is_read_by_every_other() {
    let published = published();
    assert!(!published.is_empty());
    for (written, writer) in &published {
        for (reading, reader) in &published {
            if let Err(error) = SchemaCompatibility::can_read(writer, reader) {
                panic!("{} cannot read {}: {error}", reading.display(), written.display());
            }
        }
    }
}

#[test]
fn the_schema_in_use_is_the_newest_that_was_published() {
    let (path, newest) = published().pop().unwrap();
    let current = Schema::parse_str(AUDIT_SCHEMA).unwrap();
    assert_eq!(
        current.canonical_form(),
        newest.canonical_form(),
        "`schemas/audit.avsc` differs from {}: publish it as the next number",
        path.display()
    );
}

#[test]
fn the_guard_sees_a_field_without_default_and_a_changed_type() {
    let (_, old) = published().remove(0);
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
