//! A terminal on the stage: the same terminal that `ltkmd ue` is, on a loopback address of its own.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use data_encoding::BASE64;
use tokio::net::UdpSocket;

use super::stage::{PATIENCE, random};
use crate::cli::ue::ask::{Answer, Ask};
use crate::cli::ue::credential::Credential;
use crate::cli::ue::http::{Client, DigestChoice, Proof, Reply, User};
use crate::cli::ue::link::Link;
use crate::cli::ue::target;
use crate::cli::ue::terminal::{Effect, Processed, Refusal, Terminal};
use crate::digest::Qop;
use crate::document::{MskItem, Style};
use crate::id::{BTid, KeyDomainId, Method, MskId};
use crate::secret::Secret;
use crate::time::Timestamp;

/// The first terminal's address; the others follow.
const FIRST: u8 = 11;

/// What the world sees of terminals behind the NAT.
pub(super) const NAT: Ipv4Addr = Ipv4Addr::new(127, 0, 1, 1);

/// How often a port is looked for that is free on all terminals' addresses.
const TRIES: usize = 20;

/// What a terminal has accepted.
#[derive(Debug, Clone)]
pub(super) struct Taken {
    pub(super) msk_id: MskId,
    pub(super) counter: u32,
    pub(super) effect: Effect,
    pub(super) method: Method,
    /// Whether a verification message left for it.
    pub(super) acknowledged: bool,
}

impl Taken {
    /// Whether it said what the terminal knew.
    fn is_repeated(&self) -> bool {
        matches!(self.effect, Effect::Refreshed(_) | Effect::Invalidated { held: false })
    }
}

/// Who plays.
#[derive(Debug, Clone)]
pub(super) struct Part {
    pub(super) name: &'static str,
    /// The delivery types that it declares.
    pub(super) declared: Option<Vec<u8>>,
    /// The number of its phone.
    pub(super) msisdn: Option<&'static str>,
    /// Whether its requests come from [`NAT`], which lets no datagram in.
    pub(super) behind_nat: bool,
}

/// A terminal.
pub(super) struct Actor {
    pub(super) name: &'static str,
    pub(super) subscriber: String,
    pub(super) credential: Credential,
    /// The delivery types that it declares.
    pub(super) declared: Option<Vec<u8>>,
    /// The number of its phone.
    pub(super) msisdn: Option<&'static str>,
    pub(super) terminal: Terminal,
    /// Where its requests come from.
    pub(super) address: IpAddr,
    link: Link,
    /// What comes to the NAT's address, and goes no further.
    nat: Option<UdpSocket>,
    client: Option<Client>,
    /// All that it has accepted.
    pub(super) taken: Vec<Taken>,
    /// The keys that the daemon knows as verified by it.
    pub(super) verified: Vec<MskId>,
    /// The last LTKM that came by UDP, as it came.
    pub(super) last_datagram: Vec<u8>,
}

/// Binds a terminal for each name, all at the same port of addresses that follow each other.
pub(super) async fn cast(who: &[Part]) -> Result<(Vec<Actor>, u16), String> {
    let mut last = String::new();
    for _ in 0..TRIES {
        match bind_all(who).await {
            Ok(cast) => return Ok(cast),
            Err(error) => last = error.to_string(),
        }
    }
    Err(format!("no port is free on 127.0.0.{FIRST} and the addresses behind it: {last}"))
}

async fn bind_all(who: &[Part]) -> io::Result<(Vec<Actor>, u16)> {
    let (mut actors, mut port) = (Vec::new(), 0);
    for (Part { name, declared, msisdn, behind_nat }, last) in who.iter().zip(FIRST..) {
        let inside = IpAddr::from(Ipv4Addr::new(127, 0, 0, last));
        let link = Link::open(Some(SocketAddr::new(inside, port)), None).await?;
        port = link.local_address()?.port();
        let nat = if *behind_nat { Some(UdpSocket::bind((NAT, port)).await?) } else { None };
        let btid = format!("{}@bsf.example.com", BASE64.encode(&random::<16>()?));
        let btid = BTid::new(&btid).map_err(io::Error::other)?;
        let (mrk, muk) = (random::<32>()?, random::<32>()?);
        let (mrk, muk) = (Secret::from(&mrk[..]), Secret::from(&muk[..]));
        actors.push(Actor {
            name,
            subscriber: format!("{name}@ims.example.com"),
            terminal: Terminal::new(btid.clone(), muk.clone()),
            credential: Credential { btid, mrk, muk },
            declared: declared.clone(),
            msisdn: *msisdn,
            address: if *behind_nat { NAT.into() } else { inside },
            link,
            nat,
            client: None,
            taken: Vec::new(),
            verified: Vec::new(),
            last_datagram: Vec::new(),
        });
    }
    Ok((actors, port))
}

impl Actor {
    /// Learns where the daemon is.
    pub(super) fn meet(&mut self, http: SocketAddr, udp: SocketAddr) -> Result<(), String> {
        self.client = Some(self.connect(http)?);
        self.link.set_bsm(udp);
        Ok(())
    }

