//! A terminal on a loopback address of its own: digest over HTTP, LTKMs and verification messages over UDP.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicU16, Ordering};

use data_encoding::BASE64;
use ltkmd::digest::client::{Challenge, Outgoing, answer};
use ltkmd::digest::{Qop, password};
use ltkmd::document::{DeregistrationResponse, MskResponse, RegistrationResponse};
use ltkmd::id::BTid;
use mikey::ltkm::OpenedLtkm;
use mikey::psk::PresharedKey;
use serde_json::json;

use super::digest::Digest;
use super::http::{Connection, Reply};
use super::{Daemon, PATIENCE, encoded};

static NEXT: AtomicU16 = AtomicU16::new(1);

/// A terminal whose subscriber and credential the daemon knows.
pub struct Terminal {
    pub btid: String,
    pub subscriber: String,
    pub mrk: Vec<u8>,
    pub muk: Vec<u8>,
    /// Its loopback address: HTTP leaves from it, LTKMs arrive at it.
    pub address: IpAddr,
    pub socket: UdpSocket,
    /// Where verification messages go.
    pub bsm: SocketAddr,
    /// Where requests go.
    pub http: SocketAddr,
}

impl Terminal {
    /// Provisions a terminal entitled to these services.
    pub fn provision(daemon: &Daemon, services: &[&str]) -> Self {
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let subscriber = format!("{n:015}@ims.example.com");
        assert_eq!(put_subscriber(daemon, &subscriber, services).status, 201);
        Self::provision_for(daemon, &subscriber)
    }

    /// Provisions a terminal of a subscriber that exists.
    pub fn provision_for(daemon: &Daemon, subscriber: &str) -> Self {
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        Self::provision_at(daemon, subscriber, IpAddr::V4(Ipv4Addr::new(127, 7, (n >> 8) as u8, n as u8)))
    }

    /// Provisions a terminal at this address of a subscriber that exists.
    pub fn provision_at(daemon: &Daemon, subscriber: &str, address: IpAddr) -> Self {
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let btid = format!("{}@bsf.example.com", BASE64.encode(&[n as u8, (n >> 8) as u8, 0xFB, 0xEF]));
        let mrk: Vec<u8> = (0..32).map(|i| i ^ n as u8).collect();
        let muk: Vec<u8> = (0..32).map(|i| i ^ n as u8 ^ 0x80).collect();
        let socket = UdpSocket::bind((address, daemon.port)).expect("the LTKM port is free");
        socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let (bsm, http, subscriber) = (daemon.udp, daemon.http, subscriber.to_owned());
        let terminal = Self { btid, subscriber, mrk, muk, address, socket, bsm, http };
        assert_eq!(terminal.put(daemon, json!({})).status, 201);
        terminal
    }

    /// Puts the credential in, with further fields.
    pub fn put(&self, daemon: &Daemon, more: serde_json::Value) -> Reply {
        let mut body = json!({
            "subscriber": self.subscriber,
            "mrk": BASE64.encode(&self.mrk),
            "muk": BASE64.encode(&self.muk),
            "gba": "u",
            "expires": null,
        });
        for (field, value) in more.as_object().into_iter().flatten() {
            body[field] = value.clone();
        }
        daemon.admin("PUT", &format!("/v1/credentials/{}", encoded(&self.btid)), Some(&body))
    }

    /// Follows a daemon that was restarted on other ports.
    pub fn follow(&mut self, daemon: &Daemon) {
        (self.bsm, self.http) = (daemon.udp, daemon.http);
    }

    /// A connection from the terminal's own address.
    pub fn connect(&self) -> Connection {
        Connection::open_from(self.address, self.http)
    }

    /// Asks for a challenge.
    pub fn challenge(&self, connection: &mut Connection, request_type: &str) -> Challenge {
        let path = target(request_type);
        let reply = connection.request("POST", &path, &[("Content-Type", media_type(request_type))], b"");
        assert_eq!(reply.status, 401, "{}", reply.text());
        let lines = reply.all("www-authenticate");
        Challenge::strongest(lines.iter().map(|l| l.as_bytes())).expect("a challenge")
    }

