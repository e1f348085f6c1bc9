//! The file: one thread appends to it, many lines with one sync.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread;

use tokio::sync::{mpsc, oneshot};

use super::chain::{Head, MAX_LINE};
use super::event::Event;
use super::head::Keeper;
use super::tail::{self, Tail};
use crate::metrics::Metrics;
use crate::time::Timestamp;

/// Lines that wait to be written, at most: one for each admin connection. More wait for a place.
const QUEUE: usize = 256;

/// Octets that are written with one sync, at least one line.
const BATCH: usize = MAX_LINE;

/// The file's mode: its owner alone.
const MODE: u32 = 0o600;

/// The log cannot be written: what it would have told of must not happen.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the audit log {path} cannot be written ({why}): nothing is changed without a record of it")]
pub struct AuditError {
    path: String,
    why: String,
}

/// What the writer does next.
enum Order {
    Append(Event, oneshot::Sender<Result<u64, AuditError>>),
    Reopen,
    Close,
}

/// What the writer tells while it works.
#[derive(Debug, Default)]
struct Told {
    head: Head,
    trouble: Option<String>,
}

/// An audit log that is being written. Closed when it is dropped.
pub struct AuditLog {
    orders: mpsc::Sender<Order>,
    told: Arc<Mutex<Told>>,
    path: PathBuf,
    writer: Mutex<Option<thread::JoinHandle<()>>>,
}

impl AuditLog {
    /// Opens the log, or makes it, and writes that the daemon began. A log that cannot be written now is tried again with
    /// every line that is to be written. `node` is `node.name`.
    ///
    /// # Errors
    /// The system has no thread to give.
    pub fn open(path: &Path, node: &str, keeper: Box<dyn Keeper>, metrics: Arc<Metrics>) -> io::Result<Self> {
        metrics.audit_enabled();
        let (orders, queue) = mpsc::channel(QUEUE);
        let told = Arc::new(Mutex::new(Told::default()));
        let mut writer = Writer {
            path: path.to_owned(),
            node: node.to_owned(),
            keeper,
            metrics,
            head: None,
            open: None,
            begun: false,
            told: Arc::clone(&told),
        };
        writer.begin();
        let thread = thread::Builder::new().name("audit".to_owned()).spawn(move || writer.run(queue))?;
        Ok(Self { orders, told, path: path.to_owned(), writer: Mutex::new(Some(thread)) })
    }

    /// Appends a line; its number, once it is durable.
    ///
    /// # Errors
    /// It could not be written: then no line of it counts.
    pub async fn append(&self, event: Event) -> Result<u64, AuditError> {
        let (answer, written) = oneshot::channel();
        let ended =
            || AuditError { path: self.path.display().to_string(), why: "the daemon is ending".to_owned() };
        self.orders.send(Order::Append(event, answer)).await.map_err(|_| ended())?;
        written.await.map_err(|_| ended())?
    }

    /// Lets go of the file and opens its path anew, after what was appended so far: after a rotation the chain goes on in
    /// the new file.
    pub async fn reopen(&self) {
        // A writer that is gone has nothing to reopen.
        let _ = self.orders.send(Order::Reopen).await;
    }

    /// Writes that the daemon ends, and waits until everything is written.
    pub async fn close(&self) {
        // Both fail only when the writer is gone already.
        let _ = self.append(Event::Ended).await;
        let _ = self.orders.send(Order::Close).await;
        let thread = self.writer.lock().expect("no holder of this lock panics").take();
        if let Some(thread) = thread {
            let _ = tokio::task::spawn_blocking(|| thread.join()).await;
        }
    }

    /// The last line.
    pub fn head(&self) -> Head {
        self.told.lock().expect("no holder of this lock panics").head
    }

