//! systemd as the first process of namespaces of its own, where this machine lets a test have them.

use std::path::Path;
use std::process::Command;

/// Nothing of the machine is reached, not even the network.
const NAMESPACES: [&str; 8] =
    ["--mount", "--pid", "--fork", "--kill-child", "--cgroup", "--net", "--ipc", "--mount-proc"];

/// The scripts say so when they may not do what they have to.
const NOT_ALLOWED: i32 = 77;

/// What was heard of a boot.
pub(crate) struct Booted {
    /// What the probe said.
    pub(crate) said: String,
    /// What systemd said.
    pub(crate) console: String,
}

/// Boots by a script of the tests (`boot.sh`, or one that goes on as it) what lies ready in a place. None where that is
/// not allowed.
pub(crate) fn boot(script: &str, place: &Path) -> Option<Booted> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join(script);
    let booted = Command::new("unshare").args(NAMESPACES).arg("sh").arg(script).arg(place).output();
    let booted = booted.expect("this test needs unshare (Debian: util-linux)");
    let console = String::from_utf8_lossy(&booted.stderr).into_owned();
    if booted.status.code() == Some(NOT_ALLOWED) || console.contains("unshare failed") {
        eprintln!("namespaces are not allowed here, the other tests have to do: {console}");
        return None;
    }
    let said = std::fs::read_to_string(place.join("said")).unwrap_or_default();
    Some(Booted { said, console })
}
