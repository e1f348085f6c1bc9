//! Where secrets come from, what they must be, and that nobody sees them.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::super::schema::{KEYS, Kind};
use super::{BASE, Sandbox, assert_lines};

const HEX: &str = "00112233445566778899aabbccddeeff00112233445566778899AABBCCDDEEFF";

#[test]
fn the_file_key_comes_first_and_then_the_credential_of_the_secrets_name() {
    let sandbox = Sandbox::new();
    sandbox.write("token", "from-file\n");
    sandbox.write("credentials/admin_token", "from-systemd\n");
    let credentials = [("CREDENTIALS_DIRECTORY", "DIR/credentials")];
    let token = |text: &str, variables: &[(&str, &str)]| {
        sandbox.load_with(text, variables).unwrap().admin.admin_token.map(|t| t.expose().to_vec())
    };
    let with_key = format!("{BASE}admin.admin_token_file = \"DIR/token\"\n");
    assert_eq!(token(&with_key, &credentials), Some(b"from-file".to_vec()));
    assert_eq!(token(BASE, &credentials), Some(b"from-systemd".to_vec()));
    assert_eq!(token(BASE, &[]), None);
    assert_eq!(token(BASE, &[("CREDENTIALS_DIRECTORY", "DIR/none")]), None);
}

#[test]
fn every_secret_has_a_credential_and_its_faults_bear_the_credentials_path() {
    for key in KEYS.iter().filter(|k| matches!(k.kind, Kind::Secret(_))) {
        let sandbox = Sandbox::new();
        let name = key.path.rsplit('.').next().unwrap().strip_suffix("_file").unwrap();
        sandbox.write(&format!("credentials/{name}"), "");
        let faults = sandbox.faults_with(BASE, &[("CREDENTIALS_DIRECTORY", "DIR/credentials")]);
        assert_lines(&faults, &[&format!("credentials/{name}: {}: what the file holds is empty", key.path)]);
    }
}

#[test]
fn a_credential_satisfies_the_tcp_listener_and_nothing_else_does() {
    let sandbox = Sandbox::new();
    sandbox.write("credentials/admin_token", "t");
    let text = "node.fqdn = \"a.example\"\nstore.url = \"file:DIR/s\"\n";
    assert!(sandbox.load_with(text, &[("CREDENTIALS_DIRECTORY", "DIR/credentials")]).is_ok());
    assert_lines(&sandbox.faults(text), &["a.toml:1: admin.admin_token_file: is missing"]);
}

#[test]
fn keys_are_64_hex_digits_with_at_most_one_newline() {
    let sandbox = Sandbox::new();
    let text = format!("{BASE}store.store_key_file = \"DIR/key\"\n");
    for content in [HEX.to_owned(), format!("{HEX}\n"), format!("{HEX}\r\n")] {
        sandbox.write("key", content);
        let key = sandbox.load(&text).unwrap().store.store_key.unwrap();
        assert_eq!((key.len(), &key.expose()[..3], key.expose()[31]), (32, &[0, 0x11, 0x22][..], 0xFF));
    }
    for content in
        [&HEX[1..], &HEX.replace('0', "g"), &format!("{HEX}\n\n"), &format!(" {HEX}"), &HEX.repeat(2), "\n"]
    {
        sandbox.write("key", content);
        let faults = sandbox.faults(&text);
        assert_lines(&faults, &["a.toml:7: store.store_key_file: what the file holds is "]);
        assert!(!faults[0].contains("112233"), "{faults:#?}");
    }
}

#[test]
fn tokens_and_passwords_are_one_line_of_what_their_protocols_take() {
    let sandbox = Sandbox::new();
    let refused = |key: &str, content: &[u8]| {
        sandbox.write("secret", content);
        sandbox.load(&format!("{BASE}{key} = \"DIR/secret\"\n")).is_err()
    };
    for content in [&b"two words"[..], b"two\nlines\n", "ümlaut".as_bytes(), b"t\n\n", b"", &[b'a'; 4097]] {
        assert!(refused("admin.admin_token_file", content), "{content:?}");
    }
    assert!(refused("sms.sms_password_file", b"nine-long"));
    assert!(refused("sms.sms_password_file", b"a\nb"));
    assert!(!refused("sms.sms_password_file", b"eightlng\n"));
}

