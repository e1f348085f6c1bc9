//! What all answers share: `Response` elements with a code and LTKMs (LTKM profile §2.2).

use super::error::{DocumentError, Excerpt, Fault};
use super::extension;
use super::namespace::Space;
use super::status::ResponseCode;
use super::xml_reader::{Element, XmlReader};
use super::xml_writer::XmlWriter;

pub(super) const RESPONSE: &str = "Response";
const RESPONSE_CODE: &str = "ResponseCode";

/// The answer about one service or key. LTKMs stand beside `200 OK` only (OMA BCAST §5.1.6.10.3); there is no way
/// to make one where they stand beside another code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResponseItem<S> {
    subject: S,
    code: ResponseCode,
    ltkms: Vec<Vec<u8>>,
}

impl<S> ResponseItem<S> {
    /// `200 OK` with the LTKMs that ride along, in order; often none.
    pub fn ok(subject: S, ltkms: Vec<Vec<u8>>) -> Self {
        Self { subject, code: ResponseCode::OK, ltkms }
    }

    /// Any code, without LTKMs.
    pub fn new(subject: S, code: ResponseCode) -> Self {
        Self { subject, code, ltkms: Vec::new() }
    }

    /// The service or key.
    pub fn subject(&self) -> &S {
        &self.subject
    }

    /// What happened to it.
    pub fn code(&self) -> ResponseCode {
        self.code
    }

    /// The MIKEY messages, in the order in which the terminal processes them.
    pub fn ltkms(&self) -> &[Vec<u8>] {
        &self.ltkms
    }
}

/// How one kind of answer names and reads the subject of its items.
pub(super) trait Subject: Sized {
    /// The element that holds it.
    const ELEMENT: &'static str;
    /// Reads it; its start tag, at octet `at`, has been read.
    fn read(doc: &mut XmlReader<'_>, at: usize) -> Result<Self, DocumentError>;
    /// Writes it, its element included.
    fn write(&self, doc: &mut XmlWriter);
}

/// Reads a `Response`; its start tag has been read.
pub(super) fn read_item<S: Subject>(
    doc: &mut XmlReader<'_>,
    response: Element<'_>,
    container: &'static str,
) -> Result<ResponseItem<S>, DocumentError> {
    let mut subject = None;
    let mut code = None;
    let mut ltkms = None;
    while let Some(child) = doc.child()? {
        let twice = |name| Err(doc.error_at(child.at, Fault::Twice(name)));
        match (child.space, child.local) {
            (Space::Mbms, name) if name == S::ELEMENT => {
                if subject.is_some() {
                    return twice(S::ELEMENT);
                }
                subject = Some(S::read(doc, child.at)?);
            }
            (Space::Mbms, RESPONSE_CODE) => {
                if code.is_some() {
                    return twice(RESPONSE_CODE);
                }
                code = Some(read_code(doc, child.at)?);
            }
            (Space::Bcast, name) if name == container => {
                if ltkms.is_some() {
                    return twice(container);
                }
                ltkms = Some(extension::read_ltkms(doc)?);
            }
            _ => doc.skip_foreign(child)?,
        }
    }
    let missing = |missing| doc.error_at(response.at, Fault::Missing { missing, parent: RESPONSE });
    let subject = subject.ok_or_else(|| missing(S::ELEMENT))?;
    let code = code.ok_or_else(|| missing(RESPONSE_CODE))?;
    let ltkms = ltkms.unwrap_or_default();
    if !code.is_ok() && !ltkms.is_empty() {
        return Err(doc.error_at(response.at, Fault::LtkmBesideFailure));
    }
    Ok(ResponseItem { subject, code, ltkms })
}

fn read_code(doc: &mut XmlReader<'_>, at: usize) -> Result<ResponseCode, DocumentError> {
    let text = doc.text()?;
    ResponseCode::from_text(&text).ok_or_else(|| {
        let found = Excerpt::new(&text);
        doc.error_at(at, Fault::Value { element: RESPONSE_CODE, found, expected: "code such as 200 OK" })
    })
}

/// Writes `Response` elements.
pub(super) fn write_items<S: Subject>(
    doc: &mut XmlWriter,
    items: &[ResponseItem<S>],
    container: &'static str,
) {
    for item in items {
        let response = doc.open(RESPONSE);
        item.subject.write(doc);
        doc.leaf(RESPONSE_CODE, &item.code.to_string());
        extension::write_ltkms(doc, container, &item.ltkms);
        doc.close(response);
    }
}
