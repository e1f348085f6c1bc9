//! The terminal-facing HTTP listener: limits, digest, documents, and the engine's answer on the way back.

mod answer;
pub mod forwarded;
mod listener;
mod prefixed;
mod service;

pub use listener::{HttpListener, Limits, bind, refuse_for};
pub use service::Service;
