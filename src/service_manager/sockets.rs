//! Sockets that the service manager has bound and hands over (`sd_listen_fds(3)`). They outlive the daemon: while it
//! is started again, connections wait in their queues and datagrams in their buffers.
//!
//! What is handed over has to fit the configuration, socket by socket: a listening TCP socket an address of
//! `http.listen` (or `admin.listen`), a UDP socket one of `udp.listen`, a listening unix socket `admin.listen`. A socket
//! that fits nothing is a fault, since nobody would ever serve who calls there. An address that no socket is handed over
//! for is bound as ever, and the log says so.

use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use socket2::{Domain, Socket, Type};

use crate::config::{AdminListen, Settings};

/// `FileDescriptorName=` of the sockets that terminals' requests arrive at.
pub const HTTP: &str = "http";
/// `FileDescriptorName=` of the sockets that LTKMs leave from.
pub const UDP: &str = "udp";
/// `FileDescriptorName=` of the socket of the admin API.
pub const ADMIN: &str = "admin";

/// Why a socket that was handed over cannot be used. All of it is for whoever wrote the units or the configuration.
#[derive(Debug, thiserror::Error)]
pub enum HandOverError {
    /// `LISTEN_FDS` or `LISTEN_FDNAMES` do not say what is there.
    #[error("LISTEN_FDS={count}: the sockets cannot be taken over: {why}")]
    Environment {
        /// What it says.
        count: String,
        /// Why that is not so.
        why: String,
    },
    /// It is no socket, or of no kind that is used here.
    #[error(
        "{socket} is handed over, which is not used here: a listening TCP, a UDP or a listening unix stream socket is \
         (ListenStream=, ListenDatagram=, with Accept=no)"
    )]
    Kind {
        /// Its name and what it is.
        socket: String,
    },
    /// No address of the configuration is its own.
    #[error(
        "{socket} is handed over, but {key} does not name it: {key} = {listen}. Let the unit and {key} say the same"
    )]
    Unnamed {
        /// Its name and what it is.
        socket: String,
        /// The configuration's key.
        key: &'static str,
        /// The key's value.
        listen: String,
    },
    /// A second socket for an address.
    #[error("{socket} is handed over, but another socket has its place in {key} = {listen} already")]
    Twice {
        /// Its name and what it is.
        socket: String,
        /// The configuration's key.
        key: &'static str,
        /// The key's value.
        listen: String,
    },
    /// `[::]` that takes IPv4, too, which this daemon's own socket does not.
    #[error(
        "{socket} is handed over, and takes IPv4 as well: set BindIPv6Only=ipv6-only, and ListenDatagram= for IPv4"
    )]
    BothFamilies {
        /// Its name and what it is.
        socket: String,
    },
    /// The mode of the admin socket decides who may call, and it lets everybody.
    #[error("{socket} is handed over with mode {mode:04o}, which lets every user call: set SocketMode=0660")]
    Open {
        /// Its name and what it is.
        socket: String,
        /// The mode of its file.
        mode: u32,
    },
    /// The system does not tell about it.
    #[error("{socket} is handed over, and cannot be used: {error}")]
    Io {
        /// Its name and what is known of it.
        socket: String,
        /// What the system says.
        error: io::Error,
    },
}

/// The admin API's socket.
#[derive(Debug)]
pub enum AdminSocket {
    /// TCP.
    Tcp(TcpListener),
    /// A unix socket.
    Unix(UnixListener),
}

/// What was handed over, each socket in the place of the configuration's address that it fits.
#[derive(Debug, Default)]
pub struct Sockets {
    /// One for each address of `http.listen`, in its order; none beyond the end.
    pub http: Vec<Option<TcpListener>>,
    /// One for each address of `udp.listen`, in its order; none beyond the end.
    pub udp: Vec<Option<UdpSocket>>,
    /// The one of `admin.listen`.
    pub admin: Option<AdminSocket>,
}

impl Sockets {
    /// Takes what the environment says was handed over to this process; nothing without `LISTEN_PID` or when it names
    /// another process. To be called once, before anything else of the process opens files.
    ///
    /// # Errors
    /// A descriptor that is not open, or another number of names than of sockets.
    pub fn from_env() -> Result<Vec<Handed>, HandOverError> {
        let environment = |why: &dyn std::fmt::Display| HandOverError::Environment {
            count: std::env::var("LISTEN_FDS").unwrap_or_default(),
            why: why.to_string(),
        };
        // Looks that each descriptor is open, and keeps it from children. The names may be another process's.
        if sd_notify::listen_fds().map_err(|e| environment(&e))?.len() == 0 {
            return Ok(Vec::new());
        }
        let named = sd_notify::listen_fds_with_names().map_err(|e| environment(&e))?;
        let names: Vec<String> = named.map(|(_, name)| name).collect();
        let owned = sd_listen_fds::get().map_err(|e| environment(&e))?;
        Ok(names.into_iter().zip(owned).map(|(name, (_, fd))| Handed::new(name, fd.into_std())).collect())
    }

