//! Round trip, truncation at each octet and mutation of each bit, over one list of sample messages.

#![allow(clippy::unwrap_used, reason = "a test says so by failing")]

mod common;

use common::samples::{Protected, Sample, samples};
use mikey::{
    Message, OpenError, VerifyError, ltkm,
    psk::{self, Acceptance, PresharedKey},
    verification::Verification,
};

/// Decodes, and proves of what is decoded that it encodes to the same octets and can be shown.
fn decodes(octets: &[u8]) -> bool {
    let message = match Message::parse(octets) {
        Ok(message) => message,
        Err(error) => {
            assert!(error.at <= octets.len(), "{error} in {} octets", octets.len());
            return false;
        }
    };
    let mut again = vec![0; octets.len()];
    assert_eq!(message.write(&mut again), Ok(octets.len()));
    assert_eq!(again, octets);
    let mut at = 10 + message.header().map_info.len();
    for placed in message.payloads() {
        assert_eq!(placed.at, at, "payloads stand behind each other");
        at += placed.len;
        assert!(!placed.payload.to_string().is_empty());
    }
    assert_eq!(at, octets.len(), "payloads reach to the end");
    assert_eq!(message.to_string().lines().count(), 1 + message.payloads().count());
    assert!(!format!("{message:?}").is_empty());
    true
}

/// Whether the protection of `sample` accepts `octets` in its place.
fn accepts(sample: &Sample, octets: &[u8]) -> bool {
    let acceptance = Acceptance { null_encryption: true, csb_rand: None };
    match &sample.protected {
        Protected::No => false,
        Protected::Psk(key) => {
            let general = psk::open(key, octets, acceptance).is_ok();
            general | ltkm::open(key, octets).is_ok() | ltkm::open_accepting(key, octets, true).is_ok()
        }
        Protected::Verification { key, csb_id, rand, idi } => Verification::parse(octets)
            .is_ok_and(|verification| verification.check(key, *csb_id, rand, idi).is_ok()),
    }
}

#[test]
fn every_sample_decodes_and_encodes_to_the_same_octets() {
    for sample in samples() {
        assert!(decodes(&sample.octets), "{}", sample.name);
    }
}

#[test]
fn every_protected_sample_is_accepted_as_it_is() {
    let samples = samples();
    let mut accepted = 0;
    for sample in &samples {
        if !matches!(sample.protected, Protected::No) {
            assert!(accepts(sample, &sample.octets), "{}", sample.name);
            accepted += 1;
        }
    }
    assert!(accepted > 50, "{accepted}");
}

#[test]
fn no_truncated_sample_is_decoded_or_accepted() {
    for sample in samples() {
        for len in 0..sample.octets.len() {
            let octets = &sample.octets[..len];
            assert!(!decodes(octets) || sample.open_ended, "{} cut to {len} octets", sample.name);
            assert!(!accepts(&sample, octets), "{} cut to {len} octets", sample.name);
        }
    }
}

#[test]
fn no_sample_with_octets_behind_it_is_decoded_or_accepted() {
    for sample in samples() {
        for more in [0, 1, 255] {
            let octets = [&sample.octets[..], &[more]].concat();
            assert!(!decodes(&octets) || sample.open_ended, "{}", sample.name);
            assert!(!accepts(&sample, &octets), "{}", sample.name);
        }
    }
}

#[test]
fn a_changed_bit_anywhere_never_passes_for_the_message_that_was_made() {
    for sample in samples() {
        let mut octets = sample.octets.clone();
        for bit in 0..8 * octets.len() {
            octets[bit / 8] ^= 1 << (bit % 8);
            decodes(&octets);
            assert!(!accepts(&sample, &octets), "{} with bit {bit} changed", sample.name);
            octets[bit / 8] ^= 1 << (bit % 8);
        }
        assert_eq!(octets, sample.octets);
    }
}

#[test]
fn no_sample_is_accepted_under_another_key() {
    for mut sample in samples() {
        if let Protected::Psk(key) | Protected::Verification { key, .. } = &mut sample.protected {
            *key = PresharedKey::new(b"another");
        }
        assert!(!accepts(&sample, &sample.octets), "{}", sample.name);
    }
}

#[test]
fn a_verification_message_answers_one_ltkm_of_one_sender_alone() {
    for sample in samples() {
        let Protected::Verification { key, csb_id, rand, idi } = &sample.protected else { continue };
        let verification = Verification::parse(&sample.octets).unwrap();
        assert_eq!(verification.check(key, *csb_id, rand, idi), Ok(()));
        let other_csb_id = mikey::CsbId(csb_id.0 ^ 1);
        assert_eq!(verification.check(key, other_csb_id, rand, idi), Err(VerifyError::CsbId));
        let mut other_rand = rand.clone();
        other_rand[0] ^= 1;
        assert_eq!(verification.check(key, *csb_id, &other_rand, idi), Err(VerifyError::WrongMac));
        assert_eq!(verification.check(key, *csb_id, rand, b"another"), Err(VerifyError::WrongMac));
        let other_key = PresharedKey::new(b"another");
        assert_eq!(verification.check(&other_key, *csb_id, rand, idi), Err(VerifyError::WrongMac));
        let auth_key = key.auth_key(*csb_id, rand);
        assert_eq!(verification.check_with(&auth_key, idi), Ok(()));
    }
}

#[test]
fn an_ltkm_with_null_encryption_is_opened_only_when_that_is_asked_for() {
    let null = mikey::EncrAlg::NULL;
    let mut found = 0;
    for sample in samples() {
        let Protected::Psk(key) = &sample.protected else { continue };
        if sample.name.contains("LTKM") && sample.name.ends_with("NULL (0)") {
            assert_eq!(ltkm::open(key, &sample.octets).unwrap_err(), OpenError::UnsupportedEncrAlg(null));
            assert_eq!(ltkm::open_accepting(key, &sample.octets, true).unwrap().encr_alg, null);
            found += 1;
        }
    }
    assert_eq!(found, 7);
}
