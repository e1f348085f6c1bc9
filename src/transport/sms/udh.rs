//! The user data header of short messages (3GPP TS 23.040 §9.2.3.24): application ports and concatenation, in both
//! directions. An LTKM becomes the user data of one or more short messages.

/// Octets that the user data of one short message holds (TS 23.040 §9.2.3.16).
pub const USER_DATA: usize = 140;

/// Octets of a message that goes in one part, behind a header of 7: the LTKM profile's 133.
pub const ALONE: usize = USER_DATA - 7;

/// Octets of one of several parts, behind a header of 12.
pub const TOGETHER: usize = USER_DATA - 12;

/// The longest message, in octets: 255 parts.
pub const LONGEST: usize = TOGETHER * 255;

/// Application port addressing with 16 bits (TS 23.040 §9.2.3.24.4).
const IEI_PORTS: u8 = 0x05;
/// Concatenated short messages with an 8-bit reference (TS 23.040 §9.2.3.24.1).
const IEI_CONCATENATED: u8 = 0x00;
/// Concatenated short messages with a 16-bit reference (TS 23.040 §9.2.3.24.8).
const IEI_CONCATENATED_16: u8 = 0x08;

/// Which application a message is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ports {
    /// The receiver's port.
    pub destination: u16,
    /// The sender's port.
    pub source: u16,
}

/// Which part of a longer message this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Part {
    /// What all parts of a message have in common.
    pub reference: u16,
    /// How many parts there are, at least 1.
    pub total: u8,
    /// Which one this is, from 1 to [`Self::total`].
    pub number: u8,
}

/// What the header says. Other information elements are skipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct UserDataHeader {
    /// The ports, if it addresses any.
    pub ports: Option<Ports>,
    /// The part, if there are several.
    pub part: Option<Part>,
}

/// Why user data has no readable header: its sender is to blame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UdhError {
    /// The header, or an information element, is longer than what is there.
    #[error("the user data header ends too early")]
    Short,
    /// An information element has another length than its kind.
    #[error("information element {0:#04x} has a wrong length")]
    ElementLength(u8),
}

/// The message is longer than [`LONGEST`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} octets are too long for a short message: {LONGEST} at most")]
pub struct TooLong(pub usize);

impl UserDataHeader {
    /// Puts the header in front of what follows it.
    fn write(&self, out: &mut Vec<u8>) {
        let at = out.len();
        out.push(0);
        if let Some(ports) = self.ports {
            out.extend([IEI_PORTS, 4]);
            out.extend(ports.destination.to_be_bytes());
            out.extend(ports.source.to_be_bytes());
        }
        if let Some(part) = self.part {
            match u8::try_from(part.reference) {
                Ok(reference) => out.extend([IEI_CONCATENATED, 3, reference]),
                Err(_) => {
                    out.extend([IEI_CONCATENATED_16, 4]);
                    out.extend(part.reference.to_be_bytes());
                }
            }
            out.extend([part.total, part.number]);
        }
        out[at] = (out.len() - at - 1) as u8;
    }
}

/// Reads user data that begins with a header (the `UDHI` bit of `esm_class` is set): what it says, and what
/// stands behind it. Of an element that comes twice the last one counts; a part number that cannot be is ignored
/// (TS 23.040 §9.2.3.24, §9.2.3.24.1).
///
/// # Errors
/// A header that is not one.
pub fn parse(user_data: &[u8]) -> Result<(UserDataHeader, &[u8]), UdhError> {
    let (&len, rest) = user_data.split_first().ok_or(UdhError::Short)?;
    let (mut elements, body) = rest.split_at_checked(len.into()).ok_or(UdhError::Short)?;
    let mut header = UserDataHeader::default();
    while let [iei, len, behind @ ..] = elements {
        let (data, behind) = behind.split_at_checked((*len).into()).ok_or(UdhError::Short)?;
        elements = behind;
        match (*iei, data) {
            (IEI_PORTS, &[d1, d0, s1, s0]) => {
                let (destination, source) = (u16::from_be_bytes([d1, d0]), u16::from_be_bytes([s1, s0]));
                header.ports = Some(Ports { destination, source });
            }
            (IEI_CONCATENATED, &[reference, total, number]) => {
                header.part = part(reference.into(), total, number).or(header.part);
            }
            (IEI_CONCATENATED_16, &[r1, r0, total, number]) => {
                header.part = part(u16::from_be_bytes([r1, r0]), total, number).or(header.part);
            }
            (IEI_PORTS | IEI_CONCATENATED | IEI_CONCATENATED_16, _) => {
                return Err(UdhError::ElementLength(*iei));
            }
            _ => {}
        }
    }
    if elements.is_empty() { Ok((header, body)) } else { Err(UdhError::Short) }
}

