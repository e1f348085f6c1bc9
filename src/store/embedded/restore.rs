//! Out of a backup, a database in its place: everything is verified first, and the place is taken last.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read, Seek};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use fjall::{PersistMode, Slice};
use zeroize::Zeroizing;

use super::format::FORMAT;
use super::open::{self, OWN_KEY, PARTIAL, RESTORED, engine, failed, refuse};
use super::spaces::{Spaces, member_key, small};
use crate::delivery::{State, Terminal};
use crate::id::{JobId, ServiceNo, SubscriberId, TerminalKey};
use crate::store::backup::{BackupError, Counts, Head, Kind, Parser, Piece};
use crate::store::codec::Damaged;
use crate::store::record::{self, Totals};
use crate::store::tally::Tally;
use crate::store::{Sealer, StoreError};
use crate::time::Timestamp;

/// Octets read at a time.
const CHUNK: usize = 256 << 10;

/// One above the last T that an LTKM can have: a counter that stands here gives none any more.
const T_END: u64 = 1 << 32;

/// What a restore is told.
#[derive(Debug, Clone, Copy)]
pub struct RestoreOptions {
    /// By how much every T moves forward. It has to be at least the number of LTKMs that one terminal got since the
    /// backup.
    pub margin: u64,
    /// Whether a store that is there is moved aside; without, that is an error.
    pub force: bool,
    /// Whether to verify the backup alone, and to write nothing.
    pub dry_run: bool,
}

/// What a restore came to.
#[derive(Debug, Clone)]
pub struct Restored {
    /// The moment that the backup shows.
    pub taken: Timestamp,
    /// The records that it has.
    pub counts: Counts,
    /// Where the store is now that was there before.
    pub aside: Option<PathBuf>,
    /// Terminals whose counters came near their end by the margin: their credentials count as expired.
    pub spent: u64,
}

/// Why nothing was restored. The store's directory is as it was.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The backup is not one, not whole, or not for this key.
    #[error("the backup cannot be used: {0}")]
    Backup(#[from] BackupError),
    /// The backup cannot be read.
    #[error("the backup cannot be read: {0}")]
    Read(#[source] io::Error),
    /// There is a store already.
    #[error("{0} has a store already: --force moves it aside")]
    Occupied(PathBuf),
    /// The backup was made from a store with a key of its own, which has to be brought.
    #[error(
        "the backup is sealed under the key of the store it comes from, which was at {from}: bring that file to {to} \
         (mode 0600), or name it by store.store_key_file"
    )]
    NoKey {
        /// Where it was.
        from: String,
        /// Where it has to be.
        to: PathBuf,
    },
    /// The new database cannot be written, or the directory is in use.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Who asked for it changed their mind.
    #[error("stopped: nothing was restored")]
    Stopped,
}

/// What a restore is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// It reads the backup and writes nothing.
    Verify,
    /// It writes the new database.
    Write,
}

/// Told how far it is, in octets of the backup; `false` stops it.
type Progress<'a> = &'a mut dyn FnMut(Phase, u64) -> bool;

