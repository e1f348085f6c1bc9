//! Services and their MSKs: policy, validity, which key is current, and what the schedule wants next.

mod catalogue;

pub use catalogue::{Catalogue, ServiceKeys};

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::id::{KeyDomainId, MskId, ServiceId, ServiceNo};
use crate::time::Timestamp;

/// How a service's LTKMs write the key's validity (LTKM profile §5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Validity {
    /// BCAST: VF and VT of 4 octets, NTP seconds.
    Ntp,
    /// MBMS: VF and VT of 2 octets, MTK ID lower and upper bound.
    MtkId,
}

/// One SRTP stream of a service's SRTP-ID map (RFC 3830 §6.1.1).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SrtpStream {
    /// Policy number, one of the service's policies.
    pub policy: u8,
    /// The stream's SSRC.
    pub ssrc: u32,
    /// Rollover counter; 0 for a stream that has not begun.
    #[serde(default)]
    pub roc: u32,
}

/// One security policy of a service (RFC 3830 §6.10.1): parameter type → value octets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SrtpPolicy {
    /// Policy number, distinct within the service.
    pub policy: u8,
    /// Parameters by their number in Table 6.10.1.a; each value is one octet.
    pub parameters: std::collections::BTreeMap<u8, u8>,
}

/// What a service's LTKMs say of SRTP: the SRTP-ID map and its SP payloads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Srtp {
    /// The streams, in crypto session order; 1 to 255.
    pub streams: Vec<SrtpStream>,
    /// The policies that the streams name.
    pub policies: Vec<SrtpPolicy>,
}

/// A service as its operator describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Its short number in the store.
    pub no: ServiceNo,
    /// The MBMS User Service ID.
    pub id: ServiceId,
    /// Key Domain ID of its keys.
    pub key_domain: KeyDomainId,
    /// Key Group of its keys; with the domain it belongs to this service alone.
    pub key_group: u16,
    /// How validity is written.
    pub validity: Validity,
    /// How long a new key is valid.
    pub lifetime: Duration,
    /// From one key's start to the next one's; `None`: no schedule.
    pub rotate_every: Option<Duration>,
    /// Whether any authenticated terminal may register.
    pub open: bool,
    /// Management data of the OMA BCAST extension; `None`: no such extension.
    pub ext_bcast: Option<Vec<u8>>,
    /// Whether the end of a registration invalidates the keys it brought.
    pub invalidate_on_deregister: bool,
    /// Lower and upper MTK ID for [`Validity::MtkId`].
    pub mtk_ids: (u16, u16),
    /// Whether keys carry a salt (TGK+SALT).
    pub salt: bool,
    /// SRTP-ID map and policies; `None`: the empty map.
    pub srtp: Option<Srtp>,
    /// How long before its start a next key is distributed; `None`: the configuration's `keys.lead_time`.
    pub lead_time: Option<Duration>,
    /// When the service was deleted; its keys stay known for invalidations until they are purged.
    pub retired: Option<Timestamp>,
}

/// An MBMS service key (SEK/PEK): 128 bits and, where the service wants it, a 112-bit salt.
#[derive(Clone, PartialEq, Eq)]
pub struct Msk {
    /// The service it belongs to.
    pub service: ServiceNo,
    /// Key Number, 1–65535.
    pub number: u16,
    /// The key's 16 octets.
    pub msk: Zeroizing<[u8; 16]>,
    /// The salt's 14 octets.
    pub salt: Option<Zeroizing<[u8; 14]>>,
    /// The first moment of its validity.
    pub valid_from: Timestamp,
    /// The first moment after its validity.
    pub valid_to: Timestamp,
    /// Lower and upper MTK ID.
    pub mtk_ids: (u16, u16),
}

impl fmt::Debug for Msk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Msk")
            .field("service", &self.service)
            .field("number", &self.number)
            .field("valid_from", &self.valid_from)
            .field("valid_to", &self.valid_to)
            .finish_non_exhaustive()
    }
}

/// Where a key stands in time (admin API `state`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyState {
    /// Still to come.
    Next,
    /// The key that protects the service now.
    Current,
    /// Replaced or over.
    Past,
}

impl Service {
    /// A share of a span that depends on the service's id alone, evenly spread over services.
    pub(crate) fn share_of(&self, span: Duration) -> Duration {
        let digest = Sha256::digest(self.id.as_str());
        let (first, _) = digest.split_first_chunk().expect("a digest has 32 octets");
        let millis = (u128::from(u64::from_be_bytes(*first)) * span.as_millis()) >> 64;
        Duration::from_millis(millis as u64)
    }

    /// The MSK ID of a key number of this service.
    pub fn msk_id(&self, number: u16) -> MskId {
        MskId::new(self.key_group, number)
    }
}
