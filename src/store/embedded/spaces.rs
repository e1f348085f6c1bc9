//! The engine's keyspaces, and reading single records of them.
//!
//! | keyspace | key | value |
//! | --- | --- | --- |
//! | `credential` | terminal key | B-TID, subscriber, sealed MRK and MUK |
//! | `state` | terminal key | T, registration, deliveries: small, rewritten often, outlives the credential |
//! | `member` | service number ‖ terminal key | nothing |
//! | `subscriber` | IMPI | MSISDN, services, terminal keys |
//! | `small` | see [`small`] | services, keys, jobs, counters, format, wrapped data key, first T |

use std::path::Path;
use std::sync::Arc;

use fjall::compaction::Leveled;
use fjall::config::{BlockSizePolicy, PinningPolicy};
use fjall::{AbstractTree, Database, Keyspace, KeyspaceCreateOptions, PersistMode, Slice};

use super::recent::Recent;
use crate::delivery::Terminal;
use crate::id::{JobId, ServiceNo, SubscriberId, TerminalKey};
use crate::store::codec::Damaged;
use crate::store::record::{self, SubscriberRecord};
use crate::store::{Job, StoreError};

/// Memtable of every keyspace, in octets. Larger ones stall commits while they are flushed.
const MEMTABLE: u64 = 8 << 20;
/// All journals together, in octets.
const JOURNALS: u64 = 128 << 20;
/// Tables that compaction writes, in octets: each is synced as a whole, and a commit's sync waits behind it.
const TABLE: u64 = 8 << 20;
/// Tables that are held open; the process's limit has to leave room for sockets.
const OPEN_TABLES: usize = 400;
/// Block cache, in octets.
const CACHE: u64 = 64 << 20;

/// Keys of the keyspace `small`.
pub(super) mod small {
    use crate::id::{JobId, ServiceNo};

    /// Format version of the whole store, 4 octets.
    pub(crate) const FORMAT: &[u8] = b"f";
    /// The data key, wrapped by the master key.
    pub(crate) const DATA_KEY: &[u8] = b"w";
    /// The T that terminals begin with of which nothing is known, 8 octets; 1 where there is none. A restore raises it.
    pub(crate) const FIRST_T: &[u8] = b"t";
    /// Counters.
    pub(crate) const TOTALS: &[u8] = b"c";
    /// There once all holders are counted; first octet of the counters' keys.
    pub(crate) const HOLDERS: &[u8] = b"h";
    /// First octet of services' keys.
    pub(crate) const SERVICE: u8 = b's';
    /// First octet of keys' keys.
    pub(crate) const KEY: u8 = b'k';
    /// First octet of jobs' keys.
    pub(crate) const JOB: u8 = b'j';

    /// A service's key.
    pub(crate) fn service(no: ServiceNo) -> Vec<u8> {
        [&[SERVICE], &no.0.to_be_bytes()[..]].concat()
    }

    /// What all keys of a service begin with.
    pub(crate) fn keys_of(no: ServiceNo) -> Vec<u8> {
        [&[KEY], &no.0.to_be_bytes()[..]].concat()
    }

    /// A key's key.
    pub(crate) fn key(no: ServiceNo, number: u16) -> Vec<u8> {
        [&keys_of(no)[..], &number.to_be_bytes()].concat()
    }

    /// The key of the counters of who holds a key.
    pub(crate) fn holders(no: ServiceNo, number: u16) -> Vec<u8> {
        [HOLDERS, &no.0.to_be_bytes(), &number.to_be_bytes()].concat()
    }

    /// A job's key.
    pub(crate) fn job(id: JobId) -> Vec<u8> {
        [&[JOB], &id.0.to_be_bytes()[..]].concat()
    }
}

/// The key of a member.
pub(super) fn member_key(no: ServiceNo, key: TerminalKey) -> [u8; 20] {
    let mut out = [0; 20];
    out[..4].copy_from_slice(&no.0.to_be_bytes());
    out[4..].copy_from_slice(&key.0);
    out
}

/// A record's own failure to be one.
pub(super) fn damaged(what: impl std::fmt::Display) -> impl FnOnce(Damaged) -> StoreError {
    move |Damaged| StoreError::Damaged(what.to_string())
}

/// An engine's failure.
pub(super) fn unavailable(e: fjall::Error) -> StoreError {
    StoreError::Unavailable(match e {
        fjall::Error::Io(e) => e.to_string(),
        fjall::Error::Storage(fjall::LsmError::Io(e)) => e.to_string(),
        fjall::Error::Poisoned => "an earlier write failed".to_owned(),
        other => other.to_string(),
    })
}

/// A terminal's records as they lie in the store.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Raw {
    pub(super) credential: Option<Slice>,
    pub(super) state: Option<Slice>,
}

impl Raw {
    /// Whether anything is known of the terminal.
    pub(super) fn exists(&self) -> bool {
        self.credential.is_some() || self.state.is_some()
    }

