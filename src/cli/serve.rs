//! `ltkmd serve`: the daemon, from its configuration to its end.

use std::path::Path;
use std::process::ExitCode;

use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry, reload};

use super::check::EXIT_CONFIGURATION;
use crate::config::{self, LogFormat, Settings};
use crate::daemon::Daemon;

type FilterHandle = reload::Handle<EnvFilter, Registry>;

/// Serves until SIGTERM or SIGINT. Exit code 0 after the drain, 1 when it cannot start, 2 with a faulty
/// configuration.
pub(super) fn run(path: &Path) -> ExitCode {
    let settings = match config::load(path, std::env::vars_os()) {
        Ok(settings) => settings,
        Err(faults) => {
            eprintln!("{faults}");
            return ExitCode::from(EXIT_CONFIGURATION);
        }
    };
    let filter = start_log(&settings);
    for warning in &settings.warnings {
        tracing::warn!("{warning}");
    }
    super::run(serve(path, settings, &filter))
}

/// Logs to stderr in the configured format; gives the handle that changes the filter.
fn start_log(settings: &Settings) -> FilterHandle {
    let (filter, handle) = reload::Layer::new(settings.log.filter.env_filter());
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_target(false);
    let registry = tracing_subscriber::registry().with(filter);
    match settings.log.format {
        LogFormat::Text => {
            registry.with(layer.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))).init()
        }
        LogFormat::Json => registry.with(layer.json()).init(),
    }
    handle
}

async fn serve(path: &Path, mut settings: Settings, filter: &FilterHandle) -> ExitCode {
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
        started = Daemon::start(&settings) => started,
        _ = terminate.recv() => return ExitCode::SUCCESS,
        _ = interrupt.recv() => return ExitCode::SUCCESS,
    };
    let daemon = match started {
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
        store = %settings.store.directory.path().display(),
        "ready"
    );
    tell_systemd(&[NotifyState::Ready]);
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hangup.recv() => reread(path, &mut settings, &daemon, filter),
        }
    }
    tracing::info!("ending");
    tell_systemd(&[NotifyState::Stopping]);
    daemon.shutdown().await;
    ExitCode::SUCCESS
}

/// SIGHUP: takes over what can change, and says what cannot. A faulty file changes nothing.
fn reread(path: &Path, settings: &mut Settings, daemon: &Daemon, filter: &FilterHandle) {
    let new = match config::load(path, std::env::vars_os()) {
        Ok(new) => new,
        Err(faults) => {
            for fault in faults.iter() {
                tracing::error!("{fault}");
            }
            tracing::error!("the configuration is faulty: nothing was changed");
            return;
        }
    };
    let restart = settings.restart_needed(&new);
    if !restart.is_empty() {
        tracing::warn!(keys = restart.join(", "), "these changes need a restart and were left out");
    }
    if let Err(error) = filter.reload(new.log.filter.env_filter()) {
        tracing::error!(%error, "log.filter cannot be changed");
    }
    daemon.reload(&new);
    settings.log.filter = new.log.filter.clone();
    tracing::info!("configuration read again");
}

fn tell_systemd(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "systemd cannot be told");
    }
}
