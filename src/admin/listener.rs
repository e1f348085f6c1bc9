//! Where the admin API listens: TCP, or a unix socket whose mode decides who may call.

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::stat::{Mode, fchmod};
use socket2::{Domain, SockAddr, SockRef, Socket, Type};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};

use crate::audit::Peer;
use crate::service_manager::sockets::AdminSocket;

/// The mode of a unix socket: its owner and its group may call.
const MODE: u32 = 0o660;

/// Connections that wait to be accepted, at most.
const BACKLOG: i32 = 128;

/// How long a peer may leave what was written to it unread.
const UNREAD: Duration = Duration::from_secs(30);

/// A socket that listens for the admin API.
#[derive(Debug)]
pub enum AdminListener {
    /// TCP; callers bring the admin token.
    Tcp(TcpListener),
    /// A unix socket.
    Unix(UnixSocket),
}

/// A unix socket that is unlinked when it is dropped, if it was bound here.
#[derive(Debug)]
pub struct UnixSocket {
    listener: UnixListener,
    bound: Option<PathBuf>,
}

impl Drop for UnixSocket {
    fn drop(&mut self) {
        if let Some(path) = &self.bound {
            // Somebody may have removed it; nothing is lost then.
            let _ = std::fs::remove_file(path);
        }
    }
}

/// A connection of either kind.
pub(super) trait Connection: AsyncRead + AsyncWrite + Send + Unpin {}
impl<C: AsyncRead + AsyncWrite + Send + Unpin> Connection for C {}

impl AdminListener {
    /// Listens on a TCP address; port 0 is any free one.
    ///
    /// # Errors
    /// The address is taken or not ours.
    pub async fn tcp(address: SocketAddr) -> io::Result<Self> {
        TcpListener::bind(address).await.map(Self::Tcp)
    }

    /// Listens on a unix socket of mode 0660 in an existing directory. A socket that nobody listens on any
    /// more is replaced.
    ///
    /// # Errors
    /// Somebody listens there, something else is there, or the directory cannot be written.
    pub fn unix(path: &Path) -> io::Result<Self> {
        clear(path)?;
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        // The mode of the descriptor is the most that the file will have from its first moment on.
        fchmod(&socket, Mode::from_bits_truncate(MODE))?;
        socket.bind(&SockAddr::unix(path)?)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(MODE))?;
        socket.listen(BACKLOG)?;
        socket.set_nonblocking(true)?;
        let listener = UnixListener::from_std(socket.into())?;
        Ok(Self::Unix(UnixSocket { listener, bound: Some(path.to_owned()) }))
    }

    /// Takes over a socket that does not block and that the service manager keeps: it stays when this ends.
    ///
    /// # Errors
    /// The runtime cannot watch it.
    pub fn handed_over(socket: AdminSocket) -> io::Result<Self> {
        match socket {
            AdminSocket::Tcp(listener) => TcpListener::from_std(listener).map(Self::Tcp),
            AdminSocket::Unix(listener) => {
                Ok(Self::Unix(UnixSocket { listener: UnixListener::from_std(listener)?, bound: None }))
            }
        }
    }

    /// The TCP address; `None` for a unix socket.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(listener) => listener.local_addr().ok(),
            Self::Unix(_) => None,
        }
    }

    /// Whether it is a unix socket.
    pub fn is_unix(&self) -> bool {
        matches!(self, Self::Unix(_))
    }

    /// The next connection, and who is at its other end.
    pub(super) async fn accept(&self) -> io::Result<(Box<dyn Connection>, Peer)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                // Neither is worth a connection when the system refuses it.
                let _ = stream.set_nodelay(true);
                let _ = SockRef::from(&stream).set_tcp_user_timeout(Some(UNREAD));
                Ok((Box::new(stream), Peer::Tcp { peer }))
            }
            Self::Unix(socket) => {
                let (stream, _) = socket.listener.accept().await?;
                let of = stream.peer_cred()?;
                let peer = Peer::Unix { uid: of.uid(), gid: of.gid(), pid: of.pid() };
                Ok((Box::new(stream), peer))
            }
        }
    }
}

/// Removes a socket that a daemon left behind.
fn clear(path: &Path) -> io::Result<()> {
    let Ok(found) = std::fs::symlink_metadata(path) else { return Ok(()) };
    if !found.file_type().is_socket() {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "something else than a socket is there"));
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Ok(_) => Err(io::Error::new(io::ErrorKind::AddrInUse, "another process listens there")),
        Err(_) => std::fs::remove_file(path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_unix_socket_has_mode_0660_and_is_gone_after_its_listener() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("admin.sock");
        let listener = AdminListener::unix(&path).expect("a socket");
        let mode = std::fs::metadata(&path).expect("a file").permissions().mode();
        assert_eq!(mode & 0o7777, MODE);
        drop(listener);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_socket_left_behind_is_replaced_and_anything_else_is_not() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("admin.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).expect("a socket"));
        assert!(path.exists(), "the standard library leaves it behind");
        let listener = AdminListener::unix(&path).expect("a socket in its place");
        let taken = AdminListener::unix(&path).expect_err("it is taken");
        assert_eq!(taken.kind(), io::ErrorKind::AddrInUse);
        drop(listener);
        std::fs::write(&path, b"precious").expect("a file");
        assert!(AdminListener::unix(&path).is_err());
        assert!(path.exists());
    }
}
