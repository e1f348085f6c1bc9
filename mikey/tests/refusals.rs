//! What is refused, why, and where, on both sides of an LTKM.

#![allow(clippy::unwrap_used, reason = "a test says so by failing")]

mod common;

use common::samples::{IDI, IDR, ltkm};
use mikey::{
    CsIdMapType, CsbId, DataType, DecodeError, DecodeErrorKind, EncrAlg, ErrorNo, ExtType, IdType,
    KeyDataType, KvType, MacAlg, MakeError, OpenError, PayloadType, PrfFunc, ProtType, TsType,
    error_message::{self, ErrorMessage},
    ltkm::{self, BUFFER_LEN, KeyData, KeyValidity},
    message,
    payload::{GeneralExt, Header, Id, Kemac, Payload, Rand, Sp, Timestamp, Ver},
    psk::{self, Acceptance, PresharedKey, Protection},
    verification::Verification,
};

const T: Payload<'_> = Payload::T(Timestamp { ts_type: TsType::COUNTER, value: &[0, 0, 0, 9] });
const NTP: Payload<'_> = Payload::T(Timestamp { ts_type: TsType::NTP, value: &[7; 8] });
const RAND: Payload<'_> = Payload::Rand(Rand { data: &[5; 16] });
const ID_I: Payload<'_> = Payload::Id(Id { id_type: IdType::NAI, data: IDI });
const ID_R: Payload<'_> = Payload::Id(Id { id_type: IdType::NAI, data: IDR });
const KEY_IDS: &[u8] = &[0, 3, 1, 2, 3, 1, 4, 1, 2, 3, 4];
const KEY: KeyData<'_> =
    KeyData { key_type: KeyDataType::TGK, key: &[6; 16], salt: None, kv: KeyValidity::Null };

fn ext(ext_type: ExtType, data: &[u8]) -> Payload<'_> {
    Payload::Ext(GeneralExt::new(ext_type, data).unwrap())
}

fn key() -> PresharedKey {
    PresharedKey::new(b"a MUK")
}

fn header() -> Header<'static> {
    Header::new(DataType::PRE_SHARED, CsbId(1))
}

/// Opens, as an LTKM, a message of these parts with the right MAC.
fn opened(payloads: &[Payload<'_>], keys: &[KeyData<'_>]) -> Result<(), OpenError> {
    let mut out = [0; BUFFER_LEN];
    let len = psk::write(&key(), &header(), payloads, keys, Protection::default(), &mut out).unwrap();
    ltkm::open(&key(), &out[..len]).map(|_| ())
}

/// Opens a message of these parts, whose MAC need not be right.
fn opened_as_is(header: &Header<'_>, payloads: &[Payload<'_>]) -> OpenError {
    let mut out = [0; BUFFER_LEN];
    let len = message::write(header, payloads, &mut out).unwrap();
    psk::open(&key(), &out[..len], Acceptance { null_encryption: true, csb_rand: None }).unwrap_err()
}

