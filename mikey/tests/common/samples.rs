//! One list of sample messages, over which the tests iterate.

use mikey::{
    BcastSubtype, CacheType, CertType, CsIdMapType, CsbId, DataType, DhGroup, EncrAlg, ErrorNo, ExtType,
    HashFunc, IdType, KvType, MacAlg, MskId, PrfFunc, ProtType, SignatureType, SrtpParam, TsType,
    ltkm::{KeyData, KeyDataType, KeyValidity, Ltkm, Options, Policy, Srtp},
    message,
    payload::{
        Cert, Chash, Dh, ErrPayload, GeneralExt, Header, Id, Kemac, Payload, Pke, Rand, Sign, Sp, SrtpId,
        Timestamp, Ver,
    },
    psk::{self, PresharedKey, Protection},
};

use super::ltkm_cases;

/// How a sample is protected, and so what must refuse it when it is changed.
#[derive(Clone)]
pub enum Protected {
    /// Not at all.
    No,
    /// A pre-shared key message under this key.
    Psk(PresharedKey),
    /// A verification message that answers an LTKM with these values.
    Verification { key: PresharedKey, csb_id: CsbId, rand: Vec<u8>, idi: Vec<u8> },
}

pub struct Sample {
    pub name: String,
    pub octets: Vec<u8>,
    pub protected: Protected,
    /// The last field's length follows from an unknown number: it is whatever is left, also in a shorter message.
    pub open_ended: bool,
}

pub const IDI: &[u8] = b"bmsc.example.com";
pub const IDR: &[u8] = b"dGVybWluYWw=@bsf.example.com";

/// An LTKM to vary.
pub fn ltkm() -> Ltkm<'static> {
    let kv = KeyValidity::Interval { from: &[0xed, 0xd2, 0x91, 0x80], to: &[0xed, 0xd3, 0xe3, 0x00] };
    Ltkm {
        v: true,
        csb_id: CsbId(0x6342_9ca7),
        counter: 0x0102_0304,
        rand: &[0x47; 16],
        id_type: IdType::NAI,
        idi: IDI,
        idr: IDR,
        key_domain_id: mikey::KeyDomainId([0x62, 0xf2, 0x10]),
        msk_id: MskId::new(0x68c9, 1),
        ext_bcast: None,
        srtp: None,
        key: Some(KeyData { key_type: KeyDataType::TGK, key: &[0x11; 16], salt: None, kv }),
    }
}

pub fn srtp() -> Srtp {
    let policy = |no| Policy::new(no).with(SrtpParam::ENCR_ALG, &[1]).unwrap();
    let second = policy(7).with(SrtpParam::AUTH_TAG_LEN, &[10]).unwrap();
    let streams = [(0, 0x1234_5678, 9), (7, 1, 0), (0, 2, 0)];
    Srtp::new(&streams.map(|(policy_no, ssrc, roc)| SrtpId { policy_no, ssrc, roc }), vec![policy(0), second])
        .unwrap()
}

/// All samples.
pub fn samples() -> Vec<Sample> {
    let mut samples = Vec::new();
    from_vectors(&mut samples);
    ltkms(&mut samples);
    psk_messages(&mut samples);
    other_kinds(&mut samples);
    unknown_numbers(&mut samples);
    samples
}

fn from_vectors(samples: &mut Vec<Sample>) {
    for (index, case) in ltkm_cases().into_iter().enumerate() {
        let (key, csb_id) = (case.key(), case.csb_id());
        if let Some(verification) = &case.verification {
            let (rand, idi) = (case.rand.0.clone(), case.idi.clone().into_bytes());
            let protected = Protected::Verification { key: key.clone(), csb_id, rand, idi };
            let name = format!("verification of vector {index}, {}", case.kind);
            samples.push(Sample { name, octets: verification.0.clone(), protected, open_ended: false });
        }
        let (name, protected) = (format!("vector {index}, {}", case.kind), Protected::Psk(key));
        samples.push(Sample { name, octets: case.message.0.clone(), protected, open_ended: false });
    }
}

