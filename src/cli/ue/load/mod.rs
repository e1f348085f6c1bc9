//! `ue load`: many terminals at once, and how long they had to wait.

mod people;
mod plan;
mod ports;
mod provision;
mod stats;
mod worker;

use std::io::IsTerminal;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use tokio::task::JoinSet;
use tokio::time::Instant;

use self::people::People;
use self::plan::{Choices, Mix, Pace};
use self::ports::Ports;
use self::stats::{Live, Summary, Tally};
use self::worker::{Seen, Shared, Worker};
use super::Trouble;
use super::credential::Credential;
use super::link::{LTKM_PORT, resolve_bsm};
use super::procedures::{DeclareArgs, DialectArgs};
use super::session::seconds;
use super::target::Url;
use crate::cli::client::Endpoint;
use crate::cli::ctl::api::Api;
use crate::id::{Method, ServiceId};

/// How often the progress is shown.
const SHOW: Duration = Duration::from_millis(200);

/// Source addresses on loopback when nobody says how many.
const SOURCES: usize = 4;

/// Where they begin: 127.0.0.1 is the daemon's.
const FIRST_SOURCE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// `ue load`
#[derive(Debug, Clone, Args)]
pub(super) struct LoadArgs {
    /// The key management URL, such as http://127.0.0.1:8080/keymanagement
    #[arg(long, value_name = "URL")]
    url: Url,
    /// A service to register for; may be given more than once
    #[arg(long = "service", value_name = "ID", required = true)]
    services: Vec<ServiceId>,
    #[command(flatten)]
    declare: DeclareArgs,
    #[command(flatten)]
    dialect: DialectArgs,
    #[command(flatten)]
    people: PeopleArgs,
    #[command(flatten)]
    work: WorkArgs,
    #[command(flatten)]
    net: NetArgs,
    /// Print the closing tables as JSON
    #[arg(long)]
    json: bool,
}

/// Who the terminals are.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "The terminals")]
struct PeopleArgs {
    /// How many terminals [default: 1000, or all of the credentials file]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    terminals: Option<u32>,
    /// Make terminals up, and make them and missing services known through this admin API
    #[arg(long, value_name = "URL", env = "LTKMD_CTL_ADMIN", required_unless_present = "credentials")]
    admin: Option<Endpoint>,
    /// A file with the admin token
    #[arg(long, value_name = "FILE", env = "LTKMD_CTL_TOKEN_FILE")]
    token_file: Option<PathBuf>,
    /// Take the terminals from the credential lines of an import file; with --admin they are made known first
    #[arg(long, value_name = "FILE")]
    credentials: Option<PathBuf>,
    /// Keep the terminals that were made up in an import file, for another run
    #[arg(long, value_name = "FILE", conflicts_with = "credentials")]
    save: Option<PathBuf>,
    /// What made-up B-TIDs begin with
    #[arg(long, value_name = "TEXT", default_value = "load")]
    prefix: String,
}

/// What they do.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "The work")]
struct WorkArgs {
    /// Connections at a time; each serves its share of the terminals, one after the other
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    connections: u32,
    /// Requests a second, of all terminals together [default: as fast as answers come]
    #[arg(long, value_name = "N", value_parser = rate)]
    rate: Option<f64>,
    /// How often each terminal takes its turn
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    passes: u32,
    /// Go on for so many seconds instead
    #[arg(long, value_name = "SECONDS", value_parser = seconds, conflicts_with = "passes")]
    duration: Option<Duration>,
    /// What registered terminals do, by weight; whoever is not registered registers
    #[arg(long, value_name = "MIX", default_value = "register=1")]
    mix: Mix,
    /// Each terminal asks for a challenge of its own, instead of sharing its connection's nonce
    #[arg(long)]
    own_challenge: bool,
    /// Wait so many seconds at most, after the last request, for keys and verifications that are still missing
    #[arg(long, value_name = "SECONDS", value_parser = seconds, default_value = "10")]
    settle: Duration,
}

/// Which addresses they have.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "The network")]
struct NetArgs {
    /// The first address that requests leave from [default on loopback: 127.0.0.2; elsewhere the system's choice]
    #[arg(long, value_name = "ADDRESS")]
    source: Option<IpAddr>,
    /// How many addresses from there on terminals are spread over [default: 4 on loopback, else 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=65_536))]
    sources: Option<u32>,
    /// The terminals' LTKM port, as the daemon's udp.port has it
    #[arg(long, value_name = "PORT", default_value_t = LTKM_PORT, value_parser = clap::value_parser!(u16).range(1..))]
    ltkm_port: u16,
    /// Where verification messages go [default: the host of the URL, port 4359]
    #[arg(long, value_name = "HOST:PORT")]
    bsm: Option<String>,
}

fn rate(text: &str) -> Result<f64, &'static str> {
    let wrong = "must be requests a second from 0.001 to 10000000";
    let rate: f64 = text.parse().map_err(|_| wrong)?;
    if (0.001..=1e7).contains(&rate) { Ok(rate) } else { Err(wrong) }
}

