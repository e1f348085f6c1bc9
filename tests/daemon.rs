//! The real daemon over real sockets.

mod harness;

#[path = "daemon/delivery.rs"]
mod delivery;
