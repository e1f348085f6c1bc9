//! One connection of a load run, and the terminals that take turns on it.

use std::sync::Arc;

use bytes::Bytes;

use super::people::{People, Person};
use super::plan::{Choices, Pace};
use super::ports::Ports;
use super::stats::{Live, Tally};
use crate::cli::ue::ask::{Answer, Ask};
use crate::cli::ue::http::{Client, Proof};
use crate::document::{MskItem, Style};
use crate::id::{Method, MskId, ServiceId};
use crate::procedure::Procedure;

/// What all connections share.
pub(super) struct Shared {
    pub(super) people: Arc<People>,
    pub(super) ports: Arc<Ports>,
    pub(super) live: Arc<Live>,
    pub(super) pace: Arc<Pace>,
    /// Bodies that are the same for everybody.
    pub(super) register: Bytes,
    pub(super) deregister: Bytes,
    pub(super) style: Style,
    /// How often each terminal takes its turn; without end when none.
    pub(super) passes: Option<u32>,
    /// Whether each terminal asks for a challenge of its own.
    pub(super) own_challenge: bool,
}

/// The bodies that are made once.
pub(super) fn bodies(services: &[ServiceId], types: Option<Vec<u8>>, style: Style) -> (Bytes, Bytes) {
    let register = Ask::register(services.to_vec(), types).body(style);
    (register, Ask::deregister(services.to_vec()).body(style))
}

/// A connection.
pub(super) struct Worker {
    pub(super) shared: Arc<Shared>,
    pub(super) client: Client,
    pub(super) choices: Choices,
    /// Its number among the connections, and how many there are: every so-manieth terminal is its own.
    pub(super) number: usize,
    pub(super) of: usize,
    /// The LTKM port of its source address.
    pub(super) port: usize,
}

/// What a connection saw, and which terminals it left registered.
pub(super) struct Seen {
    pub(super) tally: Tally,
    pub(super) registered: Vec<usize>,
}

impl Worker {
    /// Lets its terminals take turns until the passes are over or the pace says so.
    pub(super) async fn run(mut self) -> Seen {
        let shared = Arc::clone(&self.shared);
        let own: Vec<usize> = (self.number..shared.people.len()).step_by(self.of).collect();
        let mut registered = vec![false; own.len()];
        let mut tally = Tally::new();
        let mut pass = 0;
        'run: while !own.is_empty() && shared.passes.is_none_or(|passes| pass < passes) {
            for (index, terminal) in own.iter().enumerate() {
                let Some(due) = shared.pace.turn().await else { break 'run };
                let person = &shared.people.all[*terminal];
                let outcome = self.turn(person, registered[index], due, &mut tally).await;
                registered[index] = outcome.unwrap_or(registered[index]);
                Live::count(&shared.live.requests);
            }
            pass += 1;
        }
        let registered = own.iter().zip(registered).filter(|(_, registered)| *registered).map(|(n, _)| *n);
        Seen { tally, registered: registered.collect() }
    }

    /// One request of one terminal; gives whether it is registered from now on, if that is known.
    async fn turn(
        &mut self,
        person: &Person,
        registered: bool,
        due: tokio::time::Instant,
        tally: &mut Tally,
    ) -> Option<bool> {
        let shared = Arc::clone(&self.shared);
        let procedure = self.choices.next(registered, || !person.terminal().keys().is_empty());
        let body = match procedure {
            Procedure::Register => shared.register.clone(),
            Procedure::Deregister => shared.deregister.clone(),
            Procedure::MskRequest => Ask::msk_request(groups(person)).body(shared.style),
        };
        if shared.own_challenge {
            self.client.forget_nonce();
        }
        let reply = match self.client.request(procedure, &person.user, &body).await {
            Ok(reply) => reply,
            Err(error) => {
                tally.error(error.kind());
                return None;
            }
        };
        tally.answered(procedure, reply.status.as_u16(), due.elapsed(), reply.exchanges);
        match reply.proof {
            Proof::Given | Proof::NotAsked => {}
            Proof::Missing => tally.error("no rspauth"),
            Proof::Wrong(_) => {
                tally.error("wrong rspauth");
                return None;
            }
        }
        if reply.status != hyper::StatusCode::OK {
            return None;
        }
        let Ok(answer) = Answer::read(procedure, &reply.body) else {
            tally.error("answer unreadable");
            return None;
        };
        for item in &answer.items {
            tally.item(item.code.number());
            for ltkm in &item.ltkms {
                shared.ports.take(self.port, person, ltkm, Method::Http);
            }
        }
        let granted = answer.items.iter().any(|item| item.code.is_ok());
        match procedure {
            Procedure::Register => Some(granted),
            Procedure::Deregister => Some(!granted),
            Procedure::MskRequest => None,
        }
    }
}

/// The key groups that a terminal holds keys of, as an MSK request asks for their current keys.
fn groups(person: &Person) -> Vec<MskItem> {
    let terminal = person.terminal();
    let mut groups: Vec<MskItem> = Vec::new();
    for key in terminal.keys() {
        let item = MskItem { key_domain: key.key_domain, msk_id: MskId::new(key.msk_id.group(), 0) };
        if !groups.contains(&item) {
            groups.push(item);
        }
    }
    groups
}
