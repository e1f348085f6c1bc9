//! Opening: the directory, its lock, the master key, the format.
//!
//! ```text
//! DIR/            mode 0700
//!   lock          held by the process that has the store open
//!   store.key     master key, when none was configured: 64 hex digits, mode 0600
//!   moved         the store is another one now; only who removes it opens this one again
//!   db/           the database; made under the name db.new, which is nothing yet
//!   db.restored/  a whole database out of a backup, on its way to its place
//! ```

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use data_encoding::HEXLOWER_PERMISSIVE;
use fjall::PersistMode;
use zeroize::Zeroizing;

use super::catalogue;
use super::format::{self, FORMAT};
use super::moved;
use super::spaces::{Spaces, small};
use crate::secret::Sealed;
use crate::store::{Sealer, StoreError};

/// The file of the master key that a store made for itself.
pub(super) const OWN_KEY: &str = "store.key";

/// A database that is being made.
pub(super) const PARTIAL: &str = "db.new";

/// A database out of a backup that only has to be put in its place.
pub(super) const RESTORED: &str = "db.restored";

/// An opened store that nobody works on yet.
pub(super) struct Opened {
    pub(super) spaces: Arc<Spaces>,
    pub(super) sealer: Sealer,
    pub(super) db_dir: PathBuf,
    pub(super) lock: Lock,
    pub(super) next_job: u64,
    /// Where the store's own key is; `None`: the master key was given.
    pub(super) own_key: Option<PathBuf>,
}

pub(super) fn refuse(dir: &Path, what: impl std::fmt::Display) -> StoreError {
    StoreError::Open(format!("{}: {what}", dir.display()))
}

/// A disk that does not do its work now may do it later: full, missing, not mounted yet.
pub(super) fn failed(dir: &Path, error: &std::io::Error) -> StoreError {
    StoreError::Unavailable(format!("{}: {error}", dir.display()))
}

/// What the engine says when it cannot open its files.
pub(super) fn engine(dir: &Path, error: fjall::Error) -> StoreError {
    let mut cause: Option<&dyn std::error::Error> = Some(&error);
    while let Some(inner) = cause {
        if let Some(error) = inner.downcast_ref::<std::io::Error>() {
            return failed(dir, error);
        }
        cause = inner.source();
    }
    match error {
        fjall::Error::Locked => refuse(dir, "another process has this store open"),
        fjall::Error::InvalidVersion(v) => {
            refuse(dir, format_args!("its files are of another database version ({v:?})"))
        }
        error => refuse(dir, error),
    }
}

/// Opens a store's directory, or makes it.
pub(super) fn open(dir: &Path, master: Option<[u8; 32]>) -> Result<Opened, StoreError> {
    let master = master.map(Zeroizing::new);
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|e| failed(dir, &e))?;
    let lock = lock(dir)?;
    moved::check(dir)?;
    let db_dir = dir.join("db");
    let exists = settle(dir, &db_dir).map_err(|e| failed(dir, &e))?;
    let own_key = master.is_none().then(|| dir.join(OWN_KEY));
    let master = match master {
        Some(master) => master,
        None => key_file(dir, exists)?,
    };
    if !exists {
        create(dir, &db_dir, &master)?;
    }
    let spaces = Spaces::open(&db_dir).map_err(|e| engine(dir, e))?;
    format::upgrade(dir, &spaces)?;
    let wrapped = spaces.small.get(small::DATA_KEY).map_err(|e| engine(dir, e))?;
    let wrapped =
        wrapped.ok_or_else(|| refuse(dir, "its data key is missing: it is no store, or damaged"))?;
    let sealer = Sealer::unwrap(&master, &Sealed::from_octets(&wrapped))
        .map_err(|_| refuse(dir, "the store key is not the one that this store was made with"))?;
    let newest = catalogue::jobs(&spaces, 1)?.first().map_or(0, |j| j.id.0);
    Ok(Opened { spaces: Arc::new(spaces), sealer, db_dir, lock, next_job: newest + 1, own_key })
}

/// Whether there is a database. A restore that was cut short between two renames is brought to its end, and what was
/// half made is removed. For who has the lock.
pub(super) fn settle(dir: &Path, db_dir: &Path) -> std::io::Result<bool> {
    let restored = dir.join(RESTORED);
    let mut exists = db_dir.try_exists()?;
    if restored.try_exists()? && !exists {
        fs::rename(&restored, db_dir)?;
        File::open(dir)?.sync_all()?;
        exists = true;
    }
    for left in [restored, dir.join(PARTIAL)] {
        match fs::remove_dir_all(&left) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
    }
    Ok(exists)
}

/// A directory's lock.
pub(super) struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        // A child that was just being started may still have the file, too: closing ours would not unlock it.
        let _ = self.0.unlock();
    }
}

