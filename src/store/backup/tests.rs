//! Whatever becomes of a backup on its way is told, and never taken for one.

use std::collections::VecDeque;

use super::write::Frames;
use super::*;
use crate::store::Sealer;

/// A moment of made-up records.
struct Made {
    sealer: Sealer,
    wrapped: Sealed,
    pages: VecDeque<(Kind, Records)>,
}

impl Made {
    fn new() -> Self {
        let (sealer, wrapped) = Sealer::create(&[7; 32]).expect("randomness");
        let record = |key: &[u8], value: &[u8]| (Bytes::copy_from_slice(key), Bytes::copy_from_slice(value));
        let pages = VecDeque::from([
            (Kind::Service, vec![record(b"\0\0\0\x01", b"s")]),
            (Kind::Totals, vec![record(b"", b"t")]),
            (Kind::Credential, vec![record(b"a", b"1"), record(b"b", b"22")]),
            (Kind::Credential, vec![record(b"c", &[3; 300])]),
            (Kind::State, vec![record(b"a", b"")]),
        ]);
        Self { sealer, wrapped, pages }
    }
}

impl Moment for Made {
    fn head(&self) -> Result<Head, StoreError> {
        Ok(Head {
            format: 2,
            taken: Timestamp(1_790_000_000_000),
            program: "test".to_owned(),
            own_key: Some("/a/store.key".to_owned()),
            wrapped: self.wrapped.clone(),
            first_t: 1,
            expected: 6,
            provisioned: 3,
        })
    }

    fn records(&mut self, _: usize) -> Result<Option<(Kind, Records)>, StoreError> {
        Ok(self.pages.pop_front())
    }

    fn state(&self, _: TerminalKey) -> Result<Option<Bytes>, StoreError> {
        Ok(None)
    }

    fn sealer(&self) -> &Sealer {
        &self.sealer
    }
}

fn written(moment: Made) -> Vec<u8> {
    let mut stream = BackupStream::new(Box::new(moment));
    let mut octets = Vec::new();
    while let Some(more) = stream.next_octets().expect("it works") {
        octets.extend_from_slice(&more);
    }
    octets
}

/// All pieces, fed so many octets at a time.
fn read(octets: &[u8], at_a_time: usize) -> Result<Vec<Piece>, BackupError> {
    let (mut parser, mut pieces) = (Parser::new(), Vec::new());
    for chunk in octets.chunks(at_a_time) {
        parser.feed(chunk);
        while let Some(piece) = parser.piece()? {
            pieces.push(piece);
        }
    }
    parser.finish()?;
    Ok(pieces)
}

#[test]
fn a_backup_reads_as_it_was_written_however_it_is_cut_on_its_way() {
    let (sealer, head, pages) = {
        let made = Made::new();
        let (head, pages) = (made.head().expect("a head"), made.pages.clone());
        let octets = written(made);
        (Sealer::create(&[8; 32]).expect("randomness").0, head, (pages, octets))
    };
    let (pages, octets) = pages;
    for at_a_time in [1, 7, 64, octets.len()] {
        let mut pieces = read(&octets, at_a_time).expect("a backup").into_iter();
        assert!(
            matches!(pieces.next(), Some(Piece::Head(found)) if found.taken == head.taken && found.own_key == head.own_key)
        );
        for (kind, records) in &pages {
            match pieces.next() {
                Some(Piece::Records(k, found)) => assert_eq!((k, &found), (*kind, records)),
                other => panic!("{other:?} in place of {kind:?}"),
            }
        }
        let Some(Piece::End(end)) = pieces.next() else { panic!("no end") };
        assert_eq!(end.counts.of(Kind::Credential), 3);
        assert_eq!((end.counts.of(Kind::Job), end.counts.all()), (0, 6));
        assert_eq!(end.check_seal(&sealer), Err(BackupError::Forged), "another store's key");
        assert!(pieces.next().is_none());
    }
}

