//! The registration request, `mbmsSecurityRegister` (TS 26.346 §11.4; OMA BCAST §5.1.6.7.1; LTKM profile §2.1).

use super::body::{self, BodyForm};
use super::error::{DocumentError, Fault};
use super::extension;
use super::namespace::{self, Space};
use super::services::{SERVICE_ID, push_service};
use super::xml_reader::XmlReader;
use super::xml_writer::XmlWriter;
use super::{Limits, Style};
use crate::id::ServiceId;

const ROOT: &str = "mbmsSecurityRegister";

/// A terminal wants LTKMs of these services, and tells by which ways they can reach it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegistrationRequest {
    /// The services in the order of the document, repeated ones repeated; at least one.
    pub services: Vec<ServiceId>,
    /// The `Type` values of `LTKMDelivery` in order, unknown ones included; none when the container or the
    /// element is absent, never empty.
    pub ltkm_delivery: Option<Vec<u8>>,
}

impl RegistrationRequest {
    /// Reads a request body in either form.
    ///
    /// # Errors
    /// Everything that LTKM profile §2.1 refuses; the sender is to blame.
    pub fn read(body: &[u8], limits: &Limits) -> Result<(Self, BodyForm), DocumentError> {
        let body = body::open(body, limits.max_octets)?;
        let mut doc = XmlReader::new(&body.text, body.skipped)?;
        doc.root(&[ROOT])?;
        let mut services = Vec::new();
        let mut container_seen = false;
        let mut ltkm_delivery = None;
        while let Some(child) = doc.child()? {
            match (child.space, child.local) {
                (Space::Mbms, SERVICE_ID) => {
                    push_service(&mut doc, child.at, &mut services, limits.max_items)?
                }
                (Space::Bcast, extension::REGISTRATION_REQUEST) if container_seen => {
                    return Err(doc.error_at(child.at, Fault::Twice(extension::REGISTRATION_REQUEST)));
                }
                (Space::Bcast, extension::REGISTRATION_REQUEST) => {
                    container_seen = true;
                    ltkm_delivery = extension::read_delivery(&mut doc)?;
                }
                _ => doc.skip_foreign(child)?,
            }
        }
        if services.is_empty() {
            return Err(doc.error(Fault::Missing { missing: SERVICE_ID, parent: ROOT }));
        }
        doc.finish()?;
        Ok((Self { services, ltkm_delivery }, body.form))
    }

    /// Writes the request.
    pub fn write(&self, style: Style) -> Vec<u8> {
        let types = self.ltkm_delivery.as_deref().unwrap_or_default();
        let mut doc = XmlWriter::new(ROOT, namespace::REGISTRATION, !types.is_empty(), style);
        for service in &self.services {
            doc.leaf(SERVICE_ID, service.as_str());
        }
        extension::write_delivery(
            &mut doc,
            extension::REGISTRATION_REQUEST,
            Some("0"),
            types.iter().copied(),
        );
        doc.finish()
    }
}
