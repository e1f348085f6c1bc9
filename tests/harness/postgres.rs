//! Real PostgreSQL servers on loopback, as many as a test needs: each in a directory of its own, gone with the test.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses its own part of the harness")]

#[path = "postgres/citus.rs"]
pub mod citus;
#[allow(clippy::duplicate_mod, reason = "a test binary may have the daemon's harness too, or not")]
#[path = "ports.rs"]
mod ports;
#[path = "postgres/process.rs"]
pub mod process;

use std::fmt::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tempfile::TempDir;

use ports::free_port;
use process::{command, directory, ended, give, poll, run, server, signal, signal_all, spawn};

/// Nothing that is waited for takes this long unless it never comes.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The role whose members need their passwords over TCP; everybody else is let in as who they say they are.
pub const BY_PASSWORD: &str = "by_password";

/// Where the newest server's programs are, as Debian has them.
pub fn programs() -> &'static Path {
    static FOUND: OnceLock<PathBuf> = OnceLock::new();
    FOUND.get_or_init(|| {
        let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
        let newest = versions
            .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
            .filter(|version| {
                *version >= 15 && Path::new(&format!("/usr/lib/postgresql/{version}/bin/initdb")).exists()
            })
            .max();
        let newest = newest.expect("PostgreSQL 15 or later is there: ./test installs it");
        PathBuf::from(format!("/usr/lib/postgresql/{newest}/bin"))
    })
}

fn program(name: &str) -> PathBuf {
    programs().join(name)
}

/// A fresh cluster of databases, made once: copying it takes a tenth of making one.
fn template() -> &'static Path {
    static MADE: OnceLock<TempDir> = OnceLock::new();
    let made = MADE.get_or_init(|| {
        let dir = directory();
        run(command(program("initdb")).arg("--pgdata").arg(dir.path().join("data")).args([
            "--username=postgres",
            "--auth=trust",
            "--encoding=UTF8",
            "--locale=C",
            "--wal-segsize=1",
            "--no-sync",
        ]));
        dir
    });
    made.path()
}

/// What a server is started with besides the usual.
#[derive(Debug, Default)]
pub struct Options {
    /// Lines of `postgresql.conf`.
    pub settings: String,
    /// Lines of `pg_hba.conf` before the usual ones.
    pub hba: String,
    /// TLS, with a certificate for `localhost` alone: [`Postgres::authority`].
    pub tls: bool,
}

/// A server. Durable across [`Postgres::kill_9`], not across a crash of the machine (`fsync = off`).
pub struct Postgres {
    dir: TempDir,
    port: u16,
    child: Option<Child>,
    databases: AtomicUsize,
    standbys: AtomicUsize,
}

impl Postgres {
    /// Starts one.
    pub fn start() -> Self {
        Self::start_with(&Options::default())
    }

    /// Starts one with more than the usual.
    pub fn start_with(options: &Options) -> Self {
        let dir = directory();
        let data = dir.path().join("data");
        run(command("/bin/cp").arg("-a").arg(template().join("data")).arg(&data));
        if options.tls {
            let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
            for (name, pem) in
                [("server.crt", made.cert.pem()), ("server.key", made.signing_key.serialize_pem())]
            {
                let path = data.join(name);
                std::fs::write(&path, pem).expect("written");
                std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("mode set");
                give(&path);
            }
        }
        let hba = format!(
            "{}\n\
             local all all trust\n\
             host all +{BY_PASSWORD} 127.0.0.1/32 scram-sha-256\n\
             host all all 127.0.0.1/32 trust\n\
             local replication all trust\n\
             host replication all 127.0.0.1/32 trust\n",
            options.hba
        );
        std::fs::write(data.join("pg_hba.conf"), hba).expect("written");
        let mut settings = String::from(
            "listen_addresses = '127.0.0.1'\n\
             max_connections = 200\n\
             shared_buffers = 16MB\n\
             max_wal_size = 64MB\n\
             min_wal_size = 4MB\n\
             wal_keep_size = 32MB\n\
             fsync = off\n\
             full_page_writes = off\n\
             autovacuum_naptime = 10s\n\
             password_encryption = 'scram-sha-256'\n",
        );
        if options.tls {
            settings.push_str("ssl = on\n");
        }
        settings.push_str(&options.settings);
        let mut made = Self::stopped(dir, &settings);
        made.start_again();
        made.sql(&format!("CREATE ROLE {BY_PASSWORD} NOLOGIN"));
        made
    }