/// Takes the directory's lock, which is held until it is dropped.
pub(super) fn lock(dir: &Path) -> Result<Lock, StoreError> {
    let mut options = OpenOptions::new();
    options.create(true).truncate(false).write(true).mode(0o600);
    let file = options.open(dir.join("lock")).map_err(|e| failed(dir, &e))?;
    match file.try_lock() {
        Ok(()) => Ok(Lock(file)),
        Err(TryLockError::WouldBlock) => Err(refuse(dir, "another process has this store open")),
        Err(TryLockError::Error(e)) => Err(failed(dir, &e)),
    }
}

/// The master key of the store's own file, which is made with the store.
fn key_file(dir: &Path, store_exists: bool) -> Result<Zeroizing<[u8; 32]>, StoreError> {
    let path = dir.join(OWN_KEY);
    match read_key(&path)? {
        Some(key) => Ok(key),
        None if store_exists => {
            Err(refuse(dir, "this store needs the store key that it was made with, and none is given"))
        }
        None => {
            let mut key = Zeroizing::new([0u8; 32]);
            getrandom::fill(&mut *key).map_err(|e| refuse(dir, e))?;
            write_key(dir, &path, &key).map_err(|e| failed(&path, &e))?;
            tracing::warn!(
                path = %path.display(),
                "no store key is configured: made one beside the data, which protects nothing from who reads both"
            );
            Ok(key)
        }
    }
}

/// The key in a store's own file; `None`: there is no such file.
pub(super) fn read_key(path: &Path) -> Result<Option<Zeroizing<[u8; 32]>>, StoreError> {
    let text = match fs::read(path) {
        Ok(text) => Zeroizing::new(text),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(failed(path, &e)),
    };
    let octets = HEXLOWER_PERMISSIVE.decode(text.trim_ascii()).map(Zeroizing::new);
    let key = octets.ok().and_then(|o| <[u8; 32]>::try_from(&o[..]).ok());
    let key = key.ok_or_else(|| refuse(path, "is not a key of 64 hex digits"))?;
    Ok(Some(Zeroizing::new(key)))
}

fn write_key(dir: &Path, path: &Path, key: &[u8; 32]) -> std::io::Result<()> {
    let text = Zeroizing::new(data_encoding::HEXLOWER.encode(key) + "\n");
    let partial = dir.join("store.key.new");
    match fs::remove_file(&partial) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let mut file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(&partial)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&partial, path)?;
    File::open(dir)?.sync_all()
}

