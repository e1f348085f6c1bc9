//! The verification message, by which a terminal proves that it has opened an LTKM (LTKM profile §6, RFC 3830 §3.1,
//! §5.2, §6.9): HDR(data type 1) · T · IDr · V.

use crate::{
    CsbId,
    error::{DecodeError, DecodeErrorKind, MakeError, VerifyError},
    hmac::MAC_LEN,
    message::{Message, Placed},
    octets::Writer,
    payload::{Header, Id, Payload, Timestamp, Ver},
    psk::{AuthKey, PresharedKey},
    registry::{CsIdMapType, DataType, IdType, MacAlg, PayloadType, PrfFunc, TsType},
};

/// Octets of a verification message beside its IDr: HDR 10, T 6, head of IDr 4, V 22.
pub const BASE_LEN: usize = 42;

/// A received verification message, not yet checked.
///
/// It is looked up by [`idr`](Self::idr) and [`counter`](Self::counter), which say which LTKM it answers, and then
/// [checked](Self::check) against what that LTKM carried. Nothing is allocated.
///
/// ```
/// # use mikey::{IdType, KeyDomainId, MskId, ltkm::{self, Ltkm}};
/// use mikey::{CsbId, VerifyError, psk::PresharedKey, verification::Verification};
///
/// let muk = PresharedKey::new(&[0x2c; 32]);
/// let (csb_id, rand, idi) = (CsbId(7), [0x47; 16], b"bmsc.example.com");
/// # let sent = Ltkm {
/// #     v: true, csb_id, counter: 1, rand: &rand, id_type: IdType::NAI, idi, idr: b"btid@bsf.example.com",
/// #     key_domain_id: KeyDomainId([0; 3]), msk_id: MskId::new(1, 1), ext_bcast: None, srtp: None, key: None,
/// # };
/// # let mut buffer = [0; ltkm::BUFFER_LEN];
/// # let len = sent.write(&muk, &mut buffer)?;
/// // The terminal opens the LTKM that carried these values, and answers:
/// let opened = ltkm::open(&muk, &buffer[..len])?;
/// let mut answer = [0; 256];
/// let len = opened.verification(&mut answer)?;
///
/// // The BSM:
/// let verification = Verification::parse(&answer[..len])?;
/// assert_eq!((verification.idr(), verification.counter()), (&b"btid@bsf.example.com"[..], 1));
/// verification.check(&muk, csb_id, &rand, idi)?;
/// assert_eq!(verification.check(&muk, csb_id, &[0; 16], idi), Err(VerifyError::WrongMac));
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Verification<'a> {
    message: Message<'a>,
    timestamp: Timestamp<'a>,
    counter: u32,
    idr: Id<'a>,
    ver_data: &'a [u8],
}

impl<'a> Verification<'a> {
    /// Reads a verification message, strictly as LTKM profile §6 has it: data type 1, V 0, MIKEY-1, #CS 0, empty
    /// map, and behind the header T (a COUNTER), IDr and V (HMAC-SHA-1-160), nothing else.
    ///
    /// # Errors
    /// A [`DecodeError`] for anything else.
    pub fn parse(octets: &'a [u8]) -> Result<Self, DecodeError> {
        let message = Message::parse(octets)?;
        let header = message.header();
        must_be(header.data_type == DataType::PSK_VERIFICATION, 1, "data type", header.data_type.0, "1")?;
        must_be(!header.v, 3, "V", header.v.into(), "0")?;
        must_be(header.prf_func == PrfFunc::MIKEY_1, 3, "PRF func", header.prf_func.0, "0")?;
        must_be(header.cs_count == 0, 8, "#CS", header.cs_count, "0")?;
        must_be(header.map_type == CsIdMapType::EMPTY, 9, "CS ID map type", header.map_type.0, "1")?;
        let mut payloads = message.payloads();
        let (timestamp, at) = match payloads.next() {
            Some(Placed { payload: Payload::T(timestamp), at, .. }) => (timestamp, at),
            other => return misplaced(other, octets, "T"),
        };
        let idr = match payloads.next() {
            Some(Placed { payload: Payload::Id(idr), .. }) => idr,
            other => return misplaced(other, octets, "IDr"),
        };
        let (ver, ver_at) = match payloads.next() {
            Some(Placed { payload: Payload::V(ver), at, .. }) => (ver, at),
            other => return misplaced(other, octets, "V"),
        };
        if let Some(more) = payloads.next() {
            return misplaced(Some(more), octets, "nothing");
        }
        let ts_type = timestamp.ts_type;
        must_be(ts_type == TsType::COUNTER, at + 1, "TS type", ts_type.0, "2, a COUNTER,")?;
        let counter = timestamp.counter().expect("the value of a COUNTER has 4 octets");
        let is_hmac = ver.auth_alg == MacAlg::HMAC_SHA_1_160;
        must_be(is_hmac, ver_at + 1, "Auth alg", ver.auth_alg.0, "1, HMAC-SHA-1-160,")?;
        Ok(Self { message, timestamp, counter, idr, ver_data: ver.ver_data })
    }

