//! The MSK request, `mbmsMSK` (TS 26.346 §11.6; OMA BCAST calls it the LTKM request; LTKM profile §2.1).

use data_encoding::BASE64;

use super::body::{self, BodyForm};
use super::error::{DocumentError, Excerpt, Fault};
use super::namespace::{self, Space};
use super::value;
use super::xml_reader::XmlReader;
use super::xml_writer::XmlWriter;
use super::{Limits, Style};
use crate::id::{KeyDomainId, MskId};

const ROOT: &str = "mbmsMSK";
const OTHER_ROOT: &str = "mbmsMSKRequest";
pub(super) const MSK: &str = "MSK";
const KEY_DOMAIN_ID: &str = "keyDomainID";
const MSK_ID: &str = "MSKID";

/// One key that is asked for. Key Number 0 in the MSK ID asks for the group's current key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MskItem {
    /// The Key Domain ID, 3 octets.
    pub key_domain: KeyDomainId,
    /// The MSK ID, 4 octets: Key Group and Key Number.
    pub msk_id: MskId,
}

/// A terminal asks for keys by their ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MskRequest {
    /// The keys in the order of the document, repeated ones repeated; at least one.
    pub items: Vec<MskItem>,
}

impl MskRequest {
    /// Reads a request body in either form.
    ///
    /// # Errors
    /// Everything that LTKM profile §2.1 refuses; the sender is to blame.
    pub fn read(body: &[u8], limits: &Limits) -> Result<(Self, BodyForm), DocumentError> {
        let body = body::open(body, limits.max_octets)?;
        let mut doc = XmlReader::new(&body.text, body.skipped)?;
        doc.root(&[ROOT, OTHER_ROOT])?;
        let mut items = Vec::new();
        while let Some(child) = doc.child()? {
            match (child.space, child.local) {
                (Space::Mbms, MSK) if items.len() == limits.max_items => {
                    return Err(doc.error_at(child.at, Fault::TooManyItems(limits.max_items)));
                }
                (Space::Mbms, MSK) => items.push(MskItem::read(&mut doc, child.at)?),
                _ => doc.skip_foreign(child)?,
            }
        }
        if items.is_empty() {
            return Err(doc.error(Fault::Missing { missing: MSK, parent: ROOT }));
        }
        doc.finish()?;
        Ok((Self { items }, body.form))
    }

    /// Writes the request.
    pub fn write(&self, style: Style) -> Vec<u8> {
        let mut doc = XmlWriter::new(ROOT, namespace::MSK_REQUEST, false, style);
        for item in &self.items {
            item.write(&mut doc);
        }
        doc.finish()
    }
}

impl MskItem {
    /// Reads an `MSK` whose start tag, at octet `at`, has been read.
    pub(super) fn read(doc: &mut XmlReader<'_>, at: usize) -> Result<Self, DocumentError> {
        let mut key_domain = None;
        let mut msk_id = None;
        while let Some(child) = doc.child()? {
            match (child.space, child.local) {
                (Space::Mbms, KEY_DOMAIN_ID) => {
                    let octets = read_octets(doc, child.at, KEY_DOMAIN_ID, "base64 of 3 octets")?;
                    once(doc, child.at, &mut key_domain, KEY_DOMAIN_ID, KeyDomainId(octets))?;
                }
                (Space::Mbms, MSK_ID) => {
                    let octets = read_octets(doc, child.at, MSK_ID, "base64 of 4 octets")?;
                    once(doc, child.at, &mut msk_id, MSK_ID, MskId(octets))?;
                }
                _ => doc.skip_foreign(child)?,
            }
        }
        let missing = |missing| doc.error_at(at, Fault::Missing { missing, parent: MSK });
        Ok(Self {
            key_domain: key_domain.ok_or_else(|| missing(KEY_DOMAIN_ID))?,
            msk_id: msk_id.ok_or_else(|| missing(MSK_ID))?,
        })
    }

    /// Writes an `MSK`.
    pub(super) fn write(&self, doc: &mut XmlWriter) {
        let msk = doc.open(MSK);
        doc.leaf(KEY_DOMAIN_ID, &BASE64.encode(&self.key_domain.0));
        doc.leaf(MSK_ID, &BASE64.encode(&self.msk_id.0));
        doc.close(msk);
    }
}

fn read_octets<const N: usize>(
    doc: &mut XmlReader<'_>,
    at: usize,
    element: &'static str,
    expected: &'static str,
) -> Result<[u8; N], DocumentError> {
    let text = doc.text()?;
    value::base64_array(&text)
        .ok_or_else(|| doc.error_at(at, Fault::Value { element, found: Excerpt::new(&text), expected }))
}

fn once<T>(
    doc: &XmlReader<'_>,
    at: usize,
    place: &mut Option<T>,
    name: &'static str,
    value: T,
) -> Result<(), DocumentError> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(doc.error_at(at, Fault::Twice(name))),
    }
}
