//! ltkmd delivers the long-term keys of mobile broadcast: one MIKEY message (LTKM) per terminal and key.

pub mod admin;
pub mod audit;
pub mod cli;
pub mod config;
pub mod daemon;
pub mod delivery;
pub mod digest;
pub mod document;
pub mod engine;
pub mod gba;
pub mod id;
pub mod keys;
pub mod log;
pub mod metrics;
pub mod procedure;
pub mod secret;
pub mod service_manager;
pub mod store;
pub mod time;
pub mod transport;
pub mod units;
