//! Thin drivers between the network and the engine: bounded queues, no decisions.

pub mod http;
pub mod sms;
pub mod udp;
