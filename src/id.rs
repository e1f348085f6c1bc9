//! Identifiers, each checked once at the edge and never again.

mod logged;

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub use logged::{BTidForm, LoggedBTid, log_btids};
pub use mikey::{CsbId, KeyDomainId, MskId};

/// Why a string cannot be the identifier it was given for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Nothing is left after trimming white space.
    #[error("is empty")]
    Empty,
    /// Longer than the identifier's bound, in octets.
    #[error("is longer than {0} octets")]
    TooLong(usize),
    /// A character that this identifier cannot hold.
    #[error("has a character that is not allowed: U+{0:04X}")]
    Character(u32),
}

fn checked(text: &str, max: usize, allowed: impl Fn(char) -> bool) -> Result<Arc<str>, IdError> {
    if text.is_empty() {
        return Err(IdError::Empty);
    }
    if text.len() > max {
        return Err(IdError::TooLong(max));
    }
    match text.chars().find(|&c| !allowed(c)) {
        Some(c) => Err(IdError::Character(u32::from(c))),
        None => Ok(Arc::from(text)),
    }
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $max:literal, $trim:expr, $allowed:expr, $shown:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The longest value, in octets.
            pub const MAX_LEN: usize = $max;

            /// Checks a value.
            ///
            /// # Errors
            /// Empty, longer than [`Self::MAX_LEN`] octets, or a character that is not allowed.
            pub fn new(text: &str) -> Result<Self, IdError> {
                let trim: fn(&str) -> &str = $trim;
                checked(trim(text), $max, $allowed).map(Self)
            }

            /// The value as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let shown: fn(&str) -> Cow<'_, str> = $shown;
                write!(f, "{}({:?})", stringify!($name), shown(&self.0))
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                Self::new(text)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                Self::new(&text).map_err(|e| serde::de::Error::custom(format_args!("the id {e}")))
            }
        }
    };
}

text_id! {
    /// Bootstrapping transaction id: digest user name and MIKEY IDr of one terminal (TS 33.220 §4.3.2).
    /// Visible ASCII, at most 255 octets. Debug shows it in the form that logs have ([`log_btids`]).
    BTid, 255, |t| t, |c| c.is_ascii_graphic(), logged::shown
}

text_id! {
    /// MBMS User Service ID, an anyURI; in BCAST GlobalPurchaseItemID ‖ PurchaseDataReference.
    /// White space around it is not part of it; at most 1024 octets, no control characters.
    ServiceId, 1024, str::trim, |c| !c.is_control(), |t| t.into()
}

text_id! {
    /// A subscriber's IMPI (private identity, TS 23.003 §13.3). At most 255 octets, no control characters.
    SubscriberId, 255, |t| t, |c| !c.is_control(), |t| t.into()
}

text_id! {
    /// An MSISDN in international form, a leading `+` dropped: 1 to 15 digits (E.164).
    Msisdn, 15, |t| t.strip_prefix('+').unwrap_or(t), |c| c.is_ascii_digit(), |t| t.into()
}

/// The number of shards that terminals are spread over. Ranges of them are what jobs and leases speak of.
pub const SHARDS: u16 = 4096;

/// A terminal's place in the store: a keyed 128-bit hash of its B-TID. The first 12 bits are its shard.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TerminalKey(pub [u8; 16]);

impl TerminalKey {
    /// The lowest key, where a walk over all terminals begins.
    pub const MIN: Self = Self([0; 16]);

    /// The highest key, where a walk back begins.
    pub const MAX: Self = Self([0xFF; 16]);

    /// The shard, below [`SHARDS`].
    pub fn shard(self) -> u16 {
        u16::from_be_bytes([self.0[0], self.0[1]]) >> 4
    }

    /// The key after this one, none behind the last.
    pub fn next(self) -> Option<Self> {
        u128::from_be_bytes(self.0).checked_add(1).map(|n| Self(n.to_be_bytes()))
    }

    /// The key before this one, none before the first.
    pub fn prev(self) -> Option<Self> {
        u128::from_be_bytes(self.0).checked_sub(1).map(|n| Self(n.to_be_bytes()))
    }
}

