//! Receiving: a thread per socket queues datagrams; the engine takes them in batches, which are as large as what
//! arrived while it was busy.

use std::io::ErrorKind;
use std::net::UdpSocket;
use std::os::fd::AsRawFd;
use std::sync::Arc;

use nix::sys::socket::{MsgFlags, recv};
use tokio::sync::{Semaphore, mpsc, watch};

use super::UdpPort;
use crate::engine::Engine;
use crate::metrics::UdpOutcome;

/// The longest datagram that can be a verification message: HDR, T, V and an IDr of 255 octets are well
/// below it. A longer one is cut, and refused as malformed.
const MAX_DATAGRAM: usize = 1024;

/// Datagrams in one batch, and so in one commit, at most.
const BATCH: usize = 512;

/// Datagrams that wait for the engine; what comes when so many are waiting is shed.
const WAITING: usize = 32_768;

/// Batches that the engine works on at a time.
const WORKING: usize = 4;

/// Receives until the shutdown; what was received by then is still taken in.
pub async fn run_intake(port: Arc<UdpPort>, engine: Arc<Engine>, mut shutdown: watch::Receiver<bool>) {
    let (sender, mut receiver) = mpsc::channel(WAITING);
    for socket in &port.sockets {
        let (socket, sender) = (Arc::clone(socket), sender.clone());
        let (engine, shutdown) = (Arc::clone(&engine), shutdown.clone());
        std::thread::spawn(move || receive(&socket, &sender, &engine, &shutdown));
    }
    drop(sender);
    let working = Arc::new(Semaphore::new(WORKING));
    loop {
        // First the permit: what arrives while all are taken becomes one batch.
        let permit = Arc::clone(&working).acquire_owned().await.expect("the semaphore is never closed");
        let mut batch = Vec::new();
        if receiver.recv_many(&mut batch, BATCH).await == 0 {
            break;
        }
        // What comes while the store is frozen waits.
        engine.unfrozen(&mut shutdown).await;
        let engine = Arc::clone(&engine);
        tokio::spawn(async move {
            if let Err(error) = engine.take_in(&batch).await {
                tracing::warn!(%error, datagrams = batch.len(), "verification messages could not be recorded");
            }
            drop(permit);
        });
    }
    let _all_taken = working.acquire_many(WORKING as u32).await;
}

fn receive(
    socket: &UdpSocket,
    sender: &mpsc::Sender<Vec<u8>>,
    engine: &Engine,
    shutdown: &watch::Receiver<bool>,
) {
    let mut buffer = [0u8; MAX_DATAGRAM];
    while !*shutdown.borrow() {
        let first = match socket.recv(&mut buffer) {
            Ok(len) => len,
            Err(e)
                if matches!(
                    e.kind(),
                    ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
                ) =>
            {
                continue;
            }
            // An ICMP error of an earlier datagram; the next receive works.
            Err(error) => {
                tracing::debug!(%error, "receiving");
                continue;
            }
        };
        queue(&buffer[..first], sender, engine);
        while let Ok(len) = recv(socket.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT) {
            queue(&buffer[..len], sender, engine);
            if *shutdown.borrow() {
                break;
            }
        }
    }
}

fn queue(datagram: &[u8], sender: &mpsc::Sender<Vec<u8>>, engine: &Engine) {
    if sender.try_send(datagram.to_vec()).is_err() {
        engine.metrics().udp_received(UdpOutcome::Shed);
    }
}
