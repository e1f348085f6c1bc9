//! Errors, each saying who is to blame: the octets ([`DecodeError`]), the peer or the key ([`OpenError`],
//! [`VerifyError`]), or the caller ([`MakeError`]).

use crate::registry::{CsIdMapType, DataType, EncrAlg, KvType, MacAlg, PayloadType, PrfFunc, TsType};

/// What is wrong with received octets, and at which of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("octet {at}: {kind}")]
pub struct DecodeError {
    /// Offset from the first octet of the message, from 0. Inside of encrypted Key data it is counted as if the
    /// decrypted octets stood in their place.
    pub at: usize,
    /// What is wrong there.
    pub kind: DecodeErrorKind,
}

/// The kinds of [`DecodeError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeErrorKind {
    /// The octets end inside of a field.
    #[error("{field}: {needed} octets needed, {left} left")]
    Truncated {
        /// The field as RFC 3830 §6 names it.
        field: &'static str,
        /// Octets that the field needs.
        needed: usize,
        /// Octets that are left.
        left: usize,
    },
    /// A version other than 1 (RFC 3830 §6.1).
    #[error("MIKEY version {0}, only 1 is known")]
    Version(u8),
    /// The header names no payload (RFC 3830 §6.1: "Last payload" cannot directly follow the header).
    #[error("the header is followed by no payload")]
    NoPayload,
    /// A payload of a kind that this crate cannot delimit.
    #[error("unsupported payload {0}")]
    UnsupportedPayload(PayloadType),
    /// A payload at a place where the standard has none of its kind.
    #[error("payload {found} where {wanted} belongs")]
    Misplaced {
        /// What is there.
        found: PayloadType,
        /// What belongs there.
        wanted: &'static str,
    },
    /// The length of a field follows from a registry number that is unknown, and something else follows the field.
    #[error("{field}: its length follows from number {number}, which is unknown")]
    UnknownLength {
        /// The field whose end cannot be found.
        field: &'static str,
        /// The registry number.
        number: u8,
    },
    /// Octets behind the last payload.
    #[error("{left} octets behind the last payload")]
    Trailing {
        /// How many.
        left: usize,
    },
    /// A field holds something that its place does not allow.
    #[error("{field} is {found}, {wanted} belongs there")]
    Unexpected {
        /// The field as RFC 3830 §6 names it.
        field: &'static str,
        /// What it holds.
        found: u32,
        /// What belongs there.
        wanted: &'static str,
    },
}

/// Why a message could not be made. The caller is to blame; nothing was encrypted and nothing may be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MakeError {
    /// The buffer is too small.
    #[error("the message needs {needed} octets, the buffer has {len}")]
    BufferTooSmall {
        /// Octets that the message needs.
        needed: usize,
        /// Octets that the buffer has.
        len: usize,
    },
    /// A field is longer, or a number larger, than its length or width on the wire allows.
    #[error("{field}: {found} is more than {max}")]
    TooLong {
        /// The field as RFC 3830 §6 names it.
        field: &'static str,
        /// Its length in octets, or its value.
        found: usize,
        /// The largest that fits.
        max: usize,
    },
    /// A field is shorter than the standard asks for.
    #[error("{field}: {found} octets are fewer than {min}")]
    TooShort {
        /// The field as RFC 3830 §6 names it.
        field: &'static str,
        /// Its length in octets.
        found: usize,
        /// The least.
        min: usize,
    },
    /// A field whose length follows from a registry number has another length.
    #[error("{field}: {found} octets, its registry number asks for {wanted}")]
    WrongLength {
        /// The field as RFC 3830 §6 names it.
        field: &'static str,
        /// Its length in octets.
        found: usize,
        /// The length in octets that belongs there.
        wanted: usize,
    },
    /// A salt beside a key type without one, or none beside one with it (RFC 3830 §6.13).
    #[error("the key type and the presence of a salt contradict each other")]
    Salt,
    /// A key validity that would be read back as another one: [`KeyValidity::Other`] is for KV or key types of
    /// unknown layout, and only for them.
    ///
    /// [`KeyValidity::Other`]: crate::payload::KeyValidity::Other
    #[error("KV {0} is given in a form that is not its own")]
    Validity(KvType),
    /// A field of unknown length, or a payload without a Next payload field, with something behind it.
    #[error("{field} can only be the last payload")]
    OnlyLast {
        /// The payload or field.
        field: &'static str,
    },
    /// A payload the message cannot be made with, there.
    #[error("payload {0} does not belong there")]
    Misplaced(PayloadType),
    /// A payload the message cannot be made without.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// An encryption algorithm that this crate cannot encrypt with.
    #[error("encryption algorithm {0} is not supported")]
    UnsupportedEncrAlg(EncrAlg),
    /// A PRF that this crate does not have.
    #[error("PRF {0} is not supported")]
    UnsupportedPrf(PrfFunc),
    /// A stream names a policy that no SP payload has, or two SP payloads have one number (RFC 3830 §6.10).
    #[error("policy number {0} is missing or there twice")]
    Policy(u8),
}

/// Why a received pre-shared-key message was not opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The octets are no MIKEY message.
    #[error("malformed: {0}")]
    Malformed(#[from] DecodeError),
    /// A message of another kind (RFC 3830 Table 6.1.a).
    #[error("a message of data type {0}, not a pre-shared key message")]
    DataType(DataType),
    /// A PRF that this crate does not have.
    #[error("PRF {0} is not supported")]
    UnsupportedPrf(PrfFunc),
    /// A MAC algorithm that does not protect the message: NULL, or one that this crate does not have.
    #[error("MAC algorithm {0} is not accepted")]
    UnsupportedMacAlg(MacAlg),
    /// An encryption algorithm that is not accepted, or one that this crate does not have.
    #[error("encryption algorithm {0} is not accepted")]
    UnsupportedEncrAlg(EncrAlg),
    /// A timestamp type that does not fit (RFC 3830 Table 6.6).
    #[error("timestamp type {0} is not accepted")]
    UnsupportedTsType(TsType),
    /// A payload that the message cannot be opened without.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// A payload that may be there once is there more often.
    #[error("{0} is there twice")]
    Twice(&'static str),
    /// Security policies beside a map type that excludes them (RFC 4563 §5).
    #[error("security policy payloads beside CS ID map type {0}")]
    PolicyBesideMap(CsIdMapType),
    /// The MAC is not that of this message under this key: another key, or a changed message.
    #[error("the MAC is wrong")]
    WrongMac,
    /// The MAC is right, but the wrapped key is not: the sender is to blame (RFC 3394 §2.2.3).
    #[error("the wrapped key data fails its integrity check")]
    WrongWrap,
    /// The MAC is right, but what was decrypted is malformed or not what belongs there: the sender is to blame.
    #[error("key data: {0}")]
    KeyData(DecodeError),
    /// An identifier in the Key ID extension of another length than MBMS gives it (RFC 4563 §4).
    #[error("{field} of {found} octets, {wanted} belong there")]
    KeyIdLength {
        /// Which identifier.
        field: &'static str,
        /// Its length in octets.
        found: usize,
        /// The length in octets that belongs there.
        wanted: usize,
    },
}

/// Why a verification message was not accepted. To the outside all are the same: it proves nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// The message speaks of another CSB.
    #[error("the verification message carries another CSB ID")]
    CsbId,
    /// The MAC is not that of this message under this key.
    #[error("the verification MAC is wrong")]
    WrongMac,
}
