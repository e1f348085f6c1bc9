//! The daemon as a whole: what is started in which order, what can change while it runs, how it ends.

use std::io;
use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, RwLock};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use zeroize::Zeroizing;

use crate::admin::{self, AdminListener};
use crate::audit::{AuditLog, SealedHead};
use crate::config::{self, AdminListen, StoreUrl};
use crate::delivery::State;
use crate::digest::{self, Authenticator, DigestConfig, NonceMemory};
use crate::engine::{self, Engine, SmsEvent, SmsOutbox};
use crate::metrics::Metrics;
use crate::secret::Secret;
use crate::service_manager::Pulse;
use crate::service_manager::sockets::Sockets;
use crate::store::{EmbeddedStore, PgSettings, PgStore, Store, StoreError};
use crate::transport::http::{self, HttpListener};
use crate::transport::sms::{Gateway, SmsSettings};
use crate::transport::udp::{self, UdpPort};

/// How long a store that cannot be opened now is left alone before the next try.
const REOPEN: Duration = Duration::from_secs(1);

/// Beyond the HTTP drain: for pages, resends and datagrams that were under way, and for a centre: its answers (5 s),
/// the unbind and closing.
const WIND_UP: Duration = Duration::from_secs(8);

/// For the store to write and sync what it was promised.
const CLOSING: Duration = Duration::from_secs(15);

