//! The two forms of a body: the document itself, or base64 of it (LTKM profile §2).

use std::borrow::Cow;

use data_encoding::BASE64;

use super::error::{DocumentError, Fault};
use super::value::{dense_base64, is_space};

const UTF8_BOM: &[u8] = b"\xEF\xBB\xBF";

/// How a document travels. An answer takes the form of its request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BodyForm {
    /// The XML itself.
    #[default]
    Plain,
    /// Base64 of the XML, as some 3GPP releases ship it.
    Base64,
}

/// A body that has become text.
pub(super) struct Body<'a> {
    /// The document without a byte order mark.
    pub(super) text: Cow<'a, str>,
    /// The octets of the byte order mark before it.
    pub(super) skipped: usize,
    /// The form it came in.
    pub(super) form: BodyForm,
}

/// Tells the form by the first significant octet, undoes base64 and checks the encoding.
pub(super) fn open(body: &[u8], max_octets: usize) -> Result<Body<'_>, DocumentError> {
    if body.len() > max_octets {
        return Err(DocumentError::whole(Fault::TooLarge(max_octets)));
    }
    refuse_wide_encodings(body)?;
    let unmarked = body.strip_prefix(UTF8_BOM).unwrap_or(body);
    match first_significant(unmarked) {
        None => Err(DocumentError::whole(Fault::Empty)),
        Some(b'<') => {
            let text = std::str::from_utf8(unmarked).map_err(|e| not_utf8(unmarked, e.valid_up_to()))?;
            let skipped = body.len() - unmarked.len();
            Ok(Body { text: Cow::Borrowed(text), skipped, form: BodyForm::Plain })
        }
        Some(_) => open_base64(unmarked),
    }
}

fn open_base64(body: &[u8]) -> Result<Body<'static>, DocumentError> {
    let dense: Vec<u8> = body.iter().copied().filter(|b| !is_space(char::from(*b))).collect();
    let mut document = dense_base64(&dense).ok_or_else(|| DocumentError::whole(Fault::NotXml))?;
    refuse_wide_encodings(&document)?;
    let skipped = if document.starts_with(UTF8_BOM) { UTF8_BOM.len() } else { 0 };
    document.drain(..skipped);
    if first_significant(&document) != Some(b'<') {
        return Err(DocumentError::whole(Fault::NotXml));
    }
    match String::from_utf8(document) {
        Ok(text) => Ok(Body { text: Cow::Owned(text), skipped, form: BodyForm::Base64 }),
        Err(e) => Err(not_utf8(e.as_bytes(), e.utf8_error().valid_up_to())),
    }
}

/// Writes a document in the form asked for.
pub(super) fn close(document: String, form: BodyForm) -> Vec<u8> {
    match form {
        BodyForm::Plain => document.into_bytes(),
        BodyForm::Base64 => BASE64.encode(document.as_bytes()).into_bytes(),
    }
}

fn first_significant(text: &[u8]) -> Option<u8> {
    text.iter().copied().find(|b| !is_space(char::from(*b)))
}

/// XML 1.0 appendix F: a byte order mark of UTF-16 or UTF-32, or `<` with zeros around it.
fn refuse_wide_encodings(body: &[u8]) -> Result<(), DocumentError> {
    let wide =
        matches!(body, [0xFE, 0xFF, ..] | [0xFF, 0xFE, ..] | [0, b'<', ..] | [b'<', 0, ..] | [0, 0, ..]);
    if wide { Err(DocumentError::whole(Fault::Utf16)) } else { Ok(()) }
}

fn not_utf8(text: &[u8], octet: usize) -> DocumentError {
    let line = 1 + text[..octet].iter().filter(|b| **b == b'\n').count();
    DocumentError { fault: Fault::NotUtf8, octet, line }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(body: &[u8]) -> Fault {
        match open(body, 100) {
            Ok(body) => panic!("accepted {:?}", body.text),
            Err(e) => e.fault,
        }
    }

    #[test]
    fn the_first_significant_octet_tells_the_form() {
        for (body, form) in [
            (&b"<a/>"[..], BodyForm::Plain),
            (b" \r\n<a/>", BodyForm::Plain),
            (b"\xEF\xBB\xBF<a/>", BodyForm::Plain),
            (b"PGEvPg==", BodyForm::Base64),
            (b" PGEv\r\nPg==\n", BodyForm::Base64),
            (b"77u/PGEvPg==", BodyForm::Base64),
        ] {
            let open = open(body, 100).expect("a body");
            assert_eq!((open.text.trim(), open.form), ("<a/>", form));
        }
    }

    #[test]
    fn what_is_no_document_in_either_form_is_refused() {
        assert_eq!(fault(b""), Fault::Empty);
        assert_eq!(fault(b" \n"), Fault::Empty);
        assert_eq!(fault(b"hello"), Fault::NotXml);
        assert_eq!(fault(b"aGVsbG8="), Fault::NotXml, "base64 of what is no XML");
        assert_eq!(fault(b"PGEvPg"), Fault::NotXml, "padding missing");
        assert_eq!(fault(b"PGE=Lz4="), Fault::NotXml, "two pieces");
        assert_eq!(fault(b"\xFF\xFE<\0a\0"), Fault::Utf16);
        assert_eq!(fault(b"\0<\0a"), Fault::Utf16);
        assert_eq!(fault(b"<\0a\0"), Fault::Utf16);
        assert_eq!(fault(b"//48AGEA"), Fault::Utf16, "UTF-16 inside base64");
        assert_eq!(fault(&[b' '; 101]), Fault::TooLarge(100));
    }

    #[test]
    fn broken_utf_8_is_told_with_its_place() {
        let error = match open(b"<a>\n\xC3\x28</a>", 100) {
            Err(e) => e,
            Ok(_) => panic!("accepted"),
        };
        assert_eq!(error, DocumentError { fault: Fault::NotUtf8, octet: 4, line: 2 });
    }
}
