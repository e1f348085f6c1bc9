//! PDUs of SMPP 3.4 as the daemon uses them. The codec is `rusmpp-core`; the frames and the bind are read and
//! written here: the codec trusts a length to be the PDU's, and its strings show a password and leave it in memory.

use bytes::{Buf, BufMut, BytesMut};
use rusmpp_core::command::owned::Command;
use rusmpp_core::decode::owned::DecodeWithLength;
use rusmpp_core::encode::Length;
use rusmpp_core::encode::owned::Encode;
pub(super) use rusmpp_core::pdus::owned::Pdu;
use rusmpp_core::pdus::owned::{DataSmResp, DeliverSmResp, SubmitSm};
use rusmpp_core::tlvs::owned::{Tlv, TlvValue};
use rusmpp_core::types::owned::{COctetString, EmptyOrFullCOctetString, OctetString};
use rusmpp_core::values::{DataCoding, EsmClass, Npi, RegisteredDelivery, Ton};
pub(super) use rusmpp_core::{CommandId, CommandStatus};
use zeroize::Zeroizing;

use super::receipt::Carried;
use crate::config::{SmsSource, SystemId};
use crate::delivery::MessageId;
use crate::id::Msisdn;
use crate::secret::Secret;

/// The longest PDU that is read, in octets.
pub(crate) const MAX_PDU: usize = 64 << 10;

/// Octets of a header: length, id, status, sequence number (SMPP 3.4 §3.2).
const HEADER: usize = 16;

/// `interface_version` of a bind: SMPP 3.4 (§5.2.4).
const VERSION: u8 = 0x34;

/// One day, relative (SMPP 3.4 §7.1.1.2).
const ONE_DAY: &[u8; 17] = b"000001000000000R\0";

/// A PDU that was received.
#[derive(Debug)]
pub(crate) struct Received {
    /// `command_id`.
    pub(crate) id: CommandId,
    /// `command_status`.
    pub(crate) status: u32,
    /// `sequence_number`.
    pub(crate) sequence: u32,
    /// The body; none when it is empty or cannot be read.
    pub(crate) body: Option<Pdu>,
}

/// A `command_length` that cannot be: below 16 octets or above [`MAX_PDU`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BadLength(pub(crate) u32);

/// Takes the next PDU out of what was received; `None` when it is not there yet.
pub(crate) fn take(buffer: &mut BytesMut) -> Result<Option<Received>, BadLength> {
    let Some((length, _)) = buffer.split_first_chunk::<4>() else { return Ok(None) };
    let length = u32::from_be_bytes(*length);
    let len = usize::try_from(length).unwrap_or(usize::MAX);
    if !(HEADER..=MAX_PDU).contains(&len) {
        return Err(BadLength(length));
    }
    if buffer.len() < len {
        return Ok(None);
    }
    // The codec sees this PDU alone, so that a wrong length inside cannot reach into the next one.
    let mut frame = buffer.split_to(len);
    let mut head = &frame[4..HEADER];
    let (id, status, sequence) = (CommandId::from(head.get_u32()), head.get_u32(), head.get_u32());
    frame.advance(4);
    let body = match <Command as DecodeWithLength>::decode(&mut frame, len - 4) {
        Ok((command, _)) if frame.is_empty() => command.into_parts().pdu,
        _ => None,
    };
    Ok(Some(Received { id, status, sequence, body }))
}

/// Appends a PDU.
pub(crate) fn put(out: &mut BytesMut, status: u32, sequence: u32, pdu: Pdu) {
    let command = Command::new(CommandStatus::from(status), sequence, pdu);
    let length = 4 + command.length();
    out.reserve(length);
    out.put_u32(u32::try_from(length).expect("no PDU of the daemon is that long"));
    command.encode(out);
}

/// The answer to deliver_sm.
pub(super) fn deliver_resp() -> Pdu {
    DeliverSmResp::default().into()
}

/// The answer to data_sm.
pub(super) fn data_resp() -> Pdu {
    DataSmResp::default().into()
}

/// A bind of that kind (SMPP 3.4 §4.1): for the default system type and address range.
pub(super) fn bind(
    kind: CommandId,
    sequence: u32,
    system_id: &SystemId,
    password: Option<&Secret>,
) -> Zeroizing<Vec<u8>> {
    // One allocation that holds everything: growing would leave copies behind that nobody zeroes.
    let mut out = Zeroizing::new(Vec::with_capacity(128));
    out.put_u32(0);
    out.put_u32(kind.into());
    out.put_u32(0);
    out.put_u32(sequence);
    out.put_slice(system_id.as_str().as_bytes());
    out.put_u8(0);
    out.put_slice(password.map_or(&[], Secret::expose));
    out.put_u8(0);
    // system_type "", interface_version, addr_ton and addr_npi unknown, address_range "".
    out.put_slice(&[0, VERSION, 0, 0, 0]);
    let length = u32::try_from(out.len()).expect("a bind is short");
    out[..4].copy_from_slice(&length.to_be_bytes());
    out
}