#[test]
fn an_authentic_message_that_is_no_ltkm_is_refused_for_what_it_lacks_or_repeats() {
    let key_id = ext(ExtType::KEY_ID, KEY_IDS);
    let bcast = ext(ExtType::OMA_BCAST, &[1, 2]);
    assert_eq!(opened(&[key_id, bcast, T, RAND, ID_I, ID_R], &[KEY]), Ok(()));
    assert_eq!(opened(&[RAND, ID_I, T, key_id, ID_R], &[]), Ok(()), "in any order, RFC 3830 §5.2");
    let cases: [(&[Payload<'_>], OpenError); 9] = [
        (&[T, RAND, ID_I, ID_R], OpenError::Missing("Key ID extension")),
        (&[key_id, T, RAND, ID_I], OpenError::Missing("IDr")),
        (&[key_id, T, RAND], OpenError::Missing("IDi")),
        (&[key_id, NTP, RAND, ID_I, ID_R], OpenError::UnsupportedTsType(TsType::NTP)),
        (&[key_id, key_id, T, RAND, ID_I, ID_R], OpenError::Twice("Key ID extension")),
        (&[key_id, bcast, bcast, T, RAND, ID_I, ID_R], OpenError::Twice("OMA BCAST extension")),
        (&[ext(ExtType::KEY_ID, &KEY_IDS[..5]), T, RAND, ID_I, ID_R], OpenError::Missing("MSK ID")),
        (&[ext(ExtType::KEY_ID, &KEY_IDS[5..]), T, RAND, ID_I, ID_R], OpenError::Missing("Key Domain ID")),
        (
            &[ext(ExtType::KEY_ID, &[0, 2, 1, 2]), T, RAND, ID_I, ID_R],
            OpenError::KeyIdLength { field: "Key Domain ID", found: 2, wanted: 3 },
        ),
    ];
    for (payloads, error) in cases {
        assert_eq!(opened(payloads, &[KEY]), Err(error));
    }
    assert_eq!(opened(&[key_id, T, RAND, ID_I, ID_R], &[KEY, KEY]), Err(OpenError::Twice("Key data")));
}

#[test]
fn authentic_key_data_of_an_unknown_kind_is_refused_at_its_octet() {
    let kv = KeyValidity::Other { kv_type: KvType(7), data: &[] };
    let payloads = [ext(ExtType::KEY_ID, KEY_IDS), T, RAND, ID_I, ID_R];
    let at = 10 + 4 + KEY_IDS.len() + 6 + 18 + 4 + IDI.len() + 4 + IDR.len() + 4 + 1;
    for (key_type, field, found, wanted) in
        [(KeyDataType::TGK, "KV", 7, "0 to 2"), (KeyDataType(9), "Key data Type", 9, "0 to 3")]
    {
        let kind = DecodeErrorKind::Unexpected { field, found, wanted };
        let error = OpenError::KeyData(DecodeError { at, kind });
        assert_eq!(opened(&payloads, &[KeyData { key_type, kv, ..KEY }]), Err(error));
    }
}

#[test]
fn a_message_that_the_method_does_not_have_is_refused_before_its_mac_is_looked_at() {
    let kemac =
        |mac_alg, mac| Payload::Kemac(Kemac { encr_alg: EncrAlg::NULL, encr_data: &[], mac_alg, mac });
    let hmac = kemac(MacAlg::HMAC_SHA_1_160, &[0; 20]);
    assert_eq!(opened_as_is(&header(), &[T, RAND, hmac]), OpenError::WrongMac);
    let null_mac = OpenError::UnsupportedMacAlg(MacAlg::NULL);
    assert_eq!(opened_as_is(&header(), &[T, RAND, kemac(MacAlg::NULL, &[])]), null_mac);
    let unknown = OpenError::UnsupportedMacAlg(MacAlg(9));
    assert_eq!(opened_as_is(&header(), &[T, RAND, kemac(MacAlg(9), &[0; 20])]), unknown);
    assert_eq!(opened_as_is(&header(), &[T, RAND]), OpenError::Missing("KEMAC"));
    assert_eq!(opened_as_is(&header(), &[RAND, hmac]), OpenError::Missing("T"));
    assert_eq!(opened_as_is(&header(), &[T, hmac]), OpenError::Missing("RAND"));
    assert_eq!(opened_as_is(&header(), &[T, NTP, RAND, hmac]), OpenError::Twice("T"));
    assert_eq!(opened_as_is(&header(), &[T, RAND, RAND, hmac]), OpenError::Twice("RAND"));
    assert_eq!(opened_as_is(&header(), &[T, RAND, hmac, hmac]), OpenError::Twice("KEMAC"));
    assert_eq!(opened_as_is(&header(), &[ID_I, ID_R, ID_I, T, RAND, hmac]), OpenError::Twice("IDr"));
    let other = Header { data_type: DataType::PUBLIC_KEY, ..header() };
    assert_eq!(opened_as_is(&other, &[T, RAND, hmac]), OpenError::DataType(DataType::PUBLIC_KEY));
    let other = Header { prf_func: PrfFunc(1), ..header() };
    assert_eq!(opened_as_is(&other, &[T, RAND, hmac]), OpenError::UnsupportedPrf(PrfFunc(1)));
    let sp = Payload::Sp(Sp::new(0, ProtType::SRTP, &[]).unwrap());
    assert_eq!(opened_as_is(&header(), &[T, RAND, sp, hmac]), OpenError::PolicyBesideMap(CsIdMapType::EMPTY));
    for misplaced in [&[T, RAND, hmac, ID_I][..], &[T, Payload::Err(ErrorNo::INVALID_DT.into()), RAND, hmac]]
    {
        assert!(matches!(opened_as_is(&header(), misplaced), OpenError::Malformed(_)));
    }
}

#[test]
fn a_message_that_could_not_be_opened_is_not_made() {
    let make = |header: &Header<'_>, payloads: &[Payload<'_>], encr_alg| {
        let protection = Protection { encr_alg, ..Protection::default() };
        psk::write(&key(), header, payloads, &[KEY], protection, &mut [0; BUFFER_LEN])
    };
    let cm = EncrAlg::AES_CM_128;
    let other = Header { prf_func: PrfFunc(1), ..header() };
    assert_eq!(make(&other, &[T, RAND], cm), Err(MakeError::UnsupportedPrf(PrfFunc(1))));
    let other = Header { data_type: DataType::ERROR, ..header() };
    assert!(make(&other, &[T, RAND], cm).is_err());
    assert_eq!(make(&header(), &[RAND], cm), Err(MakeError::Missing("T")));
    assert_eq!(make(&header(), &[T], cm), Err(MakeError::Missing("RAND")));
    assert_eq!(make(&header(), &[T, T, RAND], cm), Err(MakeError::Misplaced(PayloadType::T)));
    let sp = Payload::Sp(Sp::new(0, ProtType::SRTP, &[]).unwrap());
    assert_eq!(make(&header(), &[T, RAND, sp], cm), Err(MakeError::Misplaced(PayloadType::SP)));
    let unknown = EncrAlg(3);
    assert_eq!(make(&header(), &[T, RAND], unknown), Err(MakeError::UnsupportedEncrAlg(unknown)));
}

#[test]
fn a_verification_message_is_read_strictly() {
    let v = Payload::V(Ver { auth_alg: MacAlg::HMAC_SHA_1_160, ver_data: &[0; 20] });
    let null = Payload::V(Ver { auth_alg: MacAlg::NULL, ver_data: &[] });
    let header = Header::new(DataType::PSK_VERIFICATION, CsbId(1));
    let refusal = |header: Header<'_>, payloads: &[Payload<'_>]| {
        let mut out = [0; BUFFER_LEN];
        let len = message::write(&header, payloads, &mut out).unwrap();
        Verification::parse(&out[..len]).err().map(|error| error.to_string())
    };
    let good = &[T, ID_R, v][..];
    assert_eq!(refusal(header, good), None);
    let cases: [(Header<'_>, &[Payload<'_>], &str); 12] = [
        (
            Header { data_type: DataType::PRE_SHARED, ..header },
            good,
            "octet 1: data type is 0, 1 belongs there",
        ),
        (Header { v: true, ..header }, good, "octet 3: V is 1, 0 belongs there"),
        (Header { prf_func: PrfFunc(1), ..header }, good, "octet 3: PRF func is 1, 0 belongs there"),
        (Header { cs_count: 1, ..header }, good, "octet 8: #CS is 1, 0 belongs there"),
        (
            Header { map_type: CsIdMapType::SRTP_ID, ..header },
            good,
            "octet 9: CS ID map type is 0, 1 belongs there",
        ),
        (header, &[NTP, ID_R, v], "octet 11: TS type is 1, 2, a COUNTER, belongs there"),
        (header, &[T, ID_R, null], "octet 49: Auth alg is 0, 1, HMAC-SHA-1-160, belongs there"),
        (header, &[T, v], "octet 16: payload V (9) where IDr belongs"),
        (header, &[ID_R, T, v], "octet 10: payload ID (6) where T belongs"),
        (header, &[T, ID_R], "octet 48: payload Last payload (0) where V belongs"),
        (header, &[T, ID_R, v, v], "octet 70: payload V (9) where nothing belongs"),
        (header, &[T, RAND, ID_R, v], "octet 16: payload RAND (11) where IDr belongs"),
    ];
    assert_eq!(IDR.len(), 28, "the offsets above rely on it");
    for (header, payloads, expected) in cases {
        assert_eq!(refusal(header, payloads).as_deref(), Some(expected));
    }
}