    /// Gives each socket its place in the configuration.
    ///
    /// # Errors
    /// All that do not fit.
    pub fn fit(handed: Vec<Handed>, settings: &Settings) -> Result<Self, Vec<HandOverError>> {
        let mut places = Places {
            http: &settings.http.listen,
            udp: &settings.udp.listen,
            admin: &settings.admin.listen,
            taken: Self {
                http: settings.http.listen.iter().map(|_| None).collect(),
                udp: settings.udp.listen.iter().map(|_| None).collect(),
                admin: None,
            },
        };
        // Exact addresses first, so that port 0, which any port fits, takes none of theirs.
        let (exact, rest): (Vec<_>, Vec<_>) = handed.into_iter().partition(|socket| places.names(socket));
        let faults: Vec<_> =
            exact.into_iter().chain(rest).filter_map(|socket| places.take(socket).err()).collect();
        if faults.is_empty() { Ok(places.taken) } else { Err(faults) }
    }

    /// Whether anything was handed over.
    pub fn any(&self) -> bool {
        self.http.iter().any(Option::is_some) || self.udp.iter().any(Option::is_some) || self.admin.is_some()
    }

    /// Says what was handed over, and for which addresses nothing was.
    pub fn log(&self, settings: &Settings) {
        if !self.any() {
            return;
        }
        let count = |n: usize, of: usize| format!("{n} of {of}");
        tracing::info!(
            http = count(self.http.iter().flatten().count(), self.http.len()),
            udp = count(self.udp.iter().flatten().count(), self.udp.len()),
            admin = count(usize::from(self.admin.is_some()), 1),
            "sockets are handed over by the service manager"
        );
        let missing = |socket: bool, address: &SocketAddr| (!socket).then(|| address.to_string());
        let http = self.http.iter().zip(&settings.http.listen).filter_map(|(s, a)| missing(s.is_some(), a));
        let udp = self.udp.iter().zip(&settings.udp.listen).filter_map(|(s, a)| missing(s.is_some(), a));
        for (key, address) in http.map(|a| ("http.listen", a)).chain(udp.map(|a| ("udp.listen", a))) {
            tracing::warn!(
                key,
                address,
                "is bound by the daemon itself: what arrives during a restart is lost"
            );
        }
    }
}

/// A socket as it was handed over.
#[derive(Debug)]
pub struct Handed {
    name: String,
    socket: Socket,
}

/// What kind of socket it is, and where.
enum Kind {
    Tcp(SocketAddr),
    Udp(SocketAddr),
    Unix(PathBuf),
}

impl Handed {
    /// With its `FileDescriptorName=`; any name besides those of this module leaves it to the address what it is for.
    pub fn new(name: String, fd: OwnedFd) -> Self {
        Self { name, socket: fd.into() }
    }

    fn kind(&self) -> Result<Kind, HandOverError> {
        let io = |error| HandOverError::Io { socket: format!("a descriptor named {:?}", self.name), error };
        let (kind, address) = (self.socket.r#type().map_err(io)?, self.socket.local_addr().map_err(io)?);
        let listens = kind == Type::STREAM && self.socket.is_listener().map_err(io)?;
        match (address.as_socket(), address.as_pathname()) {
            (Some(address), _) if listens => Ok(Kind::Tcp(address)),
            (Some(address), _) if kind == Type::DGRAM => Ok(Kind::Udp(address)),
            (None, Some(path)) if listens => Ok(Kind::Unix(path.to_owned())),
            (address, path) => Err(HandOverError::Kind {
                socket: match (address, path) {
                    (Some(address), _) => format!("a socket named {:?} at {address}", self.name),
                    (None, Some(path)) => format!("a socket named {:?} at {}", self.name, path.display()),
                    (None, None) => format!("a socket named {:?}", self.name),
                },
            }),
        }
    }

    fn told(&self, kind: &Kind) -> String {
        let name = &self.name;
        match kind {
            Kind::Tcp(address) => format!("a TCP socket named {name:?} at {address}"),
            Kind::Udp(address) => format!("a UDP socket named {name:?} at {address}"),
            Kind::Unix(path) => format!("a unix socket named {name:?} at {}", path.display()),
        }
    }
}

/// Addresses of the configuration, and who has taken them.
struct Places<'a> {
    http: &'a [SocketAddr],
    udp: &'a [SocketAddr],
    admin: &'a AdminListen,
    taken: Sockets,
}

