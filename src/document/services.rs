//! What registration and deregistration requests share: a list of `serviceID`.

use super::error::{DocumentError, Fault};
use super::value;
use super::xml_reader::XmlReader;
use crate::id::ServiceId;

pub(super) const SERVICE_ID: &str = "serviceID";

/// Reads a `serviceID` whose start tag, at octet `at`, has been read.
pub(super) fn read_service_id(doc: &mut XmlReader<'_>, at: usize) -> Result<ServiceId, DocumentError> {
    let text = doc.text()?;
    ServiceId::new(&value::collapse(&text)).map_err(|e| doc.error_at(at, Fault::ServiceId(e)))
}

/// Adds a service to a request that may hold `max` of them.
pub(super) fn push_service(
    doc: &mut XmlReader<'_>,
    at: usize,
    services: &mut Vec<ServiceId>,
    max: usize,
) -> Result<(), DocumentError> {
    if services.len() == max {
        return Err(doc.error_at(at, Fault::TooManyItems(max)));
    }
    services.push(read_service_id(doc, at)?);
    Ok(())
}
