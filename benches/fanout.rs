//! Durable fan-out beside a bare batched UDP send: the same datagrams, addresses and cores, in one run.
//!
//! `cargo bench --bench fanout -- [TERMINALS]…` (100,000 and 1,000,000 when left out). Prints a table row per
//! size. The store is made below the system's temporary directory and removed at the end.

mod common;

use std::io::IoSlice;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{address, engine, provision, register_all, resident};
use ltkmd::engine::RotateSpec;
use ltkmd::id::ServiceId;
use ltkmd::store::{EmbeddedStore, JobState, Store};
use ltkmd::transport::udp::UdpPort;
use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrStorage, sendmmsg};

/// Octets of an LTKM of these terminals.
const LTKM: usize = 190;

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
    provision(&engine, &service, terminals).await?;
    let registering = register_all(&engine, &service, terminals).await;
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