/// Restores the store in a directory from a backup. The whole backup is verified before anything is written; the
/// database is made under another name, and put in its place when it is complete and durable.
///
/// Every T moves forward by the margin, and so does the T that terminals begin with of which nothing is known: also
/// one that was put in after the backup, and is put in again, gets what it has not seen. A T near its end stays there,
/// and the terminal's credential counts as expired.
///
/// # Errors
/// See [`RestoreError`]; the directory is as it was before.
pub fn restore<R: Read + Seek>(
    source: &mut R,
    dir: &Path,
    master: Option<[u8; 32]>,
    options: RestoreOptions,
    progress: &mut dyn FnMut(Phase, u64) -> bool,
) -> Result<Restored, RestoreError> {
    let master = master.map(Zeroizing::new);
    let (mut head, mut counts, mut totals) = (None, Counts::default(), Totals::default());
    let mut check = |piece: Piece| {
        match piece {
            Piece::Head(found) => {
                if !(1..=FORMAT).contains(&found.format) {
                    return Err(BackupError::NewerFormat { found: found.format, known: FORMAT }.into());
                }
                let sealer = unwrap(dir, master.as_deref(), &found)?;
                head = Some((found, sealer));
            }
            Piece::Records(kind, records) => {
                for (key, value) in &records {
                    if !is_record(kind, key, value, &mut totals) {
                        return Err(StoreError::Damaged(format!("a {kind:?} in the backup")).into());
                    }
                }
            }
            Piece::End(end) => {
                let (_, sealer) = head.as_ref().expect("the head is the first piece of any backup");
                end.check_seal(sealer)?;
                counts = end.counts;
            }
        }
        Ok(())
    };
    each_piece(source, Phase::Verify, progress, &mut check)?;
    let (head, _) = head.expect("a whole backup has a head");
    let mut restored = Restored { taken: head.taken, counts, aside: None, spent: 0 };
    if options.dry_run {
        return Ok(restored);
    }

    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|e| failed(dir, &e))?;
    let _lock = open::lock(dir)?;
    let db_dir = dir.join("db");
    let exists = open::settle(dir, &db_dir).map_err(|e| failed(dir, &e))?;
    if exists && !options.force {
        return Err(RestoreError::Occupied(dir.to_owned()));
    }
    let partial = dir.join(PARTIAL);
    let written = write(source, &partial, &head, totals, options.margin, progress);
    match written.and_then(|spent| sync_dir(&partial).map(|()| spent).map_err(|e| failed(dir, &e).into())) {
        Ok(spent) => restored.spent = spent,
        Err(error) => {
            // What is left of it is nothing, and the next start removes it.
            let _ = fs::remove_dir_all(&partial);
            return Err(error);
        }
    }
    restored.aside = put_in_place(dir, &db_dir, exists).map_err(|e| failed(dir, &e))?;
    Ok(restored)
}

/// Renames: at each moment, what a start would find is the old store or the new one, and never none.
fn put_in_place(dir: &Path, db_dir: &Path, exists: bool) -> io::Result<Option<PathBuf>> {
    let complete = dir.join(RESTORED);
    fs::rename(dir.join(PARTIAL), &complete)?;
    sync_dir(dir)?;
    let mut aside = None;
    if exists {
        let name = format!("db.before-{}", Timestamp::now().0);
        fs::rename(db_dir, dir.join(&name))?;
        aside = Some(dir.join(name));
        sync_dir(dir)?;
    }
    fs::rename(&complete, db_dir)?;
    sync_dir(dir)?;
    Ok(aside)
}

fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Opens the data key under the master key, or under the one in the directory.
fn unwrap(dir: &Path, master: Option<&[u8; 32]>, head: &Head) -> Result<Sealer, RestoreError> {
    let to = dir.join(OWN_KEY);
    let own = match master {
        Some(_) => None,
        None => open::read_key(&to)?,
    };
    let Some(master) = master.or(own.as_deref()) else {
        let from = head.own_key.clone();
        return Err(RestoreError::NoKey {
            from: from.unwrap_or_else(|| "store.store_key_file".to_owned()),
            to,
        });
    };
    Ok(Sealer::unwrap(master, &head.wrapped).map_err(|_| BackupError::WrongKey)?)
}

/// Reads the whole source from its begin, piece by piece.
fn each_piece<R: Read + Seek>(
    source: &mut R,
    phase: Phase,
    progress: Progress<'_>,
    take: &mut dyn FnMut(Piece) -> Result<(), RestoreError>,
) -> Result<(), RestoreError> {
    source.rewind().map_err(RestoreError::Read)?;
    let (mut parser, mut chunk, mut at) = (Parser::new(), vec![0; CHUNK], 0);
    loop {
        let read = match source.read(&mut chunk) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            read => read.map_err(RestoreError::Read)?,
        };
        if read == 0 {
            return Ok(parser.finish()?);
        }
        parser.feed(&chunk[..read]);
        while let Some(piece) = parser.piece()? {
            take(piece)?;
        }
        at += read as u64;
        if !progress(phase, at) {
            return Err(RestoreError::Stopped);
        }
    }
}

/// A service's number at the beginning of a key.
fn service_no(key: &[u8]) -> Option<ServiceNo> {
    key.first_chunk().map(|no| ServiceNo(u32::from_be_bytes(*no)))
}

fn terminal_key(key: &[u8]) -> Option<TerminalKey> {
    key.try_into().ok().map(TerminalKey)
}

