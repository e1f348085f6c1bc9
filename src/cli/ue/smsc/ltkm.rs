//! What an LTKM says to somebody without keys: who it is for, and which pull it asks for (LTKM profile §4, §5).

use mikey::message::Message;
use mikey::payload::Payload;
use mikey::{DataType, KeyDomainId, KeyIdType, MskId};
use serde::Serialize;

use super::event::printable;
use crate::cli::ue::terminal::Pull;

/// An LTKM as a short message centre sees it: nothing of it is proved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LtkmSeen {
    /// IDr: the terminal that it is for.
    pub btid: String,
    /// The Key Domain ID, in hex.
    pub key_domain: String,
    /// The MSK ID, in hex.
    pub msk_id: String,
    /// T.
    pub t: u32,
    /// Whether a verification message is wanted.
    pub v: bool,
    /// `register` or `msk-request`: what the terminal is asked to do.
    pub pull: Option<&'static str>,
    /// Whether key data is inside, which has no place in a short message.
    pub key: bool,
}

impl LtkmSeen {
    /// Reads what is not encrypted.
    ///
    /// # Errors
    /// Why the octets are no LTKM.
    pub fn read(octets: &[u8]) -> Result<Self, String> {
        let message = Message::parse(octets).map_err(|error| error.to_string())?;
        let header = message.header();
        if header.data_type != DataType::PRE_SHARED {
            return Err(format!("its data type is {}", header.data_type));
        }
        let (mut ids, mut t, mut domain, mut msk, mut key) = (Vec::new(), None, None, None, None);
        for placed in message.payloads() {
            match placed.payload {
                Payload::Id(id) => ids.push(id.data),
                Payload::T(timestamp) => t = timestamp.counter(),
                Payload::Kemac(kemac) => key = Some(!kemac.encr_data.is_empty()),
                Payload::Ext(ext) => {
                    for sub in ext.key_ids().into_iter().flatten() {
                        match sub.key_id_type {
                            KeyIdType::KEY_DOMAIN => domain = sub.id.try_into().ok().map(KeyDomainId),
                            KeyIdType::SERVICE_KEY => msk = sub.id.try_into().ok().map(MskId),
                            _ => {}
                        }
                    }
                }
                _ => {}
            }
        }
        let lacks = |what: &str| format!("it has no {what}");
        let key_domain = domain.ok_or_else(|| lacks("Key Domain ID"))?;
        let msk_id = msk.ok_or_else(|| lacks("MSK ID"))?;
        let [_, idr] = ids[..] else { return Err(lacks("pair of identities")) };
        let key = key.ok_or_else(|| lacks("KEMAC"))?;
        let pull = match Pull::asked_by(key_domain, msk_id).filter(|_| !key) {
            Some(Pull::Register) => Some("register"),
            Some(Pull::MskRequest { .. }) => Some("msk-request"),
            None => None,
        };
        Ok(Self {
            btid: printable(&String::from_utf8_lossy(idr)),
            key_domain: key_domain.to_string(),
            msk_id: msk_id.to_string(),
            t: t.ok_or_else(|| lacks("counter"))?,
            v: header.v,
            pull,
            key,
        })
    }

    /// One half of a line.
    pub(super) fn line(&self) -> String {
        let Self { btid, key_domain, msk_id, t, .. } = self;
        let asks = match (self.pull, self.key) {
            (Some("register"), _) => "asks to register",
            (Some(_), _) => "asks for an MSK request",
            (None, true) => "CARRIES A KEY, which no short message may",
            (None, false) => "asks for nothing",
        };
        format!("LTKM for {btid}, key domain {key_domain} MSK ID {msk_id} T {t}: {asks}")
    }
}

#[cfg(test)]
pub(super) mod tests {
    use mikey::ltkm::{KeyData, KeyDataType, KeyValidity, Ltkm};
    use mikey::psk::PresharedKey;
    use mikey::{CsbId, IdType};

    use super::*;

    /// An LTKM of alice's with T 7.
    pub(in super::super) fn ltkm(msk_id: MskId, key: bool) -> Vec<u8> {
        let kv = KeyValidity::Interval { from: &[0, 1], to: &[0, 9] };
        let key = key.then_some(KeyData { key_type: KeyDataType::TGK, key: &[0x11; 16], salt: None, kv });
        let ltkm = Ltkm {
            v: key.is_some(),
            csb_id: CsbId(9),
            counter: 7,
            rand: &[0x47; 16],
            id_type: IdType::NAI,
            idi: b"bmsc.example.com",
            idr: b"alice@bsf.example.com",
            key_domain_id: KeyDomainId([0xb8, 0x70, 0x9d]),
            msk_id,
            ext_bcast: None,
            srtp: None,
            key,
        };
        let mut octets = vec![0; ltkm.encoded_len()];
        ltkm.write(&PresharedKey::new(&[0x2c; 32]), &mut octets).unwrap();
        octets
    }

    #[test]
    fn a_trigger_says_whose_it_is_and_which_pull_it_asks_for() {
        for (msk_id, pull, asks) in [
            (MskId([0; 4]), Some("register"), "asks to register"),
            (MskId::new(0x68c9, 0), Some("msk-request"), "asks for an MSK request"),
            (MskId::new(0x68c9, 1), None, "asks for nothing"),
        ] {
            let seen = LtkmSeen::read(&ltkm(msk_id, false)).unwrap();
            assert_eq!((seen.pull, seen.key, seen.t, seen.v), (pull, false, 7, false));
            let whose = format!("LTKM for alice@bsf.example.com, key domain b8709d MSK ID {msk_id} T 7: ");
            assert_eq!(seen.line(), whose + asks);
        }
    }

    #[test]
    fn a_key_in_a_short_message_is_pointed_out() {
        let seen = LtkmSeen::read(&ltkm(MskId::new(0x68c9, 0), true)).unwrap();
        assert_eq!((seen.pull, seen.key), (None, true));
        assert!(seen.line().contains("CARRIES A KEY"));
    }

    #[test]
    fn what_is_no_ltkm_is_told_with_a_reason() {
        let whole = ltkm(MskId::new(1, 0), false);
        for len in 0..whole.len() {
            assert!(LtkmSeen::read(&whole[..len]).is_err(), "{len} octets");
        }
        let error_message = [1, 6, 5, 0, 0, 0, 0, 9, 0, 1, 12, 2, 0, 0, 0, 7, 0, 0, 0, 0];
        assert_eq!(LtkmSeen::read(&error_message), Err("its data type is error (6)".to_owned()));
    }
}
