//! Points in time as values: nothing below the drivers reads a clock.

use std::fmt;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Seconds between the NTP epoch (1900) and the Unix epoch (1970).
const NTP_OFFSET: u64 = 2_208_988_800;

/// A point in time, in milliseconds since 1970-01-01T00:00:00Z. RFC 3339 in JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(pub u64);

/// Milliseconds by which the clock that counts is ahead of this machine's.
static OFFSET: AtomicI64 = AtomicI64::new(0);

/// How many milliseconds the clock that counts is ahead of this machine's; 0 where this machine's counts.
pub fn offset() -> i64 {
    OFFSET.load(Ordering::Relaxed)
}

/// From now on [`Timestamp::now`] gives the time of a clock that is so many milliseconds ahead of this machine's: the
/// one of the database that several daemons share, so that they agree on when something is due.
pub(crate) fn set_offset(millis: i64) {
    OFFSET.store(millis, Ordering::Relaxed);
}

impl Timestamp {
    /// The latest point that RFC 3339 can write, 9999-12-31T23:59:59.999Z.
    pub const MAX: Self = Self(253_402_300_799_999);

    /// Reads the system's clock, corrected to the one that counts ([`offset`]). For drivers alone.
    pub fn now() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let here = u64::try_from(since.as_millis()).unwrap_or(Self::MAX.0);
        Self(here.saturating_add_signed(offset()))
    }

    /// Whole seconds since the Unix epoch.
    pub fn as_secs(self) -> u64 {
        self.0 / 1000
    }

    /// The point so many whole seconds after the Unix epoch.
    pub fn from_secs(secs: u64) -> Self {
        Self(secs.saturating_mul(1000)).min(Self::MAX)
    }

    /// How long after `earlier` this is; zero when it is before.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    /// The low 32 bits of the NTP seconds (RFC 5905 §6): the era is not told.
    pub fn ntp_seconds(self) -> u32 {
        (self.as_secs() + NTP_OFFSET) as u32
    }

    /// The last second of this point's NTP era; era 0 ends at 2036-02-07T06:28:15Z.
    pub fn ntp_era_end(self) -> Self {
        let era = (self.as_secs() + NTP_OFFSET) >> 32;
        Self::from_secs(((era + 1) << 32) - 1 - NTP_OFFSET)
    }
}

impl std::ops::Add<Duration> for Timestamp {
    type Output = Self;
    fn add(self, span: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(span.as_millis()).unwrap_or(u64::MAX))).min(Self::MAX)
    }
}

impl std::ops::Sub<Duration> for Timestamp {
    type Output = Self;
    fn sub(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(u64::try_from(span.as_millis()).unwrap_or(u64::MAX)))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = i64::try_from(self.0.min(Self::MAX.0)).unwrap_or(0);
        match jiff::Timestamp::from_millisecond(millis) {
            Ok(t) if self.0.is_multiple_of(1000) => write!(f, "{t:.0}"),
            Ok(t) => write!(f, "{t:.3}"),
            Err(_) => f.write_str("9999-12-31T23:59:59.999Z"),
        }
    }
}

impl std::str::FromStr for Timestamp {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let t: jiff::Timestamp =
            text.parse().map_err(|_| format!("{text:?} is no RFC 3339 time such as 2026-11-22T09:30:00Z"))?;
        u64::try_from(t.as_millisecond()).map(Self).map_err(|_| format!("{text:?} is before 1970"))
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc_3339_survives_a_round_trip() {
        for text in ["2026-11-22T09:30:00Z", "2026-11-22T09:30:00.250Z", "1970-01-01T00:00:00Z"] {
            let t: Timestamp = text.parse().expect("a time");
            assert_eq!(t.to_string(), text);
        }
        assert!("1969-12-31T23:59:59Z".parse::<Timestamp>().is_err());
        assert!("yesterday".parse::<Timestamp>().is_err());
        assert_eq!(Timestamp::MAX.to_string(), "9999-12-31T23:59:59.999Z");
    }

    #[test]
    fn ntp_era_0_ends_on_2036_02_07() {
        let t: Timestamp = "2026-11-22T00:00:00Z".parse().expect("a time");
        assert_eq!(t.ntp_era_end().to_string(), "2036-02-07T06:28:15Z");
        assert_eq!(t.ntp_era_end().ntp_seconds(), u32::MAX);
        assert_eq!((t.ntp_era_end() + Duration::from_secs(1)).ntp_seconds(), 0);
    }
}
