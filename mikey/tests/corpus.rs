//! Replays the corpus of the fuzz targets: what a fuzzer has found once stays found.

#![allow(clippy::unwrap_used, reason = "a test says so by failing")]

use std::{fs, path::Path};

#[allow(unreachable_pub, reason = "the fuzz targets use it from outside")]
#[path = "../../fuzz/src/mikey.rs"]
mod targets;

/// Feeds every file of a target's corpus to it.
fn replay(target: &str, body: fn(&[u8])) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target);
    let mut count = 0;
    for entry in fs::read_dir(&corpus).unwrap_or_else(|error| panic!("{}: {error}", corpus.display())) {
        let path = entry.unwrap().path();
        println!("{}", path.display());
        body(&fs::read(path).unwrap());
        count += 1;
    }
    assert!(count >= 10, "only {count} inputs in {}", corpus.display());
}

#[test]
fn the_corpus_of_messages_is_replayed() {
    replay("mikey_message", targets::message);
}

#[test]
fn the_corpus_of_messages_to_open_is_replayed() {
    replay("mikey_open", targets::open);
}

#[test]
fn the_corpus_of_verification_messages_is_replayed() {
    replay("mikey_verification", targets::verification);
}

#[test]
fn the_corpus_of_parts_to_make_a_message_of_is_replayed() {
    replay("mikey_make", targets::make);
}
