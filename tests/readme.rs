//! The documents say what is so: the README's tour is typed into a shell, tables and links are looked up.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "readme/shell.rs"]
mod shell;
#[path = "readme/tour.rs"]
mod tour;

use std::collections::BTreeSet;
use std::path::Path;

fn document(name: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

/// The cells of a Markdown table's row.
fn cells(line: &str) -> Vec<&str> {
    line.trim_matches('|').split(" | ").map(str::trim).collect()
}

#[test]
fn the_readmes_configuration_table_says_what_the_schema_says() {
    let reference = document("docs/configuration.md");
    let known: BTreeSet<Vec<&str>> = reference
        .lines()
        .filter(|l| l.starts_with("| `"))
        .map(cells)
        .map(|row| vec![row[0], row[2], row[3]])
        .collect();
    let readme = document("README.md");
    let (_, section) = readme.split_once("\n## Configuration\n").unwrap();
    let section = section.split("\n## ").next().unwrap();
    let rows: Vec<_> = section.lines().filter(|l| l.starts_with("| `")).map(cells).collect();
    assert!(rows.len() > 10, "the table is there");
    for row in rows {
        assert!(known.contains(&row), "docs/configuration.md has no such row: {row:?}");
    }
}

#[test]
fn the_architecture_names_every_room() {
    let text = document("ARCHITECTURE.md");
    let rooms = std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("src")).unwrap();
    for room in rooms {
        let room = room.unwrap();
        let mut name = room.file_name().into_string().unwrap();
        if room.file_type().unwrap().is_dir() {
            name.push('/');
        }
        let named = text.split_whitespace().any(|word| word == name);
        assert!(named, "ARCHITECTURE.md does not name src/{name}");
    }
}

#[test]
fn every_link_between_the_documents_leads_somewhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut links = 0;
    for name in
        ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "docs/PERFORMANCE.md", "docs/configuration.md"]
    {
        let text = document(name);
        let here = root.join(name);
        for target in
            text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(target, _)| target)
        {
            if target.contains("://") {
                continue;
            }
            links += 1;
            let target = target.split('#').next().unwrap();
            assert!(here.with_file_name("").join(target).exists(), "{name}: {target} is not there");
        }
    }
    assert!(links > 10, "links are found");
}
