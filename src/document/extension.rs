//! The BCAST containers (OMA BCAST change request on LTKM delivery, §5.1.6.7–§5.1.6.9).

use super::error::{DocumentError, Excerpt, Fault};
use super::value;
use super::xml_reader::XmlReader;
use super::xml_writer::XmlWriter;

/// In a registration request: which deliveries the terminal can take.
pub(super) const REGISTRATION_REQUEST: &str = "RegistrationRequestExtension";
/// In a registration answer, once: which deliveries will be used.
pub(super) const REGISTRATION_RESPONSE: &str = "RegistrationResponseExtension";
/// In one `Response` of a registration answer: that service's LTKMs.
pub(super) const REGISTRATION_ITEM: &str = "RegistrationResponseResponseExtension";
/// In one `Response` of a deregistration answer.
pub(super) const DEREGISTRATION_ITEM: &str = "DeregistrationResponseResponseExtension";
/// In one `Response` of an MSK answer.
pub(super) const MSK_ITEM: &str = "LTKMResponseResponseExtension";

const DELIVERY: &str = "LTKMDelivery";
const TYPE: &str = "Type";
const LTKM: &str = "LTKM";

/// Reads a container that holds an `LTKMDelivery` or not; the container's start tag has been read.
/// The types come in the order of the document, repeated ones repeated.
pub(super) fn read_delivery(doc: &mut XmlReader<'_>) -> Result<Option<Vec<u8>>, DocumentError> {
    let mut delivery = None;
    while let Some(child) = doc.child()? {
        if child.local != DELIVERY || !child.space.holds_container_children() {
            doc.skip()?;
        } else if delivery.is_some() {
            return Err(doc.error_at(child.at, Fault::Twice(DELIVERY)));
        } else {
            delivery = Some(read_types(doc, child.at)?);
        }
    }
    Ok(delivery)
}

fn read_types(doc: &mut XmlReader<'_>, at: usize) -> Result<Vec<u8>, DocumentError> {
    let mut types = Vec::new();
    while let Some(child) = doc.child()? {
        if child.local != TYPE || !child.space.holds_container_children() {
            doc.skip()?;
            continue;
        }
        let text = doc.text()?;
        let value = value::unsigned_byte(&text).ok_or_else(|| {
            let found = Excerpt::new(&text);
            doc.error_at(child.at, Fault::Value { element: TYPE, found, expected: "number from 0 to 255" })
        })?;
        types.push(value);
    }
    if types.is_empty() {
        return Err(doc.error_at(at, Fault::Missing { missing: TYPE, parent: DELIVERY }));
    }
    Ok(types)
}

/// Writes a container with an `LTKMDelivery` of these types; nothing when there is none.
pub(super) fn write_delivery(
    doc: &mut XmlWriter,
    container: &'static str,
    version: Option<&str>,
    types: impl IntoIterator<Item = u8>,
) {
    let mut types = types.into_iter().peekable();
    if types.peek().is_none() {
        return;
    }
    let container = doc.open_container(container, version);
    let delivery = doc.open_child(DELIVERY);
    for value in types {
        doc.child_leaf(TYPE, &value.to_string());
    }
    doc.close(delivery);
    doc.close(container);
}

/// Reads a container of LTKMs in the order of the document; the container's start tag has been read.
pub(super) fn read_ltkms(doc: &mut XmlReader<'_>) -> Result<Vec<Vec<u8>>, DocumentError> {
    let mut ltkms = Vec::new();
    while let Some(child) = doc.child()? {
        if child.local != LTKM || !child.space.holds_container_children() {
            doc.skip()?;
            continue;
        }
        let text = doc.text()?;
        let octets = value::base64(&text).filter(|octets| !octets.is_empty()).ok_or_else(|| {
            let found = Excerpt::new(&text);
            doc.error_at(child.at, Fault::Value { element: LTKM, found, expected: "base64 of a message" })
        })?;
        ltkms.push(octets);
    }
    Ok(ltkms)
}

/// Writes a container of LTKMs; nothing when there is none.
pub(super) fn write_ltkms(doc: &mut XmlWriter, container: &'static str, ltkms: &[Vec<u8>]) {
    if ltkms.is_empty() {
        return;
    }
    let container = doc.open_container(container, None);
    for ltkm in ltkms {
        doc.child_base64(LTKM, ltkm);
    }
    doc.close(container);
}
