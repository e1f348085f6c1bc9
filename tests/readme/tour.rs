//! The README's tours and the handbook's chapters: their files are written, their commands typed, their outputs compared.

use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::path::Path;
use std::time::{Duration, Instant};

use super::document;
use super::shell::Shell;

/// How long what happens by itself may take to show.
const PATIENCE: Duration = Duration::from_secs(60);

/// A step of the tour.
#[derive(Debug)]
enum Step {
    /// Save this text under this name.
    File(String, String),
    /// Type this command, and see this.
    Command(String, String),
}

/// The steps of a text: its console blocks, and the blocks that name a file.
fn steps(section: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut lines = section.lines();
    while let Some(line) = lines.next() {
        let Some(info) = line.strip_prefix("```") else { continue };
        let block: Vec<&str> = lines.by_ref().take_while(|l| *l != "```").collect();
        match info.split_once(' ') {
            Some((_, name)) => steps.push(Step::File(name.to_owned(), block.join("\n") + "\n")),
            // What a machine of one's own is needed for, and what is only shown.
            None if info != "console" => {}
            None => {
                for line in block {
                    match (line.strip_prefix("$ "), steps.last_mut()) {
                        (Some(command), _) => steps.push(Step::Command(command.to_owned(), String::new())),
                        (None, Some(Step::Command(_, output))) => *output += &format!("{line}\n"),
                        (None, _) => panic!("output before any command: {line}"),
                    }
                }
            }
        }
    }
    steps
}

/// Ports and the directory of this run in place of the README's.
struct Places {
    readmes_directory: &'static str,
    directory: String,
    http: u16,
    udp: u16,
    smpp: u16,
}

impl Places {
    fn new(readmes_directory: &'static str, directory: &Path) -> Self {
        let tcp = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let (http, smpp) = (tcp(), tcp());
        // Free on all loopback addresses: the daemon and the terminal use the same port.
        let udp = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        Self {
            readmes_directory,
            directory: directory.display().to_string(),
            http: http.local_addr().unwrap().port(),
            udp: udp.local_addr().unwrap().port(),
            smpp: smpp.local_addr().unwrap().port(),
        }
    }

    fn ours(&self, text: &str) -> String {
        text.replace(self.readmes_directory, &self.directory)
            .replace(":8080", &format!(":{}", self.http))
            .replace(":4359", &format!(":{}", self.udp))
            .replace(":2775", &format!(":{}", self.smpp))
    }

    /// A command with the ports that it takes by default.
    fn command(&self, command: &str) -> String {
        let mut command = command.to_owned();
        if command.starts_with("ltkmd ue smsc") {
            command.insert_str("ltkmd ue smsc".len(), " --listen 127.0.0.1:2775");
        } else if command.starts_with("ltkmd ue ") && command.contains(" --url ") {
            command = command.replace(" --url ", " --bsm 127.0.0.1:4359 --url ");
        }
        self.ours(&command)
    }

    fn readmes(&self, text: &str) -> String {
        text.replace(&self.directory, self.readmes_directory)
            .replace(&format!(":{}", self.http), ":8080")
            .replace(&format!(":{}", self.udp), ":4359")
            .replace(&format!(":{}", self.smpp), ":2775")
            .replace(&format!("port {} from {}", self.udp, self.udp), "port 4359 from 4359")
    }

    /// The defaults that the tour relies on.
    fn variables(&self) -> Vec<(&'static str, String)> {
        vec![
            ("LTKMD_HTTP__LISTEN", format!("[\"127.0.0.1:{}\"]", self.http)),
            ("LTKMD_UDP__LISTEN", format!("[\"127.0.0.1:{}\"]", self.udp)),
            ("LTKMD_UDP__PORT", self.udp.to_string()),
        ]
    }
}

/// Whether a time in RFC 3339 and UTC begins here; its length.
fn time_at(text: &[u8]) -> Option<usize> {
    const SHAPE: &[u8] = b"dddd-dd-ddTdd:dd:dd";
    let head = text.get(..SHAPE.len())?;
    let fits =
        |(octet, shape): (&u8, &u8)| if *shape == b'd' { octet.is_ascii_digit() } else { octet == shape };
    if !head.iter().zip(SHAPE).all(fits) {
        return None;
    }
    let rest = &text[SHAPE.len()..];
    let fraction = rest.iter().take_while(|o| **o == b'.' || o.is_ascii_digit()).count();
    (rest.get(fraction) == Some(&b'Z')).then_some(SHAPE.len() + fraction + 1)
}

/// What of an output does not change from run to run: times are one word, and so is any white space.
fn lasting(text: &str) -> String {
    let mut out = String::new();
    let mut at = 0;
    while let Some(c) = text[at..].chars().next() {
        match time_at(&text.as_bytes()[at..]) {
            Some(length) => {
                out.push_str("TIME");
                at += length;
            }
            None => {
                out.push(c);
                at += c.len_utf8();
            }
        }
    }
    let line = |l: &str| l.split_whitespace().collect::<Vec<_>>().join(" ");
    out.trim_end().lines().map(line).map(|l| ageless(&l)).collect::<Vec<_>>().join("\n")
}