    /// CSB ID, that of the LTKM it answers.
    #[must_use]
    pub const fn csb_id(&self) -> CsbId {
        self.message.header().csb_id
    }

    /// T, that of the LTKM it answers.
    #[must_use]
    pub const fn counter(&self) -> u32 {
        self.counter
    }

    /// IDr: who answers, the B-TID.
    #[must_use]
    pub const fn idr(&self) -> &'a [u8] {
        self.idr.data
    }

    /// ID Type of IDr.
    #[must_use]
    pub const fn id_type(&self) -> IdType {
        self.idr.id_type
    }

    /// The whole message.
    #[must_use]
    pub const fn message(&self) -> &Message<'a> {
        &self.message
    }

    /// Checks that this answers the LTKM that was sent under `key` with this CSB ID, RAND and IDi, and with the T
    /// and IDr that the message itself names. The MAC is compared in constant time.
    ///
    /// # Errors
    /// A [`VerifyError`]: whoever sent it has not opened that LTKM, or not in this state.
    pub fn check(
        &self,
        key: &PresharedKey,
        csb_id: CsbId,
        rand: &[u8],
        idi: &[u8],
    ) -> Result<(), VerifyError> {
        if self.csb_id() != csb_id {
            return Err(VerifyError::CsbId);
        }
        self.check_with(&key.auth_key(csb_id, rand), idi)
    }

    /// [`check`](Self::check) with the authentication key of the LTKM, where the caller has kept it; the CSB ID is
    /// part of that key.
    ///
    /// # Errors
    /// [`VerifyError::WrongMac`].
    pub fn check_with(&self, auth_key: &AuthKey, idi: &[u8]) -> Result<(), VerifyError> {
        let octets = self.message.octets();
        let covered = &octets[..octets.len() - self.ver_data.len()];
        let parts = [covered, idi, self.idr.data, self.timestamp.value];
        if auth_key.is_mac(&parts, self.ver_data) { Ok(()) } else { Err(VerifyError::WrongMac) }
    }
}

fn must_be(
    holds: bool,
    at: usize,
    field: &'static str,
    found: u8,
    wanted: &'static str,
) -> Result<(), DecodeError> {
    if holds {
        return Ok(());
    }
    Err(DecodeError { at, kind: DecodeErrorKind::Unexpected { field, found: found.into(), wanted } })
}

fn misplaced<T>(placed: Option<Placed<'_>>, octets: &[u8], wanted: &'static str) -> Result<T, DecodeError> {
    let at = placed.map_or(octets.len(), |placed| placed.at);
    let found = placed.map_or(PayloadType::LAST, |placed| placed.payload.payload_type());
    Err(DecodeError { at, kind: DecodeErrorKind::Misplaced { found, wanted } })
}

/// Makes a verification message with the authentication key of the message that it answers: the MAC covers the
/// message without its Ver data, IDi, IDr and the timestamp as transported (RFC 3830 §5.2). Returns its length.
/// [`OpenedLtkm::verification`](crate::ltkm::OpenedLtkm::verification) is the short way.
///
/// # Errors
/// A [`MakeError`] when a part does not fit its fields or `out` is too small.
pub fn write(
    auth_key: &AuthKey,
    csb_id: CsbId,
    timestamp: Timestamp<'_>,
    idi: &[u8],
    idr: Id<'_>,
    out: &mut [u8],
) -> Result<usize, MakeError> {
    let mut writer = Writer::new(out);
    Header::new(DataType::PSK_VERIFICATION, csb_id).encode(PayloadType::T, &mut writer)?;
    Payload::T(timestamp).encode(PayloadType::ID, &mut writer)?;
    Payload::Id(idr).encode(PayloadType::V, &mut writer)?;
    let ver = Ver { auth_alg: MacAlg::HMAC_SHA_1_160, ver_data: &[0; MAC_LEN] };
    Payload::V(ver).encode(PayloadType::LAST, &mut writer)?;
    let len = writer.written();
    let (covered, ver_data) = out[..len].split_at_mut(len - MAC_LEN);
    ver_data.copy_from_slice(&auth_key.mac(&[covered, idi, idr.data, timestamp.value]));
    Ok(len)
}
