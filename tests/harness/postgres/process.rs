//! Server processes that end with the tests, however these end.

use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::OnceLock;
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, User, geteuid};

use super::PATIENCE;

/// Who runs the servers: PostgreSQL does not run as root.
pub fn account() -> Option<&'static User> {
    static ACCOUNT: OnceLock<Option<User>> = OnceLock::new();
    ACCOUNT
        .get_or_init(|| {
            let named = |name| User::from_name(name).expect("accounts can be read");
            geteuid().is_root().then(|| named("postgres").or_else(|| named("nobody")).expect("an account"))
        })
        .as_ref()
}

/// A command that runs as the servers' account.
pub fn command(program: impl AsRef<Path>) -> Command {
    let mut command = Command::new(program.as_ref());
    if let Some(user) = account() {
        command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
    }
    command.env_clear().env("PATH", "/usr/bin:/bin").env("LC_ALL", "C.UTF-8").current_dir("/");
    command
}

/// Makes a directory the servers' account's own.
pub fn give(path: &Path) {
    if let Some(user) = account() {
        std::os::unix::fs::chown(path, Some(user.uid.as_raw()), Some(user.gid.as_raw())).expect("given away");
    }
}

/// Runs a command to its end.
///
/// # Panics
/// With what it said, when it fails.
#[track_caller]
pub fn run(command: &mut Command) -> String {
    let done = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let said = format!("{}{}", String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success(), "{command:?}: {said}");
    String::from_utf8_lossy(&done.stdout).into_owned()
}

/// Starts a process that gets SIGQUIT when this process ends, even by SIGKILL. That signal comes when the thread ends
/// which started the process (prctl(2)): so one thread starts them all, and never ends.
pub fn spawn(command: Command) -> io::Result<Child> {
    type Order = (Command, Sender<io::Result<Child>>);
    static KEEPER: OnceLock<Sender<Order>> = OnceLock::new();
    let keeper = KEEPER.get_or_init(|| {
        let (orders, taken) = channel::<Order>();
        std::thread::spawn(move || {
            for (mut command, started) in taken {
                let _ = started.send(command.spawn());
            }
        });
        orders
    });
    let (started, child) = channel();
    keeper.send((command, started)).expect("the keeper never ends");
    child.recv().expect("the keeper answers")
}

/// A command for a server, to be [`spawn`]ed.
pub fn server(program: &Path) -> Command {
    let mut command = command("/usr/bin/setpriv");
    command.args(["--pdeathsig", "QUIT", "--"]).arg(program);
    command
}

pub fn signal(child: &Child, signal: Signal) {
    // Gone already is as good.
    let _ = kill(pid(child.id()), signal);
}

fn pid(id: u32) -> Pid {
    Pid::from_raw(i32::try_from(id).expect("a process id"))
}

/// The server's own processes, and itself.
fn family(child: &Child) -> Vec<Pid> {
    let of = |entry: std::fs::DirEntry| -> Option<Pid> {
        let id: u32 = entry.file_name().to_str()?.parse().ok()?;
        let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
        // The name, in parentheses, may hold anything (proc_pid_stat(5)).
        let mut fields = stat[stat.rfind(')')? + 1..].split_whitespace();
        let parent: u32 = fields.nth(1)?.parse().ok()?;
        (parent == child.id()).then(|| pid(id))
    };
    let mut all = vec![pid(child.id())];
    all.extend(std::fs::read_dir("/proc").expect("/proc").flatten().filter_map(of));
    all
}

/// Sends a signal to all of a server at once: it is stopped first, so that it makes no process meanwhile.
pub fn signal_all(child: &Child, what: Signal) {
    signal(child, Signal::SIGSTOP);
    for process in family(child) {
        let _ = kill(process, what);
    }
}

/// Waits for the end of a process.
pub fn ended(child: &mut Child) -> bool {
    poll(Instant::now() + PATIENCE, || child.try_wait().expect("waited for").map(|_| ())).is_some()
}

/// Asks, with growing pauses of at most 50 ms, until there is an answer or the time is over.
pub fn poll<T>(until: Instant, mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    let mut pause = Duration::from_millis(1);
    loop {
        match ask() {
            Some(answer) => return Some(answer),
            None if Instant::now() >= until => return None,
            None => std::thread::sleep(pause),
        }
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

/// A directory of the servers' account, which is removed when it is dropped, or by a later run of the tests when this
/// one was killed.
pub fn directory() -> tempfile::TempDir {
    static SWEPT: OnceLock<()> = OnceLock::new();
    const PREFIX: &str = "ltkmd-postgres-";
    SWEPT.get_or_init(|| {
        for entry in std::fs::read_dir(std::env::temp_dir()).expect("a directory").flatten() {
            let name = entry.file_name();
            let of = name.to_str().and_then(|n| n.strip_prefix(PREFIX)).and_then(|n| n.split('-').next());
            let gone = of.is_some_and(|id| !PathBuf::from(format!("/proc/{id}")).exists());
            if gone {
                let _ = std::fs::remove_dir_all(entry.path());
            }
        }
    });
    let made = tempfile::Builder::new()
        .prefix(&format!("{PREFIX}{}-", std::process::id()))
        .tempdir()
        .expect("a directory");
    give(made.path());
    made
}
