//! The chain and its file: what is written is found whole, and whatever is done to it shows.

mod files;
mod properties;

use std::io;
use std::sync::{Arc, Mutex};

use super::*;
use crate::time::Timestamp;

/// Keeps a head in memory, over the ends of logs.
#[derive(Clone, Default)]
pub(super) struct Kept(Arc<Mutex<Option<Head>>>);

impl Keeper for Kept {
    fn load(&self) -> io::Result<Option<Head>> {
        Ok(*self.0.lock().expect("no panic"))
    }

    fn keep(&self, head: Head) -> io::Result<()> {
        *self.0.lock().expect("no panic") = Some(head);
        Ok(())
    }
}

/// A request's event with this path.
pub(super) fn request(path: &str) -> Event {
    let peer = Peer::Tcp { peer: ([127, 0, 0, 1], 5000).into() };
    Event::Request(Call {
        who: Who { role: Role::Admin, from: peer },
        method: "PUT".to_owned(),
        path: path.to_owned(),
        query: [("force".to_owned(), "true".to_owned())].into(),
    })
}

/// A chain of these events.
pub(super) fn chained(events: impl IntoIterator<Item = Event>) -> (Vec<u8>, Head) {
    let (mut octets, mut head) = (Vec::new(), Head::default());
    for event in events {
        let (line, next) = head.line(Timestamp(1_700_000_000_000), "bsm-1", event);
        octets.extend_from_slice(&line);
        head = next;
    }
    (octets, head)
}

/// Checks octets as one file.
pub(super) fn check(octets: &[u8], known: Option<Head>) -> Result<Report, String> {
    let mut verifier = Verifier::new(known);
    let mut octets = octets;
    verifier.file(&mut octets, |_| {}).expect("memory is read").map_err(|finding| finding.to_string())?;
    verifier.finish().map_err(|fault| fault.to_string())
}

#[test]
fn a_line_is_json_that_names_who_did_what_and_sha256sum_finds_its_hash() {
    let (octets, head) = chained([request("/v1/services/urn%3As")]);
    let text = String::from_utf8(octets).expect("UTF-8");
    let (signed, hash) = text.trim_end().rsplit_once(",\"hash\":").expect("a hash");
    assert_eq!(
        signed,
        format!(
            "{{\"seq\":1,\"prev\":\"{}\",\"at\":\"2023-11-14T22:13:20Z\",\"node\":\"bsm-1\",\"event\":\"request\",\
             \"who\":{{\"as\":\"admin\",\"peer\":\"127.0.0.1:5000\"}},\"method\":\"PUT\",\
             \"path\":\"/v1/services/urn%3As\",\"query\":{{\"force\":\"true\"}}",
            "0".repeat(64)
        )
    );
    assert_eq!(hash, format!("\"{}\"}}", head.hash));
    assert_eq!(head.hash, Hash::of(signed.as_bytes()));
}

#[test]
fn every_event_survives_a_round_trip() {
    let who = |role, from| Who { role, from };
    let call = |who| Call { who, method: "GET".to_owned(), path: "/".to_owned(), query: Default::default() };
    let unix = |pid| Peer::Unix { uid: 1, gid: 2, pid };
    let events = [
        request("/a\"\\é"),
        Event::Import { of: 1, names: names([("credentials", vec!["a@b".to_owned()])]) },
        Event::Answer { of: 1, status: 201, took_ms: 3, names: Names::new() },
        Event::Read { call: call(who(Role::KeyReader, unix(Some(3)))), status: 200, names: Names::new() },
        Event::Refused { call: call(who(Role::Unix, unix(None))), status: 401 },
        Event::Started { version: "0.1.0".to_owned(), unvouched: 2 },
        Event::Ended,
        Event::Continued,
        Event::Torn { octets: 9, sha256: Hash::of(b"torn") },
        Event::Missing { from: 3, to: 4 },
    ];
    for event in events {
        let (octets, head) = chained([event.clone()]);
        let (record, read) = chain::read(octets.strip_suffix(b"\n").expect("a line end")).expect("a line");
        assert_eq!((record.event, read), (event, head));
    }
}

#[test]
fn the_first_bad_line_is_told_with_what_is_wrong_with_it() {
    let (octets, head) = chained((0..5).map(|n| request(&format!("/{n}"))));
    let lines: Vec<&[u8]> = octets.split_inclusive(|b| *b == b'\n').collect();
    let without = |place: usize| [&lines[..place], &lines[place + 1..]].concat().concat();
    assert_eq!(check(&octets, Some(head)).expect("whole").lines, 5);
    let told = |octets: &[u8]| check(octets, Some(head)).expect_err("tampered with");
    let edited = String::from_utf8(octets.clone()).expect("UTF-8").replace("\"/2\"", "\"/9\"");
    assert_eq!(told(edited.as_bytes()), "line 3: the line was changed: its hash does not fit its text");
    assert_eq!(told(&without(2)), "line 3: number 3 of the log is missing: it was cut out");
    assert!(told(&without(0)).starts_with("line 1: no file begins with this line, number 2"));
    let two = [lines[0], lines[1], lines[4]].concat();
    assert_eq!(told(&two), "line 3: numbers 3 to 4 of the log are missing: they were cut out");
    assert!(told(&without(4)).contains("ends at number 4, and the daemon has written up to number 5"));
    let swapped = [lines[0], lines[2], lines[1]].concat();
    assert!(told(&swapped).starts_with("line 2: number 2 of the log is missing"));
    let twice = [lines[0], lines[1], lines[1]].concat();
    assert!(told(&twice).contains("line number 2 of the log, after number 2"));
    assert_eq!(told(&octets[..octets.len() - 1]), "line 5: the file ends in the middle of a line");
    assert_eq!(told(b"hello\n"), "line 1: the line is no line of an audit log");
    // Whoever changes a line and hashes it anew has to do so with all that follow.
    let (forged, _) = chained([request("/0"), request("/forged")]);
    let forged = [forged.as_slice(), lines[2]].concat();
    assert!(told(&forged).starts_with("line 3: it does not follow number 2"));
    // And then it is not what the daemon says.
    let (forged, _) = chained((0..5).map(|n| request(&format!("/forged{n}"))));
    assert!(told(&forged).starts_with("number 5 is not the line that the daemon wrote"));
}

#[test]
fn a_later_file_is_a_chain_of_its_own_and_continues_the_earlier_one() {
    let (octets, head) = chained([request("/0"), request("/1"), Event::Continued, request("/3")]);
    let lines: Vec<&[u8]> = octets.split_inclusive(|b| *b == b'\n').collect();
    let (older, newer) = (lines[..2].concat(), lines[2..].concat());
    let report = check(&newer, Some(head)).expect("whole by itself");
    assert_eq!((report.first, report.lines, report.head), (3, 2, head));
    assert_ne!(report.before, Hash::default());
    let mut verifier = Verifier::new(Some(head));
    for file in [&older, &newer] {
        verifier.file(&mut file.as_slice(), |_| {}).expect("read").expect("whole");
    }
    let report = verifier.finish().expect("whole together");
    assert_eq!((report.first, report.lines, report.before), (1, 4, Hash::default()));
    let mut verifier = Verifier::default();
    verifier.file(&mut newer.as_slice(), |_| {}).expect("read").expect("whole");
    let wrong = verifier.file(&mut older.as_slice(), |_| {}).expect("read").expect_err("the wrong order");
    assert!(wrong.to_string().contains("after number 4"), "{wrong}");
}