    /// Sends a document with a right answer to the challenge.
    pub fn send(
        &self,
        connection: &mut Connection,
        request_type: &str,
        body: &[u8],
        challenge: &Challenge,
        nc: u32,
    ) -> Reply {
        let path = target(request_type);
        let authorization = self.authorization(&path, body, challenge, nc);
        let headers = [("Content-Type", media_type(request_type)), ("Authorization", authorization.as_str())];
        connection.request("POST", &path, &headers, body)
    }

    /// The `Authorization` of a request.
    pub fn authorization(&self, path: &str, body: &[u8], challenge: &Challenge, nc: u32) -> String {
        let btid = BTid::new(&self.btid).expect("a B-TID");
        let outgoing = Outgoing { method: "POST", uri: path, body };
        let user = (&btid, &password(&self.mrk)[..]);
        answer(challenge, outgoing, user, Qop::AuthInt, "0a4f113b", nc).header().to_owned()
    }

    /// A whole exchange: challenge, answer.
    pub fn request(&self, request_type: &str, body: &str) -> Reply {
        let mut connection = self.connect();
        let challenge = self.challenge(&mut connection, request_type);
        self.send(&mut connection, request_type, body.as_bytes(), &challenge, 1)
    }

    /// Sends a document with these credentials.
    pub fn send_as(
        &self,
        connection: &mut Connection,
        request_type: &str,
        body: &[u8],
        digest: &Digest,
    ) -> Reply {
        let authorization = digest.header(body);
        let headers = [("Content-Type", media_type(request_type)), ("Authorization", authorization.as_str())];
        connection.request("POST", &target(request_type), &headers, body)
    }

    /// A fresh nonce with this terminal's right credentials for a procedure.
    pub fn digest(&self, connection: &mut Connection, request_type: &str) -> Digest {
        let headers = [("Content-Type", media_type(request_type))];
        let reply = connection.request("POST", &target(request_type), &headers, b"");
        Digest::new(self, request_type, &super::digest::nonce(&reply))
    }

    /// Registers; `types` are the delivery types that it declares.
    pub fn register(&self, services: &[&str], types: Option<&[u8]>) -> Reply {
        self.request("register", &registration(services, types))
    }

    /// Registers, and has to succeed: the answer's document.
    pub fn registered(&self, services: &[&str], types: Option<&[u8]>) -> RegistrationResponse {
        let reply = self.register(services, types);
        assert_eq!(reply.status, 200, "{}", reply.text());
        RegistrationResponse::read(&reply.body, &Default::default()).expect("a registration answer").0
    }

    pub fn deregister(&self, services: &[&str]) -> Reply {
        self.request("deregister", &deregistration(services))
    }

    /// Deregisters, and has to succeed: the answer's document.
    pub fn deregistered(&self, services: &[&str]) -> DeregistrationResponse {
        let reply = self.deregister(services);
        assert_eq!(reply.status, 200, "{}", reply.text());
        DeregistrationResponse::read(&reply.body, &Default::default()).expect("a deregistration answer").0
    }

    /// Requests keys: (Key Domain ID, MSK ID) in hexadecimal.
    pub fn msk_request(&self, keys: &[(&str, &str)]) -> Reply {
        self.request("msk-request", &msk_request(keys))
    }

    /// Requests keys, and has to succeed: the answer's document.
    pub fn msks(&self, keys: &[(&str, &str)]) -> MskResponse {
        let reply = self.msk_request(keys);
        assert_eq!(reply.status, 200, "{}", reply.text());
        MskResponse::read(&reply.body, &Default::default()).expect("an MSK answer").0
    }

    /// Opens an LTKM, which has to be right.
    pub fn open(&self, octets: &[u8]) -> OpenedLtkm {
        mikey::ltkm::open(&PresharedKey::new(&self.muk), octets).expect("an LTKM for this terminal")
    }

    /// Waits for the next LTKM by UDP.
    pub fn receive(&self) -> OpenedLtkm {
        let octets = self.receive_octets();
        self.open(&octets)
    }

