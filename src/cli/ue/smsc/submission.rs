//! A message as it is submitted, by `submit_sm` or `data_sm` (SMPP 3.4 §4.4.1, §4.7.1).

use rusmpp_core::pdus::owned::{DataSm, SubmitSm};
use rusmpp_core::tlvs::owned::{Tlv, TlvValue};

use super::receipts::{Address, Wanted};
use crate::transport::sms::udh::{self, Part, Ports, UdhError, UserDataHeader};

/// The bit of esm_class that says that a user data header is there (SMPP 3.4 §5.2.12).
const UDHI: u8 = 0b0100_0000;

/// A message or a part of one.
#[derive(Debug)]
pub(super) struct Submission {
    pub(super) from: Address,
    pub(super) to: Address,
    pub(super) wanted: Wanted,
    udhi: bool,
    data_coding: u8,
    user_data: Vec<u8>,
    /// What the optional parameters say in place of a header (SMPP 3.4 §5.3.2).
    optional: UserDataHeader,
}

impl Submission {
    /// The message, its header read. What the header says counts before the optional parameters.
    ///
    /// # Errors
    /// The header is none.
    pub(super) fn opened(&self) -> Result<Opened<'_>, UdhError> {
        let (header, octets) = match self.udhi {
            true => udh::parse(&self.user_data)?,
            false => (UserDataHeader::default(), &self.user_data[..]),
        };
        let part = header.part.or(self.optional.part);
        let ports = header.ports.or(self.optional.ports);
        Ok(Opened { part, ports, data_coding: self.data_coding, octets })
    }
}

/// A submission, its user data header read.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Opened<'a> {
    pub(super) part: Option<Part>,
    pub(super) ports: Option<Ports>,
    pub(super) data_coding: u8,
    pub(super) octets: &'a [u8],
}

/// What optional parameters say of the message itself.
#[derive(Debug, Default)]
struct Optional {
    payload: Option<Vec<u8>>,
    reference: Option<u16>,
    total: Option<u8>,
    number: Option<u8>,
    destination: Option<u16>,
    source: Option<u16>,
}

impl Optional {
    fn read(tlvs: &[Tlv]) -> Self {
        let mut read = Self::default();
        for tlv in tlvs {
            match tlv.value() {
                Some(TlvValue::MessagePayload(payload)) => read.payload = Some(payload.value.to_vec()),
                Some(TlvValue::SarMsgRefNum(reference)) => read.reference = Some(*reference),
                Some(TlvValue::SarTotalSegments(total)) => read.total = Some(*total),
                Some(TlvValue::SarSegmentSeqnum(number)) => read.number = Some(*number),
                Some(TlvValue::DestPort(port)) => read.destination = Some(*port),
                Some(TlvValue::SourcePort(port)) => read.source = Some(*port),
                _ => {}
            }
        }
        read
    }

    fn part(&self) -> Option<Part> {
        Some(Part { reference: self.reference?, total: self.total?, number: self.number? })
    }

    fn ports(&self) -> Option<Ports> {
        Some(Ports { destination: self.destination?, source: self.source.unwrap_or_default() })
    }

    fn header(&self) -> UserDataHeader {
        UserDataHeader { part: self.part(), ports: self.ports() }
    }
}

impl From<SubmitSm> for Submission {
    fn from(submit: SubmitSm) -> Self {
        let optional = Optional::read(submit.tlvs());
        let header = optional.header();
        // A payload supersedes the short message (SMPP 3.4 §5.3.2.32).
        let user_data = optional.payload.unwrap_or_else(|| submit.short_message().to_vec());
        Self {
            wanted: Wanted::of(submit.registered_delivery.into()),
            udhi: u8::from(submit.esm_class) & UDHI != 0,
            data_coding: submit.data_coding.into(),
            from: Address {
                ton: submit.source_addr_ton,
                npi: submit.source_addr_npi,
                digits: submit.source_addr,
            },
            to: Address {
                ton: submit.dest_addr_ton,
                npi: submit.dest_addr_npi,
                digits: submit.destination_addr,
            },
            user_data,
            optional: header,
        }
    }
}

