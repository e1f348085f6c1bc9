//! What the documents name exists: files, headings, commands, keys of the configuration, metrics, alerts, messages.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use clap::error::ErrorKind;

use super::document;
use super::markdown::{Document, chapters, documents};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn every_link_between_the_documents_leads_to_a_file_and_a_heading() {
    let read: BTreeMap<_, _> =
        documents().into_iter().map(|name| (name.clone(), Document::read(&name))).collect();
    let (mut links, mut anchors) = (0, 0);
    for (name, document) in &read {
        for link in document.links.iter().filter(|link| !link.contains("://")) {
            links += 1;
            let (file, anchor) = link.split_once('#').map_or((link.as_str(), None), |(f, a)| (f, Some(a)));
            let target = match file {
                "" => root().join(name),
                file => root().join(name).with_file_name("").join(file),
            };
            assert!(target.exists(), "{name}: {link} is not there");
            let Some(anchor) = anchor else { continue };
            anchors += 1;
            let target = target.canonicalize().unwrap();
            let target = target.strip_prefix(root().canonicalize().unwrap()).unwrap().display().to_string();
            let there = read.get(&target).is_some_and(|other| other.anchors.contains(anchor));
            assert!(there, "{name}: {link} leads to no heading of {target}");
        }
    }
    assert!(links > 60 && anchors > 15, "they are found: {links}, {anchors}");
}

/// A shell's words, by command: quotes are taken off, redirections and comments left out, substitutions kept whole.
fn commands(line: &str) -> Vec<Vec<String>> {
    let (mut all, mut words, mut word) = (Vec::new(), Vec::new(), None::<String>);
    let mut rest = line.chars().peekable();
    let mut skip = false;
    while let Some(c) = rest.next() {
        let mut end = |word: &mut Option<String>| {
            if let Some(word) = word.take()
                && !std::mem::take(&mut skip)
            {
                words.push(word);
            }
        };
        match c {
            '\'' | '"' => {
                let text: String = rest.by_ref().take_while(|other| *other != c).collect();
                word.get_or_insert_default().push_str(&text);
            }
            '$' if rest.peek() == Some(&'(') => {
                let text: String = rest.by_ref().take_while(|other| *other != ')').collect();
                word.get_or_insert_default().push_str(&format!("${text})"));
            }
            '#' if word.is_none() => break,
            '<' | '>' => {
                if word.as_ref().is_some_and(|w| w.bytes().all(|b| b.is_ascii_digit())) {
                    word = None;
                }
                end(&mut word);
                while rest.next_if(|other| ['>', '&'].contains(other)).is_some() {}
                skip = true;
            }
            '|' | '&' | ';' => {
                end(&mut word);
                all.push(std::mem::take(&mut words));
            }
            c if c.is_whitespace() => {
                if word.is_some() {
                    end(&mut word);
                }
            }
            c => word.get_or_insert_default().push(c),
        }
    }
    if let Some(word) = word
        && !skip
    {
        words.push(word);
    }
    all.push(words);
    all.retain(|words| !words.is_empty());
    all
}

/// The arguments of each call of the program in a line.
fn calls(line: &str) -> Vec<Vec<String>> {
    let is_variable = |w: &String| {
        w.split_once('=').is_some_and(|(n, _)| n.bytes().all(|b| b.is_ascii_uppercase() || b == b'_'))
    };
    commands(line)
        .into_iter()
        .map(|words| words.into_iter().skip_while(is_variable).collect::<Vec<_>>())
        .filter(|words| words.first().is_some_and(|w| w == "ltkmd" || w.ends_with("/ltkmd")))
        .collect()
}

#[test]
fn a_line_of_a_shell_is_taken_apart() {
    let line = "A=1 ltkmd ctl x --y 'a b' \"c\" 2>> f | /usr/bin/ltkmd man z > q && echo \"$(a b)\" # ltkmd";
    assert_eq!(
        calls(line),
        [vec!["ltkmd", "ctl", "x", "--y", "a b", "c"], vec!["/usr/bin/ltkmd", "man", "z"]]
    );
}

/// What the command line says to these words. In a sentence a command may be named without what it needs.
fn refusal(words: &[String], in_a_sentence: bool) -> Option<String> {
    let error = ltkmd::cli::definition().try_get_matches_from(words).err()?;
    let fine = match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => true,
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
        | ErrorKind::MissingRequiredArgument
        | ErrorKind::MissingSubcommand
        | ErrorKind::InvalidValue
        | ErrorKind::ValueValidation => in_a_sentence,
        _ => false,
    };
    (!fine).then(|| error.to_string())
}

