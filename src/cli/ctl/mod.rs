//! `ltkmd ctl`: the operator's hand on a running daemon, through its admin API.

pub(super) mod api;
mod audit;
mod backup;
mod cluster;
mod file;
mod job;
mod provision;
mod service;
mod show;
mod story;
mod terminal;

#[cfg(test)]
mod tests;

use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde_json::Value;
use zeroize::Zeroizing;

use self::api::{Api, DEFAULT_SOCKET, default_endpoint};
use self::show::{Screen, cell};
use super::client::Endpoint;

/// `ltkmd ctl`.
#[derive(Debug, clap::Args)]
pub struct Ctl {
    /// The daemon's admin API: http://HOST:PORT or unix:PATH; without it /run/ltkmd/admin.sock, then
    /// http://127.0.0.1:9470
    #[arg(long, value_name = "URL", env = "LTKMD_CTL_ADMIN", global = true, help_heading = "The daemon")]
    admin: Option<Endpoint>,
    /// The file that holds the admin token (for `--secrets` the key reader's token); a unix
    /// socket needs none
    #[arg(
        long,
        value_name = "FILE",
        env = "LTKMD_CTL_TOKEN_FILE",
        global = true,
        help_heading = "The daemon"
    )]
    token_file: Option<PathBuf>,
    /// Print what the API answers, for programs
    #[arg(long, global = true)]
    json: bool,
    /// What to do.
    #[command(subcommand)]
    command: Command,
}

/// What `ctl` does.
#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Show how the daemon is; exit 1 when it is not ready
    Status,
    /// Show the daemons on the store, what each of them holds, and the database; exit 1 when something is amiss
    Cluster,
    /// Services: what terminals register for
    #[command(subcommand)]
    Service(service::Service),
    /// Subscribers and what they may watch
    #[command(subcommand)]
    Subscriber(provision::Subscriber),
    /// Terminals' credentials
    #[command(subcommand)]
    Credential(provision::Credential),
    /// Keys of services
    #[command(subcommand)]
    Key(service::Key),
    /// Terminals that have registered
    #[command(subcommand)]
    Terminal(terminal::Terminal),
    /// Deliveries to terminals
    #[command(subcommand)]
    Delivery(terminal::Delivery),
    /// Fan-out jobs: a new key on its way to all terminals of a service
    #[command(subcommand)]
    Job(job::Job),
    /// The audit log: who changed what, and whether the log is whole
    #[command(subcommand)]
    Audit(audit::Audit),
    /// Import services, subscribers and credentials: one JSON object a line, each with its id; exit 1 when a
    /// line was faulty
    Import(provision::Import),
    /// Export services, subscribers and credentials in the form that `import` takes; the keys of credentials are left
    /// out without --secrets
    Export(backup::Export),
    /// Back up the whole store while the daemon runs: what it holds at one moment, for `ltkmd restore`
    Backup(backup::Backup),
    /// Let a store take changes again that ltkmd migrate has frozen
    #[command(
        after_help = "A freeze ends by itself a minute after ltkmd migrate was last heard of. A store that has moved \
stays frozen: --back is for who knows that no daemon has run on the database. Terminals refuse keys whose T is not above \
what they have seen, and what that daemon sent is unknown here."
    )]
    Thaw {
        /// Also a store that has moved
        #[arg(long)]
        back: bool,
    },
}

/// Why `ctl` did not do what it was told.
#[derive(Debug)]
pub(super) struct Failure {
    code: u8,
    /// One sentence; empty when all is said already.
    sentence: String,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.sentence)
    }
}

impl Failure {
    /// It could not be done: exit code 1.
    fn failed(sentence: impl Into<String>) -> Self {
        Self { code: 1, sentence: sentence.into() }
    }

    /// It cannot be meant so: exit code 2.
    fn usage(sentence: impl Into<String>) -> Self {
        Self { code: 2, sentence: sentence.into() }
    }

    /// It was done, and the outcome that was shown is a failure: exit code 1.
    fn shown() -> Self {
        Self::failed("")
    }
}

/// Carries a command out. Answers go to stdout, progress bars to stderr, faults there too as one sentence. Exit code
/// 0: done, 1: failed, 2: wrong usage, 130: a job is followed no longer because of Ctrl-C.
pub async fn run(ctl: Ctl) -> ExitCode {
    let (terminal, bars) = (io::stdout().is_terminal(), io::stderr().is_terminal());
    let (mut out, mut err) = (io::stdout(), io::stderr());
    let code = execute(ctl, |json| Screen { out: &mut out, err: &mut err, json, terminal, bars }).await;
    ExitCode::from(code)
}

