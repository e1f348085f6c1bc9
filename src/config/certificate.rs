//! When a certificate ends. Nothing else of it is read here: TLS itself judges certificates.

use jiff::civil::DateTime;

use crate::time::Timestamp;

/// ASN.1 tags (ITU-T X.690 §8.1.2) of what a certificate has before its validity's end.
mod tag {
    pub(super) const INTEGER: u8 = 0x02;
    pub(super) const UTC_TIME: u8 = 0x17;
    pub(super) const GENERALIZED_TIME: u8 = 0x18;
    pub(super) const SEQUENCE: u8 = 0x30;
    /// `[0] EXPLICIT`: the version.
    pub(super) const VERSION: u8 = 0xa0;
}

/// The notAfter of an X.509 certificate in DER (RFC 5280 §4.1), to the second; at most [`Timestamp::MAX`], and 0 for
/// one that ended before 1970. `None` when the octets up to it are no certificate's.
pub(super) fn not_after(certificate: &[u8]) -> Option<Timestamp> {
    let mut certificate = Der(Der(certificate).value(tag::SEQUENCE)?);
    let mut to_be_signed = Der(certificate.value(tag::SEQUENCE)?);
    if to_be_signed.0.first() == Some(&tag::VERSION) {
        to_be_signed.value(tag::VERSION)?;
    }
    to_be_signed.value(tag::INTEGER)?; // serialNumber
    to_be_signed.value(tag::SEQUENCE)?; // signature
    to_be_signed.value(tag::SEQUENCE)?; // issuer
    let mut validity = Der(to_be_signed.value(tag::SEQUENCE)?);
    validity.time()?;
    validity.time()
}