#[test]
fn an_ltkm_is_no_verification_message_and_the_other_way_round() {
    let mut out = [0; BUFFER_LEN];
    let len = ltkm().write(&key(), &mut out).unwrap();
    assert_eq!(Verification::parse(&out[..len]).unwrap_err().at, 1);
    let mut answer = [0; BUFFER_LEN];
    let len = ltkm::open(&key(), &out[..len]).unwrap().verification(&mut answer).unwrap();
    let refused = ltkm::open(&key(), &answer[..len]).unwrap_err();
    assert_eq!(refused, OpenError::DataType(DataType::PSK_VERIFICATION));
}

#[test]
fn an_error_message_says_its_errors_and_policies_and_nothing_else_passes_for_one() {
    let Payload::T(t) = T else { unreachable!() };
    let sp = Sp::new(1, ProtType::SRTP, &[0, 1, 1]).unwrap();
    let errors = [ErrorNo::INVALID_SP, ErrorNo(77)];
    let mut out = [0; 100];
    let len = error_message::write(CsbId(9), t, &errors, &[sp], &mut out).unwrap();
    let read = ErrorMessage::parse(&out[..len]).unwrap();
    assert_eq!((read.csb_id(), read.timestamp()), (CsbId(9), t));
    assert!(read.errors().eq(errors));
    assert!(read.policies().eq([sp]));
    assert_eq!(error_message::write(CsbId(9), t, &[], &[sp], &mut out), Err(MakeError::Missing("ERR")));

    let header = Header::new(DataType::ERROR, CsbId(9));
    let err = Payload::Err(ErrorNo::UNSPECIFIED.into());
    let v = Payload::V(Ver { auth_alg: MacAlg::HMAC_SHA_1_160, ver_data: &[0; 20] });
    let parses = |header: Header<'_>, payloads: &[Payload<'_>]| {
        let mut out = [0; 200];
        let len = message::write(&header, payloads, &mut out).unwrap();
        ErrorMessage::parse(&out[..len]).is_ok()
    };
    assert!(parses(header, &[T, err, err, Payload::Sp(sp), v]));
    for payloads in [&[T][..], &[err], &[err, T], &[T, T, err], &[T, v], &[T, err, v, err], &[T, err, RAND]] {
        assert!(!parses(header, payloads), "{payloads:?}");
    }
    assert!(!parses(Header::new(DataType::PRE_SHARED, CsbId(9)), &[T, err]));
}
