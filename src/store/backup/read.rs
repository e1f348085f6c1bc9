//! Reading: octets, however they were cut, into frames that are held to their checks.

use bytes::{Buf, Bytes, BytesMut};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::{BackupError, CHECK, Counts, END, FRAME_HEAD, HEAD, Head, Kind, MAGIC, MAX_PAYLOAD, VERSION};
use crate::store::Sealer;
use crate::store::codec::{Damaged, Reader};

/// Octets before the first frame.
const PREFIX: usize = MAGIC.len() + 2;

/// What a backup is made of.
#[derive(Debug)]
pub enum Piece {
    /// What it says of itself; comes first, once.
    Head(Head),
    /// Records of one kind, as keys and values.
    Records(Kind, Vec<(Bytes, Bytes)>),
    /// The end, whose counts and hash are right.
    End(End),
}

/// A backup's end.
#[derive(Debug, Clone)]
pub struct End {
    /// How many records of each kind there were.
    pub counts: Counts,
    digest: [u8; 32],
    seal: [u8; 32],
}

impl End {
    /// Whether who wrote the backup had this store's key.
    ///
    /// # Errors
    /// [`BackupError::Forged`].
    pub fn check_seal(&self, sealer: &Sealer) -> Result<(), BackupError> {
        match bool::from(sealer.backup_mac(&self.digest).ct_eq(&self.seal)) {
            true => Ok(()),
            false => Err(BackupError::Forged),
        }
    }
}

/// Takes octets as they come and gives the pieces that they make up. Every piece it gives passed its check.
pub struct Parser {
    buffer: BytesMut,
    digest: Sha256,
    /// The frame that comes next.
    frame: u64,
    /// Octets before it.
    at: u64,
    begun: bool,
    ended: bool,
    /// The record before, whose kind and key the next one has to exceed.
    last: Option<(Kind, Bytes)>,
    counts: Counts,
}

impl Default for Parser {
    fn default() -> Self {
        Self::new()
    }
}

impl Parser {
    /// Before the first octet.
    pub fn new() -> Self {
        Self {
            buffer: BytesMut::new(),
            digest: Sha256::new(),
            frame: 0,
            at: 0,
            begun: false,
            ended: false,
            last: None,
            counts: Counts::default(),
        }
    }

    /// Takes the next octets.
    pub fn feed(&mut self, octets: &[u8]) {
        self.buffer.extend_from_slice(octets);
    }

    /// The next piece; `None`: more octets have to come.
    ///
    /// # Errors
    /// What was fed is no backup, or a damaged one. Nothing more can be read then.
    pub fn piece(&mut self) -> Result<Option<Piece>, BackupError> {
        if !self.begun && !self.begin()? {
            return Ok(None);
        }
        if self.ended {
            return if self.buffer.is_empty() { Ok(None) } else { Err(BackupError::Trailing) };
        }
        let Some(head) = self.buffer.first_chunk::<FRAME_HEAD>() else { return Ok(None) };
        let (kind, length) = (head[0], u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize);
        if length > MAX_PAYLOAD {
            return Err(self.damaged());
        }
        let whole = FRAME_HEAD + length + CHECK;
        if self.buffer.len() < whole {
            return Ok(None);
        }
        let before = self.digest.clone();
        let frame = self.buffer.split_to(whole).freeze();
        self.digest.update(&frame[..FRAME_HEAD + length]);
        let check = self.digest.clone().finalize();
        if check[..CHECK] != frame[FRAME_HEAD + length..] {
            return Err(self.damaged());
        }
        self.digest.update(&frame[FRAME_HEAD + length..]);
        let payload = frame.slice(FRAME_HEAD..FRAME_HEAD + length);
        let piece = self.read(kind, payload, before).map_err(|Damaged| self.damaged())?;
        self.frame += 1;
        self.at += whole as u64;
        Ok(Some(piece))
    }

    /// Says that no octet follows.
    ///
    /// # Errors
    /// The end has not come.
    pub fn finish(&self) -> Result<(), BackupError> {
        match self.ended {
            true => Ok(()),
            false if !self.begun && self.buffer.is_empty() => Err(BackupError::NoBackup),
            false => Err(BackupError::Cut { frame: self.frame, at: self.at + self.buffer.len() as u64 }),
        }
    }

    /// Records that were given so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    fn begin(&mut self) -> Result<bool, BackupError> {
        let known = self.buffer.len().min(MAGIC.len());
        if self.buffer[..known] != MAGIC[..known] {
            return Err(BackupError::NoBackup);
        }
        let Some(prefix) = self.buffer.first_chunk::<PREFIX>() else { return Ok(false) };
        let version = u16::from_be_bytes([prefix[PREFIX - 2], prefix[PREFIX - 1]]);
        match version {
            VERSION => {}
            0 => return Err(self.damaged()),
            newer => return Err(BackupError::Newer(newer)),
        }
        self.digest.update(prefix);
        self.buffer.advance(PREFIX);
        self.at = PREFIX as u64;
        self.begun = true;
        Ok(true)
    }

    fn damaged(&self) -> BackupError {
        BackupError::Damaged { frame: self.frame, at: self.at }
    }

    fn read(&mut self, kind: u8, payload: Bytes, before: Sha256) -> Result<Piece, Damaged> {
        match (self.frame, kind) {
            (0, HEAD) => Head::read(&payload).map(Piece::Head),
            (0, _) | (_, HEAD) => Err(Damaged),
            (_, END) => self.end(&payload, before).map(Piece::End),
            (_, kind) => {
                let kind = Kind::from_octet(kind).ok_or(Damaged)?;
                self.records(kind, &payload).map(|records| Piece::Records(kind, records))
            }
        }
    }

    fn records(&mut self, kind: Kind, payload: &Bytes) -> Result<Vec<(Bytes, Bytes)>, Damaged> {
        let mut r = Reader::whole(payload);
        let mut records = Vec::new();
        while r.left() > 0 {
            let (key, value) = (r.octets()?, r.octets()?);
            let (key, value) = (payload.slice_ref(key), payload.slice_ref(value));
            if self.last.as_ref().is_some_and(|(k, before)| (*k, before) >= (kind, &key)) {
                return Err(Damaged);
            }
            self.last = Some((kind, key.clone()));
            records.push((key, value));
        }
        self.counts.add(kind, records.len() as u64);
        Ok(records)
    }

    fn end(&mut self, payload: &[u8], before: Sha256) -> Result<End, Damaged> {
        let mut r = Reader::whole(payload);
        let mut counts = Counts::default();
        for n in &mut counts.0 {
            *n = r.varint()?;
        }
        let (digest, seal) = (r.array::<32>()?, r.array::<32>()?);
        r.end()?;
        if counts != self.counts || digest[..] != before.finalize()[..] {
            return Err(Damaged);
        }
        self.ended = true;
        Ok(End { counts, digest, seal })
    }
}
