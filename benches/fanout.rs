//! Durable fan-out beside a bare batched UDP send: the same datagrams, addresses and cores, in one run.
//!
//! `cargo bench --bench fanout -- [TERMINALS]…` (100,000 and 1,000,000 when left out). Prints a table row per
//! size. The store is made below the system's temporary directory and removed at the end.

use std::io::IoSlice;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ltkmd::delivery::{Rules, SmsAlone};
use ltkmd::engine::{
    CredentialKeys, CredentialSpec, Engine, Identity, ImportItem, Outbox, RotateSpec, ServiceSpec, Settings,
};
use ltkmd::gba::GbaType;
use ltkmd::id::{BTid, KeyDomainId, Method, ServiceId, SubscriberId};
use ltkmd::keys::Validity;
use ltkmd::metrics::Metrics;
use ltkmd::secret::Secret;
use ltkmd::store::{EmbeddedStore, JobState, Store, Subscriber};
use ltkmd::transport::udp::UdpPort;
use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrStorage, sendmmsg};

/// Octets of an LTKM of these terminals.
const LTKM: usize = 190;

/// Terminals' addresses: 127.1.0.0/16.
fn address(i: usize) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(127, 1, (i >> 8) as u8, i as u8))
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let sizes: Vec<usize> =
        std::env::args().skip(1).filter_map(|a| a.replace('_', "").parse().ok()).collect();
    let sizes = if sizes.is_empty() { vec![100_000, 1_000_000] } else { sizes };
    println!(
        "| terminals | bare send, /s | fan-out, /s | of bare | registered, /s | RSS, octets a terminal | reopened in |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- |");
    for terminals in sizes {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        runtime.block_on(measure(terminals))?;
    }
    Ok(())
}

async fn measure(terminals: usize) -> Result<(), Box<dyn std::error::Error>> {
    // Terminals listen on the whole loopback net; what they do not read in time is theirs to lose.
    let sink = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    let port = sink.local_addr()?.port();
    std::thread::spawn(move || {
        let mut buffer = [0u8; 2048];
        while sink.recv(&mut buffer).is_ok() {}
    });
    let dir = tempfile::tempdir()?;
    let store: Arc<dyn Store> = Arc::new(EmbeddedStore::open(dir.path(), None)?);
    let udp = Arc::new(UdpPort::bind(&[SocketAddr::from(([127, 0, 0, 1], 0))], port)?);
    let engine = engine(Arc::clone(&store), udp).await?;
    let before = resident();
    let service = ServiceId::new("urn:bench")?;
    let registering = provision(&engine, &service, terminals).await?;
    let per_terminal = resident().saturating_sub(before) as f64 / terminals as f64;

    let (stop, running) = tokio::sync::watch::channel(false);
    let fanout = tokio::spawn(Arc::clone(&engine).run_fanout(running));
    let bare = bare_send(terminals, port)?;
    let began = Instant::now();
    let (job, _) = engine.rotate(&service, RotateSpec::default()).await?;
    loop {
        tokio::time::sleep(Duration::from_millis(2)).await;
        let job = store.job(job).await?.ok_or("the job is gone")?;
        if job.cursor.is_none() || job.state == JobState::Done {
            break;
        }
    }
    stop.send(true)?;
    fanout.await?;
    let took = began.elapsed();
    drop(engine);
    store.close().await?;
    drop(store);
    let began = Instant::now();
    let store = EmbeddedStore::open(dir.path(), None)?;
    let reopened = began.elapsed();
    drop(store);
    let rate = terminals as f64 / took.as_secs_f64();
    println!(
        "| {terminals} | {bare:.0} | {rate:.0} | {:.3} | {:.0} | {per_terminal:.0} | {reopened:.2?} |",
        rate / bare,
        terminals as f64 / registering.as_secs_f64(),
    );
    Ok(())
}

