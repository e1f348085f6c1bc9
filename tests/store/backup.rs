//! Backups of the embedded store: of one moment, and restored with every T ahead.

use std::fs;
use std::io::Cursor;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ltkmd::id::{JobId, ServiceNo, TerminalKey};
use ltkmd::store::backup::{BackupStream, Kind as Record, Parser, Piece};
use ltkmd::store::{
    CatalogueWrite, EmbeddedStore, Job, JobKind, RestoreError, RestoreOptions, Restored, Scope, Store,
    Subscriber, TerminalFilter, View, restore,
};

use crate::harness::*;

const KEY: [u8; 32] = [7; 32];
const MARGIN: u64 = 1000;

fn options() -> RestoreOptions {
    RestoreOptions { margin: MARGIN, force: false, dry_run: false }
}

fn backup(store: &EmbeddedStore) -> Vec<u8> {
    let mut stream = BackupStream::new(run(store.moment()).expect("a moment"));
    let mut octets = Vec::new();
    while let Some(more) = stream.next_octets().expect("it is read") {
        octets.extend_from_slice(&more);
    }
    octets
}

fn restored(octets: &[u8], dir: &Path, options: RestoreOptions) -> Result<Restored, RestoreError> {
    restore(&mut Cursor::new(octets), dir, Some(KEY), options, &mut |_, _| true)
}

/// Sets a terminal's T.
fn set_t(store: &EmbeddedStore, n: usize, t: u64) {
    run(store.update(Scope::Terminal(btid(n)), Box::new(move |view| view.terminals[0].next_t = t)))
        .expect("works");
}

fn t(store: &EmbeddedStore, n: usize) -> u64 {
    run(store.terminal(&btid(n))).expect("works").expect("it has a credential").next_t
}

/// Terminals 0 to 9 with credentials; those below 5 are registered and have deliveries of job 1.
fn world(dir: &Path) -> EmbeddedStore {
    let store = EmbeddedStore::open(dir, Some(KEY)).expect("a store");
    let writes = vec![CatalogueWrite::Service(service(1)), CatalogueWrite::Key(msk(1, 1))];
    run(store.write_catalogue(writes)).expect("works");
    run(provision(&store, 0..10, 1));
    let mut job = Job::new(JobId(1), JobKind::KeyUpdate, ServiceNo(1), 1, 10, NOW);
    job.cursor = Some(TerminalKey([0x80; 16]));
    run(store.write_catalogue(vec![CatalogueWrite::Job(job)])).expect("works");
    for n in 0..5 {
        let decide = Box::new(move |view: &mut View| {
            let t = &mut view.terminals[0];
            t.registration = Some(registration(&[1]));
            t.deliveries = vec![sent(1, 1, 99, Some(1)), sent(1, 2, 98, None)];
            // Some of them hold the second key.
            if n < 3 {
                t.answered(98, NOW);
            } else {
                use_nonces(t);
            }
            t.next_t = 100 + n as u64;
        });
        run(store.update(Scope::Terminal(btid(n)), decide)).expect("works");
    }
    store
}

