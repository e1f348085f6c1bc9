//! Starts the real daemon on free ports and speaks to it as terminals and operators do: over its sockets alone.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses its own part of the harness")]

pub mod digest;
pub mod fleet;
pub mod http;
pub mod ports;
pub mod terminal;

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use http::Reply;
pub use ports::free_port;

pub const ADMIN_TOKEN: &str = "admin-token-of-the-tests";
pub const KEY_READER_TOKEN: &str = "key-reader-token-of-the-tests";
pub const FQDN: &str = "bmsc.example.com";

/// The program under test.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_ltkmd");

/// Nothing that is waited for takes this long unless it never comes.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A daemon with its directory: configuration, secrets and store outlive the process.
pub struct Daemon {
    pub dir: TempDir,
    config: PathBuf,
    /// Makes the command that `serve --config FILE` is appended to.
    launch: Box<dyn Fn() -> Command + Send>,
    child: Option<Child>,
    log: Option<Receiver<String>>,
    /// Lines logged so far.
    pub logged: Vec<String>,
    /// The first of the addresses that terminals' requests are taken at.
    pub http: SocketAddr,
    /// All of them.
    pub http_all: Vec<SocketAddr>,
    /// The first of the addresses that LTKMs leave from.
    pub udp: SocketAddr,
    /// All of them.
    pub udp_all: Vec<SocketAddr>,
    pub admin: SocketAddr,
    /// The terminals' LTKM port.
    pub port: u16,
}

impl Daemon {
    /// Starts with the defaults of the tests.
    pub fn start() -> Self {
        Self::start_with("")
    }

    /// Starts with tables added to, or keys put in place of, the defaults of the tests: `section.key = value`
    /// lines.
    pub fn start_with(overrides: &str) -> Self {
        let mut daemon = Self::start_unready(overrides);
        daemon.await_ready();
        daemon
    }

    /// Starts one that may have to wait for its store: which ports it has is known once it is ready, or from
    /// `overrides`.
    pub fn start_unready(overrides: &str) -> Self {
        Self::start_unready_by(
            overrides,
            Box::new(|| {
                let mut command = Command::new(PROGRAM);
                command.stdin(Stdio::null());
                command
            }),
        )
    }

