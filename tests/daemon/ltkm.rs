//! The LTKMs that leave the daemon: their octets, what a terminal reads in them, and what `tshark` makes of them
//! (LTKM profile §5).

use std::path::Path;
use std::process::Command;

use data_encoding::{BASE64, HEXLOWER};
use mikey::ltkm::{OpenedLtkm, OpenedValidity};
use mikey::{BcastSubtype, IdType, KeyDataType};
use serde_json::{Value, json};

use crate::harness::terminal::Terminal;
use crate::harness::{Daemon, encoded};

const UDP: Option<&[u8]> = Some(&[0]);
const HTTP: Option<&[u8]> = Some(&[2]);

/// The end of NTP era 0 in Unix seconds: 2036-02-07T06:28:15Z.
const ERA_END: u64 = (1 << 32) - 1 - 2_208_988_800;

/// Walks over a message as RFC 3830 §6 has it: the payloads behind the header, type and octets. Written beside the
/// project's own reader, to be no less wrong than that.
fn payloads(octets: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let short = |at: usize| usize::from(u16::from_be_bytes([octets[at], octets[at + 1]]));
    let streams = usize::from(octets[8]);
    let mut at = 10 + if octets[9] == 0 { 9 * streams } else { 0 };
    let (mut next, mut found) = (octets[2], Vec::new());
    while next != 0 {
        let len = match next {
            1 => 4 + short(at + 2) + 1 + 20,                  // KEMAC with HMAC-SHA-1-160
            5 => 2 + if octets[at + 1] == 2 { 4 } else { 8 }, // T
            6 => 4 + short(at + 2),                           // ID
            9 => 2 + 20,                                      // V
            10 => 5 + short(at + 3),                          // SP
            11 => 2 + usize::from(octets[at + 1]),            // RAND
            21 => 4 + short(at + 2),                          // General Extension
            other => panic!("payload {other} at octet {at} of {}", HEXLOWER.encode(octets)),
        };
        found.push((next, octets[at..at + len].to_vec()));
        next = octets[at];
        at += len;
    }
    assert_eq!(at, octets.len(), "nothing is left over");
    found
}

/// Whether `tshark` reads all messages as MIKEY without finding a fault in any.
fn tshark_reads(name: &str, messages: &[Vec<u8>]) {
    const PORT: u16 = 4359;
    // The format of libpcap, link type 101: raw IP.
    let mut file: Vec<u8> =
        [0xa1b2_c3d4_u32, 2 << 16 | 4, 0, 0, 65_535, 101].into_iter().flat_map(u32::to_be_bytes).collect();
    for message in messages {
        let len = message.len() as u16;
        file.extend([0, 0, u32::from(len) + 28, u32::from(len) + 28].into_iter().flat_map(u32::to_be_bytes));
        file.extend([0x45, 0]);
        file.extend((len + 28).to_be_bytes());
        file.extend([0, 0, 0, 0, 64, 17, 0, 0, 127, 0, 0, 1, 127, 0, 0, 1]);
        file.extend([PORT, PORT, len + 8, 0].into_iter().flat_map(u16::to_be_bytes));
        file.extend(message);
    }
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.pcap"));
    std::fs::write(&path, file).expect("the capture is written");
    let output = Command::new("tshark")
        .args(["-V", "-d", "udp.port==4359,mikey", "-r"])
        .arg(&path)
        .output()
        .expect("this test needs tshark in the path (Debian: apt-get install tshark)");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for mark in ["malformed", "expert info", "undecoded", "unreassembled", "truncated"] {
        assert!(!text.to_lowercase().contains(mark), "tshark finds a fault ({mark}): {text}");
    }
    let read = text.lines().filter(|l| l.starts_with("Multimedia Internet KEYing")).count();
    assert_eq!(read, messages.len(), "{text}");
}

/// Registers by HTTP: the octets of the one LTKM.
fn inside(terminal: &Terminal, service: &str) -> Vec<u8> {
    terminal.registered(&[service], HTTP).items[0].ltkms()[0].clone()
}