/// Runs the load. Exit code 1 when anything failed.
pub(super) async fn load(args: LoadArgs) -> Result<(), Trouble> {
    let bsm = resolve_bsm(args.net.bsm.as_deref(), Some(&args.url)).await.map_err(Trouble::Usage)?;
    let bsm = bsm.ok_or_else(|| Trouble::Usage("the URL's host has no address".to_owned()))?;
    let sources = sources(&args).await?;
    let people = Arc::new(People::new(gather(&args).await?));
    let live = Arc::new(Live::default());
    let ports = Ports::bind(&sources, args.net.ltkm_port, bsm, Arc::clone(&people), Arc::clone(&live));
    let ports = Arc::new(ports.map_err(Trouble::Failed)?);
    let receivers = ports.receive();
    let verified_before = verified(&args).await;

    let style = args.dialect.style();
    let (register, deregister) = worker::bodies(&args.services, args.declare.declared(), style);
    let pace = Arc::new(Pace::begin(args.work.rate, args.work.duration));
    let shared = Arc::new(Shared {
        people: Arc::clone(&people),
        ports: Arc::clone(&ports),
        live: Arc::clone(&live),
        pace: Arc::clone(&pace),
        register,
        deregister,
        style,
        passes: args.work.duration.is_none().then_some(args.work.passes),
        own_challenge: args.work.own_challenge,
    });
    let connections = (args.work.connections as usize).min(people.len());
    let mut workers = start(&args, &shared, &sources, connections)?;
    let (mut tally, registered) = watch(&args, &mut workers, &shared).await;
    let took = pace.began().elapsed();

    let ends = Instant::now() + args.work.settle;
    let missing = settle(&args, &people, &registered, ends).await;
    tally.errors_of("terminal without a key", missing);
    let answered = Live::read(&live.acknowledged) > 0;
    let wanted = if answered { registered.len() as u64 } else { 0 };
    let verified = settle_verified(&args, verified_before, wanted, ends).await;
    tally.errors_of("LTKM not verified", wanted.saturating_sub(verified.unwrap_or(wanted)));
    ports.end();
    for receiver in receivers {
        if receiver.join().is_err() {
            tally.error("LTKM port failed");
        }
    }
    live.settle(&mut tally);
    let terminals = people.len();
    let summary = Summary { tally: &tally, live: &live, terminals, connections, took, verified };
    if args.json {
        println!("{}", summary.json());
    } else {
        summary.print();
    }
    if tally.is_faultless() {
        Ok(())
    } else {
        Err(Trouble::Failed(format!("{} faults: see the errors of the table", tally.faults())))
    }
}

/// The addresses that connections leave from; none when the system is to choose.
async fn sources(args: &LoadArgs) -> Result<Vec<IpAddr>, Trouble> {
    let found =
        args.url.resolve(0).await.map_err(|e| Trouble::Failed(format!("{}: {e}", args.url.host())))?;
    let on_loopback = found.iter().all(|address| address.ip().is_loopback() && address.is_ipv4());
    let first = args.net.source.or(on_loopback.then_some(FIRST_SOURCE.into()));
    let default = if on_loopback { SOURCES.min(args.work.connections as usize) } else { 1 };
    let count = args.net.sources.map_or(default, |count| count as usize);
    match first {
        Some(first) => ports::sources(first, count).map_err(Trouble::Usage),
        None if count > 1 => Err(Trouble::Usage("--sources needs a first address: give --source".to_owned())),
        None => Ok(Vec::new()),
    }
}

/// Makes the terminals up or reads them, and makes them known.
async fn gather(args: &LoadArgs) -> Result<Vec<Credential>, Trouble> {
    let who = &args.people;
    let limit = who.terminals.map(|count| count as usize);
    let credentials = match &who.credentials {
        Some(path) => people::read(path, limit).map_err(Trouble::Usage)?,
        None => people::made_up(limit.unwrap_or(1000), &who.prefix).map_err(Trouble::Usage)?,
    };
    if let Some(path) = &who.save {
        let failed = |e| Trouble::Failed(format!("{}: cannot be written: {e}", path.display()));
        people::save(path, &credentials, &args.services).map_err(failed)?;
    }
    let Some(admin) = &who.admin else { return Ok(credentials) };
    let mut api = Api::new(admin.clone(), who.token_file.as_deref()).map_err(Trouble::usage)?;
    provision::services(&mut api, &args.services).await.map_err(Trouble::Failed)?;
    let bar = bar("made known");
    let made = provision::terminals(&mut api, credentials, args.services.clone(), &bar).await;
    bar.finish_and_clear();
    made.map_err(Trouble::Failed)
}

async fn verified(args: &LoadArgs) -> Option<u64> {
    provision::verified(args.people.admin.as_ref()?).await
}

fn start(
    args: &LoadArgs,
    shared: &Arc<Shared>,
    sources: &[IpAddr],
    connections: usize,
) -> Result<JoinSet<Seen>, Trouble> {
    let mut workers = JoinSet::new();
    for number in 0..connections {
        let port = number % sources.len().max(1);
        let client = args.dialect.client(&args.url, sources.get(port).copied())?;
        let choices = Choices::new(args.work.mix, number);
        let shared = Arc::clone(shared);
        workers.spawn(Worker { shared, client, choices, number, of: connections, port }.run());
    }
    Ok(workers)
}

