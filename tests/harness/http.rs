//! HTTP/1.1 by hand: exactly the octets that a test wants to send.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};

use super::PATIENCE;

/// What came back.
#[derive(Debug, Clone)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Reply {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e} in {}", self.text()))
    }

    /// The values of a header's lines.
    pub fn all(&self, name: &str) -> Vec<&str> {
        self.headers.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str()).collect()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.all(name).first().copied()
    }
}

/// A connection that is kept open.
pub struct Connection {
    stream: BufReader<TcpStream>,
}

impl Connection {
    pub fn open(to: SocketAddr) -> Self {
        Self::over(TcpStream::connect(to).expect("connected"))
    }

    /// Opens it from one of the loopback addresses, which is the terminal's address then.
    pub fn open_from(from: std::net::IpAddr, to: SocketAddr) -> Self {
        let domain = socket2::Domain::for_address(to);
        let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None).expect("a socket");
        socket.bind(&SocketAddr::new(from, 0).into()).expect("bound");
        socket.connect(&to.into()).expect("connected");
        Self::over(socket.into())
    }

    fn over(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream.set_nodelay(true).expect("no delay");
        Self { stream: BufReader::new(stream) }
    }

    /// Sends octets as they are.
    pub fn send(&mut self, octets: &[u8]) {
        self.stream.get_mut().write_all(octets).expect("sent");
    }

    /// Sends octets to who may be gone: `None` then.
    pub fn try_send(&mut self, octets: &[u8]) -> Option<()> {
        self.stream.get_mut().write_all(octets).ok()
    }

    /// Sends nothing more.
    pub fn shut(&mut self) {
        self.stream.get_mut().shutdown(std::net::Shutdown::Write).expect("shut");
    }

    /// Sends a whole request, with its length.
    pub fn request(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Reply {
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {}\r\n", super::FQDN);
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        head += &format!("Content-Length: {}\r\n\r\n", body.len());
        self.send(&[head.as_bytes(), body].concat());
        self.reply().expect("an answer")
    }

    /// Reads one answer; `None` when the daemon closed instead.
    pub fn reply(&mut self) -> Option<Reply> {
        let mut line = String::new();
        if self.stream.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let status = line.split(' ').nth(1)?.parse().ok()?;
        let mut headers = Vec::new();
        loop {
            let mut line = String::new();
            self.stream.read_line(&mut line).ok()?;
            match line.trim_end().split_once(':') {
                Some((name, value)) => headers.push((name.to_owned(), value.trim().to_owned())),
                None => break,
            }
        }
        let mut reply = Reply { status, headers, body: Vec::new() };
        match reply.header("content-length").map(str::parse::<usize>) {
            Some(len) => {
                reply.body = vec![0; len.ok()?];
                self.stream.read_exact(&mut reply.body).ok()?;
            }
            None if reply.header("transfer-encoding").is_some() => reply.body = self.chunks()?,
            None => {}
        }
        Some(reply)
    }

    fn chunks(&mut self) -> Option<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let mut line = String::new();
            self.stream.read_line(&mut line).ok()?;
            let mut chunk = vec![0; usize::from_str_radix(line.trim_end(), 16).ok()? + 2];
            self.stream.read_exact(&mut chunk).ok()?;
            if chunk.len() == 2 {
                return Some(body);
            }
            body.extend_from_slice(&chunk[..chunk.len() - 2]);
        }
    }

    /// Reads one line of an answer by itself: an interim one.
    pub fn line(&mut self) -> String {
        let mut line = String::new();
        self.stream.read_line(&mut line).expect("a line");
        line
    }

    /// All that still comes until the daemon closes.
    pub fn rest(&mut self) -> String {
        let mut rest = Vec::new();
        // What came before a reset counts too.
        let _ = self.stream.read_to_end(&mut rest);
        String::from_utf8_lossy(&rest).into_owned()
    }

    /// Whether the daemon closed the connection.
    pub fn is_closed(&mut self) -> bool {
        matches!(self.stream.read(&mut [0u8; 1]), Ok(0) | Err(_))
    }
}

/// One request on a connection of its own.
pub fn request(to: SocketAddr, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Reply {
    Connection::open(to).request(method, path, headers, body)
}
