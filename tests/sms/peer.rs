//! The short message centre as a test sees it: commands in, all that happened out.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Instant;

use data_encoding::HEXLOWER;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::{PATIENCE, write_secret};

/// What the daemon has to bind with.
pub(crate) const SYSTEM_ID: &str = "ltkmd";
pub(crate) const PASSWORD: &str = "s3cr3tpw";

/// A centre on a loopback port of its own.
pub(crate) struct Smsc {
    child: Child,
    stdin: Mutex<ChildStdin>,
    seen: Arc<Seen>,
    commands: AtomicU64,
    dir: TempDir,
    tls: bool,
    pub(crate) port: u16,
}

/// What it told so far.
#[derive(Default)]
struct Seen {
    events: Mutex<Vec<Value>>,
    more: Condvar,
}

/// A short message, of one part or several.
#[derive(Debug, Clone)]
pub(crate) struct Message {
    pub(crate) to: String,
    /// The parts' octets behind their headers, joined.
    pub(crate) octets: Vec<u8>,
    /// Whether all parts were answered with success.
    pub(crate) accepted: bool,
    /// The centre's names of the parts that it accepted, in order.
    pub(crate) ids: Vec<String>,
    /// The `submit_sm` of the parts, in order.
    pub(crate) parts: Vec<Value>,
}

/// Where `./test` has put node-smpp.
fn modules() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("smsc/node_modules")
}

impl Smsc {
    /// On a free port.
    pub(crate) fn start() -> Self {
        Self::start_at(0)
    }

    /// On this port.
    pub(crate) fn start_at(port: u16) -> Self {
        Self::start_with(port, tempfile::tempdir().expect("a directory"), false)
    }

    /// By TLS, with a new certificate for its address, which is that of its authority too.
    pub(crate) fn start_tls() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).expect("a certificate");
        std::fs::write(dir.path().join("certificate.pem"), made.cert.pem()).expect("written");
        write_secret(&dir.path().join("key.pem"), &made.signing_key.serialize_pem());
        Self::start_with(0, dir, true)
    }

    fn start_with(port: u16, dir: TempDir, tls: bool) -> Self {
        let modules = modules();
        assert!(
            modules.join("smpp").is_dir(),
            "node-smpp is not in {}: run ./test, or copy tests/sms/smsc/package*.json to the directory above it and \
             run `npm ci --ignore-scripts` there",
            modules.display()
        );
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sms/smsc/smsc.js");
        let mut child = Command::new("node")
            .arg(script)
            .arg(port.to_string())
            .args(tls.then_some(dir.path()))
            .env("NODE_PATH", modules)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("node is there: ./test installs it");
        let stdin = child.stdin.take().expect("stdin is a pipe");
        let stdout = child.stdout.take().expect("stdout is a pipe");
        let seen = Arc::new(Seen::default());
        let noted = Arc::clone(&seen);
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let event = serde_json::from_str(&line).expect("a JSON line");
                noted.events.lock().expect("no holder of this lock panics").push(event);
                noted.more.notify_all();
            }
        });
        write_secret(&dir.path().join("sms_password"), PASSWORD);
        let (stdin, commands) = (Mutex::new(stdin), AtomicU64::new(0));
        let mut smsc = Self { child, stdin, seen, commands, dir, tls, port };
        let listening = smsc.await_event("that it listens", |e| e["event"] == "listening");
        smsc.port = listening["port"].as_u64().and_then(|p| u16::try_from(p).ok()).expect("a port");
        smsc.tell(json!({"do": "account", "system_id": SYSTEM_ID, "password": PASSWORD}));
        smsc
    }

    /// As `sms.smsc` names it.
    pub(crate) fn url(&self) -> String {
        format!("{}://{}", if self.tls { "smpps" } else { "smpp" }, self.address())
    }

    /// Its socket address.
    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The certificate of one by TLS.
    pub(crate) fn certificate(&self) -> PathBuf {
        self.dir.path().join("certificate.pem")
    }

    /// A file with the right password.
    pub(crate) fn password_file(&self) -> PathBuf {
        self.dir.path().join("sms_password")
    }

    /// Gives a command, and waits until it holds.
    pub(crate) fn tell(&self, mut command: Value) {
        let id = self.commands.fetch_add(1, Ordering::Relaxed);
        command["id"] = json!(id);
        let mut stdin = self.stdin.lock().expect("no holder of this lock panics");
        writeln!(stdin, "{command}").expect("the centre reads");
        drop(stdin);
        let done = self.await_event(&command.to_string(), |e| e["event"] == "done" && e["id"] == id);
        assert_eq!(done["error"], Value::Null, "{command}");
    }

    /// All that happened, in order.
    pub(crate) fn events(&self) -> Vec<Value> {
        self.seen.events.lock().expect("no holder of this lock panics").clone()
    }

    /// Waits until `look` finds in all that happened what it wants.
    pub(crate) fn await_seen<R>(&self, what: &str, mut look: impl FnMut(&[Value]) -> Option<R>) -> R {
        let deadline = Instant::now() + PATIENCE;
        let mut events = self.seen.events.lock().expect("no holder of this lock panics");
        loop {
            if let Some(found) = look(&events) {
                return found;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let all: Vec<_> = events.iter().map(Value::to_string).collect();
                drop(events);
                panic!("{what} did not come to {}:\n{}", self.port, all.join("\n"));
            }
            (events, _) = self.seen.more.wait_timeout(events, left).expect("no holder of this lock panics");
        }
    }

    /// Waits for the first event that fits.
    pub(crate) fn await_event(&self, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
        self.await_seen(what, |events| events.iter().find(|e| fits(e)).cloned())
    }

    /// Waits for so many events that fit; gives these.
    pub(crate) fn await_events(&self, what: &str, n: usize, fits: impl Fn(&Value) -> bool) -> Vec<Value> {
        self.await_seen(&format!("{n} × {what}"), |events| {
            let found: Vec<_> = events.iter().filter(|e| fits(e)).cloned().collect();
            (found.len() >= n).then_some(found)
        })
    }

    /// Waits until so many binds were accepted; the latest one's event.
    pub(crate) fn await_bound(&self, n: usize) -> Value {
        self.await_events("an accepted bind", n, |e| e["event"] == "bound").remove(n - 1)
    }

    /// Waits until so many more PDUs of this name came than are there now.
    pub(crate) fn await_more(&self, command: &str, n: usize) {
        let before = self.events().iter().filter(|e| e["command"] == command).count();
        self.await_events(command, before + n, |e| e["command"] == command);
    }

    /// The `submit_sm` that came so far.
    pub(crate) fn submits(&self) -> Vec<Value> {
        self.events().into_iter().filter(is_submit).collect()
    }

    /// Waits until so many `submit_sm` came.
    pub(crate) fn await_submits(&self, n: usize) -> Vec<Value> {
        self.await_events("submit_sm", n, is_submit)
    }

    /// The messages that came whole so far, in the order of their last parts.
    pub(crate) fn messages(&self) -> Vec<Message> {
        messages(&self.events())
    }

    /// Waits until so many messages were accepted; gives these.
    pub(crate) fn await_accepted(&self, n: usize) -> Vec<Message> {
        self.await_seen(&format!("{n} accepted messages"), |events| {
            let mut all = messages(events);
            all.retain(|m| m.accepted);
            (all.len() >= n).then_some(all)
        })
    }

    /// Sends a delivery receipt for a part; `form`: `tlv`, `text` or `both`.
    pub(crate) fn receipt(&self, id: &str, state: &str, form: &str) {
        self.tell(json!({"do": "receipt", "message_id": id, "state": state, "form": form}));
    }

    /// The name that its n-th message gets, from 1 on.
    pub(crate) fn id(&self, n: u32) -> String {
        format!("{}-{n}", self.child.id())
    }

    /// The most `submit_sm` that ever waited for their answer.
    pub(crate) fn most_outstanding(&self) -> u64 {
        self.submits().iter().filter_map(|e| e["outstanding"].as_u64()).max().unwrap_or(0)
    }

    /// Ends it as a crash would.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("reaped");
    }
}

