//! Media types of the procedures (LTKM profile §2; RFC 9110 §8.3).

use crate::procedure::Procedure;

/// Why a `Content-Type` is not the one of the procedure: `415 Unsupported Media Type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MediaTypeError {
    /// There is none.
    #[error("the Content-Type is missing")]
    Missing,
    /// It is no media type.
    #[error("the Content-Type cannot be read")]
    Malformed,
    /// It is another one.
    #[error("the Content-Type is not {0}")]
    Other(&'static str),
    /// Its `charset` is not UTF-8.
    #[error("the charset is not UTF-8")]
    Charset,
}

/// The media type of deregistration and registration answers.
pub const REGISTER_RESPONSE: &str = "application/mbms-register-response+xml";
/// The media type of MSK answers.
pub const MSK_RESPONSE: &str = "application/mbms-msk-response+xml";

/// The media type of a procedure's request body.
pub fn of_request(procedure: Procedure) -> &'static str {
    match procedure {
        Procedure::Register => "application/mbms-register+xml",
        Procedure::Deregister => "application/mbms-deregister+xml",
        Procedure::MskRequest => "application/mbms-msk+xml",
    }
}

/// The media type of the answer's body.
pub fn of_response(procedure: Procedure) -> &'static str {
    match procedure {
        Procedure::Register | Procedure::Deregister => REGISTER_RESPONSE,
        Procedure::MskRequest => MSK_RESPONSE,
    }
}

/// Checks the value of a request's `Content-Type`. Case and parameters do not matter, but a `charset` must be
/// UTF-8.
///
/// # Errors
/// The value is missing, malformed, another type, or of another charset: the sender gets a 415.
pub fn check(content_type: Option<&[u8]>, procedure: Procedure) -> Result<(), MediaTypeError> {
    check_is(content_type, of_request(procedure))
}

/// Checks a `Content-Type` against any media type in lower case, as [`check`] does.
///
/// # Errors
/// As [`check`].
pub fn check_is(content_type: Option<&[u8]>, expected: &'static str) -> Result<(), MediaTypeError> {
    let value = std::str::from_utf8(content_type.ok_or(MediaTypeError::Missing)?)
        .map_err(|_| MediaTypeError::Malformed)?;
    let essence_len = value.find(';').unwrap_or(value.len());
    let (essence, mut parameters) = value.split_at(essence_len);
    let essence = essence.trim_matches(is_ows);
    if essence.is_empty() {
        return Err(MediaTypeError::Missing);
    }
    if !essence.eq_ignore_ascii_case(expected) {
        return Err(MediaTypeError::Other(expected));
    }
    let mut charset_seen = false;
    while let Some(rest) = parameters.strip_prefix(';') {
        let rest = rest.trim_start_matches(is_ows);
        // RFC 9110 §5.6.6: a parameter may be empty.
        if rest.is_empty() || rest.starts_with(';') {
            parameters = rest;
            continue;
        }
        let (name, rest) = rest.split_once('=').ok_or(MediaTypeError::Malformed)?;
        let (value, rest) = parameter_value(rest).ok_or(MediaTypeError::Malformed)?;
        if !is_token(name) {
            return Err(MediaTypeError::Malformed);
        }
        if name.eq_ignore_ascii_case("charset") {
            if charset_seen || !value.eq_ignore_ascii_case("utf-8") {
                return Err(MediaTypeError::Charset);
            }
            charset_seen = true;
        }
        parameters = rest.trim_start_matches(is_ows);
    }
    if parameters.is_empty() { Ok(()) } else { Err(MediaTypeError::Malformed) }
}

/// A token or a quoted string, and what follows it.
fn parameter_value(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find(|c| c == ';' || is_ows(c)).unwrap_or(text.len());
        let (value, rest) = text.split_at(end);
        return is_token(value).then(|| (value.to_owned(), rest));
    };
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, &quoted[at + 1..])),
            '\\' => value.push(chars.next()?.1),
            c => value.push(c),
        }
    }
    None
}

fn is_ows(c: char) -> bool {
    matches!(c, ' ' | '\t')
}

/// RFC 9110 §5.6.2.
fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TYPE: &str = "application/mbms-register+xml";

    #[test]
    fn parameters_are_accepted_and_a_charset_must_be_utf_8() {
        for parameters in [
            "",
            ";charset=utf-8",
            "; charset=UTF-8",
            ";charset=\"utf-8\"",
            "; Charset=\"UTF\\-8\" ; x=y",
            ";",
            ";;",
            " ; x=\"a;b\"",
        ] {
            let value = format!("{TYPE}{parameters}");
            assert_eq!(check(Some(value.as_bytes()), Procedure::Register), Ok(()), "{value}");
        }
        assert_eq!(check(Some(b"Application/MBMS-Register+XML"), Procedure::Register), Ok(()));
    }

    #[test]
    fn another_or_a_broken_type_is_refused() {
        for (value, error) in [
            ("", MediaTypeError::Missing),
            (" ", MediaTypeError::Missing),
            ("text/xml", MediaTypeError::Other(TYPE)),
            ("application/mbms-msk+xml", MediaTypeError::Other(TYPE)),
            ("application/mbms-register-response+xml", MediaTypeError::Other(TYPE)),
            ("application/mbms-register+xml, text/xml", MediaTypeError::Other(TYPE)),
            ("application/mbms-register+xml;charset=utf-16", MediaTypeError::Charset),
            ("application/mbms-register+xml;charset=utf-8;charset=utf-16", MediaTypeError::Charset),
            ("application/mbms-register+xml;charset", MediaTypeError::Malformed),
            ("application/mbms-register+xml;charset=\"utf-8", MediaTypeError::Malformed),
            ("application/mbms-register+xml; x=a b", MediaTypeError::Malformed),
            ("application/mbms-register+xml;=a", MediaTypeError::Malformed),
        ] {
            assert_eq!(check(Some(value.as_bytes()), Procedure::Register), Err(error), "{value}");
        }
        assert_eq!(check(None, Procedure::Register), Err(MediaTypeError::Missing));
        assert_eq!(check(Some(b"\xFF"), Procedure::Register), Err(MediaTypeError::Malformed));
    }
}
