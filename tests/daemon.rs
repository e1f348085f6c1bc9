//! The real daemon over real sockets.

mod harness;

#[path = "daemon/audit.rs"]
mod audit;
#[path = "daemon/backup.rs"]
mod backup;
#[path = "daemon/delivery.rs"]
mod delivery;
#[path = "daemon/digest.rs"]
mod digest;
#[path = "daemon/documents.rs"]
mod documents;
#[path = "daemon/entitlement.rs"]
mod entitlement;
#[path = "daemon/fanout.rs"]
mod fanout;
#[path = "daemon/http.rs"]
mod http;
#[path = "daemon/jobs.rs"]
mod jobs;
#[path = "daemon/ltkm.rs"]
mod ltkm;
#[path = "daemon/metrics.rs"]
mod metrics;
#[path = "daemon/procedures.rs"]
mod procedures;
#[path = "daemon/store.rs"]
mod store;
#[path = "daemon/tls.rs"]
mod tls;
#[path = "daemon/udp.rs"]
mod udp;
