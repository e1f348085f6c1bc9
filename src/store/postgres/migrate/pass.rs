//! One pass: a backup's octets in, rows out where they differ from the pass before.

use std::collections::BTreeMap;

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::batch::{Batch, TerminalRow};
use super::{Migration, spool, spooling};
use crate::delivery::Terminal;
use crate::id::{JobId, ServiceNo, SubscriberId, TerminalKey};
use crate::store::backup::{BackupError, End, Head, Kind, Parser, Piece};
use crate::store::embedded::RECORDS;
use crate::store::postgres::change::{Counter, count};
use crate::store::postgres::message;
use crate::store::postgres::place::shard;
use crate::store::record::{self, KeyRecord, Totals};
use crate::store::tally::Tally;
use crate::store::{Job, Sealer, StoreError};

/// Terminals that are compared at the end, at most.
const SAMPLE: usize = 1024;

/// Octets of a hash by which a record is known again.
const HASH: usize = 16;

/// What a pass wrote: keys and hashes, in the order of keys.
#[derive(Default)]
pub(super) struct Known {
    subscribers: spool::Reader,
    terminals: spool::Reader,
}

/// A terminal as it has to be: key, credential, state.
pub(super) type Sampled = (TerminalKey, Option<Vec<u8>>, Option<Vec<u8>>);

/// What a pass saw.
pub struct PassReport {
    /// Terminals of the backup, with a credential, a state or both.
    pub terminals: u64,
    /// Subscribers of the backup.
    pub subscribers: u64,
    /// Records of terminals and subscribers that were written.
    pub written: u64,
    /// Those that were removed, because the backup before had them and this one has not.
    pub removed: u64,
    pub(super) first_t: u64,
    pub(super) members: u64,
    pub(super) services: Vec<(ServiceNo, Bytes)>,
    pub(super) keys: Vec<(ServiceNo, u16, KeyRecord, Bytes)>,
    pub(super) jobs: Vec<Job>,
    pub(super) totals: Totals,
    pub(super) tally: BTreeMap<(i32, Counter), [i64; 9]>,
    /// Some of the terminals as they have to be.
    pub(super) sample: Vec<Sampled>,
}

/// A pass that is under way.
pub struct Pass<'a> {
    migration: &'a mut Migration,
    parser: Parser,
    known: Known,
    subscribers: spool::Writer,
    terminals: spool::Writer,
    /// Credentials that wait for their states.
    aside: Option<spool::Writer>,
    credentials: spool::Reader,
    sealer: Option<Sealer>,
    batch: Batch,
    /// Counters of this shard's terminals so far.
    counting: (i32, Tally),
    stride: u64,
    end: Option<End>,
    report: PassReport,
}

fn backup(error: BackupError) -> StoreError {
    match error {
        BackupError::WrongKey => StoreError::Open(
            "the store key is not the one that the daemon's store was made with: give the configuration of that daemon"
                .to_owned(),
        ),
        error => StoreError::Unavailable(format!("what the daemon sends is no backup: {error}")),
    }
}

fn damaged(kind: Kind) -> StoreError {
    StoreError::Damaged(format!("a {kind:?} in what the daemon sends"))
}

/// The hash by which a record is known again.
fn hash(parts: [Option<&[u8]>; 2]) -> [u8; HASH] {
    let mut digest = Sha256::new();
    for part in parts {
        digest.update(part.map_or(u64::MAX, |octets| octets.len() as u64).to_be_bytes());
        digest.update(part.unwrap_or_default());
    }
    *digest.finalize().first_chunk().expect("a SHA-256 is longer")
}

/// How a record stands to what the pass before wrote.
enum Since {
    Same,
    New,
    Changed,
}

/// Looks a record up in the pass before; keys that come before it there are gone, and told.
fn since(
    known: &mut spool::Reader,
    key: &[u8],
    hash: &[u8; HASH],
    mut gone: impl FnMut(&[u8]) -> Result<(), StoreError>,
) -> Result<Since, StoreError> {
    while known.key().is_some_and(|before| before < key) {
        if let Some((before, _)) = known.take().map_err(spooling)? {
            gone(&before)?;
        }
    }
    if known.key() != Some(key) {
        return Ok(Since::New);
    }
    let before = known.take().map_err(spooling)?;
    Ok(if before.is_some_and(|(_, before)| before == hash) { Since::Same } else { Since::Changed })
}

impl<'a> Pass<'a> {
    pub(super) fn new(migration: &'a mut Migration) -> Result<Self, StoreError> {
        let spool = || spool::Writer::new().map_err(spooling);
        let (subscribers, terminals, aside) = (spool()?, spool()?, Some(spool()?));
        let known = std::mem::take(&mut migration.known);
        Ok(Self {
            migration,
            parser: Parser::new(),
            known,
            subscribers,
            terminals,
            aside,
            credentials: spool::Reader::default(),
            sealer: None,
            batch: Batch::default(),
            counting: (0, Tally::default()),
            stride: 1,
            end: None,
            report: PassReport {
                terminals: 0,
                subscribers: 0,
                written: 0,
                removed: 0,
                first_t: 1,
                members: 0,
                services: Vec::new(),
                keys: Vec::new(),
                jobs: Vec::new(),
                totals: Totals::default(),
                tally: BTreeMap::new(),
                sample: Vec::new(),
            },
        })
    }

