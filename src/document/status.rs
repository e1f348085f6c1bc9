//! `ResponseCode`: what happened to one service or key (LTKM profile §2.3).

use std::fmt;

use super::value::collapse;

/// The code of one service or key, in the vocabulary of the HTTP status line. Codes without a name here survive
/// being read and written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ResponseCode(u16);

impl ResponseCode {
    /// Done; the only code that LTKMs may stand beside.
    pub const OK: Self = Self(200);
    /// Malformed.
    pub const BAD_REQUEST: Self = Self(400);
    /// Not authenticated.
    pub const UNAUTHORIZED: Self = Self(401);
    /// Not entitled, not registered, or unacceptable parameters.
    pub const FORBIDDEN: Self = Self(403);
    /// Unknown service, key or key domain.
    pub const NOT_FOUND: Self = Self(404);
    /// Our own trouble.
    pub const INTERNAL_SERVER_ERROR: Self = Self(500);
    /// Overload, or the store cannot promise anything now.
    pub const SERVICE_UNAVAILABLE: Self = Self(503);

    /// The code of a number, none unless it has three digits from 100 up.
    pub fn new(number: u16) -> Option<Self> {
        (100..=999).contains(&number).then_some(Self(number))
    }

    /// The number.
    pub fn number(self) -> u16 {
        self.0
    }

    /// Whether it is `200 OK`.
    pub fn is_ok(self) -> bool {
        self == Self::OK
    }

    /// The phrase that goes with the number (RFC 9110 §15); empty for a number without one.
    pub fn reason(self) -> &'static str {
        match self.0 {
            200 => "OK",
            400 => "Bad Request",
            401 => "Unauthorized",
            403 => "Forbidden",
            404 => "Not Found",
            405 => "Method Not Allowed",
            408 => "Request Timeout",
            411 => "Length Required",
            413 => "Content Too Large",
            415 => "Unsupported Media Type",
            429 => "Too Many Requests",
            431 => "Request Header Fields Too Large",
            500 => "Internal Server Error",
            501 => "Not Implemented",
            503 => "Service Unavailable",
            505 => "HTTP Version Not Supported",
            _ => "",
        }
    }

    /// Reads the text of a `ResponseCode` element: three digits, then any phrase.
    pub(super) fn from_text(text: &str) -> Option<Self> {
        let text = collapse(text);
        let (number, phrase) = text.split_at_checked(3)?;
        if !number.bytes().all(|b| b.is_ascii_digit()) || !(phrase.is_empty() || phrase.starts_with(' ')) {
            return None;
        }
        Self::new(number.parse().ok()?)
    }
}

impl fmt::Display for ResponseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.reason() {
            "" => write!(f, "{:03}", self.0),
            reason => write!(f, "{:03} {reason}", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_written_with_its_phrase_and_read_by_its_number() {
        assert_eq!(ResponseCode::OK.to_string(), "200 OK");
        assert_eq!(ResponseCode::FORBIDDEN.to_string(), "403 Forbidden");
        assert_eq!(ResponseCode::from_text(" 404\n Not there "), Some(ResponseCode::NOT_FOUND));
        assert_eq!(ResponseCode::from_text("299").map(|c| c.to_string()), Some("299".to_owned()));
        for bad in ["", "20", "OK", "2000 OK", "099 low", "+20 x", "２００"] {
            assert_eq!(ResponseCode::from_text(bad), None, "{bad}");
        }
    }
}
