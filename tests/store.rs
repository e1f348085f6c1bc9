//! What every engine promises, proved over the embedded one; and what only it can promise.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "store/backup.rs"]
mod backup;
#[path = "store/conformance.rs"]
mod conformance;
#[path = "store/embedded.rs"]
mod embedded;
#[path = "store/full_disk.rs"]
mod full_disk;
#[path = "store/harness.rs"]
mod harness;
#[path = "store/histories.rs"]
mod histories;
#[path = "store/jobs.rs"]
mod jobs;

use harness::Factory;
use ltkmd::store::EmbeddedStore;

/// The embedded engine in a directory of its own.
struct Embedded(tempfile::TempDir);

impl Factory for Embedded {
    type Store = EmbeddedStore;

    fn new() -> Self {
        Self(tempfile::tempdir().expect("a directory"))
    }

    fn open(&self) -> EmbeddedStore {
        EmbeddedStore::open(self.0.path(), Some([7; 32])).expect("the store opens")
    }
}

conformance_tests!(embedded_conformance: super::Embedded);