/// A line in which everything was just now that was some seconds ago.
fn ageless(line: &str) -> String {
    let words: Vec<&str> = line.split(' ').collect();
    let mut out: Vec<String> = Vec::new();
    let mut at = 0;
    while at < words.len() {
        let number = words[at].trim_start_matches('(');
        let ago = words.get(at + 2).is_some_and(|w| w.trim_end_matches(')') == "ago");
        if !number.is_empty()
            && number.bytes().all(|b| b.is_ascii_digit())
            && words[at + 1..].first() == Some(&"s")
            && ago
        {
            out.push(words[at].replace(number, "now") + words[at + 2].trim_start_matches("ago"));
            at += 3;
        } else {
            out.push(words[at].to_owned());
            at += 1;
        }
    }
    out.join(" ")
}

/// Whether a command only looks, so that it may be typed again until it sees what is to come.
fn only_looks(command: &str) -> bool {
    let looks = [
        "cat ",
        "tail ",
        "grep ",
        "curl -s ",
        "ltkmd ctl status",
        "ltkmd ctl delivery list",
        "ltkmd ctl terminal list",
        "ltkmd ctl terminal show",
        "ltkmd ctl job list",
    ];
    looks.iter().any(|l| command.starts_with(l))
}

/// Types a command until its output is as wanted.
fn see(shell: &mut Shell, places: &Places, command: &str, wanted: &str) {
    let began = Instant::now();
    loop {
        let (code, output) = shell.run(&places.command(command));
        let output = places.readmes(&output);
        if code == 0 && lasting(&output) == lasting(wanted) {
            return;
        }
        let late = began.elapsed() > PATIENCE || !only_looks(command);
        assert!(!late, "$ {command}\n{output}(exit code {code}); the document shows\n{wanted}");
    }
}

/// Starts a command in the background, and waits until its log has one more line that says that it is ready.
fn start(shell: &mut Shell, command: &str) {
    let log = command.trim_end_matches(" &").rsplit(' ').next().unwrap();
    let word = if command.starts_with("ltkmd serve") { " ready " } else { "listening on " };
    let read = |shell: &mut Shell| shell.run(&format!("cat {log} 2>/dev/null")).1;
    let before = if command.contains(">>") { read(shell).matches(word).count() } else { 0 };
    assert_eq!(shell.run(command).0, 0, "{command}");
    let began = Instant::now();
    loop {
        let text = read(shell);
        if text.matches(word).count() > before {
            return;
        }
        assert!(began.elapsed() < PATIENCE, "`{command}` does not get ready:\n{text}");
    }
}

/// The text of a chapter, or of a section of it.
fn section(name: &str, heading: Option<&str>) -> String {
    let text = document(name);
    let Some(heading) = heading else { return text };
    let (_, section) = text.split_once(&format!("\n## {heading}\n")).unwrap();
    section.split("\n## ").next().unwrap().to_owned()
}

/// Does what a text says; `its_directory` is the one that it plays in.
fn walk(text: &str, its_directory: &'static str) {
    let steps = steps(text);
    let commands = steps.iter().filter(|step| matches!(step, Step::Command(..))).count();
    assert!(commands > 1, "commands are found");
    let directory = tempfile::tempdir().unwrap();
    let places = Places::new(its_directory, directory.path());
    let mut shell = Shell::start(directory.path(), &places.variables());
    for step in steps {
        match step {
            Step::File(name, text) => {
                std::fs::write(directory.path().join(name), places.ours(&text)).unwrap();
            }
            // The program is built, and the directory is there.
            Step::Command(command, _)
                if ["cargo build", "export PATH=", "mkdir "].iter().any(|c| command.starts_with(c)) => {}
            Step::Command(command, output) if command.ends_with(" &") => {
                assert_eq!(output, "", "{command}");
                start(&mut shell, &places.command(&command));
            }
            Step::Command(command, output) => see(&mut shell, &places, &command, &output),
        }
    }
}

#[test]
fn who_types_the_tour_sees_what_the_readme_shows() {
    walk(&section("README.md", Some("Five minutes")), "/tmp/ltkmd-tour");
}

#[test]
fn who_tries_sms_in_a_lab_sees_what_the_readme_shows() {
    walk(&section("README.md", Some("SMS in a lab")), "/tmp/ltkmd-lab");
}

#[test]
fn who_installs_and_configures_sees_what_the_handbook_shows() {
    walk(&section("docs/install.md", None), "/tmp/ltkmd-install");
    walk(&section("docs/configure.md", None), "/tmp/ltkmd-configure");
}

#[test]
fn who_makes_the_first_service_sees_what_the_handbook_shows() {
    walk(&section("docs/first-service.md", None), "/tmp/ltkmd-first");
}

#[test]
fn who_holds_the_key_ceremony_sees_what_the_handbook_shows() {
    walk(&section("docs/key-ceremony.md", None), "/tmp/ltkmd-keys");
}

#[test]
fn who_monitors_sees_what_the_handbook_shows() {
    walk(&section("docs/monitor.md", None), "/tmp/ltkmd-monitor");
}

#[test]
fn who_looks_for_a_symptom_sees_what_the_handbook_shows() {
    walk(&section("docs/troubleshoot.md", None), "/tmp/ltkmd-trouble");
}

#[test]
fn no_chapter_has_commands_that_nobody_types() {
    let typed = include_str!("tour.rs");
    for name in super::markdown::chapters() {
        let has = steps(&document(&name)).iter().any(|step| matches!(step, Step::Command(..)));
        assert!(!has || typed.contains(&format!("section(\"{name}\"")), "{name} is not walked through");
    }
}
