//! Several real daemons on one real database: whichever of them dies, stands still or is wrong about the time, every
//! terminal gets its key, and no T comes twice.

mod harness;
#[path = "harness/postgres.rs"]
mod server;

#[path = "cluster/clock.rs"]
mod clock;
#[path = "cluster/failover.rs"]
mod failover;
#[path = "cluster/fanout.rs"]
mod fanout;
#[path = "cluster/leases.rs"]
mod leases;
#[path = "cluster/nodes.rs"]
mod nodes;
#[path = "cluster/pages.rs"]
mod pages;
#[path = "cluster/receipts.rs"]
mod receipts;
#[path = "cluster/requests.rs"]
mod requests;
#[path = "cluster/starts.rs"]
mod starts;

// The short message centre and its phones, as tests/sms has them.
#[allow(dead_code, reason = "the tests here use a part of it")]
#[path = "sms/peer.rs"]
mod peer;
#[allow(dead_code, reason = "the tests here use a part of it")]
#[path = "sms/phone.rs"]
mod phone;
