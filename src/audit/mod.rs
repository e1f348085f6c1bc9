//! The audit log: who changed what and who read secrets, in a file that shows when it was tampered with.
//!
//! One JSON object a line, each naming the hash of the one before ([`chain`]). A line is durable before what it tells of
//! goes on: no audit, no change. What a chain alone cannot show is a cut at its end, so the last line's number and hash
//! are kept apart from it, sealed under the store's key ([`SealedHead`]), and the running daemon tells them.

pub mod chain;
mod event;
mod file;
mod head;
mod tail;
mod verify;

#[cfg(test)]
mod tests;

pub use chain::{Hash, Head, Record};
pub use event::{Call, Event, Names, Peer, Role, Who, names};
pub use file::{AuditError, AuditLog};
pub use head::{Keeper, SealedHead};
pub use verify::{Fault, Finding, Report, Verifier};
