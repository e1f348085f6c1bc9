//! The published vectors, as text with their source, and the messages made from them.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses its part of this")]
#![allow(clippy::unwrap_used, reason = "a test says so by failing")]

pub mod samples;

use data_encoding::HEXLOWER;
use mikey::{
    BcastSubtype, CsbId, IdType, MskId,
    ltkm::{KeyData, KeyDataType, KeyValidity, Ltkm, Options},
    psk::PresharedKey,
};
use serde::{Deserialize, Deserializer, de::Error};

/// Octets that stand as lower-case hex digits in the JSON.
#[derive(Debug, Clone)]
pub struct Octets(pub Vec<u8>);

impl<'de> Deserialize<'de> for Octets {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        HEXLOWER.decode(text.as_bytes()).map(Self).map_err(D::Error::custom)
    }
}

impl std::ops::Deref for Octets {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

#[derive(Deserialize)]
pub struct File<T> {
    pub source: String,
    pub cases: Vec<T>,
}

#[derive(Deserialize)]
pub struct PrfCase {
    pub inkey: Octets,
    pub label: Octets,
    pub out: Octets,
}

#[derive(Deserialize)]
pub struct LtkmCase {
    pub kind: String,
    pub muk: Octets,
    pub key_domain: String,
    pub msk_id: MskIdText,
    pub counter: u32,
    pub csb_id: Octets,
    pub rand: Octets,
    pub idi: String,
    pub idr: String,
    pub v: bool,
    pub msk: Option<Octets>,
    pub kv: Option<[Octets; 2]>,
    /// The whole OMA BCAST data field, subtype octet included.
    pub ext_bcast: Option<Octets>,
    pub encr_key: Octets,
    pub salt_key: Octets,
    pub auth_key: Octets,
    pub message: Octets,
    pub verification: Option<Octets>,
}

#[derive(Deserialize)]
#[serde(transparent)]
pub struct MskIdText(String);

impl MskIdText {
    pub fn id(&self) -> MskId {
        self.0.parse().unwrap()
    }
}

impl LtkmCase {
    pub fn csb_id(&self) -> CsbId {
        CsbId(u32::from_be_bytes(self.csb_id.0.as_slice().try_into().unwrap()))
    }

    pub fn key(&self) -> PresharedKey {
        PresharedKey::new(&self.muk)
    }

    pub fn key_data(&self) -> Option<KeyData<'_>> {
        let kv = match &self.kv {
            Some([from, to]) => KeyValidity::Interval { from, to },
            None => KeyValidity::Null,
        };
        self.msk.as_ref().map(|key| KeyData { key_type: KeyDataType::TGK, key, salt: None, kv })
    }

    /// The message that the case describes, and the options that it takes.
    pub fn ltkm(&self) -> (Ltkm<'_>, Options) {
        let bcast = self.ext_bcast.as_ref().map(|data| data.split_first().unwrap());
        let message = Ltkm {
            v: self.v,
            csb_id: self.csb_id(),
            counter: self.counter,
            rand: &self.rand,
            id_type: IdType::NAI,
            idi: self.idi.as_bytes(),
            idr: self.idr.as_bytes(),
            key_domain_id: self.key_domain.parse().unwrap(),
            msk_id: self.msk_id.id(),
            ext_bcast: bcast.map(|(_, data)| data),
            srtp: None,
            key: self.key_data(),
        };
        let subtype = bcast.map_or(BcastSubtype::LTKM, |(subtype, _)| BcastSubtype(*subtype));
        (message, Options { bcast_subtype: subtype, ..Options::default() })
    }
}

pub fn prf_cases() -> Vec<PrfCase> {
    let file: File<PrfCase> = serde_json::from_str(include_str!("../vectors/prf.json")).unwrap();
    assert!(!file.source.is_empty());
    file.cases
}

pub fn ltkm_cases() -> Vec<LtkmCase> {
    let file: File<LtkmCase> = serde_json::from_str(include_str!("../vectors/ltkm.json")).unwrap();
    assert!(!file.source.is_empty());
    file.cases
}