fn interval(ltkm: &OpenedLtkm) -> (Vec<u8>, Vec<u8>) {
    match &ltkm.key.as_ref().expect("key data").kv {
        OpenedValidity::Interval { from, to } => (from.clone(), to.clone()),
        other => panic!("no interval: {other:?}"),
    }
}

/// VF and VT as NTP seconds.
fn ntp(ltkm: &OpenedLtkm) -> (u32, u32) {
    let (from, to) = interval(ltkm);
    let number = |octets: Vec<u8>| u32::from_be_bytes(octets.try_into().expect("4 octets"));
    (number(from), number(to))
}

fn seconds(value: &Value) -> u64 {
    let time: ltkmd::time::Timestamp = value.as_str().expect("a time").parse().expect("RFC 3339");
    time.as_secs()
}

#[test]
fn the_payloads_stand_in_their_order_and_say_what_the_profile_has() {
    let daemon = Daemon::start();
    daemon.put_service("urn:plain", 0x68c9, json!({}));
    let ext = BASE64.encode(b"management data");
    let srtp = json!({
        "streams": [{"policy": 1, "ssrc": 0x1122_3344}, {"policy": 2, "ssrc": 0x5566_7788, "roc": 3}],
        "policies": [{"policy": 1, "parameters": {"0": 1, "1": 16}}, {"policy": 2, "parameters": {"2": 1}}],
    });
    daemon.put_service("urn:full", 0x68ca, json!({"ext_bcast": ext, "srtp": srtp, "salt": true}));
    let terminal = Terminal::provision(&daemon, &[]);

    let octets = inside(&terminal, "urn:plain");
    // Version 1, data type 0, V, PRF 0; #CS 0, empty map.
    assert_eq!((&octets[..2], octets[3], &octets[8..10]), (&[1, 0][..], 0x80, &[0, 1][..]));
    let parts = payloads(&octets);
    let types: Vec<u8> = parts.iter().map(|(ty, _)| *ty).collect();
    assert_eq!(types, [21, 5, 11, 6, 6, 1], "HDR EXT3 T RAND IDi IDr KEMAC");
    let key_ids = [21, 3, 0, 11, 0, 3, 0xb8, 0x70, 0x9d, 1, 4, 0x68, 0xc9, 0, 1];
    assert_eq!(parts[0].1[1..], key_ids[1..]);
    assert_eq!(parts[1].1[1], 2, "T is a COUNTER");
    assert_eq!(parts[2].1[1], 16, "RAND has 16 octets");
    let id = |text: &str| [&[0, 0, text.len() as u8][..], text.as_bytes()].concat();
    assert_eq!(parts[3].1[1..], id("bmsc.example.com"));
    assert_eq!(parts[4].1[1..], id(&terminal.btid));
    let kemac = &parts[5].1;
    // No next payload, AES-CM-128, 30 octets of key data (head 4, key 16, VF and VT with their lengths), HMAC.
    assert_eq!(kemac[..4], [0, 1, 0, 30]);
    assert_eq!(kemac[kemac.len() - 21], 1);

    let octets = inside(&terminal, "urn:full");
    assert_eq!(octets[8..10], [2, 0], "two crypto sessions, SRTP-ID map");
    let streams = [1, 0x11, 0x22, 0x33, 0x44, 0, 0, 0, 0, 2, 0x55, 0x66, 0x77, 0x88, 0, 0, 0, 3];
    assert_eq!(octets[10..28], streams);
    let parts = payloads(&octets);
    let types: Vec<u8> = parts.iter().map(|(ty, _)| *ty).collect();
    assert_eq!(types, [21, 21, 5, 11, 6, 6, 10, 10, 1], "HDR EXT3 EXT5 T RAND IDi IDr SP SP KEMAC");
    assert_eq!(parts[1].1[1..], [&[5, 0, 16, 1][..], b"management data"].concat());
    assert_eq!(parts[6].1[1..], [1, 0, 0, 6, 0, 1, 1, 1, 1, 16]);
    assert_eq!(parts[7].1[1..], [2, 0, 0, 3, 2, 1, 1]);
    let opened = terminal.open(&octets);
    let key = opened.key.as_ref().expect("key data");
    assert_eq!(key.key_type, KeyDataType::TGK_SALT);
    let stored = &daemon.keys("urn:full")[0];
    assert_eq!(BASE64.encode(key.key.expose()), stored["msk"].as_str().expect("a key"));
    assert_eq!(
        BASE64.encode(key.salt.as_ref().expect("a salt").expose()),
        stored["salt"].as_str().expect("a salt")
    );
    assert_eq!(opened.bcast_subtype, Some(BcastSubtype(1)));
}

