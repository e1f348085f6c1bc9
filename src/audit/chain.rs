//! The chain of lines: each names the hash of the one before and ends in its own.
//!
//! A line is one JSON object whose last member is `hash`: the SHA-256, in 64 lower-case hexadecimal digits, of the
//! line's octets before `,"hash":`. Its member `prev` is the hash of the line before; `seq` counts from 1, over all
//! files. Whoever has `sha256sum` can check a line.

use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::event::Event;
use crate::time::Timestamp;

/// Octets of a line at most, its end not counted: an import names a thousand ids of 1,024 octets in one.
pub const MAX_LINE: usize = 4 << 20;

/// What stands between a line's text and the digits of its hash.
const HASH: &[u8] = b",\"hash\":\"";

/// What closes a line behind the digits.
const CLOSE: &[u8] = b"\"}";

/// A SHA-256 of a line, 32 octets; 64 hexadecimal digits in JSON.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Hash(pub [u8; 32]);

impl Hash {
    /// The hash of octets.
    pub fn of(octets: &[u8]) -> Self {
        Self(Sha256::digest(octets).into())
    }

    /// Reads 64 hexadecimal digits in lower case; anything else is none.
    pub fn from_hex(digits: &[u8]) -> Option<Self> {
        HEXLOWER.decode(digits).ok().and_then(|o| o.try_into().ok()).map(Self)
    }
}

impl std::fmt::Display for Hash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl std::fmt::Debug for Hash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Hash({self})")
    }
}

impl Serialize for Hash {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Hash {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::from_hex(text.as_bytes()).ok_or_else(|| serde::de::Error::custom("is no hash of 64 hex digits"))
    }
}

/// Where a chain stands: its last line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Head {
    /// The line's number, from 1; 0: there is no line yet.
    pub seq: u64,
    /// The line's hash; all zero before the first line.
    pub hash: Hash,
}

/// What a line says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The line's number, from 1.
    pub seq: u64,
    /// The hash of the line before; all zero in the first.
    pub prev: Hash,
    /// When it was written.
    pub at: Timestamp,
    /// The daemon that wrote it: `node.name`.
    pub node: String,
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
}

/// Why octets are no line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LineError {
    /// No JSON object that ends in a hash, or not one with the members of a record.
    #[error("is no line of an audit log")]
    NotALine,
    /// The text is not the one that was hashed.
    #[error("was changed: its hash does not fit its text")]
    Changed,
}

impl Head {
    /// The line that follows this head, its end (`\n`) included, and the head that it makes.
    pub fn line(&self, at: Timestamp, node: &str, event: Event) -> (Vec<u8>, Self) {
        let record = Record { seq: self.seq + 1, prev: self.hash, at, node: node.to_owned(), event };
        let mut line = serde_json::to_vec(&record).expect("texts, numbers and maps of texts can be written");
        // The object's closing brace: the hash comes in front of it.
        line.pop();
        let hash = Hash::of(&line);
        line.extend_from_slice(HASH);
        line.extend_from_slice(HEXLOWER.encode(&hash.0).as_bytes());
        line.extend_from_slice(CLOSE);
        line.push(b'\n');
        (line, Self { seq: record.seq, hash })
    }
}

/// Reads a line without its end (`\n`) and checks it against its own hash. The head is the one that it makes; whether it
/// follows the line before is for the caller to see.
///
/// # Errors
/// The octets are no line, or not those that were hashed.
pub fn read(line: &[u8]) -> Result<(Record, Head), LineError> {
    let text = line.strip_suffix(CLOSE).and_then(|l| l.split_at_checked(l.len().checked_sub(64)?));
    let (text, digits) = text.ok_or(LineError::NotALine)?;
    let text = text.strip_suffix(HASH).ok_or(LineError::NotALine)?;
    let hash = Hash::from_hex(digits).ok_or(LineError::NotALine)?;
    if Hash::of(text) != hash {
        return Err(LineError::Changed);
    }
    let record: Record = serde_json::from_slice(line).map_err(|_| LineError::NotALine)?;
    let head = Head { seq: record.seq, hash };
    Ok((record, head))
}