    fn connect(&self, http: SocketAddr) -> Result<Client, String> {
        let url: target::Url = format!("http://{http}/keymanagement").parse()?;
        let choice = DigestChoice { qop: Qop::AuthInt, algorithm: None };
        let client = target::client(&url, Some(self.address), None)?;
        Ok(Client::new(client, url.path(), choice))
    }

    /// Makes a request with a right or a wrong MRK.
    pub(super) async fn request(&mut self, ask: &Ask, mrk: &[u8]) -> Result<Reply, String> {
        let user = User::new(self.credential.btid.clone(), mrk);
        let client = self.client.as_mut().ok_or("it does not know where the daemon is")?;
        let reply = client.request(ask.procedure(), &user, &ask.body(Style::default())).await;
        reply.map_err(|e| e.to_string())
    }

    /// Makes a request that has to be acted upon; processes and acknowledges the LTKMs of its answer in order.
    pub(super) async fn ask(&mut self, ask: &Ask) -> Result<(Answer, Vec<Taken>), String> {
        let mrk = self.credential.mrk.clone();
        let reply = self.request(ask, mrk.expose()).await?;
        if reply.status != hyper::StatusCode::OK {
            return Err(format!("the daemon answered {}", reply.status));
        }
        if reply.proof != Proof::Given {
            return Err(format!("the daemon did not prove that it knows the MRK: {:?}", reply.proof));
        }
        let answer = Answer::read(ask.procedure(), &reply.body).map_err(|e| e.to_string())?;
        let mut taken = Vec::new();
        for ltkm in answer.items.iter().flat_map(|item| &item.ltkms) {
            taken.push(self.take(ltkm, Method::Http).await.map_err(|refusal| refusal.to_string())??);
        }
        Ok((answer, taken))
    }

    /// Waits for an LTKM by UDP that changes something; acknowledges it and all before it. On a slow machine the
    /// daemon sends again what is already on its way, which changes nothing.
    pub(super) async fn receive(&mut self) -> Result<Taken, String> {
        loop {
            let octets = self.datagram().await?;
            let taken = self.take(&octets, Method::Udp).await.map_err(|refusal| refusal.to_string())??;
            if !taken.is_repeated() {
                return Ok(taken);
            }
        }
    }

    /// Waits for an LTKM by UDP that has to be refused.
    pub(super) async fn refuse(&mut self) -> Result<Refusal, String> {
        loop {
            let octets = self.datagram().await?;
            match self.take(&octets, Method::Udp).await {
                Err(refusal) => return Ok(refusal),
                Ok(Ok(taken)) if taken.is_repeated() => {}
                Ok(taken) => return Err(format!("the terminal accepted it: {taken:?}")),
            }
        }
    }

    /// Waits for a short message that its phone hands to the LTKM port.
    pub(super) async fn receive_sms(&mut self) -> Result<Taken, String> {
        let octets = self.datagram().await.map_err(|why| why.replace("by UDP", "by SMS"))?;
        self.take(&octets, Method::Sms).await.map_err(|refusal| refusal.to_string())?
    }

    /// Whether somebody sent a datagram to its NAT.
    pub(super) fn was_sent_to_its_nat(&self) -> bool {
        self.nat.as_ref().is_some_and(|nat| nat.try_recv(&mut [0; 1]).is_ok())
    }

    /// Waits for a datagram, and loses it if nobody takes it.
    pub(super) async fn datagram(&mut self) -> Result<Vec<u8>, String> {
        let received = tokio::time::timeout(PATIENCE, self.link.receive()).await;
        let received =
            received.map_err(|_| format!("no LTKM came by UDP within {} s", PATIENCE.as_secs()))?;
        let (octets, _) = received.map_err(|e| format!("the LTKM port does not work: {e}"))?;
        self.last_datagram.clone_from(&octets);
        Ok(octets)
    }

    async fn take(&mut self, octets: &[u8], method: Method) -> Result<Result<Taken, String>, Refusal> {
        let Processed { ltkm, effect, verification } =
            self.terminal.process(octets, method, Timestamp::now())?;
        if let Some(message) = &verification
            && let Err(error) = self.link.answer(message, None).await
        {
            return Ok(Err(format!("the verification message did not leave: {error}")));
        }
        let (msk_id, counter, acknowledged) = (ltkm.msk_id, ltkm.counter, verification.is_some());
        let taken = Taken { msk_id, counter, effect, method, acknowledged };
        self.taken.push(taken.clone());
        Ok(Ok(taken))
    }

    /// Where its LTKMs arrive.
    pub(super) fn ltkm_address(&self) -> Result<SocketAddr, String> {
        self.link.local_address().map_err(|e| e.to_string())
    }

    /// What asks for the current key of a group.
    pub(super) fn pull(key_domain: KeyDomainId, group: u16) -> Ask {
        Ask::msk_request(vec![MskItem { key_domain, msk_id: MskId::new(group, 0) }])
    }
}
