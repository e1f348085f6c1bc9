//! The real daemon and a short message centre that knows nothing of it: node-smpp, in `tests/sms/smsc/`.

mod harness;

#[path = "sms/ending.rs"]
mod ending;
#[path = "sms/limits.rs"]
mod limits;
#[path = "sms/link.rs"]
mod link;
#[path = "sms/peer.rs"]
mod peer;
#[path = "sms/phone.rs"]
mod phone;
#[path = "sms/trigger.rs"]
mod trigger;
#[path = "sms/trouble.rs"]
mod trouble;