    /// The same, with a command that runs the [`PROGRAM`] with what is appended to it.
    pub fn start_unready_by(overrides: &str, launch: Box<dyn Fn() -> Command + Send>) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        for (name, token) in [("admin_token", ADMIN_TOKEN), ("key_reader_token", KEY_READER_TOKEN)] {
            write_secret(&dir.path().join(name), token);
        }
        let port = free_port();
        let at = |name: &str| dir.path().join(name).display().to_string();
        let mut settings: toml::Table = toml::from_str(&format!(
            r#"
            node.name = "test"
            node.fqdn = "{FQDN}"
            http.listen = ["127.0.0.1:0"]
            udp.listen = ["127.0.0.1:0"]
            udp.port = {port}
            udp.first_timeout = "10s"
            store.url = "file:{}"
            admin.listen = "127.0.0.1:0"
            admin.admin_token_file = "{}"
            admin.key_reader_token_file = "{}"
            log.format = "json"
            log.filter = "info"
            "#,
            at("store"),
            at("admin_token"),
            at("key_reader_token"),
        ))
        .expect("the defaults are TOML");
        let overrides: toml::Table = toml::from_str(overrides).expect("the overrides are TOML");
        merge(&mut settings, overrides);
        let config = dir.path().join("ltkmd.toml");
        std::fs::write(&config, settings.to_string()).expect("the configuration is written");
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let (http, udp, admin) = (nowhere, nowhere, nowhere);
        let (child, log, logged) = (None, None, Vec::new());
        let (http_all, udp_all) = (Vec::new(), Vec::new());
        let mut daemon =
            Self { dir, config, launch, child, log, logged, http, http_all, udp, udp_all, admin, port };
        daemon.spawn();
        daemon
    }

    /// Changes the configuration file; a restart or a SIGHUP reads it.
    pub fn configure(&self, overrides: &str) {
        let text = std::fs::read_to_string(&self.config).expect("the configuration is there");
        let mut settings: toml::Table = toml::from_str(&text).expect("it is TOML");
        merge(&mut settings, toml::from_str(overrides).expect("the overrides are TOML"));
        std::fs::write(&self.config, settings.to_string()).expect("the configuration is written");
    }

    pub fn config_path(&self) -> &Path {
        &self.config
    }

    /// Starts its process, without waiting until it serves.
    pub fn spawn(&mut self) {
        let mut child = (self.launch)()
            .args(["serve", "--config"])
            .arg(&self.config)
            .stderr(Stdio::piped())
            .spawn()
            .expect("the daemon is started");
        let stderr = child.stderr.take().expect("stderr is a pipe");
        let (sender, receiver) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        self.child = Some(child);
        self.log = Some(receiver);
    }

    /// Waits for the line that says it serves, and learns the ports from it.
    pub fn await_ready(&mut self) {
        let line = self.await_log("\"message\":\"ready\"");
        let event: Value = serde_json::from_str(&line).expect("a JSON line");
        let addresses = |field: &str| -> Vec<SocketAddr> {
            let text = event["fields"][field].as_str().unwrap_or_else(|| panic!("{field} in {line}"));
            let list = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(text);
            let parse = |a: &str| a.parse().unwrap_or_else(|e| panic!("{field} in {line}: {e}"));
            list.split(", ").map(parse).collect()
        };
        (self.http_all, self.udp_all) = (addresses("http"), addresses("udp"));
        (self.http, self.udp, self.admin) = (self.http_all[0], self.udp_all[0], addresses("admin")[0]);
    }

    /// Ends it, and gives all that it ever logged.
    pub fn end_and_read_log(&mut self) -> &[String] {
        self.terminate();
        self.rest_of_log()
    }

    /// All that one ever logged that has ended.
    pub fn rest_of_log(&mut self) -> &[String] {
        let log = self.log.take().expect("the daemon was started");
        self.logged.extend(log.iter());
        &self.logged
    }

    /// Waits for a log line that contains the text.
    pub fn await_log(&mut self, text: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        let log = self.log.as_ref().expect("the daemon was started");
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match log.recv_timeout(left) {
                Ok(line) => {
                    self.logged.push(line.clone());
                    if line.contains(text) {
                        return line;
                    }
                }
                Err(error) => panic!("{error}: no log line with {text:?} in\n{}", self.logged.join("\n")),
            }
        }
    }

    /// Kills it without a warning, as a power cut would.
    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("the daemon runs");
        child.kill().expect("killed");
        child.wait().expect("reaped");
    }

    /// Its process.
    pub fn pid(&self) -> nix::unistd::Pid {
        let id = self.child.as_ref().expect("the daemon runs").id();
        nix::unistd::Pid::from_raw(i32::try_from(id).expect("a process id"))
    }

    /// Sends a signal.
    pub fn signal(&self, signal: nix::sys::signal::Signal) {
        nix::sys::signal::kill(self.pid(), signal).expect("signalled");
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> ExitStatus {
        let mut child = self.child.take().expect("the daemon runs");
        child.wait().expect("reaped")
    }

    /// SIGTERM, and its end.
    pub fn terminate(&mut self) -> ExitStatus {
        self.signal(nix::sys::signal::Signal::SIGTERM);
        self.wait()
    }

    /// Starts it again on the same directory.
    pub fn restart(&mut self) {
        assert!(self.child.is_none(), "it still runs");
        self.spawn();
        self.await_ready();
    }

    /// An admin call with the admin token and a JSON body.
    pub fn admin(&self, method: &str, path: &str, body: Option<&Value>) -> Reply {
        self.admin_as(ADMIN_TOKEN, method, path, body)
    }

    /// An admin call with any token.
    pub fn admin_as(&self, token: &str, method: &str, path: &str, body: Option<&Value>) -> Reply {
        let authorization = format!("Bearer {token}");
        let body = body.map(Value::to_string).unwrap_or_default();
        let headers = [("Authorization", authorization.as_str()), ("Content-Type", "application/json")];
        http::request(self.admin, method, path, &headers, body.as_bytes())
    }

    /// An admin GET that has to succeed.
    pub fn get(&self, path: &str) -> Value {
        let reply = self.admin("GET", path, None);
        assert_eq!(reply.status, 200, "GET {path}: {}", reply.text());
        reply.json()
    }

    /// Asks again until the answer is as wanted.
    pub fn await_state<R>(&self, what: &str, mut look: impl FnMut(&Self) -> Option<R>) -> R {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(found) = look(self) {
                return found;
            }
            assert!(Instant::now() < deadline, "{what} did not come");
            // Leaves the processor to what is waited for; nothing depends on how long.
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }

    /// Puts an open service in, with key group = `group`.
    pub fn put_service(&self, id: &str, group: u16, more: Value) {
        let mut service =
            json!({"key_domain": "b8709d", "key_group": format!("{group:04x}"), "validity": "ntp"});
        service["open"] = json!(true);
        for (field, value) in more.as_object().into_iter().flatten() {
            service[field] = value.clone();
        }
        let reply = self.admin("PUT", &format!("/v1/services/{}", encoded(id)), Some(&service));
        assert_eq!(reply.status, 201, "PUT {id}: {}", reply.text());
    }

    /// The deliveries of a terminal.
    pub fn deliveries(&self, btid: &str) -> Vec<Value> {
        let page = self.get(&format!("/v1/deliveries?terminal={}", encoded(btid)));
        page["items"].as_array().expect("items").clone()
    }

    /// What a terminal's record says.
    pub fn terminal(&self, btid: &str) -> Value {
        self.get(&format!("/v1/terminals/{}", encoded(btid)))
    }

    /// A service's keys with their secrets.
    pub fn keys(&self, service: &str) -> Vec<Value> {
        let path = format!("/v1/services/{}/keys?secrets=true", encoded(service));
        let reply = self.admin_as(KEY_READER_TOKEN, "GET", &path, None);
        assert_eq!(reply.status, 200, "{}", reply.text());
        reply.json()["items"].as_array().expect("items").clone()
    }

    /// Gives a service a new key; the job and the MSK ID.
    pub fn rotate(&self, service: &str, body: Option<&Value>) -> (Value, String) {
        let reply = self.admin("POST", &format!("/v1/services/{}/rotate", encoded(service)), body);
        assert_eq!(reply.status, 202, "{}", reply.text());
        let answer = reply.json();
        (answer["job"].clone(), answer["msk_id"].as_str().expect("an MSK ID").to_owned())
    }

    /// Waits until a metric's series has a value.
    pub fn await_metric(&self, series: &str, wanted: f64) {
        self.await_state(&format!("{series} {wanted}"), |daemon| {
            (daemon.metric(series) == wanted).then_some(())
        });
    }

    /// The value of a metric's series.
    pub fn metric(&self, series: &str) -> f64 {
        let reply = http::request(self.admin, "GET", "/metrics", &[], b"");
        let text = reply.text();
        let line = text.lines().find_map(|l| l.strip_prefix(series)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no series {series} in\n{text}")).parse().expect("a number")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Writes a file that its owner alone can read.
pub fn write_secret(path: &Path, text: &str) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::write(path, text).expect("written");
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).expect("mode set");
}

/// Puts the keys of one table in place of another's.
pub fn merge(into: &mut toml::Table, from: toml::Table) {
    for (key, value) in from {
        match (into.get_mut(&key), value) {
            (Some(toml::Value::Table(into)), toml::Value::Table(from)) => merge(into, from),
            (_, value) => {
                into.insert(key, value);
            }
        }
    }
}

/// Percent-encodes all but unreserved characters (RFC 3986 §2.3).
pub fn encoded(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
    text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}
