//! Connections to PostgreSQL: made one server after the other until one takes writes, each a session as the store
//! needs it, kept in a pool.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use deadpool::Runtime;
use deadpool::managed::{self, Metrics, PoolError, QueueMode, RecycleError, RecycleResult, TimeoutType};
use deadpool_postgres::ClientWrapper;
use tokio::time::timeout;
use tokio_postgres::config::{SslMode, TargetSessionAttrs};
use tokio_postgres::{Config, NoTls, Socket};

use super::fault::{fault, read_only};
use super::tls::{Tls, authorities};
use super::url::{PgHost, PgUrl, TlsMode};
use crate::secret::Secret;
use crate::store::StoreError;

/// The name by which the server knows its sessions (`pg_stat_activity`).
const APPLICATION: &str = "ltkmd";
/// How long a server may take to accept.
const CONNECT: Duration = Duration::from_secs(3);
/// How long an address may take for all of it: accept, TLS, authentication, the session's settings.
const ATTEMPT: Duration = Duration::from_secs(5);
/// Addresses of one host name that are tried.
const MAX_ADDRESSES: usize = 8;
/// How long a caller waits for a connection while all are busy.
const WAIT: Duration = Duration::from_secs(5);
/// What a server may leave unacknowledged before the connection counts as broken.
const UNACKNOWLEDGED: Duration = Duration::from_secs(10);
/// Silence after which a server is asked whether it is there, and how often without an answer.
const KEEPALIVE: (Duration, Duration, u32) = (Duration::from_secs(30), Duration::from_secs(10), 3);
/// The oldest version that will do, as `server_version_num` has it.
const OLDEST: i32 = 150_000;

/// What each session is set to. The server asks soon whether a daemon still is there that is silent: what a machine held
/// that lost its power is free within some ten seconds, its name too. A commit is durable at least here, whatever the
/// server's default; one that waits for standbys goes on doing so. A daemon that stands still in a transaction holds up a
/// change of services and keys for less than such a change waits. Each statement reads its rows by an index, one after the
/// other: the planner's other ideas come from statistics that are not there yet. Where the database is distributed, what is
/// about all shards goes over the connection to each worker that is there: opening others takes longer than the answer.
const SESSION: &str = "\
    SET statement_timeout = '5s'; \
    SET lock_timeout = '4s'; \
    SET idle_in_transaction_session_timeout = '3s'; \
    SET default_transaction_isolation = 'read committed'; \
    SET enable_hashjoin = off; \
    SET enable_mergejoin = off; \
    SET citus.max_adaptive_executor_pool_size = 1; \
    SET TimeZone = 'UTC'; \
    SET tcp_keepalives_idle = 4; \
    SET tcp_keepalives_interval = 2; \
    SET tcp_keepalives_count = 3; \
    SET tcp_user_timeout = '10s'; \
    SELECT set_config('synchronous_commit', 'on', false) \
        WHERE current_setting('synchronous_commit') IN ('off', 'local', 'remote_write')";

/// A connection out of the pool, which goes back to it when this is dropped; a client with prepared statements kept.
pub type Connection = managed::Object<Connector>;

/// Makes connections; Debug shows no password.
pub struct Connector {
    url: PgUrl,
    password: Option<Secret>,
    verifying: Option<Tls>,
    /// The server that took writes the last time: it is tried first.
    last: AtomicUsize,
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connector").field("url", &format_args!("{}", self.url)).finish_non_exhaustive()
    }
}

impl Connector {
    /// The server as the subject of a sentence.
    fn at(&self, host: &PgHost) -> String {
        format!("PostgreSQL at {}", self.url.place(host))
    }

    /// The first server that takes writes, beginning with the last that did. When none does, what the one lacks, or
    /// what each of several lacks: waiting may mend it when it may mend one of them.
    async fn any_host(&self) -> Result<ClientWrapper, StoreError> {
        let hosts = self.url.hosts();
        let first = self.last.load(Ordering::Relaxed);
        let mut faults = Vec::new();
        for i in (0..hosts.len()).map(|i| (first + i) % hosts.len()) {
            match self.host(&hosts[i]).await {
                Ok(client) => {
                    self.last.store(i, Ordering::Relaxed);
                    return Ok(client);
                }
                Err(fault) => faults.push(fault),
            }
        }
        Err(all_of(faults))
    }

    async fn host(&self, host: &PgHost) -> Result<ClientWrapper, StoreError> {
        let (name, port) = match host {
            PgHost::Unix(..) => return self.address(host, None).await,
            PgHost::Tcp(name, port) => (name.as_str(), *port),
        };
        let at = self.at(host);
        let found = match timeout(CONNECT, tokio::net::lookup_host((name, port))).await {
            Ok(Ok(found)) => found,
            Ok(Err(e)) => {
                return Err(StoreError::Unavailable(format!(
                    "{at} is not found ({e}): look at the name in store.url and at the name service"
                )));
            }
            Err(_) => {
                return Err(StoreError::Unavailable(format!(
                    "{at} is not found: the name service has not answered for {} s",
                    CONNECT.as_secs()
                )));
            }
        };
        let mut addresses: Vec<IpAddr> = found.map(|a: SocketAddr| a.ip()).collect();
        addresses.dedup();
        let mut last = StoreError::Unavailable(format!("{at} is not found: its name has no address"));
        for address in addresses.into_iter().take(MAX_ADDRESSES) {
            match self.address(host, Some(address)).await {
                Ok(client) => return Ok(client),
                Err(fault) => last = fault,
            }
        }
        Err(last)
    }

