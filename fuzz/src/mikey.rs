//! What a fuzzer does with an input of MIKEY. `mikey/tests/corpus.rs` replays the committed corpus through the same
//! functions, so that plain `cargo test` finds what a fuzzer has found before.

use hmac::{Hmac, KeyInit, Mac};
use mikey::{
    BcastSubtype, CsbId, EncrAlg, IdType, KeyDataType, KeyDomainId, MacAlg, Message, MskId, OpenError,
    error_message::ErrorMessage,
    ltkm::{self, KeyData, KeyValidity, Ltkm, Options, Policy, Srtp},
    payload::{KeyDataList, Payload, SrtpId},
    prf::PskConstant,
    psk::{self, Acceptance, PresharedKey},
    verification::{BASE_LEN, Verification},
};

/// The pre-shared key under which inputs are opened and checked.
const KEY: &[u8] = b"the key that a fuzzer does not know of, in two blocks";
/// What the sender of an LTKM is taken to have been.
const IDI: &[u8] = b"bmsc.example.com";
/// RAND of the LTKM that a verification message is taken to answer.
const RAND: [u8; 16] = [0x47; 16];
/// Octets of HMAC-SHA-1-160.
const MAC_LEN: usize = 20;

/// Reads the input as any message and as Key data. What can be read is written again, to the same octets.
pub fn message(octets: &[u8]) {
    match Message::parse(octets) {
        Ok(message) => {
            let mut again = vec![0; octets.len()];
            assert_eq!(message.write(&mut again), Ok(octets.len()), "what is read can be written");
            assert_eq!(again, octets, "and gives the same octets");
            assert_eq!(message.to_string().lines().count(), 1 + message.payloads().count());
            assert!(!format!("{message:?}").is_empty());
        }
        Err(error) => assert!(error.at <= octets.len(), "{error}"),
    }
    if let Ok(error) = ErrorMessage::parse(octets) {
        assert!(error.errors().count() > 0, "an error message has an error");
    }
    if let Ok(keys) = KeyDataList::parse(octets) {
        let len: usize = keys.map(|key| key.encoded_len()).sum();
        assert_eq!(len, octets.len(), "every octet belongs to a key");
    }
}

/// Opens the input as it is, which must fail, and with its MAC put right, which must work for a whole LTKM.
pub fn open(octets: &[u8]) {
    let key = PresharedKey::new(KEY);
    let acceptance = Acceptance { null_encryption: true, csb_rand: None };
    assert!(psk::open(&key, octets, acceptance).is_err(), "nobody guesses a MAC");
    assert!(ltkm::open(&key, octets).is_err());

    let Some((authentic, rand)) = with_right_mac(&key, octets) else { return };
    match psk::open(&key, &authentic, acceptance) {
        Ok(opened) => {
            assert_eq!(opened.rand(), rand);
            assert!(!format!("{opened:?}").is_empty());
            let len: usize = opened.keys().map(|key| key.encoded_len()).sum();
            assert!(len <= authentic.len());
        }
        Err(error) => assert_ne!(error, OpenError::WrongMac, "the MAC has been put right"),
    }
    let Ok(opened) = ltkm::open_accepting(&key, &authentic, true) else { return };
    let mut answer = vec![0; BASE_LEN + opened.idr.len()];
    assert_eq!(opened.verification(&mut answer), Ok(answer.len()));
    let verification = Verification::parse(&answer).expect("what is made can be read");
    assert_eq!(verification.check(&key, opened.csb_id, &opened.rand, &opened.idi), Ok(()));
}

/// The same message with the MAC that it should have, and its RAND, if it is authenticated by a KEMAC at its end.
fn with_right_mac<'a>(key: &PresharedKey, octets: &'a [u8]) -> Option<(Vec<u8>, &'a [u8])> {
    let message = Message::parse(octets).ok()?;
    let rand = message.payloads().find_map(|placed| match placed.payload {
        Payload::Rand(rand) => Some(rand.data),
        _ => None,
    })?;
    match message.payloads().last()?.payload {
        Payload::Kemac(kemac) if kemac.mac_alg == MacAlg::HMAC_SHA_1_160 => {}
        _ => return None,
    }
    let covered = &octets[..octets.len() - MAC_LEN];
    let mac = hmac(key, message.header().csb_id, rand, &[covered]);
    Some(([covered, &mac].concat(), rand))
}

/// HMAC-SHA-1 with the authentication key of a message, by other means than those of the crate.
fn hmac(key: &PresharedKey, csb_id: CsbId, rand: &[u8], parts: &[&[u8]]) -> [u8; MAC_LEN] {
    let mut auth_key = [0; MAC_LEN];
    key.derive(PskConstant::AUTHENTICATION, csb_id, rand, &mut auth_key);
    let mut mac = Hmac::<sha1::Sha1>::new_from_slice(&auth_key).expect("HMAC takes keys of any length");
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().into()
}

