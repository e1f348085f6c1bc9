//! Telling what happens, as it happens: when, who, what.

use std::io::{self, IsTerminal, Write};
use std::time::Instant;

/// The width of the names.
const NAME: usize = 9;

/// Who acts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// The BM-SC.
    Daemon,
    /// Whoever uses the admin API.
    Operator,
    /// A terminal.
    Terminal,
    /// The short message centre.
    Network,
    /// Somebody who should not be there.
    Intruder,
}

impl Role {
    /// Select Graphic Rendition parameters (ECMA-48 §8.3.117).
    fn color(self) -> &'static str {
        match self {
            Self::Daemon => "32",
            Self::Operator => "33",
            Self::Terminal => "36",
            Self::Network => "35",
            Self::Intruder => "31",
        }
    }
}

/// The story so far. What cannot be written is not told; the steps count, not the words.
pub(super) struct Story<W: Write = io::Stdout> {
    began: Instant,
    colored: bool,
    out: W,
}

impl Story {
    /// A story on stdout; in colour when that is a terminal and `NO_COLOR` is not set.
    pub(super) fn on_stdout() -> Self {
        let colored = io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
        Self { began: Instant::now(), colored, out: io::stdout() }
    }
}

impl<W: Write> Story<W> {
    /// A new part of the story.
    pub(super) fn heading(&mut self, text: &str) {
        let (bold, plain) = if self.colored { ("\x1b[1m", "\x1b[0m") } else { ("", "") };
        self.print(&format!("\n{bold}{text}{plain}"));
    }

    /// Something happens.
    pub(super) fn tell(&mut self, role: Role, name: &str, text: &str) {
        let seconds = self.began.elapsed().as_secs_f64();
        let name = format!("{name:<NAME$}");
        let name = if self.colored { format!("\x1b[{}m{name}\x1b[0m", role.color()) } else { name };
        self.print(&format!("{seconds:6.3}s  {name} {text}"));
    }

    /// A line without a time.
    pub(super) fn print(&mut self, text: &str) {
        let told = writeln!(self.out, "{text}").and_then(|()| self.out.flush());
        drop(told);
    }

    /// How long it has taken, in seconds.
    pub(super) fn seconds(&self) -> f64 {
        self.began.elapsed().as_secs_f64()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(colored: bool) -> String {
        let mut story = Story { began: Instant::now(), colored, out: Vec::new() };
        story.heading("Part");
        story.tell(Role::Terminal, "alice", "registers");
        String::from_utf8(story.out).unwrap()
    }

    #[test]
    fn a_line_says_when_who_and_what() {
        let told = told(false);
        let line = told.lines().last().unwrap();
        assert!(line.ends_with("s  alice     registers") && line.trim_start().starts_with("0."), "{line}");
        assert!(!told.contains('\x1b'));
    }

    #[test]
    fn colour_is_there_only_when_asked_for() {
        assert!(told(true).contains("\x1b[36malice"));
    }
}