#[test]
fn a_file_that_cannot_be_read_is_a_fault_that_does_not_repeat_the_value() {
    let sandbox = Sandbox::new();
    let faults = sandbox.faults(&format!(
        "{BASE}admin.admin_token_file = \"hunter2\"\nadmin.key_reader_token_file = \"DIR\"\nstore.store_key_file = 5\n"
    ));
    assert_lines(
        &faults,
        &[
            "a.toml:7: admin.admin_token_file: the file cannot be read (No such file",
            "a.toml:8: admin.key_reader_token_file: the file cannot be read (not a regular file)",
            "a.toml:9: store.store_key_file: is an integer: give a string",
        ],
    );
    assert!(!faults.concat().contains("hunter2"));
}

#[test]
fn a_secret_in_the_file_is_a_fault_that_names_the_file_key_and_not_the_secret() {
    let sandbox = Sandbox::new();
    for (given, key) in [
        ("admin.admin_token", "admin.admin_token_file"),
        ("admin.token", "admin.admin_token_file"),
        ("admin.key_reader_token", "admin.key_reader_token_file"),
        ("node.cluster_secret", "node.cluster_secret_file"),
        ("store.store_key", "store.store_key_file"),
        ("store.password", "store.store_password_file"),
        ("sms.sms_password", "sms.sms_password_file"),
        ("sms.password", "sms.sms_password_file"),
    ] {
        let faults = sandbox.faults(&format!("{BASE}{given} = \"hunter2\"\n"));
        let wanted = format!(
            "a.toml:7: {given}: would be a secret in the open: put it into a file of its own and name that file in {key}"
        );
        assert_eq!(faults, [wanted]);
    }
}

#[test]
fn the_reader_of_keys_has_a_token_of_its_own() {
    let sandbox = Sandbox::new();
    sandbox.write("a", "same");
    sandbox.write("b", "same\n");
    let text = format!("{BASE}admin.admin_token_file = \"DIR/a\"\nadmin.key_reader_token_file = \"DIR/b\"\n");
    assert_lines(&sandbox.faults(&text), &["a.toml:8: admin.key_reader_token_file: is the same token"]);
}

#[test]
fn a_secret_that_everybody_can_read_is_a_warning() {
    let sandbox = Sandbox::new();
    sandbox.write("token", "t");
    let text = format!("{BASE}admin.admin_token_file = \"DIR/token\"\n");
    assert_eq!(sandbox.load(&text).unwrap().warnings, []);
    fs::set_permissions(sandbox.path().join("token"), fs::Permissions::from_mode(0o644)).unwrap();
    let warning = sandbox.load(&text).unwrap().warnings[0].to_string();
    assert!(warning.ends_with("a.toml:7: admin.admin_token_file: warning: every user of this machine can read the file: chmod o-rwx it"), "{warning}");
}

#[test]
fn settings_show_no_secret_when_printed() {
    let sandbox = Sandbox::new();
    sandbox.write("hex", HEX);
    for name in ["hunter2a", "hunter2b", "hunter2c"] {
        sandbox.write(name, name.replace("hunter", "secret"));
    }
    let pair = rcgen::generate_simple_self_signed(["a.example".to_owned()]).unwrap();
    sandbox.write("tls.crt", pair.cert.pem());
    sandbox.write("tls.key", pair.signing_key.serialize_pem());
    let text = format!(
        "{BASE}store.store_key_file = \"DIR/hex\"\nnode.cluster_secret_file = \"DIR/hex\"\nadmin.admin_token_file = \"DIR/hunter2a\"\nadmin.key_reader_token_file = \"DIR/hunter2b\"\nsms.sms_password_file = \"DIR/hunter2c\"\nhttp.tls = {{ certificate = \"DIR/tls.crt\", key = \"DIR/tls.key\" }}\n"
    );
    let shown = format!("{:#?}", sandbox.load(&text).unwrap());
    assert_eq!(shown.matches("Secret(…)").count(), 5, "{shown}");
    let key = pair.signing_key.serialize_der();
    let key = key.iter().map(|o| format!("{o}")).collect::<Vec<_>>();
    for trace in ["secret2", "112233", "17, 34", &key[8..12].join(",\n"), &key[8..12].join(", ")] {
        assert!(!shown.contains(trace), "{trace}: {shown}");
    }
}
