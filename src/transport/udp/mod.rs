//! UDP: one socket per address sends LTKMs and receives verification messages (LTKM profile §4, §6).

mod intake;

pub use intake::run_intake;

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

use crate::engine::Outbox;

/// Asked of the kernel for each direction; it gives what its limits allow.
const BUFFER: usize = 8 << 20;

/// How long a receiver waits before it looks whether the daemon is ending.
const LOOK: Duration = Duration::from_millis(200);

/// The bound sockets.
#[derive(Debug)]
pub struct UdpPort {
    sockets: Vec<Arc<UdpSocket>>,
    /// The terminals' LTKM port.
    port: u16,
    failures: AtomicU64,
}

impl UdpPort {
    /// Binds the addresses. LTKMs go to `port` of the terminals.
    ///
    /// # Errors
    /// The address, and why it cannot be bound.
    pub fn bind(addresses: &[SocketAddr], port: u16) -> io::Result<Self> {
        Self::bind_or_take(addresses, Vec::new(), port)
    }

    /// Binds the addresses, except those whose place in `handed` has a socket. LTKMs go to `port` of the terminals.
    ///
    /// # Errors
    /// The address, and why it cannot be bound.
    pub fn bind_or_take(
        addresses: &[SocketAddr],
        handed: Vec<Option<UdpSocket>>,
        port: u16,
    ) -> io::Result<Self> {
        let handed = handed.into_iter().chain(std::iter::repeat_with(|| None));
        let bind = |(address, handed): (&SocketAddr, Option<UdpSocket>)| {
            let bound = match handed {
                Some(socket) => take(socket),
                None => bind_one(*address),
            };
            bound
                .map(Arc::new)
                .map_err(|e| io::Error::new(e.kind(), format!("udp.listen: {address} cannot be bound: {e}")))
        };
        let sockets = addresses.iter().zip(handed).map(bind).collect::<io::Result<_>>()?;
        Ok(Self { sockets, port, failures: AtomicU64::new(0) })
    }

    /// The addresses bound, with the ports that the system chose.
    ///
    /// # Errors
    /// The system does not tell.
    pub fn local_addresses(&self) -> io::Result<Vec<SocketAddr>> {
        self.sockets.iter().map(|s| s.local_addr()).collect()
    }

    fn socket_for(&self, to: IpAddr) -> Option<&UdpSocket> {
        let same_family = |s: &&Arc<UdpSocket>| s.local_addr().is_ok_and(|a| a.is_ipv4() == to.is_ipv4());
        self.sockets.iter().find(same_family).map(|s| &**s)
    }

    fn send_one(&self, to: IpAddr, octets: &[u8]) -> bool {
        let Some(socket) = self.socket_for(to) else {
            self.complain(to, "no udp.listen address of its family");
            return false;
        };
        match socket.send_to(octets, SocketAddr::new(to, self.port)) {
            Ok(_) => true,
            Err(error) => {
                self.complain(to, &error.to_string());
                false
            }
        }
    }

    /// Logs the first of many failures, then each thousandth.
    fn complain(&self, to: IpAddr, why: &str) {
        let before = self.failures.fetch_add(1, Ordering::Relaxed);
        if before.is_multiple_of(1000) {
            tracing::warn!(%to, why, failures = before + 1, "an LTKM did not leave; it is sent again when due");
        }
    }
}

impl Outbox for UdpPort {
    fn send(&self, batch: &[(IpAddr, &[u8])]) -> usize {
        batch.iter().filter(|(to, octets)| self.send_one(*to, octets)).count()
    }
}

/// Its buffers are as large as who bound it wanted them: a privileged manager gets more than would be given here.
fn take(socket: UdpSocket) -> io::Result<UdpSocket> {
    socket.set_nonblocking(false)?;
    socket.set_read_timeout(Some(LOOK))?;
    Ok(socket)
}

fn bind_one(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_recv_buffer_size(BUFFER)?;
    socket.set_send_buffer_size(BUFFER)?;
    socket.set_read_timeout(Some(LOOK))?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}
