//! A terminal's LTKM port: LTKMs come in, verification messages go out (LTKM profile §4, §6).

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::net::{UdpSocket, lookup_host};

use super::target::Url;

/// The registered port for LTKMs (IANA omabcastltkm), on either side.
pub const LTKM_PORT: u16 = 4359;

/// The longest datagram, in octets.
const MAX_DATAGRAM: usize = 65_535;

/// The socket, and where the BM-SC takes verification messages.
#[derive(Debug)]
pub struct Link {
    socket: UdpSocket,
    bsm: Option<SocketAddr>,
    buffer: Vec<u8>,
}

impl Link {
    /// Binds `listen`, or any free port when there is none. Verification messages go to `bsm`; without one, to where
    /// the LTKM came from.
    ///
    /// # Errors
    /// The address cannot be bound.
    pub async fn open(listen: Option<SocketAddr>, bsm: Option<SocketAddr>) -> io::Result<Self> {
        let free = match bsm {
            Some(SocketAddr::V6(_)) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
            _ => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        };
        let socket = UdpSocket::bind(listen.unwrap_or(free)).await?;
        Ok(Self { socket, bsm, buffer: vec![0; MAX_DATAGRAM] })
    }

    /// The bound address.
    ///
    /// # Errors
    /// The system does not tell.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// From here on, verification messages go there: the BM-SC has moved.
    pub fn set_bsm(&mut self, bsm: SocketAddr) {
        self.bsm = Some(bsm);
    }

    /// Waits for a datagram. Nothing is lost when the wait is given up.
    ///
    /// # Errors
    /// The socket does not work.
    pub async fn receive(&mut self) -> io::Result<(Vec<u8>, SocketAddr)> {
        let (len, from) = self.socket.recv_from(&mut self.buffer).await?;
        Ok((self.buffer[..len].to_vec(), from))
    }

    /// Sends a verification message that answers an LTKM; `from` is where it came from, if by UDP.
    ///
    /// # Errors
    /// It cannot leave, or nobody said where to.
    pub async fn answer(&self, message: &[u8], from: Option<SocketAddr>) -> io::Result<()> {
        let to = self.bsm.or(from).ok_or_else(|| io::Error::other("nobody said where the BM-SC is"))?;
        self.socket.send_to(message, to).await.map(drop)
    }
}

/// Where verification messages go: `bsm` as given, else the host of the URL at the LTKM port.
///
/// # Errors
/// The name cannot be resolved; the text says which.
pub async fn resolve_bsm(bsm: Option<&str>, url: Option<&Url>) -> Result<Option<SocketAddr>, String> {
    match (bsm, url) {
        (Some(bsm), _) => {
            let told = |why: &str| format!("--bsm {bsm}: {why}: give HOST:PORT");
            let mut found = lookup_host(bsm).await.map_err(|e| told(&e.to_string()))?;
            found.next().map(Some).ok_or_else(|| told("it has no address"))
        }
        (None, Some(url)) => match url.resolve(LTKM_PORT).await {
            Ok(found) => Ok(found.first().copied()),
            Err(e) => Err(format!("{}: {e}: give a host that has an address", url.host())),
        },
        (None, None) => Ok(None),
    }
}

/// The address that HTTP requests come from, so that LTKMs find the port `listen`: its own, unless it is any address.
pub fn http_source(listen: Option<SocketAddr>) -> Option<IpAddr> {
    listen.map(|address| address.ip()).filter(|ip| !ip.is_unspecified())
}