#[test]
fn a_backup_that_ends_early_is_told_wherever_it_ends() {
    let octets = written(Made::new());
    for length in 0..octets.len() {
        match read(&octets[..length], 50) {
            Err(BackupError::NoBackup) => assert_eq!(length, 0),
            Err(BackupError::Cut { at, .. }) => assert_eq!(at, length as u64),
            other => panic!("{length}: {other:?}"),
        }
    }
    let longer = [&octets[..], b"x"].concat();
    assert_eq!(read(&longer, 64).map(|p| p.len()), Err(BackupError::Trailing));
}

#[test]
fn a_changed_octet_is_told_wherever_it_is() {
    let octets = written(Made::new());
    for place in 0..octets.len() {
        for bit in [0x01, 0x80] {
            let mut changed = octets.clone();
            changed[place] ^= bit;
            match read(&changed, 64) {
                Err(BackupError::NoBackup) => assert!(place < 8),
                Err(BackupError::Newer(_)) => assert!((8..10).contains(&place)),
                // A length that grew reaches beyond the end.
                Err(BackupError::Damaged { .. } | BackupError::Cut { .. }) => {}
                other => panic!("{place}: {other:?}"),
            }
        }
    }
    assert_eq!(read(b"PK\x03\x04 something else", 64).map(|p| p.len()), Err(BackupError::NoBackup));
    let newer = [&MAGIC[..], &[0, 9], b"whatever"].concat();
    let told = read(&newer, 64).expect_err("version 9");
    assert!(told.to_string().contains("version 9") && told.to_string().contains("newer"), "{told}");
}

#[test]
fn damage_is_told_with_its_frame() {
    let mut octets = written(Made::new());
    // The long value is in the frame of records after three others and the head.
    let place = octets.windows(100).position(|w| w == [3; 100]).expect("it is there");
    octets[place] ^= 1;
    let told = read(&octets, 64).expect_err("damaged");
    assert!(matches!(told, BackupError::Damaged { frame: 4, .. }), "{told}");
    assert!(told.to_string().contains("frame 4"), "{told}");
}

/// A backup of these frames, each with a right check, and a right end.
fn framed(frames: &[(Kind, Records)]) -> Vec<u8> {
    let made = Made::new();
    let mut out = Frames::new();
    let mut octets = out.head(&made.head().expect("a head"));
    for (kind, records) in frames {
        octets.extend(out.records(*kind, records));
    }
    octets.extend(out.end(&made.sealer));
    octets
}

#[test]
fn records_out_of_their_order_or_there_twice_are_damage_whatever_the_checks_say() {
    let record = |key: &'static [u8]| (Bytes::from_static(key), Bytes::from_static(b"v"));
    let right = [(Kind::Subscriber, vec![record(b"a"), record(b"b")]), (Kind::State, vec![record(b"a")])];
    assert!(read(&framed(&right), 64).is_ok());
    for wrong in [
        [(Kind::Subscriber, vec![record(b"b"), record(b"a")]), (Kind::State, vec![record(b"a")])],
        [(Kind::Subscriber, vec![record(b"a"), record(b"a")]), (Kind::State, vec![record(b"a")])],
        [(Kind::State, vec![record(b"a")]), (Kind::Subscriber, vec![record(b"b")])],
        [(Kind::State, vec![record(b"a")]), (Kind::State, vec![record(b"a")])],
    ] {
        assert!(matches!(read(&framed(&wrong), 64), Err(BackupError::Damaged { .. })), "{wrong:?}");
    }
}

#[test]
fn a_length_beyond_all_bounds_is_damage_and_allocates_nothing() {
    let mut octets = framed(&[]);
    let at = octets.len() - (FRAME_HEAD + Kind::ALL.len() + 64 + CHECK);
    assert_eq!(octets[at], END);
    octets[at + 1..at + FRAME_HEAD].copy_from_slice(&u32::MAX.to_be_bytes());
    assert!(matches!(read(&octets, 64), Err(BackupError::Damaged { frame: 1, .. })));
}
