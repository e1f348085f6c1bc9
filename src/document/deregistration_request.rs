//! The deregistration request, `mbmsSecurityDeregister` (TS 26.346 §11.5; LTKM profile §2.1).

use super::body::{self, BodyForm};
use super::error::{DocumentError, Fault};
use super::namespace::{self, Space};
use super::services::{SERVICE_ID, push_service};
use super::xml_reader::XmlReader;
use super::xml_writer::XmlWriter;
use super::{Limits, Style};
use crate::id::ServiceId;

const ROOT: &str = "mbmsSecurityDeregister";

/// A terminal wants no more LTKMs of these services.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeregistrationRequest {
    /// The services in the order of the document, repeated ones repeated; at least one.
    pub services: Vec<ServiceId>,
}

impl DeregistrationRequest {
    /// Reads a request body in either form.
    ///
    /// # Errors
    /// Everything that LTKM profile §2.1 refuses; the sender is to blame.
    pub fn read(body: &[u8], limits: &Limits) -> Result<(Self, BodyForm), DocumentError> {
        let body = body::open(body, limits.max_octets)?;
        let mut doc = XmlReader::new(&body.text, body.skipped)?;
        doc.root(&[ROOT])?;
        let mut services = Vec::new();
        while let Some(child) = doc.child()? {
            match (child.space, child.local) {
                (Space::Mbms, SERVICE_ID) => {
                    push_service(&mut doc, child.at, &mut services, limits.max_items)?
                }
                _ => doc.skip_foreign(child)?,
            }
        }
        if services.is_empty() {
            return Err(doc.error(Fault::Missing { missing: SERVICE_ID, parent: ROOT }));
        }
        doc.finish()?;
        Ok((Self { services }, body.form))
    }

    /// Writes the request.
    pub fn write(&self, style: Style) -> Vec<u8> {
        let mut doc = XmlWriter::new(ROOT, namespace::DEREGISTRATION, false, style);
        for service in &self.services {
            doc.leaf(SERVICE_ID, service.as_str());
        }
        doc.finish()
    }
}
