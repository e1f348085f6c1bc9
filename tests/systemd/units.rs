//! The units that are shipped: systemd takes them without a word, thinks well of them, and they say what the
//! configuration says.

use std::path::{Path, PathBuf};
use std::process::Command;

use ltkmd::config::Settings;
use ltkmd::service_manager::sockets;

const UNITS: [&str; 4] = ["ltkmd.service", "ltkmd-http.socket", "ltkmd-udp.socket", "ltkmd-admin.socket"];

fn shipped(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The values of a key, in the file's order.
fn values<'a>(unit: &'a str, key: &str) -> Vec<&'a str> {
    unit.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('=')).collect()
}

/// The units in a directory, with the program of this build in the place of the installed one.
fn installed(change: impl Fn(String) -> String) -> (tempfile::TempDir, Vec<PathBuf>) {
    let directory = tempfile::tempdir().expect("a directory");
    let paths = UNITS.map(|name| {
        let unit = shipped(name).replace("/usr/bin/ltkmd", crate::harness::PROGRAM);
        let path = directory.path().join(name);
        std::fs::write(&path, change(unit)).expect("written");
        path
    });
    (directory, paths.into())
}

/// Runs systemd-analyze: whether it found nothing, and what it said.
fn analyze(arguments: &[&str], units: &[PathBuf]) -> (bool, String) {
    let mut command = Command::new("systemd-analyze");
    let output = command.args(arguments).arg("--no-pager").args(units).output();
    let output =
        output.expect("this test needs systemd-analyze in the path (Debian: apt-get install systemd)");
    let said =
        [output.stdout, output.stderr].map(|octets| String::from_utf8_lossy(&octets).into_owned()).concat();
    (output.status.success(), said)
}

#[test]
fn systemd_finds_nothing_to_say_against_the_units() {
    let (_directory, units) = installed(|unit| unit);
    assert_eq!(analyze(&["verify", "--man=no"], &units), (true, String::new()));
    // It does find what is wrong.
    let (_directory, wrong) = installed(|unit| unit.replace("[Socket]", "[Socket]\nListenNothing=1"));
    let (_, said) = analyze(&["verify", "--man=no"], &wrong);
    assert!(said.contains("ListenNothing"), "{said}");
}

#[test]
fn the_service_is_exposed_by_1_5_at_most() {
    let (_directory, units) = installed(|unit| unit);
    let (good, said) = analyze(&["security", "--offline=true", "--threshold=15"], &units[..1]);
    assert!(good, "{said}");
    assert!(said.contains("Overall exposure level for ltkmd.service"), "{said}");
    let (_directory, weak) = installed(|unit| unit.replace("CapabilityBoundingSet=\n", ""));
    let (good, said) = analyze(&["security", "--offline=true", "--threshold=15"], &weak[..1]);
    assert!(!good, "the threshold holds: {said}");
}

#[test]
fn the_sockets_are_those_of_the_example_configuration() {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/ltkmd.toml");
    let text = std::fs::read_to_string(example).expect("the example is there");
    // The example's own admin listener needs a token, which is a credential that is not here.
    let (directory, example) = (tempfile::tempdir().expect("a directory"), "unix:/run/ltkmd/admin.sock");
    assert!(text.contains(example), "it is the one that the example tells of");
    let unix = format!("listen = \"unix:{}/admin.sock\"", directory.path().display());
    let settings = Settings::from_toml_str(&text.replace("listen = \"127.0.0.1:9470\"", &unix), "example");
    let settings = settings.expect("without faults");
    let texts = |addresses: &[std::net::SocketAddr]| -> Vec<_> {
        addresses.iter().map(ToString::to_string).collect()
    };
    for (unit, key, name, wanted) in [
        ("ltkmd-http.socket", "ListenStream", sockets::HTTP, texts(&settings.http.listen)),
        ("ltkmd-udp.socket", "ListenDatagram", sockets::UDP, texts(&settings.udp.listen)),
        ("ltkmd-admin.socket", "ListenStream", sockets::ADMIN, vec![example["unix:".len()..].to_owned()]),
    ] {
        let unit = shipped(unit);
        assert_eq!(values(&unit, key), wanted);
        assert_eq!(values(&unit, "FileDescriptorName"), [name]);
        assert_eq!(values(&unit, "Service"), ["ltkmd.service"]);
    }
    let service = shipped("ltkmd.service");
    assert_eq!(values(&service, "Sockets"), ["ltkmd-http.socket ltkmd-udp.socket"]);
    let state = format!("/var/lib/{}", values(&service, "StateDirectory")[0]);
    assert_eq!(settings.store.url.directory(), Some(Path::new(&state)));
}

#[test]
fn every_secret_of_the_configuration_is_a_credential_of_the_service() {
    let reference = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md");
    let reference = std::fs::read_to_string(reference).expect("the reference is there");
    let rows = reference.lines().filter(|line| line.contains("| file of a secret"));
    let keys = rows.map(|row| row.split('`').nth(1).expect("a key"));
    let secrets: Vec<_> = keys
        .map(|key| key.rsplit('.').next().and_then(|k| k.strip_suffix("_file")).expect("a file"))
        .collect();
    assert!(secrets.len() >= 6, "{secrets:?}");
    let service = shipped("ltkmd.service");
    let loaded = values(&service, "LoadCredential");
    for secret in secrets {
        // A path that is not absolute is looked up in the credential stores, and may be absent.
        assert!(loaded.contains(&format!("{secret}:ltkmd.{secret}").as_str()), "{secret} in {loaded:?}");
    }
}
