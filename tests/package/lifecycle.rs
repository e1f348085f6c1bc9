//! Installed, named, started, upgraded, removed and purged by dpkg, under systemd, in a copy of the machine's own tree.

use std::path::Path;

use crate::machine::{self, Booted};
use crate::made::package;

fn prepare(place: &Path) {
    for directory in ["units/ltkmd.service.d", "run"] {
        std::fs::create_dir_all(place.join(directory)).expect("made");
    }
    // No journal here.
    let log = format!("[Service]\nStandardError=append:{}\n", place.join("log").display());
    std::fs::write(place.join("units/ltkmd.service.d/test.conf"), log).expect("written");
    std::fs::copy(&package().file, place.join("first.deb")).expect("copied");
    package().changed(&place.join("second.deb"), |tree| {
        let change = |path: &str, from: &str, to: &str| {
            let path = tree.join(path);
            let text = std::fs::read_to_string(&path).expect("text");
            let changed = text.replacen(from, to, 1);
            assert_ne!(changed, text, "{from} is there");
            std::fs::write(path, changed).expect("written");
        };
        let version = env!("CARGO_PKG_VERSION");
        change("DEBIAN/control", &format!("Version: {version}-1"), &format!("Version: {version}-2"));
        change("etc/ltkmd/ltkmd.toml", "# ", "# Of the second version.\n# ");
    });
    let probe = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/package/probe.sh");
    std::fs::copy(probe, place.join("probe.sh")).expect("copied");
}

#[test]
fn it_is_installed_named_started_upgraded_removed_and_purged() {
    let directory = tempfile::tempdir().expect("a directory");
    let place = directory.path();
    prepare(place);
    let Some(Booted { said, console }) = machine::boot("tests/package/tree.sh", place) else {
        return;
    };
    let lines: Vec<_> = said.lines().map(str::trim_end).collect();
    let version = env!("CARGO_PKG_VERSION");
    let wanted = [
        &format!("installed: installed {version}-1"),
        "ltkmd is installed and not started: it has no name yet. To begin:",
        "  1. give it one, node.fqdn in /etc/ltkmd/ltkmd.toml",
        "  2. ltkmd check",
        "  3. systemctl enable --now ltkmd-admin.socket ltkmd.service",
        "/usr/share/doc/ltkmd/docs/packages.md tells the rest.",
        "units: 4 disabled inactive",
        "group: ltkmd-admin:",
        "check: /etc/ltkmd/ltkmd.toml:10: node.fqdn: is missing: add a line such as fqdn = \"bmsc.example.com\" 2",
        "started too early: exit-code 2 node.fqdn: is missing",
        "named: ok",
        "status: ready; 0 registrations, 0 deliveries open",
        "units: 4 enabled active",
        "ctl: http=ok store=ok udp=ok",
        "call: 404",
        &format!("upgraded: installed {version}-2, restarted, sockets kept"),
        "calls: 404",
        "configuration: fqdn = \"bmsc.example.net\", the new example: 1",
        &format!("again: installed {version}-2, fqdn = \"bmsc.example.net\""),
        &format!("removed: config-files {version}-2, 4 masked inactive, call 000"),
        "left: ltkmd.toml ltkmd.toml.dpkg-dist, program",
        "back: 4 enabled active, call 404",
        "ltkmd: the store is kept, in /var/lib/private/ltkmd; delete it when nobody needs its keys any more",
        "purged:  /var/lib/ltkmd /var/lib/private/ltkmd",
        "end",
    ];
    let log = std::fs::read_to_string(place.join("log")).unwrap_or_default();
    assert_eq!(lines, wanted, "\nlog:\n{log}\nconsole:\n{console}");
}
