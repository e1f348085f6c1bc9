//! What the pre-shared-key method costs beside the bare cryptography that it needs.
//!
//! `cargo bench -p mikey` runs the criterion benchmarks and closes with a table of ratios, for which each pair is
//! measured in turns, so that both sides meet the same weather on the machine.
//!
//! *bare* makes the same HMAC-SHA-1 and AES calls on the same inputs with the `hmac`, `aes` and `ctr` crates, and
//! nothing else. *floor* makes only the SHA-1 compressions and the AES of those calls, from blocks prepared outside
//! of the measurement: nothing that computes the same can be faster with these crates.

#![allow(clippy::unwrap_used, reason = "a benchmark says so by failing")]

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use aes::Aes128Enc;
use criterion::Criterion;
use ctr::{
    Ctr32BE,
    cipher::{KeyIvInit, StreamCipher},
};
use hmac::{Hmac, KeyInit, Mac};
use mikey::{
    CsbId, IdType, KeyDomainId, MskId,
    ltkm::{self, BUFFER_LEN, KeyData, KeyDataType, KeyValidity, Ltkm},
    psk::PresharedKey,
    verification::Verification,
};
use sha1::{Sha1, block_api::compress};

type HmacSha1 = Hmac<Sha1>;

const MUK: [u8; 32] = [0x2c; 32];
const RAND: [u8; 16] = [0x47; 16];
const CSB_ID: CsbId = CsbId(0x6342_9ca7);
const IDI: &[u8] = b"bmsc.example.com";
const IDR: &[u8] = b"dGVybWluYWwtMDAwMDAwMQ==@bsf.example.com";

/// An LTKM as the daemon sends them: a TGK of 128 bits, valid for an interval.
fn message(counter: u32) -> Ltkm<'static> {
    let kv = KeyValidity::Interval { from: &[0xed, 0xd2, 0x91, 0x80], to: &[0xed, 0xd3, 0xe3, 0x00] };
    Ltkm {
        v: true,
        csb_id: CSB_ID,
        counter,
        rand: &RAND,
        id_type: IdType::NAI,
        idi: IDI,
        idr: IDR,
        key_domain_id: KeyDomainId([0x62, 0xf2, 0x10]),
        msk_id: MskId::new(0x68c9, 1),
        ext_bcast: None,
        srtp: None,
        key: Some(KeyData { key_type: KeyDataType::TGK, key: &[0x11; 16], salt: None, kv }),
    }
}

/// A label of RFC 3830 §4.1.4.
fn label(constant: u32) -> [u8; 25] {
    let mut label = [0xff; 25];
    label[..4].copy_from_slice(&constant.to_be_bytes());
    label[5..9].copy_from_slice(&CSB_ID.0.to_be_bytes());
    label[9..].copy_from_slice(&RAND);
    label
}

fn hmac_of(key: &HmacSha1, parts: &[&[u8]]) -> [u8; 20] {
    let mut mac = key.clone();
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().into()
}

/// One derivation: A_1, then HMAC(A_1 ‖ label).
fn derive(key: &HmacSha1, constant: u32) -> [u8; 20] {
    let label = label(black_box(constant));
    let a = hmac_of(key, &[&label]);
    hmac_of(key, &[&a, &label])
}

/// The cryptography of making one LTKM, over octets that are there already.
fn bare_make(muk: &HmacSha1, octets: &mut [u8], encr_data: usize) -> [u8; 20] {
    let encr_key: [u8; 16] = derive(muk, 0x1505_33e1)[..16].try_into().unwrap();
    let mut iv = [0; 16];
    iv[..14].copy_from_slice(&derive(muk, 0x29b8_8916)[..14]);
    let mut cipher = Ctr32BE::<Aes128Enc>::new(&encr_key.into(), &iv.into());
    cipher.apply_keystream(&mut octets[encr_data..encr_data + 30]);
    let auth_key = HmacSha1::new_from_slice(&derive(muk, 0x2d22_ac75)).unwrap();
    hmac_of(&auth_key, &[&octets[..octets.len() - 20]])
}

/// The cryptography of checking one verification message.
fn bare_check(muk: &HmacSha1, octets: &[u8]) -> [u8; 20] {
    let auth_key = HmacSha1::new_from_slice(&derive(muk, 0x2d22_ac75)).unwrap();
    hmac_of(&auth_key, &[&octets[..octets.len() - 20], IDI, IDR, &octets[12..16]])
}

/// As many compressions and AES blocks as [`bare_make`] has.
fn floor_make(chain: &mut [u32; 5], blocks: &[[u8; 64]], octets: &mut [u8; 30]) {
    for count in [1; 12].into_iter().chain([1, 1]).chain([blocks.len(), 1]) {
        compress(chain, black_box(&blocks[..count]));
    }
    let mut cipher = Ctr32BE::<Aes128Enc>::new(&[1; 16].into(), &[2; 16].into());
    cipher.apply_keystream(black_box(octets));
}

struct Fixture {
    key: PresharedKey,
    bare_key: HmacSha1,
    ltkm: Vec<u8>,
    verification: Vec<u8>,
    blocks: Vec<[u8; 64]>,
}

impl Fixture {
    fn new() -> Self {
        let key = PresharedKey::new(&MUK);
        let mut out = [0; BUFFER_LEN];
        let len = message(7).write(&key, &mut out).unwrap();
        let ltkm = out[..len].to_vec();
        let len = ltkm::open(&key, &ltkm).unwrap().verification(&mut out).unwrap();
        let verification = out[..len].to_vec();
        // SHA-1 adds 9 octets at least.
        let blocks = vec![[7; 64]; (ltkm.len() - 20 + 9).div_ceil(64)];
        Self { key, bare_key: HmacSha1::new_from_slice(&MUK).unwrap(), ltkm, verification, blocks }
    }

