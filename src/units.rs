//! Durations and sizes as people write them: in configuration, in the admin API and on the command line.

use std::time::Duration;

/// Why a text is not the quantity it was given for, and what to do: the end of a sentence that the value
/// begins. Never repeats the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// No whole number with a unit of time, or more than 2⁶⁴ − 1 milliseconds.
    #[error("is no duration: give a number and its unit, ms, s, m, h or d, such as \"10s\"")]
    Duration,
    /// No whole number with a unit of size, or more than the address space.
    #[error("is no size: give a number and its unit, B, KiB, MiB or GiB, such as \"64KiB\"")]
    Size,
}

/// Units of time in milliseconds, the largest first.
const TIMES: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

/// Units of size in octets, the largest first.
const SIZES: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

/// The number times its unit; the number is digits alone.
fn parse(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let (_, scale) = units.iter().find(|(name, _)| *name == unit)?;
    number.parse::<u64>().ok()?.checked_mul(*scale)
}

/// Reads a duration such as `500ms`, `2s`, `5m`, `24h` or `7d`.
///
/// # Errors
/// Anything but a whole number with one of these units.
pub fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    parse(text, &TIMES).map(Duration::from_millis).ok_or(UnitError::Duration)
}

/// Writes a duration in the largest unit that holds it exactly, but days only from two on: `24h`, `7d`.
/// What is below a millisecond is dropped.
pub fn format_duration(span: Duration) -> String {
    let millis = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
    let exact =
        |(unit, scale): &&(&str, u64)| millis.is_multiple_of(*scale) && (*unit != "d" || millis >= 2 * scale);
    match TIMES.iter().find(exact) {
        Some((unit, scale)) if millis > 0 => format!("{}{unit}", millis / scale),
        _ => "0s".to_owned(),
    }
}

/// Reads a size in octets such as `512B`, `64KiB`, `1MiB` or `1GiB`.
///
/// # Errors
/// Anything but a whole number with one of these units.
pub fn parse_size(text: &str) -> Result<usize, UnitError> {
    parse(text, &SIZES).and_then(|octets| usize::try_from(octets).ok()).ok_or(UnitError::Size)
}

/// Writes a size in the largest unit that holds it exactly.
pub fn format_size(octets: usize) -> String {
    let octets = octets as u64;
    match SIZES.iter().find(|(_, scale)| octets.is_multiple_of(*scale)) {
        Some((unit, scale)) if octets > 0 => format!("{}{unit}", octets / scale),
        _ => "0B".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_written_as_it_was_read() {
        for text in ["500ms", "2s", "90s", "5m", "24h", "36h", "7d", "0s"] {
            assert_eq!(parse_duration(text).map(format_duration), Ok(text.to_owned()));
        }
        assert_eq!(parse_duration("1000ms").map(format_duration), Ok("1s".to_owned()));
        assert_eq!(parse_duration("1d").map(format_duration), Ok("24h".to_owned()));
    }

    #[test]
    fn a_duration_needs_a_whole_number_and_a_unit() {
        for text in ["", "5", "s", "1.5s", "-1s", "1 s", "1S", "1w", "9999999999999999999d"] {
            assert_eq!(parse_duration(text), Err(UnitError::Duration), "{text}");
        }
    }

    #[test]
    fn a_size_is_written_as_it_was_read() {
        for text in ["512B", "64KiB", "3MiB", "1GiB", "0B", "1025B"] {
            assert_eq!(parse_size(text).map(format_size), Ok(text.to_owned()));
        }
        for text in ["", "64", "KiB", "64KB", "64kib", "-1B", "99999999999999999GiB"] {
            assert_eq!(parse_size(text), Err(UnitError::Size), "{text}");
        }
    }
}
