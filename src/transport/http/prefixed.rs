//! A connection as hyper is given it. What hyper does not do by itself is done around it: the first line is read
//! ahead (hyper answers an unknown HTTP version with 400 and a long request line with 431, HTTP means 505 and 414),
//! it is known whether a request has begun (a head that breaks off is 408, an idle connection is just closed), and a
//! peer that does not take its answers is cut.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

/// The longest request line, in octets; RFC 9112 §3 wants at least 8000.
pub(super) const MAX_LINE: usize = 8 << 10;

/// What the first line says of the connection.
pub(super) enum FirstLine {
    /// HTTP/1.0 or 1.1, or something that hyper answers rightly.
    Served,
    /// Another version: 505.
    OtherVersion,
    /// Longer than [`MAX_LINE`]: 414.
    TooLong,
    /// It did not arrive in time: 408.
    Late,
    /// The peer went away.
    Gone,
}

/// Octets that were read ahead, then the connection.
pub(super) struct Prefixed<T> {
    ahead: Bytes,
    io: T,
    /// Whether octets came since something was last written.
    begun: bool,
    /// How long a write may wait for the peer.
    within: Duration,
    /// Runs while a write waits for the peer.
    waiting: Option<Pin<Box<Sleep>>>,
}

impl<T: AsyncRead + AsyncWrite + Unpin> Prefixed<T> {
    /// Reads the first line. `within` bounds it and each later wait for the peer to take what is written.
    pub(super) async fn read_ahead(mut io: T, within: Duration) -> (Self, FirstLine) {
        let mut ahead = BytesMut::with_capacity(1024);
        let read = async {
            while !ahead.contains(&b'\n') && ahead.len() < MAX_LINE {
                if io.read_buf(&mut ahead).await? == 0 {
                    return Ok::<_, io::Error>(false);
                }
            }
            Ok(true)
        };
        let first = match tokio::time::timeout(within, read).await {
            Ok(Ok(true)) if !ahead.contains(&b'\n') => FirstLine::TooLong,
            Ok(Ok(true)) if other_version(&ahead) => FirstLine::OtherVersion,
            Ok(Ok(true)) => FirstLine::Served,
            Ok(_) if ahead.is_empty() => FirstLine::Gone,
            Ok(_) => FirstLine::Served,
            Err(_) if ahead.is_empty() => FirstLine::Gone,
            Err(_) => FirstLine::Late,
        };
        let (begun, ahead) = (!ahead.is_empty(), ahead.freeze());
        (Self { ahead, io, begun, within, waiting: None }, first)
    }

    /// Whether octets came since the last answer: a request has begun.
    pub(super) fn request_begun(&self) -> bool {
        self.begun
    }
}

impl<T> Prefixed<T> {
    /// What a write came to, unless the peer takes nothing for too long.
    fn bounded<R>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<R>>) -> Poll<io::Result<R>> {
        if written.is_ready() {
            self.waiting = None;
            return written;
        }
        let within = self.within;
        let waiting = self.waiting.get_or_insert_with(|| Box::pin(tokio::time::sleep(within)));
        match waiting.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

/// Whether the line ends in an HTTP version other than 1.0 and 1.1 (RFC 9112 §2.3).
fn other_version(ahead: &[u8]) -> bool {
    let line = ahead.split(|b| *b == b'\n').next().unwrap_or_default().trim_ascii_end();
    let version = line.rsplit(|b| *b == b' ').next().unwrap_or_default();
    match version.strip_prefix(b"HTTP/") {
        Some([major, b'.', minor]) => {
            major.is_ascii_digit() && minor.is_ascii_digit() && (*major != b'1' || *minor > b'1')
        }
        _ => false,
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Prefixed<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.ahead.has_remaining() {
            let len = self.ahead.len().min(buf.remaining());
            buf.put_slice(&self.ahead.split_to(len));
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        let read = Pin::new(&mut self.io).poll_read(cx, buf);
        self.begun |= buf.filled().len() > before;
        read
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Prefixed<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        self.begun = false;
        let written = Pin::new(&mut self.io).poll_write(cx, octets);
        self.bounded(cx, written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.io).poll_flush(cx);
        self.bounded(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.io).poll_shutdown(cx);
        self.bounded(cx, shut)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.begun = false;
        let written = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.bounded(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_another_version_is_told_apart() {
        assert!(other_version(b"POST /keymanagement HTTP/2.0\r\nHost: x\r\n"));
        assert!(other_version(b"POST /keymanagement HTTP/1.2\r\nHost: x\r\n"));
        assert!(other_version(b"PRI * HTTP/2.0\n"));
        assert!(!other_version(b"POST /keymanagement HTTP/1.1\r\n"));
        assert!(!other_version(b"POST /keymanagement HTTP/1.0\r\n"));
        assert!(!other_version(b"garbage\r\n"));
        assert!(!other_version(b"POST / HTTP/x.1\r\n"));
    }

    #[tokio::test]
    async fn what_was_read_ahead_is_read_again() {
        let (here, mut there) = tokio::io::duplex(64);
        tokio::io::AsyncWriteExt::write_all(&mut there, b"GET / HTTP/1.1\r\nHost: x").await.expect("written");
        drop(there);
        let (mut io, first) = Prefixed::read_ahead(here, Duration::from_secs(5)).await;
        assert!(matches!(first, FirstLine::Served));
        let mut all = Vec::new();
        io.read_to_end(&mut all).await.expect("read");
        assert_eq!(all, b"GET / HTTP/1.1\r\nHost: x");
    }
}