impl Drop for Smsc {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether an event is a `submit_sm`.
pub(crate) fn is_submit(event: &Value) -> bool {
    event["event"] == "pdu" && event["command"] == "submit_sm"
}

/// The octets of a field in hexadecimal.
fn octets(field: &Value) -> Vec<u8> {
    HEXLOWER.decode(field.as_str().expect("a string").as_bytes()).expect("hexadecimal")
}

/// An information element of a part's user-data header (3GPP TS 23.040 §9.2.3.24).
pub(crate) fn element(part: &Value, iei: u8) -> Option<Vec<u8>> {
    let elements = part["udh"].as_array().expect("a user-data header");
    elements.iter().find(|e| e["iei"] == iei).map(|e| octets(&e["hex"]))
}

/// Reference, number of parts and place of a part, from 1 (3GPP TS 23.040 §9.2.3.24.1).
pub(crate) fn concatenation(part: &Value) -> Option<(u8, u8, u8)> {
    match element(part, 0).as_deref() {
        None => None,
        Some([reference, total, place]) => Some((*reference, *total, *place)),
        Some(other) => panic!("no concatenation: {other:?}"),
    }
}

/// Puts parts together as a terminal does; of a part that came again, the latest counts.
fn messages(events: &[Value]) -> Vec<Message> {
    let answers: HashMap<_, _> = events
        .iter()
        .filter(|e| e["event"] == "answer")
        .map(|e| ((e["link"].as_u64(), e["sequence_number"].as_u64()), e))
        .collect();
    let answer = |part: &Value| answers.get(&(part["link"].as_u64(), part["sequence_number"].as_u64()));
    let accepted = |part: &Value| answer(part).is_some_and(|a| a["command_status"] == 0);
    let mut open: HashMap<(String, u8), Vec<Option<Value>>> = HashMap::new();
    let mut whole = Vec::new();
    let finish = |to: &str, parts: Vec<Value>| Message {
        to: to.to_owned(),
        octets: parts.iter().flat_map(|p| octets(&p["short_message"])).collect(),
        accepted: parts.iter().all(accepted),
        ids: parts
            .iter()
            .filter(|p| accepted(p))
            .filter_map(|p| Some(answer(p)?["message_id"].as_str()?.to_owned()))
            .collect(),
        parts,
    };
    for part in events.iter().filter(|e| is_submit(e)) {
        let to = part["destination_addr"].as_str().expect("an address");
        let Some((reference, total, place)) = concatenation(part) else {
            whole.push(finish(to, vec![part.clone()]));
            continue;
        };
        assert!((1..=total).contains(&place), "part {place} of {total}");
        let key = (to.to_owned(), reference);
        let parts = open.entry(key.clone()).or_insert_with(|| vec![None; usize::from(total)]);
        parts[usize::from(place - 1)] = Some(part.clone());
        let got: Vec<_> = parts.iter().flatten().cloned().collect();
        if got.len() == parts.len() && (got.iter().all(&accepted) || got.iter().all(|p| answer(p).is_none()))
        {
            open.remove(&key);
            whole.push(finish(to, got));
        }
    }
    whole
}
