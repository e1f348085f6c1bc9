//! A shell that commands are typed into, one after another.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

/// Nothing in the tour takes this long unless it never ends.
const PATIENCE: Duration = Duration::from_secs(90);

/// What stands before a command's exit code, at the end of its output.
const END: &str = "\u{1}end ";

/// A running bash. What it started ends with it.
pub(super) struct Shell {
    child: Child,
    input: ChildStdin,
    output: Receiver<String>,
}

impl Shell {
    /// Starts in a directory, with variables, and with the program's directory first in the path.
    pub(super) fn start(directory: &Path, variables: &[(&str, String)]) -> Self {
        let programs = Path::new(env!("CARGO_BIN_EXE_ltkmd")).parent().unwrap();
        let path = std::env::var("PATH").unwrap_or_default();
        let mut command = Command::new("bash");
        command.args(["--noprofile", "--norc"]).current_dir(directory).process_group(0);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("LTKM") {
                command.env_remove(name);
            }
        }
        command.env("PATH", format!("{}:{path}", programs.display()));
        command.env("LC_ALL", "C.UTF-8");
        command.envs(variables.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().expect("bash is there");
        let (input, stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let (sender, output) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Self { child, input, output }
    }

    /// Types a command; gives its exit code and what it wrote to stdout and stderr.
    pub(super) fn run(&mut self, command: &str) -> (i32, String) {
        write!(self.input, "{{ {command}\n}} 2>&1\nprintf '\\n{END}%d\\n' $?\n").unwrap();
        self.input.flush().unwrap();
        let mut text = String::new();
        loop {
            let line = self.output.recv_timeout(PATIENCE);
            let line = line.unwrap_or_else(|_| panic!("`{command}` does not end; so far:\n{text}"));
            if let Some(code) = line.strip_prefix(END) {
                return (code.parse().unwrap(), text);
            }
            text.push_str(&line);
            text.push('\n');
        }
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        // The group may be gone already; then there is nothing to end.
        let _ = killpg(Pid::from_raw(self.child.id() as i32), Signal::SIGKILL);
        let _ = self.child.wait();
    }
}
