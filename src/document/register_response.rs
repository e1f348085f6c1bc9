//! The answer to registrations and deregistrations, `mbmsSecurityRegisterResponse` (TS 26.346 §11.7; OMA BCAST
//! §5.1.6.7.2, §5.1.6.7.3, §5.1.6.9.1; LTKM profile §2.2). The format is shared; the containers differ.

use super::body::{self, BodyForm};
use super::error::{DocumentError, Fault};
use super::extension;
use super::namespace::{self, Space};
use super::response::{RESPONSE, ResponseItem, Subject, read_item, write_items};
use super::services::{SERVICE_ID, read_service_id};
use super::xml_reader::XmlReader;
use super::xml_writer::XmlWriter;
use super::{Limits, Style};
use crate::id::{Method, ServiceId};

const ROOT: &str = "mbmsSecurityRegisterResponse";

/// The answer to a registration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegistrationResponse {
    /// One item per service asked for, in the order of the request.
    pub items: Vec<ResponseItem<ServiceId>>,
    /// The delivery methods that will be used, when the terminal declared any (LTKM profile §4). An empty list
    /// is written as none; reading drops reserved and proprietary types, and gives none when nothing is left.
    pub ltkm_delivery: Option<Vec<Method>>,
}

/// The answer to a deregistration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeregistrationResponse {
    /// One item per service asked for, in the order of the request.
    pub items: Vec<ResponseItem<ServiceId>>,
}

impl Subject for ServiceId {
    const ELEMENT: &'static str = SERVICE_ID;

    fn read(doc: &mut XmlReader<'_>, at: usize) -> Result<Self, DocumentError> {
        read_service_id(doc, at)
    }

    fn write(&self, doc: &mut XmlWriter) {
        doc.leaf(SERVICE_ID, self.as_str());
    }
}

impl RegistrationResponse {
    /// Reads an answer body in either form.
    ///
    /// # Errors
    /// What LTKM profile §2.1 refuses in requests, and LTKMs beside an unsuccessful code; the server is to blame.
    pub fn read(body: &[u8], limits: &Limits) -> Result<(Self, BodyForm), DocumentError> {
        let answer = read(body, limits, extension::REGISTRATION_ITEM)?;
        let methods: Vec<Method> =
            answer.delivery.unwrap_or_default().into_iter().filter_map(Method::from_type).collect();
        let ltkm_delivery = (!methods.is_empty()).then_some(methods);
        Ok((Self { items: answer.items, ltkm_delivery }, answer.form))
    }

    /// Writes the answer.
    pub fn write(&self, style: Style) -> Vec<u8> {
        let methods = self.ltkm_delivery.as_deref().unwrap_or_default();
        write(&self.items, extension::REGISTRATION_ITEM, methods, style)
    }
}

impl DeregistrationResponse {
    /// Reads an answer body in either form.
    ///
    /// # Errors
    /// What LTKM profile §2.1 refuses in requests, and LTKMs beside an unsuccessful code; the server is to blame.
    pub fn read(body: &[u8], limits: &Limits) -> Result<(Self, BodyForm), DocumentError> {
        let answer = read(body, limits, extension::DEREGISTRATION_ITEM)?;
        Ok((Self { items: answer.items }, answer.form))
    }

    /// Writes the answer.
    pub fn write(&self, style: Style) -> Vec<u8> {
        write(&self.items, extension::DEREGISTRATION_ITEM, &[], style)
    }
}

struct Answer {
    items: Vec<ResponseItem<ServiceId>>,
    delivery: Option<Vec<u8>>,
    form: BodyForm,
}

fn read(body: &[u8], limits: &Limits, container: &'static str) -> Result<Answer, DocumentError> {
    let body = body::open(body, limits.max_octets)?;
    let mut doc = XmlReader::new(&body.text, body.skipped)?;
    doc.root(&[ROOT])?;
    let mut items = Vec::new();
    let mut container_seen = false;
    let mut delivery = None;
    while let Some(child) = doc.child()? {
        match (child.space, child.local) {
            (Space::Mbms, RESPONSE) if items.len() == limits.max_items => {
                return Err(doc.error_at(child.at, Fault::TooManyItems(limits.max_items)));
            }
            (Space::Mbms, RESPONSE) => items.push(read_item(&mut doc, child, container)?),
            (Space::Bcast, extension::REGISTRATION_RESPONSE) if container_seen => {
                return Err(doc.error_at(child.at, Fault::Twice(extension::REGISTRATION_RESPONSE)));
            }
            (Space::Bcast, extension::REGISTRATION_RESPONSE) => {
                container_seen = true;
                delivery = extension::read_delivery(&mut doc)?;
            }
            _ => doc.skip_foreign(child)?,
        }
    }
    if items.is_empty() {
        return Err(doc.error(Fault::Missing { missing: RESPONSE, parent: ROOT }));
    }
    doc.finish()?;
    Ok(Answer { items, delivery, form: body.form })
}

fn write(
    items: &[ResponseItem<ServiceId>],
    container: &'static str,
    methods: &[Method],
    style: Style,
) -> Vec<u8> {
    let with_bcast = !methods.is_empty() || items.iter().any(|item| !item.ltkms().is_empty());
    let mut doc = XmlWriter::new(ROOT, namespace::REGISTRATION_RESPONSE, with_bcast, style);
    write_items(&mut doc, items, container);
    let types = methods.iter().map(|method| *method as u8);
    extension::write_delivery(&mut doc, extension::REGISTRATION_RESPONSE, None, types);
    doc.finish()
}
