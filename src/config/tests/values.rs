//! Values of a type of their own: what each takes and what it refuses.

use std::path::Path;
use std::time::Duration;

use super::super::value::*;

#[test]
fn a_duration_has_a_whole_number_and_a_unit() {
    for (text, milliseconds) in
        [("500ms", 500), ("2s", 2000), ("5m", 300_000), ("24h", 86_400_000), ("7d", 604_800_000), ("0s", 0)]
    {
        assert_eq!(duration(text), Ok(Duration::from_millis(milliseconds)), "{text}");
    }
    for text in
        ["", "5", "s", "1.5s", "-1s", "1 s", "1S", "1w", "99999999999999999999s", "9999999999999999999d"]
    {
        assert!(duration(text).is_err(), "{text}");
    }
}

#[test]
fn a_size_has_a_whole_number_and_a_binary_unit() {
    for (text, octets) in [("512B", 512), ("64KiB", 65536), ("1MiB", 1 << 20), ("1GiB", 1 << 30)] {
        assert_eq!(size(text), Ok(octets), "{text}");
    }
    for text in ["", "64", "KiB", "64KB", "64kib", "-1B", "99999999999999999GiB"] {
        assert!(size(text).is_err(), "{text}");
    }
}

#[test]
fn a_host_name_is_labels_between_dots_and_no_address() {
    for text in
        ["bmsc.example.com", "a", "localhost", "3gpp.network", "bmsc.mnc001.mcc262.pub.3gppnetwork.org"]
    {
        assert!(text.parse::<HostName>().is_ok(), "{text}");
    }
    let long = format!("{}.com", "a".repeat(64));
    for text in
        ["", ".", "a.", ".a", "a..b", "-a", "a-", "a_b", "a b", "ä.de", "1.2.3.4", "::1", "1.2", &long]
    {
        assert!(text.parse::<HostName>().is_err(), "{text}");
    }
}

#[test]
fn an_smsc_is_a_scheme_a_host_and_a_port_and_nothing_else() {
    let smsc = |text: &str| text.parse::<Smsc>().map(|s| (s.tls, s.host.clone(), s.port, s.to_string()));
    let made = |tls, host: &str, port, text: &str| Ok((tls, host.to_owned(), port, text.to_owned()));
    assert_eq!(smsc("smpp://a.example"), made(false, "a.example", 2775, "smpp://a.example:2775"));
    assert_eq!(smsc("smpp://127.0.0.1:1/"), made(false, "127.0.0.1", 1, "smpp://127.0.0.1:1"));
    assert_eq!(smsc("smpps://[::1]:3550"), made(true, "::1", 3550, "smpps://[::1]:3550"));
    for text in [
        "",
        "127.0.0.1:2775",
        "http://a",
        "smpp://",
        "smpp://:1",
        "smpp://a:0",
        "smpp://a:65536",
        "smpp://a:b",
        "smpps://a",
        "smpp://::1",
        "smpp://a/b",
        "smpp://a?b",
        "smpp://[a]:1",
    ] {
        assert!(smsc(text).is_err(), "{text}");
    }
    let inline = smsc("smpp://ltkmd:hunter2@a:2775").unwrap_err().to_string();
    assert!(inline.contains("sms_password_file") && !inline.contains("hunter2"), "{inline}");
}

#[test]
fn a_store_is_an_absolute_directory_or_a_database() {
    for text in ["file:/var/lib/ltkmd", "file:///var/lib/ltkmd"] {
        assert_eq!(text.parse::<StoreUrl>().unwrap().directory(), Some(Path::new("/var/lib/ltkmd")));
    }
    for text in ["", "/var/lib/ltkmd", "file:", "file:data", "file://host/data", "sqlite:/x"] {
        assert!(text.parse::<StoreUrl>().is_err(), "{text}");
    }
    let database: StoreUrl = "postgresql://u@localhost/ltkmd".parse().unwrap();
    assert_eq!(
        (database.directory(), database.to_string().as_str()),
        (None, "postgres://u@localhost:5432/ltkmd")
    );
    let refused = "postgres://u:hunter2@db/ltkmd".parse::<StoreUrl>().unwrap_err().to_string();
    assert!(refused.contains("store.store_password_file") && !refused.contains("hunter2"), "{refused}");
}

#[test]
fn an_admin_listener_is_an_address_or_a_socket_path() {
    let unix = |text: &str| text.parse::<AdminListen>().map(|a| a.to_string());
    assert_eq!(unix("127.0.0.1:0"), Ok("127.0.0.1:0".to_owned()));
    assert_eq!(unix("unix:/run/a.sock"), Ok("unix:/run/a.sock".to_owned()));
    assert_eq!(unix("unix:///run/a.sock"), Ok("unix:/run/a.sock".to_owned()));
    let long = format!("unix:/{}", "a".repeat(107));
    for text in ["", "localhost:1", "127.0.0.1", "unix:", "unix:run/a.sock", "unix:/run/", &long] {
        assert!(unix(text).is_err(), "{text}");
    }
}

#[test]
fn a_misspelled_level_is_not_taken_for_a_target() {
    for text in
        ["info", "INFO", "off", "info,ltkmd=debug", "hyper", "h2", "ltkmd::store=trace,warn", "[span]=debug"]
    {
        assert!(text.parse::<LogFilter>().is_ok(), "{text}");
    }
    for text in ["", " ", "inof", "warning", "debug,eror", "ltkmd=loud", "ltkmd=="] {
        assert!(text.parse::<LogFilter>().is_err(), "{text}");
    }
}

#[test]
fn storage_and_driver_are_heard_from_warnings_on_unless_the_filter_names_it() {
    for (text, all) in [
        (
            "info,ltkmd=debug",
            vec!["fjall=warn", "info", "lsm_tree=warn", "ltkmd=debug", "tokio_postgres=warn"],
        ),
        ("info,fjall=trace", vec!["fjall=trace", "info", "lsm_tree=warn", "tokio_postgres=warn"]),
    ] {
        let filter = text.parse::<LogFilter>().unwrap().env_filter().to_string();
        let mut directives: Vec<_> = filter.split(',').collect();
        directives.sort_unstable();
        assert_eq!(directives, all, "{text}");
    }
}

#[test]
fn a_sender_is_a_number_or_a_short_name() {
    assert!("12345".parse::<SmsSource>().unwrap().is_number());
    assert!(!"My Network".parse::<SmsSource>().unwrap().is_number());
    for text in ["", "123456789012345678901", "A name too long", "ä"] {
        assert!(text.parse::<SmsSource>().is_err(), "{text}");
    }
}
