//! The terminal-facing HTTP side.

pub mod forwarded;
