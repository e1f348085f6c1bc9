//! Properties that hold for any message, not only for the samples.

#![allow(clippy::unwrap_used, reason = "a test says so by failing")]

use mikey::{
    BcastSubtype, CacheType, CertType, CsIdMapType, CsbId, DataType, DhGroup, EncrAlg, ErrorNo, ExtType,
    HashFunc, IdType, KeyDataType, KeyDomainId, KvType, MacAlg, Message, MskId, OpenError, PrfFunc, ProtType,
    SignatureType, SrtpParam, TsType,
    ltkm::{self, KeyData, KeyValidity, Ltkm, Options, Policy, Srtp},
    message,
    payload::{
        Cert, Chash, Dh, ErrPayload, GeneralExt, Header, Id, Kemac, Payload, Pke, Rand, Sign, Sp, SrtpId,
        Timestamp, Ver,
    },
    psk::{self, Acceptance, PresharedKey, Protection},
    verification::{BASE_LEN, Verification},
};
use proptest::{collection::vec, prelude::*};

type Octets = Vec<u8>;

fn octets(max: usize) -> impl Strategy<Value = Octets> {
    vec(any::<u8>(), 0..=max)
}

/// A KV number, and the data of an SPI or an interval.
type Validity = (u8, Octets, Octets);

fn validity() -> impl Strategy<Value = Validity> {
    (0_u8..3, octets(255), octets(255))
}

fn as_validity((kind, from, to): &Validity) -> KeyValidity<'_> {
    match kind {
        0 => KeyValidity::Null,
        1 => KeyValidity::Spi(from),
        _ => KeyValidity::Interval { from, to },
    }
}

#[derive(Debug, Clone)]
struct Key {
    key_type: u8,
    key: Octets,
    salt: Octets,
    kv: Validity,
}

impl Key {
    fn any() -> impl Strategy<Value = Self> {
        (0_u8..4, vec(any::<u8>(), 1..100), octets(40), validity())
            .prop_map(|(key_type, key, salt, kv)| Self { key_type, key, salt, kv })
    }

    fn as_key_data(&self) -> KeyData<'_> {
        let key_type = KeyDataType(self.key_type);
        let salt = key_type.has_salt().unwrap().then_some(&self.salt[..]);
        KeyData { key_type, key: &self.key, salt, kv: as_validity(&self.kv) }
    }
}

#[derive(Debug, Clone)]
struct Content {
    v: bool,
    csb_id: u32,
    counter: u32,
    rand: Octets,
    id_type: u8,
    idi: Octets,
    idr: Octets,
    key_domain_id: [u8; 3],
    msk_id: [u8; 4],
    ext_bcast: Option<Octets>,
    subtype: u8,
    srtp: Option<Srtp>,
    key: Option<Key>,
    key_wrap: bool,
}

fn srtp() -> impl Strategy<Value = Srtp> {
    let policies = vec(vec((any::<u8>(), octets(20)), 0..5), 1..4);
    (policies, vec((any::<u8>(), any::<u32>(), any::<u32>()), 0..6)).prop_map(|(policies, streams)| {
        let policy = |(no, params): (usize, &Vec<(u8, Octets)>)| {
            let add = |policy: Policy, (number, value): &(u8, Octets)| {
                policy.with(SrtpParam(*number), value).unwrap()
            };
            params.iter().fold(Policy::new(no as u8), add)
        };
        let count = policies.len() as u8;
        let stream =
            |(policy_no, ssrc, roc): (u8, u32, u32)| SrtpId { policy_no: policy_no % count, ssrc, roc };
        let streams: Vec<_> = streams.into_iter().map(stream).collect();
        Srtp::new(&streams, policies.iter().enumerate().map(policy).collect()).unwrap()
    })
}

fn content() -> impl Strategy<Value = Content> {
    let ids =
        (any::<u8>(), vec(any::<u8>(), 1..300), vec(any::<u8>(), 1..300), any::<[u8; 3]>(), any::<[u8; 4]>());
    let ext = (prop::option::of(octets(300)), any::<u8>(), prop::option::of(srtp()));
    let head = (any::<bool>(), any::<u32>(), any::<u32>(), vec(any::<u8>(), 16..=255));
    (head, ids, ext, prop::option::of(Key::any()), any::<bool>()).prop_map(
        |(head, ids, ext, key, key_wrap)| Content {
            v: head.0,
            csb_id: head.1,
            counter: head.2,
            rand: head.3,
            id_type: ids.0,
            idi: ids.1,
            idr: ids.2,
            key_domain_id: ids.3,
            msk_id: ids.4,
            ext_bcast: ext.0,
            subtype: ext.1,
            srtp: ext.2,
            key,
            key_wrap,
        },
    )
}