impl Places<'_> {
    /// Whether an address of the configuration is this socket's, port and all.
    fn names(&self, socket: &Handed) -> bool {
        match socket.kind() {
            Ok(Kind::Tcp(at)) => {
                self.http.iter().any(|a| exactly(a, &at))
                    || matches!(self.admin, AdminListen::Tcp(a) if exactly(a, &at))
            }
            Ok(Kind::Udp(at)) => self.udp.iter().any(|a| exactly(a, &at)),
            Ok(Kind::Unix(_)) | Err(_) => true,
        }
    }

    fn take(&mut self, handed: Handed) -> Result<(), HandOverError> {
        let kind = handed.kind()?;
        let told = handed.told(&kind);
        let io = |error| HandOverError::Io { socket: told.clone(), error };
        match &kind {
            Kind::Tcp(at) if self.is_admins(&handed.name, at) => {
                let unnamed = |socket| HandOverError::Unnamed {
                    socket,
                    key: "admin.listen",
                    listen: self.admin.to_string(),
                };
                match self.admin {
                    AdminListen::Tcp(address) if fits(address, at) => {}
                    _ => return Err(unnamed(told)),
                }
                handed.socket.set_nonblocking(true).map_err(io)?;
                self.take_admin(AdminSocket::Tcp(handed.socket.into()), told)
            }
            Kind::Tcp(at) => {
                handed.socket.set_nonblocking(true).map_err(io)?;
                let place = place("http.listen", self.http, &self.taken.http, at, told)?;
                self.taken.http[place] = Some(handed.socket.into());
                Ok(())
            }
            Kind::Udp(at) => {
                let both = handed.socket.domain().map_err(io)? == Domain::IPV6
                    && at.ip().is_unspecified()
                    && !handed.socket.only_v6().map_err(io)?;
                if both {
                    return Err(HandOverError::BothFamilies { socket: told });
                }
                let place = place("udp.listen", self.udp, &self.taken.udp, at, told)?;
                self.taken.udp[place] = Some(handed.socket.into());
                Ok(())
            }
            Kind::Unix(path) => {
                match self.admin {
                    AdminListen::Unix(configured) if same_file(configured, path) => {}
                    _ => {
                        let (key, listen) = ("admin.listen", self.admin.to_string());
                        return Err(HandOverError::Unnamed { socket: told, key, listen });
                    }
                }
                let mode = std::fs::metadata(path).map_err(io)?.permissions().mode() & 0o7777;
                if mode & 0o007 != 0 {
                    return Err(HandOverError::Open { socket: told, mode });
                }
                handed.socket.set_nonblocking(true).map_err(io)?;
                let fd = OwnedFd::from(handed.socket);
                self.take_admin(AdminSocket::Unix(fd.into()), told)
            }
        }
    }

    /// By its name; without a known one, by the address that is named nowhere else.
    fn is_admins(&self, name: &str, at: &SocketAddr) -> bool {
        match name {
            ADMIN => true,
            HTTP => false,
            _ => {
                matches!(self.admin, AdminListen::Tcp(address) if fits(address, at))
                    && !self.http.iter().any(|a| exactly(a, at))
            }
        }
    }

    fn take_admin(&mut self, socket: AdminSocket, told: String) -> Result<(), HandOverError> {
        if self.taken.admin.is_some() {
            let (key, listen) = ("admin.listen", self.admin.to_string());
            return Err(HandOverError::Twice { socket: told, key, listen });
        }
        self.taken.admin = Some(socket);
        Ok(())
    }
}

/// The place of a socket at `at` among the addresses of a key: an address that is the same, else one with port 0.
fn place<S>(
    key: &'static str,
    addresses: &[SocketAddr],
    taken: &[Option<S>],
    at: &SocketAddr,
    socket: String,
) -> Result<usize, HandOverError> {
    let free = |fits: fn(&SocketAddr, &SocketAddr) -> bool| {
        addresses.iter().zip(taken).position(|(address, taken)| taken.is_none() && fits(address, at))
    };
    let listen = || format!("{:?}", addresses.iter().map(ToString::to_string).collect::<Vec<_>>());
    match free(exactly).or_else(|| free(fits)) {
        Some(place) => Ok(place),
        None if addresses.iter().any(|address| fits(address, at)) => {
            Err(HandOverError::Twice { socket, key, listen: listen() })
        }
        None => Err(HandOverError::Unnamed { socket, key, listen: listen() }),
    }
}

fn exactly(configured: &SocketAddr, at: &SocketAddr) -> bool {
    (configured.ip(), configured.port()) == (at.ip(), at.port())
}

/// Port 0 is any port.
fn fits(configured: &SocketAddr, at: &SocketAddr) -> bool {
    configured.ip() == at.ip() && (configured.port() == 0 || configured.port() == at.port())
}

/// Whether both paths lead to one file, such as over `/var/run`.
fn same_file(configured: &Path, at: &Path) -> bool {
    let real = |path: &Path| std::fs::canonicalize(path).ok();
    configured == at || (real(configured).is_some() && real(configured) == real(at))
}

#[cfg(test)]
#[path = "tests/sockets.rs"]
mod tests;
