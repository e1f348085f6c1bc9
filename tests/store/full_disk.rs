//! A disk without room: nothing is acknowledged that is not there, and room heals it without a restart.
//!
//! Filled in two ways. A limit on the size of files (`RLIMIT_FSIZE`) makes every write behind it fail, for
//! any user on any system; it is a process's own, so the test runs in a process of its own. A small file
//! system is the real thing, where mounting one is allowed.

use std::path::Path;
use std::process::Command;

use ltkmd::store::{EmbeddedStore, Scope, Store, StoreError};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::harness::*;

/// Set for the process of a test that needs one of its own: its directory.
const PLACE: &str = "LTKMD_STORE_FULL_DISK";
/// Terminals that are written until the disk is full.
const TERMINALS: usize = 100;

/// Advances every terminal; the values that were acknowledged.
async fn advance(store: &EmbeddedStore, by: u64) -> Result<(), StoreError> {
    let btids = (0..TERMINALS).map(btid).collect();
    let all = update(store, Scope::Credentials(btids, Vec::new()), move |view| {
        for (n, t) in view.terminals.iter_mut().enumerate() {
            t.next_t += by;
            // Different each time, so that the journal grows quickly.
            t.deliveries =
                (0..20).map(|k| sent(1, k, (t.next_t as u32).wrapping_mul(n as u32), None)).collect();
        }
    });
    all.await.map(|_| ())
}

/// Fills what there is, looks that nothing was promised, makes room, and goes on.
async fn fill_and_heal(dir: &Path, fill: impl FnOnce(), make_room: impl FnOnce()) {
    let store = EmbeddedStore::open_with_reserve(dir, Some([7; 32]), 0).unwrap();
    provision(&store, 0..TERMINALS, 1).await;
    advance(&store, 1).await.unwrap();
    fill();
    let mut acknowledged = 2;
    let refused = loop {
        match advance(&store, 1).await {
            Ok(()) => acknowledged += 1,
            Err(e) => break e,
        }
        assert!(acknowledged < 100_000, "the disk is never full");
    };
    assert!(matches!(refused, StoreError::Unavailable(_)) && refused.is_retriable(), "{refused:?}");
    let next = advance(&store, 1).await;
    assert!(matches!(next, Err(StoreError::Unavailable(_))), "a store that failed goes on: {next:?}");
    let counts = store.counts();
    make_room();
    store.probe().await.expect("room heals it");
    let terminals = all(&store, TERMINALS).await;
    // The refused commit was promised to nobody: it is there as a whole or not at all.
    let found = terminals[0].next_t;
    assert!(found == acknowledged || found == acknowledged + 1, "{found}, {acknowledged} acknowledged");
    assert!(terminals.iter().all(|t| t.next_t == found), "a commit was torn");
    assert_eq!(store.counts(), counts);
    advance(&store, 1).await.unwrap();
    store.close().await.unwrap();
    drop(store);
    let store = EmbeddedStore::open_with_reserve(dir, Some([7; 32]), 0).unwrap();
    assert!(all(&store, TERMINALS).await.iter().all(|t| t.next_t == found + 1));
}

/// A disk that is read and takes no write, though it has room: the store is not ready until it takes one again.
async fn no_write_goes_through(dir: &Path, fail: impl FnOnce(), mend: impl FnOnce()) {
    let store = EmbeddedStore::open_with_reserve(dir, Some([7; 32]), 0).unwrap();
    provision(&store, 0..TERMINALS, 1).await;
    fail();
    advance(&store, 1).await.expect_err("it cannot be written");
    for _ in 0..3 {
        let unready = store.probe().await.expect_err("nothing can be written yet");
        assert!(unready.is_retriable(), "{unready:?}");
        advance(&store, 1).await.expect_err("it cannot be written");
    }
    mend();
    store.probe().await.expect("it is written again");
    advance(&store, 1).await.unwrap();
    let terminals = all(&store, TERMINALS).await;
    assert!(terminals.iter().all(|t| t.next_t == terminals[0].next_t), "a commit was torn");
}

