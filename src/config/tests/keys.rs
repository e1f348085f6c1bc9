//! Every key: what it accepts, its bounds, its nearest misspelling, whether it is live.

use super::super::schema::{KEYS, Kind, TABLES};
use super::super::value::{duration, size};
use super::{BASE, Sandbox};
use crate::config::Settings;

/// A value for each key that is not its default, in TOML.
const OTHER_VALUES: &[(&str, &str)] = &[
    ("node.name", "\"other\""),
    ("node.fqdn", "\"other.example.com\""),
    ("node.cluster_secret_file", "\"DIR/hex\""),
    ("http.listen", "[\"127.0.0.1:0\", \"[::1]:0\"]"),
    ("http.path", "\"/keys\""),
    ("http.trusted_proxies", "[\"10.0.0.0/8\", \"fd00::/8\"]"),
    ("http.max_body", "\"1MiB\""),
    ("http.request_timeout", "\"500ms\""),
    ("http.max_connections", "1"),
    ("http.max_items", "1_000"),
    ("http.drain", "\"0s\""),
    ("http.tls.certificate", "\"DIR/other.crt\""),
    ("http.tls.key", "\"DIR/other.key\""),
    ("digest.algorithms", "[\"MD5\"]"),
    ("digest.nonce_lifetime", "\"24h\""),
    ("xml.children", "\"default-namespace\""),
    ("mikey.id_type", "\"uri\""),
    ("udp.listen", "\"127.0.0.1:0\""),
    ("udp.port", "2269"),
    ("udp.attempts", "16"),
    ("udp.first_timeout", "\"100ms\""),
    ("udp.rate", "1000"),
    ("sms.smsc", "[\"smpp://smsc.example.com:3550\", \"smpp://[::1]\"]"),
    ("sms.bind", "\"transmitter-receiver\""),
    ("sms.system_id", "\"other\""),
    ("sms.sms_password_file", "\"DIR/password\""),
    ("sms.tls_ca", "\"DIR/other.crt\""),
    ("sms.source", "\"My Network\""),
    ("sms.window", "1"),
    ("sms.rate", "1"),
    ("sms.enquire_link", "\"100ms\""),
    ("sms.response_timeout", "\"5m\""),
    ("sms.attempts", "1"),
    ("sms.pull_timeout", "\"1s\""),
    ("sms.terminal_interval", "\"0s\""),
    ("sms.terminal_daily", "1"),
    ("sms.patience", "\"7d\""),
    ("delivery.methods", "[\"udp\"]"),
    ("delivery.verify", "false"),
    ("delivery.sms_alone", "\"refuse\""),
    ("keys.retain", "\"1s\""),
    ("keys.lead_time", "\"0s\""),
    ("store.url", "\"file:DIR/other\""),
    ("store.store_key_file", "\"DIR/hex\""),
    ("store.store_password_file", "\"DIR/password\""),
    ("store.connections", "1000"),
    ("admin.listen", "\"unix:DIR/other.sock\""),
    ("admin.admin_token_file", "\"DIR/token\""),
    ("admin.key_reader_token_file", "\"DIR/token\""),
    ("audit.enabled", "false"),
    ("audit.file", "\"DIR/other.log\""),
    ("log.format", "\"json\""),
    ("log.filter", "\"warn,ltkmd=debug\""),
    ("log.btid", "\"hash\""),
];

fn sandbox() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.write("hex", "0123456789abcdefABCDEF0123456789".repeat(2));
    sandbox.write("password", "hunter2");
    sandbox.write("token", "hunter2-token");
    let pair = rcgen::generate_simple_self_signed(["bmsc.example.com".to_owned()]).unwrap();
    for name in ["tls", "other"] {
        sandbox.write(&format!("{name}.crt"), pair.cert.pem());
        sandbox.write(&format!("{name}.key"), pair.signing_key.serialize_pem());
    }
    sandbox
}

/// The base with one key set otherwise.
fn with(key: &str, value: &str) -> String {
    let base: String =
        BASE.lines().filter(|l| !l.starts_with(&format!("{key} "))).map(|l| format!("{l}\n")).collect();
    let beside = match key {
        "http.tls.certificate" => "http.tls.key = \"DIR/tls.key\"\n",
        "http.tls.key" => "http.tls.certificate = \"DIR/tls.crt\"\n",
        _ => "",
    };
    format!("{base}{beside}{key} = {value}\n")
}

