//! Log lines with fields to systemd-journald, in its native protocol (systemd.io/JOURNAL_NATIVE_PROTOCOL): one datagram
//! a line, `NAME`, a line feed, the value's length in 64 bits little-endian, the value, a line feed.
//!
//! `MESSAGE` reads as a line of text does, so that `journalctl` shows all; each field of the line and of the spans around
//! it is also one of its own, in capitals behind `LTKMD_`: `journalctl LTKMD_PROCEDURE=register LTKMD_STATUS=403`.

use std::fmt::{self, Write as _};
use std::io::{self, ErrorKind};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

use super::beginning;

/// Where journald listens (systemd-journald.service(8)).
pub const JOURNAL: &str = "/run/systemd/journal/socket";

/// Octets of one value at most; a longer one is cut.
const MAX_VALUE: usize = 8 << 10;

/// Octets of one line's values together, at most: a datagram of the kernel's default size holds them.
const MAX_LINE: usize = 64 << 10;

/// The journal cannot be written to.
#[derive(Debug, thiserror::Error)]
#[error(
    "log.format is \"journald\", and {path} takes no lines ({why}): is systemd-journald running? \"text\" and \
         \"json\" go to stderr"
)]
pub struct JournalError {
    path: String,
    why: io::Error,
}

/// A layer that sends what it sees to the journal. It never waits: a line that the journal has no room for is lost, and
/// the next one tells how many were (`LTKMD_LOST`).
pub struct Journal {
    socket: UnixDatagram,
    path: PathBuf,
    lost: AtomicU64,
}

impl Journal {
    /// Connects to the journal behind this socket.
    ///
    /// # Errors
    /// Nobody listens there, or we may not write to it.
    pub fn connect(path: &Path) -> Result<Self, JournalError> {
        let connected = || {
            let socket = UnixDatagram::unbound()?;
            socket.set_nonblocking(true)?;
            // Journald discards an empty datagram; an error tells that it is not there.
            match socket.send_to(&[], path) {
                Err(error) if error.kind() != ErrorKind::WouldBlock => Err(error),
                _ => Ok(socket),
            }
        };
        let socket = connected().map_err(|why| JournalError { path: path.display().to_string(), why })?;
        Ok(Self { socket, path: path.to_owned(), lost: AtomicU64::new(0) })
    }

    fn send(&self, line: &Line) {
        let lost = self.lost.swap(0, Ordering::Relaxed);
        let mut datagram = line.octets.clone();
        if lost > 0 {
            put(&mut datagram, "LTKMD_LOST", lost.to_string().as_bytes());
        }
        // By its path each time: a journal that was started anew has another socket behind it.
        if self.socket.send_to(&datagram, &self.path).is_err() {
            self.lost.fetch_add(lost + 1, Ordering::Relaxed);
        }
    }
}

/// A datagram that is being put together.
#[derive(Default)]
struct Line {
    octets: Vec<u8>,
}

fn put(octets: &mut Vec<u8>, name: &str, value: &[u8]) {
    octets.extend_from_slice(name.as_bytes());
    octets.push(b'\n');
    octets.extend_from_slice(&(value.len() as u64).to_le_bytes());
    octets.extend_from_slice(value);
    octets.push(b'\n');
}

/// A value's beginning, whole characters of it.
fn cut(value: &str) -> &str {
    beginning(value, MAX_VALUE)
}

impl Line {
    fn put(&mut self, name: &str, value: &str) {
        let value = cut(value);
        if self.octets.len() + value.len() <= MAX_LINE {
            put(&mut self.octets, name, value.as_bytes());
        }
    }
}