#[test]
fn what_is_restored_is_what_was_there_with_every_t_ahead() {
    let (a, b) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    let store = world(a.path());
    let octets = backup(&store);
    let told = restored(&octets, b.path(), options()).expect("restored");
    assert_eq!((told.counts.of(Record::Credential), told.counts.of(Record::State)), (10, 5));
    assert_eq!((told.spent, told.aside.is_none()), (0, true));
    let other = EmbeddedStore::open(b.path(), Some(KEY)).expect("opens");
    for n in 0..10 {
        let mut was = run(store.terminal(&btid(n))).expect("works").expect("there");
        was.next_t += MARGIN;
        let is = run(other.terminal(&btid(n))).expect("works").expect("there");
        assert_eq!(is, was, "terminal {n}");
        let credential = is.credential.expect("a credential");
        let muk = other.sealer().open_muk(&btid(n), &credential.muk).expect("it opens");
        let before = store.sealer().open_muk(&btid(n), &credential.muk).expect("it opens");
        assert_eq!(muk, before);
        // What is out is still answered: RAND and CSB ID come from B-TID and T.
        assert_eq!(other.sealer().ltkm_rand(&btid(n), 100), store.sealer().ltkm_rand(&btid(n), 100));
        assert_eq!(
            run(other.subscriber(&impi(n))).expect("works"),
            run(store.subscriber(&impi(n))).expect("works")
        );
    }
    assert_eq!(run(terminal(&other, 4)).nonces.len(), 2, "nonces in use are in it too");
    assert_eq!(other.counts(), store.counts());
    for number in 0..4 {
        let (is, was) = (other.holders(ServiceNo(1), number), store.holders(ServiceNo(1), number));
        assert_eq!(is, was, "who holds key {number}");
    }
    assert_eq!(other.holders(ServiceNo(1), 2).udp, 3);
    assert_eq!(run(other.jobs(10)).expect("works"), run(store.jobs(10)).expect("works"));
    assert_eq!(run(other.open_jobs()).expect("works").len(), 1, "the job goes on where it was");
    assert!(run(other.new_job_id()).unwrap() > JobId(1));
    let filter = TerminalFilter { service: Some(ServiceNo(1)), ..TerminalFilter::default() };
    let members =
        |store: &EmbeddedStore| run(store.list_terminals(filter.clone(), None, 100)).expect("works").len();
    assert_eq!((members(&other), members(&store)), (5, 5), "the index of members");
    let keys = |store: &EmbeddedStore| {
        let catalogue = run(store.catalogue()).expect("works");
        let entry = catalogue.get(ServiceNo(1)).expect("the service");
        (entry.service.clone(), entry.keys.iter().map(|k| (k.number, k.msk.to_vec())).collect::<Vec<_>>())
    };
    assert_eq!(keys(&other), keys(&store));
}

#[test]
fn a_terminal_of_which_the_backup_knows_nothing_begins_ahead_too() {
    let dir = tempfile::tempdir().expect("a directory");
    let octets = {
        let old = tempfile::tempdir().expect("a directory");
        backup(&world(old.path()))
    };
    restored(&octets, dir.path(), options()).expect("restored");
    {
        let store = EmbeddedStore::open(dir.path(), Some(KEY)).expect("opens");
        assert_eq!(t(&store, 9), 1 + MARGIN, "provisioned before the backup, and sent nothing until then");
        run(provision(&store, 77..77 + 1, 1));
        assert_eq!(t(&store, 77), 1 + MARGIN, "provisioned after it, lost, and put in again");
        set_t(&store, 77, 2000);
        run(store.close()).expect("closed");
    }
    let store = EmbeddedStore::open(dir.path(), Some(KEY)).expect("opens again");
    assert_eq!((t(&store, 9), t(&store, 77)), (1 + MARGIN, 2000), "for good");
    let again = tempfile::tempdir().expect("a directory");
    restored(&backup(&store), again.path(), options()).expect("restored");
    let again = EmbeddedStore::open(again.path(), Some(KEY)).expect("opens");
    assert_eq!((t(&again, 9), t(&again, 77)), (1 + 2 * MARGIN, 2000 + MARGIN), "margins add up");
}

#[test]
fn a_t_near_its_end_stays_near_its_end_and_is_told() {
    const END: u64 = 1 << 32;
    let (a, b) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    let store = world(a.path());
    for (n, t) in [(0, 0xFFFF_0000 - MARGIN - 1), (1, 0xFFFF_0000 - MARGIN), (2, 0xFFFF_FFF0), (3, END)] {
        set_t(&store, n, t);
    }
    let told = restored(&backup(&store), b.path(), options()).expect("restored");
    assert_eq!(told.spent, 1, "the others were spent before, or have one to go");
    let store = EmbeddedStore::open(b.path(), Some(KEY)).expect("opens");
    assert_eq!([0, 1, 2, 3].map(|n| t(&store, n)), [0xFFFE_FFFF, 0xFFFF_0000, END, END]);
    assert!(run(store.terminal(&btid(1))).expect("works").expect("there").spent());
}