impl From<DataSm> for Submission {
    fn from(data: DataSm) -> Self {
        let optional = Optional::read(data.tlvs());
        Self {
            optional: optional.header(),
            wanted: Wanted::of(data.registered_delivery.into()),
            udhi: u8::from(data.esm_class) & UDHI != 0,
            data_coding: data.data_coding.into(),
            from: Address { ton: data.source_addr_ton, npi: data.source_addr_npi, digits: data.source_addr },
            to: Address { ton: data.dest_addr_ton, npi: data.dest_addr_npi, digits: data.destination_addr },
            user_data: optional.payload.unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::str::FromStr;

    use rusmpp_core::tlvs::owned::MessageSubmissionRequestTlvValue as Value;
    use rusmpp_core::types::owned::{AnyOctetString, COctetString, OctetString};
    use rusmpp_core::values::owned::MessagePayload;
    use rusmpp_core::values::{EsmClass, RegisteredDelivery};

    use super::*;

    const PORTS: Ports = Ports { destination: 4359, source: 7 };

    fn submit(esm_class: u8, user_data: &[u8], tlvs: Vec<Value>) -> Submission {
        let submit = SubmitSm::builder()
            .source_addr(COctetString::from_str("12345").unwrap())
            .destination_addr(COctetString::from_str("4917").unwrap())
            .esm_class(EsmClass::from(esm_class))
            .registered_delivery(RegisteredDelivery::from(1))
            .short_message(OctetString::from_slice(user_data).unwrap())
            .tlvs(tlvs)
            .build();
        submit.into()
    }

    fn payload(octets: &[u8]) -> Value {
        Value::MessagePayload(MessagePayload::new(AnyOctetString::from_slice(octets)))
    }

    #[test]
    fn ports_and_part_come_from_the_header_when_its_bit_is_set() {
        let part = Part { reference: 9, total: 2, number: 1 };
        let user_data = [11, 5, 4, 0x11, 0x07, 0, 7, 0, 3, 9, 2, 1, 0xaa, 0xbb];
        let opened = submit(0x40, &user_data, Vec::new());
        let opened = opened.opened().unwrap();
        assert_eq!((opened.part, opened.ports, opened.octets), (Some(part), Some(PORTS), &[0xaa, 0xbb][..]));
        let plain = submit(0x03, &user_data, Vec::new());
        let plain = plain.opened().unwrap();
        assert_eq!((plain.part, plain.ports, plain.octets), (None, None, &user_data[..]));
        assert!(submit(0x40, &[200, 1], Vec::new()).opened().is_err());
    }

    #[test]
    fn ports_and_part_may_come_as_optional_parameters() {
        let tlvs = vec![
            Value::SarMsgRefNum(900),
            Value::SarTotalSegments(3),
            Value::SarSegmentSeqnum(2),
            Value::DestPort(4359),
            Value::SourcePort(7),
        ];
        let submission = submit(0, &[0xaa], tlvs);
        let opened = submission.opened().unwrap();
        let part = Part { reference: 900, total: 3, number: 2 };
        assert_eq!((opened.part, opened.ports, opened.octets), (Some(part), Some(PORTS), &[0xaa][..]));
    }

    #[test]
    fn a_payload_stands_in_place_of_the_short_message_and_is_all_that_data_sm_has() {
        let submission = submit(0, &[1], vec![payload(&[2; 300])]);
        assert_eq!(submission.opened().unwrap().octets, [2; 300]);
        let data = DataSm::builder()
            .destination_addr(COctetString::from_str("4917").unwrap())
            .esm_class(EsmClass::from(0x40))
            .tlvs(vec![payload(&[6, 5, 4, 0x11, 0x07, 0, 7, 0xcc])])
            .build();
        let submission = Submission::from(data);
        let opened = submission.opened().unwrap();
        assert_eq!((opened.ports, opened.octets), (Some(PORTS), &[0xcc][..]));
        assert_eq!(submission.wanted, Wanted::Never);
    }
}