    /// Waits for the next datagram.
    pub fn receive_octets(&self) -> Vec<u8> {
        let mut buffer = [0u8; 2048];
        let len = self.socket.recv(&mut buffer).expect("a datagram");
        buffer[..len].to_vec()
    }

    /// The datagrams that are there already.
    pub fn drain(&self) -> Vec<Vec<u8>> {
        let mut buffer = [0u8; 2048];
        self.socket.set_nonblocking(true).expect("not blocking");
        let drained =
            std::iter::from_fn(|| self.socket.recv(&mut buffer).ok().map(|len| buffer[..len].to_vec()));
        let drained = drained.collect();
        self.socket.set_nonblocking(false).expect("blocking");
        drained
    }

    /// Verifies an LTKM to the daemon.
    pub fn verify(&self, ltkm: &OpenedLtkm) {
        self.send_udp(&self.verification(ltkm));
    }

    /// The verification message of an LTKM.
    pub fn verification(&self, ltkm: &OpenedLtkm) -> Vec<u8> {
        let mut buffer = [0u8; 1024];
        let len = ltkm.verification(&mut buffer).expect("the buffer is large enough");
        buffer[..len].to_vec()
    }

    /// Sends any datagram to the daemon.
    pub fn send_udp(&self, octets: &[u8]) {
        self.socket.send_to(octets, self.bsm).expect("sent");
    }
}

/// Puts a subscriber in.
pub fn put_subscriber(daemon: &Daemon, subscriber: &str, services: &[&str]) -> Reply {
    let body = json!({"msisdn": null, "services": services});
    daemon.admin("PUT", &format!("/v1/subscribers/{}", encoded(subscriber)), Some(&body))
}

/// The request target of a procedure.
pub fn target(request_type: &str) -> String {
    format!("/keymanagement?requesttype={request_type}")
}

/// The media type of a procedure's request.
pub fn media_type(request_type: &str) -> &'static str {
    match request_type {
        "register" => "application/mbms-register+xml",
        "deregister" => "application/mbms-deregister+xml",
        _ => "application/mbms-msk+xml",
    }
}

/// A registration document, written by hand: the daemon's own writer is not its witness.
pub fn registration(services: &[&str], types: Option<&[u8]>) -> String {
    let services: String = services.iter().map(|s| format!("<serviceID>{s}</serviceID>")).collect();
    let container = types.map_or_else(String::new, |types| {
        let types: String = types.iter().map(|t| format!("<b:Type>{t}</b:Type>")).collect();
        format!(
            "<b:RegistrationRequestExtension version=\"0\"><b:LTKMDelivery>{types}</b:LTKMDelivery>\
             </b:RegistrationRequestExtension>"
        )
    });
    format!(
        "<mbmsSecurityRegister xmlns=\"urn:3GPP:metadata:2005:MBMS:securityRegistration\" \
         xmlns:b=\"urn:oma:xml:bcast:pr:orderqueries:1.0\">{services}{container}</mbmsSecurityRegister>"
    )
}

/// A deregistration document.
pub fn deregistration(services: &[&str]) -> String {
    let services: String = services.iter().map(|s| format!("<serviceID>{s}</serviceID>")).collect();
    format!(
        "<mbmsSecurityDeregister xmlns=\"urn:3GPP:metadata:2005:MBMS:securityDeregistration\">{services}\
         </mbmsSecurityDeregister>"
    )
}

/// An MSK request document for (Key Domain ID, MSK ID) in hexadecimal.
pub fn msk_request(keys: &[(&str, &str)]) -> String {
    let base64 = |hex: &str| BASE64.encode(&data_encoding::HEXLOWER.decode(hex.as_bytes()).expect("hex"));
    let keys: String = keys
        .iter()
        .map(|(domain, msk_id)| {
            let (domain, msk_id) = (base64(domain), base64(msk_id));
            format!("<MSK><keyDomainID>{domain}</keyDomainID><MSKID>{msk_id}</MSKID></MSK>")
        })
        .collect();
    format!("<mbmsMSK xmlns=\"urn:3GPP:metadata:2005:MBMS:mskRequest\">{keys}</mbmsMSK>")
}
