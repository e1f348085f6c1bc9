//! The published vectors: MIKEY-1, and LTKMs with their verification messages.

mod common;

use common::{ltkm_cases, prf_cases};
use mikey::{
    ltkm::{self, BUFFER_LEN},
    prf::{PrfKey, PskConstant},
    verification::Verification,
};

#[test]
fn the_prf_gives_every_vector() {
    let cases = prf_cases();
    assert_eq!(cases.len(), 48);
    for case in cases {
        let mut out = vec![0; case.out.len()];
        PrfKey::new(&case.inkey).fill(&case.label, &mut out);
        assert_eq!(out, case.out.0, "{case:?}", case = (case.inkey, case.label));
    }
}

#[test]
fn the_keys_of_every_ltkm_vector_are_derived() {
    for case in ltkm_cases() {
        for (constant, expected) in [
            (PskConstant::ENCRYPTION, &case.encr_key),
            (PskConstant::SALT, &case.salt_key),
            (PskConstant::AUTHENTICATION, &case.auth_key),
        ] {
            let mut out = vec![0; expected.len()];
            case.key().derive(constant, case.csb_id(), &case.rand, &mut out);
            assert_eq!(out, expected.0, "{constant:?} of {}", case.kind);
        }
    }
}

#[test]
fn every_ltkm_vector_is_made_octet_for_octet() {
    let cases = ltkm_cases();
    assert_eq!(cases.len(), 14);
    for case in cases {
        let (message, options) = case.ltkm();
        let mut out = [0xee; BUFFER_LEN];
        let len = message.write_with(&case.key(), options, &mut out).unwrap();
        assert_eq!(out[..len], case.message[..], "{}", case.kind);
        assert_eq!(len, message.encoded_len(), "{}", case.kind);
        assert!(out[len..].iter().all(|octet| *octet == 0xee), "nothing is written behind the message");
    }
}

#[test]
fn every_ltkm_vector_is_opened_to_what_it_was_made_of() {
    for case in ltkm_cases() {
        let opened = ltkm::open(&case.key(), &case.message).unwrap();
        let (message, options) = case.ltkm();
        assert_eq!((opened.v, opened.csb_id, opened.counter), (case.v, case.csb_id(), case.counter));
        assert_eq!(opened.rand, message.rand);
        assert_eq!((opened.id_type, &opened.idr[..]), (message.id_type, message.idr));
        assert_eq!((opened.idi_type, &opened.idi[..]), (message.id_type, message.idi));
        assert_eq!((opened.key_domain_id, opened.msk_id), (message.key_domain_id, message.msk_id));
        assert_eq!(opened.ext_bcast.as_deref(), message.ext_bcast);
        assert_eq!(opened.bcast_subtype, message.ext_bcast.map(|_| options.bcast_subtype));
        assert_eq!(opened.key.as_ref().map(|key| key.as_key_data()), message.key);
        assert_eq!(opened.srtp, None);
    }
}

#[test]
fn every_verification_vector_is_made_by_the_terminal_and_accepted_by_the_bsm() {
    for case in ltkm_cases() {
        let Some(expected) = &case.verification else { continue };
        let opened = ltkm::open(&case.key(), &case.message).unwrap();
        let mut out = [0; BUFFER_LEN];
        let len = opened.verification(&mut out).unwrap();
        assert_eq!(out[..len], expected[..], "{}", case.kind);

        let verification = Verification::parse(expected).unwrap();
        assert_eq!(verification.csb_id(), case.csb_id());
        assert_eq!(verification.counter(), case.counter);
        assert_eq!(verification.idr(), case.idr.as_bytes());
        assert_eq!(verification.id_type(), mikey::IdType::NAI);
        assert_eq!(verification.check(&case.key(), case.csb_id(), &case.rand, case.idi.as_bytes()), Ok(()));
    }
}