async fn execute<'a>(ctl: Ctl, screen: impl FnOnce(bool) -> Screen<'a>) -> u8 {
    let mut screen = screen(ctl.json);
    let outcome = perform(ctl, &mut screen).await;
    let flushed = screen.out.flush();
    let failure = match (outcome, flushed) {
        (Err(failure), _) => failure,
        (Ok(()), Err(error)) if error.kind() != io::ErrorKind::BrokenPipe => {
            Failure::failed(format!("the output cannot be written: {error}"))
        }
        (Ok(()), _) => return 0,
    };
    if !failure.sentence.is_empty() {
        // Nobody is left to tell when stderr is gone too.
        let _ = writeln!(screen.err, "ltkmd ctl: {}", failure.sentence);
    }
    failure.code
}

async fn perform(ctl: Ctl, screen: &mut Screen<'_>) -> Result<(), Failure> {
    let endpoint = match ctl.admin {
        Some(endpoint) => endpoint,
        None => default_endpoint(Path::new(DEFAULT_SOCKET))?,
    };
    let api = &mut Api::new(endpoint, ctl.token_file.as_deref())?;
    match ctl.command {
        Command::Status => status(api, screen).await,
        Command::Cluster => cluster::show(api, screen).await,
        Command::Service(command) => command.run(api, screen).await,
        Command::Subscriber(command) => command.run(api, screen).await,
        Command::Credential(command) => command.run(api, screen).await,
        Command::Key(command) => command.run(api, screen).await,
        Command::Terminal(command) => command.run(api, screen).await,
        Command::Delivery(command) => command.run(api, screen).await,
        Command::Job(command) => command.run(api, screen).await,
        Command::Audit(command) => command.run(api, screen).await,
        Command::Import(import) => import.run(api, screen).await,
        Command::Export(export) => export.run(api, screen).await,
        Command::Backup(backup) => backup.run(api, screen).await,
        Command::Thaw { back } => {
            api.call("POST", &format!("/v1/thaw?back={back}"), None).await?;
            screen.line("the store takes changes")
        }
    }
}

async fn status(api: &mut Api, screen: &mut Screen<'_>) -> Result<(), Failure> {
    let reply = api.get("/v1/status").await?;
    let status = &reply.value;
    if screen.json {
        screen.raw(&reply)?;
    } else {
        let ready = if status["ready"] == true { "yes" } else { "no" };
        screen.card(vec![
            ("daemon", format!("ltkmd {} at {}", cell(&status["version"]), api.endpoint())),
            ("clock", cell(&status["now"])),
            ("ready", ready.to_owned()),
            ("checks", cell(&status["checks"])),
            ("services", cell(&status["services"])),
            ("registrations", cell(&status["registrations"])),
            ("deliveries open", cell(&status["deliveries_open"])),
            ("jobs running", cell(&status["jobs_running"])),
            ("jobs paused", cell(&status["jobs_paused"])),
        ])?;
    }
    if status["ready"] == true { Ok(()) } else { Err(Failure::failed("the daemon is not ready")) }
}

/// The text of a file, `-` is stdin; one trailing newline is not part of it. Wiped when it is dropped.
fn read_text(path: &Path) -> Result<Zeroizing<String>, Failure> {
    let read = match path.as_os_str() == "-" {
        true => io::read_to_string(io::stdin()),
        false => std::fs::read_to_string(path),
    };
    let mut text =
        Zeroizing::new(read.map_err(|e| Failure::usage(format!("{} cannot be read: {e}", path.display())))?);
    if text.ends_with('\n') {
        text.pop();
    }
    Ok(text)
}

/// The JSON document that a file holds, `-` is stdin.
fn read_document(path: &Path) -> Result<Value, Failure> {
    let text = read_text(path)?;
    serde_json::from_str(&text).map_err(|e| {
        // The error's own words might repeat a secret.
        let place = format!("line {}, column {}", e.line(), e.column());
        Failure::usage(format!("{} holds no JSON ({place})", path.display()))
    })
}

/// Two numbers `LOWER,UPPER`.
fn mtk_ids(text: &str) -> Result<[u16; 2], &'static str> {
    let both =
        text.split_once(',').and_then(|(lower, upper)| Some([lower.parse().ok()?, upper.parse().ok()?]));
    both.ok_or("give two numbers from 1 to 65535, such as 1,65535")
}
