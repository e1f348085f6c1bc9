//! The documents as a whole: dialects that are read, hostile ones that are refused, round trips.

mod dialects;
mod hostile;
mod round_trip;

use super::*;
use crate::id::{KeyDomainId, MskId, ServiceId};

const REG: &str = "urn:3GPP:metadata:2005:MBMS:securityRegistration";
const BCAST: &str = "urn:oma:xml:bcast:pr:orderqueries:1.0";

fn service(text: &str) -> ServiceId {
    ServiceId::new(text).expect("a service id")
}

fn read(body: impl AsRef<[u8]>) -> Result<RegistrationRequest, DocumentError> {
    RegistrationRequest::read(body.as_ref(), &Limits::default()).map(|(request, _)| request)
}

/// A registration whose root declares `bcast` and holds `content`.
fn registration(content: &str) -> String {
    format!("<mbmsSecurityRegister xmlns='{REG}' xmlns:bcast='{BCAST}'>{content}</mbmsSecurityRegister>")
}

fn msk_request(content: &str) -> Result<MskRequest, DocumentError> {
    let text = format!("<mbmsMSK xmlns='urn:3GPP:metadata:2005:MBMS:mskRequest'>{content}</mbmsMSK>");
    MskRequest::read(text.as_bytes(), &Limits::default()).map(|(request, _)| request)
}

fn msk_item(key_domain: [u8; 3], msk_id: [u8; 4]) -> MskItem {
    MskItem { key_domain: KeyDomainId(key_domain), msk_id: MskId(msk_id) }
}