    /// About how many records come, once it is known, and those that came.
    pub fn progress(&self) -> (u64, u64) {
        (self.migration.head.as_ref().map_or(0, |head| head.expected), self.parser.counts().all())
    }

    /// Takes a backup's next octets, and writes what they make full.
    ///
    /// # Errors
    /// They are no backup of a store under this key; the database does not work; nothing can be set aside.
    pub async fn feed(&mut self, octets: &[u8]) -> Result<(), StoreError> {
        self.parser.feed(octets);
        while let Some(piece) = self.parser.piece().map_err(backup)? {
            match piece {
                Piece::Head(head) => self.head(head).await?,
                Piece::Records(kind, records) => {
                    for (key, value) in records {
                        self.record(kind, &key, value)?;
                        if self.batch.is_full() {
                            self.write().await?;
                        }
                    }
                }
                Piece::End(end) => self.end = Some(end),
            }
        }
        Ok(())
    }

    /// The backup is at its end: writes the rest, and tells what it was.
    ///
    /// # Errors
    /// See [`Pass::feed`]; the backup is not whole, or was not made under the store key.
    pub async fn finish(mut self) -> Result<PassReport, StoreError> {
        let parser = std::mem::take(&mut self.parser);
        parser.finish().map_err(backup)?;
        let (Some(sealer), Some(end)) = (&self.sealer, &self.end) else {
            return Err(StoreError::Damaged("a backup without its end".to_owned()));
        };
        end.check_seal(sealer).map_err(backup)?;
        self.join()?;
        while let Some((key, credential)) = self.credentials.take().map_err(spooling)? {
            self.terminal(terminal_key(&key, Kind::Credential)?, Some(credential), None)?;
            if self.batch.is_full() {
                self.write().await?;
            }
        }
        while let Some((key, _)) = self.known.subscribers.take().map_err(spooling)? {
            gone_subscriber(&mut self.batch, &mut self.report, &key)?;
        }
        while let Some((key, _)) = self.known.terminals.take().map_err(spooling)? {
            gone_terminal(&mut self.batch, &mut self.report, &key)?;
            if self.batch.is_full() {
                self.write().await?;
            }
        }
        self.write().await?;
        self.counted(-1);
        self.migration.known = Known {
            subscribers: self.subscribers.read().map_err(spooling)?,
            terminals: self.terminals.read().map_err(spooling)?,
        };
        Ok(self.report)
    }

    async fn write(&mut self) -> Result<(), StoreError> {
        self.batch.write(&self.migration.client, self.migration.distributed).await
    }

    async fn head(&mut self, head: Head) -> Result<(), StoreError> {
        if head.format != RECORDS {
            return Err(StoreError::Open(format!(
                "the daemon's store is of format {}, and this program knows {RECORDS}: use the daemon's own ltkmd",
                head.format
            )));
        }
        let sealer = Sealer::unwrap(&self.migration.master, &head.wrapped);
        self.sealer = Some(sealer.map_err(|_| backup(BackupError::WrongKey))?);
        self.report.first_t = head.first_t;
        match &self.migration.head {
            None => self.migration.create(&head).await?,
            Some(before) if before.wrapped.octets() != head.wrapped.octets() => {
                return Err(StoreError::Open("the daemon has another store by now: begin again".to_owned()));
            }
            Some(_) => {}
        }
        self.migration.head = Some(head);
        Ok(())
    }

    fn record(&mut self, kind: Kind, key: &[u8], value: Bytes) -> Result<(), StoreError> {
        let damaged = || damaged(kind);
        let service = || key.first_chunk().map(|no| ServiceNo(u32::from_be_bytes(*no))).ok_or_else(damaged);
        match kind {
            Kind::Service => self.report.services.push((service()?, value)),
            Kind::Key => {
                let number = key.last_chunk().map(|no| u16::from_be_bytes(*no)).ok_or_else(damaged)?;
                let read = record::read_key(&value).map_err(|_| damaged())?;
                self.report.keys.push((service()?, number, read, value));
            }
            Kind::Job => {
                let id = key.try_into().map(|id| JobId(u64::from_be_bytes(id))).map_err(|_| damaged())?;
                self.report.jobs.push(record::read_job(id, &value).map_err(|_| damaged())?);
            }
            Kind::Totals => self.report.totals = record::read_totals(&value).map_err(|_| damaged())?,
            Kind::Subscriber => self.subscriber(key, value)?,
            Kind::Credential => {
                let aside = self.aside.as_mut().ok_or_else(damaged)?;
                aside.put(key, &value).map_err(spooling)?;
            }
            Kind::State => {
                self.join()?;
                let key = terminal_key(key, kind)?;
                let mut credential = None;
                while self.credentials.key().is_some_and(|waiting| waiting <= &key.0[..]) {
                    let Some((waiting, octets)) = self.credentials.take().map_err(spooling)? else { break };
                    if waiting == key.0 {
                        credential = Some(octets);
                    } else {
                        self.terminal(terminal_key(&waiting, Kind::Credential)?, Some(octets), None)?;
                    }
                }
                self.terminal(key, credential, Some(value))?;
            }
        }
        Ok(())
    }

