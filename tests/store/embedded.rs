//! What only the engine in a directory promises: sealing, locking, kill -9, a full disk.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use ltkmd::id::{JobId, ServiceNo};
use ltkmd::store::{CatalogueWrite, EmbeddedStore, Job, JobKind, JobState, Scope, Store, StoreError};

use super::harness::*;

const MASTER: [u8; 32] = [7; 32];

fn open(dir: &Path) -> EmbeddedStore {
    EmbeddedStore::open(dir, Some(MASTER)).expect("the store opens")
}

fn refusal(dir: &Path, master: Option<[u8; 32]>) -> String {
    match EmbeddedStore::open(dir, master) {
        Err(StoreError::Open(text)) => text,
        other => panic!("opened or failed otherwise: {other:?}"),
    }
}

fn files(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files(&path, found) } else { found.push(path) }
    }
}

fn holds(dir: &Path, what: &[u8]) -> bool {
    let mut found = Vec::new();
    files(dir, &mut found);
    assert!(!found.is_empty());
    found.iter().any(|path| std::fs::read(path).unwrap().windows(what.len()).any(|w| w == what))
}

#[test]
fn no_key_is_ever_on_disk_in_clear() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    run(async {
        provision(&store, 0..50, 1).await;
        store.write_catalogue(vec![CatalogueWrite::Service(service(1))]).await.unwrap();
        let mut key = msk(1, 1);
        *key.msk = *b"sixteen octets!!";
        key.salt = Some(zeroize::Zeroizing::new(*b"a salt of 14 o"));
        store.write_catalogue(vec![CatalogueWrite::Key(key)]).await.unwrap();
        store.close().await.unwrap();
    });
    drop(store);
    assert!(holds(dir.path(), b"terminal-7@bsf.example"), "what is no secret can be found");
    assert!(!holds(dir.path(), b"sixteen octets!!"));
    assert!(!holds(dir.path(), b"a salt of 14 o"));
    assert!(!holds(dir.path(), &[0xA1; 32]));
    assert!(!holds(dir.path(), &[0xB2; 32]));
    assert!(!holds(dir.path(), &MASTER));
}

#[test]
fn another_master_key_is_refused_and_does_no_harm() {
    let dir = tempfile::tempdir().unwrap();
    run(provision(&open(dir.path()), 0..1, 1));
    let text = refusal(dir.path(), Some([8; 32]));
    assert!(text.contains("store key") && text.contains(&dir.path().display().to_string()), "{text}");
    let text = refusal(dir.path(), None);
    assert!(text.contains("store key"), "{text}");
    assert!(run(terminal(&open(dir.path()), 0)).credential.is_some());
}

#[test]
fn a_store_without_a_master_key_makes_one_that_nobody_else_reads() {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("store");
    drop(EmbeddedStore::open(&place, None).unwrap());
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&place), 0o700);
    assert_eq!(mode(&place.join("store.key")), 0o600);
    let text = std::fs::read_to_string(place.join("store.key")).unwrap();
    assert_eq!(text.trim().len(), 64);
    drop(EmbeddedStore::open(&place, None).unwrap());
    std::fs::write(place.join("store.key"), "not hex").unwrap();
    assert!(refusal(&place, None).contains("64 hex digits"));
    std::fs::remove_file(place.join("store.key")).unwrap();
    assert!(refusal(&place, None).contains("store key"));
}

#[test]
fn a_second_open_is_refused_and_told_which_directory() {
    let dir = tempfile::tempdir().unwrap();
    let first = open(dir.path());
    let text = refusal(dir.path(), Some(MASTER));
    assert!(text.contains("another process") && text.contains(&dir.path().display().to_string()), "{text}");
    drop(first);
    open(dir.path());
}

#[test]
fn a_store_that_was_being_made_when_its_process_died_is_made_again() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(dir.path().join("db.new/keyspaces")).unwrap();
    std::fs::write(dir.path().join("db.new/0.jnl"), [0; 100]).unwrap();
    open(dir.path());
    assert!(!dir.path().join("db.new").exists());
}

#[test]
fn a_closed_store_says_so_and_closing_again_is_fine() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    run(async {
        provision(&store, 0..1, 1).await;
        store.close().await.unwrap();
        let refused = update(&store, Scope::Terminal(btid(0)), |_| ()).await;
        assert!(matches!(refused, Err(StoreError::Closed)), "{refused:?}");
        assert!(matches!(store.terminal(&btid(0)).await, Err(StoreError::Closed)));
        store.close().await.unwrap();
    });
}

