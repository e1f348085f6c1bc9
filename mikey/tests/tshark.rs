//! Wireshark's dissector, an implementation by others, reads what this crate makes.
//!
//! The packets are written into a capture file by hand: nothing is sent and nothing is captured.

#![allow(clippy::unwrap_used, reason = "a test says so by failing")]

mod common;

use std::{fs, path::Path, process::Command};

use common::{
    ltkm_cases,
    samples::{IDI, IDR, ltkm, srtp},
};
use data_encoding::HEXLOWER;
use mikey::{
    CsbId, EncrAlg, ErrorNo, TsType, error_message,
    ltkm::{self, BUFFER_LEN, KeyData, KeyDataType, KeyValidity, Ltkm, Options},
    payload::Timestamp,
    psk::PresharedKey,
};
use serde_json::Value;

/// UDP port of LTKMs (IANA omabcastltkm).
const PORT: u16 = 4359;

/// A capture file (the format of libpcap, link type 101: raw IP) with one UDP packet per message.
fn capture(messages: &[Vec<u8>]) -> Vec<u8> {
    let mut file = Vec::new();
    for word in [0xa1b2_c3d4_u32, 2 << 16 | 4, 0, 0, 65_535, 101] {
        file.extend(word.to_be_bytes());
    }
    for message in messages {
        let (udp_len, ip_len) = (8 + message.len() as u16, 28 + message.len() as u16);
        for word in [0_u32, 0, ip_len.into(), ip_len.into()] {
            file.extend(word.to_be_bytes());
        }
        let mut ip = [0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0, 127, 0, 0, 1, 127, 0, 0, 1];
        ip[2..4].copy_from_slice(&ip_len.to_be_bytes());
        file.extend(ip);
        for half in [PORT, PORT, udp_len, 0] {
            file.extend(half.to_be_bytes());
        }
        file.extend(message);
    }
    file
}

/// What `tshark` makes of each message: its MIKEY layer.
fn dissected(name: &str, messages: &[Vec<u8>]) -> Vec<Value> {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.pcap"));
    fs::write(&path, capture(messages)).unwrap();
    let mut command = Command::new("tshark");
    command
        .args(["-T", "json", "--no-duplicate-keys", "-d"])
        .arg(format!("udp.port=={PORT},mikey"))
        .arg("-r");
    let output = command.arg(&path).output().unwrap_or_else(|error| {
        panic!(
            "this test needs `tshark`, of Wireshark (Debian: apt-get install tshark), in the path: {error}"
        )
    });
    let (out, said) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "tshark failed: {said}");
    for mark in ["malformed", "_ws.expert", "_ws.short", "undecoded", "_ws.unreassembled"] {
        assert!(!out.to_lowercase().contains(mark), "tshark finds fault ({mark}): {out}");
    }
    let packets: Vec<Value> = serde_json::from_str(&out).unwrap();
    assert_eq!(packets.len(), messages.len());
    let layer = |packet: &Value| packet["_source"]["layers"]["mikey"].clone();
    packets.iter().map(layer).inspect(|mikey| assert!(mikey.is_object(), "no MIKEY layer: {out}")).collect()
}

/// As `tshark` shows octets.
fn shown(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect::<Vec<_>>().join(":")
}

/// A field, or an empty text when it is not there.
fn field<'a>(layer: &'a Value, path: &[&str]) -> &'a str {
    path.iter().fold(layer, |value, name| &value[*name]).as_str().unwrap_or_default()
}

/// Each of the payloads of one kind, whether there is one or more.
fn all<'a>(layer: &'a Value, name: &str) -> Vec<&'a Value> {
    match &layer[name] {
        Value::Array(payloads) => payloads.iter().collect(),
        Value::Null => Vec::new(),
        payload => vec![payload],
    }
}

fn made(message: &Ltkm<'_>, options: Options) -> Vec<u8> {
    let mut out = [0; BUFFER_LEN];
    let len = message.write_with(&PresharedKey::new(b"a MUK"), options, &mut out).unwrap();
    out[..len].to_vec()
}

