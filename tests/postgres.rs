//! Real PostgreSQL servers: that they are reached, and what is said when they are not.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "harness/postgres.rs"]
mod server;

#[path = "postgres/citus.rs"]
mod citus;
#[path = "postgres/connect.rs"]
mod connect;
#[path = "postgres/failover.rs"]
mod failover;
#[path = "postgres/tls.rs"]
mod tls;
