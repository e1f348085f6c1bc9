//! MIKEY (RFC 3830) messages, payloads and the pre-shared-key method.

use std::fmt;
use std::str::FromStr;

/// Key Domain ID (RFC 4563 §4, type 0): MCC ‖ MNC in BCD.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyDomainId(pub [u8; 3]);

/// MSK ID (RFC 4563 §4, type 1): Key Group (2 octets) ‖ Key Number (2 octets).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MskId(pub [u8; 4]);

impl MskId {
    /// Joins a group and a number.
    pub fn new(group: u16, number: u16) -> Self {
        let (g, n) = (group.to_be_bytes(), number.to_be_bytes());
        Self([g[0], g[1], n[0], n[1]])
    }
    /// The Key Group part.
    pub fn group(self) -> u16 {
        u16::from_be_bytes([self.0[0], self.0[1]])
    }
    /// The Key Number part.
    pub fn number(self) -> u16 {
        u16::from_be_bytes([self.0[2], self.0[3]])
    }
}

impl fmt::Display for MskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", u32::from_be_bytes(self.0))
    }
}

/// Not the hexadecimal digits of the identifier's length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParseIdError;

impl FromStr for MskId {
    type Err = ParseIdError;
    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        if text.len() != 8 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(ParseIdError);
        }
        u32::from_str_radix(text, 16).map(|n| Self(n.to_be_bytes())).map_err(|_| ParseIdError)
    }
}

/// Crypto Session Bundle ID (RFC 3830 §6.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CsbId(pub u32);