#[test]
fn tshark_reads_every_ltkm_that_is_made_as_it_was_meant() {
    let srtp = srtp();
    let messages = [
        ltkm(),
        Ltkm { srtp: Some(&srtp), ext_bcast: Some(b"management data"), ..ltkm() },
        Ltkm { key: None, v: false, ..ltkm() },
    ];
    let octets: Vec<_> = messages.iter().map(|message| made(message, Options::default())).collect();
    for (message, mikey) in messages.iter().zip(dissected("ltkm", &octets)) {
        let header = |name| field(&mikey, &["mikey.hdr", name]);
        assert_eq!(
            (header("mikey.version"), header("mikey.type"), header("mikey.prf_func")),
            ("1", "0", "0")
        );
        assert_eq!(header("mikey.csb_id"), "0x63429ca7");
        assert_eq!(header("mikey.v.set"), if message.v { "1" } else { "0" });
        let (count, map_type) = if message.srtp.is_some() { ("3", "0") } else { ("0", "1") };
        assert_eq!((header("mikey.cs_count"), header("mikey.cs_id_map_type")), (count, map_type));
        let streams = all(&mikey["mikey.hdr"], "mikey.srtp_id");
        assert_eq!(streams.len(), message.srtp.map_or(0, |srtp| srtp.streams().len()));
        assert_eq!(all(&mikey, "mikey.sp").len(), message.srtp.map_or(0, |srtp| srtp.policies().len()));

        let extensions = all(&mikey, "mikey.ext");
        assert_eq!(field(extensions[0], &["mikey.ext.type"]), "3");
        assert_eq!(field(extensions[0], &["mikey.ext.data"]), "00:03:62:f2:10:01:04:68:c9:00:01");
        assert_eq!(extensions.len(), 1 + usize::from(message.ext_bcast.is_some()));
        if let Some(data) = message.ext_bcast {
            assert_eq!(field(extensions[1], &["mikey.ext.type"]), "5");
            assert_eq!(field(extensions[1], &["mikey.ext.data"]), shown(&[&[1], data].concat()));
        }
        assert_eq!(field(&mikey, &["mikey.t", "mikey.t.ts_type"]), "2");
        assert_eq!(field(&mikey, &["mikey.rand", "mikey.rand.data"]), shown(message.rand));
        let ids: Vec<_> = all(&mikey, "mikey.id").iter().map(|id| field(id, &["mikey.id.data"])).collect();
        assert_eq!(ids, [IDI, IDR].map(|id| str::from_utf8(id).unwrap()));
        let kemac = |name| field(&mikey, &["mikey.kemac", name]);
        assert_eq!(kemac("mikey.next_payload"), "0");
        assert_eq!((kemac("mikey.kemac.encr_alg"), kemac("mikey.kemac.mac_alg")), ("1", "1"));
        let len = message.key.map_or(0, |key| key.encoded_len());
        assert_eq!(kemac("mikey.kemac.key_data_len"), len.to_string());
        assert_eq!(kemac("mikey.kemac.mac").len(), 59);
    }
}

#[test]
fn tshark_reads_the_streams_and_policies_of_srtp() {
    let srtp = srtp();
    let message = Ltkm { srtp: Some(&srtp), ..ltkm() };
    let mikey = &dissected("srtp", &[made(&message, Options::default())])[0];
    let streams = all(&mikey["mikey.hdr"], "mikey.srtp_id");
    for (stream, id) in streams.iter().zip(srtp.streams()) {
        assert_eq!(field(stream, &["mikey.srtp_id.ssrc"]), format!("0x{:08x}", id.ssrc));
        assert_eq!(field(stream, &["mikey.srtp_id.roc"]), format!("0x{:08x}", id.roc));
        assert_eq!(field(stream, &["mikey.srtp_id.policy_no"]), id.policy_no.to_string());
    }
    let policies = all(mikey, "mikey.sp");
    let numbers: Vec<_> = policies.iter().map(|policy| field(policy, &["mikey.sp.no"])).collect();
    assert_eq!(numbers, ["0", "7"]);
    assert_eq!(field(policies[1], &["mikey.sp.auth_tag_len"]), "10");
}

