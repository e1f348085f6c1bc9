//! What users of the configuration rely on.

mod database;
mod environment;
mod keys;
mod secrets;
mod shipped;
mod tls;
mod values;

use std::ffi::OsString;
use std::fs;
use std::path::Path;

use tempfile::TempDir;

use super::{Faults, Settings, load};

/// A directory with a configuration file and what it points to. `DIR` in texts stands for its path.
struct Sandbox(TempDir);

/// The least that is valid, with an SMS table so that its keys can be tried.
const BASE: &str = r#"
node.name = "bsm-1"
node.fqdn = "bmsc.example.com"
store.url = "file:DIR/store"
admin.listen = "unix:DIR/admin.sock"
sms.smsc = "smpp://127.0.0.1:2775"
"#;

impl Sandbox {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn fill(&self, text: &str) -> String {
        text.replace("DIR", self.path().to_str().unwrap())
    }

    /// Writes a file that only its owner can read.
    fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        use std::os::unix::fs::PermissionsExt;
        let path = self.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    }

    fn load_with(&self, text: &str, variables: &[(&str, &str)]) -> Result<Settings, Faults> {
        self.write("a.toml", self.fill(text));
        let variables = variables.iter().map(|(n, v)| (OsString::from(n), OsString::from(self.fill(v))));
        load(&self.path().join("a.toml"), variables)
    }

    fn load(&self, text: &str) -> Result<Settings, Faults> {
        self.load_with(text, &[])
    }

    /// The faults' lines, the file's path shortened to its name.
    fn faults_with(&self, text: &str, variables: &[(&str, &str)]) -> Vec<String> {
        let faults = self.load_with(text, variables).expect_err("the configuration has faults").to_string();
        let directory = format!("{}/", self.path().display());
        faults.lines().map(|line| line.replace(&directory, "")).collect()
    }

    fn faults(&self, text: &str) -> Vec<String> {
        self.faults_with(text, &[])
    }
}

/// Whether the lines begin with these, one for one.
#[track_caller]
fn assert_lines(lines: &[String], beginnings: &[&str]) {
    let all = lines.len() == beginnings.len() && lines.iter().zip(beginnings).all(|(l, b)| l.starts_with(b));
    assert!(all, "{lines:#?}\nare not\n{beginnings:#?}");
}

#[test]
fn all_faults_are_told_at_once_with_their_lines_in_order() {
    let text = r#"[node]
fqdn = "not a host"

[http]
listen = [
  "127.0.0.1:8080",
  "localhost:80",
]
path = 5
colour = "red"
max_body = "64"

[udp]
port = 0

[nodes]
x = 1

[store]
url = "postgres://db1/ltkmd"

[admin]
listen = "127.0.0.1:9470"
"#;
    assert_lines(
        &Sandbox::new().faults(text),
        &[
            "a.toml:2: node.fqdn: \"not a host\" is no host name: give ",
            "a.toml:7: http.listen: \"localhost:80\" is no socket address: give IP:PORT",
            "a.toml:9: http.path: is an integer: give a string",
            "a.toml:10: http.colour: is an unknown key: did you mean http.",
            "a.toml:11: http.max_body: \"64\" is no size: give ",
            "a.toml:14: udp.port: 0 is out of bounds: give an integer from 1 to 65535",
            "a.toml:16: nodes: is an unknown table: did you mean node?",
            "a.toml:20: store.url: the value is a server whose certificate must be verified",
            "a.toml:22: admin.admin_token_file: is missing: the admin API listens on TCP",
        ],
    );
}

#[test]
fn faults_of_toml_itself_are_all_told_beside_the_others() {
    let text = "[node]\nfqdn = bmsc.example.com\n[http]\nmax_items = 0\npath = \"/a\"\npath = \"/b\"\n[udp]\nport =\n[store]\nurl = \"file:DIR/s\"\n[admin]\nlisten = \"unix:DIR/s\"\n";
    assert_lines(
        &Sandbox::new().faults(text),
        &[
            "a.toml:2: node.fqdn: is not TOML: ",
            "a.toml:4: http.max_items: 0 is out of bounds",
            "a.toml:6: http.path: is not TOML: duplicate key; correct this line",
            "a.toml:8: udp.port: is not TOML: ",
        ],
    );
}

#[test]
fn what_follows_from_a_fault_is_not_told_as_another() {
    let sandbox = Sandbox::new();
    // The listener may be a unix socket, which needs no token; the name may be given.
    let text = "node.fqdn = \"open\nstore.url = \"file:DIR/s\"\n[admin]\nlisten = unix:DIR/s\n";
    assert_lines(
        &sandbox.faults(&text.replace("\"open", "open")),
        &["a.toml:1: node.fqdn: is not TOML: ", "a.toml:4: admin.listen: is not TOML: "],
    );
    assert_lines(
        &sandbox.faults(text),
        &["a.toml:1: node.fqdn: is not TOML: ", "a.toml:4: admin.listen: is not TOML: "],
    );
    let text =
        "[[node]]\nfqdn = \"a.example\"\n[store]\nurl = \"file:DIR/s\"\n[admin]\nlisten = \"unix:DIR/s\"\n";
    assert_lines(&sandbox.faults(text), &["a.toml:1: node: is a list: give one table, [node]"]);
}

#[test]
fn a_file_is_taken_with_a_byte_order_mark_and_with_crlf() {
    let text = format!("\u{feff}{}", BASE.replace('\n', "\r\n"));
    assert_eq!(Sandbox::new().load(&text).unwrap().node.fqdn.as_str(), "bmsc.example.com");
}