    /// One whose files are there, with these settings appended and a place of its own.
    fn stopped(dir: TempDir, settings: &str) -> Self {
        let port = free_port();
        let file = dir.path().join("data/postgresql.conf");
        let mut text = std::fs::read_to_string(&file).expect("the server's settings");
        let _ = write!(
            text,
            "\n{settings}\nport = {port}\nunix_socket_directories = '{}'\n",
            dir.path().display()
        );
        std::fs::write(&file, text).expect("written");
        Self { dir, port, child: None, databases: AtomicUsize::new(0), standbys: AtomicUsize::new(0) }
    }

    /// Starts it where it was, and waits until it takes connections.
    ///
    /// # Panics
    /// With the server's log, when it does not start.
    pub fn start_again(&mut self) {
        assert!(self.child.is_none(), "it runs");
        let until = Instant::now() + PATIENCE;
        // One that was killed may leave memory that its last processes hold for a moment longer.
        let started = poll(until, || {
            let log = std::fs::File::options()
                .create(true)
                .append(true)
                .open(self.dir.path().join("log"))
                .expect("a log");
            let mut command = server(&program("postgres"));
            command.arg("-D").arg(self.dir.path().join("data"));
            command.stdin(Stdio::null()).stdout(log.try_clone().expect("a log")).stderr(log);
            let mut child = spawn(command).expect("the server starts");
            // The outer question is whether this child comes up, the inner one when.
            let up = poll(until, || match child.try_wait().expect("waited for") {
                Some(_) => Some(false),
                None => self.is_ready().then_some(true),
            });
            if up.is_none() {
                signal(&child, Signal::SIGQUIT);
                ended(&mut child);
            }
            (up == Some(true)).then_some(child)
        });
        self.child = Some(started.unwrap_or_else(|| panic!("it does not start: {}", self.log())));
    }

    /// Whether it takes connections.
    pub fn is_ready(&self) -> bool {
        let mut ask = command(program("pg_isready"));
        ask.arg("-q").arg("-h").arg(self.dir.path()).args(["-p", &self.port.to_string()]);
        ask.status().expect("pg_isready runs").success()
    }

    /// What the server has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// Its TCP port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The directory of its unix socket.
    pub fn socket(&self) -> &Path {
        self.dir.path()
    }

    /// The database `postgres` over TCP, for its superuser, in plain text.
    pub fn url(&self) -> String {
        self.url_of("postgres", "postgres")
    }

    /// A database over TCP for a user, in plain text.
    pub fn url_of(&self, user: &str, database: &str) -> String {
        format!("postgres://{user}@127.0.0.1:{}/{database}?sslmode=disable", self.port)
    }

    /// A database over the unix socket for a user.
    pub fn socket_url_of(&self, user: &str, database: &str) -> String {
        format!("postgres://{user}@/{database}?host={}&port={}", self.dir.path().display(), self.port)
    }

    /// The PEM file of whoever vouches for the server's certificate.
    pub fn authority(&self) -> PathBuf {
        self.dir.path().join("data/server.crt")
    }

    /// Makes an empty database and names it.
    pub fn database(&self) -> String {
        let name = format!("t{}", self.databases.fetch_add(1, Ordering::Relaxed));
        self.sql(&format!("CREATE DATABASE {name}"));
        name
    }

    /// Runs statements in the database `postgres` as its superuser; gives the rows' lines, columns joined by `|`.
    #[track_caller]
    pub fn sql(&self, text: &str) -> String {
        self.sql_in("postgres", text)
    }