fn ltkms(samples: &mut Vec<Sample>) {
    let key = PresharedKey::new(b"a key of another length than most");
    let srtp = srtp();
    let salted = |key_type| KeyData {
        key_type,
        key: &[0x22; 16],
        salt: Some(&[0x33; 14]),
        kv: KeyValidity::Spi(&[1, 2, 3, 4]),
    };
    let plain = |key_type| KeyData { key_type, key: &[0x22; 32], salt: None, kv: KeyValidity::Null };
    let variants = [
        ("LTKM", ltkm()),
        ("LTKM with SRTP", Ltkm { srtp: Some(&srtp), ..ltkm() }),
        ("LTKM with BCAST", Ltkm { ext_bcast: Some(b"management data"), v: false, ..ltkm() }),
        ("LTKM with BCAST of no octets", Ltkm { ext_bcast: Some(b""), id_type: IdType::URI, ..ltkm() }),
        ("LTKM with TGK+SALT", Ltkm { key: Some(salted(KeyDataType::TGK_SALT)), ..ltkm() }),
        ("LTKM with TEK+SALT", Ltkm { key: Some(salted(KeyDataType::TEK_SALT)), rand: &[9; 255], ..ltkm() }),
        ("LTKM with TEK", Ltkm { key: Some(plain(KeyDataType::TEK)), counter: u32::MAX, ..ltkm() }),
        ("trigger", Ltkm { key: None, v: false, msk_id: MskId([0; 4]), ..ltkm() }),
        ("trigger with everything", Ltkm { key: None, srtp: Some(&srtp), ext_bcast: Some(b"x"), ..ltkm() }),
    ];
    for encr_alg in [EncrAlg::AES_CM_128, EncrAlg::AES_KW_128, EncrAlg::NULL] {
        for (name, message) in &variants {
            let options = Options { encr_alg, ..Options::default() };
            let mut octets = vec![0; message.encoded_len_with(options)];
            assert_eq!(message.write_with(&key, options, &mut octets), Ok(octets.len()));
            let (name, protected) = (format!("{name}, {encr_alg}"), Protected::Psk(key.clone()));
            samples.push(Sample { name, octets, protected, open_ended: false });
        }
    }
}

fn psk_messages(samples: &mut Vec<Sample>) {
    let key = PresharedKey::new(b"k");
    let keys = [
        KeyData { key_type: KeyDataType::TEK, key: &[1; 16], salt: None, kv: KeyValidity::Spi(&[]) },
        KeyData { key_type: KeyDataType::TGK_SALT, key: &[2; 16], salt: Some(&[3]), kv: KeyValidity::Null },
    ];
    for (ts_type, value) in
        [(TsType::NTP_UTC, &[7; 8][..]), (TsType::NTP, &[8; 8]), (TsType::COUNTER, &[9; 4])]
    {
        let payloads = [
            Payload::T(Timestamp { ts_type, value }),
            Payload::Rand(Rand { data: &[5; 20] }),
            Payload::Ext(GeneralExt::new(ExtType::VENDOR_ID, b"vendor").unwrap()),
        ];
        let mut octets = vec![0; 300];
        let header = Header::new(DataType::PRE_SHARED, CsbId(3));
        let len = psk::write(&key, &header, &payloads, &keys, Protection::default(), &mut octets).unwrap();
        octets.truncate(len);
        let name = format!("pre-shared key message with two keys and T {ts_type}");
        samples.push(Sample { name, octets, protected: Protected::Psk(key.clone()), open_ended: false });
    }
}

fn unprotected(name: &str, header: Header<'_>, payloads: &[Payload<'_>], open_ended: bool) -> Sample {
    let mut octets = vec![0; 2000];
    let len = message::write(&header, payloads, &mut octets).unwrap();
    octets.truncate(len);
    Sample { name: name.into(), octets, protected: Protected::No, open_ended }
}

const T: Payload<'_> = Payload::T(Timestamp { ts_type: TsType::NTP_UTC, value: &[0xed; 8] });
const RAND: Payload<'_> = Payload::Rand(Rand { data: &[0x47; 16] });
const ID: Payload<'_> = Payload::Id(Id { id_type: IdType::URI, data: b"sip:someone@example.com" });
const CERT: Payload<'_> =
    Payload::Cert(Cert { cert_type: CertType::X509V3_URL, data: b"http://example.com/c" });
const SIGN: Payload<'_> =
    Payload::Sign(Sign { signature_type: SignatureType::RSA_PSS, signature: &[0x51; 128] });

