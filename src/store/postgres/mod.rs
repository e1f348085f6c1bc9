//! A store in PostgreSQL, which many daemons share.

mod connect;
mod fault;
mod tls;
mod url;

pub use connect::{Connection, Connector, Pool, ServerFacts, check_server};
pub use fault::is_conflict;
pub use url::{PgHost, PgUrl, TlsMode, UrlFault};