    /// The same in another database.
    #[track_caller]
    pub fn sql_in(&self, database: &str, text: &str) -> String {
        let mut psql = command(program("psql"));
        psql.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-U", "postgres"]);
        psql.arg("-h").arg(self.dir.path()).args(["-p", &self.port.to_string(), "-d", database, "-c", text]);
        run(&mut psql).trim_end().to_owned()
    }

    /// Asks until the answer is this one.
    ///
    /// # Panics
    /// When it never is.
    #[track_caller]
    pub fn await_sql(&self, text: &str, wanted: &str) {
        let mut last = String::new();
        let come = poll(Instant::now() + PATIENCE, || {
            last = self.sql(text);
            (last == wanted).then_some(())
        });
        assert!(come.is_some(), "{text}: {last:?} instead of {wanted:?}");
    }

    /// Stops it as an operator does: sessions are ended, what was committed is written.
    pub fn stop_fast(&mut self) {
        self.end(Signal::SIGINT);
    }

    /// Kills all of it at once, as a crash does.
    pub fn kill_9(&mut self) {
        let mut child = self.child.take().expect("it runs");
        signal_all(&child, Signal::SIGKILL);
        assert!(ended(&mut child), "it ends");
    }

    /// Lets it stand still: it is there and answers nothing, until [`Self::thaw`].
    pub fn freeze(&self) {
        signal_all(self.child.as_ref().expect("it runs"), Signal::SIGSTOP);
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        signal_all(self.child.as_ref().expect("it runs"), Signal::SIGCONT);
    }

    fn end(&mut self, by: Signal) {
        let Some(mut child) = self.child.take() else { return };
        signal_all(&child, Signal::SIGCONT);
        signal(&child, by);
        assert!(ended(&mut child), "it ends: {}", self.log());
    }

    /// Starts a standby of this server that its commits wait for, and waits until they do.
    pub fn standby(&self) -> Self {
        let number = self.standbys.fetch_add(1, Ordering::Relaxed) + 1;
        let name = format!("standby{number}");
        let dir = directory();
        let primary = format!("host=127.0.0.1 port={} user=postgres application_name={name}", self.port);
        let mut copy = command(program("pg_basebackup"));
        copy.arg("-D").arg(dir.path().join("data")).args(["-R", "-c", "fast", "-X", "stream", "-N", "-d"]);
        run(copy.arg(&primary));
        let mut standby = Self::stopped(dir, "");
        standby.start_again();
        let names: Vec<String> = (1..=number).map(|n| format!("standby{n}")).collect();
        self.sql(&format!("ALTER SYSTEM SET synchronous_standby_names = 'FIRST 1 ({})'", names.join(", ")));
        self.sql("SELECT pg_reload_conf()");
        let state = format!("SELECT sync_state FROM pg_stat_replication WHERE application_name = '{name}'");
        self.await_sql(&state, if number == 1 { "sync" } else { "potential" });
        standby
    }

    /// Makes a standby the primary, whose commits wait for nobody.
    pub fn promote(&self) {
        assert_eq!(self.sql("SELECT pg_promote(true, 60)"), "t", "{}", self.log());
        self.sql("ALTER SYSTEM RESET synchronous_standby_names");
        self.sql("SELECT pg_reload_conf()");
        self.await_sql("SHOW synchronous_standby_names", "");
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        signal_all(&child, Signal::SIGCONT);
        // It takes its shared memory away with it, which after SIGKILL nobody would.
        signal(&child, Signal::SIGQUIT);
        if !ended(&mut child) {
            signal_all(&child, Signal::SIGKILL);
            let _ = child.wait();
        }
    }
}

/// One server for tests that do nothing to it: each takes a [`Postgres::database`] of its own.
pub fn shared() -> &'static Postgres {
    static SHARED: OnceLock<Postgres> = OnceLock::new();
    SHARED.get_or_init(Postgres::start)
}
