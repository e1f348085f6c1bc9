//! One, two and three daemons on one PostgreSQL beside the embedded store: registrations and fan-out, in one run on one
//! machine, and what they cost the database.
//!
//! `cargo bench --bench shared -- [TERMINALS]` (50,000 when left out). The server is started by the bench, with syncs as
//! in service, and is gone at its end. The daemons are engines in one process: HTTP is not part of it. Prints a table row
//! for each store.

mod common;
#[path = "../tests/harness/postgres.rs"]
mod server;

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{address, btid, engine, provision};
use ltkmd::engine::{Engine, RotateSpec};
use ltkmd::id::ServiceId;
use ltkmd::store::{EmbeddedStore, JobState, PgSettings, PgStore, Store};
use ltkmd::transport::udp::UdpPort;
use server::{Options, Postgres};
use tokio::task::JoinSet;
use zeroize::Zeroizing;

type Failed = Box<dyn std::error::Error>;

fn main() -> Result<(), Failed> {
    let terminals = std::env::args().skip(1).find_map(|a| a.replace('_', "").parse().ok()).unwrap_or(50_000);
    let options = Options {
        settings: "fsync = on\nshared_buffers = '1GB'\nmax_wal_size = '8GB'\n\
                   shared_preload_libraries = 'pg_stat_statements'\n"
            .to_owned(),
        ..Options::default()
    };
    let server = Postgres::start_with(&options);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    const COST: &str = "statements | WAL octets | µs daemon | µs server";
    println!("| store | registered, /s | {COST} | fan-out, /s | {COST} |");
    println!("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |");
    let dir = tempfile::tempdir()?;
    let embedded: Arc<dyn Store> = Arc::new(EmbeddedStore::open(dir.path(), None)?);
    let own = || Cost { daemon: daemon_us(), ..Cost::default() };
    let (registered, sent) = runtime.block_on(measure(vec![embedded], terminals, own))?;
    let us = |measured: &Measured| measured.1.each(terminals).daemon;
    println!(
        "| embedded | {:.0} | – | – | {:.1} | – | {:.0} | – | – | {:.1} | – |",
        registered.0,
        us(&registered),
        sent.0,
        us(&sent)
    );
    for daemons in 1..=3 {
        let database = server.database();
        server.sql_in(&database, "CREATE EXTENSION pg_stat_statements");
        let open = |n: usize| -> Result<Arc<dyn Store>, Failed> {
            let settings = PgSettings {
                url: server.url_of("postgres", &database).parse()?,
                password: None,
                master: Zeroizing::new([9; 32]),
                node: format!("bsm-{n}"),
                http: String::new(),
                connections: 16,
            };
            Ok(Arc::new(PgStore::open(&settings)?))
        };
        let stores = (1..=daemons).map(open).collect::<Result<Vec<_>, _>>()?;
        await_shares(&server, &database, daemons);
        let cost = || {
            let text = "SELECT (SELECT sum(calls)::bigint FROM pg_stat_statements WHERE dbid = (SELECT oid FROM \
                        pg_database WHERE datname = current_database())) || ' ' || pg_wal_lsn_diff(\
                        pg_current_wal_lsn(), '0/0')::bigint";
            let told = server.sql_in(&database, text);
            let (calls, wal) = told.split_once(' ').expect("two numbers");
            let (calls, wal) = (calls.parse().expect("a number"), wal.parse().expect("a number"));
            Cost { calls, wal, daemon: daemon_us(), server: server_us(&server) }
        };
        let (registered, sent) = runtime.block_on(measure(stores, terminals, cost))?;
        let each = |measured: &Measured| {
            let each = measured.1.each(terminals);
            format!(
                "{:.0} | {:.2} | {:.0} | {:.1} | {:.1}",
                measured.0, each.calls, each.wal, each.daemon, each.server
            )
        };
        println!(
            "| PostgreSQL, {daemons} daemon{} | {} | {} |",
            if daemons == 1 { "" } else { "s" },
            each(&registered),
            each(&sent)
        );
    }
    Ok(())
}

