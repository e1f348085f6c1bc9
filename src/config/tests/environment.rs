//! `LTKMD_…` variables over the file.

use super::super::schema::{KEYS, variable};
use super::{BASE, Sandbox, assert_lines};

#[test]
fn a_variable_overrides_its_key_in_toml_syntax_or_as_a_bare_string() {
    let sandbox = Sandbox::new();
    let variables = [
        ("LTKMD_HTTP__PATH", "/bare"),
        ("LTKMD_NODE__NAME", "\"quoted\""),
        ("LTKMD_NODE__FQDN", "3gpp.example"),
        ("LTKMD_HTTP__LISTEN", "[\"127.0.0.1:1\", \"127.0.0.1:2\"]"),
        ("LTKMD_UDP__LISTEN", "[::1]:4359"),
        ("LTKMD_UDP__PORT", "2269"),
        ("LTKMD_SMS__SOURCE", "12345"),
        ("LTKMD_DELIVERY__VERIFY", "false"),
        ("LTKMD_LOG__FILTER", "warn,ltkmd=debug"),
        ("LTKMD_KEYS__RETAIN", "24h"),
        ("LTKMD_CTL_ADMIN", "http://127.0.0.1:1"),
        ("PATH", "/bin"),
    ];
    let settings = sandbox.load_with(&format!("{BASE}http.path = \"/file\"\n"), &variables).unwrap();
    assert_eq!(settings.http.path.as_str(), "/bare");
    assert_eq!(settings.node.name.as_str(), "quoted");
    assert_eq!(settings.node.fqdn.as_str(), "3gpp.example");
    assert_eq!(settings.http.listen.len(), 2);
    assert_eq!(settings.udp.listen[0].to_string(), "[::1]:4359");
    assert_eq!(settings.udp.port.get(), 2269);
    assert_eq!(settings.sms.unwrap().source.unwrap().as_str(), "12345");
    assert!(!settings.delivery.verify);
    assert_eq!(settings.log.filter.as_str(), "warn,ltkmd=debug");
    assert_eq!(settings.keys.retain.as_secs(), 86400);
}

#[test]
fn every_key_has_its_variable() {
    let sandbox = Sandbox::new();
    for key in KEYS {
        let name = variable(key.path);
        assert_eq!(name, format!("LTKMD_{}", key.path.to_uppercase().replace('.', "__")));
        let faults = sandbox.faults_with(BASE, &[(&name, "")]);
        let start = format!("{name}: {}: ", key.path);
        assert!(faults.iter().any(|f| f.starts_with(&start)), "{start}{faults:#?}");
    }
}

#[test]
fn faults_of_variables_bear_the_variables_name_and_follow_the_files() {
    let variables = [
        ("LTKMD_UDP__PORT", "65536"),
        ("LTKMD_HTTP_PATH", "/x"),
        ("LTKMD_BOGUS", "1"),
        ("LTKMD_http__path", "/x"),
        ("LTKMD_NODE", "x"),
        ("LTKMD_CTL", "x"),
        ("LTKMD_ADMIN__ADMIN_TOKEN", "hunter2"),
    ];
    let faults = Sandbox::new().faults_with(&format!("{BASE}http.max_items = 0\n"), &variables);
    assert_lines(
        &faults,
        &[
            "a.toml:7: http.max_items: 0 is out of bounds",
            "LTKMD_ADMIN__ADMIN_TOKEN: admin.admin_token: would be a secret in the open: put it into a file of its own and name that file in LTKMD_ADMIN__ADMIN_TOKEN_FILE",
            "LTKMD_BOGUS: bogus: is an unknown variable: did you mean LTKMD_",
            "LTKMD_CTL: ctl: is an unknown variable: did you mean LTKMD_",
            "LTKMD_HTTP_PATH: http_path: is an unknown variable: did you mean LTKMD_HTTP__PATH?",
            "LTKMD_NODE: node: is a string: give a table",
            "LTKMD_UDP__PORT: udp.port: 65536 is out of bounds",
            "LTKMD_http__path: http.path: is an unknown variable: did you mean LTKMD_HTTP__PATH?",
        ],
    );
    assert!(!faults.concat().contains("hunter2"));
}

#[test]
fn a_tables_variable_takes_the_tables_place_and_its_keys_variables_go_over_it() {
    let sandbox = Sandbox::new();
    let text = format!("{BASE}sms.window = 5\n");
    let variables =
        [("LTKMD_SMS", "{ smsc = \"smpp://b.example\", rate = 7 }"), ("LTKMD_SMS__SMSC", "smpp://c.example")];
    let sms = sandbox.load_with(&text, &variables).unwrap().sms.unwrap();
    assert_eq!(sms.smsc[0].host, "c.example");
    assert_eq!((sms.rate.get(), sms.window), (7, 32), "the file's window is gone with its table");
}

#[test]
fn a_variable_alone_can_turn_a_table_on() {
    let text = BASE.replace("sms.smsc", "#");
    let sandbox = Sandbox::new();
    let settings = sandbox.load_with(&text, &[("LTKMD_SMS__SMSC", "smpp://a.example")]).unwrap();
    assert_eq!(settings.sms.unwrap().smsc[0].to_string(), "smpp://a.example:2775");
    assert_lines(
        &sandbox.faults_with(&text, &[("LTKMD_SMS__RATE", "5")]),
        &["LTKMD_SMS__RATE: sms.smsc: is missing: add a line such as smsc = "],
    );
}

#[cfg(unix)]
#[test]
fn a_variable_that_is_no_text_is_a_fault() {
    use std::os::unix::ffi::OsStringExt;
    let sandbox = Sandbox::new();
    sandbox.write("a.toml", sandbox.fill(BASE));
    let variable = ("LTKMD_HTTP__PATH".into(), std::ffi::OsString::from_vec(vec![b'/', 0xFF]));
    let fault = super::load(&sandbox.path().join("a.toml"), [variable].into_iter()).unwrap_err();
    assert_eq!(fault.to_string(), "LTKMD_HTTP__PATH: http.path: is not UTF-8: give text");
}
