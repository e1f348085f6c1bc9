//! A backup as octets: what a store held at one moment, for any engine to take up again.
//!
//! ```text
//! backup  := "LTKMDBAK" ‖ version (2) ‖ frame of the head ‖ frames of records ‖ frame of the end
//! frame   := kind (1) ‖ length (4) ‖ payload ‖ check (8)
//! head    := what the records' format is, when it was taken, the wrapped data key
//! records := of one kind, each key length ‖ key ‖ value length ‖ value, ascending over the whole backup
//! end     := how many records of each kind ‖ SHA-256 ‖ HMAC-SHA-256
//! ```
//!
//! Numbers are big-endian, lengths inside a payload varints. A check is the first 8 octets of the SHA-256 of all
//! that comes before it, from the first octet on: what was damaged, swapped or left out is told at the frame where it
//! shows. The end has the same hash in full, up to its own frame, and an HMAC of it under a key of the store's: only
//! who has the store key could have made it. MRK, MUK and MSK are in it as they lie in the store, sealed.
//!
//! Which terminal is a member of which service is not in it: the registrations say it.

mod provisioned;
mod read;
mod write;

#[cfg(test)]
mod tests;

use bytes::Bytes;

use super::codec::{Damaged, Reader, put_octets, put_option, put_varint};
use super::{Sealer, StoreError};
use crate::id::TerminalKey;
use crate::secret::Sealed;
use crate::time::Timestamp;

pub use provisioned::{Provisioned, ProvisionedStream};
pub use read::{End, Parser, Piece};
pub use write::BackupStream;

/// What every backup begins with.
const MAGIC: &[u8; 8] = b"LTKMDBAK";

/// The version of the framing that this code writes and reads.
const VERSION: u16 = 1;

/// Octets of a frame's check.
const CHECK: usize = 8;

/// Octets of a frame's kind and length.
const FRAME_HEAD: usize = 5;

/// Octets of records that fill a frame.
const FRAME: usize = 64 << 10;

/// Octets of a payload at most: a longer one is damage, and nothing is allocated for it.
const MAX_PAYLOAD: usize = 16 << 20;

/// A frame's kind: the head, and the end. Between them are the kinds of [`Kind`].
const HEAD: u8 = 0;
const END: u8 = 0xFF;

/// Kinds of records, in the order in which a backup has them. What names nothing comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Kind {
    /// Under the service's number, 4 octets.
    Service = 1,
    /// An MSK, under its service's number and its own, 2 octets.
    Key = 2,
    /// Under its number, 8 octets.
    Job = 3,
    /// The counters; its key is empty.
    Totals = 4,
    /// Under its IMPI.
    Subscriber = 5,
    /// Under the terminal's key, 16 octets.
    Credential = 6,
    /// A terminal's counter, registration and deliveries; under the terminal's key.
    State = 7,
}

impl Kind {
    /// All kinds, in their order.
    pub const ALL: [Self; 7] =
        [Self::Service, Self::Key, Self::Job, Self::Totals, Self::Subscriber, Self::Credential, Self::State];

    fn from_octet(octet: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == octet)
    }

    /// The place among [`Kind::ALL`].
    fn place(self) -> usize {
        self as usize - 1
    }
}

/// How many records of each kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts([u64; Kind::ALL.len()]);

impl Counts {
    /// Records of this kind.
    pub fn of(&self, kind: Kind) -> u64 {
        self.0[kind.place()]
    }

    /// All records.
    pub fn all(&self) -> u64 {
        self.0.iter().sum()
    }

    fn add(&mut self, kind: Kind, n: u64) {
        self.0[kind.place()] += n;
    }
}

/// What a backup says of itself before its records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// The format of the records: the version of the store that they come from.
    pub format: u32,
    /// The moment that it shows.
    pub taken: Timestamp,
    /// The program that wrote it.
    pub program: String,
    /// Where the store keeps a key of its own on the machine it comes from; `None`: the store key is configured.
    pub own_key: Option<String>,
    /// The data key, wrapped by the store key.
    pub wrapped: Sealed,
    /// The T that terminals begin with of which nothing is known.
    pub first_t: u64,
    /// About how many records follow, for progress.
    pub expected: u64,
    /// About how many of them are subscribers and credentials.
    pub provisioned: u64,
}