    /// All credentials are set aside: they are read from now on.
    fn join(&mut self) -> Result<(), StoreError> {
        if let Some(aside) = self.aside.take() {
            self.credentials = aside.read().map_err(spooling)?;
        }
        Ok(())
    }

    fn subscriber(&mut self, key: &[u8], value: Bytes) -> Result<(), StoreError> {
        let id = subscriber_id(key)?;
        record::read_subscriber(&id, &value).map_err(|_| damaged(Kind::Subscriber))?;
        let hash = hash([Some(&value), None]);
        self.subscribers.put(key, &hash).map_err(spooling)?;
        self.report.subscribers += 1;
        let Self { known, batch, report, .. } = self;
        let since = since(&mut known.subscribers, key, &hash, |gone| gone_subscriber(batch, report, gone))?;
        match since {
            Since::Same => return Ok(()),
            Since::New => {}
            Since::Changed => batch.gone_subscribers.push(id.clone()),
        }
        report.written += 1;
        batch.octets += key.len() + value.len();
        batch.subscribers.push((id, value));
        Ok(())
    }

    fn terminal(
        &mut self,
        key: TerminalKey,
        credential: Option<Vec<u8>>,
        state: Option<Bytes>,
    ) -> Result<(), StoreError> {
        let read = record::read_terminal(key, credential.as_deref(), state.as_deref(), self.report.first_t);
        let terminal = read.map_err(|_| damaged(Kind::State))?;
        if state.is_some() {
            if self.counting.0 != shard(key) {
                self.counted(shard(key));
            }
            self.counting.1.change(&Terminal::new(key), &terminal);
        }
        let services = terminal.registration.as_ref().map(|r| r.services.clone()).unwrap_or_default();
        self.report.members += services.len() as u64;
        if self.report.terminals.is_multiple_of(self.stride) {
            self.report.sample.push((key, credential.clone(), state.as_deref().map(<[u8]>::to_vec)));
            if self.report.sample.len() > SAMPLE {
                let mut place = 0;
                self.report.sample.retain(|_| {
                    place += 1;
                    place % 2 == 1
                });
                self.stride *= 2;
            }
        }
        self.report.terminals += 1;
        let hash = hash([credential.as_deref(), state.as_deref()]);
        self.terminals.put(&key.0, &hash).map_err(spooling)?;
        let Self { known, batch, report, .. } = self;
        let since = since(&mut known.terminals, &key.0, &hash, |gone| gone_terminal(batch, report, gone))?;
        match since {
            Since::Same => return Ok(()),
            Since::New => {}
            Since::Changed => batch.gone_terminals.push(key),
        }
        report.written += 1;
        batch.octets += credential.as_ref().map_or(0, Vec::len) + state.as_ref().map_or(0, Bytes::len);
        let millis = |t: crate::time::Timestamp| i64::try_from(t.0).unwrap_or(i64::MAX);
        let (look, turn) = (terminal.next_due().map(millis), terminal.next_turn().map(millis));
        let messages = message::ids(&terminal).into_iter().cloned().collect();
        batch.terminals.push(TerminalRow { key, credential, state, look, turn, services, messages });
        Ok(())
    }

    /// The terminals of a shard are counted; the next shard begins.
    fn counted(&mut self, next: i32) {
        let (of, tally) = std::mem::replace(&mut self.counting, (next, Tally::default()));
        count(&mut self.report.tally, of, &tally);
    }
}

fn gone_subscriber(batch: &mut Batch, report: &mut PassReport, key: &[u8]) -> Result<(), StoreError> {
    batch.gone_subscribers.push(subscriber_id(key)?);
    report.removed += 1;
    Ok(())
}

fn gone_terminal(batch: &mut Batch, report: &mut PassReport, key: &[u8]) -> Result<(), StoreError> {
    batch.gone_terminals.push(terminal_key(key, Kind::State)?);
    report.removed += 1;
    Ok(())
}

fn subscriber_id(key: &[u8]) -> Result<SubscriberId, StoreError> {
    let id = std::str::from_utf8(key).ok().and_then(|text| SubscriberId::new(text).ok());
    id.ok_or_else(|| damaged(Kind::Subscriber))
}

fn terminal_key(key: &[u8], kind: Kind) -> Result<TerminalKey, StoreError> {
    key.try_into().map(TerminalKey).map_err(|_| damaged(kind))
}