#[test]
fn tshark_reads_key_data_of_every_type_and_validity_where_they_are_not_encrypted() {
    let interval = KeyValidity::Interval { from: &[0, 1], to: &[0xff, 0xff] };
    let validities = [(KeyValidity::Null, "0"), (KeyValidity::Spi(b"mki"), "1"), (interval, "2")];
    let types = [KeyDataType::TGK, KeyDataType::TGK_SALT, KeyDataType::TEK, KeyDataType::TEK_SALT];
    let options = Options { encr_alg: EncrAlg::NULL, ..Options::default() };
    let keys: Vec<_> = types
        .into_iter()
        .flat_map(|key_type| validities.map(|(kv, _)| (key_type, kv)))
        .map(|(key_type, kv)| {
            let salt = key_type.has_salt().unwrap().then_some(&[0x33; 14][..]);
            KeyData { key_type, key: &[0x22; 16], salt, kv }
        })
        .collect();
    let octets: Vec<_> = keys.iter().map(|key| made(&Ltkm { key: Some(*key), ..ltkm() }, options)).collect();
    for (key, mikey) in keys.iter().zip(dissected("key-data", &octets)) {
        let data = |name| field(&mikey, &["mikey.kemac", "mikey.key", name]);
        assert_eq!(data("mikey.key.type"), key.key_type.0.to_string(), "{mikey:#}");
        assert_eq!(data("mikey.key.kv"), key.kv.kv_type().0.to_string());
        assert_eq!(data("mikey.key.data"), shown(key.key));
        assert_eq!(data("mikey.key.salt"), key.salt.map(shown).unwrap_or_default());
        let (spi, from, to) = match key.kv {
            KeyValidity::Spi(spi) => (shown(spi), String::new(), String::new()),
            KeyValidity::Interval { from, to } => (String::new(), shown(from), shown(to)),
            _ => Default::default(),
        };
        assert_eq!(data("mikey.key.kv.spi"), spi);
        assert_eq!((data("mikey.key.kv.from"), data("mikey.key.kv.to")), (&*from, &*to));
    }
}

#[test]
fn tshark_reads_every_vector_and_every_answer_to_one() {
    let cases = ltkm_cases();
    let octets: Vec<_> = cases.iter().map(|case| case.message.0.clone()).collect();
    for (case, mikey) in cases.iter().zip(dissected("vectors", &octets)) {
        assert_eq!(
            field(&mikey, &["mikey.hdr", "mikey.csb_id"]),
            format!("0x{}", HEXLOWER.encode(&case.csb_id))
        );
    }
    let answers: Vec<_> = cases
        .iter()
        .map(|case| {
            let mut out = [0; BUFFER_LEN];
            let len = ltkm::open(&case.key(), &case.message).unwrap().verification(&mut out).unwrap();
            out[..len].to_vec()
        })
        .collect();
    for ((case, answer), mikey) in cases.iter().zip(&answers).zip(dissected("answers", &answers)) {
        let header = |name| field(&mikey, &["mikey.hdr", name]);
        assert_eq!((header("mikey.type"), header("mikey.v.set"), header("mikey.cs_count")), ("1", "0", "0"));
        assert_eq!(field(&mikey, &["mikey.t", "mikey.t.ts_type"]), "2");
        assert_eq!(field(&mikey, &["mikey.id", "mikey.id.data"]), case.idr);
        assert_eq!(field(&mikey, &["mikey.v", "mikey.v.auth_alg"]), "1");
        assert_eq!(field(&mikey, &["mikey.v", "mikey.v.ver_data"]), shown(&answer[answer.len() - 20..]));
    }
}

#[test]
fn tshark_reads_an_error_message() {
    let t = Timestamp { ts_type: TsType::NTP_UTC, value: &[0xed, 0xd2, 0x91, 0x80, 0, 0, 0, 0] };
    let mut out = [0; 100];
    let len = error_message::write(CsbId(9), t, &[ErrorNo::INVALID_TS], &[], &mut out).unwrap();
    let mikey = &dissected("error", &[out[..len].to_vec()])[0];
    assert_eq!(field(mikey, &["mikey.hdr", "mikey.type"]), "6");
    assert_eq!(field(mikey, &["mikey.err", "mikey.err.no"]), "1");
    assert!(field(mikey, &["mikey.t", "mikey.t.ntp"]).contains("2026"), "{mikey:#}");
}

#[test]
#[should_panic(expected = "tshark finds fault")]
fn a_message_that_is_cut_short_is_a_fault_to_tshark() {
    let octets = made(&ltkm(), Options::default());
    dissected("cut", &[octets[..octets.len() - 1].to_vec()]);
}