#[test]
fn tshark_finds_no_fault_in_anything_that_leaves() {
    let daemon = Daemon::start_with("udp.first_timeout = \"100ms\"");
    let srtp = json!({
        "streams": [{"policy": 0, "ssrc": 7}],
        "policies": [{"policy": 0, "parameters": {"0": 1, "1": 16, "2": 1, "11": 10}}],
    });
    daemon.put_service("urn:ntp", 1, json!({"ext_bcast": BASE64.encode(b"data"), "srtp": srtp}));
    daemon.put_service("urn:mtk", 2, json!({"validity": "mtk-id", "salt": true}));
    let terminal = Terminal::provision(&daemon, &[]);
    let mut seen = Vec::new();
    let answer = terminal.registered(&["urn:ntp", "urn:mtk"], Some(&[0, 2]));
    seen.extend(answer.items.iter().flat_map(|i| i.ltkms()).cloned());
    // Again by UDP, since nothing was verified.
    seen.extend((0..2).map(|_| terminal.receive_octets()));
    seen.extend(terminal.msks(&[("b8709d", "00010000")]).items[0].ltkms().iter().cloned());
    let path = format!("/v1/terminals/{}/trigger", encoded(&terminal.btid));
    for what in [json!({"procedure": "register"}), json!({"procedure": "msk-request", "service": "urn:ntp"})]
    {
        assert_eq!(daemon.admin("POST", &path, Some(&what)).status, 202);
    }
    seen.extend((0..2).map(|_| terminal.receive_octets()));
    let answer = terminal.deregistered(&["urn:ntp", "urn:mtk"]);
    seen.extend(answer.items.iter().flat_map(|i| i.ltkms()).cloned());
    seen.extend(terminal.drain());
    let answers: Vec<Vec<u8>> =
        seen.iter().map(|octets| terminal.verification(&terminal.open(octets))).collect();
    for answer in &answers {
        let types: Vec<u8> = payloads(answer).iter().map(|(ty, _)| *ty).collect();
        assert_eq!(types, [5, 6, 9], "HDR T IDr V");
    }
    assert!(seen.len() >= 9, "{}", seen.len());
    tshark_reads("daemon", &seen);
    tshark_reads("answers", &answers);
}

#[test]
#[should_panic(expected = "tshark finds a fault")]
fn an_ltkm_that_is_cut_short_is_a_fault_to_tshark() {
    let daemon = Daemon::start();
    daemon.put_service("urn:s", 1, json!({}));
    let terminal = Terminal::provision(&daemon, &[]);
    let mut octets = inside(&terminal, "urn:s");
    octets.pop();
    tshark_reads("cut", &[octets]);
}

#[test]
fn each_ltkm_has_its_own_t_rand_and_csb_id() {
    let daemon = Daemon::start();
    daemon.put_service("urn:s", 1, json!({}));
    let terminal = Terminal::provision(&daemon, &[]);
    let all: Vec<_> = (0..10).map(|_| terminal.open(&inside(&terminal, "urn:s"))).collect();
    for (n, one) in all.iter().enumerate() {
        for other in &all[..n] {
            assert!(one.counter > other.counter && one.rand != other.rand && one.csb_id != other.csb_id);
        }
    }
    let other = Terminal::provision(&daemon, &[]);
    let first = other.open(&inside(&other, "urn:s"));
    assert_eq!(first.counter, all[0].counter, "each terminal counts for itself");
    assert_ne!((first.rand, first.csb_id), (all[0].rand.clone(), all[0].csb_id));
}