#[test]
fn every_command_that_a_document_shows_is_one_of_the_program() {
    let (mut in_blocks, mut in_sentences) = (0, 0);
    for name in documents() {
        let document = Document::read(&name);
        for (info, text) in &document.blocks {
            // What is only shown may show a command, too.
            let typed: Vec<&str> = match info.split(' ').next() {
                Some("sh") => text.lines().collect(),
                Some("console" | "text") => text.lines().filter_map(|line| line.strip_prefix("$ ")).collect(),
                Some("toml" | "json" | "sql") => continue,
                _ if name == "ARCHITECTURE.md" => continue,
                _ => panic!("{name}: {info:?} does not say whether a block is typed or shown"),
            };
            let script = typed.join("\n");
            let bash = Command::new("bash").args(["-n", "-c", &script]).output().unwrap();
            assert!(bash.status.success(), "{name}: {}\n{script}", String::from_utf8_lossy(&bash.stderr));
            for words in script.replace("\\\n", " ").lines().flat_map(calls) {
                in_blocks += 1;
                if let Some(why) = refusal(&words, false) {
                    panic!("{name}: {}\n{why}", words.join(" "));
                }
            }
        }
        for words in document.codes.iter().filter(|code| !code.contains('…')).flat_map(|code| calls(code)) {
            in_sentences += 1;
            if let Some(why) = refusal(&words, true) {
                panic!("{name}: {}\n{why}", words.join(" "));
            }
        }
    }
    assert!(in_blocks > 80 && in_sentences > 60, "they are found: {in_blocks}, {in_sentences}");
    assert!(refusal(&["ltkmd", "ctl", "status", "--no-such"].map(str::to_owned), true).is_some());
    assert!(refusal(&["ltkmd", "ctl", "key", "turn"].map(str::to_owned), true).is_some());
}

#[test]
fn every_configuration_that_a_document_shows_is_one_that_the_program_takes() {
    let mut checked = 0;
    for name in documents() {
        for (info, text) in Document::read(&name).blocks {
            if info.split(' ').next() != Some("toml") {
                continue;
            }
            checked += 1;
            let place = tempfile::tempdir().unwrap();
            let at = place.path().display().to_string();
            // Directories of this run in place of those of a production system, and the files that are named.
            let mut config = text.clone();
            for there in ["/tmp/ltkmd-", "/run/ltkmd/", "/var/lib/ltkmd"] {
                config = config.replace(there, &format!("{at}/"));
            }
            let files = config.lines().filter_map(|line| line.split_once("_file = \"")?.1.split('"').next());
            for (number, file) in files.enumerate() {
                std::fs::create_dir_all(Path::new(file).parent().unwrap()).unwrap();
                std::fs::write(file, format!("{number:064x}\n")).unwrap();
            }
            for socket in config.lines().filter_map(|line| line.split_once("\"unix:")?.1.split('"').next()) {
                std::fs::create_dir_all(Path::new(socket).parent().unwrap()).unwrap();
            }
            let file = place.path().join("ltkmd.toml");
            std::fs::write(&file, config).unwrap();
            let mut check = Command::new(env!("CARGO_BIN_EXE_ltkmd"));
            check.args(["check", "--config"]).arg(&file).env_clear();
            if !text.contains("url = ") {
                check.env("LTKMD_STORE__URL", format!("file:{at}/store"));
            }
            let told = check.output().unwrap();
            let why = String::from_utf8_lossy(&told.stderr);
            assert!(told.status.success(), "{name}:\n{why}\n{text}");
        }
    }
    assert!(checked > 6, "they are found: {checked}");
}

/// The keys and the tables of the configuration.
fn keys() -> (BTreeSet<String>, BTreeSet<String>) {
    let reference = ltkmd::config::reference();
    let cell = |line: &str, begin: &str| Some(line.strip_prefix(begin)?.split('`').next()?.to_owned());
    let keys = reference.lines().filter_map(|line| cell(line, "| `")).collect();
    let tables =
        reference.lines().filter_map(|line| cell(line, "## `[")).map(|t| t.trim_end_matches(']').to_owned());
    (keys, tables.collect())
}

#[test]
fn every_key_of_the_configuration_that_a_document_names_exists() {
    // Files that are called like keys.
    const FILES: [&str; 4] = ["store.key", "audit.log", "audit.head", "audit.rs"];
    let (keys, tables) = keys();
    let mut named = 0;
    // ARCHITECTURE.md names parts of the program, too.
    for name in chapters().into_iter().chain(["README.md".to_owned()]) {
        for code in Document::read(&name).codes {
            let word = code.split([' ', '=']).next().unwrap();
            let mut parts = word.split('.');
            let of_a_table = parts.next().is_some_and(|table| tables.contains(table));
            let like_a_key =
                word.contains('.') && word.bytes().all(|b| b.is_ascii_lowercase() || b"._".contains(&b));
            if of_a_table && like_a_key && !FILES.contains(&word) {
                named += 1;
                assert!(keys.contains(word) || tables.contains(word), "{name}: there is no key {word}");
            }
        }
    }
    assert!(named > 150, "they are found: {named}");
}

/// Words that begin so, wherever they stand.
fn words<'a>(text: &'a str, begin: &'a str) -> impl Iterator<Item = &'a str> {
    let part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.match_indices(begin).filter_map(move |(at, _)| {
        let alone = !text[..at].ends_with(part);
        let word = text[at..].split(|c| !part(c)).next()?;
        (alone && word.len() > begin.len()).then_some(word)
    })
}

