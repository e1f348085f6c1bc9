//! What bounds terminals' connections and requests.

use std::sync::Arc;
use std::time::Duration;

use tokio_rustls::rustls::ServerConfig;

/// What can change while the listener runs.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Connections open at a time.
    pub max_connections: usize,
    /// For a request's head, and for its body; and for the store to answer.
    pub request_timeout: Duration,
    /// Octets of a body.
    pub max_body: usize,
    /// How long open requests are waited for at the end.
    pub drain: Duration,
    /// TLS, when configured.
    pub tls: Option<Arc<ServerConfig>>,
}