#[test]
fn identities_are_uris_where_that_is_configured() {
    let daemon = Daemon::start_with("mikey.id_type = \"uri\"");
    daemon.put_service("urn:s", 1, json!({}));
    let terminal = Terminal::provision(&daemon, &[]);
    terminal.registered(&["urn:s"], UDP);
    let ltkm = terminal.receive();
    assert_eq!((ltkm.idi_type, ltkm.id_type), (IdType::URI, IdType::URI));
    terminal.verify(&ltkm);
    daemon.await_state("the verification", |daemon| {
        (daemon.deliveries(&terminal.btid)[0]["state"] == "verified").then_some(())
    });
}

#[test]
fn where_no_answer_is_wanted_delivery_is_assumed() {
    let daemon = Daemon::start_with("delivery.verify = false");
    daemon.put_service("urn:s", 1, json!({}));
    for (set, method) in [(UDP, "udp"), (HTTP, "http")] {
        let terminal = Terminal::provision(&daemon, &[]);
        let answer = terminal.registered(&["urn:s"], set);
        let inside = answer.items[0].ltkms();
        let octets = inside.first().cloned().unwrap_or_else(|| terminal.receive_octets());
        assert_eq!(octets[3], 0, "V is not set");
        terminal.open(&octets);
        let delivery = &daemon.deliveries(&terminal.btid)[0];
        let told = (&delivery["state"], &delivery["method"], &delivery["next_due"]);
        assert_eq!(told, (&json!("assumed"), &json!(method), &Value::Null));
    }
}

#[test]
fn validity_is_ntp_seconds_or_mtk_ids() {
    let daemon = Daemon::start();
    daemon.put_service("urn:ntp", 1, json!({"lifetime": "2h"}));
    daemon.put_service("urn:mtk", 2, json!({"validity": "mtk-id"}));
    daemon.put_service("urn:some", 3, json!({"validity": "mtk-id", "mtk_ids": [7, 300]}));
    let terminal = Terminal::provision(&daemon, &[]);
    let key = &daemon.keys("urn:ntp")[0];
    let (from, to) = (seconds(&key["valid_from"]), seconds(&key["valid_to"]));
    assert_eq!(to - from, 7200);
    let ltkm = terminal.open(&inside(&terminal, "urn:ntp"));
    let ntp_of = |unix: u64| u32::try_from(unix + 2_208_988_800).expect("era 0");
    assert_eq!(ntp(&ltkm), (ntp_of(from), ntp_of(to)));
    let validity = |service: &str| interval(&terminal.open(&inside(&terminal, service)));
    assert_eq!(validity("urn:mtk"), (vec![0, 1], vec![0xFF, 0xFF]));
    assert_eq!(validity("urn:some"), (vec![0, 7], vec![1, 44]));
    daemon.rotate("urn:some", Some(&json!({"mtk_ids": [301, 600]})));
    assert_eq!(validity("urn:some"), (vec![1, 45], vec![2, 88]));
}

#[test]
fn a_key_that_would_pass_the_end_of_an_ntp_era_ends_there() {
    let daemon = Daemon::start();
    daemon.put_service("urn:s", 1, json!({"lifetime": "7000d"}));
    let terminal = Terminal::provision(&daemon, &[]);
    let (from, to) = ntp(&terminal.open(&inside(&terminal, "urn:s")));
    assert!(from < to && to == u32::MAX);
    // One that begins in the last second of era 0, one that begins in era 1.
    let at = |unix: u64| ltkmd::time::Timestamp::from_secs(unix).to_string();
    for (begins, ends, expected) in [
        (ERA_END, ERA_END + 3600, (u32::MAX, u32::MAX)),
        (ERA_END + 1, ERA_END + 3601, (0, 3600)),
        (ERA_END - 10, ERA_END, (u32::MAX - 10, u32::MAX)),
    ] {
        let body = json!({"valid_from": at(begins), "valid_to": at(ends)});
        let (_, msk_id) = daemon.rotate("urn:s", Some(&body));
        let answer = terminal.msks(&[("b8709d", &msk_id)]);
        assert_eq!(ntp(&terminal.open(&answer.items[0].ltkms()[0])), expected);
    }
}