/// Checks the input as a verification message: as it is, which must fail, and with its MAC put right, which must not.
pub fn verification(octets: &[u8]) {
    let Ok(verification) = Verification::parse(octets) else { return };
    let (key, csb_id) = (PresharedKey::new(KEY), verification.csb_id());
    assert!(verification.check(&key, csb_id, &RAND, IDI).is_err(), "nobody guesses a MAC");

    let covered = &octets[..octets.len() - MAC_LEN];
    let t = verification.counter().to_be_bytes();
    let mac = hmac(&key, csb_id, &RAND, &[covered, IDI, verification.idr(), &t]);
    let authentic = [covered, &mac].concat();
    let verification = Verification::parse(&authentic).expect("only the MAC has changed");
    assert_eq!(verification.check(&key, csb_id, &RAND, IDI), Ok(()));
    assert!(verification.check(&key, CsbId(!csb_id.0), &RAND, IDI).is_err());
}

/// Takes the input for the parts of an LTKM. What can be made of them opens to the same parts.
pub fn make(octets: &[u8]) {
    let mut parts = Parts(octets);
    let key = PresharedKey::new(KEY);
    let [flags, encr_alg, id_type, subtype, room] = parts.array();
    let (rand, idi, idr) = (parts.vec(), parts.vec(), parts.vec());
    let (ext_bcast, key_octets, salt) = (parts.vec(), parts.vec(), parts.vec());
    let (from, to) = (parts.vec(), parts.vec());
    let srtp = parts.srtp();
    let has = |bit: u8| flags & 1 << bit != 0;
    let kv = match encr_alg >> 4 & 3 {
        0 => KeyValidity::Null,
        1 => KeyValidity::Spi(from),
        _ => KeyValidity::Interval { from, to },
    };
    let key_type = KeyDataType(encr_alg >> 6);
    let message = Ltkm {
        v: has(0),
        csb_id: CsbId(u32::from_be_bytes(parts.array())),
        counter: u32::from_be_bytes(parts.array()),
        rand,
        id_type: IdType(id_type),
        idi,
        idr,
        key_domain_id: KeyDomainId(parts.array()),
        msk_id: MskId(parts.array()),
        ext_bcast: has(1).then_some(ext_bcast),
        srtp: srtp.as_ref().filter(|_| has(2)),
        key: has(3).then_some(KeyData { key_type, key: key_octets, salt: has(4).then_some(salt), kv }),
    };
    let options = Options { encr_alg: EncrAlg(encr_alg & 3), bcast_subtype: BcastSubtype(subtype) };
    let needed = message.encoded_len_with(options);
    let mut out = vec![0; if has(5) { needed } else { 8 * usize::from(room) }];
    let Ok(len) = message.write_with(&key, options, &mut out) else { return };
    assert_eq!(len, needed);
    let opened = ltkm::open_accepting(&key, &out[..len], true).expect("what is made can be opened");
    assert_eq!((opened.v, opened.csb_id, opened.counter), (message.v, message.csb_id, message.counter));
    assert_eq!((&opened.rand[..], &opened.idi[..], &opened.idr[..]), (rand, idi, idr));
    assert_eq!((opened.id_type, opened.idi_type), (message.id_type, message.id_type));
    assert_eq!((opened.key_domain_id, opened.msk_id), (message.key_domain_id, message.msk_id));
    assert_eq!(opened.ext_bcast.as_deref(), message.ext_bcast);
    assert_eq!(opened.srtp.as_ref(), message.srtp);
    assert_eq!(opened.key.as_ref().map(|key| key.as_key_data()), message.key);
}

/// An input, from which parts are taken; behind its end everything is zero and empty.
struct Parts<'a>(&'a [u8]);

impl<'a> Parts<'a> {
    fn array<const N: usize>(&mut self) -> [u8; N] {
        std::array::from_fn(|_| self.take(1).first().copied().unwrap_or(0))
    }

    /// Octets behind their length.
    fn vec(&mut self) -> &'a [u8] {
        let [len] = self.array();
        self.take(len.into())
    }

    fn take(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// Streams and policies, if their numbers fit.
    fn srtp(&mut self) -> Option<Srtp> {
        let [streams, policies] = self.array();
        let streams: Vec<_> =
            (0..streams % 8).map(|_| SrtpId { policy_no: self.array::<1>()[0], ssrc: 1, roc: 2 }).collect();
        let policies = (0..policies % 8).map(|_| {
            let [policy_no, param] = self.array();
            Policy::new(policy_no).with(mikey::SrtpParam(param), self.vec()).expect("a length of 8 bits fits")
        });
        let policies = policies.collect();
        Srtp::new(&streams, policies).ok()
    }
}
