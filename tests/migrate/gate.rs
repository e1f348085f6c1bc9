//! A way to the admin API that stands still in the midst of a backup, for as long as a test wants.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use crate::harness::PATIENCE;

/// Lets everything through but one backup.
pub(crate) struct Gate {
    at: SocketAddr,
    begun: Receiver<()>,
    go: Sender<()>,
}

/// What its connections share.
struct Shared {
    /// The backup that is held, from 1.
    held: usize,
    asked: AtomicUsize,
    begun: Mutex<Sender<()>>,
    go: Mutex<Receiver<()>>,
}

impl Gate {
    /// Stands before `to`, and holds the answer of the backup of this number.
    pub(crate) fn holding(held: usize, to: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let at = listener.local_addr().expect("bound");
        let ((begun_sender, begun), (go, go_receiver)) = (channel(), channel());
        let shared = Arc::new(Shared {
            held,
            asked: AtomicUsize::new(0),
            begun: Mutex::new(begun_sender),
            go: Mutex::new(go_receiver),
        });
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let Ok(server) = TcpStream::connect(to) else { return };
                connect(client, server, &shared);
            }
        });
        Self { at, begun, go }
    }

    /// Its URL.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.at)
    }

    /// Waits until the daemon answers the backup that is held: the moment it shows is over.
    pub(crate) fn await_begun(&self) {
        self.begun.recv_timeout(PATIENCE).expect("the backup begins");
    }

    /// Lets the backup go on.
    pub(crate) fn go(&self) {
        self.go.send(()).expect("the backup is held");
    }
}

fn connect(client: TcpStream, server: TcpStream, shared: &Arc<Shared>) {
    let holds = Arc::new(AtomicBool::new(false));
    let (from, to) = (client.try_clone().expect("a socket"), server.try_clone().expect("a socket"));
    let (seen, hold) = (Arc::clone(shared), Arc::clone(&holds));
    std::thread::spawn(move || {
        pipe(from, to, |octets| {
            let asks = octets.starts_with(b"GET /v1/backup");
            if asks && seen.asked.fetch_add(1, Ordering::SeqCst) + 1 == seen.held {
                hold.store(true, Ordering::SeqCst);
            }
        });
    });
    let shared = Arc::clone(shared);
    std::thread::spawn(move || {
        pipe(server, client, |_| {
            if holds.swap(false, Ordering::SeqCst) {
                shared.begun.lock().expect("no panic").send(()).expect("the test waits");
                shared.go.lock().expect("no panic").recv().expect("the test lets it go");
            }
        });
    });
}

fn pipe(mut from: TcpStream, mut to: TcpStream, mut look: impl FnMut(&[u8])) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(n @ 1..) = from.read(&mut buffer) {
        look(&buffer[..n]);
        if to.write_all(&buffer[..n]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(std::net::Shutdown::Both);
}
