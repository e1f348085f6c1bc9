//! The file over ends and starts of the daemon.

use std::path::{Path, PathBuf};

use super::*;
use crate::metrics::Metrics;

/// A log in a directory of its own.
struct Place {
    directory: tempfile::TempDir,
    kept: Kept,
    metrics: Arc<Metrics>,
}

impl Place {
    fn new() -> Self {
        Self {
            directory: tempfile::tempdir().expect("a directory"),
            kept: Kept::default(),
            metrics: Arc::default(),
        }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("audit.log")
    }

    fn open(&self) -> AuditLog {
        AuditLog::open(&self.path(), "bsm-1", Box::new(self.kept.clone()), Arc::clone(&self.metrics))
            .expect("a thread")
    }

    fn octets(&self) -> Vec<u8> {
        std::fs::read(self.path()).expect("a file")
    }

    /// Opens, writes so many requests, and is gone without a word as after a kill; the octets that are there.
    async fn killed_after(&self, requests: u64) -> Vec<u8> {
        let log = self.open();
        for n in 0..requests {
            log.append(request(&format!("/{n}"))).await.expect("written");
        }
        self.octets()
    }

    fn write(&self, octets: &[u8]) {
        std::fs::write(self.path(), octets).expect("written");
    }

    /// What the log says, from which the daemon's own head is known.
    fn check(&self) -> Result<Report, String> {
        check(&self.octets(), *self.kept.0.lock().expect("no panic"))
    }
}

fn events(octets: &[u8]) -> Vec<Event> {
    let (mut verifier, mut events) = (Verifier::default(), Vec::new());
    let mut octets = octets;
    let _ = verifier.file(&mut octets, |record| events.push(record.event.clone())).expect("memory is read");
    events
}

