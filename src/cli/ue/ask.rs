//! What a terminal asks a BM-SC, as documents both ways (LTKM profile §2).

use bytes::Bytes;

use super::target::MAX_ANSWER;
use crate::document::{
    DeregistrationRequest, DeregistrationResponse, DocumentError, Limits, MskItem, MskRequest, MskResponse,
    RegistrationRequest, RegistrationResponse, ResponseCode, ResponseItem, Style,
};
use crate::id::{Method, ServiceId};
use crate::procedure::Procedure;

/// What a terminal takes of an answer: any number of items that fits into its octets.
const LIMITS: Limits = Limits { max_octets: MAX_ANSWER, max_items: 65_536 };

/// A request of a terminal.
#[derive(Debug, Clone)]
pub enum Ask {
    /// To be registered for services, with the delivery types to declare.
    Register(RegistrationRequest),
    /// To be registered no longer.
    Deregister(DeregistrationRequest),
    /// Keys by their ids.
    MskRequest(MskRequest),
}

impl Ask {
    /// A registration; `types` are the `LTKMDelivery` types to declare, none at all when absent.
    pub fn register(services: Vec<ServiceId>, types: Option<Vec<u8>>) -> Self {
        Self::Register(RegistrationRequest { services, ltkm_delivery: types })
    }

    /// A deregistration.
    pub fn deregister(services: Vec<ServiceId>) -> Self {
        Self::Deregister(DeregistrationRequest { services })
    }

    /// An MSK request.
    pub fn msk_request(items: Vec<MskItem>) -> Self {
        Self::MskRequest(MskRequest { items })
    }

    /// The procedure.
    pub fn procedure(&self) -> Procedure {
        match self {
            Self::Register(_) => Procedure::Register,
            Self::Deregister(_) => Procedure::Deregister,
            Self::MskRequest(_) => Procedure::MskRequest,
        }
    }

    /// The request's body.
    pub fn body(&self, style: Style) -> Bytes {
        Bytes::from(match self {
            Self::Register(request) => request.write(style),
            Self::Deregister(request) => request.write(style),
            Self::MskRequest(request) => request.write(style),
        })
    }
}

/// One item of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// The service or key that it speaks of.
    pub subject: Subject,
    /// What became of it.
    pub code: ResponseCode,
    /// The LTKMs beside it, in the order of the document.
    pub ltkms: Vec<Vec<u8>>,
}

/// What an item speaks of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// A service.
    Service(ServiceId),
    /// A key.
    Msk(MskItem),
}

impl std::fmt::Display for Subject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Service(id) => id.fmt(f),
            Self::Msk(item) => write!(f, "{}:{}", item.key_domain, item.msk_id),
        }
    }
}

/// The answer to a request that was acted upon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// One per service or key.
    pub items: Vec<Item>,
    /// The methods that will be used, when the server says so.
    pub delivery: Option<Vec<Method>>,
}

impl Answer {
    /// Reads the body of a 200 to a request of this procedure.
    ///
    /// # Errors
    /// It is not what the profile has it; the server is to blame.
    pub fn read(procedure: Procedure, body: &[u8]) -> Result<Self, DocumentError> {
        let items = |items: Vec<ResponseItem<ServiceId>>| items.iter().map(service_item).collect();
        Ok(match procedure {
            Procedure::Register => {
                let (answer, _) = RegistrationResponse::read(body, &LIMITS)?;
                Self { items: items(answer.items), delivery: answer.ltkm_delivery }
            }
            Procedure::Deregister => {
                let (answer, _) = DeregistrationResponse::read(body, &LIMITS)?;
                Self { items: items(answer.items), delivery: None }
            }
            Procedure::MskRequest => {
                let (answer, _) = MskResponse::read(body, &LIMITS)?;
                Self { items: answer.items.iter().map(msk_item).collect(), delivery: None }
            }
        })
    }

    /// How many items are `200 OK`, one that is listed again not counted.
    pub fn granted(&self) -> usize {
        let granted = |item: &&Item| item.code.is_ok();
        let mut subjects: Vec<&Subject> =
            self.items.iter().filter(granted).map(|item| &item.subject).collect();
        subjects.sort_by_key(|subject| subject.to_string());
        subjects.dedup();
        subjects.len()
    }

    /// Whether every item is `200 OK`.
    pub fn is_all_ok(&self) -> bool {
        self.items.iter().all(|item| item.code.is_ok())
    }
}

fn service_item(item: &ResponseItem<ServiceId>) -> Item {
    let subject = Subject::Service(item.subject().clone());
    Item { subject, code: item.code(), ltkms: item.ltkms().to_vec() }
}

fn msk_item(item: &ResponseItem<MskItem>) -> Item {
    Item { subject: Subject::Msk(*item.subject()), code: item.code(), ltkms: item.ltkms().to_vec() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_that_is_answered_twice_is_granted_once() {
        let id = |id: &str| ServiceId::new(id).unwrap();
        let items = vec![
            ResponseItem::ok(id("urn:a"), Vec::new()),
            ResponseItem::ok(id("urn:a"), Vec::new()),
            ResponseItem::new(id("urn:b"), ResponseCode::FORBIDDEN),
        ];
        let body = RegistrationResponse { items, ltkm_delivery: None }.write(Style::default());
        let answer = Answer::read(Procedure::Register, &body).unwrap();
        assert_eq!((answer.granted(), answer.is_all_ok(), answer.items.len()), (1, false, 3));
    }
}
