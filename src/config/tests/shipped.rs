//! The example and the documentation that are shipped say what the schema says.

use std::collections::BTreeMap;
use std::path::Path;

use super::super::reference;
use super::super::schema::{KEYS, Without};
use super::Sandbox;
use crate::config::Settings;

const EXAMPLE: &str = include_str!("../../../config/ltkmd.toml");

/// A line of the example without the `#` that shows an absent key or table.
fn shown(line: &str) -> &str {
    line.strip_prefix('#')
        .filter(|l| l.starts_with(|c: char| c == '[' || c.is_ascii_lowercase()))
        .unwrap_or(line)
}

/// What the shipped example gives when run with a token and a store of its own.
fn load(sandbox: &Sandbox, text: &str) -> Result<Settings, String> {
    sandbox.write("credentials/admin_token", "t");
    let variables = [("CREDENTIALS_DIRECTORY", "DIR/credentials"), ("LTKMD_STORE__URL", "file:DIR/store")];
    sandbox.load_with(text, &variables).map_err(|f| f.to_string())
}

#[test]
fn the_example_is_the_defaults() {
    let sandbox = Sandbox::new();
    let example = load(&sandbox, EXAMPLE).unwrap();
    let least = load(&sandbox, "node.fqdn = \"bmsc.example.com\"\n").unwrap();
    assert_eq!(format!("{example:?}"), format!("{least:?}"));
}

#[test]
fn the_example_shows_every_key_with_its_default() {
    let mut table = "";
    let mut given: BTreeMap<String, (&str, bool)> = BTreeMap::new();
    for line in EXAMPLE.lines() {
        let inner = shown(line);
        if let Some(name) = inner.strip_prefix('[') {
            table = name.trim_end_matches(']');
        } else if let Some((name, value)) = inner.split_once(" = ").filter(|_| !inner.starts_with('#')) {
            given.insert(format!("{table}.{name}"), (value, inner == line));
        }
    }
    assert_eq!(
        given.remove("http.tls").unwrap().0,
        r#"{ certificate = "/etc/ltkmd/tls.crt", key = "/etc/ltkmd/tls.key" }"#
    );
    for key in KEYS.iter().filter(|k| !k.path.starts_with("http.tls.")) {
        let (value, active) = given.remove(key.path).unwrap_or_else(|| panic!("{} is shown", key.path));
        let sms = key.path.starts_with("sms.");
        match key.default {
            Without::Toml(default) => assert_eq!((value, active), (default, !sms), "{}", key.path),
            Without::Required(_) => assert_eq!(active, !sms, "{}", key.path),
            Without::Absent(_) => assert!(!active, "{} has no default", key.path),
        }
    }
    assert_eq!(given.len(), 0, "{given:?}");
}

#[test]
fn all_that_the_example_shows_can_be_used() {
    let sandbox = Sandbox::new();
    let pair = rcgen::generate_simple_self_signed(["bmsc.example.com".to_owned()]).unwrap();
    for (name, content) in [
        ("cluster_secret", "ab".repeat(32)),
        ("store_key", "cd".repeat(32)),
        ("store_password", "p".to_owned()),
        ("sms_password", "p".to_owned()),
        ("smsc_ca.pem", pair.cert.pem()),
        ("admin_token", "a".to_owned()),
        ("key_reader_token", "r".to_owned()),
        ("tls.crt", pair.cert.pem()),
        ("tls.key", pair.signing_key.serialize_pem()),
    ] {
        sandbox.write(name, content);
    }
    let text: String = EXAMPLE.lines().map(|l| format!("{}\n", shown(l))).collect();
    let settings =
        load(&sandbox, &text.replace("/etc/ltkmd/", "DIR/").replace("/var/log/ltkmd/", "DIR/")).unwrap();
    assert!(settings.http.tls.is_some() && settings.udp.rate.is_some() && settings.sms.is_some());
}

/// With `UPDATE_REFERENCE=1` in the environment the tables are written anew.
#[test]
fn the_documentation_has_the_schemas_tables() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md");
    let text = std::fs::read_to_string(&path).unwrap();
    let head = &text[..text.find("## `[").unwrap_or(text.len())];
    if std::env::var_os("UPDATE_REFERENCE").is_some() {
        std::fs::write(&path, format!("{head}{}", reference())).unwrap();
        return;
    }
    assert_eq!(&text[head.len()..], reference(), "UPDATE_REFERENCE=1 cargo test writes it anew");
    for key in KEYS {
        assert!(text.contains(&format!("| `{}` | ", key.path)), "{} is documented", key.path);
    }
}
