//! A terminal at work: its credential, its HTTP client, its LTKM port and what it holds, brought together.

use std::net::SocketAddr;
use std::time::Duration;

use super::ask::{Answer, Ask};
use super::credential::Credential;
use super::http::{Client, HttpError, Proof, Reply, User};
use super::link::Link;
use super::report::LtkmRecord;
use super::state::{StateError, StateFile};
use super::terminal::{Effect, Processed, Pull, Terminal};
use crate::document::{DocumentError, MskItem, Style};
use crate::id::{Method, ServiceId};
use crate::procedure::Procedure;
use crate::time::Timestamp;
use crate::units::parse_duration;

/// Pulls that wait to be answered, at most; what asks for more is not followed.
const MAX_PULLS: usize = 64;

/// Why a terminal cannot go on.
#[derive(Debug, thiserror::Error)]
pub(super) enum SessionError {
    #[error(transparent)]
    Http(#[from] HttpError),
    #[error("the answer is not one to {0}: {1}")]
    Document(&'static str, DocumentError),
    #[error("the server did not prove that it knows the MRK: {0}")]
    Impostor(crate::digest::client::ClientError),
    #[error("the LTKM port does not work: {0}")]
    Port(std::io::Error),
    #[error(transparent)]
    State(#[from] StateError),
}

/// A reply, and what was in it when it was a 200.
pub(super) struct Exchange {
    pub(super) reply: Reply,
    pub(super) answer: Option<Answer>,
}

/// One terminal and everything it works with.
pub(super) struct Session {
    pub(super) credential: Credential,
    pub(super) terminal: Terminal,
    pub(super) state: StateFile,
    pub(super) client: Option<Client>,
    pub(super) link: Link,
    pub(super) style: Style,
    pub(super) show_keys: bool,
    /// What it registers for when a trigger asks for it.
    pub(super) services: Vec<ServiceId>,
    /// What it declares then.
    pub(super) types: Option<Vec<u8>>,
    pulls: Vec<Pull>,
}

impl Session {
    /// A terminal that goes on from its state.
    pub(super) fn new(
        credential: Credential,
        state: StateFile,
        client: Option<Client>,
        link: Link,
    ) -> Result<Self, SessionError> {
        let terminal = state.load(&credential)?;
        Ok(Self {
            credential,
            terminal,
            state,
            client,
            link,
            style: Style::default(),
            show_keys: false,
            services: Vec::new(),
            types: None,
            pulls: Vec::new(),
        })
    }

    /// Makes a request, and processes the LTKMs of its answer in the order of the document.
    pub(super) async fn ask(&mut self, ask: &Ask) -> Result<(Exchange, Vec<LtkmRecord>), SessionError> {
        let client = self.client.as_mut().expect("only commands with a URL ask");
        let procedure = ask.procedure();
        let reply = client.request(procedure, &User::from(&self.credential), &ask.body(self.style)).await?;
        if let Proof::Wrong(error) = reply.proof {
            return Err(SessionError::Impostor(error));
        }
        if reply.status != hyper::StatusCode::OK {
            return Ok((Exchange { reply, answer: None }, Vec::new()));
        }
        let answer = Answer::read(procedure, &reply.body)
            .map_err(|error| SessionError::Document(name(procedure), error))?;
        let mut records = Vec::new();
        for ltkm in answer.items.iter().flat_map(|item| &item.ltkms) {
            records.push(self.take(ltkm, None).await?.0);
        }
        Ok((Exchange { reply, answer: Some(answer) }, records))
    }

    /// Takes one LTKM: processed, kept, then acknowledged. `from`: where it came from by UDP. Gives whether it was
    /// accepted, too.
    pub(super) async fn take(
        &mut self,
        octets: &[u8],
        from: Option<SocketAddr>,
    ) -> Result<(LtkmRecord, Option<Effect>), SessionError> {
        let way = (if from.is_some() { Method::Udp } else { Method::Http }, from);
        let now = Timestamp::now();
        let processed = match self.terminal.process(octets, way.0, now) {
            Ok(processed) => processed,
            Err(refusal) => return Ok((LtkmRecord::refused(&refusal, way, now), None)),
        };
        self.state.save(&self.terminal, &self.credential)?;
        let acknowledged = self.acknowledge(&processed, from).await;
        if let Effect::Pull(pull) = processed.effect
            && self.pulls.len() < MAX_PULLS
            && !self.pulls.contains(&pull)
        {
            self.pulls.push(pull);
        }
        let record = LtkmRecord::accepted(&processed, way, acknowledged, self.show_keys, now);
        Ok((record, Some(processed.effect)))
    }

    async fn acknowledge(&self, processed: &Processed, from: Option<SocketAddr>) -> bool {
        match &processed.verification {
            None => false,
            Some(message) => match self.link.answer(message, from).await {
                Ok(()) => true,
                Err(error) => {
                    tracing::warn!(%error, "a verification message did not leave");
                    false
                }
            },
        }
    }

    /// Waits for one LTKM by UDP until `deadline`; none when the time is over.
    pub(super) async fn receive(
        &mut self,
        deadline: Option<tokio::time::Instant>,
    ) -> Result<Option<(LtkmRecord, Option<Effect>)>, SessionError> {
        let received = match deadline {
            None => self.link.receive().await,
            Some(deadline) => match tokio::time::timeout_at(deadline, self.link.receive()).await {
                Ok(received) => received,
                Err(_) => return Ok(None),
            },
        };
        let (octets, from) = received.map_err(SessionError::Port)?;
        self.take(&octets, Some(from)).await.map(Some)
    }

    /// The next request that a trigger asked for, if this terminal can make it.
    pub(super) fn next_pull(&mut self) -> Option<Result<Ask, &'static str>> {
        let pull = if self.pulls.is_empty() { return None } else { self.pulls.remove(0) };
        if self.client.is_none() {
            return Some(Err("a pull is asked for: give --url to have it made"));
        }
        Some(match pull {
            Pull::MskRequest { key_domain, msk_id } => {
                Ok(Ask::msk_request(vec![MskItem { key_domain, msk_id }]))
            }
            Pull::Register if self.services.is_empty() => {
                Err("a registration is asked for: give --service to have it made")
            }
            Pull::Register => Ok(Ask::register(self.services.clone(), self.types.clone())),
        })
    }
}

fn name(procedure: Procedure) -> &'static str {
    match procedure {
        Procedure::Register => "a registration",
        Procedure::Deregister => "a deregistration",
        Procedure::MskRequest => "an MSK request",
    }
}

/// A span of time in seconds, fractions allowed, or with a unit: `2`, `0.5`, `500ms`, `1m`; at most a day.
///
/// # Errors
/// Anything else.
pub(super) fn seconds(text: &str) -> Result<Duration, &'static str> {
    let wrong = "must be seconds from 0 to 86400, such as 5 or 0.5";
    let span = match text.parse::<f64>() {
        Ok(seconds) if (0.0..=86_400.0).contains(&seconds) => Duration::from_secs_f64(seconds),
        Ok(_) => return Err(wrong),
        Err(_) => parse_duration(text).map_err(|_| wrong)?,
    };
    if span <= Duration::from_secs(86_400) { Ok(span) } else { Err(wrong) }
}
