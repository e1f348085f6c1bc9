//! Daemons over one database, and a database in which many terminals are registered.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::fleet::{BEHIND_PROXY, Fleet, fresh_nonce, import, register_by};
use crate::harness::http::{Connection, request};
use crate::harness::{Daemon, PATIENCE, PROGRAM, free_port, merge, write_secret};
use crate::server::{Postgres, process::poll, shared};

/// Terminals of a fan-out.
pub(crate) const TERMINALS: usize = 20_000;

/// Connections over which a fleet registers.
const CONNECTIONS: usize = 12;

/// How long the database may take to have what a dead daemon did taken over.
pub(crate) const TAKEOVER: Duration = Duration::from_secs(15);

/// The service that they are registered for.
pub(crate) const SERVICE: &str = "urn:s";

/// The tests here measure times and each takes all of the machine: one after the other.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the daemons of a cluster have in common.
pub(crate) struct Cluster {
    files: TempDir,
    url: String,
    /// The terminals' LTKM port.
    pub(crate) port: u16,
    overrides: String,
}

impl Cluster {
    /// One on a database, with settings of its own besides the usual.
    pub(crate) fn new(url: &str, overrides: &str) -> Self {
        let files = tempfile::tempdir().expect("a directory");
        write_secret(&files.path().join("store_key"), &"07".repeat(32));
        write_secret(&files.path().join("cluster_secret"), &"3c".repeat(32));
        Self { files, url: url.to_owned(), port: free_port(), overrides: overrides.to_owned() }
    }

    /// The configuration of a node, as overrides of the tests' defaults.
    pub(crate) fn settings(&self, name: &str) -> String {
        let at = |file: &str| self.files.path().join(file).display().to_string();
        format!(
            "node.name = \"{name}\"\n\
             node.cluster_secret_file = \"{}\"\n\
             store.url = \"{}\"\n\
             store.store_key_file = \"{}\"\n\
             store.connections = 8\n\
             audit.file = \"{}\"\n\
             udp.port = {}\n\
             {BEHIND_PROXY}\n\
             {}",
            at("cluster_secret"),
            self.url,
            at("store_key"),
            at(&format!("{name}.audit")),
            self.port,
            self.overrides
        )
    }

    /// The same with something else in place of it.
    pub(crate) fn settings_with(&self, name: &str, overrides: &str) -> String {
        let mut settings: toml::Table = toml::from_str(&self.settings(name)).expect("TOML");
        merge(&mut settings, toml::from_str(overrides).expect("TOML"));
        settings.to_string()
    }

    /// Starts a daemon that may have to wait.
    pub(crate) fn unready(&self, name: &str) -> Daemon {
        self.unready_by(name, || Command::new(PROGRAM))
    }

    /// The same, by a command of its own.
    pub(crate) fn unready_by(&self, name: &str, launch: fn() -> Command) -> Daemon {
        let launch = move || {
            let mut command = launch();
            command.stdin(Stdio::null());
            command
        };
        let mut daemon = Daemon::start_unready_by(&self.settings(name), Box::new(launch));
        daemon.port = self.port;
        daemon
    }

    /// Starts daemons, and waits until each has its share.
    pub(crate) fn start<const N: usize>(&self, names: [&str; N]) -> [Daemon; N] {
        let mut daemons = names.map(|name| self.unready(name));
        daemons.iter_mut().for_each(Daemon::await_ready);
        daemons
    }
}

/// Which node has how many leases now: those that have ended are nobody's.
pub(crate) fn leases(server: &Postgres, database: &str) -> BTreeMap<String, usize> {
    let text = "SELECT n.name, count(*) FROM ltkmd.lease l JOIN ltkmd.node n ON n.name = l.node AND n.epoch = l.epoch \
                WHERE n.expires > now() GROUP BY n.name";
    let rows = server.sql_in(database, text);
    let row = |line: &str| {
        let (name, count) = line.split_once('|').expect("two columns");
        (name.to_owned(), count.parse().expect("a number"))
    };
    rows.lines().map(row).collect()
}

/// Leases in all.
pub(crate) const RANGES: usize = 64;