/// Waits until every daemon has its share of the shard ranges.
fn await_shares(server: &Postgres, database: &str, daemons: usize) {
    let text = format!(
        "SELECT count(*) = {daemons} AND min(n) >= {} FROM (SELECT count(*) AS n FROM ltkmd.lease WHERE node IS NOT \
         NULL GROUP BY node) AS held",
        64 / daemons
    );
    let began = Instant::now();
    while server.sql_in(database, &text) != "t" {
        assert!(began.elapsed() < Duration::from_secs(20), "the leases are not shared out");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// What was used up by a moment: statements, octets of WAL, processor time of the daemons and of the server in µs.
#[derive(Debug, Default)]
struct Cost {
    calls: f64,
    wal: f64,
    daemon: f64,
    server: f64,
}

/// The processor time of processes or threads, by their `stat` files, in microseconds.
fn used_us(stat: &str) -> f64 {
    /// Of a second, as Linux counts for everybody.
    const TICK: f64 = 1e6 / 100.0;
    // Behind the name, which may have spaces: state, parent, …, user and system time.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    fields[11..13].iter().filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() * TICK
}

/// Of this process but the terminals in it.
fn daemon_us() -> f64 {
    let threads = std::fs::read_dir("/proc/self/task").expect("Linux").flatten();
    let stats = threads.filter_map(|thread| std::fs::read_to_string(thread.path().join("stat")).ok());
    stats.filter(|stat| !stat.contains(&format!("({SINK})"))).map(|stat| used_us(&stat)).sum()
}

/// Of the server's processes.
fn server_us(server: &Postgres) -> f64 {
    let file = std::fs::read_to_string(server.socket().join("data/postmaster.pid")).expect("it runs");
    let postmaster = file.lines().next().expect("its first line").trim().to_owned();
    let processes = std::fs::read_dir("/proc").expect("Linux").flatten();
    let stats = processes.filter_map(|process| std::fs::read_to_string(process.path().join("stat")).ok());
    let child = |stat: &String| {
        let parent = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(1));
        parent == Some(postmaster.as_str())
    };
    stats.filter(child).map(|stat| used_us(&stat)).sum()
}

/// The thread that stands for the terminals.
const SINK: &str = "terminals";

/// A rate, and what it cost.
type Measured = (f64, Used);

/// What was used up before and after.
#[derive(Debug)]
struct Used(Cost, Cost);

impl Used {
    /// Of each of so many terminals.
    fn each(&self, terminals: usize) -> Cost {
        let Self(from, to) = self;
        let each = |from: f64, to: f64| (to - from) / terminals as f64;
        Cost {
            calls: each(from.calls, to.calls),
            wal: each(from.wal, to.wal),
            daemon: each(from.daemon, to.daemon),
            server: each(from.server, to.server),
        }
    }
}

async fn measure(
    stores: Vec<Arc<dyn Store>>,
    terminals: usize,
    cost: impl Fn() -> Cost,
) -> Result<(Measured, Measured), Failed> {
    // Terminals listen on the whole loopback net; what they do not read in time is theirs to lose.
    let sink = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    let port = sink.local_addr()?.port();
    std::thread::Builder::new().name(SINK.to_owned()).spawn(move || {
        let mut buffer = [0u8; 2048];
        while sink.recv(&mut buffer).is_ok() {}
    })?;
    let mut engines = Vec::new();
    for store in &stores {
        let udp = Arc::new(UdpPort::bind(&[SocketAddr::from(([127, 0, 0, 1], 0))], port)?);
        engines.push(engine(Arc::clone(store), udp).await?);
    }
    let (stop, running) = tokio::sync::watch::channel(false);
    let mut work = JoinSet::new();
    for engine in &engines {
        work.spawn(Arc::clone(engine).run_catalogue(running.clone()));
    }
    let service = ServiceId::new("urn:bench")?;
    provision(&engines[0], &service, terminals).await?;
    let before = cost();
    let took = register_at_all(&engines, &service, terminals).await;
    let registered = (terminals as f64 / took.as_secs_f64(), Used(before, cost()));
    for engine in &engines {
        work.spawn(Arc::clone(engine).run_fanout(running.clone()));
    }
    stores[0].refresh().await?;
    let before = cost();
    let began = Instant::now();
    let (job, _) = engines[0].rotate(&service, RotateSpec::default()).await?;
    loop {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let job = stores[0].job(job).await?.ok_or("the job is gone")?;
        if job.cursor.is_none() || job.state == JobState::Done {
            assert_eq!(job.visited(), terminals as u64, "every terminal was visited");
            break;
        }
    }
    let sent = (terminals as f64 / began.elapsed().as_secs_f64(), Used(before, cost()));
    stop.send(true)?;
    while work.join_next().await.is_some() {}
    drop(engines);
    for store in stores {
        store.close().await?;
    }
    Ok((registered, sent))
}

/// Registers every terminal, each at the daemon whose turn it is.
async fn register_at_all(engines: &[Arc<Engine>], service: &ServiceId, terminals: usize) -> Duration {
    const LANES: usize = 256;
    let began = Instant::now();
    let mut tasks = JoinSet::new();
    for lane in 0..LANES {
        let (engine, service) = (Arc::clone(&engines[lane % engines.len()]), service.clone());
        tasks.spawn(async move {
            for i in (lane..terminals).step_by(LANES) {
                // As the daemon does it: who is it, then the update.
                let asked = engine.authenticable(Some(&btid(i))).await;
                let registered =
                    engine.register(&btid(i), address(i), vec![service.clone()], None, None).await;
                if let Some(error) = asked.err().or(registered.err()) {
                    eprintln!("registration {i}: {error}");
                }
            }
        });
    }
    while tasks.join_next().await.is_some() {}
    began.elapsed()
}
