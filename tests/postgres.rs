//! Real PostgreSQL servers: that they are reached, what is said when they are not, and what every engine promises,
//! proved over the one on PostgreSQL.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "harness/postgres.rs"]
mod server;

#[path = "postgres/citus.rs"]
mod citus;
#[path = "store/conformance.rs"]
mod conformance;
#[path = "postgres/connect.rs"]
mod connect;
#[path = "postgres/failover.rs"]
mod failover;
#[path = "postgres/messages.rs"]
mod messages;
#[path = "postgres/tls.rs"]
mod tls;

#[path = "postgres/engine.rs"]
mod engine;
#[path = "store/harness.rs"]
mod harness;
#[path = "store/histories.rs"]
mod histories;
#[path = "store/jobs.rs"]
mod jobs;
#[path = "postgres/spread.rs"]
mod spread;
#[path = "postgres/together.rs"]
mod together;

conformance_tests!(postgres_conformance: super::engine::Pg);