#[tokio::test]
async fn lines_are_there_when_their_append_returns_and_the_chain_goes_on_at_the_next_start() {
    let place = Place::new();
    let log = place.open();
    assert_eq!(log.append(request("/a")).await.expect("written"), 2);
    assert_eq!(place.check().expect("whole").head, log.head());
    log.close().await;
    drop(log);
    let log = place.open();
    assert_eq!(log.append(request("/b")).await.expect("written"), 5);
    let report = place.check().expect("whole");
    assert_eq!((report.lines, report.torn), (5, 0));
    let events = events(&place.octets());
    assert!(matches!(&events[0], Event::Started { unvouched: 0, .. }));
    assert!(matches!(&events[2..4], [Event::Ended, Event::Started { unvouched: 0, .. }]));
    let mode = std::os::unix::fs::PermissionsExt::mode(
        &std::fs::metadata(place.path()).expect("a file").permissions(),
    );
    assert_eq!(mode & 0o777, 0o600);
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_of_many_at_once_are_one_chain() {
    let place = Place::new();
    let log = Arc::new(place.open());
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..20 {
        let log = Arc::clone(&log);
        tasks.spawn(async move {
            let mut seen = Vec::new();
            for n in 0..20 {
                seen.push(log.append(request(&format!("/{task}/{n}"))).await.expect("written"));
            }
            seen
        });
    }
    let mut seen = tasks.join_all().await.concat();
    seen.sort_unstable();
    assert_eq!(seen, (2..402).collect::<Vec<_>>());
    assert_eq!(place.check().expect("whole").lines, 401);
}

#[tokio::test]
async fn a_line_that_broke_off_anywhere_is_told_at_the_next_start_and_the_chain_goes_on() {
    let place = Place::new();
    let whole = place.killed_after(2).await;
    let lines: Vec<&[u8]> = whole.split_inclusive(|b| *b == b'\n').collect();
    let last = whole.len() - lines[2].len();
    // The kept head is of the line before: the one that broke off was not durable.
    let (_, head) = chain::read(lines[1].strip_suffix(b"\n").expect("a line end")).expect("a line");
    for cut in [last + 1, last + 40, whole.len() - 2, whole.len() - 1] {
        place.write(&whole[..cut]);
        place.kept.keep(head).expect("kept");
        let log = place.open();
        log.append(request("/after")).await.expect("written");
        let report = place.check().expect("whole, with a break that is told");
        let events = events(&place.octets());
        assert_eq!(report.lines, 5, "{cut}: {events:?}");
        if cut == whole.len() - 1 {
            // Nothing but the line's end was missing.
            assert!(matches!(events[3], Event::Started { unvouched: 1, .. }), "{events:?}");
        } else {
            let torn = (cut - last) as u64 + 1;
            assert_eq!(report.torn, 1);
            assert!(matches!(events[2], Event::Torn { octets, .. } if octets == torn), "{events:?}");
        }
    }
}

#[tokio::test]
async fn a_first_line_that_broke_off_is_told_too() {
    let place = Place::new();
    place.write(b"{\"seq\":1,\"pr");
    let log = place.open();
    log.append(request("/after")).await.expect("written");
    assert_eq!(place.check().expect("whole").torn, 1);
    // The first line of a new file is one, too.
    let before = log.head();
    drop(log);
    place.write(b"{\"seq\":3");
    let log = place.open();
    let report = place.check().expect("whole");
    assert_eq!((report.torn, report.first, report.before), (1, before.seq + 1, before.hash));
    drop(log);
}

#[tokio::test]
async fn what_was_cut_or_replaced_between_two_runs_is_told_for_good() {
    let place = Place::new();
    let whole = place.killed_after(3).await;
    let head = *place.kept.0.lock().expect("no panic");
    let lines: Vec<&[u8]> = whole.split_inclusive(|b| *b == b'\n').collect();
    let text = String::from_utf8(whole.clone()).expect("UTF-8");
    let (forged, _) = chained((0..4).map(|n| request(&format!("/forged{n}"))));
    for (what, octets, told) in [
        ("two lines cut", lines[..2].concat(), "line 3: numbers 3 to 4 of the log are missing"),
        ("part of a line cut", whole[..whole.len() - 9].to_vec(), "line 4: the line is no line"),
        (
            "the last line edited",
            text.replace("\"/2\"", "\"/9\"").into_bytes(),
            "line 4: the line was changed",
        ),
        ("all hashed anew", forged, "line 5: it does not follow number 4"),
    ] {
        place.write(&octets);
        place.kept.0.lock().expect("no panic").clone_from(&head);
        let log = place.open();
        assert_eq!(log.append(request("/after")).await.expect("it goes on"), 7, "{what}");
        let found = place.check().expect_err(what);
        assert!(found.starts_with(told), "{what}: {found}");
        let text = String::from_utf8_lossy(&place.octets()).into_owned();
        assert!(text.contains("\"event\":\"missing\""), "{what}");
    }
}

#[tokio::test]
async fn without_a_kept_head_the_start_says_that_nobody_vouches_for_what_is_there() {
    let place = Place::new();
    place.killed_after(2).await;
    *place.kept.0.lock().expect("no panic") = None;
    drop(place.open());
    assert!(matches!(events(&place.octets())[3], Event::Started { unvouched: 3, .. }));
}

async fn rotate(log: &AuditLog, from: &Path) -> Vec<u8> {
    let to = from.with_extension("log.1");
    std::fs::rename(from, &to).expect("renamed");
    log.append(request("/between")).await.expect("written");
    log.reopen().await;
    log.append(request("/after")).await.expect("written");
    std::fs::read(to).expect("the old file")
}

#[tokio::test]
async fn after_a_rotation_the_chain_goes_on_in_the_new_file() {
    let place = Place::new();
    let log = place.open();
    log.append(request("/before")).await.expect("written");
    let older = rotate(&log, &place.path()).await;
    let newer = place.octets();
    assert!(matches!(events(&newer)[..], [Event::Continued, Event::Request(_)]));
    assert_eq!(events(&older).len(), 3, "what came before the signal is in the old file");
    let mut verifier = Verifier::new(Some(log.head()));
    for file in [&older, &newer] {
        verifier.file(&mut file.as_slice(), |_| {}).expect("read").expect("whole");
    }
    assert_eq!(verifier.finish().expect("whole together").lines, 5);
    // A signal without a rotation changes nothing.
    log.reopen().await;
    log.append(request("/more")).await.expect("written");
    assert_eq!(events(&place.octets()).len(), 3);
}

#[tokio::test]
async fn a_rotation_while_the_daemon_was_down_is_a_new_file_too() {
    let place = Place::new();
    let older = place.killed_after(1).await;
    std::fs::remove_file(place.path()).expect("moved away");
    let log = place.open();
    log.append(request("/after")).await.expect("written");
    assert!(matches!(events(&place.octets())[..2], [Event::Continued, Event::Started { .. }]));
    let both = [older, place.octets()].concat();
    assert_eq!(check(&both, Some(log.head())).expect("whole together").lines, 5);
}

#[tokio::test]
async fn what_happens_to_the_file_while_it_is_written_shows() {
    let place = Place::new();
    let log = place.open();
    for n in 0..3 {
        log.append(request(&format!("/{n}"))).await.expect("written");
    }
    let whole = place.octets();
    let second = whole.iter().position(|b| *b == b'\n').expect("a line") + 1;
    let file = std::fs::OpenOptions::new().write(true).open(place.path()).expect("opened");
    file.set_len(second as u64).expect("cut");
    log.append(request("/after")).await.expect("it goes on");
    assert!(place.check().expect_err("cut").contains("numbers 2 to 4 of the log are missing"));
    // A file that was removed is begun anew, not written to where nobody sees it.
    std::fs::remove_file(place.path()).expect("removed");
    log.append(request("/more")).await.expect("written");
    assert!(matches!(events(&place.octets())[..], [Event::Continued, Event::Request(_)]));
}

#[tokio::test]
async fn a_file_that_is_no_audit_log_is_left_alone() {
    let place = Place::new();
    place.write(b"precious\n");
    let log = place.open();
    let refused = log.append(request("/a")).await.expect_err("not this file");
    let text = refused.to_string();
    assert!(text.contains("move it away") && text.contains("audit.log"), "{text}");
    assert_eq!(place.octets(), b"precious\n");
    assert!(log.trouble().is_some());
    std::fs::remove_file(place.path()).expect("moved away");
    log.append(request("/a")).await.expect("written now");
    assert_eq!(log.trouble(), None);
}

#[tokio::test]
async fn a_head_that_the_store_sealed_survives_and_a_made_up_one_is_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    let store =
        crate::store::EmbeddedStore::open(&directory.path().join("store"), Some([7; 32])).expect("a store");
    let store: Arc<dyn crate::store::Store> = Arc::new(store);
    let sealed = SealedHead::new(directory.path(), store);
    assert_eq!(sealed.load().expect("none yet"), None);
    for seq in [1, u64::MAX, 300] {
        let head = Head { seq, hash: Hash::of(&seq.to_be_bytes()) };
        sealed.keep(head).expect("kept");
        assert_eq!(sealed.load().expect("opened"), Some(head));
    }
    let path = directory.path().join("audit.head");
    let mut octets = std::fs::read(&path).expect("a file");
    octets[40] = if octets[40] == b'0' { b'1' } else { b'0' };
    std::fs::write(&path, octets).expect("written");
    assert!(sealed.load().is_err());
}