/// The sender's address, its kind (TON) and numbering plan (NPI).
#[derive(Debug, Clone)]
pub(super) struct Source {
    ton: Ton,
    npi: Npi,
    address: COctetString<1, 21>,
}

/// The most digits of a short code; international numbers are longer.
const SHORT_CODE: usize = 6;

impl Source {
    /// Digits are an international number or, up to six, a short code of the network; anything else is a name.
    /// Without a source the centre puts in its own.
    pub(super) fn new(source: Option<&SmsSource>) -> Self {
        let Some(source) = source else {
            return Self { ton: Ton::Unknown, npi: Npi::Unknown, address: COctetString::empty() };
        };
        let (ton, npi) = match source.is_number() {
            true if source.as_str().len() > SHORT_CODE => (Ton::International, Npi::Isdn),
            true => (Ton::NetworkSpecific, Npi::Unknown),
            false => (Ton::Alphanumeric, Npi::Unknown),
        };
        Self { ton, npi, address: ascii(source.as_str()) }
    }
}

fn ascii<const MAX: usize>(text: &str) -> COctetString<1, MAX> {
    text.parse().expect("addresses are at most 20 visible ASCII characters")
}

/// Appends submit_sm with user data that begins with a header (LTKM profile §4): 8-bit data, a receipt asked for,
/// valid for a day.
pub(super) fn submit(out: &mut BytesMut, sequence: u32, source: &Source, to: &Msisdn, user_data: &[u8]) {
    let pdu = SubmitSm::builder()
        .source_addr_ton(source.ton)
        .source_addr_npi(source.npi)
        .source_addr(source.address.clone())
        .dest_addr_ton(Ton::International)
        .dest_addr_npi(Npi::Isdn)
        .destination_addr(ascii(to.as_str()))
        .esm_class(EsmClass::from(0x40))
        .validity_period(
            EmptyOrFullCOctetString::from_static_slice(ONE_DAY).expect("16 characters and a NUL"),
        )
        .registered_delivery(RegisteredDelivery::from(1))
        .data_coding(DataCoding::from(4))
        .short_message(OctetString::from_slice(user_data).expect("user data has at most 140 octets"))
        .build();
    put(out, super::status::ROK, sequence, pdu.into());
}

impl Received {
    /// The centre's name of the message that it accepted.
    pub(super) fn message_id(&self) -> Option<MessageId> {
        match &self.body {
            Some(Pdu::SubmitSmResp(resp)) => MessageId::new(resp.message_id().as_str()),
            _ => None,
        }
    }

    /// Whom a bind was answered by (`system_id`).
    pub(super) fn system_id(&self) -> &str {
        match &self.body {
            Some(Pdu::BindTransceiverResp(resp)) => resp.system_id.as_str(),
            Some(Pdu::BindTransmitterResp(resp)) => resp.system_id.as_str(),
            Some(Pdu::BindReceiverResp(resp)) => resp.system_id.as_str(),
            _ => "",
        }
    }

    /// What deliver_sm or data_sm carries; none when its body cannot be read.
    pub(super) fn carried(&self) -> Option<Carried<'_>> {
        let (esm_class, text, tlvs): (_, &[u8], _) = match &self.body {
            Some(Pdu::DeliverSm(pdu)) => (pdu.esm_class, pdu.short_message().as_ref(), pdu.tlvs()),
            Some(Pdu::DataSm(pdu)) => (pdu.esm_class, &[], pdu.tlvs()),
            _ => return None,
        };
        let mut carried = Carried { esm_class: esm_class.into(), text, ..Carried::default() };
        for value in tlvs.iter().filter_map(Tlv::value) {
            match value {
                TlvValue::ReceiptedMessageId(id) => carried.receipted_message_id = Some(id.as_str()),
                TlvValue::MessageState(state) => carried.message_state = Some((*state).into()),
                TlvValue::MessagePayload(payload) if carried.text.is_empty() => {
                    carried.text = payload.value.as_ref();
                }
                _ => {}
            }
        }
        Some(carried)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_bind_is_written_as_the_standard_has_it() {
        let password = Secret::from(&b"secret08"[..]);
        let out = bind(CommandId::BindTransceiver, 1, &"SMPP3TEST".parse().unwrap(), Some(&password));
        let wanted = b"\0\0\0\x28\0\0\0\x09\0\0\0\0\0\0\0\x01SMPP3TEST\0secret08\0\0\x34\0\0\0";
        assert_eq!(out.as_slice(), wanted);
        let received = take(&mut BytesMut::from(&wanted[..])).unwrap().unwrap();
        let Some(Pdu::BindTransceiver(read)) = received.body else { panic!("{received:?}") };
        assert_eq!((read.system_id.as_str(), read.password.as_str()), ("SMPP3TEST", "secret08"));
    }