#[test]
fn a_key_from_outside_is_delivered_as_it_was_brought() {
    let daemon = Daemon::start();
    daemon.put_service("urn:s", 1, json!({}));
    let terminal = Terminal::provision(&daemon, &[]);
    terminal.registered(&["urn:s"], UDP);
    terminal.verify(&terminal.receive());
    let body = json!({
        "msk": BASE64.encode(&[0xA5; 16]),
        "valid_from": "2025-01-01T00:00:00Z",
        "valid_to": "2035-01-01T00:00:00Z",
    });
    let (job, msk_id) = daemon.rotate("urn:s", Some(&body));
    let ltkm = terminal.receive();
    assert_eq!(ltkm.key.as_ref().expect("a key").key.expose(), [0xA5; 16]);
    assert_eq!(ltkm.msk_id.to_string(), msk_id);
    let of = |text: &str| (seconds(&json!(text)) + 2_208_988_800) as u32;
    assert_eq!(ntp(&ltkm), (of("2025-01-01T00:00:00Z"), of("2035-01-01T00:00:00Z")));
    terminal.verify(&ltkm);
    daemon.await_state("the end of the job", |daemon| {
        (daemon.get(&format!("/v1/jobs/{job}"))["state"] == "done").then_some(())
    });
    for (field, wrong) in [
        ("msk", json!(BASE64.encode(&[1; 15]))),
        ("msk", json!("?")),
        ("valid_to", json!("2020-01-01T00:00:00Z")),
        ("mtk_ids", json!([5, 4])),
        ("mtk_ids", json!([0, 4])),
        ("key", json!(1)),
    ] {
        let reply = daemon.admin("POST", "/v1/services/urn:s/rotate", Some(&json!({field: wrong})));
        assert_eq!(reply.status, 422, "{field}: {}", reply.text());
    }
}

#[test]
fn keys_derived_from_a_bootstrapping_run_serve_end_to_end() {
    let vectors: Value =
        serde_json::from_str(include_str!("../vectors/gba.json")).expect("the vectors are JSON");
    let octets = |value: &Value| HEXLOWER.decode(value.as_str().expect("hex").as_bytes()).expect("hex");
    for case in vectors["cases"].as_array().expect("cases") {
        let fqdn = case["naf_fqdn"].as_str().expect("a name");
        let daemon = Daemon::start_with(&format!("node.fqdn = \"{fqdn}\""));
        daemon.put_service("urn:s", 1, json!({}));
        let impi = case["impi"].as_str().expect("an IMPI");
        for (gba, mrk, muk) in [("me", "mrk_gba_me", "muk_gba_me"), ("u", "mrk_gba_u", "muk_gba_u")] {
            let terminal = Terminal::provision(&daemon, &[]);
            let body = json!({
                "subscriber": terminal.subscriber,
                "ks": BASE64.encode(&octets(&case["ks"])),
                "rand": BASE64.encode(&octets(&case["rand"])),
                "impi": impi,
                "gba": gba,
            });
            let path = format!("/v1/credentials/{}", encoded(&terminal.btid));
            assert_eq!(daemon.admin("PUT", &path, Some(&body)).status, 200);
            let terminal = Terminal { mrk: octets(&case[mrk]), muk: octets(&case[muk]), ..terminal };
            let mut connection = terminal.connect();
            let digest = terminal.digest(&mut connection, "register");
            let digest =
                crate::harness::digest::Digest { realm: format!("3GPP-bootstrapping@{fqdn}"), ..digest };
            let document = crate::harness::terminal::registration(&["urn:s"], UDP);
            let reply = terminal.send_as(&mut connection, "register", document.as_bytes(), &digest);
            assert_eq!(reply.status, 200, "{}", reply.text());
            digest.prove(&reply);
            let ltkm = terminal.receive();
            assert_eq!(ltkm.idi, fqdn.as_bytes());
            terminal.verify(&ltkm);
            daemon.await_state("the verification", |daemon| {
                (daemon.deliveries(&terminal.btid)[0]["state"] == "verified").then_some(())
            });
        }
    }
}