/// The version octet of a head.
const HEAD_VERSION: u8 = 1;

impl Head {
    fn put(&self) -> Vec<u8> {
        let mut out = vec![HEAD_VERSION];
        put_varint(&mut out, u64::from(self.format));
        put_varint(&mut out, self.taken.0);
        put_octets(&mut out, self.program.as_bytes());
        put_option(&mut out, self.own_key.as_ref(), |out, path| put_octets(out, path.as_bytes()));
        put_octets(&mut out, self.wrapped.octets());
        put_varint(&mut out, self.first_t);
        put_varint(&mut out, self.expected);
        put_varint(&mut out, self.provisioned);
        out
    }

    fn read(octets: &[u8]) -> Result<Self, Damaged> {
        let mut r = Reader::new(octets, HEAD_VERSION)?;
        let head = Self {
            format: r.number()?,
            taken: Timestamp(r.varint()?),
            program: r.text(|s| Some(s.to_owned()))?,
            own_key: r.option(|r| r.text(|s| Some(s.to_owned())))?,
            wrapped: Sealed::from_octets(r.octets()?),
            first_t: r.varint()?,
            expected: r.varint()?,
            provisioned: r.varint()?,
        };
        r.end()?;
        Ok(head)
    }
}

/// A page of records of one kind: keys and values.
pub type Records = Vec<(Bytes, Bytes)>;

/// What the store held at one moment, whatever is committed meanwhile. It is read piece by piece; between two
/// pieces it keeps the engine from dropping what newer commits replaced, and from nothing else. Once the engine had
/// to open its files anew, reading on fails.
pub trait Moment: Send {
    /// What a backup of it says of itself.
    ///
    /// # Errors
    /// The store does not work, or was opened anew.
    fn head(&self) -> Result<Head, StoreError>;

    /// The next records, of one kind, in the order of kinds and keys: about as many octets as asked for. `None`:
    /// there are no more.
    ///
    /// # Errors
    /// See [`Moment::head`].
    fn records(&mut self, octets: usize) -> Result<Option<(Kind, Records)>, StoreError>;

    /// The record of kind [`Kind::State`] under this key.
    ///
    /// # Errors
    /// See [`Moment::head`].
    fn state(&self, key: TerminalKey) -> Result<Option<Bytes>, StoreError>;

    /// What seals the secrets in it.
    fn sealer(&self) -> &Sealer;
}

/// Why octets are not taken for a backup.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BackupError {
    /// It begins with something else.
    #[error("it is no backup of ltkmd: it does not begin like one")]
    NoBackup,
    /// A newer program wrote it.
    #[error(
        "it is of version {0}, and this program reads version {VERSION}: use the ltkmd that wrote it, or a newer one"
    )]
    Newer(u16),
    /// Its records are of a newer format.
    #[error("its records are of format {found}, and this program knows up to {known}: use a newer ltkmd")]
    NewerFormat {
        /// The backup's.
        found: u32,
        /// The newest that is known.
        known: u32,
    },
    /// A frame is not as it was written, or never was one. The first frame has number 0.
    #[error("it is damaged at frame {frame} (octet {at}): use another backup")]
    Damaged {
        /// The frame where it shows.
        frame: u64,
        /// Octets before that frame.
        at: u64,
    },
    /// It ends before its end.
    #[error("it is cut off: it ends in frame {frame}, after {at} octets. Use another backup")]
    Cut {
        /// The frame that is not whole.
        frame: u64,
        /// Octets that are there.
        at: u64,
    },
    /// Something follows its end.
    #[error("something follows its end: the file is not as it was written")]
    Trailing,
    /// The store key is another one than it was made under.
    #[error("the store key is not the one that it was made under: give the key of the store it comes from")]
    WrongKey,
    /// The end was not written by who has the store key.
    #[error("it was changed after it was written: its seal is not of this store key")]
    Forged,
}