#[test]
fn every_metric_and_every_alert_that_a_document_names_exists() {
    let metrics: BTreeSet<_> = ltkmd::metrics::table::all().map(|metric| metric.name).collect();
    let alerts = document("config/prometheus/ltkmd.alerts.yml");
    let alerts: BTreeSet<_> = alerts.split("- alert: ").skip(1).filter_map(|a| a.lines().next()).collect();
    let (mut named, mut fired) = (0, 0);
    for name in documents() {
        let text = document(&name);
        // A package's file has a version there.
        let like_a_metric =
            |word: &&str| word["ltkmd_".len()..].starts_with(|c: char| c.is_ascii_lowercase());
        for word in words(&text, "ltkmd_").filter(like_a_metric) {
            let whole =
                ["_bucket", "_sum", "_count"].iter().find_map(|end| word.strip_suffix(end)).unwrap_or(word);
            named += 1;
            assert!(metrics.contains(word) || metrics.contains(whole), "{name}: there is no metric {word}");
        }
        for word in words(&text, "Ltkmd") {
            fired += 1;
            assert!(alerts.contains(word), "{name}: there is no alert {word}");
        }
    }
    assert!(named > 60 && fired > 30, "they are found: {named}, {fired}");
}

/// All of the program's sources, with the strings that go over lines in one piece.
fn sources(directory: &Path, out: &mut String) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, out);
        } else if path.extension().is_some_and(|e| e == "rs") {
            let text = std::fs::read_to_string(path).unwrap();
            let mut lines = text.lines().peekable();
            while let Some(line) = lines.next() {
                match line.strip_suffix('\\') {
                    Some(begun) => {
                        out.push_str(begun.trim_start());
                        if let Some(next) = lines.next() {
                            out.push_str(next.trim_start());
                        }
                    }
                    None => out.push_str(line),
                }
                out.push('\n');
            }
        }
    }
}

/// What the handbook explains of what the daemon says when it starts.
fn explained() -> Vec<String> {
    let text = document("docs/troubleshoot.md");
    let (_, section) = text.split_once("\n## It does not start\n").unwrap();
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `"));
    let cells = rows.map(|row| row.split(" | ").next().unwrap());
    let messages = cells.flat_map(|cell| cell.split('`').step_by(2)).filter(|message| !message.contains("…"));
    messages.map(str::to_owned).collect()
}

#[test]
fn every_message_of_a_start_that_the_handbook_explains_is_one_of_the_program() {
    let mut program = String::new();
    sources(&root().join("src"), &mut program);
    let explained = explained();
    assert!(explained.len() > 30, "they are found: {explained:?}");
    for message in explained {
        assert!(program.contains(&message), "nothing says {message:?}");
    }
}

#[test]
fn every_message_that_ends_a_start_is_explained_in_the_handbook() {
    let explained = explained();
    let mut found = 0;
    for (room, marks) in [
        ("src/service_manager", &["#[error("][..]),
        ("src/store/embedded", &["refuse(dir, ", "refuse(path, "]),
        ("src/log", &["#[error("]),
        ("src/engine", &["StoreError::Open(format!("]),
    ] {
        let mut text = String::new();
        sources(&root().join(room), &mut text);
        let text = text.split("\n").map(str::trim_start).collect::<Vec<_>>().join(" ").replace("\\\"", "'");
        for mark in marks {
            for (at, _) in text.match_indices(mark) {
                let rest =
                    text[at + mark.len()..].trim_start().trim_start_matches("format_args!(").trim_start();
                // What the system says is passed on in its own words.
                let Some(message) = rest.strip_prefix('"').and_then(|rest| rest.split('"').next()) else {
                    continue;
                };
                found += 1;
                let known = explained.iter().any(|fragment| message.contains(fragment.as_str()));
                assert!(known || message.contains("backup"), "{room}: {message:?} is not explained");
            }
        }
    }
    assert!(found > 15, "they are found: {found}");
}

#[test]
fn every_chapter_is_in_the_handbook() {
    let handbook = document("docs/README.md");
    // What comes from elsewhere is linked by whoever brings it.
    for name in
        chapters().iter().filter(|name| !["docs/README.md", "docs/packages.md"].contains(&name.as_str()))
    {
        assert!(handbook.contains(&format!("]({})", &name["docs/".len()..])), "{name} is not linked");
    }
}

#[test]
fn every_number_that_sizing_calls_measured_is_one_of_the_measurements() {
    let measurements = document("docs/PERFORMANCE.md") + &document("docs/SOAK.md");
    let text = document("docs/sizing.md");
    let (_, section) = text.split_once("\n## Measured\n").unwrap();
    let section = section.split("\n## ").next().unwrap();
    let mut found = 0;
    for row in section.lines().filter(|line| line.starts_with("| ")).skip(1) {
        for cell in row.trim_matches('|').split(" | ").skip(1) {
            for number in cell.split([' ', '|']).filter(|word| word.starts_with(|c: char| c.is_ascii_digit()))
            {
                found += 1;
                assert!(
                    measurements.contains(number.trim_end_matches(',')),
                    "{number} of {row} was not measured"
                );
            }
        }
    }
    assert!(found > 10, "they are found: {found}");
}
