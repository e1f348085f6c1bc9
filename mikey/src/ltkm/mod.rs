//! The long-term key message, LTKM (LTKM profile §5; OMA BCAST service and content protection; TS 33.246 calls it
//! the MIKEY message of an MSK): made by the BSM for one terminal, opened by the terminal.
//!
//! `HDR · EXT(Key ID) · [EXT(OMA BCAST)] · T(COUNTER) · RAND · IDi · IDr · {SP} · KEMAC`, protected by the
//! pre-shared-key method of RFC 3830 under the terminal's MUK.

mod make;
mod open;
mod srtp;

pub use make::{Ltkm, Options};
pub use open::{OpenedKey, OpenedLtkm, OpenedValidity, open, open_accepting};
pub use srtp::{Policy, Srtp};

pub use crate::{
    IdType, KeyDataType,
    payload::{KeyData, KeyValidity},
};

/// A buffer size that any usual LTKM fits in: what an Ethernet frame carries of UDP over IPv4 without fragments,
/// 1,472 octets. [`Ltkm::encoded_len`] tells the exact size, which can be larger.
pub const BUFFER_LEN: usize = 1472;

/// The least octets of RAND that an LTKM is made with (RFC 3830 §6.11: "SHOULD be at least 16").
pub const MIN_RAND_LEN: usize = 16;

/// The most octets of RAND that its length field can count (RFC 3830 §6.11).
pub const MAX_RAND_LEN: usize = 255;

/// Octets of a Key Domain ID in a Key ID sub-payload (TS 33.246).
const KEY_DOMAIN_ID_LEN: usize = 3;
/// Octets of an MSK ID in a Key ID sub-payload (TS 33.246).
const MSK_ID_LEN: usize = 4;
/// Octets of the Data field of an LTKM's Key ID extension: two sub-payloads with two octets of head each.
const KEY_ID_DATA_LEN: usize = 2 + KEY_DOMAIN_ID_LEN + 2 + MSK_ID_LEN;
