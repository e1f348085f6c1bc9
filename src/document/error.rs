//! What is wrong with a document and where: for the log, never for the answer.

use std::fmt;

use crate::id::IdError;

/// The most characters of a document that an error repeats.
const EXCERPT_CHARS: usize = 60;

/// A piece of a hostile document, fit for a log line: printable ASCII, at most 60 characters.
#[derive(Clone, PartialEq, Eq)]
pub struct Excerpt(String);

impl Excerpt {
    /// Cuts and cleans `text`; every character that is not printable ASCII becomes `?`.
    pub fn new(text: &str) -> Self {
        let mut clean: String = text
            .chars()
            .take(EXCERPT_CHARS)
            .map(|c| if c.is_ascii_graphic() || c == ' ' { c } else { '?' })
            .collect();
        if text.chars().nth(EXCERPT_CHARS).is_some() {
            clean.truncate(EXCERPT_CHARS - 3);
            clean.push_str("...");
        }
        Self(clean)
    }

    /// The cleaned text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Excerpt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "'{}'", self.0)
    }
}

impl fmt::Debug for Excerpt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why a document is refused (LTKM profile §2.1). The sender is to blame for each of them: `400 Bad Request`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// Nothing but white space.
    #[error("the body is empty")]
    Empty,
    /// Longer than the limit, in octets; `413 Content Too Large`.
    #[error("the body is longer than {0} octets")]
    TooLarge(usize),
    /// The text is not UTF-8.
    #[error("the text is not UTF-8")]
    NotUtf8,
    /// The text is UTF-16 or UTF-32.
    #[error("the text is UTF-16 or UTF-32, only UTF-8 is read")]
    Utf16,
    /// The XML declaration names an encoding other than UTF-8.
    #[error("the XML declaration names the encoding {0}, only UTF-8 is read")]
    Encoding(Excerpt),
    /// The body does not begin with `<` and is no base64 of a document either.
    #[error("the body is neither XML nor base64 of XML")]
    NotXml,
    /// A document type declaration.
    #[error("a document type declaration is not accepted")]
    Dtd,
    /// A reference to an entity that XML does not predefine.
    #[error("the entity {0} is not accepted")]
    Entity(Excerpt),
    /// Not well-formed XML 1.0.
    #[error("not well-formed: {0}")]
    IllFormed(&'static str),
    /// Not well-formed under Namespaces in XML 1.0.
    #[error("not namespace-well-formed: {0}")]
    Namespace(&'static str),
    /// More than 32 elements inside each other.
    #[error("more than {0} elements inside each other")]
    TooDeep(usize),
    /// More attributes or namespace declarations than the limit.
    #[error("more than {0} attributes on an element or namespace declarations in scope")]
    TooManyAttributes(usize),
    /// An element or attribute name longer than the limit, in octets.
    #[error("a name of more than {0} octets")]
    LongName(usize),
    /// The root element is not the one of this procedure.
    #[error("the root element is {found}, not {expected}")]
    Root {
        /// The root's local name.
        found: Excerpt,
        /// The name that the procedure asks for.
        expected: &'static str,
    },
    /// The root element is in a foreign namespace or in none.
    #[error("the root element's namespace {0} is none of those of MBMS security")]
    RootNamespace(Excerpt),
    /// An element that does not belong where it stands.
    #[error("the element {0} does not belong here")]
    Element(Excerpt),
    /// Text between elements.
    #[error("text {0} where only elements may be")]
    Text(Excerpt),
    /// A required element is missing.
    #[error("{missing} is missing in {parent}")]
    Missing {
        /// The name of what is missing.
        missing: &'static str,
        /// The name of the element it belongs to.
        parent: &'static str,
    },
    /// An element that may be there once is there again.
    #[error("{0} is there twice")]
    Twice(&'static str),
    /// More services or keys than `http.max_items`.
    #[error("more than {0} services or keys")]
    TooManyItems(usize),
    /// A service id that cannot be one.
    #[error("the serviceID {0}")]
    ServiceId(IdError),
    /// An element's value is not of its type.
    #[error("the {element} {found} is no {expected}")]
    Value {
        /// The element's name.
        element: &'static str,
        /// Its text.
        found: Excerpt,
        /// What it should be.
        expected: &'static str,
    },
    /// An LTKM beside another code than `200 OK`.
    #[error("an LTKM beside an unsuccessful ResponseCode")]
    LtkmBesideFailure,
}

/// A refused document: what is wrong and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{fault} (line {line}, octet {octet})")]
pub struct DocumentError {
    /// What is wrong.
    pub fault: Fault,
    /// The octet of the document where the faulty piece begins, from 0; after base64 has been undone.
    pub octet: usize,
    /// The line of the document, from 1.
    pub line: usize,
}

impl DocumentError {
    /// A fault of the body as a whole.
    pub(super) fn whole(fault: Fault) -> Self {
        Self { fault, octet: 0, line: 1 }
    }

    /// The HTTP status that answers it (LTKM profile §2.3).
    pub fn status(&self) -> u16 {
        match self.fault {
            Fault::TooLarge(_) => 413,
            _ => 400,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_excerpt_is_short_and_printable_whatever_it_is_cut_from() {
        let hostile = format!("\u{1b}[2J\r\nfake log line \u{202e}{}", "é".repeat(500));
        let excerpt = Excerpt::new(&hostile);
        assert!(excerpt.as_str().len() <= EXCERPT_CHARS);
        assert!(excerpt.as_str().bytes().all(|b| (0x20..0x7F).contains(&b)));
        assert!(excerpt.as_str().ends_with("..."));
        assert_eq!(Excerpt::new("short").as_str(), "short");
    }
}
