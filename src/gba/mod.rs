//! Where terminals' keys come from: B-TID, MRK and MUK (TS 33.220, TS 33.246 annex F).

mod derive;

pub use derive::{KeyPair, derive};

use serde::{Deserialize, Serialize};

use crate::id::{BTid, SubscriberId};
use crate::secret::Sealed;
use crate::time::Timestamp;

/// Where the terminal's half of the keys lives (TS 33.220 §3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GbaType {
    /// GBA_ME: in the mobile equipment.
    Me,
    /// GBA_U: in the smartcard.
    U,
}

/// One bootstrapped security association, as the store keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credential {
    /// The transaction identifier.
    pub btid: BTid,
    /// Whose it is.
    pub subscriber: SubscriberId,
    /// MBMS request key: the digest secret, 16–64 octets.
    pub mrk: Sealed,
    /// MBMS user key: the MIKEY pre-shared key, 16–64 octets.
    pub muk: Sealed,
    /// Where the keys live.
    pub gba: GbaType,
    /// The first moment at which it no longer counts; `None`: never.
    pub expires: Option<Timestamp>,
}

impl Credential {
    /// Whether its time is over.
    pub fn expired(&self, now: Timestamp) -> bool {
        self.expires.is_some_and(|end| end <= now)
    }
}
