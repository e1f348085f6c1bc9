//! The mark on a store whose contents are somewhere else by now.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::open::{failed, refuse};
use crate::store::StoreError;

/// The mark's name in the store's directory.
const MARK: &str = "moved";

/// Octets of it that are shown.
const SHOWN: usize = 1024;

/// Marks the store as moved, durable when it returns.
pub(super) fn mark(dir: &Path, to: &str) -> Result<(), StoreError> {
    let (path, partial) = (dir.join(MARK), dir.join("moved.new"));
    let write = || {
        let mut file =
            OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&partial)?;
        writeln!(file, "{to}")?;
        file.sync_all()?;
        fs::rename(&partial, &path)?;
        File::open(dir)?.sync_all()
    };
    write().map_err(|e| failed(&path, &e))
}

/// Takes the mark away, if there is one.
pub(super) fn unmark(dir: &Path) -> Result<(), StoreError> {
    let path = dir.join(MARK);
    match fs::remove_file(&path) {
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
        removed => removed.and_then(|()| File::open(dir)?.sync_all()).map_err(|e| failed(&path, &e)),
    }
}

/// Refuses a store that has moved.
pub(super) fn check(dir: &Path) -> Result<(), StoreError> {
    let path = dir.join(MARK);
    let octets = match fs::read(&path) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
        read => read.map_err(|e| failed(&path, &e))?,
    };
    let text = String::from_utf8_lossy(&octets[..octets.len().min(SHOWN)]);
    Err(refuse(
        dir,
        format_args!(
            "this store has moved to {}: name that place in store.url. To go back here, remove {}, and know that terminals \
             refuse keys whose T is not above what the other store has sent since: read docs/migrate.md before",
            text.trim(),
            path.display()
        ),
    ))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::id::BTid;
    use crate::store::{EmbeddedStore, FreezeOrder, FreezeOutcome, Frozen, Scope, Store};

    #[tokio::test]
    async fn a_frozen_store_takes_no_change_and_one_that_has_moved_does_not_open_until_the_mark_is_gone() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = EmbeddedStore::open(dir.path(), Some([7; 32])).expect("a store");
        let write = async |t: u64| {
            let scope = Scope::Credentials(vec![BTid::new("a@bsf").expect("a B-TID")], Vec::new());
            store.update(scope, Box::new(move |view| view.terminals[0].next_t = t)).await
        };
        let freeze =
            || FreezeOrder::Freeze { by: "a".to_owned(), span: Duration::from_secs(60), prolong: false };
        let moved = || FreezeOrder::Moved { by: "a".to_owned(), to: "postgres://db/ltkmd".to_owned() };
        write(5).await.expect("it takes changes");
        assert!(matches!(store.freeze(moved()).await, Ok(FreezeOutcome::Refused(_))), "it was not frozen");
        assert_eq!(store.freeze(freeze()).await.expect("works"), FreezeOutcome::Changed);
        assert!(matches!(write(6).await, Err(StoreError::Frozen(_))));
        assert!(matches!(store.write_catalogue(Vec::new()).await, Err(StoreError::Frozen(_))));
        store.probe().await.expect("it works all the same");
        assert_eq!(
            store.freeze(FreezeOrder::Thaw { back: false }).await.expect("works"),
            FreezeOutcome::Changed
        );
        write(7).await.expect("it takes changes again");

        store.freeze(freeze()).await.expect("frozen");
        assert_eq!(store.freeze(moved()).await.expect("works"), FreezeOutcome::Changed);
        assert_eq!(store.frozen(), Some(Frozen::Moved("postgres://db/ltkmd".to_owned())));
        let refused = store.freeze(FreezeOrder::Thaw { back: false }).await.expect("works");
        assert!(matches!(refused, FreezeOutcome::Refused(_)));
        assert!(write(8).await.is_err());
        drop(store);
        let refused = EmbeddedStore::open(dir.path(), Some([7; 32])).expect_err("it has moved").to_string();
        assert!(refused.contains("moved to postgres://db/ltkmd") && refused.contains("remove"), "{refused}");
        fs::remove_file(dir.path().join(MARK)).expect("there is a mark");
        let store = EmbeddedStore::open(dir.path(), Some([7; 32])).expect("opens");
        store.freeze(freeze()).await.expect("frozen");
        store.freeze(moved()).await.expect("moved");
        assert_eq!(
            store.freeze(FreezeOrder::Thaw { back: true }).await.expect("works"),
            FreezeOutcome::Changed
        );
        drop(store);
        EmbeddedStore::open(dir.path(), Some([7; 32])).expect("opens");
    }
}