impl Content {
    fn ltkm(&self) -> (Ltkm<'_>, Options) {
        let encr_alg = if self.key_wrap { EncrAlg::AES_KW_128 } else { EncrAlg::AES_CM_128 };
        let message = Ltkm {
            v: self.v,
            csb_id: CsbId(self.csb_id),
            counter: self.counter,
            rand: &self.rand,
            id_type: IdType(self.id_type),
            idi: &self.idi,
            idr: &self.idr,
            key_domain_id: KeyDomainId(self.key_domain_id),
            msk_id: MskId(self.msk_id),
            ext_bcast: self.ext_bcast.as_deref(),
            srtp: self.srtp.as_ref(),
            key: self.key.as_ref().map(Key::as_key_data),
        };
        (message, Options { encr_alg, bcast_subtype: BcastSubtype(self.subtype) })
    }
}

proptest! {
    #[test]
    fn any_ltkm_opens_to_what_it_was_made_of_and_is_answered(muk in vec(any::<u8>(), 1..100), content in content()) {
        let key = PresharedKey::new(&muk);
        let (message, options) = content.ltkm();
        let mut made = vec![0; message.encoded_len_with(options)];
        prop_assert_eq!(message.write_with(&key, options, &mut made), Ok(made.len()));

        let opened = ltkm::open(&key, &made).unwrap();
        prop_assert_eq!((opened.v, opened.csb_id, opened.counter), (message.v, message.csb_id, message.counter));
        prop_assert_eq!((&opened.idi[..], &opened.idr[..]), (message.idi, message.idr));
        prop_assert_eq!((opened.key_domain_id, opened.msk_id), (message.key_domain_id, message.msk_id));
        prop_assert_eq!(opened.ext_bcast.as_deref(), message.ext_bcast);
        prop_assert_eq!(opened.srtp.as_ref(), message.srtp);
        prop_assert_eq!(opened.key.as_ref().map(|key| key.as_key_data()), message.key);
        prop_assert_eq!(opened.encr_alg, options.encr_alg);

        let mut answer = vec![0; BASE_LEN + message.idr.len()];
        prop_assert_eq!(opened.verification(&mut answer), Ok(answer.len()));
        let verification = Verification::parse(&answer).unwrap();
        prop_assert_eq!((verification.counter(), verification.idr()), (message.counter, message.idr));
        prop_assert_eq!(verification.check(&key, message.csb_id, message.rand, message.idi), Ok(()));
    }

    #[test]
    fn an_ltkm_with_any_octet_changed_is_refused(content in content(), at in any::<prop::sample::Index>(), mask in 1_u8..) {
        let key = PresharedKey::new(b"a MUK");
        let (message, options) = content.ltkm();
        let mut made = vec![0; message.encoded_len_with(options)];
        message.write_with(&key, options, &mut made).unwrap();
        made[at.index(message.encoded_len_with(options))] ^= mask;
        prop_assert!(ltkm::open_accepting(&key, &made, true).is_err());
    }

    #[test]
    fn another_key_opens_nothing(content in content(), other in vec(any::<u8>(), 1..70)) {
        // HMAC fills keys up with zeros, so that a key and the same key with zeros behind it are one.
        prop_assume!(!other.starts_with(b"a MUK"));
        let (message, options) = content.ltkm();
        let mut made = vec![0; message.encoded_len_with(options)];
        message.write_with(&PresharedKey::new(b"a MUK"), options, &mut made).unwrap();
        let refused = ltkm::open(&PresharedKey::new(&other), &made).unwrap_err();
        prop_assert_eq!(refused, OpenError::WrongMac);
    }

    #[test]
    fn an_update_message_takes_the_rand_of_its_csb(
        rand in vec(any::<u8>(), 1..=255),
        t in any::<u64>(),
        keys in vec(Key::any(), 0..4),
    ) {
        let key = PresharedKey::new(b"an MSK");
        let t = t.to_be_bytes();
        let payloads = [Payload::T(Timestamp { ts_type: TsType::NTP_UTC, value: &t })];
        let keys: Vec<_> = keys.iter().map(Key::as_key_data).collect();
        let protection = Protection { csb_rand: Some(&rand), ..Protection::default() };
        let mut out = vec![0; 10_000];
        let header = Header::new(DataType::PRE_SHARED, CsbId(4));
        let len = psk::write(&key, &header, &payloads, &keys, protection, &mut out).unwrap();
        let made = &out[..len];

        let missing = psk::open(&key, made, Acceptance::default()).unwrap_err();
        prop_assert_eq!(missing, OpenError::Missing("RAND"));
        let opened = psk::open(&key, made, Acceptance { csb_rand: Some(&rand), ..Acceptance::default() }).unwrap();
        prop_assert!(opened.keys().eq(keys));
        prop_assert_eq!(opened.idr(), None);
    }

    #[test]
    fn whatever_decodes_encodes_to_the_same_octets(octets in octets(200)) {
        if let Ok(message) = Message::parse(&octets) {
            let mut again = vec![0; octets.len()];
            prop_assert_eq!(message.write(&mut again), Ok(octets.len()));
            prop_assert_eq!(again, octets);
        }
    }

    #[test]
    fn any_chain_of_payloads_decodes_to_what_it_was_made_of(parts in vec(part(), 1..8), data_type: u8, prf in 0_u8..128) {
        let header = Header { prf_func: PrfFunc(prf), ..Header::new(DataType(data_type), CsbId(7)) };
        let payloads: Vec<_> = parts.iter().map(Part::as_payload).collect();
        let mut out = vec![0; 20_000];
        let Ok(len) = message::write(&header, &payloads, &mut out) else {
            // Only a payload that has to be the last can keep a message of such parts from being made.
            let (_, others) = payloads.split_last().unwrap();
            prop_assert!(others.iter().any(|payload| matches!(payload, Payload::Sign(_))));
            return Ok(());
        };
        let message = Message::parse(&out[..len]).unwrap();
        prop_assert_eq!(*message.header(), header);
        prop_assert!(message.payloads().map(|placed| placed.payload).eq(payloads));
    }

    #[test]
    fn an_srtp_id_map_decodes_to_its_streams(streams in vec((any::<u8>(), any::<u32>(), any::<u32>()), 0..=255)) {
        let ids = streams.iter().map(|&(policy_no, ssrc, roc)| SrtpId { policy_no, ssrc, roc });
        let info: Octets = ids.clone().flat_map(SrtpId::to_octets).collect();
        let (cs_count, map_type) = (streams.len() as u8, CsIdMapType::SRTP_ID);
        let header = Header { cs_count, map_type, map_info: &info, ..Header::new(DataType::PRE_SHARED, CsbId(7)) };
        let mut out = vec![0; 3000];
        let rand = Payload::Rand(Rand { data: &[] });
        let len = message::write(&header, &[rand], &mut out).unwrap();
        prop_assert!(Message::parse(&out[..len]).unwrap().header().srtp_ids().eq(ids));
    }
}

