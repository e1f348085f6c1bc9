//! The simple types of the documents (XML Schema part 2): anyURI, unsignedByte, base64Binary.

use std::borrow::Cow;

use data_encoding::BASE64;

/// XML's white space (XML 1.0 §2.3).
pub(super) fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\n')
}

/// Collapses white space as XML Schema part 2 §4.3.6 asks of every type used here: none around, one space inside.
pub(super) fn collapse(text: &str) -> Cow<'_, str> {
    let trimmed = text.trim_matches(is_space);
    let mut previous = 'x';
    let collapsed = trimmed.chars().all(|c| {
        let fine = !is_space(c) || (c == ' ' && previous != ' ');
        previous = c;
        fine
    });
    if collapsed {
        return Cow::Borrowed(trimmed);
    }
    Cow::Owned(trimmed.split(is_space).filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" "))
}

/// Reads an xs:unsignedByte: decimal digits, leading zeros and a sign allowed (`+2`, `002`; `-0` is zero).
pub(super) fn unsigned_byte(text: &str) -> Option<u8> {
    let text = text.trim_matches(is_space);
    let (digits, negative) = match text.strip_prefix('-') {
        Some(rest) => (rest, true),
        None => (text.strip_prefix('+').unwrap_or(text), false),
    };
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let significant = digits.trim_start_matches('0');
    match significant {
        "" => Some(0),
        _ if negative || significant.len() > 3 => None,
        _ => significant.parse().ok(),
    }
}

/// Undoes base64 without white space: padding required and at the end alone, unused bits zero.
pub(super) fn dense_base64(octets: &[u8]) -> Option<Vec<u8>> {
    // The library also takes pieces that were padded one by one.
    let padding = octets.iter().position(|b| *b == b'=').unwrap_or(octets.len());
    if octets.len() - padding > 2 {
        return None;
    }
    BASE64.decode(octets).ok()
}

/// Reads an xs:base64Binary: as [`dense_base64`], with white space allowed anywhere.
pub(super) fn base64(text: &str) -> Option<Vec<u8>> {
    if !text.contains(is_space) {
        return dense_base64(text.as_bytes());
    }
    let dense: Vec<u8> = text.bytes().filter(|b| !is_space(char::from(*b))).collect();
    dense_base64(&dense)
}

/// Reads an xs:base64Binary of exactly `N` octets.
pub(super) fn base64_array<const N: usize>(text: &str) -> Option<[u8; N]> {
    base64(text)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unsigned_byte_is_read_in_every_lexical_form_it_has() {
        for (text, value) in
            [("0", 0), ("2", 2), ("+2", 2), ("002", 2), (" \n255\t", 255), ("-0", 0), ("+0000000007", 7)]
        {
            assert_eq!(unsigned_byte(text), Some(value), "{text:?}");
        }
    }

    #[test]
    fn what_is_no_unsigned_byte_is_none() {
        for text in [
            "",
            " ",
            "256",
            "-1",
            "1.0",
            "1e1",
            "0x1",
            "++1",
            "+",
            "-",
            "1 2",
            "٣",
            "1000",
            "99999999999999999999",
        ] {
            assert_eq!(unsigned_byte(text), None, "{text:?}");
        }
    }

    #[test]
    fn white_space_collapses_to_single_spaces() {
        for (text, value) in [
            ("urn:a", "urn:a"),
            ("\n urn:a \r\n", "urn:a"),
            ("a \t\n b", "a b"),
            ("a b", "a b"),
            ("a\nb", "a b"),
            (" ", ""),
        ] {
            assert_eq!(collapse(text), value, "{text:?}");
        }
        assert!(matches!(collapse(" urn:a "), Cow::Borrowed(_)));
    }

    #[test]
    fn base64_is_strict_but_for_white_space() {
        assert_eq!(base64_array::<4>(" aMkA\nAA== "), Some([0x68, 0xC9, 0, 0]));
        assert_eq!(base64_array::<3>("uHCd"), Some([0xB8, 0x70, 0x9D]));
        for bad in [
            "aMkAAA=",
            "aMkAAA",
            "aMkAAB==",
            "aMk!AA==",
            "-_-_",
            "aMkAAA==aMkAAA==",
            "aMk=aA==",
            "aA==AAA=",
            "é",
        ] {
            assert_eq!(base64_array::<4>(bad), None, "{bad}");
        }
    }
}