    /// The terminal that the records describe; a new one when there are none, whose T begins at `first_t`.
    pub(super) fn terminal(&self, key: TerminalKey, first_t: u64) -> Result<Terminal, StoreError> {
        record::read_terminal(key, self.credential.as_deref(), self.state.as_deref(), first_t)
            .map_err(damaged(format_args!("records of {key:?}")))
    }
}

/// The open database.
pub(super) struct Spaces {
    pub(super) credential: Keyspace,
    pub(super) state: Keyspace,
    pub(super) member: Keyspace,
    pub(super) subscriber: Keyspace,
    pub(super) small: Keyspace,
    pub(super) db: Database,
    pub(super) recent: Recent,
    /// The T that terminals begin with of which nothing is known.
    pub(super) first_t: u64,
}

impl Spaces {
    /// Opens the database, or makes an empty one.
    pub(super) fn open(path: &Path) -> Result<Self, fjall::Error> {
        let db = Database::builder(path)
            .cache_size(CACHE)
            .max_journaling_size(JOURNALS)
            .max_cached_files(Some(OPEN_TABLES))
            .open()?;
        // Nearly every read is of a record that exists: the last level, where most are, needs no filter.
        let base = || {
            KeyspaceCreateOptions::default()
                .max_memtable_size(MEMTABLE)
                .compaction_strategy(Arc::new(Leveled::default().with_table_target_size(TABLE)))
                .expect_point_read_hits(true)
                .index_block_pinning_policy(PinningPolicy::new([true, false]))
                .data_block_size_policy(BlockSizePolicy::all(4096))
        };
        let small = db.keyspace("small", base)?;
        let first_t = small.get(small::FIRST_T)?.and_then(|o| <[u8; 8]>::try_from(&*o).ok());
        Ok(Self {
            credential: db.keyspace("credential", base)?,
            state: db.keyspace("state", base)?,
            member: db.keyspace("member", base)?,
            subscriber: db.keyspace("subscriber", base)?,
            small,
            db,
            recent: Recent::new(),
            first_t: first_t.map_or(1, u64::from_be_bytes),
        })
    }

    /// All keyspaces.
    pub(super) fn all(&self) -> [&Keyspace; 5] {
        [&self.credential, &self.state, &self.member, &self.subscriber, &self.small]
    }

    /// Whether a commit now could be held up by the background's arrears: flushes (4 memtables waiting halt
    /// it), compaction (30 runs in level 0 do).
    pub(super) fn is_behind(&self) -> bool {
        self.all().iter().any(|k| k.tree.sealed_memtable_count() >= 3 || k.tree.l0_run_count() >= 24)
    }

    /// Whether background work or a write failed.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        self.db.persist(PersistMode::Buffer).map_err(unavailable)
    }

    /// A terminal's records.
    pub(super) fn raw(&self, key: TerminalKey) -> Result<Raw, StoreError> {
        match self.recent.terminal(key) {
            Some(raw) => Ok(raw),
            None => self.read_raw(key),
        }
    }

    fn read_raw(&self, key: TerminalKey) -> Result<Raw, StoreError> {
        let credential = self.credential.get(key.0).map_err(unavailable)?;
        let state = self.state.get(key.0).map_err(unavailable)?;
        Ok(Raw { credential, state })
    }

    /// A terminal's records, kept for who needs them next.
    pub(super) fn raw_kept(&self, key: TerminalKey) -> Result<Raw, StoreError> {
        if let Some(raw) = self.recent.terminal(key) {
            return Ok(raw);
        }
        let moment = self.recent.moment();
        let raw = self.read_raw(key)?;
        if raw.exists() {
            self.recent.keep_terminal(moment, key, &raw);
        }
        Ok(raw)
    }

    /// Reads what an update of a terminal will need, on the thread of who asks for it.
    pub(super) fn warm(&self, key: TerminalKey) -> Result<(), StoreError> {
        let raw = self.raw_kept(key)?;
        let Some(credential) = raw.terminal(key, self.first_t)?.credential else { return Ok(()) };
        let id = credential.subscriber;
        if self.recent.subscriber(&id).is_none() {
            let moment = self.recent.moment();
            let octets = self.subscriber.get(id.as_str()).map_err(unavailable)?;
            self.recent.keep_subscriber(moment, &id, &octets);
        }
        Ok(())
    }

    /// A subscriber's record.
    pub(super) fn subscriber(&self, id: &SubscriberId) -> Result<Option<SubscriberRecord>, StoreError> {
        let octets = match self.recent.subscriber(id) {
            Some(octets) => octets,
            None => self.subscriber.get(id.as_str()).map_err(unavailable)?,
        };
        let read = |o: Slice| record::read_subscriber(id, &o);
        octets.map(read).transpose().map_err(damaged(format_args!("subscriber {id}")))
    }

    /// A job.
    pub(super) fn job(&self, id: JobId) -> Result<Option<Job>, StoreError> {
        let octets = self.small.get(small::job(id)).map_err(unavailable)?;
        octets.map(|o| record::read_job(id, &o)).transpose().map_err(damaged(format_args!("job {id}")))
    }
}
