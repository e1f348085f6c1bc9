//! MIKEY, Multimedia Internet KEYing (RFC 3830), with the Key ID extension of MBMS (RFC 4563) and that of OMA BCAST
//! (RFC 5410): messages, payloads, and the pre-shared-key method in both directions.
//!
//! It does no I/O, reads no clock and makes no randomness: those come in as values. It is written in safe Rust,
//! decodes without allocation, and makes a long-term key message without allocation into a buffer of the caller.
//!
//! | to | use |
//! | --- | --- |
//! | make a long-term key message (BSM, BM-SC) | [`ltkm::Ltkm`] |
//! | open one and answer it (terminal) | [`ltkm::open`], [`ltkm::OpenedLtkm::verification`] |
//! | check the answer | [`verification::Verification`] |
//! | make and open any other pre-shared key message | [`psk::write`], [`psk::open`] |
//! | read any message, show it, encode it again | [`message::Message`], [`message::write`] |
//! | report an error | [`error_message`] |
//! | derive keys | [`prf::PrfKey`] |
//!
//! # From a BSM to a terminal and back
//!
//! ```
//! use mikey::{
//!     CsbId, IdType, KeyDomainId, MskId,
//!     ltkm::{self, KeyData, KeyDataType, KeyValidity, Ltkm},
//!     psk::PresharedKey,
//!     verification::Verification,
//! };
//!
//! // The MUK, which the BSM and the terminal share. It is prepared once and used for many messages.
//! let muk = PresharedKey::new(&[0x2c; 32]);
//!
//! // The BSM makes an LTKM. CSB ID and RAND come from a random number generator, T rises with each message.
//! let (csb_id, rand) = (CsbId(0x6342_9ca7), [0x47; 16]);
//! let sent = Ltkm {
//!     v: true,
//!     csb_id,
//!     counter: 1,
//!     rand: &rand,
//!     id_type: IdType::NAI,
//!     idi: b"bmsc.example.com",
//!     idr: b"dGVybWluYWw=@bsf.example.com",
//!     key_domain_id: "62f210".parse()?,
//!     msk_id: MskId::new(0x68c9, 1),
//!     ext_bcast: None,
//!     srtp: None,
//!     key: Some(KeyData {
//!         key_type: KeyDataType::TGK,
//!         key: &[0x11; 16],
//!         salt: None,
//!         kv: KeyValidity::Interval { from: &[0xed, 0xd2, 0x91, 0x80], to: &[0xed, 0xd3, 0xe3, 0x00] },
//!     }),
//! };
//! let mut buffer = [0; ltkm::BUFFER_LEN];
//! let len = sent.write(&muk, &mut buffer)?;
//!
//! // The terminal opens it and answers.
//! let opened = ltkm::open(&muk, &buffer[..len])?;
//! assert_eq!(opened.msk_id.to_string(), "68c90001");
//! assert_eq!(opened.key.as_ref().map(|key| key.key.expose()), Some(&[0x11; 16][..]));
//! let len = opened.verification(&mut buffer)?;
//!
//! // The BSM checks the answer.
//! let answer = Verification::parse(&buffer[..len])?;
//! assert_eq!((answer.idr(), answer.counter()), (sent.idr, 1));
//! answer.check(&muk, csb_id, &rand, sent.idi)?;
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! ```
//!
//! # What is refused
//!
//! Decoding is strict and says what is wrong at which octet ([`DecodeError`]). Registry numbers are newtypes with
//! named constants ([`registry`]): unknown ones survive a round trip, and a decoded message encodes to the same
//! octets. A field whose length follows from an unknown number is accepted where it ends the message and refused
//! elsewhere, since nobody could tell where it ends. The NULL MAC is never accepted where a MAC is needed, and
//! MACs are compared in constant time.
//!
//! # Secrets
//!
//! Keys are zeroized when dropped and not shown by Debug or Display of any type here.

mod error;
pub mod error_message;
mod hex;
mod hmac;
mod id;
pub mod ltkm;
pub mod message;
mod octets;
pub mod payload;
pub mod prf;
pub mod psk;
pub mod registry;
mod secret;
mod transform;
pub mod verification;

pub use error::{DecodeError, DecodeErrorKind, MakeError, OpenError, VerifyError};
pub use id::{CsbId, KeyDomainId, MskId, ParseIdError};
pub use message::Message;
pub use registry::{
    BcastSubtype, CacheType, CertType, CsIdMapType, DataType, DhGroup, EncrAlg, ErrorNo, ExtType, HashFunc,
    IdType, KeyDataType, KeyIdType, KvType, MacAlg, PayloadType, PrfFunc, ProtType, SignatureType, SrtpParam,
    TsType,
};
pub use secret::Secret;