#[tokio::test]
async fn metrics_tell_whether_it_is_written_how_much_and_what_it_could_not_take() {
    let place = Place::new();
    let says = |series: &str| {
        let text = place.metrics.encode();
        let value = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        value.expect("a series").parse::<f64>().expect("a number") as u64
    };
    assert_eq!((says("ltkmd_audit_enabled"), says("ltkmd_audit_up")), (0, 0), "there is none yet");
    let log = place.open();
    log.append(request("/1")).await.expect("written");
    assert_eq!((says("ltkmd_audit_enabled"), says("ltkmd_audit_up")), (1, 1));
    assert_eq!(
        (says("ltkmd_audit_lines_total"), says("ltkmd_audit_errors_total")),
        (2, 0),
        "started, and one"
    );
    assert_eq!(says("ltkmd_audit_file_bytes"), place.octets().len() as u64);
    std::fs::remove_file(place.path()).expect("removed");
    std::fs::create_dir(place.path()).expect("in its way");
    log.append(request("/2")).await.expect_err("no file can be there");
    assert_eq!((says("ltkmd_audit_enabled"), says("ltkmd_audit_up")), (1, 0));
    assert_eq!((says("ltkmd_audit_lines_total"), says("ltkmd_audit_errors_total")), (2, 1));
    std::fs::remove_dir(place.path()).expect("out of the way");
    log.append(request("/3")).await.expect("written");
    assert_eq!((says("ltkmd_audit_up"), says("ltkmd_audit_errors_total")), (1, 1));
    assert_eq!(says("ltkmd_audit_file_bytes"), place.octets().len() as u64);
}