#[test]
fn a_moment_holds_still_while_commits_go_on() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = Arc::new(world(dir.path()));
    // Each commit moves two terminals by the same: at any one moment they have the same T.
    let both = |store: &EmbeddedStore, t: u64| {
        let scope = Scope::Credentials(vec![btid(7), btid(8)], Vec::new());
        let decide = Box::new(move |view: &mut View| {
            view.terminals.iter_mut().for_each(|terminal| terminal.next_t = t);
        });
        run(store.update(scope, decide)).expect("works");
    };
    both(&store, 10);
    let stop = Arc::new(AtomicBool::new(false));
    let writer = {
        let (store, stop) = (Arc::clone(&store), Arc::clone(&stop));
        std::thread::spawn(move || {
            let mut t = 10;
            while !stop.load(Ordering::Relaxed) {
                t += 1;
                both(&store, t);
            }
            t
        })
    };
    let mut last = 0;
    for _ in 0..20 {
        let octets = backup(&store);
        let copy = tempfile::tempdir().expect("a directory");
        restored(&octets, copy.path(), options()).expect("restored");
        let copy = EmbeddedStore::open(copy.path(), Some(KEY)).expect("opens");
        assert_eq!(t(&copy, 7), t(&copy, 8));
        assert!(t(&copy, 7) >= last, "a later moment");
        last = t(&copy, 7);
    }
    stop.store(true, Ordering::Relaxed);
    assert!(writer.join().expect("it wrote") > 11, "there were commits meanwhile");
    // A moment that is held through many commits still shows what was.
    let mut moment = run(store.moment()).expect("a moment");
    let key = store.terminal_key(&btid(7));
    let before = moment.state(key).expect("read").expect("a record");
    let mut subscribers = 0;
    for n in 100..400 {
        run(provision(&*store, n..n + 1, 1));
        both(&store, 1_000_000 + n as u64);
    }
    assert_eq!(moment.state(key).expect("read").expect("a record"), before);
    while let Some((kind, records)) = moment.records(500).expect("read") {
        subscribers += if kind == Record::Subscriber { records.len() } else { 0 };
    }
    assert_eq!(subscribers, 10, "and nothing that came later");
}

#[test]
fn a_closed_store_ends_a_moment_with_an_error() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = world(dir.path());
    let mut stream = BackupStream::new(run(store.moment()).expect("a moment"));
    assert!(stream.next_octets().is_ok_and(|octets| octets.is_some()));
    run(store.close()).expect("closed");
    let error = stream.next_octets().expect_err("there is nothing to read from");
    assert!(error.to_string().contains("closed"), "{error}");
}

/// The names in a directory.
fn names(dir: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let mut names: Vec<_> =
        entries.map(|e| e.expect("an entry").file_name().into_string().expect("UTF-8")).collect();
    names.sort();
    names
}

#[test]
fn what_cannot_be_restored_changes_nothing() {
    let (a, b) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    let store = world(a.path());
    let octets = backup(&store);
    let place = b.path().join("store");
    let fails = |octets: &[u8], key: [u8; 32], wanted: &str| {
        let told = restore(&mut Cursor::new(octets), &place, Some(key), options(), &mut |_, _| true);
        let told = told.expect_err(wanted).to_string();
        assert!(told.contains(wanted), "{told}");
        assert_eq!(names(&place), [""; 0], "{wanted}");
    };
    fails(&octets, [8; 32], "the store key is not the one");
    fails(&octets[..octets.len() - 1], KEY, "cut off");
    fails(&octets[..octets.len() / 2], KEY, "cut off");
    fails(b"", KEY, "no backup");
    let mut damaged = octets.clone();
    damaged[octets.len() / 2] ^= 1;
    fails(&damaged, KEY, "damaged at frame");
    let none = restore(&mut Cursor::new(&octets), &place, None, options(), &mut |_, _| true);
    assert!(matches!(none, Err(RestoreError::NoKey { .. })), "{none:?}");
    let stopped = restore(&mut Cursor::new(&octets), &place, Some(KEY), options(), &mut |phase, _| {
        phase == ltkmd::store::Phase::Verify
    });
    assert!(matches!(stopped, Err(RestoreError::Stopped)), "{stopped:?}");
    assert_eq!(names(&place), ["lock"], "half a database is none");
    let dry = RestoreOptions { dry_run: true, ..options() };
    assert!(restored(&octets, &b.path().join("dry"), dry).is_ok());
    assert!(!b.path().join("dry").exists());
}

