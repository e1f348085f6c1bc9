//! The documents say what is so: the commands of the README and of the handbook are typed into a shell, what they name is
//! looked up, and the manual pages that are made of them are looked at.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "readme/manual.rs"]
mod manual;
#[path = "readme/markdown.rs"]
mod markdown;
#[path = "readme/shell.rs"]
mod shell;
#[path = "readme/tour.rs"]
mod tour;
#[path = "readme/words.rs"]
mod words;

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

/// What of the demo's line does not change from run to run: no white space twice, no numbers, no directory's name.
fn lasting(line: &str) -> String {
    let words = line.split_whitespace().map(|word| match word.split_once("ltkmd-demo-") {
        Some((before, _)) => format!("{before}ltkmd-demo-#"),
        None => word.replace(|c: char| c.is_ascii_digit(), "#"),
    });
    let mut line = words.collect::<Vec<_>>().join(" ");
    while line.contains("##") {
        line = line.replace("##", "#");
    }
    line
}

#[test]
fn the_demo_tells_what_the_readme_shows() {
    let readme = document("README.md");
    let (_, shown) = readme.split_once("```text\n$ ltkmd demo\n").unwrap();
    let shown = shown.split("\n```").next().unwrap();
    assert!(shown.lines().count() > 40, "the run is there");
    let run = std::process::Command::new(env!("CARGO_BIN_EXE_ltkmd")).arg("demo").output().unwrap();
    let told = String::from_utf8(run.stdout).unwrap();
    assert!(run.status.success(), "{told}{}", String::from_utf8_lossy(&run.stderr));
    let lines: BTreeSet<String> = told.lines().map(lasting).collect();
    for line in shown.lines() {
        assert!(lines.contains(&lasting(line)), "the demo does not say {line:?}, but\n{told}");
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
