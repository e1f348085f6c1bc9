//! Registration, deregistration and MSK request as pure decisions: a request and a terminal's state in, what
//! to answer and to send out (TS 33.246 §6.3, LTKM profile §2–§4).

mod deregister;
mod msk_request;
mod register;

pub use deregister::deregister;
pub use msk_request::msk_request;
pub use register::register;

use crate::delivery::Order;
use crate::id::{Method, MethodSet};

/// The three procedures, by their `requesttype`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Procedure {
    /// `register`
    Register,
    /// `deregister`
    Deregister,
    /// `msk-request`
    MskRequest,
}

impl Procedure {
    /// All procedures.
    pub const ALL: [Self; 3] = [Self::Register, Self::Deregister, Self::MskRequest];

    /// The value of the `requesttype` parameter.
    pub fn request_type(self) -> &'static str {
        match self {
            Self::Register => "register",
            Self::Deregister => "deregister",
            Self::MskRequest => "msk-request",
        }
    }

    /// The value of the metrics' `procedure` label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Register => "register",
            Self::Deregister => "deregister",
            Self::MskRequest => "msk_request",
        }
    }
}

/// The code of one service or key in an answer (LTKM profile §2.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// 200 OK
    Ok,
    /// 403 Forbidden: not entitled, or not registered.
    Forbidden,
    /// 404 Not Found: unknown service, key or key domain.
    NotFound,
}

/// The answer to one service or key of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// Its code.
    pub code: Code,
    /// LTKMs that ride beside it, in order of rising T.
    pub orders: Vec<Order>,
}

impl Item {
    fn bare(code: Code) -> Self {
        Self { code, orders: Vec::new() }
    }
}

/// What a request came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// One item per requested service or key, in request order.
    pub items: Vec<Item>,
    /// LTKMs that leave by UDP after the commit.
    pub push: Vec<Order>,
    /// The set to announce: after a registration that declared one.
    pub announced: Option<MethodSet>,
}

/// Splits one item's orders: what rides in the answer, and what is pushed beside it.
fn item(orders: Vec<Order>, push: &mut Vec<Order>) -> Item {
    let (inside, beside) = orders.into_iter().partition(|o| o.via == Method::Http);
    push.extend::<Vec<_>>(beside);
    Item { code: Code::Ok, orders: inside }
}

/// Whether LTKMs ride in the answer.
fn rides(items: &[Item]) -> bool {
    items.iter().any(|item| !item.orders.is_empty())
}