/// Shows the progress until all connections are done, or the user has had enough.
async fn watch(args: &LoadArgs, workers: &mut JoinSet<Seen>, shared: &Shared) -> (Tally, Vec<usize>) {
    let bar = bar("requests");
    match shared.passes {
        Some(passes) => bar.set_length(u64::from(passes) * shared.people.len() as u64),
        None => bar.set_length(args.work.duration.map_or(0, |duration| duration.as_millis() as u64)),
    }
    let (mut tally, mut registered) = (Tally::new(), Vec::new());
    let mut tick = tokio::time::interval(SHOW);
    let interrupted = tokio::signal::ctrl_c();
    tokio::pin!(interrupted);
    loop {
        tokio::select! {
            seen = workers.join_next() => match seen {
                None => break,
                Some(Ok(seen)) => {
                    tally.add(&seen.tally);
                    registered.extend(seen.registered);
                }
                Some(Err(_)) => tally.error("connection's task broke"),
            },
            _ = tick.tick() => show(&bar, shared),
            _ = &mut interrupted, if !shared.pace.is_stopped() => shared.pace.stop(),
        }
    }
    bar.finish_and_clear();
    (tally, registered)
}

fn show(bar: &ProgressBar, shared: &Shared) {
    let requests = shared.live.requests.load(Ordering::Relaxed);
    let elapsed = shared.pace.began().elapsed();
    match shared.pace.ends() {
        None => bar.set_position(requests),
        Some(_) => bar.set_position(elapsed.as_millis() as u64),
    }
    let per_second = requests as f64 / elapsed.as_secs_f64().max(1e-9);
    bar.set_message(format!("{requests} requests, {per_second:.0}/s, {} LTKMs", shared.live.accepted()));
}

/// Waits until every registered terminal holds a key; gives how many do not in the end. Terminals that are reached
/// by SMS alone get none here.
async fn settle(args: &LoadArgs, people: &People, registered: &[usize], ends: Instant) -> u64 {
    let types = args.declare.declared();
    let reachable = types.is_none_or(|types| {
        types.iter().any(|ty| matches!(Method::from_type(*ty), Some(Method::Udp | Method::Http)))
    });
    if !reachable {
        return 0;
    }
    let mut missing: Vec<usize> = registered.to_vec();
    loop {
        missing.retain(|n| people.all[*n].terminal().keys().is_empty());
        if missing.is_empty() || Instant::now() >= ends {
            return missing.len() as u64;
        }
        tokio::time::sleep(SHOW).await;
    }
}

/// Waits until the daemon has counted `wanted` LTKMs as verified since `before`: each registered terminal's last one at
/// least. Gives what it has counted in the end; none when it cannot be asked.
async fn settle_verified(args: &LoadArgs, before: Option<u64>, wanted: u64, ends: Instant) -> Option<u64> {
    let before = before?;
    loop {
        let counted = verified(args).await?.saturating_sub(before);
        if counted >= wanted || Instant::now() >= ends {
            return Some(counted);
        }
        tokio::time::sleep(SHOW).await;
    }
}

/// A bar on stderr, if that is a terminal.
fn bar(what: &'static str) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let template = format!("{{bar:40}} {{percent:>3}} %  {what}: {{msg}}");
    let style = ProgressStyle::with_template(&template).expect("the template is right");
    ProgressBar::new(0).with_style(style)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::UeArgs;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        ue: UeArgs,
    }

    fn parse(options: &str) -> Result<(), String> {
        let line = format!("ue load --url http://127.0.0.1:8080/km --service urn:a {options}");
        Line::try_parse_from(line.split_whitespace()).map(drop).map_err(|e| e.to_string())
    }

    #[test]
    fn a_load_needs_terminals_from_somewhere() {
        for sound in [
            "--admin http://127.0.0.1:9470 --token-file t",
            "--credentials f",
            "--credentials f --admin unix:/run/a.sock --duration 5 --rate 100.5 --mix register=1,deregister=1",
            "--admin unix:/a --terminals 10 --passes 3 --save f --own-challenge --settle 0.5",
        ] {
            parse(sound).unwrap_or_else(|e| panic!("{sound}: {e}"));
        }
        for (faulty, told) in [
            ("", "--admin"),
            ("--credentials f --save g", "cannot be used with"),
            ("--admin unix:/a --terminals 0", "--terminals"),
            ("--admin unix:/a --rate 0", "0.001"),
            ("--admin unix:/a --duration 5 --passes 2", "cannot be used with"),
            ("--admin unix:/a --mix pull=1", "must be like"),
            ("--admin unix:/a --ltkm-port 0", "--ltkm-port"),
        ] {
            let error = parse(faulty).expect_err(faulty);
            assert!(error.contains(told), "{faulty}: {error}");
        }
    }
}