    async fn address(&self, host: &PgHost, address: Option<IpAddr>) -> Result<ClientWrapper, StoreError> {
        let config = self.config(host, address);
        let at = self.at(host);
        let attempt = async {
            let client = match (self.url.tls(host), &self.verifying) {
                (TlsMode::Disable, _) => connect(&config, NoTls, &at).await,
                (TlsMode::VerifyFull, Some(tls)) => connect(&config, tls.clone(), &at).await,
                (TlsMode::VerifyFull, None) => unreachable!("an URL that verifies has authorities"),
                (TlsMode::Require, _) => connect(&config, Tls::trusting(), &at).await,
            }?;
            client.batch_execute(SESSION).await.map_err(|e| fault(&at, &e))?;
            Ok(client)
        };
        timeout(ATTEMPT, attempt).await.unwrap_or_else(|_| {
            Err(StoreError::Unavailable(format!(
                "{at} has not answered for {} s: look at its load, and at the network",
                ATTEMPT.as_secs()
            )))
        })
    }

    fn config(&self, host: &PgHost, address: Option<IpAddr>) -> Config {
        let mut config = Config::new();
        match host {
            PgHost::Tcp(name, port) => {
                config.host(name.as_str()).port(*port);
            }
            PgHost::Unix(directory, port) => {
                config.host_path(directory).port(*port);
            }
        }
        if let Some(address) = address {
            config.hostaddr(address);
        }
        if let Some(user) = self.url.user() {
            config.user(user);
        }
        if let Some(password) = &self.password {
            config.password(password.expose());
        }
        let (idle, interval, retries) = KEEPALIVE;
        config
            .dbname(self.url.database())
            .application_name(APPLICATION)
            .ssl_mode(match self.url.tls(host) {
                TlsMode::Disable => SslMode::Disable,
                TlsMode::Require | TlsMode::VerifyFull => SslMode::Require,
            })
            .connect_timeout(CONNECT)
            .tcp_user_timeout(UNACKNOWLEDGED)
            .keepalives(true)
            .keepalives_idle(idle)
            .keepalives_interval(interval)
            .keepalives_retries(retries)
            .target_session_attrs(TargetSessionAttrs::ReadWrite);
        config
    }
}

/// Connects and leaves the connection to a task, which ends with the client.
async fn connect<T>(config: &Config, tls: T, at: &str) -> Result<ClientWrapper, StoreError>
where
    T: tokio_postgres::tls::MakeTlsConnect<Socket>,
    T::Stream: Send + 'static,
{
    let (client, connection) = config.connect(tls).await.map_err(|e| fault(at, &e))?;
    let at = at.to_owned();
    let driven = tokio::spawn(async move {
        if let Err(e) = connection.await {
            tracing::debug!(error = %fault(&at, &e), "a connection to the database ended");
        }
    });
    Ok(ClientWrapper::new(client, driven))
}

/// One fault of several.
fn all_of(mut faults: Vec<StoreError>) -> StoreError {
    if faults.len() == 1 {
        return faults.remove(0);
    }
    let sentences: Vec<&str> = faults
        .iter()
        .map(|fault| match fault {
            StoreError::Open(text) | StoreError::Unavailable(text) | StoreError::Damaged(text) => text,
            StoreError::Moved | StoreError::Outdated | StoreError::Frozen(_) | StoreError::Closed => {
                "it cannot be used now"
            }
        })
        .collect();
    let told = format!("none of {} servers can be used: {}", sentences.len(), sentences.join("; "));
    match faults.iter().any(StoreError::is_retriable) {
        true => StoreError::Unavailable(told),
        false => StoreError::Open(told),
    }
}

impl managed::Manager for Connector {
    type Type = ClientWrapper;
    type Error = StoreError;

    async fn create(&self) -> Result<ClientWrapper, StoreError> {
        self.any_host().await
    }

    async fn recycle(&self, client: &mut ClientWrapper, _: &Metrics) -> RecycleResult<StoreError> {
        match client.is_closed() {
            false => Ok(()),
            true => Err(RecycleError::message("closed")),
        }
    }
}

/// Connections to one database, made when they are needed and kept.
#[derive(Debug, Clone)]
pub struct Pool {
    pool: managed::Pool<Connector>,
    max: usize,
}