fn part(reference: u16, total: u8, number: u8) -> Option<Part> {
    (1..=total).contains(&number).then_some(Part { reference, total, number })
}

/// The user data of the short messages that carry a message to a port: one up to [`ALONE`] octets, else several
/// that have the reference in common.
///
/// # Errors
/// More than [`LONGEST`] octets.
pub fn split(message: &[u8], ports: Ports, reference: u8) -> Result<Vec<Vec<u8>>, TooLong> {
    let user_data = |part: Option<Part>, body: &[u8]| {
        let mut out = Vec::with_capacity(USER_DATA);
        UserDataHeader { ports: Some(ports), part }.write(&mut out);
        out.extend_from_slice(body);
        out
    };
    if message.len() <= ALONE {
        return Ok(vec![user_data(None, message)]);
    }
    let total = u8::try_from(message.len().div_ceil(TOGETHER)).map_err(|_| TooLong(message.len()))?;
    let numbered = (1..=total).zip(message.chunks(TOGETHER));
    let reference = reference.into();
    Ok(numbered.map(|(number, body)| user_data(Some(Part { reference, total, number }), body)).collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PORTS: Ports = Ports { destination: 4359, source: 4360 };

    fn octets(len: usize) -> Vec<u8> {
        (0..len).map(|i| (i % 251) as u8).collect()
    }

    #[test]
    fn a_message_of_133_octets_goes_alone_and_one_of_134_in_two_parts() {
        let alone = split(&octets(133), PORTS, 9).unwrap();
        assert_eq!(alone.len(), 1);
        assert_eq!(alone[0].len(), 140);
        assert_eq!(alone[0][..7], [6, 0x05, 4, 0x11, 0x07, 0x11, 0x08]);
        let two = split(&octets(134), PORTS, 9).unwrap();
        assert_eq!(two.iter().map(Vec::len).collect::<Vec<_>>(), [140, 18]);
        assert_eq!(two[0][..12], [11, 0x05, 4, 0x11, 0x07, 0x11, 0x08, 0x00, 3, 9, 2, 1]);
        assert_eq!(two[1][..12], [11, 0x05, 4, 0x11, 0x07, 0x11, 0x08, 0x00, 3, 9, 2, 2]);
    }

    #[test]
    fn what_needs_more_than_255_parts_is_too_long() {
        assert_eq!(split(&octets(LONGEST), PORTS, 0).unwrap().len(), 255);
        assert_eq!(split(&octets(LONGEST + 1), PORTS, 0), Err(TooLong(LONGEST + 1)));
    }

    #[test]
    fn other_elements_are_skipped_and_a_part_that_cannot_be_is_ignored() {
        let (header, body) = parse(&[8, 0x24, 1, 7, 0x00, 3, 5, 2, 3, 1, 2]).unwrap();
        assert_eq!((header, body), (UserDataHeader::default(), &[1, 2][..]));
        let (header, _) = parse(&[6, 0x08, 4, 1, 2, 3, 3]).unwrap();
        assert_eq!(header.part, Some(Part { reference: 0x0102, total: 3, number: 3 }));
    }

    #[test]
    fn headers_that_are_none_are_refused() {
        for short in [&[][..], &[1], &[2, 5], &[1, 5], &[3, 5, 4, 0], &[4, 0x24, 1, 0, 5]] {
            assert_eq!(parse(short), Err(UdhError::Short), "{short:?}");
        }
        assert_eq!(parse(&[4, 5, 2, 0, 0]), Err(UdhError::ElementLength(5)));
        assert_eq!(parse(&[2, 0, 0]), Err(UdhError::ElementLength(0)));
    }

    proptest! {
        #[test]
        fn what_is_split_says_which_part_is_which_and_is_whole_again_when_put_in_order(
            message in proptest::collection::vec(any::<u8>(), 0..2000),
            destination: u16,
            source: u16,
            reference: u8,
        ) {
            let ports = Ports { destination, source };
            let parts = split(&message, ports, reference).unwrap();
            let mut joined = Vec::new();
            for (number, user_data) in (1..).zip(&parts) {
                prop_assert!(user_data.len() <= USER_DATA);
                let (header, body) = parse(user_data).unwrap();
                let total = u8::try_from(parts.len()).unwrap();
                let part = Part { reference: reference.into(), total, number };
                prop_assert_eq!(header.ports, Some(ports));
                prop_assert_eq!(header.part, (total > 1).then_some(part));
                joined.extend_from_slice(body);
            }
            prop_assert_eq!(joined, message);
        }

        #[test]
        fn no_user_data_makes_the_reader_panic(user_data in proptest::collection::vec(any::<u8>(), 0..160)) {
            if let Ok((header, body)) = parse(&user_data) {
                prop_assert!(body.len() < user_data.len());
                prop_assert!(header.part.is_none_or(|p| p.number >= 1 && p.number <= p.total));
            }
        }
    }
}
