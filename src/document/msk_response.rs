//! The answer to an MSK request, `mbmsMSKResponse` (TS 26.346 §11.8; OMA BCAST §5.1.6.8.1; LTKM profile §2.2).

use super::body::{self, BodyForm};
use super::error::{DocumentError, Fault};
use super::extension;
use super::msk_request::{MSK, MskItem};
use super::namespace::{self, Space};
use super::response::{RESPONSE, ResponseItem, Subject, read_item, write_items};
use super::xml_reader::XmlReader;
use super::xml_writer::XmlWriter;
use super::{Limits, Style};

const ROOT: &str = "mbmsMSKResponse";

/// The answer to an MSK request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MskResponse {
    /// One item per key asked for, in the order of the request, its ids echoed.
    pub items: Vec<ResponseItem<MskItem>>,
}

impl Subject for MskItem {
    const ELEMENT: &'static str = MSK;

    fn read(doc: &mut XmlReader<'_>, at: usize) -> Result<Self, DocumentError> {
        Self::read(doc, at)
    }

    fn write(&self, doc: &mut XmlWriter) {
        self.write(doc);
    }
}

impl MskResponse {
    /// Reads an answer body in either form.
    ///
    /// # Errors
    /// What LTKM profile §2.1 refuses in requests, and LTKMs beside an unsuccessful code; the server is to blame.
    pub fn read(body: &[u8], limits: &Limits) -> Result<(Self, BodyForm), DocumentError> {
        let body = body::open(body, limits.max_octets)?;
        let mut doc = XmlReader::new(&body.text, body.skipped)?;
        doc.root(&[ROOT])?;
        let mut items = Vec::new();
        while let Some(child) = doc.child()? {
            match (child.space, child.local) {
                (Space::Mbms, RESPONSE) if items.len() == limits.max_items => {
                    return Err(doc.error_at(child.at, Fault::TooManyItems(limits.max_items)));
                }
                (Space::Mbms, RESPONSE) => items.push(read_item(&mut doc, child, extension::MSK_ITEM)?),
                _ => doc.skip_foreign(child)?,
            }
        }
        if items.is_empty() {
            return Err(doc.error(Fault::Missing { missing: RESPONSE, parent: ROOT }));
        }
        doc.finish()?;
        Ok((Self { items }, body.form))
    }

    /// Writes the answer.
    pub fn write(&self, style: Style) -> Vec<u8> {
        let with_bcast = self.items.iter().any(|item| !item.ltkms().is_empty());
        let mut doc = XmlWriter::new(ROOT, namespace::MSK_RESPONSE, with_bcast, style);
        write_items(&mut doc, &self.items, extension::MSK_ITEM);
        doc.finish()
    }
}