fn other_kinds(samples: &mut Vec<Sample>) {
    let header = |data_type| Header::new(data_type, CsbId(0x0a0b_0c0d));
    let sp = Payload::Sp(Sp::new(3, ProtType::SRTP, &[0, 1, 1, 12, 0]).unwrap());
    let err = |error_no, reserved| Payload::Err(ErrPayload { error_no, reserved });
    let kemac = |mac_alg, mac| {
        Payload::Kemac(Kemac { encr_alg: EncrAlg::AES_KW_128, encr_data: &[0x6b; 32], mac_alg, mac })
    };
    let pke = Payload::Pke(Pke { cache: CacheType::CACHE_FOR_CSB, data: &[0x70; 128] });
    let chash = |hash_func, hash| Payload::Chash(Chash { hash_func, hash });
    let dh = |group: DhGroup, kv| {
        let value = &[0xd4; 192][..group.value_len().unwrap()];
        Payload::Dh(Dh { group, value, reserved: 0x0a, kv })
    };
    let interval = KeyValidity::Interval { from: &[1, 2, 3, 4, 5, 6], to: &[] };
    samples.extend([
        unprotected("error", header(DataType::ERROR), &[T, err(ErrorNo::AUTH_FAILURE, 0)], false),
        unprotected(
            "errors with policies and a signature",
            header(DataType::ERROR),
            &[T, err(ErrorNo::INVALID_SP, 0xffff), err(ErrorNo::UNSPECIFIED, 1), sp, SIGN],
            false,
        ),
        unprotected(
            "public key",
            Header { v: true, ..header(DataType::PUBLIC_KEY) },
            &[T, RAND, ID, CERT, sp, kemac(MacAlg::NULL, &[]), chash(HashFunc::SHA_1, &[7; 20]), pke, SIGN],
            false,
        ),
        unprotected(
            "public key with MD5 and a MAC in the middle",
            header(DataType::PUBLIC_KEY),
            &[T, kemac(MacAlg::HMAC_SHA_1_160, &[8; 20]), chash(HashFunc::MD5, &[7; 16]), pke],
            false,
        ),
        unprotected(
            "D-H init, OAKLEY 5",
            header(DataType::DH_INIT),
            &[T, RAND, ID, CERT, dh(DhGroup::OAKLEY_5, interval), SIGN],
            false,
        ),
        unprotected(
            "D-H resp with two values",
            header(DataType::DH_RESP),
            &[
                T,
                ID,
                ID,
                dh(DhGroup::OAKLEY_1, KeyValidity::Null),
                dh(DhGroup::OAKLEY_2, KeyValidity::Spi(b"mki")),
                SIGN,
            ],
            false,
        ),
        unprotected(
            "verification of a public-key message",
            header(DataType::PK_VERIFICATION),
            &[T, ID, Payload::V(Ver { auth_alg: MacAlg::NULL, ver_data: &[] })],
            false,
        ),
    ]);
    let ext = |ext_type, data| Payload::Ext(GeneralExt::new(ext_type, data).unwrap());
    let extensions = [
        ext(ExtType::VENDOR_ID, b"vendor"),
        ext(ExtType::SDP_IDS, b""),
        ext(ExtType::KEY_ID, &[0, 3, 1, 2, 3, 1, 4, 1, 2, 3, 4, 2, 2, 9, 9, 200, 0]),
        ext(ExtType::KEY_ID, &[]),
        ext(ExtType::OMA_BCAST, &[BcastSubtype::STKM.0, 1, 2]),
        ext(ExtType::OMA_BCAST, &[BcastSubtype::LTKM_REPORTING.0]),
        ext(ExtType::OMA_BCAST, &[BcastSubtype::PARENTAL_CONTROL.0, 0]),
    ];
    samples.push(unprotected("every extension", header(DataType::PRE_SHARED), &extensions, false));
}

fn unknown_numbers(samples: &mut Vec<Sample>) {
    let header = Header {
        prf_func: PrfFunc(0x7f),
        map_type: CsIdMapType(0xee),
        v: true,
        ..Header::new(DataType(0xdd), CsbId(u32::MAX))
    };
    let payloads = [
        Payload::Id(Id { id_type: IdType(0xcc), data: b"" }),
        Payload::Cert(Cert { cert_type: CertType(0xcc), data: &[0] }),
        Payload::Ext(GeneralExt::new(ExtType(0xbb), &[1, 2, 3]).unwrap()),
        Payload::Ext(GeneralExt::new(ExtType::OMA_BCAST, &[0xaa, 1]).unwrap()),
        Payload::Sp(Sp::new(255, ProtType(0x99), &[0xfe, 2, 1, 2]).unwrap()),
        Payload::Err(ErrPayload { error_no: ErrorNo(0x88), reserved: 0x1234 }),
        Payload::Pke(Pke { cache: CacheType(3), data: &[] }),
        Payload::Sign(Sign { signature_type: SignatureType(0x0f), signature: &[] }),
    ];
    samples.push(unprotected("unknown numbers", header, &payloads, false));
    let other = KeyValidity::Other { kv_type: KvType(9), data: &[1, 2, 3] };
    let last = [
        Payload::Kemac(Kemac { encr_alg: EncrAlg(9), encr_data: &[1], mac_alg: MacAlg(9), mac: &[0x99; 16] }),
        Payload::T(Timestamp { ts_type: TsType(9), value: &[1, 2, 3] }),
        Payload::V(Ver { auth_alg: MacAlg(9), ver_data: &[0x99; 32] }),
        Payload::Chash(Chash { hash_func: HashFunc(9), hash: &[0x99; 32] }),
        Payload::Dh(Dh { group: DhGroup::OAKLEY_1, value: &[1; 96], reserved: 0, kv: other }),
    ];
    for payload in last {
        let name = format!("{} with an unknown number at the end", payload.payload_type());
        samples.push(unprotected(&name, Header::new(DataType::PRE_SHARED, CsbId(1)), &[RAND, payload], true));
    }
}