/// What a payload of any kind is made of: a kind, registry numbers and octets.
#[derive(Debug, Clone)]
struct Part {
    kind: u8,
    number: u8,
    other: u16,
    data: Octets,
    kv: Validity,
}

fn part() -> impl Strategy<Value = Part> {
    (0_u8..13, any::<u8>(), any::<u16>(), vec(any::<u8>(), 192..=255), validity())
        .prop_map(|(kind, number, other, data, kv)| Part { kind, number, other, data, kv })
}

impl Part {
    fn as_payload(&self) -> Payload<'_> {
        let (number, data) = (self.number, &self.data[..]);
        match self.kind {
            0 => {
                let mac_alg = MacAlg(number & 1);
                let mac = &data[..mac_alg.tag_len().unwrap()];
                Payload::Kemac(Kemac { encr_alg: EncrAlg(number), encr_data: data, mac_alg, mac })
            }
            1 => Payload::Pke(Pke { cache: CacheType(number & 3), data }),
            2 => {
                let group = DhGroup(number % 3);
                let (value, reserved) = (&data[..group.value_len().unwrap()], number >> 4);
                Payload::Dh(Dh { group, value, reserved, kv: as_validity(&self.kv) })
            }
            3 => Payload::Sign(Sign { signature_type: SignatureType(number & 15), signature: data }),
            4 => {
                let ts_type = TsType(number % 3);
                Payload::T(Timestamp { ts_type, value: &data[..ts_type.value_len().unwrap()] })
            }
            5 => Payload::Id(Id { id_type: IdType(number), data }),
            6 => Payload::Cert(Cert { cert_type: CertType(number), data }),
            7 => {
                let hash_func = HashFunc(number & 1);
                Payload::Chash(Chash { hash_func, hash: &data[..hash_func.hash_len().unwrap()] })
            }
            8 => {
                let auth_alg = MacAlg(number & 1);
                Payload::V(Ver { auth_alg, ver_data: &data[..auth_alg.tag_len().unwrap()] })
            }
            9 => Payload::Sp(Sp::new(number, ProtType(number), &[]).unwrap()),
            10 => Payload::Rand(Rand { data }),
            11 => Payload::Err(ErrPayload { error_no: ErrorNo(number), reserved: self.other }),
            _ => {
                let ext_type = if number == ExtType::KEY_ID.0 { ExtType::OMA_BCAST } else { ExtType(number) };
                Payload::Ext(GeneralExt::new(ext_type, data).unwrap())
            }
        }
    }
}

#[test]
fn a_kv_of_unknown_layout_survives_as_the_last_of_the_message_alone() {
    let dh = |kv| Payload::Dh(Dh { group: DhGroup::OAKLEY_1, value: &[1; 96], reserved: 0, kv });
    let other = dh(KeyValidity::Other { kv_type: KvType(7), data: b"what it means, who knows" });
    let header = Header::new(DataType::DH_INIT, CsbId(1));
    let mut out = [0; 300];
    let len = message::write(&header, &[other], &mut out).unwrap();
    assert!(Message::parse(&out[..len]).unwrap().payloads().map(|placed| placed.payload).eq([other]));
    let refused = message::write(&header, &[other, other], &mut out).unwrap_err();
    assert_eq!(refused.to_string(), "KV data can only be the last payload");
    let known = dh(KeyValidity::Other { kv_type: KvType::SPI, data: b"" });
    assert!(message::write(&header, &[known], &mut out).is_err(), "no value has two spellings");
}