impl Pool {
    /// A pool of at most `max` connections, none of which is made yet. Reads the authorities' file.
    ///
    /// # Errors
    /// [`StoreError::Open`]: a file of authorities that is of no use.
    pub fn new(url: PgUrl, password: Option<Secret>, max: usize) -> Result<Self, StoreError> {
        let verifying = match url.sslrootcert() {
            Some(file) => {
                let roots = authorities(file)
                    .map_err(|why| StoreError::Open(format!("the sslrootcert of store.url: {why}")))?;
                Some(Tls::verifying(roots))
            }
            None => None,
        };
        let connector = Connector { url, password, verifying, last: AtomicUsize::new(0) };
        let pool = managed::Pool::builder(connector)
            .max_size(max)
            .wait_timeout(Some(WAIT))
            .queue_mode(QueueMode::Lifo)
            .runtime(Runtime::Tokio1)
            .build()
            .map_err(|e| StoreError::Open(format!("no pool of connections can be made: {e}")))?;
        Ok(Self { pool, max })
    }

    /// A connection that takes writes, or took them a moment ago: one that waits in the pool, or a new one.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] while no server can be reached that takes writes, or all connections have been busy
    /// for 5 s; [`StoreError::Open`] when waiting does not mend it; [`StoreError::Closed`] after [`Self::close`].
    pub async fn get(&self) -> Result<Connection, StoreError> {
        self.pool.get().await.map_err(|error| match error {
            PoolError::Backend(fault) => fault,
            PoolError::Timeout(TimeoutType::Wait) => StoreError::Unavailable(format!(
                "all {} connections to PostgreSQL have been busy for {} s: look at its load, or raise \
                 store.connections",
                self.max,
                WAIT.as_secs()
            )),
            PoolError::Closed => StoreError::Closed,
            PoolError::Timeout(_) | PoolError::NoRuntimeSpecified | PoolError::PostCreateHook(_) => {
                unreachable!("the pool is built with a runtime, and has one timeout and no hook")
            }
        })
    }

    /// Gives every connection up that waits in the pool, for who has seen that its server takes no writes any more.
    pub fn forget(&self) {
        self.pool.retain(|_, _| false);
    }

    /// What an error of a connection out of this pool means, with the place.
    pub fn fault(&self, error: &tokio_postgres::Error) -> StoreError {
        fault(&self.at(), error)
    }

    /// The server that took writes the last time, as the subject of a sentence: `PostgreSQL at HOST:PORT/DATABASE`.
    pub fn at(&self) -> String {
        let connector = self.pool.manager();
        let hosts = connector.url.hosts();
        connector.at(&hosts[connector.last.load(Ordering::Relaxed) % hosts.len()])
    }

    /// Connections that are open, those that are in use, and callers who wait for one.
    pub fn usage(&self) -> (usize, usize, usize) {
        let status = self.pool.status();
        (status.size, status.size.saturating_sub(status.available), status.waiting)
    }

    /// Gives no connection out any more; those that are in use end when they come back.
    pub fn close(&self) {
        self.pool.close();
    }
}

/// What a server is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerFacts {
    /// `server_version_num`: 150004 is 15.4.
    pub version: i32,
    /// The version of the extension Citus in this database; `None` without it.
    pub citus: Option<String>,
    /// Whether commits wait for a standby (`synchronous_standby_names`).
    pub synchronous: bool,
    /// Whether commits survive a crash of the machine (`fsync`); a warning is logged when not.
    pub fsync: bool,
}

/// Looks whether a server will do, and what it is.
///
/// # Errors
/// [`StoreError::Open`] when it is older than PostgreSQL 15; [`StoreError::Unavailable`] when it takes no writes, or
/// does not answer.
pub async fn check_server(pool: &Pool, client: &tokio_postgres::Client) -> Result<ServerFacts, StoreError> {
    const FACTS: &str = "\
        SELECT current_setting('server_version_num')::int4, current_setting('server_version'), \
            pg_is_in_recovery() OR current_setting('transaction_read_only')::bool, \
            current_setting('fsync')::bool, current_setting('synchronous_standby_names') <> '', \
            (SELECT extversion FROM pg_extension WHERE extname = 'citus')";
    let at = pool.at();
    let row = client.query_one(FACTS, &[]).await.map_err(|e| fault(&at, &e))?;
    let version: i32 = row.try_get(0)?;
    if version < OLDEST {
        let version: &str = row.try_get(1)?;
        return Err(StoreError::Open(format!(
            "{at} is version {version}, which is too old: give 15 or later"
        )));
    }
    if row.try_get::<_, bool>(2)? {
        return Err(read_only(&at));
    }
    let facts =
        ServerFacts { version, fsync: row.try_get(3)?, synchronous: row.try_get(4)?, citus: row.try_get(5)? };
    if !facts.fsync {
        tracing::warn!(
            server = at,
            "the database does not sync what it writes (fsync = off): a crash of its machine may lose keys that \
             terminals hold already, turn it on"
        );
    }
    Ok(facts)
}
