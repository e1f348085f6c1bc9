//! Ports for what has to know its port before it listens.

use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU16, Ordering};

/// Below what the system takes for connections and for port 0 by itself, which could be in the way by the time the port
/// is used.
const FROM: u16 = 12_000;
const PORTS: u16 = 20_000;

/// A port that is free on all addresses now, for TCP and UDP, and that nobody is given twice.
pub fn free_port() -> u16 {
    static NEXT: OnceLock<AtomicU16> = OnceLock::new();
    // Another test's process begins elsewhere.
    let next = NEXT.get_or_init(|| AtomicU16::new((std::process::id().wrapping_mul(7919) % 60_000) as u16));
    for _ in 0..PORTS {
        let port = FROM + next.fetch_add(1, Ordering::Relaxed) % PORTS;
        let at = (Ipv4Addr::UNSPECIFIED, port);
        if TcpListener::bind(at).is_ok() && UdpSocket::bind(at).is_ok() {
            return port;
        }
    }
    panic!("no port is free from {FROM} on");
}