#[test]
fn a_store_that_is_there_stays_unless_it_is_moved_aside() {
    let (a, b) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    let octets = backup(&world(a.path()));
    let force = RestoreOptions { force: true, ..options() };
    {
        let running = EmbeddedStore::open(b.path(), Some(KEY)).expect("a store");
        run(provision(&running, 500..500 + 1, 1));
        let told = restored(&octets, b.path(), force).expect_err("it is in use").to_string();
        assert!(told.contains("another process has this store open"), "{told}");
        run(running.close()).expect("closed");
    }
    let before = names(b.path());
    assert!(matches!(restored(&octets, b.path(), options()), Err(RestoreError::Occupied(_))));
    assert_eq!(names(b.path()), before);
    let told = restored(&octets, b.path(), force).expect("restored");
    let aside = told.aside.expect("the old store");
    let store = EmbeddedStore::open(b.path(), Some(KEY)).expect("opens");
    assert!(run(store.terminal(&btid(500))).expect("works").is_none());
    assert_eq!(t(&store, 0), 100 + MARGIN);
    drop(store);
    fs::rename(b.path().join("db"), b.path().join("other")).expect("renamed");
    fs::rename(&aside, b.path().join("db")).expect("renamed back");
    let store = EmbeddedStore::open(b.path(), Some(KEY)).expect("opens");
    assert!(run(store.terminal(&btid(500))).expect("works").is_some(), "it is whole");
}

#[test]
fn a_store_with_a_key_of_its_own_is_restored_with_that_key_alone() {
    let (a, b) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    let store = EmbeddedStore::open(a.path(), None).expect("a store");
    run(provision(&store, 1..1 + 1, 1));
    let octets = backup(&store);
    let restored =
        |octets: &[u8]| restore(&mut Cursor::new(octets), b.path(), None, options(), &mut |_, _| true);
    let told = restored(&octets).expect_err("no key").to_string();
    let key = a.path().join("store.key");
    assert!(told.contains(&key.display().to_string()) && told.contains("bring that file to"), "{told}");
    fs::write(b.path().join("store.key"), "00".repeat(32)).expect("written");
    let told = restored(&octets).expect_err("another key").to_string();
    assert!(told.contains("the store key is not the one"), "{told}");
    fs::copy(&key, b.path().join("store.key")).expect("copied");
    restored(&octets).expect("restored");
    let store = EmbeddedStore::open(b.path(), None).expect("opens");
    assert_eq!(t(&store, 1), 1 + MARGIN);
}

#[test]
fn who_has_not_the_store_key_cannot_change_a_backup() {
    let dir = tempfile::tempdir().expect("a directory");
    let octets = backup(&world(dir.path()));
    let mut parser = Parser::new();
    parser.feed(&octets);
    let mut end = None;
    while let Some(piece) = parser.piece().expect("whole") {
        if let Piece::End(found) = piece {
            end = Some(found);
        }
    }
    let (end, other) = (end.expect("an end"), tempfile::tempdir().expect("a directory"));
    let other = EmbeddedStore::open(other.path(), Some(KEY)).expect("a store");
    assert!(end.check_seal(other.sealer()).is_err(), "the same master key, another data key");
}

#[test]
fn an_empty_store_is_restored_empty() {
    let (a, b) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    let store = EmbeddedStore::open(a.path(), Some(KEY)).expect("a store");
    let told = restored(&backup(&store), b.path(), options()).expect("restored");
    assert_eq!(told.counts.all(), 0);
    let store = EmbeddedStore::open(b.path(), Some(KEY)).expect("opens");
    let none: Option<(Subscriber, _)> = run(store.subscriber(&impi(1))).expect("works");
    assert!(none.is_none() && store.counts() == Default::default());
}
