//! The XML of every procedure: one file per document, its reader beside its writer (LTKM profile §2).
//!
//! Readers take the dialects that are out there: any of the MBMS security namespaces in any case of their stem, the
//! children of BCAST containers in the container's namespace, the document's default one or none, elements nobody
//! knows, plain XML or base64 of it. They refuse everything that is malformed or hostile, within limits, and say what
//! and where. Nothing is expanded: a document type declaration or a custom entity ends the reading at once.
//!
//! ```
//! use ltkmd::document::{BodyForm, ContainerChildren, Limits, RegistrationRequest, Style};
//!
//! let body = br#"<mbmsSecurityRegister xmlns="urn:3GPP:metadata:2005:MBMS:securityRegistration">
//!   <serviceID>urn:example:news</serviceID>
//! </mbmsSecurityRegister>"#;
//! let (request, form) = RegistrationRequest::read(body, &Limits::default())?;
//! assert_eq!(request.services[0].as_str(), "urn:example:news");
//! assert_eq!((request.ltkm_delivery, form), (None, BodyForm::Plain));
//! # Ok::<(), ltkmd::document::DocumentError>(())
//! ```

mod body;
mod deregistration_request;
mod error;
mod extension;
pub mod fuzz;
pub mod media_type;
mod msk_request;
mod msk_response;
pub mod namespace;
mod register_response;
mod registration_request;
mod response;
mod services;
mod status;
#[cfg(test)]
mod tests;
mod value;
mod xml_name;
mod xml_reader;
mod xml_tag;
mod xml_writer;

use std::str::FromStr;

use crate::procedure::Procedure;

pub use body::BodyForm;
pub use deregistration_request::DeregistrationRequest;
pub use error::{DocumentError, Excerpt, Fault};
pub use msk_request::{MskItem, MskRequest};
pub use msk_response::MskResponse;
pub use register_response::{DeregistrationResponse, RegistrationResponse};
pub use registration_request::RegistrationRequest;
pub use response::ResponseItem;
pub use status::ResponseCode;

/// What a reader takes at most. Depth (32 elements), attributes (32 an element), namespace declarations (64 in scope)
/// and names (256 octets) have fixed limits beside these.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The longest body, in octets (`http.max_body`).
    pub max_octets: usize,
    /// The most services or keys (`http.max_items`).
    pub max_items: usize,
}

impl Default for Limits {
    /// 64 KiB and 256 items, as the configuration has them.
    fn default() -> Self {
        Self { max_octets: 64 * 1024, max_items: 256 }
    }
}

/// How the children of BCAST containers are written (`xml.children`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ContainerChildren {
    /// In the container's namespace: `<bcast:LTKM>`.
    #[default]
    Qualified,
    /// In the document's default namespace, as the examples of OMA BCAST have them: `<LTKM>`.
    DefaultNamespace,
}

impl ContainerChildren {
    /// The name in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Qualified => "qualified",
            Self::DefaultNamespace => "default-namespace",
        }
    }
}

impl FromStr for ContainerChildren {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "qualified" => Ok(Self::Qualified),
            "default-namespace" => Ok(Self::DefaultNamespace),
            _ => Err("must be \"qualified\" or \"default-namespace\""),
        }
    }
}

/// How a document is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Style {
    /// The names of container children.
    pub children: ContainerChildren,
    /// The form of the body.
    pub form: BodyForm,
}

/// A request of any procedure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// `mbmsSecurityRegister`.
    Register(RegistrationRequest),
    /// `mbmsSecurityDeregister`.
    Deregister(DeregistrationRequest),
    /// `mbmsMSK`.
    Msk(MskRequest),
}

impl Request {
    /// Reads the request of a procedure, and tells the form that the answer takes too.
    ///
    /// # Errors
    /// Everything that LTKM profile §2.1 refuses; the sender is to blame.
    pub fn read(
        procedure: Procedure,
        body: &[u8],
        limits: &Limits,
    ) -> Result<(Self, BodyForm), DocumentError> {
        match procedure {
            Procedure::Register => {
                RegistrationRequest::read(body, limits).map(|(request, form)| (Self::Register(request), form))
            }
            Procedure::Deregister => DeregistrationRequest::read(body, limits)
                .map(|(request, form)| (Self::Deregister(request), form)),
            Procedure::MskRequest => {
                MskRequest::read(body, limits).map(|(request, form)| (Self::Msk(request), form))
            }
        }
    }
}
