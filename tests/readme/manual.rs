//! The manual pages, as `man` shows them.

use std::path::{Path, PathBuf};
use std::process::Command;

/// All pages, as they are installed.
fn pages(directory: &Path) -> Vec<PathBuf> {
    let written =
        Command::new(env!("CARGO_BIN_EXE_ltkmd")).args(["man", "--directory"]).arg(directory).status();
    assert!(written.unwrap().success());
    let mut pages = Vec::new();
    for section in ["man1", "man5", "man7"] {
        let files = std::fs::read_dir(directory.join(section)).unwrap();
        pages.extend(files.map(|file| file.unwrap().path()));
    }
    pages.sort();
    assert!(pages.len() > 60, "commands and chapters have pages");
    pages
}

/// A page for a terminal, as `man` has it made.
fn rendered(page: &Path) -> String {
    let groff =
        Command::new("groff").args(["-k", "-t", "-ww", "-man", "-Tutf8", "-P-cbou"]).arg(page).output();
    let groff = groff.expect("groff is missing: ./test installs it");
    let told = String::from_utf8_lossy(&groff.stderr);
    assert!(groff.status.success() && told.is_empty(), "{}: {told}", page.display());
    String::from_utf8(groff.stdout).unwrap()
}

#[test]
fn every_page_is_rendered_without_a_warning_and_says_what_it_is() {
    let directory = tempfile::tempdir().unwrap();
    for page in pages(directory.path()) {
        let text = rendered(&page);
        let name = page.file_stem().unwrap().to_str().unwrap();
        let section = page.extension().unwrap().to_str().unwrap();
        let head = text.lines().find(|line| !line.is_empty()).unwrap();
        assert!(head.starts_with(&format!("{name}({section})")), "{}: {head}", page.display());
        let line = text.lines().skip_while(|line| *line != "NAME").nth(1).unwrap();
        let mut words = line.split_whitespace();
        assert_eq!((words.next(), words.next()), (Some(name), Some("-")), "{}: {line}", page.display());
        for mark in ["**", "](", "```", "| ---"] {
            assert!(!text.contains(mark), "{}: {mark} is Markdown", page.display());
        }
    }
}

#[test]
fn a_page_shows_what_its_chapter_says() {
    let directory = tempfile::tempdir().unwrap();
    let pages = pages(directory.path());
    let page = |name: &str| rendered(pages.iter().find(|page| page.ends_with(name)).unwrap());
    let configuration = page("ltkmd.toml.5");
    for shown in ["[http]", "       http.max_items\n              type: integer, 1 to 4096\n", "~"] {
        assert_eq!(configuration.contains(shown), shown != "~", "{shown}\n{configuration}");
    }
    let troubleshoot = page("ltkmd-troubleshoot.7");
    assert!(troubleshoot.contains("    $ ltkmd ctl delivery list --state queued\n"), "{troubleshoot}");
    assert!(troubleshoot.contains("ltkmd-sizing(7)"), "a link names its page: {troubleshoot}");
    assert!(page("ltkmd-audit.7").contains("tr -d '\\n' | sha256sum"), "nothing of a command is lost");
}