/// Fields by name, as they were recorded.
#[derive(Default)]
struct Fields(Vec<(&'static str, String)>);

impl Fields {
    fn set(&mut self, field: &Field, value: String) {
        match self.0.iter_mut().find(|(name, _)| *name == field.name()) {
            Some((_, held)) => *held = value,
            None => self.0.push((field.name(), value)),
        }
    }

    /// Takes the message out.
    fn message(&mut self) -> String {
        let place = self.0.iter().position(|(name, _)| *name == "message");
        place.map_or_else(String::new, |place| self.0.remove(place).1)
    }

    fn show(&self, text: &mut String) {
        for (name, value) in &self.0 {
            let _ = write!(text, " {name}={}", cut(value));
        }
    }

    fn put(&self, line: &mut Line) {
        for (name, value) in &self.0 {
            let capitals: String = name
                .chars()
                .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' })
                .collect();
            line.put(&format!("LTKMD_{capitals}"), value);
        }
    }
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.set(field, value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.set(field, format!("{value:?}"));
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Journal {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        if let Some(span) = context.span(id) {
            span.extensions_mut().insert(fields);
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(fields) = span.extensions_mut().get_mut::<Fields>()
        {
            values.record(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let (mut fields, mut line) = (Fields::default(), Line::default());
        event.record(&mut fields);
        let mut text = fields.message();
        fields.show(&mut text);
        let spans: Vec<_> = context.event_scope(event).into_iter().flatten().collect();
        for span in &spans {
            if let Some(around) = span.extensions().get::<Fields>() {
                around.show(&mut text);
            }
        }
        line.put("MESSAGE", &text);
        // syslog(3)
        let priority = match *event.metadata().level() {
            Level::ERROR => "3",
            Level::WARN => "4",
            Level::INFO => "6",
            Level::DEBUG | Level::TRACE => "7",
        };
        line.put("PRIORITY", priority);
        line.put("SYSLOG_IDENTIFIER", "ltkmd");
        line.put("LTKMD_TARGET", event.metadata().target());
        fields.put(&mut line);
        for span in &spans {
            line.put("LTKMD_SPAN", span.name());
            if let Some(around) = span.extensions().get::<Fields>() {
                around.put(&mut line);
            }
        }
        self.send(&line);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use tracing_subscriber::layer::SubscriberExt;

    use super::*;
    use crate::id::BTid;
    use crate::secret::Secret;

    /// A journal of the tests' own.
    struct Journald {
        socket: UnixDatagram,
        directory: tempfile::TempDir,
    }

    impl Journald {
        fn new() -> Self {
            let directory = tempfile::tempdir().expect("a directory");
            let socket = UnixDatagram::bind(directory.path().join("socket")).expect("a socket");
            Self { socket, directory }
        }

        fn path(&self) -> PathBuf {
            self.directory.path().join("socket")
        }

        /// The next line's fields, read as journald does.
        fn line(&self) -> BTreeMap<String, String> {
            let mut buffer = vec![0; 1 << 20];
            let length = loop {
                match self.socket.recv(&mut buffer).expect("a line") {
                    0 => continue,
                    length => break length,
                }
            };
            let (mut rest, mut fields) = (&buffer[..length], BTreeMap::new());
            while !rest.is_empty() {
                let feed = rest.iter().position(|b| *b == b'\n').expect("a name's end");
                let (name, value) = (&rest[..feed], &rest[feed + 1..]);
                let (size, value) = value.split_at(8);
                let size = u64::from_le_bytes(size.try_into().expect("8 octets")) as usize;
                assert_eq!(value[size], b'\n');
                let text = |octets: &[u8]| String::from_utf8(octets.to_vec()).expect("UTF-8");
                fields.insert(text(name), text(&value[..size]));
                rest = &value[size + 1..];
            }
            fields
        }
    }

    #[test]
    fn a_line_brings_its_fields_and_those_of_the_spans_around_it() {
        let journald = Journald::new();
        let journal = Journal::connect(&journald.path()).expect("somebody listens");
        let btid = BTid::new("q83v/+8=@bsf.example.com").expect("a B-TID");
        tracing::subscriber::with_default(tracing_subscriber::registry().with(journal), || {
            let span = tracing::info_span!("request", procedure = "register", btid = tracing::field::Empty);
            span.record("btid", tracing::field::display(btid.logged()));
            let _inside = span.enter();
            tracing::warn!(status = 403, key = ?Secret::from(&b"hunter2"[..]), "two\nlines");
        });
        let line = journald.line();
        assert_eq!(line["MESSAGE"], "two\nlines status=403 key=Secret(…) procedure=register btid=q83v/+8=…");
        for (name, value) in [
            ("PRIORITY", "4"),
            ("SYSLOG_IDENTIFIER", "ltkmd"),
            ("LTKMD_STATUS", "403"),
            ("LTKMD_KEY", "Secret(…)"),
            ("LTKMD_SPAN", "request"),
            ("LTKMD_PROCEDURE", "register"),
            ("LTKMD_BTID", "q83v/+8=…"),
            ("LTKMD_TARGET", "ltkmd::log::journald::tests"),
        ] {
            assert_eq!(line[name], value, "{name} in {line:?}");
        }
    }

    #[test]
    fn a_journal_that_does_not_read_holds_nobody_up_and_hears_what_it_missed() {
        let journald = Journald::new();
        let journal = Journal::connect(&journald.path()).expect("somebody listens");
        let _default = tracing::subscriber::set_default(tracing_subscriber::registry().with(journal));
        let sent = 10_000;
        for n in 0..sent {
            tracing::info!(n, "a line");
        }
        // What waits is read, then one more line comes through and tells of the rest.
        journald.socket.set_nonblocking(true).expect("set");
        let mut buffer = vec![0; 1 << 20];
        let mut waited = 0;
        while let Ok(length) = journald.socket.recv(&mut buffer) {
            waited += u64::from(length > 0);
        }
        assert!(waited < sent, "the kernel's queue is bounded");
        tracing::info!("after");
        journald.socket.set_nonblocking(false).expect("set");
        assert_eq!(journald.line()["LTKMD_LOST"], (sent - waited).to_string());
    }

    #[test]
    fn long_values_are_cut_and_the_line_still_goes() {
        let journald = Journald::new();
        let journal = Journal::connect(&journald.path()).expect("somebody listens");
        tracing::subscriber::with_default(tracing_subscriber::registry().with(journal), || {
            let long = "é".repeat(1 << 16);
            tracing::info!(a = long, b = long, c = long, d = long, e = long, f = long, g = long, "long");
        });
        let line = journald.line();
        assert_eq!(line["LTKMD_A"].len(), MAX_VALUE);
        assert!(line["MESSAGE"].starts_with("long a=é"));
        assert!(line.values().map(String::len).sum::<usize>() <= MAX_LINE);
    }

    #[test]
    fn no_journal_is_told_with_what_to_do() {
        let directory = tempfile::tempdir().expect("a directory");
        let refused = Journal::connect(&directory.path().join("socket")).err().expect("nobody listens");
        let text = refused.to_string();
        assert!(text.contains("is systemd-journald running?") && text.contains("stderr"), "{text}");
    }
}
