//! The identifiers that an LTKM carries, as octet newtypes.

use core::{fmt, str::FromStr};

use crate::hex::Hex;

/// Crypto session bundle ID: 32 bits, unique between an initiator and a responder (RFC 3830 §6.1).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct CsbId(pub u32);

impl fmt::Display for CsbId {
    /// Eight lower-case hex digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

/// MBMS Key Domain ID: 3 octets, MCC ‖ MNC in BCD (RFC 4563 §4 Key ID type 0; TS 33.246).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyDomainId(pub [u8; 3]);

/// MBMS service key (MSK) ID: Key Group part (2 octets) ‖ Key Number part (2 octets) (RFC 4563 §4 Key ID type 1;
/// TS 33.246).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MskId(pub [u8; 4]);

impl MskId {
    /// Key group and key number as one identifier. Key number 0 asks for the group's current key.
    #[must_use]
    pub const fn new(group: u16, number: u16) -> Self {
        let (group, number) = (group.to_be_bytes(), number.to_be_bytes());
        Self([group[0], group[1], number[0], number[1]])
    }

    /// The Key Group part.
    #[must_use]
    pub const fn group(self) -> u16 {
        u16::from_be_bytes([self.0[0], self.0[1]])
    }

    /// The Key Number part.
    #[must_use]
    pub const fn number(self) -> u16 {
        u16::from_be_bytes([self.0[2], self.0[3]])
    }
}

/// A text that is not as many hex digits as the identifier has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{wanted} hex digits are needed")]
pub struct ParseIdError {
    /// How many hex digits the identifier has.
    pub wanted: usize,
}

fn parse_hex<const N: usize>(text: &str) -> Result<[u8; N], ParseIdError> {
    let wanted = ParseIdError { wanted: 2 * N };
    if text.len() != 2 * N || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return Err(wanted);
    }
    let mut octets = [0; N];
    for (octet, place) in octets.iter_mut().zip((0..).step_by(2)) {
        *octet = u8::from_str_radix(&text[place..place + 2], 16).map_err(|_| wanted)?;
    }
    Ok(octets)
}

macro_rules! hex_text {
    ($name:ident) => {
        impl fmt::Display for $name {
            /// Lower-case hex digits.
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                Hex(&self.0).fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({self})", stringify!($name))
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            /// Reads hex digits of either case.
            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                parse_hex(text).map(Self)
            }
        }
    };
}

hex_text!(KeyDomainId);
hex_text!(MskId);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_msk_id_is_group_and_number() {
        let id = MskId::new(0x68c9, 1);
        assert_eq!(id.0, [0x68, 0xc9, 0x00, 0x01]);
        assert_eq!((id.group(), id.number()), (0x68c9, 1));
    }

    #[test]
    fn identifiers_read_back_what_they_print() {
        assert_eq!("68C90001".parse(), Ok(MskId::new(0x68c9, 1)));
        assert_eq!(MskId::new(0x68c9, 1).to_string(), "68c90001");
        assert_eq!("b8709d".parse(), Ok(KeyDomainId([0xb8, 0x70, 0x9d])));
        assert_eq!(CsbId(0x1).to_string(), "00000001");
    }

    #[test]
    fn anything_but_the_right_number_of_hex_digits_is_refused() {
        for text in ["", "68c9000", "68c900011", "68c9000g", "+8c90001", "68c9é01", " 8c90001"] {
            assert_eq!(text.parse::<MskId>(), Err(ParseIdError { wanted: 8 }), "{text}");
        }
    }
}
