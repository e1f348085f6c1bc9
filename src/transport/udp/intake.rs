//! Receiving: a thread per socket gathers datagrams into batches; the engine takes a few batches at a time.

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

/// Batches that wait for the engine; what comes when all are waiting is shed.
const WAITING: usize = 64;

/// Batches that the engine works on at a time.
const WORKING: usize = 4;

type Batch = Vec<Vec<u8>>;

/// Receives until the shutdown; what was received by then is still taken in.
pub async fn run_intake(port: Arc<UdpPort>, engine: Arc<Engine>, shutdown: watch::Receiver<bool>) {
    let (sender, mut receiver) = mpsc::channel::<Batch>(WAITING);
    for socket in &port.sockets {
        let (socket, sender) = (Arc::clone(socket), sender.clone());
        let (engine, shutdown) = (Arc::clone(&engine), shutdown.clone());
        std::thread::spawn(move || receive(&socket, &sender, &engine, &shutdown));
    }
    drop(sender);
    let working = Arc::new(Semaphore::new(WORKING));
    while let Some(batch) = receiver.recv().await {
        let permit = Arc::clone(&working).acquire_owned().await.expect("the semaphore is never closed");
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
    sender: &mpsc::Sender<Batch>,
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
        let mut batch = vec![buffer[..first].to_vec()];
        while batch.len() < BATCH {
            match recv(socket.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT) {
                Ok(len) => batch.push(buffer[..len].to_vec()),
                Err(_) => break,
            }
        }
        if let Err(refused) = sender.try_send(batch) {
            refused.into_inner().iter().for_each(|_| engine.metrics().udp_received(UdpOutcome::Shed));
        }
    }
}