    #[test]
    fn a_submission_is_written_as_the_profile_has_it() {
        let mut out = BytesMut::new();
        let source = Source::new(Some(&"12345".parse().unwrap()));
        submit(&mut out, 7, &source, &Msisdn::new("4917012345678").unwrap(), &[6, 5, 4, 0x11, 7, 0x11, 7, 9]);
        let body = b"\0\x03\x0012345\0\x01\x014917012345678\0\x40\0\0\x00000001000000000R\0\x01\0\x04\0\x08\x06\x05\x04\x11\x07\x11\x07\x09";
        assert_eq!(out[..HEADER], [0, 0, 0, (HEADER + body.len()) as u8, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 7]);
        assert_eq!(&out[HEADER..], body);
    }

    #[test]
    fn a_source_is_a_number_a_short_code_a_name_or_the_centres_own() {
        let kind = |text: &str| {
            let source = Source::new(Some(&text.parse().unwrap()));
            (u8::from(source.ton), u8::from(source.npi))
        };
        assert_eq!(kind("491701234567"), (1, 1));
        assert_eq!(kind("12345"), (3, 0));
        assert_eq!(kind("My Network"), (5, 0));
        let none = Source::new(None);
        assert_eq!((u8::from(none.ton), u8::from(none.npi), none.address.as_str()), (0, 0, ""));
    }

    #[test]
    fn lengths_that_cannot_be_are_refused_before_anything_is_waited_for() {
        for length in [0, 15, MAX_PDU as u32 + 1, u32::MAX] {
            let mut buffer = BytesMut::from(&length.to_be_bytes()[..]);
            assert_eq!(take(&mut buffer).unwrap_err(), BadLength(length));
        }
        assert!(take(&mut BytesMut::from(&[0, 0, 0, 16, 0][..])).unwrap().is_none());
    }

    #[test]
    fn a_wrong_length_inside_a_pdu_does_not_reach_into_the_next() {
        let mut buffer = BytesMut::new();
        put(&mut buffer, 0, 1, deliver_resp());
        // A submit_sm_resp whose message_id has no end inside its PDU.
        let first = [&[0u8, 0, 0, 18, 0x80, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 9][..], b"ab"].concat();
        let mut both = BytesMut::from(&first[..]);
        both.extend_from_slice(&buffer);
        let broken = take(&mut both).unwrap().unwrap();
        assert_eq!((broken.id, broken.sequence), (CommandId::SubmitSmResp, 9));
        assert!(broken.body.is_none());
        let next = take(&mut both).unwrap().unwrap();
        assert_eq!((next.id, next.sequence, next.body.is_some()), (CommandId::DeliverSmResp, 1, true));
        assert!(both.is_empty());
    }

    proptest! {
        #[test]
        fn no_octets_make_the_reader_panic(
            id in prop_oneof![0u32..0x16, 0x8000_0000u32..0x8000_0016, Just(0x103), Just(0x8000_0103), any::<u32>()],
            body in proptest::collection::vec(prop_oneof![Just(0u8), any::<u8>()], 0..120),
        ) {
            let mut buffer = BytesMut::new();
            buffer.put_u32((HEADER + body.len()) as u32);
            buffer.put_u32(id);
            buffer.put_u64(5);
            buffer.put_slice(&body);
            let received = take(&mut buffer).unwrap().unwrap();
            prop_assert!(buffer.is_empty());
            prop_assert_eq!((u32::from(received.id), received.sequence), (id, 5));
            let _ = (received.message_id(), received.carried().map(|c| c.read()));
        }

        #[test]
        fn octets_that_are_no_pdus_come_to_an_end(octets in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut buffer = BytesMut::from(&octets[..]);
            let mut left = buffer.len();
            while let Ok(Some(_)) = take(&mut buffer) {
                prop_assert!(buffer.len() < left);
                left = buffer.len();
            }
        }
    }
}