/// Why the daemon does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address cannot be bound.
    #[error("{0}")]
    Bind(#[from] io::Error),
    /// The store cannot be opened, and waiting would not help.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A running daemon.
pub struct Daemon {
    engine: Arc<Engine>,
    store: Arc<dyn Store>,
    service: Arc<http::Service>,
    limits: Arc<RwLock<http::Limits>>,
    gateway: Option<Arc<Gateway>>,
    audit: Option<Arc<AuditLog>>,
    udp_port: NonZeroU16,
    http: Vec<SocketAddr>,
    udp: Vec<SocketAddr>,
    admin: AdminListen,
    shutdown: watch::Sender<bool>,
    tasks: JoinSet<&'static str>,
}

impl Daemon {
    /// Binds, opens the store, and serves. While a store that may come back cannot be opened (a full or
    /// missing disk), terminals get 503, operators are told that it is not ready, and this waits.
    ///
    /// # Errors
    /// An address that cannot be bound; a store that waiting does not mend.
    pub async fn start(settings: &config::Settings) -> Result<Self, StartError> {
        Self::start_on(settings, Sockets::default()).await
    }

    /// The same, with sockets that were handed over instead of binding their addresses.
    ///
    /// # Errors
    /// See [`Daemon::start`].
    pub async fn start_on(settings: &config::Settings, sockets: Sockets) -> Result<Self, StartError> {
        sockets.log(settings);
        let listeners = http::bind(&settings.http.listen, sockets.http).await?;
        let port = UdpPort::bind_or_take(&settings.udp.listen, sockets.udp, settings.udp.port.get())?;
        let port = Arc::new(port);
        let admin = match sockets.admin {
            Some(socket) => AdminListener::handed_over(socket)?,
            None => bind_admin(&settings.admin.listen).await?,
        };
        let store = open_store(settings, &listeners, &admin).await?;

        let metrics = Arc::new(Metrics::new());
        let audit = open_audit(settings, &store, &metrics)?;
        metrics.certificate_expires(settings.http.tls.as_ref().and_then(|tls| tls.expires));
        let outbox: Arc<dyn engine::Outbox> = Arc::<UdpPort>::clone(&port);
        let sms = settings
            .sms
            .as_ref()
            .map(|sms| Gateway::new(SmsSettings::new(sms, settings.udp.port), Arc::clone(&metrics)));
        let engine =
            Arc::new(Engine::new(Arc::clone(&store), engine_settings(settings), metrics, outbox).await?);
        let service = Arc::new(http_service(settings, Arc::clone(&engine))?);
        let limits = Arc::new(RwLock::new(http_limits(settings)));
        let listener = HttpListener::new(listeners, Arc::clone(&service), Arc::clone(&limits));

        let (shutdown, ending) = watch::channel(false);
        let (http, udp) = (listener.local_addresses()?, port.local_addresses()?);
        let admin_at = admin.local_addr().map_or_else(|| settings.admin.listen.clone(), AdminListen::Tcp);
        let store_latch = engine.add_latch("store");
        store_latch.store(true, Ordering::Relaxed);
        for listening in ["http", "udp"] {
            engine.add_latch(listening).store(true, Ordering::Relaxed);
        }
        let mut tasks = JoinSet::new();
        let auth = admin::Auth {
            admin_token: settings.admin.admin_token.clone(),
            key_reader_token: settings.admin.key_reader_token.clone(),
            unix: admin.is_unix(),
        };
        let of = || (Arc::clone(&engine), ending.clone());
        let (e, s) = of();
        let log = audit.clone();
        tasks.spawn(async move {
            if let Err(error) = admin::serve(admin, e, auth, log, s).await {
                tracing::error!(%error, "the admin API ended");
            }
            "admin requests"
        });
        let s = ending.clone();
        tasks.spawn(async move {
            listener.serve(s).await;
            "http requests"
        });
        let (e, s) = of();
        tasks.spawn(async move {
            udp::run_intake(port, e, s).await;
            "verification messages"
        });
        let (e, s) = of();
        tasks.spawn(async move {
            e.run_fanout(s).await;
            "fan-out pages"
        });
        let (e, s) = of();
        tasks.spawn(async move {
            e.run_resends(s).await;
            "resends"
        });
        let (e, s) = of();
        tasks.spawn(async move {
            e.run_schedule(s).await;
            "the schedule"
        });
        let (e, s) = of();
        tasks.spawn(async move {
            e.run_catalogue(s).await;
            "what other daemons change"
        });
        let (e, s) = of();
        tasks.spawn(async move {
            e.run_probe(store_latch, s).await;
            "the store's probe"
        });
        let udp_port = settings.udp.port;
        let gateway = sms.as_ref().map(|(gateway, _)| Arc::clone(gateway));
        run_sms(&mut tasks, &engine, sms, ending.clone());
        let (h, s) = (Arc::clone(&service), ending.clone());
        tasks.spawn(async move {
            h.run_gauges(s).await;
            "gauges of the terminal-facing service"
        });
        Ok(Self {
            engine,
            store,
            service,
            limits,
            gateway,
            audit,
            udp_port,
            http,
            udp,
            admin: admin_at,
            shutdown,
            tasks,
        })
    }

    /// Where terminals' requests are taken.
    pub fn http_addresses(&self) -> &[SocketAddr] {
        &self.http
    }

    /// Where LTKMs leave from and verification messages arrive.
    pub fn udp_addresses(&self) -> &[SocketAddr] {
        &self.udp
    }

    /// Where the admin API listens.
    pub fn admin_address(&self) -> &AdminListen {
        &self.admin
    }

    /// The engine, for who runs the daemon inside the process.
    pub fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    /// What the watchdog feels.
    pub fn pulse(&self) -> Pulse {
        Pulse::new(Arc::clone(&self.engine), Arc::clone(&self.store), self.shutdown.subscribe())
    }

    /// Waits until a part of the daemon ends that never does by itself: it broke, and the daemon is to be started
    /// again. Nothing is lost when this is not waited for to its end.
    pub async fn broken(&mut self) {
        match self.tasks.join_next().await {
            Some(Ok(what)) => tracing::error!(what, "ended by itself"),
            Some(Err(error)) => tracing::error!(%error, "a task broke"),
            None => {}
        }
    }

    /// How long [`shutdown`](Self::shutdown) takes at most, from now.
    pub fn ends_within(&self) -> Duration {
        self.limits.read().expect("no holder of this lock panics").drain + WIND_UP + CLOSING
    }

    /// Takes over what can change while it runs: HTTP limits and timeouts, the TLS certificate, how short message
    /// centres are spoken to. Whether there is TLS cannot: a listener that has it never falls back to plain HTTP.
    /// Nor whether there is SMS.
    pub fn reload(&self, settings: &config::Settings) {
        let mut new = http_limits(settings);
        let mut limits = self.limits.write().expect("no holder of this lock panics");
        if new.tls.is_some() != limits.tls.is_some() {
            new.tls = limits.tls.take();
        } else {
            let expires = settings.http.tls.as_ref().and_then(|tls| tls.expires);
            self.engine.metrics().certificate_expires(expires);
        }
        *limits = new;
        drop(limits);
        self.service.max_items.store(settings.http.max_items, Ordering::Relaxed);
        if let (Some(gateway), Some(sms)) = (&self.gateway, &settings.sms) {
            gateway.reload(SmsSettings::new(sms, self.udp_port));
        }
    }

    /// Opens the audit log's path anew, for who has moved the file away.
    pub fn reopen_logs(&self) {
        if let Some(audit) = self.audit.clone() {
            tokio::spawn(async move { audit.reopen().await });
        }
    }

    /// Ends: takes nothing new, finishes what is under way up to the deadline, closes the store. Says what
    /// was left.
    pub async fn shutdown(mut self) {
        self.shutdown.send_replace(true);
        let drain = self.limits.read().expect("no holder of this lock panics").drain;
        let deadline = tokio::time::Instant::now() + drain + WIND_UP;
        while let Ok(Some(ended)) = tokio::time::timeout_at(deadline, self.tasks.join_next()).await {
            match ended {
                Ok(what) => tracing::debug!(what, "drained"),
                Err(error) => tracing::error!(%error, "a task broke"),
            }
        }
        let left = self.tasks.len();
        if left > 0 {
            tracing::warn!(tasks = left, "not drained at the deadline");
            self.tasks.abort_all();
        }
        if let Some(audit) = &self.audit {
            audit.close().await;
        }
        let counts = self.store.counts();
        let open: u64 = State::ALL.into_iter().filter(|s| s.is_open()).map(|s| counts.open[s as usize]).sum();
        if let Err(error) = self.store.close().await {
            tracing::error!(%error, "closing the store");
        }
        tracing::info!(deliveries = open, "ended; open deliveries go on at the next start");
    }
}

/// Opens the audit log. One that cannot be written now refuses changes until it can; terminals are served meanwhile.
fn open_audit(
    settings: &config::Settings,
    store: &Arc<dyn Store>,
    metrics: &Arc<Metrics>,
) -> io::Result<Option<Arc<AuditLog>>> {
    let Some(path) = &settings.audit.file else { return Ok(None) };
    let directory = settings.audit_head_directory().unwrap_or(Path::new("/"));
    let keeper = SealedHead::new(directory, Arc::clone(store));
    let log = AuditLog::open(path, settings.node.name.as_str(), Box::new(keeper), Arc::clone(metrics))?;
    Ok(Some(Arc::new(log)))
}

async fn bind_admin(listen: &AdminListen) -> io::Result<AdminListener> {
    let bound = match listen {
        AdminListen::Tcp(address) => AdminListener::tcp(*address).await,
        AdminListen::Unix(path) => AdminListener::unix(path),
    };
    bound.map_err(|e| io::Error::new(e.kind(), format!("admin.listen: {listen} cannot be bound: {e}")))
}

/// Opens the store, answering 503 for as long as it cannot be opened but may come back.
async fn open_store(
    settings: &config::Settings,
    listeners: &[TcpListener],
    admin: &AdminListener,
) -> Result<Arc<dyn Store>, StoreError> {
    let tls = settings.http.tls.as_ref().map(|tls| &tls.server);
    let refuse = || async {
        tokio::join!(http::refuse_for(listeners, tls, REOPEN), admin::unready_for(admin, REOPEN));
    };
    // Who calls meanwhile waits for a directory, which opens sooner or later, and not for a server that may hang.
    let remote = matches!(settings.store.url, StoreUrl::Postgres(_));
    let mut told = false;
    loop {
        let mut opening = Box::pin(open_once(settings));
        let patience = if remote { REOPEN } else { Duration::MAX };
        let mut opened = timeout(patience, &mut opening).await;
        let opened = loop {
            match opened {
                Ok(opened) => break opened,
                // It goes on by itself, on a thread of its own.
                Err(_) => refuse().await,
            }
            opened = timeout(Duration::ZERO, &mut opening).await;
        };
        match opened {
            Ok(store) => return Ok(store),
            Err(error) if error.is_retriable() => {
                if !told {
                    tracing::error!(%error, "not ready; trying again each second");
                    told = true;
                }
                refuse().await;
            }
            Err(error) => return Err(error),
        }
    }
}

async fn open_once(settings: &config::Settings) -> Result<Arc<dyn Store>, StoreError> {
    let store = &settings.store;
    let key: Option<Zeroizing<[u8; 32]>> = match &store.store_key {
        Some(key) => {
            let octets = key.expose().try_into();
            Some(Zeroizing::new(
                octets.map_err(|_| StoreError::Open("store_key holds 32 octets".to_owned()))?,
            ))
        }
        None => None,
    };
    match &store.url {
        StoreUrl::Directory(directory) => {
            let dir = directory.path().to_owned();
            let opening = tokio::task::spawn_blocking(move || EmbeddedStore::open(&dir, key.map(|k| *k)));
            let opened = opening.await.map_err(|e| StoreError::Open(format!("opening broke off: {e}")))?;
            Ok(Arc::new(opened?))
        }
        StoreUrl::Postgres(url) => {
            let master =
                key.ok_or_else(|| StoreError::Open("a shared store needs a store key".to_owned()))?;
            let addresses = settings.http.listen.iter().map(ToString::to_string).collect::<Vec<_>>();
            let settings = PgSettings {
                url: url.clone(),
                password: store.password.clone(),
                master,
                node: settings.node.name.as_str().to_owned(),
                http: addresses.join(", "),
                connections: store.connections,
            };
            let opening = tokio::task::spawn_blocking(move || PgStore::open(&settings));
            let opened = opening.await.map_err(|e| StoreError::Open(format!("opening broke off: {e}")))?;
            Ok(Arc::new(opened?))
        }
    }
}

/// Starts what SMS needs: turns become triggers, the gateway brings them to a centre, what becomes of them is
/// recorded. At the end in this order: no more triggers, then the gateway drains, then the last events.
fn run_sms(
    tasks: &mut JoinSet<&'static str>,
    engine: &Arc<Engine>,
    sms: Option<(Arc<Gateway>, mpsc::Receiver<SmsEvent>)>,
    ending: watch::Receiver<bool>,
) {
    let (no_more_triggers, gateway_ending) = watch::channel(false);
    let outbox = sms.as_ref().map(|(gateway, _)| Arc::<Gateway>::clone(gateway) as Arc<dyn SmsOutbox>);
    let e = Arc::clone(engine);
    tasks.spawn(async move {
        e.run_sms(outbox, ending).await;
        no_more_triggers.send_replace(true);
        "turns by SMS"
    });
    let Some((gateway, events)) = sms else { return };
    let (drained, gateway_ended) = oneshot::channel();
    tasks.spawn(async move {
        gateway.run(gateway_ending).await;
        // Nobody listens any more when the events have ended first.
        let _ = drained.send(());
        "short messages"
    });
    let e = Arc::clone(engine);
    tasks.spawn(async move {
        e.run_sms_events(events, gateway_ended).await;
        "what became of short messages"
    });
}

fn engine_settings(settings: &config::Settings) -> engine::Settings {
    engine::Settings {
        rules: settings.delivery_rules(),
        identity: engine::Identity {
            fqdn: settings.node.fqdn.as_str().to_owned(),
            id_type: settings.mikey.id_type,
        },
        retain: settings.keys.retain,
        udp_rate: settings.udp.rate.map(std::num::NonZeroU32::get),
        nonce_lifetime: settings.digest.nonce_lifetime,
    }
}

fn http_service(settings: &config::Settings, engine: Arc<Engine>) -> Result<http::Service, StoreError> {
    let config = DigestConfig {
        fqdn: settings.node.fqdn.as_str().to_owned(),
        algorithms: settings.digest.algorithms.clone(),
        nonce_lifetime: settings.digest.nonce_lifetime,
        max_nonces: digest::DEFAULT_MAX_NONCES,
    };
    Ok(http::Service {
        engine,
        authenticator: Authenticator::new(config, nonce_memory(settings)?),
        path: settings.http.path.as_str().to_owned(),
        trusted_proxies: settings.http.trusted_proxies.clone(),
        children: settings.xml.children,
        max_items: AtomicUsize::new(settings.http.max_items),
    })
}

/// Who knows this daemon's nonces. On a store that daemons share, every daemon with the same cluster secret
/// (`node.cluster_secret_file`), and the terminals' records there say which counts were used. Else this process alone.
fn nonce_memory(settings: &config::Settings) -> Result<NonceMemory, StoreError> {
    if let (StoreUrl::Postgres(_), Some(secret)) = (&settings.store.url, &settings.node.cluster_secret) {
        return Ok(NonceMemory::Shared(secret.clone()));
    }
    let mut secret = Zeroizing::new([0u8; 32]);
    getrandom::fill(&mut *secret)
        .map_err(|e| StoreError::Open(format!("the system gives no randomness: {e}")))?;
    Ok(NonceMemory::Process(Secret::from(&secret[..])))
}

fn http_limits(settings: &config::Settings) -> http::Limits {
    http::Limits {
        max_connections: settings.http.max_connections,
        request_timeout: settings.http.request_timeout,
        max_body: settings.http.max_body,
        drain: settings.http.drain,
        tls: settings.http.tls.as_ref().map(|tls| Arc::clone(&tls.server)),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn nonces_are_shared_with_those_who_have_the_cluster_secret_and_are_ones_own_without_one() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("cluster_secret");
        fs::write(&file, "ab".repeat(32)).expect("a file");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("its owner's alone");
        let memory = |url: &str, more: &str| {
            let text = format!(
                "node.name = \"a\"\nnode.fqdn = \"bmsc.example.com\"\nstore.url = \"{url}\"\n\
                 admin.listen = \"unix:{0}/admin.sock\"\n{more}",
                dir.path().display()
            );
            let settings = config::Settings::from_toml_str(&text, "a test").expect("settings");
            nonce_memory(&settings).expect("randomness")
        };
        let alone = format!("file:{}/store", dir.path().display());
        let secret = format!("node.cluster_secret_file = \"{}\"\n", file.display());
        let (NonceMemory::Process(one), NonceMemory::Process(other)) =
            (memory(&alone, ""), memory(&alone, &secret))
        else {
            panic!("shared on a store that is not");
        };
        assert_ne!(one, other);
        let keys = format!(
            "{secret}store.store_key_file = \"{}\"\naudit.file = \"{}/audit.log\"\n",
            file.display(),
            dir.path().display()
        );
        let shared = memory("postgres://ltkmd@127.0.0.1/ltkmd", &keys);
        let NonceMemory::Shared(secret) = shared else { panic!("not shared: {shared:?}") };
        assert_eq!(secret.expose(), [0xAB; 32]);
    }
}