/// The base; for the keys of TLS, with TLS on.
fn before(sandbox: &Sandbox, key: &str) -> Settings {
    let text = match key.starts_with("http.tls.") {
        true => with("http.tls", "{ certificate = \"DIR/tls.crt\", key = \"DIR/tls.key\" }"),
        false => BASE.to_owned(),
    };
    sandbox.load(&text).unwrap_or_else(|f| panic!("{f}"))
}

#[test]
fn every_key_is_accepted_takes_effect_and_says_whether_it_is_live() {
    let sandbox = sandbox();
    let listed: Vec<_> = OTHER_VALUES.iter().map(|(key, _)| *key).collect();
    assert_eq!(listed, KEYS.iter().map(|k| k.path).collect::<Vec<_>>(), "each key has another value here");
    for (key, (path, value)) in KEYS.iter().zip(OTHER_VALUES) {
        let old = before(&sandbox, path);
        assert_eq!(old.restart_needed(&old), [""; 0]);
        let new = sandbox.load(&with(path, value)).unwrap_or_else(|f| panic!("{f}"));
        if *path == "store.store_password_file" {
            assert!(new.warnings[0].to_string().contains("the embedded store has no password"));
            continue;
        }
        // A test of secrets by their octets: Debug shows whether there is one, not which.
        assert_ne!(format!("{old:?}"), format!("{new:?}"), "{path} takes effect");
        let restart: &[&str] = if key.live { &[] } else { &[path] };
        assert_eq!(old.restart_needed(&new), restart, "{path}");
    }
}

#[test]
fn turning_a_table_on_is_one_change() {
    let sandbox = sandbox();
    let with_sms = sandbox.load(BASE).unwrap();
    let without_sms = sandbox.load(&BASE.replace("sms.smsc", "#")).unwrap();
    assert_eq!(with_sms.restart_needed(&without_sms), ["sms"]);
    let tls =
        sandbox.load(&with("http.tls", "{ certificate = \"DIR/tls.crt\", key = \"DIR/tls.key\" }")).unwrap();
    assert_eq!(with_sms.restart_needed(&tls), ["http.tls"]);
}

#[test]
fn an_unknown_key_in_any_table_is_refused_with_the_nearest_name() {
    let sandbox = sandbox();
    for table in TABLES.iter() {
        let faults = sandbox.faults(&with(&format!("{table}.zzz_bogus"), "1"));
        let fault = faults.iter().find(|f| f.contains("zzz_bogus")).unwrap();
        let nearest = fault.split("is an unknown key: did you mean ").nth(1).unwrap().trim_end_matches('?');
        assert!(KEYS.iter().any(|k| k.path == nearest) || TABLES.contains(&nearest), "{fault}");
    }
    let line = BASE.lines().count() + 1;
    for key in KEYS {
        for misspelt in [format!("{}x", key.path), key.path.replacen(['e', 'o', 'a', 'i'], "", 1)] {
            let (table, _) = key.path.rsplit_once('.').unwrap();
            if !misspelt.starts_with(&format!("{table}.")) || KEYS.iter().any(|k| k.path == misspelt) {
                continue;
            }
            let faults = sandbox.faults(&with(&misspelt, "1"));
            let wanted = format!("a.toml:{line}: {misspelt}: is an unknown key: did you mean {}?", key.path);
            assert!(faults.contains(&wanted), "{faults:#?}\nlacks {wanted}");
        }
    }
}

#[test]
fn a_misspelt_table_and_a_misplaced_key_are_found() {
    let sandbox = sandbox();
    for (text, nearest) in [
        ("[htpp]\n", "table: did you mean http?"),
        ("[dilivery]\nx = 1\n", "table: did you mean delivery?"),
        ("[node]\nmax_body = \"1KiB\"\n", "key: did you mean http.max_body?"),
        ("max_items = 5\n", "key: did you mean http.max_items?"),
        ("[udp]\ntimeout = \"1s\"\n", "key: did you mean udp.first_timeout?"),
        ("[http.tls]\ncert = \"x\"\n", "key: did you mean http.tls.certificate?"),
        ("\"http.path\" = \"/x\"\n", "key: did you mean http.path?"),
        ("[provisioning]\nx = 1\n", "table: did you mean "),
    ] {
        let faults = sandbox.faults(text);
        assert!(faults.iter().any(|f| f.contains(&format!("is an unknown {nearest}"))), "{faults:#?}");
    }
}