impl fmt::Debug for TerminalKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TerminalKey({:032x})", u128::from_be_bytes(self.0))
    }
}

/// A service's short number inside the store; never given out twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceNo(pub u32);

/// A fan-out job's number, from 1 up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct JobId(pub u64);

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How an LTKM reaches a terminal. The discriminant is the `Type` of OMA BCAST `LTKMDelivery`
/// (LTKM profile §4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum Method {
    /// A datagram to the terminal's LTKM port.
    Udp = 0,
    /// A trigger by SMS that makes the terminal pull over HTTP.
    Sms = 1,
    /// Inside an HTTP answer's extension container.
    Http = 2,
}

impl Method {
    /// All methods, by their `Type`.
    pub const ALL: [Self; 3] = [Self::Udp, Self::Sms, Self::Http];

    /// The method of an `LTKMDelivery` `Type`; reserved and proprietary types have none.
    pub fn from_type(value: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|m| *m as u8 == value)
    }

    /// The name that configuration, API and metrics use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Sms => "sms",
            Self::Http => "http",
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A set of methods, as negotiated or as enabled.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct MethodSet(u8);

impl MethodSet {
    /// No method.
    pub const EMPTY: Self = Self(0);
    /// UDP alone: what a terminal that declares nothing has.
    pub const UDP: Self = Self(1 << Method::Udp as u8);

    /// The set with one method more.
    #[must_use]
    pub fn with(self, method: Method) -> Self {
        Self(self.0 | 1 << method as u8)
    }

    /// Whether the method is in the set.
    pub fn contains(self, method: Method) -> bool {
        self.0 & 1 << method as u8 != 0
    }

    /// The methods in both sets.
    #[must_use]
    pub fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Whether there is none.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The methods by ascending `Type`.
    pub fn iter(self) -> impl Iterator<Item = Method> {
        Method::ALL.into_iter().filter(move |m| self.contains(*m))
    }

    /// One bit per method, for records.
    pub fn bits(self) -> u8 {
        self.0
    }

    /// The set of a record's bits; unknown bits are dropped.
    pub fn from_bits(bits: u8) -> Self {
        Self(bits & 0b111)
    }
}

impl FromIterator<Method> for MethodSet {
    fn from_iter<I: IntoIterator<Item = Method>>(methods: I) -> Self {
        methods.into_iter().fold(Self::EMPTY, Self::with)
    }
}

impl fmt::Debug for MethodSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter().map(Method::as_str)).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_refuse_what_they_cannot_hold_and_say_why() {
        assert_eq!(BTid::new(""), Err(IdError::Empty));
        assert_eq!(BTid::new("a b@x"), Err(IdError::Character(0x20)));
        assert_eq!(BTid::new(&"a".repeat(256)), Err(IdError::TooLong(255)));
        assert_eq!(ServiceId::new(" \n\t"), Err(IdError::Empty));
        assert_eq!(ServiceId::new("\n urn:a \n").map(|s| s.to_string()), Ok("urn:a".to_owned()));
        assert_eq!(Msisdn::new("+4917012345678").map(|m| m.to_string()), Ok("4917012345678".to_owned()));
        assert_eq!(Msisdn::new("49x"), Err(IdError::Character(0x78)));
    }

    #[test]
    fn a_method_set_holds_exactly_what_was_put_in() {
        let set: MethodSet = [Method::Http, Method::Udp].into_iter().collect();
        assert!(set.contains(Method::Udp) && set.contains(Method::Http) && !set.contains(Method::Sms));
        assert_eq!(set.iter().collect::<Vec<_>>(), [Method::Udp, Method::Http]);
        assert_eq!(MethodSet::from_bits(set.bits()), set);
        assert_eq!(set.intersection(MethodSet::UDP), MethodSet::UDP);
    }

    #[test]
    fn the_first_twelve_bits_of_a_terminal_key_are_its_shard() {
        let mut key = [0xFF; 16];
        assert_eq!(TerminalKey(key).shard(), SHARDS - 1);
        key[0] = 0;
        key[1] = 0x1F;
        assert_eq!(TerminalKey(key).shard(), 1);
        assert_eq!(TerminalKey([0xFF; 16]).next(), None);
    }
}
