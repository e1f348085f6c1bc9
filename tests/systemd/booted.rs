//! The shipped units under systemd itself, hardening and all, where this machine lets a test have namespaces.

use std::path::Path;

use crate::harness::{FQDN, PROGRAM, write_secret};
use crate::machine::{self, Booted};

fn prepare(place: &Path) {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR"));
    for directory in ["units", "units/ltkmd.service.d", "run/credstore", "run/program"] {
        std::fs::create_dir_all(place.join(directory)).expect("made");
    }
    for entry in std::fs::read_dir(sources.join("systemd")).expect("the units") {
        let path = entry.expect("a file").path();
        let unit = std::fs::read_to_string(&path).expect("a unit");
        // The same service, with what is only in this boot: the program, the configuration, a group that exists.
        let unit = unit.replace("/usr/bin/ltkmd", "/run/program/ltkmd");
        let unit = unit.replace("/etc/ltkmd/ltkmd.toml", "/run/program/ltkmd.toml");
        let unit = unit.replace("SocketGroup=ltkmd-admin", "SocketGroup=daemon");
        std::fs::write(place.join("units").join(path.file_name().expect("a name")), unit).expect("written");
    }
    // No journal here; and nobody waits two minutes.
    let drop_in = format!(
        "[Service]\nStandardError=append:{}\nWatchdogSec=10s\nTimeoutAbortSec=1s\nRestartSec=100ms\n",
        place.join("log").display()
    );
    std::fs::write(place.join("units/ltkmd.service.d/test.conf"), drop_in).expect("written");
    std::fs::copy(PROGRAM, place.join("run/program/ltkmd")).expect("copied");
    let configuration = format!("node.fqdn = \"{FQDN}\"\nadmin.listen = \"unix:/run/ltkmd/admin.sock\"\n");
    std::fs::write(place.join("run/program/ltkmd.toml"), configuration).expect("written");
    write_secret(&place.join("run/credstore/ltkmd.key_reader_token"), "a-token");
    std::fs::copy(sources.join("tests/systemd/probe.sh"), place.join("probe.sh")).expect("copied");
}

#[test]
fn the_service_starts_reloads_restarts_and_ends_under_systemd_with_all_its_hardening() {
    let directory = tempfile::tempdir().expect("a directory");
    let place = directory.path();
    prepare(place);
    let Some(Booted { said, console }) = machine::boot("tests/systemd/boot.sh", place) else {
        return;
    };
    let lines: Vec<_> = said.lines().map(str::trim_end).collect();
    let wanted = [
        "before: inactive",
        "first call: 404",
        "then: active notify ready; 0 registrations, 0 deliveries open",
        "user: ltkmd capabilities 0000000000000000 privileges 1 filter 2",
        "sockets: admin http udp",
        "credentials: key_reader_token",
        "state: drwx------ ltkmd",
        "admin: 660 daemon {\"status\":\"ok\",\"checks\":{\"http\":\"ok\",\"store\":\"ok\",\"udp\":\"ok\"}}",
        "reload: configuration read again, pid the same",
        "killed: restarted 1",
        "calls: answered",
        "hang: restarted 2, active",
        "stop: inactive success 0",
        "afterwards: socket, called again: 404",
        "end",
    ];
    let log = std::fs::read_to_string(place.join("log")).unwrap_or_default();
    assert_eq!(lines, wanted, "\nlog:\n{log}\nconsole:\n{console}");
}