/// Runs a test of this binary in a process of its own, in which a file beyond the limit fails as a full
/// disk does instead of ending the process.
fn in_a_process_of_its_own(test: &str, dir: &Path) {
    let status = Command::new("sh")
        .args(["-c", "trap '' XFSZ; exec \"$@\"", "sh"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(PLACE, dir)
        .status()
        .unwrap();
    assert!(status.success());
}

#[test]
fn a_write_that_fails_is_refused_and_room_heals_the_store() {
    let Some(dir) = std::env::var_os(PLACE) else {
        let dir = tempfile::tempdir().unwrap();
        let test = "full_disk::a_write_that_fails_is_refused_and_room_heals_the_store";
        return in_a_process_of_its_own(test, dir.path());
    };
    let (_, most) = getrlimit(Resource::RLIMIT_FSIZE).unwrap();
    run(fill_and_heal(
        Path::new(&dir),
        || setrlimit(Resource::RLIMIT_FSIZE, 3 << 20, most).unwrap(),
        || setrlimit(Resource::RLIMIT_FSIZE, most, most).unwrap(),
    ));
}

#[test]
fn a_disk_that_takes_no_write_is_not_taken_for_one_that_does() {
    let Some(dir) = std::env::var_os(PLACE) else {
        let dir = tempfile::tempdir().unwrap();
        let test = "full_disk::a_disk_that_takes_no_write_is_not_taken_for_one_that_does";
        return in_a_process_of_its_own(test, dir.path());
    };
    let (_, most) = getrlimit(Resource::RLIMIT_FSIZE).unwrap();
    run(no_write_goes_through(
        Path::new(&dir),
        || setrlimit(Resource::RLIMIT_FSIZE, 0, most).unwrap(),
        || setrlimit(Resource::RLIMIT_FSIZE, most, most).unwrap(),
    ));
}

#[test]
fn a_full_file_system_is_refused_and_room_heals_the_store() {
    let dir = tempfile::tempdir().unwrap();
    let mount =
        Command::new("mount").args(["-t", "tmpfs", "-o", "size=48m", "tmpfs"]).arg(dir.path()).output();
    if !mount.is_ok_and(|o| o.status.success()) {
        // The same promise is proved by the limit on files, which needs no privilege.
        return a_write_that_fails_is_refused_and_room_heals_the_store();
    }
    let ballast = dir.path().join("ballast");
    let fill = || {
        let stat = nix::sys::statvfs::statvfs(dir.path()).unwrap();
        let free = stat.blocks_available() * stat.fragment_size();
        std::fs::write(&ballast, vec![1; free.saturating_sub(6 << 20) as usize]).unwrap();
    };
    let ended = std::panic::catch_unwind(|| {
        run(fill_and_heal(&dir.path().join("store"), fill, || std::fs::remove_file(&ballast).unwrap()));
    });
    let _ = Command::new("umount").arg("-l").arg(dir.path()).status();
    ended.unwrap();
}

#[test]
fn nothing_is_written_into_the_reserve() {
    let dir = tempfile::tempdir().unwrap();
    run(provision(&EmbeddedStore::open(dir.path(), Some([7; 32])).unwrap(), 0..1, 1));
    let store = EmbeddedStore::open_with_reserve(dir.path(), Some([7; 32]), u64::MAX).unwrap();
    run(async {
        let refused =
            update(&store, Scope::Terminal(btid(0)), |v| v.terminals[0].next_t = 9).await.unwrap_err();
        assert!(refused.to_string().contains("full") && refused.is_retriable(), "{refused}");
        assert!(store.probe().await.is_err());
        assert_eq!(terminal(&store, 0).await.next_t, 1, "reading goes on");
    });
}

#[test]
fn what_was_due_and_refused_comes_again() {
    let dir = tempfile::tempdir().unwrap();
    {
        let store = EmbeddedStore::open(dir.path(), Some([7; 32])).unwrap();
        run(provision(&store, 0..1, 1));
    }
    let store = EmbeddedStore::open_with_reserve(dir.path(), Some([7; 32]), u64::MAX).unwrap();
    let key = store.terminal_key(&btid(0));
    assert!(run(update(&store, Scope::Terminals(vec![key]), |_| ())).is_err());
    assert_eq!(store.take_due(ltkmd::store::Lane::Look, ltkmd::time::Timestamp::MAX, 9), [key]);
}