async fn engine(
    store: Arc<dyn Store>,
    udp: Arc<dyn Outbox>,
) -> Result<Arc<Engine>, Box<dyn std::error::Error>> {
    let rules = Rules {
        preference: vec![Method::Http, Method::Udp],
        verify: true,
        attempts: 4,
        first_timeout: Duration::from_secs(3600),
        sms_alone: SmsAlone::Accept,
        lead_time: Duration::from_secs(600),
    };
    let identity = Identity { fqdn: "bmsc.example.com".to_owned(), id_type: mikey::IdType::NAI };
    let settings = Settings { rules, identity, retain: Duration::from_secs(86_400), udp_rate: None };
    Ok(Arc::new(Engine::new(store, settings, Arc::new(Metrics::new(&[])), udp).await?))
}

/// Puts the terminals in and registers each for the service; gives how long the registrations took.
async fn provision(
    engine: &Arc<Engine>,
    service: &ServiceId,
    terminals: usize,
) -> Result<Duration, Box<dyn std::error::Error>> {
    engine
        .put_service(ServiceSpec {
            id: service.clone(),
            key_domain: KeyDomainId([1, 2, 3]),
            key_group: 1,
            validity: Validity::Ntp,
            lifetime: Duration::from_secs(86_400),
            rotate_every: None,
            open: true,
            ext_bcast: None,
            invalidate_on_deregister: true,
            mtk_ids: (1, 65535),
            salt: false,
            srtp: None,
            lead_time: None,
        })
        .await?;
    let btid = |i: usize| BTid::new(&format!("{:024x}@bsf.example.com", i * 7_919));
    let subscriber = |i: usize| SubscriberId::new(&format!("{i:015}@ims.example.com"));
    for first in (0..terminals).step_by(1000) {
        let range = first..(first + 1000).min(terminals);
        let mut items = Vec::with_capacity(2000);
        for i in range.clone() {
            let subscriber = Subscriber { id: subscriber(i)?, msisdn: None, services: Vec::new() };
            items.push(ImportItem::Subscriber(subscriber));
        }
        for i in range {
            let key = || Secret::new((0..32).map(|o| (i >> (o % 4 * 8)) as u8 ^ o as u8).collect());
            items.push(ImportItem::Credential(CredentialSpec {
                btid: btid(i)?,
                subscriber: subscriber(i)?,
                keys: CredentialKeys::Pair { mrk: key(), muk: key() },
                gba: GbaType::U,
                expires: None,
                t: None,
            }));
        }
        for outcome in engine.import(items).await {
            outcome?;
        }
    }
    let began = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for lane in 0..256 {
        let (engine, service) = (Arc::clone(engine), service.clone());
        tasks.spawn(async move {
            for i in (lane..terminals).step_by(256) {
                let Ok(btid) = btid(i) else { continue };
                if let Err(error) = engine.register(&btid, address(i), vec![service.clone()], None).await {
                    eprintln!("registration {i}: {error}");
                }
            }
        });
    }
    while tasks.join_next().await.is_some() {}
    Ok(began.elapsed())
}

/// Sends as many datagrams of an LTKM's length to the same addresses, in batches, from two threads.
fn bare_send(terminals: usize, port: u16) -> Result<f64, Box<dyn std::error::Error>> {
    const BATCH: usize = 64;
    let began = Instant::now();
    std::thread::scope(|scope| {
        for half in 0..2 {
            scope.spawn(move || -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
                let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
                let payload = [0xA5u8; LTKM];
                let mut headers = MultiHeaders::<SockaddrStorage>::preallocate(BATCH, None);
                for first in (half * BATCH..terminals).step_by(2 * BATCH) {
                    let count = BATCH.min(terminals - first);
                    let slices: Vec<_> = (0..count).map(|_| [IoSlice::new(&payload)]).collect();
                    let to: Vec<_> = (first..first + count)
                        .map(|i| match address(i) {
                            IpAddr::V4(ip) => Some(SockaddrStorage::from(SocketAddrV4::new(ip, port))),
                            IpAddr::V6(_) => None,
                        })
                        .collect();
                    sendmmsg(socket.as_raw_fd(), &mut headers, &slices, &to, [], MsgFlags::empty())?;
                }
                Ok(())
            });
        }
    });
    Ok(terminals as f64 / began.elapsed().as_secs_f64())
}

/// Resident memory of this process, in octets.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"));
    line.and_then(|l| l.trim().trim_end_matches(" kB").parse::<u64>().ok()).unwrap_or(0) * 1024
}