    /// Why nothing can be written now.
    pub fn trouble(&self) -> Option<String> {
        self.told.lock().expect("no holder of this lock panics").trouble.clone()
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// An open file, and how long it has to be: nobody else writes to it.
struct Open {
    file: File,
    length: u64,
}

struct Writer {
    path: PathBuf,
    node: String,
    keeper: Box<dyn Keeper>,
    metrics: Arc<Metrics>,
    /// What is known of the chain's end: from the keeper at first, then by having written it.
    head: Option<Head>,
    open: Option<Open>,
    /// Whether the line is written that the daemon began.
    begun: bool,
    told: Arc<Mutex<Told>>,
}

impl Writer {
    fn begin(&mut self) {
        self.head = self.keeper.load().unwrap_or_else(|error| {
            tracing::error!(%error, log = %self.path.display(), "the kept head of the audit log is of no use");
            None
        });
        let outcome = self.ready();
        self.tell(outcome.err());
    }

    fn run(mut self, mut queue: mpsc::Receiver<Order>) {
        let mut waiting = queue.blocking_recv();
        while let Some(order) = waiting.take() {
            match order {
                Order::Close => return,
                Order::Reopen => {
                    self.open = None;
                    let outcome = self.ready();
                    self.tell(outcome.err());
                }
                Order::Append(event, answer) => {
                    waiting = self.batch(event, answer, &mut queue);
                }
            }
            if waiting.is_none() {
                waiting = queue.blocking_recv();
            }
        }
    }

    /// Writes what is to be appended now as one; gives the order that it ended at.
    fn batch(
        &mut self,
        event: Event,
        answer: oneshot::Sender<Result<u64, AuditError>>,
        queue: &mut mpsc::Receiver<Order>,
    ) -> Option<Order> {
        let outcome = self.ready();
        let (mut lines, mut answers) = (Vec::new(), Vec::new());
        let mut head = self.head.unwrap_or_default();
        let mut take = |event: Event, answer, lines: &mut Vec<u8>| {
            let (line, next) = head.line(Timestamp::now(), &self.node, event);
            lines.extend_from_slice(&line);
            head = next;
            answers.push((next.seq, answer));
        };
        take(event, answer, &mut lines);
        let mut next = None;
        while lines.len() < BATCH {
            match queue.try_recv() {
                Ok(Order::Append(event, answer)) => take(event, answer, &mut lines),
                Ok(other) => {
                    next = Some(other);
                    break;
                }
                Err(_) => break,
            }
        }
        let count = answers.len() as u64;
        let outcome = outcome.and_then(|()| self.write(&lines, head, count));
        if outcome.is_err() {
            self.metrics.audit_failed(count);
        }
        let refusal = outcome
            .err()
            .map(|error| AuditError { path: self.path.display().to_string(), why: error.to_string() });
        self.tell(refusal.as_ref().map(|refusal| io::Error::other(refusal.why.clone())));
        for (seq, answer) in answers {
            // Who asked may have gone.
            let _ = answer.send(refusal.clone().map_or(Ok(seq), Err));
        }
        next
    }

    /// Sees to it that the file is open, is the one at the path, and is as it was left.
    fn ready(&mut self) -> io::Result<()> {
        if let Some(open) = &self.open {
            let found = open.file.metadata()?;
            if found.len() == open.length && found.nlink() > 0 {
                return Ok(());
            }
            tracing::error!(log = %self.path.display(), "somebody else cut, wrote or removed the audit log");
            self.open = None;
        }
        let mut options = OpenOptions::new();
        let new = !self.path.try_exists()?;
        let file = options.read(true).append(true).create(true).mode(MODE).open(&self.path)?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file"));
        }
        if new && let Some(directory) = self.path.parent() {
            File::open(directory)?.sync_all()?;
        }
        let tail = Tail::read(&file, self.head.map_or(0, |head| head.seq))?;
        let resumption = tail::resume(&tail, self.head);
        let length = file.metadata()?.len();
        self.open = Some(Open { file, length });
        self.go_on(resumption)
    }

    /// Writes what a resumption has to say.
    fn go_on(&mut self, resumption: tail::Resumption) -> io::Result<()> {
        let (mut head, mut lines) = (resumption.head, Vec::new());
        if resumption.end_fragment {
            lines.push(b'\n');
        }
        let mut say = |event: Event| {
            let (line, next) = head.line(Timestamp::now(), &self.node, event);
            lines.extend_from_slice(&line);
            head = next;
        };
        let log = self.path.display();
        match &resumption.event {
            Some(Event::Torn { octets, .. }) => {
                tracing::warn!(%log, octets, "the audit log broke off in the middle of a line; it goes on behind it");
            }
            Some(Event::Missing { from, to }) => {
                tracing::error!(%log, from, to, "lines of the audit log are missing or were replaced");
            }
            _ => {}
        }
        if let Some(event) = resumption.event {
            say(event);
        }
        if !self.begun {
            if resumption.unvouched > 0 {
                tracing::warn!(%log, lines = resumption.unvouched, "lines of the audit log are newer than its kept head");
            }
            let version = env!("CARGO_PKG_VERSION").to_owned();
            say(Event::Started { version, unvouched: resumption.unvouched });
        }
        let count = head.seq - resumption.head.seq;
        self.write(&lines, head, count)?;
        self.begun = true;
        Ok(())
    }

    /// Makes lines durable, so many of them. When that fails nothing of them counts, and the file is looked at anew before the next.
    fn write(&mut self, lines: &[u8], head: Head, count: u64) -> io::Result<()> {
        let open = self.open.as_mut().expect("whoever writes has made it ready");
        let written = open.file.write_all(lines).and_then(|()| open.file.sync_data());
        if let Err(error) = written {
            // What stands there of them is taken back where the file system lets us; else the next resumption tells it.
            let _ = open.file.set_len(open.length);
            self.open = None;
            return Err(error);
        }
        open.length += lines.len() as u64;
        self.metrics.audit_file(open.length);
        self.metrics.audit_written(count);
        self.head = Some(head);
        if let Err(error) = self.keeper.keep(head) {
            tracing::warn!(%error, "the head of the audit log could not be kept: a cut at its end may not show");
        }
        Ok(())
    }

    /// Tells how it went: in the log when that changes.
    fn tell(&mut self, trouble: Option<io::Error>) {
        let mut told = self.told.lock().expect("no holder of this lock panics");
        told.head = self.head.unwrap_or_default();
        let log = self.path.display();
        match (&told.trouble, &trouble) {
            (None, Some(error)) => {
                tracing::error!(%log, %error, "the audit log cannot be written: no change is made until it can");
            }
            (Some(_), None) => tracing::info!(%log, "the audit log is written again"),
            _ => {}
        }
        self.metrics.audit_up(trouble.is_none());
        told.trouble = trouble.map(|error| error.to_string());
    }
}
