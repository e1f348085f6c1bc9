//! The terminal-facing HTTP listener: limits, digest, documents, and the engine's answer on the way back.

mod answer;
pub mod forwarded;
mod limits;
mod listener;
mod prefixed;
mod service;
#[cfg(test)]
mod tests;

pub use limits::Limits;
pub use listener::{HttpListener, bind, refuse_for};
pub use service::Service;