/// Values of the distinguished encoding that are still to be read.
struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    /// The octets of the next value, which has this tag.
    fn value(&mut self, tag: u8) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(2)?;
        if head[0] != tag {
            return None;
        }
        // X.690 §8.1.3: below 128 the length itself, else the number of octets that have it; 4 are 4 GiB.
        let (len, rest) = match head[1] {
            len @ 0..=0x7f => (usize::from(len), rest),
            n @ 0x81..=0x84 => {
                let (octets, rest) = rest.split_at_checked(usize::from(n & 0x7f))?;
                (octets.iter().fold(0, |len, octet| len << 8 | usize::from(*octet)), rest)
            }
            _ => return None,
        };
        let (value, rest) = rest.split_at_checked(len)?;
        self.0 = rest;
        Some(value)
    }

    /// The next value as a time (RFC 5280 §4.1.2.5): with seconds, in UTC, of two forms.
    fn time(&mut self) -> Option<Timestamp> {
        let utc = self.0.first() == Some(&tag::UTC_TIME);
        let text = self.value(if utc { tag::UTC_TIME } else { tag::GENERALIZED_TIME })?;
        let digits = std::str::from_utf8(text).ok()?.strip_suffix('Z')?;
        let (year, rest) = digits.split_at_checked(if utc { 2 } else { 4 })?;
        if rest.len() != 10 || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        let year: i16 = year.parse().ok()?;
        let year = match (utc, year) {
            (true, 50..) => 1900 + year,
            (true, _) => 2000 + year,
            (false, year) => year,
        };
        let part = |i: usize| rest[2 * i..2 * i + 2].parse::<i8>().ok();
        let at = DateTime::new(year, part(0)?, part(1)?, part(2)?, part(3)?, part(4)?, 0).ok()?;
        let since = at.duration_since(DateTime::constant(1970, 1, 1, 0, 0, 0, 0));
        Some(Timestamp::from_secs(u64::try_from(since.as_secs()).unwrap_or(0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A value with its tag and a length of as few octets as it needs.
    fn der(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
        let value = parts.concat();
        let mut octets = vec![tag];
        match value.len() {
            len @ 0..128 => octets.push(len as u8),
            len => octets.extend([0x82, (len >> 8) as u8, len as u8]),
        }
        octets.extend(value);
        octets
    }

    fn certificate(version: &[u8], not_after: &[u8]) -> Vec<u8> {
        let validity = der(tag::SEQUENCE, &[&der(tag::UTC_TIME, &[b"700101000000Z"]), not_after]);
        let issuer = der(tag::SEQUENCE, &[&[0; 200]]);
        let (serial, algorithm) = (der(tag::INTEGER, &[&[1]]), der(tag::SEQUENCE, &[]));
        let signed = der(tag::SEQUENCE, &[version, &serial, &algorithm, &issuer, &validity, &[5, 0]]);
        der(tag::SEQUENCE, &[&signed, &algorithm])
    }

    fn end_of(tag: u8, text: &str) -> Option<String> {
        not_after(&certificate(&[], &der(tag, &[text.as_bytes()]))).map(|at| at.to_string())
    }

    #[test]
    fn the_end_of_a_made_certificate_is_read() {
        let key = rcgen::KeyPair::generate().expect("a key");
        for (date, end) in [
            ((2027, 3, 1), "2027-03-01T00:00:00Z"),
            ((2049, 12, 31), "2049-12-31T00:00:00Z"),
            ((2050, 1, 1), "2050-01-01T00:00:00Z"),
            ((4096, 1, 1), "4096-01-01T00:00:00Z"),
        ] {
            let mut parameters = rcgen::CertificateParams::new(["a.example".to_owned()]).expect("a name");
            parameters.not_after = rcgen::date_time_ymd(date.0, date.1, date.2);
            let made = parameters.self_signed(&key).expect("a certificate");
            assert_eq!(not_after(made.der()).map(|at| at.to_string()).as_deref(), Some(end));
        }
    }

    #[test]
    fn both_forms_of_time_are_read_and_no_others() {
        assert_eq!(end_of(tag::UTC_TIME, "261122093001Z").as_deref(), Some("2026-11-22T09:30:01Z"));
        assert_eq!(end_of(tag::UTC_TIME, "500101000000Z").as_deref(), Some("1970-01-01T00:00:00Z"), "1950");
        assert_eq!(end_of(tag::GENERALIZED_TIME, "20500101000000Z").as_deref(), Some("2050-01-01T00:00:00Z"));
        // RFC 5280 §4.1.2.5: a certificate without an end.
        let endless = not_after(&certificate(&[], &der(tag::GENERALIZED_TIME, &[b"99991231235959Z"])));
        assert_eq!(endless, Some(Timestamp::from_secs(253_402_300_799)));
        for (tag, text) in [
            (tag::UTC_TIME, "2611220930Z"),
            (tag::UTC_TIME, "261122093001+0100"),
            (tag::UTC_TIME, "261322093001Z"),
            (tag::UTC_TIME, "26112209300+Z"),
            (tag::UTC_TIME, "Z"),
            (tag::GENERALIZED_TIME, "20501122093001.5Z"),
            (tag::GENERALIZED_TIME, "261122093001Z"),
            (tag::GENERALIZED_TIME, "2050é122093001Z"),
            (0x0c, "20500101000000Z"),
        ] {
            assert_eq!(end_of(tag, text), None, "{text}");
        }
    }

    #[test]
    fn the_version_may_be_left_out() {
        let end = der(tag::UTC_TIME, &[b"261122093001Z"]);
        let third = der(tag::VERSION, &[&der(tag::INTEGER, &[&[2]])]);
        assert!(not_after(&certificate(&third, &end)).is_some());
        assert_eq!(not_after(&certificate(&third, &end)), not_after(&certificate(&[], &end)));
    }

    #[test]
    fn what_is_cut_or_no_certificate_has_no_end() {
        let key = rcgen::KeyPair::generate().expect("a key");
        let made = rcgen::CertificateParams::new(["a.example".to_owned()]).expect("a name");
        let whole = made.self_signed(&key).expect("a certificate").der().to_vec();
        assert!(not_after(&whole).is_some());
        for len in 0..whole.len() {
            assert_eq!(not_after(&whole[..len]), None, "{len} octets");
        }
        for junk in
            [&[0x30, 0x80][..], &[0x30, 0x85, 1, 1, 1, 1, 1], &[0x30, 0x84, 0xff, 0xff, 0xff, 0xff], &[0; 64]]
        {
            assert_eq!(not_after(junk), None);
        }
    }
}
