//! A store that is a PostgreSQL database.

use super::{Sandbox, assert_lines};
use crate::config::StoreUrl;

const HEX: &str = "00112233445566778899aabbccddeeff00112233445566778899AABBCCDDEEFF";

/// All that a daemon with a database needs.
const BASE: &str = r#"
node.fqdn = "bmsc.example.com"
node.cluster_secret_file = "DIR/hex"
admin.listen = "unix:DIR/admin.sock"
audit.file = "DIR/log/audit.log"
store.store_key_file = "DIR/hex"
store.store_password_file = "DIR/password"
store.connections = 4
"#;

fn sandbox() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.write("hex", HEX);
    sandbox.write("password", "hunter2\n");
    sandbox.write("log/other", "");
    let pair = rcgen::generate_simple_self_signed(["db1".to_owned()]).unwrap();
    sandbox.write("ca.pem", pair.cert.pem());
    sandbox
}

fn with(url: &str) -> String {
    format!("{BASE}store.url = \"{url}\"\n")
}

/// The base without the lines that begin so.
fn without(beginning: &str) -> String {
    let text = with("postgres://localhost/ltkmd");
    let kept: Vec<&str> = text.lines().filter(|line| !line.starts_with(beginning)).collect();
    kept.join("\n")
}

#[test]
fn a_database_is_taken_with_its_password_and_connections_and_no_fault_shows_a_secret() {
    let sandbox = sandbox();
    let settings = sandbox.load(&with("postgres://ltkmd@db1,db2/keys?sslrootcert=DIR/ca.pem")).unwrap();
    let StoreUrl::Postgres(url) = &settings.store.url else { panic!("{:?}", settings.store.url) };
    assert_eq!((url.hosts().len(), url.user(), url.database()), (2, Some("ltkmd"), "keys"));
    assert_eq!(settings.store.password.as_ref().unwrap().expose(), b"hunter2");
    assert_eq!(settings.store.connections, 4);
    assert!(settings.warnings.is_empty(), "{:?}", settings.warnings);
    assert!(!format!("{settings:?}").contains("hunter2"));
    // The audit log's kept head lies beside it.
    assert_eq!(settings.audit_head_directory(), Some(sandbox.path().join("log").as_path()));
}

#[test]
fn a_database_needs_the_keys_that_its_daemons_share() {
    let sandbox = sandbox();
    assert_lines(
        &sandbox.faults(&without("store.store_key_file")),
        &["a.toml:6: store.store_key_file: is missing: all daemons of a PostgreSQL store need the same one"],
    );
    assert_lines(
        &sandbox.faults(&without("node.cluster_secret_file")),
        &[
            "a.toml:2: node.cluster_secret_file: is missing: all daemons of a PostgreSQL store need the same one",
        ],
    );
    sandbox.write("credentials/store_key", HEX);
    let variables = [("CREDENTIALS_DIRECTORY", "DIR/credentials")];
    assert!(sandbox.load_with(&without("store.store_key_file"), &variables).is_ok());
    assert!(sandbox.load(&without("store.store_password_file")).unwrap().store.password.is_none());
}

#[test]
fn what_can_be_known_without_connecting_is_checked() {
    let sandbox = sandbox();
    for (url, told) in [
        ("postgres://db1/keys", "the value is a server whose certificate must be verified"),
        ("postgres://u:hunter2@localhost/keys", "the value has a password in it"),
        ("postgres://localhost/keys?password=hunter2", "the value has a password in it"),
        ("postgres:hunter2", "the value is no URL of a database"),
        ("postgresql://localhost/hunter2?sslmode=hunter2", "the value has an sslmode"),
        ("postgres://db1/keys?sslrootcert=DIR/none.pem", "none.pem cannot be read"),
        ("postgres://db1/keys?sslrootcert=DIR/hex", "hex holds no certificate"),
    ] {
        let faults = sandbox.faults(&with(url));
        assert!(faults[0].contains(&format!("store.url: {told}")), "{url}: {faults:?}");
        assert!(faults.len() == 1 && !faults[0].contains("hunter2"), "{url}: {faults:?}");
    }
    for connections in ["1", "1001"] {
        let text = with("postgres://localhost/keys").replace("= 4", &format!("= {connections}"));
        assert_lines(&sandbox.faults(&text), &["a.toml:8: store.connections: "]);
    }
}

#[test]
fn a_change_of_the_database_needs_a_restart() {
    let sandbox = sandbox();
    let old = sandbox.load(&with("postgres://localhost/keys")).unwrap();
    sandbox.write("password", "hunter3");
    let new = sandbox.load(&with("postgres://localhost/other").replace("= 4", "= 5")).unwrap();
    assert_eq!(old.restart_needed(&new), ["store.url", "store.store_password_file", "store.connections"]);
}