#[test]
fn a_required_key_is_missed_at_its_table_or_at_the_top() {
    let sandbox = Sandbox::new();
    let rest = "admin.listen = \"unix:DIR/s\"\nstore.url = \"file:DIR/s\"\n";
    assert_lines(
        &sandbox.faults(rest),
        &["a.toml:1: node.fqdn: is missing: add a line such as fqdn = \"bmsc.example.com\""],
    );
    assert_lines(
        &sandbox.faults(&format!("{rest}\n[node]\nname = \"a\"\n[sms]\n")),
        &["a.toml:4: node.fqdn: is missing", "a.toml:6: sms.smsc: is missing"],
    );
}

#[test]
fn a_file_that_cannot_be_taken_as_text_is_one_fault() {
    let sandbox = Sandbox::new();
    sandbox.write("a.toml", b"[node]\n\nfqdn = \"\xff\"\n");
    let fault = load(&sandbox.path().join("a.toml"), std::iter::empty()).unwrap_err().to_string();
    assert!(fault.ends_with("a.toml:3: is not UTF-8: write the file in UTF-8"), "{fault}");
    let fault = load(sandbox.path(), std::iter::empty()).unwrap_err().to_string();
    assert!(fault.contains(": cannot be read (not a regular file)"), "{fault}");
}

#[test]
fn values_that_depend_on_each_other_are_checked_together() {
    let sandbox = Sandbox::new();
    sandbox.write("token", "secret-token");
    let tcp =
        "node.fqdn = \"a.example\"\nstore.url = \"file:DIR/s\"\nadmin.admin_token_file = \"DIR/token\"\n";
    let shared = "admin.listen = \"127.0.0.1:8080\"\nhttp.listen = [\"0.0.0.0:8080\"]\n";
    assert_lines(
        &sandbox.faults(&format!("{tcp}{shared}")),
        &["a.toml:4: admin.listen: 127.0.0.1:8080 is taken by http.listen (0.0.0.0:8080)"],
    );
    let any =
        "admin.listen = \"127.0.0.1:0\"\nhttp.listen = [\"127.0.0.1:0\"]\nudp.listen = [\"127.0.0.1:0\"]\n";
    assert!(sandbox.load(&format!("{tcp}{any}")).is_ok());
    let one_number = "admin.listen = \"127.0.0.1:4359\"\n";
    assert!(sandbox.load(&format!("{tcp}{one_number}")).is_ok(), "UDP and TCP may share a port number");
}

#[test]
fn directories_must_be_there_or_be_possible() {
    let sandbox = Sandbox::new();
    sandbox.write("file", "");
    let with = |store: &str, admin: &str| {
        let text =
            format!("node.fqdn = \"a.example\"\nstore.url = \"{store}\"\nadmin.listen = \"{admin}\"\n");
        sandbox.load(&text).map(|_| ()).map_err(|_| sandbox.faults(&text))
    };
    assert_eq!(with("file:DIR/deep/er/store", "unix:DIR/a.sock"), Ok(()));
    assert!(!sandbox.path().join("deep").exists(), "a check makes nothing");
    assert_lines(
        &with("file:DIR/file/store", "unix:DIR/none/a.sock").unwrap_err(),
        &["a.toml:2: store.url: ", "a.toml:3: admin.listen: the directory none does not exist"],
    );
    assert_lines(
        &with("file:DIR/file", "unix:DIR/file").unwrap_err(),
        &[
            "a.toml:2: store.url: file is not a directory",
            "a.toml:3: admin.listen: file is there and is no socket",
        ],
    );
}

#[test]
fn udp_is_always_among_the_methods_and_sms_needs_its_table() {
    use crate::id::Method::{Http, Sms, Udp};
    let sandbox = Sandbox::new();
    let methods = |text: &str, base: &str| {
        let settings = sandbox.load(&format!("{base}{text}")).unwrap();
        (settings.delivery.methods.clone(), settings.enabled_methods())
    };
    assert_eq!(methods("", BASE), (vec![Http, Udp, Sms], vec![Http, Udp, Sms]));
    assert_eq!(methods("delivery.methods = [\"sms\", \"http\"]\n", BASE).1, [Sms, Http, Udp]);
    let without_sms = BASE.replace("sms.smsc = \"smpp://127.0.0.1:2775\"\n", "");
    assert_eq!(methods("", &without_sms), (vec![Http, Udp, Sms], vec![Http, Udp]));
    let rules = sandbox.load(&without_sms).unwrap().delivery_rules();
    assert_eq!(rules.preference, [Http, Udp]);
    let twice = sandbox.faults(&format!("{BASE}delivery.methods = [\"udp\", \"udp\"]\n"));
    assert_lines(&twice, &["a.toml:7: delivery.methods: names the same twice"]);
}

#[test]
fn host_bits_of_a_trusted_network_are_dropped_with_a_warning() {
    let settings = Sandbox::new()
        .load(&format!("{BASE}http.trusted_proxies = [\"10.1.2.3/8\", \"::1/128\"]\n"))
        .unwrap();
    assert_eq!(
        settings.http.trusted_proxies.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["10.0.0.0/8", "::1/128"]
    );
    let warning = settings.warnings[0].to_string();
    assert!(
        warning.ends_with("http.trusted_proxies: warning: 10.1.2.3/8 stands for all of 10.0.0.0/8"),
        "{warning}"
    );
}
