//! The chain's head, kept apart from the chain, so that a cut at the end shows at the next start.

use std::fs::OpenOptions;
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use data_encoding::HEXLOWER;

use super::chain::{Hash, Head};
use crate::secret::Sealed;
use crate::store::Store;

/// What binds the sealed octets to their purpose.
const CONTEXT: &[u8] = b"audit head";

/// The file's name in the store's directory.
const NAME: &str = "audit.head";

/// Remembers a head over the daemon's end.
pub trait Keeper: Send {
    /// The head that was kept last; none at the first start.
    ///
    /// # Errors
    /// It cannot be read, or somebody wrote it who does not have the key.
    fn load(&self) -> io::Result<Option<Head>>;

    /// Keeps a head in place of the one before.
    ///
    /// # Errors
    /// It cannot be written.
    fn keep(&self, head: Head) -> io::Result<()>;
}

/// A head in a small file, sealed under the store's data key: nobody makes one without that key. An older one can be put
/// back, together with an older log; who fears that sends the lines to another machine.
///
/// It is written in place, in one sector, and not synced: after a power cut it may be some lines late, never early.
pub struct SealedHead {
    path: PathBuf,
    store: Arc<dyn Store>,
}

impl SealedHead {
    /// The head of the log that belongs to the store in this directory.
    pub fn new(directory: &Path, store: Arc<dyn Store>) -> Self {
        Self { path: directory.join(NAME), store }
    }
}

impl Keeper for SealedHead {
    fn load(&self) -> io::Result<Option<Head>> {
        let digits = match std::fs::read(&self.path) {
            Ok(digits) => digits,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let opened = HEXLOWER
            .decode(digits.trim_ascii())
            .ok()
            .and_then(|octets| self.store.sealer().open(CONTEXT, &Sealed::from_octets(&octets)).ok());
        let head = opened.as_ref().and_then(|o| decode(o.expose()));
        head.map(Some).ok_or_else(|| io::Error::new(ErrorKind::InvalidData, "was not written by this store"))
    }

    fn keep(&self, head: Head) -> io::Result<()> {
        let sealed = self.store.sealer().seal(CONTEXT, &encode(head)).map_err(io::Error::other)?;
        let text = HEXLOWER.encode(sealed.octets()) + "\n";
        let mut options = OpenOptions::new();
        let file = options.create(true).truncate(false).write(true).mode(0o600).open(&self.path)?;
        // Always as long as before, so that nothing is left behind it.
        file.write_all_at(text.as_bytes(), 0)
    }
}

fn encode(head: Head) -> [u8; 40] {
    let mut octets = [0; 40];
    octets[..8].copy_from_slice(&head.seq.to_be_bytes());
    octets[8..].copy_from_slice(&head.hash.0);
    octets
}

fn decode(octets: &[u8]) -> Option<Head> {
    let (seq, hash) = octets.split_at_checked(8)?;
    Some(Head { seq: u64::from_be_bytes(seq.try_into().ok()?), hash: Hash(hash.try_into().ok()?) })
}
