//! The inside of a start tag: attributes, and the references in their values. Stricter than the XML library,
//! which leaves names, white space between attributes and `<` in values to its user.

use std::borrow::Cow;

use super::error::{Excerpt, Fault};
use super::value::is_space;
use super::xml_name;

/// The most attributes of one element.
pub(super) const MAX_ATTRIBUTES: usize = 32;

/// One attribute as it stands in the tag, its value normalised (XML 1.0 §3.3.3).
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Attribute<'a> {
    pub(super) name: &'a str,
    pub(super) value: Cow<'a, str>,
}

/// Reads the attributes from what stands between the element's name and the tag's end.
pub(super) fn attributes(mut rest: &str) -> Result<Vec<Attribute<'_>>, Fault> {
    let mut found: Vec<Attribute<'_>> = Vec::new();
    loop {
        let next = rest.trim_start_matches(is_space);
        if next.is_empty() {
            return Ok(found);
        }
        if next.len() == rest.len() {
            return Err(Fault::IllFormed("no white space before an attribute"));
        }
        let name_len = next.find(|c| is_space(c) || c == '=').unwrap_or(next.len());
        let (name, after) = next.split_at(name_len);
        if name.len() > xml_name::MAX_NAME {
            return Err(Fault::LongName(xml_name::MAX_NAME));
        }
        let value = after
            .trim_start_matches(is_space)
            .strip_prefix('=')
            .ok_or(Fault::IllFormed("an attribute without a value"))?
            .trim_start_matches(is_space);
        let quote = value
            .chars()
            .next()
            .filter(|c| matches!(c, '"' | '\''))
            .ok_or(Fault::IllFormed("an attribute's value without quotes"))?;
        let (value, after) = value[1..]
            .split_once(quote)
            .ok_or(Fault::IllFormed("an attribute's value that is not closed"))?;
        if value.contains('<') {
            return Err(Fault::IllFormed("'<' in an attribute's value"));
        }
        if found.iter().any(|a| a.name == name) {
            return Err(Fault::IllFormed("an attribute twice"));
        }
        if found.len() == MAX_ATTRIBUTES {
            return Err(Fault::TooManyAttributes(MAX_ATTRIBUTES));
        }
        found.push(Attribute { name, value: normalise(value)? });
        rest = after;
    }
}

/// XML 1.0 §3.3.3 for CDATA attributes: white space becomes spaces, references their characters.
fn normalise(value: &str) -> Result<Cow<'_, str>, Fault> {
    if !value.contains(['&', '\t', '\r', '\n']) {
        return Ok(Cow::Borrowed(value));
    }
    let mut out = String::with_capacity(value.len());
    let mut rest = value;
    while let Some(at) = rest.find(['&', '\t', '\r', '\n']) {
        let (plain, special) = rest.split_at(at);
        out.push_str(plain);
        rest = if let Some(reference) = special.strip_prefix('&') {
            let (name, after) =
                reference.split_once(';').ok_or(Fault::IllFormed("a reference that is not closed"))?;
            out.push(resolve(name)?);
            after
        } else {
            out.push(' ');
            special.strip_prefix("\r\n").unwrap_or(&special[1..])
        };
    }
    out.push_str(rest);
    Ok(Cow::Owned(out))
}

/// Resolves what stands between `&` and `;`: a character reference or one of the five predefined entities.
pub(super) fn resolve(name: &str) -> Result<char, Fault> {
    let Some(number) = name.strip_prefix('#') else {
        return match name {
            "lt" => Ok('<'),
            "gt" => Ok('>'),
            "amp" => Ok('&'),
            "apos" => Ok('\''),
            "quot" => Ok('"'),
            _ => Err(Fault::Entity(Excerpt::new(name))),
        };
    };
    let (digits, radix) = match number.strip_prefix('x') {
        Some(hex) => (hex, 16),
        None => (number, 10),
    };
    let digits_only = !digits.is_empty() && digits.chars().all(|c| c.is_digit(radix));
    digits_only
        .then(|| u32::from_str_radix(digits, radix).ok().and_then(char::from_u32))
        .flatten()
        .filter(|c| xml_name::is_char(*c))
        .ok_or(Fault::IllFormed("a character reference to no character"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_read_with_their_values_normalised() {
        let found = attributes(" a='1'\n b = \"x&#x20;&amp;\ty\"\r\n").expect("attributes");
        let pairs: Vec<_> = found.iter().map(|a| (a.name, &*a.value)).collect();
        assert_eq!(pairs, [("a", "1"), ("b", "x & y")]);
        assert_eq!(attributes(" ").expect("none"), []);
    }

    #[test]
    fn a_sloppy_tag_is_refused() {
        for bad in [
            "a='1'",
            " a='1'b='2'",
            " a",
            " a=",
            " a=1",
            " a='1",
            " a='<'",
            " a='1' a='2'",
            " a='&'",
            " a='&lt'",
            " a='&x;'",
            " a='&#0;'",
            " a='&#xD800;'",
            " a='&#;'",
            " a='&#x;'",
            " a='&#+5;'",
            " a='&#99999999999;'",
        ] {
            assert!(attributes(bad).is_err(), "{bad}");
        }
        let many: String = (0..=MAX_ATTRIBUTES).map(|n| format!(" a{n}=''")).collect();
        assert_eq!(attributes(&many), Err(Fault::TooManyAttributes(MAX_ATTRIBUTES)));
    }
}