    fn make(&self, key: &PresharedKey, out: &mut [u8; BUFFER_LEN]) -> usize {
        message(black_box(7)).write(key, out).unwrap()
    }

    fn check(&self, key: &PresharedKey) {
        let verification = Verification::parse(black_box(&self.verification)).unwrap();
        verification.check(key, CSB_ID, &RAND, IDI).unwrap();
    }
}

fn criterion_benches(criterion: &mut Criterion) {
    let fixture = Fixture::new();
    let mut out = [0; BUFFER_LEN];
    let mut octets = fixture.ltkm.clone();
    let encr_data = octets.len() - 21 - 30;

    let mut group = criterion.benchmark_group("make an LTKM");
    group.bench_function("keys set once", |b| b.iter(|| fixture.make(&fixture.key, &mut out)));
    group.bench_function("keys set once, bare", |b| {
        b.iter(|| bare_make(&fixture.bare_key, &mut octets, encr_data));
    });
    group.bench_function("re-keyed", |b| {
        b.iter(|| fixture.make(&PresharedKey::new(black_box(&MUK)), &mut out));
    });
    group.bench_function("re-keyed, bare", |b| {
        b.iter(|| bare_make(&HmacSha1::new_from_slice(black_box(&MUK)).unwrap(), &mut octets, encr_data));
    });
    let (mut chain, mut data) = ([0; 5], [0; 30]);
    group.bench_function("floor", |b| b.iter(|| floor_make(&mut chain, &fixture.blocks, &mut data)));
    group.finish();

    let mut group = criterion.benchmark_group("check a verification message");
    group.bench_function("keys set once", |b| b.iter(|| fixture.check(&fixture.key)));
    group.bench_function("keys set once, bare", |b| {
        b.iter(|| bare_check(&fixture.bare_key, black_box(&fixture.verification)));
    });
    group.bench_function("re-keyed", |b| b.iter(|| fixture.check(&PresharedKey::new(black_box(&MUK)))));
    group.bench_function("re-keyed, bare", |b| {
        b.iter(|| {
            let key = HmacSha1::new_from_slice(black_box(&MUK)).unwrap();
            bare_check(&key, black_box(&fixture.verification))
        });
    });
    group.finish();

    let mut group = criterion.benchmark_group("terminal");
    group.bench_function("open an LTKM", |b| {
        b.iter(|| ltkm::open(&fixture.key, black_box(&fixture.ltkm)).unwrap());
    });
    let opened = ltkm::open(&fixture.key, &fixture.ltkm).unwrap();
    group.bench_function("answer it", |b| b.iter(|| opened.verification(&mut out).unwrap()));
    group.finish();
}

/// The best time of one call of each, measured in turns: what the machine can do when nothing disturbs it.
fn in_turns(mut left: impl FnMut(), mut right: impl FnMut()) -> (Duration, Duration) {
    const CALLS: u32 = 2_000;
    const TURNS: usize = 400;
    let time = |call: &mut dyn FnMut()| {
        let start = Instant::now();
        (0..CALLS).for_each(|_| call());
        start.elapsed() / CALLS
    };
    let mut best = (Duration::MAX, Duration::MAX);
    for _ in 0..TURNS {
        best.0 = best.0.min(time(&mut left));
        best.1 = best.1.min(time(&mut right));
    }
    best
}

fn report_ratios() {
    let fixture = Fixture::new();
    let mut out = [0; BUFFER_LEN];
    let encr_data = fixture.ltkm.len() - 21 - 30;
    let mut octets = fixture.ltkm.clone();
    let (mut chain, mut data) = ([0; 5], [0; 30]);
    let set_key = || HmacSha1::new_from_slice(black_box(&MUK)).unwrap();
    println!("\n{:44} {:>9} {:>9} {:>6}", "", "this", "beside", "ratio");
    let row = |name: &str, (this, beside): (Duration, Duration)| {
        let ratio = this.as_secs_f64() / beside.as_secs_f64();
        println!("{name:44} {:>6} ns {:>6} ns {ratio:6.2}", this.as_nanos(), beside.as_nanos());
    };
    let times = in_turns(
        || _ = black_box(fixture.make(&fixture.key, &mut out)),
        || _ = black_box(bare_make(&fixture.bare_key, &mut octets, encr_data)),
    );
    row("make an LTKM, keys set once / bare", times);
    let times = in_turns(
        || _ = black_box(fixture.make(&PresharedKey::new(black_box(&MUK)), &mut out)),
        || _ = black_box(bare_make(&set_key(), &mut octets, encr_data)),
    );
    row("make an LTKM, re-keyed / bare", times);
    let times = in_turns(
        || _ = black_box(fixture.make(&fixture.key, &mut out)),
        || floor_make(&mut chain, &fixture.blocks, &mut data),
    );
    row("make an LTKM, keys set once / floor", times);
    let times = in_turns(
        || fixture.check(&fixture.key),
        || _ = black_box(bare_check(&fixture.bare_key, black_box(&fixture.verification))),
    );
    row("check a verification, keys set once / bare", times);
    let times = in_turns(
        || fixture.check(&PresharedKey::new(black_box(&MUK))),
        || _ = black_box(bare_check(&set_key(), black_box(&fixture.verification))),
    );
    row("check a verification, re-keyed / bare", times);
    println!("LTKM {} octets, verification {} octets", fixture.ltkm.len(), fixture.verification.len());
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    criterion_benches(&mut criterion);
    criterion.final_summary();
    // `cargo test --benches` only asks whether it runs.
    if std::env::args().any(|argument| argument == "--bench") {
        report_ratios();
    }
}