#[test]
fn every_key_refuses_values_of_another_kind_at_their_line() {
    let sandbox = sandbox();
    for key in KEYS {
        for value in ["1.5", "{}", "1979-05-27", "[[]]"] {
            let text = with(key.path, value);
            let faults = sandbox.faults(&text);
            let start = format!("a.toml:{}: {}: is ", text.lines().count(), key.path);
            assert!(
                faults.iter().any(|f| f.starts_with(&start) && f.contains(": give ")),
                "{start}{faults:#?}"
            );
        }
    }
    for table in TABLES.iter() {
        for value in ["1", "[{}]", "\"x\""] {
            let faults = sandbox.faults(&format!("{table} = {value}\n"));
            assert!(faults.iter().any(|f| f.starts_with(&format!("a.toml:1: {table}: is "))), "{faults:#?}");
        }
    }
}

#[test]
fn bounds_are_inside_and_beyond_them_the_fault_says_them() {
    let sandbox = sandbox();
    for key in KEYS {
        let (inside, outside, bounds) = match key.kind {
            Kind::Integer(min, max) => (
                vec![min.to_string(), max.to_string()],
                vec![(min - 1).to_string(), (max + 1).to_string(), "99999999999999999999".to_owned()],
                format!("{min} to {max}"),
            ),
            Kind::Duration(min, max) => {
                let (low, high) = (duration(min).unwrap().as_millis(), duration(max).unwrap().as_millis());
                let below = low.checked_sub(1).map(|l| format!("\"{l}ms\""));
                let outside = below.into_iter().chain([format!("\"{}ms\"", high + 1)]).collect();
                (vec![format!("{min:?}"), format!("{max:?}")], outside, format!("\"{min}\" to \"{max}\""))
            }
            Kind::Size(min, max) => {
                let (low, high) = (size(min).unwrap(), size(max).unwrap());
                let outside = vec![format!("\"{}B\"", low - 1), format!("\"{}B\"", high + 1)];
                (vec![format!("{min:?}"), format!("{max:?}")], outside, format!("\"{min}\" to \"{max}\""))
            }
            _ => continue,
        };
        for value in inside {
            assert!(sandbox.load(&with(key.path, &value)).is_ok(), "{} = {value}", key.path);
        }
        for value in outside {
            let faults = sandbox.faults(&with(key.path, &value));
            let told = faults.len() == 1
                && faults[0].contains("out of bounds: give ")
                && faults[0].contains(&bounds);
            assert!(told, "{} = {value}: {faults:#?}", key.path);
        }
    }
}

#[test]
fn lists_hold_as_many_as_they_say() {
    let sandbox = sandbox();
    for key in ["http.listen", "udp.listen", "digest.algorithms", "delivery.methods", "sms.smsc"] {
        let faults = sandbox.faults(&with(key, "[]"));
        assert!(faults[0].contains(&format!("{key}: has 0 entries: give 1 to ")), "{faults:#?}");
    }
    let many: Vec<String> = (0..65).map(|i| format!("\"127.0.0.1:{}\"", 1000 + i)).collect();
    let faults = sandbox.faults(&with("http.listen", &format!("[{}]", many.join(","))));
    assert!(faults[0].contains("has 65 entries: give 1 to 64"), "{faults:#?}");
}

#[test]
fn a_key_takes_each_of_its_words_and_answers_another_with_them() {
    let sandbox = sandbox();
    for key in KEYS {
        let Kind::OneOf(names) = key.kind else { continue };
        for name in names {
            assert!(sandbox.load(&with(key.path, &format!("{name:?}"))).is_ok(), "{} = {name}", key.path);
        }
    }
    for (key, value, names) in [
        ("xml.children", "\"Qualified\"", "give \"qualified\" or \"default-namespace\""),
        ("digest.algorithms", "[\"SHA-512\"]", "give \"SHA-256\" or \"MD5\""),
        ("delivery.methods", "[\"mail\"]", "give \"http\" or \"udp\" or \"sms\""),
        ("sms.bind", "\"receiver\"", "give \"transceiver\" or \"transmitter-receiver\""),
        ("log.format", "\"yaml\"", "give \"text\" or \"json\" or \"journald\""),
    ] {
        let faults = sandbox.faults(&with(key, value));
        assert!(faults.len() == 1 && faults[0].ends_with(&format!("is not known: {names}")), "{faults:#?}");
    }
}