/// Makes an empty store under another name first, so that one that is half made is never opened.
fn create(dir: &Path, db_dir: &Path, master: &[u8; 32]) -> Result<(), StoreError> {
    let partial = dir.join(PARTIAL);
    let spaces = Spaces::open(&partial).map_err(|e| engine(dir, e))?;
    let (_, wrapped) = Sealer::create(master).map_err(|e| refuse(dir, e))?;
    let mut batch = spaces.db.batch().durability(Some(PersistMode::SyncAll));
    batch.insert(&spaces.small, small::FORMAT, FORMAT.to_be_bytes());
    batch.insert(&spaces.small, small::DATA_KEY, wrapped.octets());
    batch.commit().map_err(|e| engine(dir, e))?;
    drop(spaces);
    fs::rename(&partial, db_dir)
        .and_then(|()| File::open(dir))
        .and_then(|d| d.sync_all())
        .map_err(|e| failed(dir, &e))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::State;
    use crate::id::{BTid, Method};
    use crate::store::{EmbeddedStore, Store};

    /// Writes one record behind the store's back.
    fn tamper(dir: &Path, write: impl FnOnce(&Spaces)) {
        drop(EmbeddedStore::open(dir, Some([7; 32])).expect("a store"));
        write(&Spaces::open(&dir.join("db")).expect("its database"));
    }

    fn format_of(dir: &Path) -> Option<Vec<u8>> {
        let spaces = Spaces::open(&dir.join("db")).expect("its database");
        spaces.small.get(small::FORMAT).expect("read").map(|o| o.to_vec())
    }

    #[test]
    fn a_newer_format_is_refused_in_a_sentence_that_says_what_to_do() {
        let dir = tempfile::tempdir().expect("a directory");
        let newer = (FORMAT + 1).to_be_bytes();
        tamper(dir.path(), |spaces| spaces.small.insert(small::FORMAT, newer).expect("written"));
        let refused = EmbeddedStore::open(dir.path(), Some([7; 32])).expect_err("a newer format");
        let text = refused.to_string();
        assert!(matches!(refused, StoreError::Open(_)), "{text}");
        assert!(text.contains("its format is 4") && text.contains("up to 3"), "{text}");
        assert!(text.contains("use the newer ltkmd"), "{text}");
        assert_eq!(format_of(dir.path()), Some(newer.to_vec()), "nothing was changed");
    }

    /// The state of a terminal as format 1 has it: T 7, registered for service 1 at 127.0.0.1 with UDP and HTTP, one
    /// key sent by UDP with T 6.
    const STATE_1: &[u8] = &[
        1,
        7,
        1,
        0b101,
        4,
        127,
        0,
        0,
        1,
        100,
        0,
        1,
        1, // the registration
        1,
        0b100,
        1,
        1,
        1,
        1,
        1,
        100,
        0,
        1,
        12 << 2, // the delivery
    ];

    #[test]
    fn a_store_of_format_1_is_taken_forward_with_all_that_it_holds_and_not_back() {
        let dir = tempfile::tempdir().expect("a directory");
        let btid = BTid::new("a@bsf").expect("a B-TID");
        let key = EmbeddedStore::open(dir.path(), Some([7; 32])).expect("a store").terminal_key(&btid);
        tamper(dir.path(), |spaces| {
            spaces.small.insert(small::FORMAT, 1u32.to_be_bytes()).expect("written");
            spaces.state.insert(key.0, STATE_1).expect("written");
        });
        let store = EmbeddedStore::open(dir.path(), Some([7; 32])).expect("a store of an older program");
        let raw = store.shared.spaces().expect("open").raw(key).expect("read");
        let terminal = raw.terminal(key, 1).expect("a record of format 1");
        assert_eq!((terminal.next_t, terminal.is_registered()), (7, true));
        let sent = &terminal.deliveries[0];
        assert_eq!((sent.state, sent.out.as_slice()), (State::Sent, &[(6, Method::Udp)][..]));
        drop(store);
        assert_eq!(format_of(dir.path()), Some(vec![0, 0, 0, 3]), "the program that wrote it refuses it now");
        EmbeddedStore::open(dir.path(), Some([7; 32])).expect("and this one takes it again");
    }

    #[test]
    fn a_store_without_a_format_is_no_store() {
        for none in [&[][..], &[0, 0, 0, 0]] {
            let dir = tempfile::tempdir().expect("a directory");
            tamper(dir.path(), |spaces| spaces.small.insert(small::FORMAT, none).expect("written"));
            let refused = EmbeddedStore::open(dir.path(), Some([7; 32])).expect_err("no format");
            assert!(refused.to_string().contains("format record is missing"), "{refused}");
        }
    }

    #[test]
    fn a_restore_that_was_cut_short_between_its_renames_is_brought_to_its_end() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = |name: &str| dir.path().join(name);
        tamper(dir.path(), |spaces| {
            spaces.small.insert(small::FIRST_T, 77u64.to_be_bytes()).expect("written")
        });
        fs::rename(path("db"), path(RESTORED)).expect("renamed");
        fs::create_dir(path(PARTIAL)).expect("made");
        let store = EmbeddedStore::open(dir.path(), Some([7; 32])).expect("opens");
        assert_eq!(
            store.shared.spaces().expect("open").first_t,
            77,
            "it is the restored one, and no new one"
        );
        assert!(path("db").exists() && !path(RESTORED).exists() && !path(PARTIAL).exists());
        drop(store);
        fs::create_dir(path(RESTORED)).expect("made");
        let store = EmbeddedStore::open(dir.path(), Some([7; 32])).expect("opens");
        assert_eq!(store.shared.spaces().expect("open").first_t, 77, "what is in its place stays");
        assert!(!path(RESTORED).exists());
    }

    #[test]
    fn a_damaged_record_is_told_and_does_not_end_the_store() {
        let dir = tempfile::tempdir().expect("a directory");
        let btid = BTid::new("a@bsf").expect("a B-TID");
        let key = EmbeddedStore::open(dir.path(), Some([7; 32])).expect("a store").terminal_key(&btid);
        tamper(dir.path(), |spaces| spaces.credential.insert(key.0, b"no record").expect("written"));
        let store = EmbeddedStore::open(dir.path(), Some([7; 32])).expect("opens");
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let read = runtime.block_on(store.terminal(&btid));
        assert!(matches!(read, Err(StoreError::Damaged(_))), "{read:?}");
        let scope = crate::store::Scope::Terminal(btid);
        let updated = runtime.block_on(store.update(scope, Box::new(|_| ())));
        assert!(matches!(updated, Err(StoreError::Damaged(_))), "{updated:?}");
        let scope = crate::store::Scope::Credentials(vec![BTid::new("b@bsf").expect("a B-TID")], Vec::new());
        runtime.block_on(store.update(scope, Box::new(|view| view.terminals[0].next_t = 5))).expect("works");
    }
}
