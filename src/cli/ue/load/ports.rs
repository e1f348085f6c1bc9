//! The LTKM ports of a load run: one per source address, each shared by all terminals behind it.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use mikey::message::Message;
use mikey::payload::Payload;
use socket2::{Domain, Protocol, Socket, Type};

use super::people::{People, Person};
use super::stats::Live;
use crate::cli::ue::terminal::{Effect, Refusal};
use crate::id::Method;
use crate::time::Timestamp;

/// Asked of the kernel for each port; it gives what its limits allow.
const BUFFER: usize = 8 << 20;

/// How long a receiver waits before it looks whether the run has ended.
const LOOK: Duration = Duration::from_millis(100);

/// The longest datagram that can be an LTKM of any use here, in octets.
const MAX_DATAGRAM: usize = 8 << 10;

/// The bound ports, and who is behind them.
#[derive(Debug)]
pub(super) struct Ports {
    sockets: Vec<UdpSocket>,
    bsm: SocketAddr,
    people: Arc<People>,
    live: Arc<Live>,
    ended: AtomicBool,
}

/// The addresses that HTTP requests leave from: `count` from `first` on.
pub(super) fn sources(first: IpAddr, count: usize) -> Result<Vec<IpAddr>, String> {
    let IpAddr::V4(first) = first else {
        let one = "an IPv6 source stands alone: give --sources 1";
        return if count == 1 { Ok(vec![first]) } else { Err(one.to_owned()) };
    };
    let last = u32::from(first).checked_add(count as u32 - 1);
    last.ok_or_else(|| format!("--sources {count}: there are not so many addresses from {first} on"))?;
    Ok((0..count as u32).map(|n| Ipv4Addr::from(u32::from(first) + n).into()).collect())
}

impl Ports {
    /// Binds `port` of each address, or of any address when there is none.
    pub(super) fn bind(
        sources: &[IpAddr],
        port: u16,
        bsm: SocketAddr,
        people: Arc<People>,
        live: Arc<Live>,
    ) -> Result<Self, String> {
        let any = match bsm {
            SocketAddr::V4(_) => IpAddr::from([0, 0, 0, 0]),
            SocketAddr::V6(_) => IpAddr::from([0; 16]),
        };
        let addresses = if sources.is_empty() { &[any][..] } else { sources };
        let bind = |ip: &IpAddr| {
            let address = SocketAddr::new(*ip, port);
            let other = "give other addresses with --source or another --ltkm-port";
            bind(address).map_err(|e| format!("{address} cannot be bound: {e}: {other}"))
        };
        let sockets = addresses.iter().map(bind).collect::<Result<_, _>>()?;
        Ok(Self { sockets, bsm, people, live, ended: AtomicBool::new(false) })
    }

    /// Receives on every port, a thread for each, until [`Self::end`].
    pub(super) fn receive(self: &Arc<Self>) -> Vec<JoinHandle<()>> {
        let start = |n| {
            let ports = Arc::clone(self);
            std::thread::spawn(move || ports.receive_on(n))
        };
        (0..self.sockets.len()).map(start).collect()
    }

    pub(super) fn end(&self) {
        self.ended.store(true, Ordering::Relaxed);
    }

    fn receive_on(&self, port: usize) {
        let mut buffer = vec![0u8; MAX_DATAGRAM];
        while !self.ended.load(Ordering::Relaxed) {
            match self.sockets[port].recv(&mut buffer) {
                Ok(len) => self.datagram(port, &buffer[..len]),
                Err(e) if e.kind() == ErrorKind::WouldBlock || e.kind() == ErrorKind::TimedOut => {}
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(_) => {
                    Live::count(&self.live.port_errors);
                    return;
                }
            }
        }
    }

    fn datagram(&self, port: usize, octets: &[u8]) {
        match idr(octets).and_then(|idr| self.people.by_idr(idr)) {
            Some(person) => self.take(port, person, octets, Method::Udp),
            None => Live::count(&self.live.strangers),
        }
    }

    /// Takes an LTKM of a terminal behind this port. The terminal is held until its answer has left, so that answers
    /// leave in the order of processing.
    pub(super) fn take(&self, port: usize, person: &Person, octets: &[u8], method: Method) {
        let live = &*self.live;
        let mut terminal = person.terminal();
        match terminal.process(octets, method, Timestamp::now()) {
            Ok(processed) => {
                Live::count(live.ltkms(method));
                match processed.effect {
                    Effect::Stored(_) | Effect::Refreshed(_) => Live::count(&live.keys),
                    Effect::Invalidated { .. } => Live::count(&live.invalidations),
                    Effect::Pull(_) | Effect::Nothing => {}
                }
                if let Some(answer) = &processed.verification {
                    let socket = &self.sockets[port % self.sockets.len()];
                    let left = socket.send_to(answer, self.bsm).is_ok();
                    Live::count(if left { &live.acknowledged } else { &live.unsent });
                }
            }
            Err(Refusal::Replay { .. }) => Live::count(&live.overtaken),
            Err(Refusal::Stranger(_)) => Live::count(&live.strangers),
            Err(Refusal::Unopened(_) | Refusal::Answer(_)) => Live::count(&live.unopened),
        }
    }
}

fn bind(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_recv_buffer_size(BUFFER)?;
    socket.set_read_timeout(Some(LOOK))?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// The IDr of an LTKM: the second ID payload (LTKM profile §5).
fn idr(octets: &[u8]) -> Option<&[u8]> {
    let message = Message::parse(octets).ok()?;
    let mut ids = message.payloads().filter_map(|placed| match placed.payload {
        Payload::Id(id) => Some(id.data),
        _ => None,
    });
    ids.nth(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_follow_each_other() {
        let found = sources("127.0.0.254".parse().unwrap(), 3).unwrap();
        let wanted: Vec<IpAddr> =
            ["127.0.0.254", "127.0.0.255", "127.0.1.0"].map(|text| text.parse().unwrap()).to_vec();
        assert_eq!(found, wanted);
        assert!(sources("255.255.255.255".parse().unwrap(), 2).is_err());
        assert_eq!(sources("::1".parse().unwrap(), 1).unwrap().len(), 1);
        assert!(sources("::1".parse().unwrap(), 2).is_err());
    }
}
