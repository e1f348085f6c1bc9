//! The service manager that started the daemon, systemd above all: what it is told (`sd_notify(3)`), and the sockets
//! that it hands over ([`sockets`], `sd_listen_fds(3)`). Without one, nothing here does anything.
//!
//! What the watchdog is for is decided here: it ends a daemon that hangs, never one that waits. A ping follows an
//! answer of the store's committer, given on the daemon's own runtime, whatever the answer says. So a full or missing
//! disk takes readiness away and no ping; a committer that never comes back, or a runtime without a free thread, ends
//! the pings, and a restart is the only thing left that may help.

pub mod sockets;

mod pulse;
pub use pulse::Pulse;

use std::ffi::OsString;
use std::fmt::Write as _;
use std::future::Future;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::pin::pin;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

pub use sd_notify::NotifyState;

/// How long the service manager may leave a message untaken: it must not hold the daemon up.
const UNTAKEN: Duration = Duration::from_secs(2);

/// A ping is sent so many times in the interval after which a silent daemon is ended. Between two pings may lie this
/// share of the interval and the longest wait that the store's committer is allowed; see `WatchdogSec=` of the unit.
const PINGS: u32 = 4;

/// While the daemon starts, the service manager is asked this often to go on waiting …
const STARTING: Duration = Duration::from_secs(5);
/// … for so long from then on.
const START_EXTENSION: Duration = Duration::from_secs(60);

/// Who started the daemon and wants to know how it is.
#[derive(Debug, Default)]
pub struct ServiceManager {
    socket: Option<UnixDatagram>,
    watchdog: Option<Duration>,
    /// Whether it was told that the daemon ends; held while that or a ping's status is sent, so that the status of
    /// the drain is the last.
    ending: Mutex<bool>,
}

impl ServiceManager {
    /// From `NOTIFY_SOCKET`, and `WATCHDOG_USEC` with `WATCHDOG_PID`. A socket that nobody listens on is told in the
    /// log: the daemon works without.
    pub fn from_env() -> Self {
        let Some(name) = std::env::var_os("NOTIFY_SOCKET") else { return Self::default() };
        match connected(&name) {
            Ok(socket) => Self {
                socket: Some(socket),
                watchdog: sd_notify::watchdog_enabled(),
                ending: Mutex::default(),
            },
            Err(error) => {
                tracing::warn!(%error, socket = %name.display(), "the service manager cannot be told anything");
                Self::default()
            }
        }
    }

    /// Tells it, in one message. A failure is logged: nothing depends on it but the service manager's view.
    pub fn tell(&self, states: &[NotifyState<'_>]) {
        let Some(socket) = &self.socket else { return };
        let mut message = String::new();
        for state in states {
            // Writing into a string does not fail.
            let _ = writeln!(message, "{state}");
        }
        if let Err(error) = socket.send(message.as_bytes()) {
            tracing::warn!(%error, "the service manager cannot be told");
        }
    }

    /// The daemon serves.
    pub fn ready(&self) {
        self.tell(&[NotifyState::Ready, NotifyState::Status("ready")]);
    }

    /// The configuration is being read again. [`reloaded`](Self::reloaded) has to follow.
    pub fn reloading(&self) {
        let status = NotifyState::Status("reading the configuration again");
        match NotifyState::monotonic_usec_now() {
            Ok(now) => self.tell(&[NotifyState::Reloading, now, status]),
            // Without the time `Type=notify-reload` would take the next READY for an older one.
            Err(error) => tracing::warn!(%error, "the clock cannot be read"),
        }
    }

    /// The configuration was read again, with what came of it in one line.
    pub fn reloaded(&self, status: &str) {
        self.tell(&[NotifyState::Ready, NotifyState::Status(status)]);
    }

    /// The daemon ends, which takes so long at most.
    pub fn stopping(&self, within: Duration) {
        let mut ending = self.ending.lock().unwrap_or_else(PoisonError::into_inner);
        *ending = true;
        self.tell(&[
            NotifyState::Stopping,
            NotifyState::ExtendTimeoutUsec(microseconds(within)),
            NotifyState::Status("draining: what is under way is finished, nothing new is taken"),
        ]);
    }

    /// Asks for patience until the daemon has started: a store on a disk that is full, or not there yet, is waited
    /// for, however long that takes.
    pub async fn while_starting<T>(&self, starting: impl Future<Output = T>) -> T {
        let mut starting = pin!(starting);
        loop {
            match tokio::time::timeout(STARTING, starting.as_mut()).await {
                Ok(started) => return started,
                Err(_) => self.tell(&[
                    NotifyState::ExtendTimeoutUsec(microseconds(START_EXTENSION)),
                    NotifyState::Status("starting: the store cannot be opened yet, the log says why"),
                ]),
            }
        }
    }

    /// Pings for as long as `beat` comes back: each ping follows one. What it gives is the status line, if it gives
    /// one. Ends at once when no watchdog is asked for, else never.
    pub async fn run_watchdog<B: Future<Output = Option<String>>>(&self, mut beat: impl FnMut() -> B) {
        let Some(limit) = self.watchdog else { return };
        let every = limit / PINGS;
        let mut ticks = tokio::time::interval(every);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let began = tokio::time::Instant::now();
            let mut beating = pin!(beat());
            let status = match tokio::time::timeout(every, beating.as_mut()).await {
                Ok(status) => status,
                Err(_) => {
                    tracing::error!(after = ?every, ?limit, "the store does not answer: the watchdog gets no pings");
                    let status = beating.await;
                    tracing::warn!(took = ?began.elapsed(), "the store answers again");
                    status
                }
            };
            let ending = self.ending.lock().unwrap_or_else(PoisonError::into_inner);
            match status.as_deref().filter(|_| !*ending) {
                Some(status) => self.tell(&[NotifyState::Watchdog, NotifyState::Status(status)]),
                None => self.tell(&[NotifyState::Watchdog]),
            }
        }
    }
}

/// At most 71 minutes, which is what the message has room for.
fn microseconds(span: Duration) -> u32 {
    u32::try_from(span.as_micros()).unwrap_or(u32::MAX)
}

/// A path, or a name in the abstract namespace after `@`.
fn connected(name: &OsString) -> io::Result<UnixDatagram> {
    let address = match name.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(name)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(&address)?;
    socket.set_write_timeout(Some(UNTAKEN))?;
    Ok(socket)
}

#[cfg(test)]
mod tests;