/// Waits until these nodes have all leases, each its share; gives how long it took.
#[track_caller]
pub(crate) fn await_shares(server: &Postgres, database: &str, nodes: &[&str]) -> Duration {
    let begun = Instant::now();
    let mut last = BTreeMap::new();
    let shared = poll(begun + PATIENCE, || {
        last = leases(server, database);
        let fair = |n: &&str| last.get(*n).is_some_and(|count| *count >= RANGES / nodes.len());
        (last.values().sum::<usize>() == RANGES && nodes.iter().all(fair)).then_some(())
    });
    assert!(shared.is_some(), "no shares for {nodes:?}: {last:?}");
    begun.elapsed()
}

/// The states of a job add up to its terminals, and there are so many of these.
#[track_caller]
pub(crate) fn adds_up(job: &Value, terminals: usize) {
    let states = job["states"].as_object().expect("states");
    let sum: u64 = states.values().map(|n| n.as_u64().expect("a count")).sum();
    assert_eq!((job["terminals"].as_u64(), sum), (Some(terminals as u64), terminals as u64), "{job}");
    assert!(job["sent"].as_u64() <= Some(terminals as u64), "{job}");
}

/// Waits for the end of a job, asking these daemons in turn: whoever is asked, its states add up. All are verified then.
#[track_caller]
pub(crate) fn await_verified(daemons: &[&Daemon], job: &Value, terminals: usize) {
    let mut last = Value::Null;
    let mut turns = daemons.iter().cycle();
    let done = poll(Instant::now() + 2 * PATIENCE, || {
        last = turns.next()?.get(&format!("/v1/jobs/{job}"));
        adds_up(&last, terminals);
        (last["state"] == "done").then_some(())
    });
    assert!(done.is_some(), "the job does not end: {last}");
    assert_eq!(last["verified"], json!(terminals), "{last}");
}

/// What a daemon says of its readiness.
pub(crate) fn readyz(daemon: &Daemon) -> u16 {
    request(daemon.admin, "GET", "/readyz", &[], b"").status
}

/// Registers terminals at all of these daemons, with one nonce of the first.
pub(crate) fn register_fleet(daemons: &[&Daemon], terminals: usize) {
    let nonce = &fresh_nonce(daemons[0]);
    let next = &AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for at in (0..CONNECTIONS).map(|i| daemons[i % daemons.len()].http) {
            scope.spawn(move || {
                let mut connection = Connection::open(at);
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= terminals {
                        return;
                    }
                    let reply = register_by(&mut connection, &[SERVICE], n, &[0], nonce).expect("an answer");
                    assert_eq!(reply.status, 200, "{}", reply.text());
                }
            });
        }
    });
}

/// A database of the shared server in which [`TERMINALS`] are registered and hold the first key, MSK ID 00010001. Each
/// is a copy of one that was filled once.
pub(crate) fn populated() -> String {
    static FILLED: OnceLock<String> = OnceLock::new();
    let filled = FILLED.get_or_init(|| {
        let database = shared().database();
        let cluster = Cluster::new(
            &shared().url_of("postgres", &database),
            "udp.first_timeout = \"3s\"\nudp.attempts = 10",
        );
        let mut daemons = cluster.start(["a", "b", "c"]);
        let fleet = Fleet::listen(cluster.port);
        daemons[0].put_service(SERVICE, 1, json!({}));
        import(&daemons[1], TERMINALS);
        register_fleet(&daemons.each_ref(), TERMINALS);
        await_holders(&fleet, "00010001", TERMINALS);
        daemons[2].await_state("all answers", |daemon| {
            let page = daemon.get("/v1/services/urn:s/keys");
            (daemon.get("/v1/deliveries?state=sent")["items"].as_array().expect("items").is_empty())
                .then_some(page)
        });
        fleet.seen().assert_rising();
        daemons.iter_mut().for_each(|daemon| assert!(daemon.terminate().success()));
        database
    });
    let copy = shared().database();
    shared().sql(&format!("DROP DATABASE {copy}"));
    shared().sql(&format!("CREATE DATABASE {copy} TEMPLATE {filled}"));
    copy
}

/// Waits until so many terminals hold a key.
#[track_caller]
pub(crate) fn await_holders(fleet: &Fleet, msk_id: &str, terminals: usize) {
    let come = poll(Instant::now() + 2 * PATIENCE, || (fleet.holding(msk_id) >= terminals).then_some(()));
    assert!(come.is_some(), "{} of {terminals} terminals hold {msk_id}", fleet.holding(msk_id));
}