/// Whether a record can be read; takes the counters out of the one that has them.
fn is_record(kind: Kind, key: &[u8], value: &[u8], totals: &mut Totals) -> bool {
    let mut read = || -> Option<Result<(), Damaged>> {
        Some(match kind {
            Kind::Service if key.len() == 4 => record::read_service(service_no(key)?, value).map(drop),
            Kind::Key if key.len() == 6 => record::read_key(value).map(drop),
            Kind::Job => record::read_job(JobId(u64::from_be_bytes(key.try_into().ok()?)), value).map(drop),
            Kind::Totals if key.is_empty() => record::read_totals(value).map(|found| *totals = found),
            Kind::Subscriber => {
                let id = SubscriberId::new(std::str::from_utf8(key).ok()?).ok()?;
                record::read_subscriber(&id, value).map(drop)
            }
            Kind::Credential if key.len() == 16 => record::read_credential(value).map(drop),
            Kind::State => record::read_state(terminal_key(key)?, value).map(drop),
            _ => return None,
        })
    };
    matches!(read(), Some(Ok(())))
}

/// Writes the new database; gives how many terminals the margin spent.
fn write<R: Read + Seek>(
    source: &mut R,
    db_dir: &Path,
    head: &Head,
    totals: Totals,
    margin: u64,
    progress: Progress<'_>,
) -> Result<u64, RestoreError> {
    let broken = |e| engine(db_dir, e);
    let spaces = Spaces::open(db_dir).map_err(broken)?;
    let (mut spent, mut tally) = (0, Tally::default());
    let mut take = |piece: Piece| {
        let Piece::Records(kind, records) = piece else { return Ok(()) };
        let mut batch = spaces.db.batch();
        for (key, value) in records {
            match kind {
                Kind::Service => {
                    batch.insert(&spaces.small, [&[small::SERVICE], &key[..]].concat(), &value[..])
                }
                Kind::Key => batch.insert(&spaces.small, [&[small::KEY], &key[..]].concat(), &value[..]),
                Kind::Job => batch.insert(&spaces.small, [&[small::JOB], &key[..]].concat(), &value[..]),
                // Counted anew.
                Kind::Totals => {}
                Kind::Subscriber => batch.insert(&spaces.subscriber, &key[..], &value[..]),
                Kind::Credential => batch.insert(&spaces.credential, &key[..], &value[..]),
                Kind::State => {
                    let damaged = |_| refuse(db_dir, "the backup changed while it was read");
                    let place = terminal_key(&key).ok_or(()).map_err(damaged)?;
                    let mut terminal = record::read_state(place, &value).map_err(|_| damaged(()))?;
                    let spent_before = terminal.spent();
                    terminal.next_t = forward(terminal.next_t, margin);
                    spent += u64::from(terminal.spent() && !spent_before);
                    tally.change(&Terminal::new(place), &terminal);
                    tally.terminals += 1;
                    // Jobs have their counts in their records.
                    tally.jobs.clear();
                    for no in terminal.registration.iter().flat_map(|r| &r.services) {
                        batch.insert(&spaces.member, member_key(*no, place), Slice::empty());
                    }
                    let mut octets = Vec::with_capacity(value.len() + 8);
                    record::put_state(&mut octets, &terminal);
                    batch.insert(&spaces.state, &key[..], octets);
                }
            }
        }
        batch.commit().map_err(broken)?;
        Ok(())
    };
    each_piece(source, Phase::Write, progress, &mut take)?;
    let mut batch = spaces.db.batch();
    batch.insert(&spaces.small, small::TOTALS, record::put_totals(&counted(&tally, &totals)));
    batch.insert(&spaces.small, small::FIRST_T, forward(head.first_t, margin).to_be_bytes());
    batch.insert(&spaces.small, small::DATA_KEY, head.wrapped.octets());
    batch.insert(&spaces.small, small::FORMAT, head.format.to_be_bytes());
    batch.commit().map_err(broken)?;
    spaces.db.persist(PersistMode::SyncAll).map_err(broken)?;
    Ok(spent)
}

fn forward(t: u64, margin: u64) -> u64 {
    t.saturating_add(margin).min(T_END).max(t)
}

/// The counters as the terminals' records have them. What these cannot tell stays as it was: numbers given out, and how
/// many deliveries have closed over the life of the store.
fn counted(tally: &Tally, before: &Totals) -> Totals {
    let (next_service, next_ordinal) = (before.next_service, before.next_ordinal);
    let mut totals = Totals { next_service, next_ordinal, ..Totals::default() };
    tally.apply(&mut totals);
    for state in State::ALL.into_iter().filter(|state| !state.is_open()) {
        totals.deliveries[state as usize] = before.deliveries[state as usize];
    }
    totals
}
