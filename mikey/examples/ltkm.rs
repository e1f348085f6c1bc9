//! One long-term key on its way: the BSM makes an LTKM, the terminal opens it and answers, the BSM checks the
//! answer. Run it with `cargo run -p mikey --example ltkm`.

use std::error::Error;

use mikey::{
    CsbId, IdType, KeyDomainId, Message, MskId, SrtpParam,
    ltkm::{self, KeyData, KeyDataType, KeyValidity, Ltkm, Policy, Srtp},
    payload::SrtpId,
    psk::PresharedKey,
    verification::Verification,
};

fn main() -> Result<(), Box<dyn Error>> {
    // What both sides know: the MUK. In a real system it comes out of GBA, and the random values below out of a
    // random number generator.
    let muk = PresharedKey::new(&[0x2c; 32]);
    let (csb_id, rand) = (CsbId(0x6342_9ca7), [0x47; 16]);

    // The service streams by SRTP; its policy is made once.
    let policy = Policy::new(0).with(SrtpParam::ENCR_ALG, &[1])?.with(SrtpParam::AUTH_TAG_LEN, &[10])?;
    let srtp = Srtp::new(&[SrtpId { policy_no: 0, ssrc: 0x1234_5678, roc: 0 }], vec![policy])?;

    let sent = Ltkm {
        v: true,
        csb_id,
        counter: 1,
        rand: &rand,
        id_type: IdType::NAI,
        idi: b"bmsc.example.com",
        idr: b"dGVybWluYWw=@bsf.example.com",
        key_domain_id: KeyDomainId([0x62, 0xf2, 0x10]),
        msk_id: MskId::new(0x68c9, 1),
        ext_bcast: Some(b"management data"),
        srtp: Some(&srtp),
        key: Some(KeyData {
            key_type: KeyDataType::TGK,
            key: &[0x11; 16],
            salt: None,
            kv: KeyValidity::Interval { from: &[0xed, 0xd2, 0x91, 0x80], to: &[0xed, 0xd3, 0xe3, 0x00] },
        }),
    };
    let mut buffer = [0; ltkm::BUFFER_LEN];
    let len = sent.write(&muk, &mut buffer)?;
    println!("The BSM sends {len} octets:\n{}\n", Message::parse(&buffer[..len])?);

    let opened = ltkm::open(&muk, &buffer[..len])?;
    println!("The terminal has opened it: {opened:?}\n");

    let mut answer = [0; 256];
    let len = opened.verification(&mut answer)?;
    println!("The terminal answers {len} octets:\n{}\n", Message::parse(&answer[..len])?);

    let verification = Verification::parse(&answer[..len])?;
    verification.check(&muk, csb_id, &rand, sent.idi)?;
    println!("The BSM knows that {} holds key {}.", verification.idr().escape_ascii(), sent.msk_id);

    answer[len - 1] ^= 1;
    let error = match Verification::parse(&answer[..len])?.check(&muk, csb_id, &rand, sent.idi) {
        Err(error) => error,
        Ok(()) => return Err("a changed answer was accepted".into()),
    };
    println!("With one bit changed: {error}.");
    Ok(())
}
