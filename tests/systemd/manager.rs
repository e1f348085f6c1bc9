//! What systemd does for a service, in a few lines: it binds sockets and keeps them, hands them over, and listens to
//! what the service says.

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::harness::{Daemon, PATIENCE, PROGRAM};

/// Puts stdin and stdout where handed-over sockets are expected (`sd_listen_fds(3)`), with the process's own number,
/// and goes on as the daemon.
const HAND_OVER: &str = "exec 3<&0 4<&1 </dev/null >/dev/null; export LISTEN_PID=$$; exec \"$@\"";

/// Hands the first two sockets over, at most.
pub(crate) fn launcher(
    sockets: Vec<(&'static str, OwnedFd)>,
    environment: Vec<(&'static str, String)>,
) -> Launch {
    assert!(sockets.len() <= 2, "stdin and stdout carry two");
    Box::new(move || {
        let mut command = Command::new("sh");
        command.args(["-c", HAND_OVER, "sh", PROGRAM]).envs(environment.iter().map(|(n, v)| (n, v)));
        let names: Vec<_> = sockets.iter().map(|(name, _)| *name).collect();
        command.env("LISTEN_FDS", names.len().to_string()).env("LISTEN_FDNAMES", names.join(":"));
        let copy = |fd: &OwnedFd| Stdio::from(fd.as_fd().try_clone_to_owned().expect("a copy"));
        let mut copies = sockets.iter().map(|(_, fd)| copy(fd));
        command.stdin(copies.next().unwrap_or_else(Stdio::null));
        command.stdout(copies.next().unwrap_or_else(Stdio::null));
        command
    })
}

/// What the harness starts the daemon with.
pub(crate) type Launch = Box<dyn Fn() -> Command + Send>;

/// Sockets for terminals, bound once; where they are.
pub(crate) fn terminals_sockets() -> (TcpListener, UdpSocket, SocketAddr, SocketAddr) {
    let http = TcpListener::bind("127.0.0.1:0").expect("bound");
    let udp = UdpSocket::bind("127.0.0.1:0").expect("bound");
    socket2::SockRef::from(&udp).set_recv_buffer_size(8 << 20).expect("a large buffer");
    let (http_at, udp_at) = (http.local_addr().expect("bound"), udp.local_addr().expect("bound"));
    (http, udp, http_at, udp_at)
}

/// A daemon on sockets that this process keeps, and its addresses.
pub(crate) fn start_on_kept_sockets(overrides: &str) -> Daemon {
    let (http, udp, http_at, udp_at) = terminals_sockets();
    let overrides = format!("http.listen = [\"{http_at}\"]\nudp.listen = [\"{udp_at}\"]\n{overrides}");
    let launch = launcher(vec![("http", http.into()), ("udp", udp.into())], Vec::new());
    let mut daemon = Daemon::start_unready_by(&overrides, launch);
    daemon.await_ready();
    assert_eq!((daemon.http, daemon.udp), (http_at, udp_at));
    daemon
}

/// Where a service tells what it does (`sd_notify(3)`).
pub(crate) struct Listener {
    socket: UnixDatagram,
    directory: TempDir,
}

impl Listener {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let socket = UnixDatagram::bind(directory.path().join("notify")).expect("bound");
        Self { socket, directory }
    }

    fn path(&self) -> String {
        let path: &Path = &self.directory.path().join("notify");
        path.display().to_string()
    }

    /// Starts a daemon that tells this listener, with a watchdog of so many milliseconds.
    pub(crate) fn start(&self, overrides: &str, watchdog: Option<u64>) -> Daemon {
        let mut environment = vec![("NOTIFY_SOCKET", self.path())];
        environment.extend(watchdog.map(|ms| ("WATCHDOG_USEC", (ms * 1000).to_string())));
        Daemon::start_unready_by(overrides, launcher(Vec::new(), environment))
    }

    /// The next message within a time: its lines.
    pub(crate) fn within(&self, span: Duration) -> Option<Vec<String>> {
        self.socket.set_read_timeout(Some(span)).expect("a timeout");
        let mut buffer = [0; 4096];
        let len = self.socket.recv(&mut buffer).ok()?;
        let text = std::str::from_utf8(&buffer[..len]).expect("text");
        Some(text.lines().map(str::to_owned).collect())
    }

    /// The next message.
    pub(crate) fn next(&self) -> Vec<String> {
        self.within(PATIENCE).expect("a message")
    }

    /// The next message that has a line.
    pub(crate) fn next_with(&self, line: &str) -> Vec<String> {
        let mut seen = Vec::new();
        // A ping comes all the time: patience is counted in messages.
        for _ in 0..1000 {
            let message = self.next();
            if message.iter().any(|l| l == line) {
                return message;
            }
            seen.push(message);
        }
        panic!("no {line} in {seen:#?}");
    }
}

/// The value of a message's field.
pub(crate) fn field<'a>(message: &'a [String], name: &str) -> &'a str {
    let value = message.iter().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    value.unwrap_or_else(|| panic!("no {name} in {message:?}"))
}
