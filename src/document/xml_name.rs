//! Characters and names of XML 1.0 (fifth edition) and Namespaces in XML 1.0.

/// The longest element or attribute name that is read, in octets.
pub(super) const MAX_NAME: usize = 256;

/// XML 1.0 §2.2 `Char`.
pub(super) fn is_char(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\r' | ' '..='\u{D7FF}' | '\u{E000}'..='\u{FFFD}' | '\u{10000}'..)
}

/// XML 1.0 §2.3 `NameStartChar` without the colon.
fn is_name_start(c: char) -> bool {
    matches!(c,
        'A'..='Z' | '_' | 'a'..='z' | '\u{C0}'..='\u{D6}' | '\u{D8}'..='\u{F6}' | '\u{F8}'..='\u{2FF}'
        | '\u{370}'..='\u{37D}' | '\u{37F}'..='\u{1FFF}' | '\u{200C}'..='\u{200D}' | '\u{2070}'..='\u{218F}'
        | '\u{2C00}'..='\u{2FEF}' | '\u{3001}'..='\u{D7FF}' | '\u{F900}'..='\u{FDCF}' | '\u{FDF0}'..='\u{FFFD}'
        | '\u{10000}'..='\u{EFFFF}')
}

/// XML 1.0 §2.3 `NameChar` without the colon.
fn is_name_char(c: char) -> bool {
    is_name_start(c)
        || matches!(c, '-' | '.' | '0'..='9' | '\u{B7}' | '\u{300}'..='\u{36F}' | '\u{203F}'..='\u{2040}')
}

/// Namespaces in XML §3 `NCName`.
pub(super) fn is_nc_name(name: &str) -> bool {
    let mut chars = name.chars();
    chars.next().is_some_and(is_name_start) && chars.all(is_name_char)
}

/// Splits a qualified name into prefix and local name; none when it is no `QName` (Namespaces in XML §4).
pub(super) fn split(name: &str) -> Option<(Option<&str>, &str)> {
    match name.split_once(':') {
        None => is_nc_name(name).then_some((None, name)),
        Some((prefix, local)) => (is_nc_name(prefix) && is_nc_name(local)).then_some((Some(prefix), local)),
    }
}

/// The offset of the first octet that begins a character XML 1.0 does not allow.
pub(super) fn first_bad_char(text: &str) -> Option<usize> {
    // Only control characters, U+FFFE and U+FFFF are left to refuse in a `str`.
    let suspicious = |b: u8| (b < 0x20 && !matches!(b, b'\t' | b'\n' | b'\r')) || b == 0xEF;
    if !text.bytes().any(suspicious) {
        return None;
    }
    text.char_indices().find(|(_, c)| !is_char(*c)).map(|(at, _)| at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_qualified_name_has_at_most_one_colon_and_no_empty_part() {
        assert_eq!(split("a"), Some((None, "a")));
        assert_eq!(split("b:LTKM"), Some((Some("b"), "LTKM")));
        assert_eq!(split("é-1.x"), Some((None, "é-1.x")));
        for bad in ["", ":a", "a:", "a:b:c", "1a", "-a", "a b", "a\"", "a<", "b:1", "\u{300}a"] {
            assert_eq!(split(bad), None, "{bad}");
        }
    }

    #[test]
    fn control_characters_and_noncharacters_are_found() {
        assert_eq!(first_bad_char("a\t\r\né\u{FEFF}"), None);
        assert_eq!(first_bad_char("ab\0"), Some(2));
        assert_eq!(first_bad_char("é\u{1}"), Some(2));
        assert_eq!(first_bad_char("x\u{FFFE}"), Some(1));
        assert_eq!(first_bad_char("x\u{FFFF}"), Some(1));
    }
}
