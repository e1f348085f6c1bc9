//! Writing: a moment's records into frames.

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::{CHECK, Counts, END, FRAME, FRAME_HEAD, HEAD, Head, Kind, MAGIC, Moment, VERSION};
use crate::store::codec::{put_octets, put_varint};
use crate::store::{Sealer, StoreError};

/// Frames as they come into being.
pub(super) struct Frames {
    digest: Sha256,
    counts: Counts,
    begun: bool,
}

impl Frames {
    pub(super) fn new() -> Self {
        Self { digest: Sha256::new(), counts: Counts::default(), begun: false }
    }

    /// The beginning: magic, version and head.
    pub(super) fn head(&mut self, head: &Head) -> Vec<u8> {
        let mut out = [&MAGIC[..], &VERSION.to_be_bytes()].concat();
        self.digest.update(&out);
        self.frame(&mut out, HEAD, |out| out.extend_from_slice(&head.put()));
        self.begun = true;
        out
    }

    /// A frame of records.
    pub(super) fn records(&mut self, kind: Kind, records: &[(Bytes, Bytes)]) -> Vec<u8> {
        self.counts.add(kind, records.len() as u64);
        let mut out = Vec::with_capacity(FRAME + FRAME / 4);
        self.frame(&mut out, kind as u8, |out| {
            for (key, value) in records {
                put_octets(out, key);
                put_octets(out, value);
            }
        });
        out
    }

    /// The end.
    pub(super) fn end(&mut self, sealer: &Sealer) -> Vec<u8> {
        let digest: [u8; 32] = self.digest.clone().finalize().into();
        let (counts, seal) = (self.counts, sealer.backup_mac(&digest));
        let mut out = Vec::new();
        self.frame(&mut out, END, |out| {
            for n in counts.0 {
                put_varint(out, n);
            }
            out.extend_from_slice(&digest);
            out.extend_from_slice(&seal);
        });
        out
    }

    /// Appends a frame whose payload `put` writes. The length is written back once it is known.
    fn frame(&mut self, out: &mut Vec<u8>, kind: u8, put: impl FnOnce(&mut Vec<u8>)) {
        let begin = out.len();
        out.push(kind);
        out.extend_from_slice(&[0; 4]);
        put(out);
        let length = u32::try_from(out.len() - begin - FRAME_HEAD).expect("a frame is far below 4 GiB");
        out[begin + 1..begin + FRAME_HEAD].copy_from_slice(&length.to_be_bytes());
        self.digest.update(&out[begin..]);
        let check: [u8; 32] = self.digest.clone().finalize().into();
        out.extend_from_slice(&check[..CHECK]);
        self.digest.update(&check[..CHECK]);
    }
}

/// A moment as a backup, piece by piece: each call reads what it gives.
pub struct BackupStream {
    moment: Box<dyn Moment>,
    frames: Frames,
    ended: bool,
}

impl BackupStream {
    /// The backup of a moment.
    pub fn new(moment: Box<dyn Moment>) -> Self {
        Self { moment, frames: Frames::new(), ended: false }
    }

    /// The next octets, about 64 KiB; `None` behind the end. Blocks while the store is read.
    ///
    /// # Errors
    /// The store does not work, or was opened anew: what was given so far is no backup.
    pub fn next_octets(&mut self) -> Result<Option<Bytes>, StoreError> {
        if self.ended {
            return Ok(None);
        }
        let octets = if self.frames.begun {
            match self.moment.records(FRAME)? {
                Some((kind, records)) => self.frames.records(kind, &records),
                None => {
                    self.ended = true;
                    self.frames.end(self.moment.sealer())
                }
            }
        } else {
            self.frames.head(&self.moment.head()?)
        };
        Ok(Some(octets.into()))
    }
}