#[test]
fn a_decision_that_breaks_off_leaves_the_store_working() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    run(async {
        provision(&store, 0..1, 1).await;
        let broken = update(&store, Scope::Terminal(btid(0)), |view| {
            view.terminals[0].next_t = 50;
            panic!("a decision's own fault");
        });
        assert!(matches!(broken.await, Err(StoreError::Unavailable(_))));
        assert_eq!(terminal(&store, 0).await.next_t, 1);
        update(&store, Scope::Terminal(btid(0)), |view| view.terminals[0].next_t = 2).await.unwrap();
    });
}

/// Set for the process that is to be killed: the store's directory.
const VICTIM: &str = "LTKMD_STORE_VICTIM";
/// Terminals of the process that is to be killed.
const VICTIMS: usize = 8;

/// Not a test by itself: what the next test starts and kills. Takes T values and tells those that are
/// acknowledged.
#[test]
fn victim() {
    let Some(dir) = std::env::var_os(VICTIM) else { return };
    let store = Arc::new(open(Path::new(&dir)));
    run(async {
        if store.terminal(&btid(0)).await.unwrap().is_none() {
            provision(&*store, 0..VICTIMS, 1).await;
        }
        let tasks = (0..VICTIMS).map(|n| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                loop {
                    let t = update(&*store, Scope::Terminal(btid(n)), |view| {
                        view.terminals[0].next_t += 1;
                        view.terminals[0].next_t - 1
                    });
                    let t = t.await.unwrap().unwrap();
                    // One write of less than a pipe's atomic size, past the test harness's capture.
                    let line = format!("T {n} {t}\n");
                    nix::unistd::write(std::io::stdout(), line.as_bytes()).unwrap();
                }
            })
        });
        for task in tasks.collect::<Vec<_>>() {
            let () = task.await.unwrap();
        }
    });
}

#[test]
fn kill_9_loses_nothing_that_was_acknowledged_and_no_t_comes_twice() {
    let dir = tempfile::tempdir().unwrap();
    let mut highest = [0u64; VICTIMS];
    for round in 0..6 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "embedded::victim", "--nocapture", "--test-threads=1"])
            .env(VICTIM, dir.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let before = highest;
        let mut acknowledged = 0;
        let mut note = |line: String| {
            let mut words = line.rsplit("T ").next().unwrap_or_default().split(' ');
            let numbers = words
                .next()
                .and_then(|n| Some((n.parse::<usize>().ok()?, words.next()?.parse::<u64>().ok()?)));
            if let Some((n, t)) = numbers.filter(|_| line.contains("T ")) {
                assert!(t > before[n], "T {t} of terminal {n} came again");
                highest[n] = highest[n].max(t);
                acknowledged += 1;
            }
            acknowledged
        };
        while let Some(Ok(line)) = lines.next() {
            if note(line) >= 200 + 37 * round {
                break;
            }
        }
        child.kill().unwrap();
        child.wait().unwrap();
        lines.map_while(Result::ok).for_each(|line| {
            note(line);
        });
        assert!(highest.iter().zip(before).any(|(now, then)| *now > then), "round {round} did nothing");
    }
    let terminals = run(all(&open(dir.path()), VICTIMS));
    for (n, t) in terminals.iter().enumerate() {
        assert!(t.next_t > highest[n], "terminal {n}: {} was acknowledged, next is {}", highest[n], t.next_t);
    }
}

#[test]
fn a_new_job_takes_the_place_of_one_that_ended_long_before_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    run(async {
        let job = |id: u64| Job::new(JobId(id), JobKind::KeyUpdate, ServiceNo(1), 1, 0, NOW);
        let ended = Job { state: JobState::Cancelled, finished: Some(NOW), ..job(1) };
        for job in [ended, job(2), job(10_001), job(10_002)] {
            store.write_catalogue(vec![CatalogueWrite::Job(job)]).await.unwrap();
        }
        assert!(store.job(JobId(1)).await.unwrap().is_none(), "it ended 10,000 jobs ago");
        assert!(store.job(JobId(2)).await.unwrap().is_some(), "it still runs");
        assert_eq!(store.jobs(10).await.unwrap().len(), 3);
    });
}
