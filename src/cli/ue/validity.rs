//! When a received key may be used (RFC 3830 §6.14, LTKM profile §5).

use std::fmt;

use mikey::ltkm::OpenedValidity;

use crate::time::Timestamp;

/// Seconds of one NTP era.
const ERA: i64 = 1 << 32;

/// The validity of a key, in the words of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Validity {
    /// KV is not used: the key may be used until it is replaced.
    Always,
    /// BCAST: NTP seconds, the first and the last, without their era.
    Ntp {
        /// The first second.
        from: u32,
        /// The last second.
        to: u32,
    },
    /// MBMS: MTK IDs, the lowest and the highest.
    MtkIds {
        /// The lowest.
        lower: u16,
        /// The highest.
        upper: u16,
    },
    /// Bound to an SPI or MKI.
    Spi(Vec<u8>),
    /// An interval of other lengths than these services use.
    Octets {
        /// VF.
        from: Vec<u8>,
        /// VT.
        to: Vec<u8>,
    },
}

impl From<&OpenedValidity> for Validity {
    fn from(kv: &OpenedValidity) -> Self {
        match kv {
            OpenedValidity::Null => Self::Always,
            OpenedValidity::Spi(spi) => Self::Spi(spi.clone()),
            OpenedValidity::Interval { from, to } => match (from.as_slice(), to.as_slice()) {
                ([a, b, c, d], [e, f, g, h]) => Self::Ntp {
                    from: u32::from_be_bytes([*a, *b, *c, *d]),
                    to: u32::from_be_bytes([*e, *f, *g, *h]),
                },
                ([a, b], [c, d]) => {
                    Self::MtkIds { lower: u16::from_be_bytes([*a, *b]), upper: u16::from_be_bytes([*c, *d]) }
                }
                _ => Self::Octets { from: from.clone(), to: to.clone() },
            },
        }
    }
}

impl Validity {
    /// Whether it ends before it begins, which says that the key is not to be used any more (LTKM profile §5).
    pub fn is_invalidation(&self) -> bool {
        match self {
            Self::Ntp { from, to } => from > to,
            Self::MtkIds { lower, upper } => lower > upper,
            Self::Octets { from, to } => from.len() == to.len() && from > to,
            Self::Always | Self::Spi(_) => false,
        }
    }

    /// Begin and end in words: times in the era that is nearest to `now`, or numbers.
    pub fn words(&self, now: Timestamp) -> (String, String) {
        let hex = |octets: &[u8]| data_encoding::HEXLOWER.encode(octets);
        match self {
            Self::Always => ("always".to_owned(), "-".to_owned()),
            Self::Ntp { from, to } => (ntp_near(*from, now).to_string(), ntp_near(*to, now).to_string()),
            Self::MtkIds { lower, upper } => (format!("MTK {lower}"), format!("MTK {upper}")),
            Self::Spi(spi) => (format!("SPI {}", hex(spi)), "-".to_owned()),
            Self::Octets { from, to } => (hex(from), hex(to)),
        }
    }
}

impl fmt::Display for Validity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (from, to) = self.words(Timestamp::now());
        match self {
            Self::Always | Self::Spi(_) => f.write_str(&from),
            _ => write!(f, "{from} to {to}"),
        }
    }
}

/// The point whose NTP seconds these are, in the era that brings it nearest to `now` (RFC 5905 §6).
pub fn ntp_near(seconds: u32, now: Timestamp) -> Timestamp {
    let now_secs = i64::try_from(now.as_secs()).unwrap_or(i64::MAX / 2);
    let ahead = i64::from(seconds.wrapping_sub(now.ntp_seconds()));
    let ahead = if ahead >= ERA / 2 { ahead - ERA } else { ahead };
    Timestamp::from_secs(u64::try_from(now_secs + ahead).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ntp_seconds_are_read_in_the_nearest_era() {
        let before: Timestamp = "2036-02-07T06:28:10Z".parse().unwrap();
        let after: Timestamp = "2036-02-07T06:28:20Z".parse().unwrap();
        for now in [before, after] {
            assert_eq!(ntp_near(before.ntp_seconds(), now), before);
            assert_eq!(ntp_near(after.ntp_seconds(), now), after);
        }
    }

    #[test]
    fn an_interval_that_ends_before_it_begins_is_an_invalidation() {
        assert!(Validity::Ntp { from: u32::MAX, to: 0 }.is_invalidation());
        assert!(Validity::MtkIds { lower: u16::MAX, upper: 0 }.is_invalidation());
        assert!(!Validity::Ntp { from: 5, to: 5 }.is_invalidation());
        assert!(!Validity::MtkIds { lower: 1, upper: 65535 }.is_invalidation());
        assert!(!Validity::Always.is_invalidation());
    }

    #[test]
    fn the_lengths_of_an_interval_tell_what_it_counts() {
        let interval = |from: &[u8], to: &[u8]| {
            Validity::from(&OpenedValidity::Interval { from: from.to_vec(), to: to.to_vec() })
        };
        assert_eq!(interval(&[0, 1], &[0, 9]), Validity::MtkIds { lower: 1, upper: 9 });
        assert_eq!(interval(&[0, 0, 0, 1], &[0, 0, 0, 9]), Validity::Ntp { from: 1, to: 9 });
        assert!(matches!(interval(&[1], &[2, 3]), Validity::Octets { .. }));
    }

    #[test]
    fn an_ntp_interval_is_told_as_times() {
        let now: Timestamp = "2026-11-22T09:30:00Z".parse().unwrap();
        let validity = Validity::Ntp { from: now.ntp_seconds(), to: now.ntp_seconds() + 60 };
        assert_eq!(validity.words(now), ("2026-11-22T09:30:00Z".into(), "2026-11-22T09:31:00Z".into()));
    }
}
