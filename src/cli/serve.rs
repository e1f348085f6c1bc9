//! `ltkmd serve`: the daemon, from its configuration to its end.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry, reload};

use super::check::EXIT_CONFIGURATION;
use crate::config::{self, LogFormat, Settings};
use crate::daemon::Daemon;
use crate::id::log_btids;
use crate::log::{JOURNAL, Journal, JournalError, no_parameters};
use crate::service_manager::ServiceManager;
use crate::service_manager::sockets::Sockets;

type FilterHandle = reload::Handle<EnvFilter, Registry>;

/// Serves until SIGTERM or SIGINT. Exit code 0 after the drain, 1 when it cannot start or breaks, 2 with a faulty
/// configuration or sockets handed over that do not fit it.
pub(super) fn run(path: &Path) -> ExitCode {
    let handed = match Sockets::from_env() {
        Ok(handed) => handed,
        Err(fault) => {
            eprintln!("ltkmd: {fault}");
            return ExitCode::from(EXIT_CONFIGURATION);
        }
    };
    let settings = match config::load(path, std::env::vars_os()) {
        Ok(settings) => settings,
        Err(faults) => {
            eprintln!("{faults}");
            return ExitCode::from(EXIT_CONFIGURATION);
        }
    };
    let sockets = match Sockets::fit(handed, &settings) {
        Ok(sockets) => sockets,
        Err(faults) => {
            for fault in faults {
                eprintln!("ltkmd: {fault}");
            }
            return ExitCode::from(EXIT_CONFIGURATION);
        }
    };
    let filter = match start_log(&settings) {
        Ok(filter) => filter,
        Err(error) => {
            eprintln!("ltkmd: {error}");
            return ExitCode::FAILURE;
        }
    };
    for warning in &settings.warnings {
        tracing::warn!("{warning}");
    }
    super::run(serve(path, settings, sockets, &filter))
}

/// Logs in the configured format, to stderr or to the journal; gives the handle that changes the filter.
fn start_log(settings: &Settings) -> Result<FilterHandle, JournalError> {
    log_btids(settings.log.btid);
    let (filter, handle) = reload::Layer::new(settings.log.filter.env_filter());
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_target(false);
    let registry = tracing_subscriber::registry().with(filter).with(no_parameters());
    match settings.log.format {
        LogFormat::Text => {
            registry.with(layer.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))).init()
        }
        LogFormat::Json => registry.with(layer.json().with_span_list(false)).init(),
        LogFormat::Journald => registry.with(Journal::connect(Path::new(JOURNAL))?).init(),
    }
    Ok(handle)
}

async fn serve(path: &Path, mut settings: Settings, sockets: Sockets, filter: &FilterHandle) -> ExitCode {
    let manager = Arc::new(ServiceManager::from_env());
    let signals = (|| {
        let terminate = signal(SignalKind::terminate())?;
        let interrupt = signal(SignalKind::interrupt())?;
        Ok::<_, std::io::Error>((terminate, interrupt, signal(SignalKind::hangup())?))
    })();
    let (mut terminate, mut interrupt, mut hangup) = match signals {
        Ok(signals) => signals,
        Err(error) => {
            tracing::error!(%error, "signals cannot be handled");
            return ExitCode::FAILURE;
        }
    };
    let started = tokio::select! {
        started = manager.while_starting(Daemon::start_on(&settings, sockets)) => started,
        _ = terminate.recv() => return ExitCode::SUCCESS,
        _ = interrupt.recv() => return ExitCode::SUCCESS,
    };
    let mut daemon = match started {
        Ok(daemon) => daemon,
        Err(error) => {
            eprintln!("ltkmd: {error}");
            return ExitCode::FAILURE;
        }
    };
    tracing::info!(
        node = %settings.node.name,
        fqdn = %settings.node.fqdn,
        http = ?daemon.http_addresses(),
        udp = ?daemon.udp_addresses(),
        admin = %daemon.admin_address(),
        store = %settings.store.url,
        "ready"
    );
    manager.ready();
    let (watched, pulse) = (Arc::clone(&manager), daemon.pulse());
    // On to the process's end: a drain may take longer than the watchdog waits.
    tokio::spawn(async move { watched.run_watchdog(|| pulse.beat()).await });
    let code = loop {
        tokio::select! {
            _ = terminate.recv() => break ExitCode::SUCCESS,
            _ = interrupt.recv() => break ExitCode::SUCCESS,
            () = daemon.broken() => break ExitCode::FAILURE,
            _ = hangup.recv() => {
                manager.reloading();
                let outcome = reread(path, &mut settings, &daemon, filter);
                manager.reloaded(&outcome);
            }
        }
    };
    tracing::info!("ending");
    manager.stopping(daemon.ends_within());
    daemon.shutdown().await;
    code
}

/// SIGHUP: opens the audit log anew, takes over what can change, and says what cannot. A faulty file changes nothing. Gives
/// the outcome in a line.
fn reread(path: &Path, settings: &mut Settings, daemon: &Daemon, filter: &FilterHandle) -> String {
    daemon.reopen_logs();
    let new = match config::load(path, std::env::vars_os()) {
        Ok(new) => new,
        Err(faults) => {
            for fault in faults.iter() {
                tracing::error!("{fault}");
            }
            tracing::error!("the configuration is faulty: nothing was changed");
            return "the configuration is faulty: nothing was changed, the log says why".to_owned();
        }
    };
    let restart = settings.restart_needed(&new).join(", ");
    if !restart.is_empty() {
        tracing::warn!(keys = restart, "these changes need a restart and were left out");
    }
    if let Err(error) = filter.reload(new.log.filter.env_filter()) {
        tracing::error!(%error, "log.filter cannot be changed");
    }
    daemon.reload(&new);
    log_btids(new.log.btid);
    settings.log.filter = new.log.filter.clone();
    settings.log.btid = new.log.btid;
    tracing::info!("configuration read again");
    match restart.is_empty() {
        true => "configuration read again".to_owned(),
        false => format!("configuration read again; for a restart are left: {restart}"),
    }
}
