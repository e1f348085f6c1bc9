//! What happens by way of the short message centre.

use std::net::{Ipv4Addr, SocketAddr};

use super::{Actor, GROUP, Held, Play, Step, holds};
use crate::cli::demo::Broken;
use crate::cli::demo::stage::{PATIENCE, SYSTEM_ID};
use crate::cli::demo::story::Role;
use crate::cli::ue::smsc::{Behaviour, Smsc, SmscEvent};
use crate::cli::ue::terminal::{Effect, Pull};
use crate::id::{Method, Msisdn};

/// A centre that knows everybody's phone and lets nobody else in.
pub(super) async fn centre(actors: &[Actor]) -> Result<Smsc, String> {
    let mut behaviour = Behaviour { system_id: Some(SYSTEM_ID.to_owned()), ..Behaviour::default() };
    for actor in actors {
        if let Some(msisdn) = actor.msisdn {
            let msisdn = Msisdn::new(msisdn).map_err(|error| error.to_string())?;
            behaviour.routes.insert(msisdn, actor.ltkm_address()?);
        }
    }
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    Smsc::bind(any, behaviour).await.map_err(|error| error.to_string())
}

impl Play<'_> {
    pub(super) fn network(&mut self, text: &str) {
        self.story.tell(Role::Network, "smsc", text);
    }

    /// Waits for what is wanted of the centre.
    async fn happening<T>(&mut self, step: &str, wanted: impl Fn(SmscEvent) -> Option<T>) -> Held<T> {
        let found = async {
            loop {
                let happening = self.smsc.next().await?;
                if let Some(found) = wanted(happening.event) {
                    return Some(found);
                }
            }
        };
        let found = tokio::time::timeout(PATIENCE, found).await.ok().flatten();
        found.ok_or_else(|| Broken {
            step: step.to_owned(),
            why: format!("the short message centre saw nothing of it within {} s", PATIENCE.as_secs()),
        })
    }

    /// The daemon binds.
    pub(super) async fn await_bind(&mut self, step: &str) -> Held {
        let bound = |event| match event {
            SmscEvent::Bound { system_id, mode, .. } => Some((system_id, mode)),
            _ => None,
        };
        let (system_id, mode) = self.happening(step, bound).await?;
        self.network(&format!("{system_id} is bound as a {mode}"));
        Ok(())
    }

    /// The daemon takes its leave.
    pub(super) async fn await_farewell(&mut self, step: &str) -> Held {
        let ended = |event| match event {
            SmscEvent::Ended { system_id: Some(system_id), why, .. } => Some((system_id, why)),
            _ => None,
        };
        let (system_id, why) = self.happening(step, ended).await?;
        holds(why == "unbound", step, || format!("{system_id} did not unbind: {why}"))?;
        self.network(&format!("{system_id} has unbound"));
        Ok(())
    }

    /// A new key reaches frank: the daemon wakes him, and he pulls.
    pub(super) async fn key_update_by_sms(&mut self, key: &str) -> Held {
        let step = "frank, whom no datagram reaches, is woken by SMS and pulls the new key";
        let message = |event| match event {
            SmscEvent::Message(message) => Some(message),
            _ => None,
        };
        let message = self.happening(step, message).await?;
        let frank = self.cast["frank"].credential.btid.to_string();
        let right = message.ltkm.as_ref().filter(|ltkm| ltkm.btid == frank && !ltkm.key);
        let right = right.is_some_and(|ltkm| ltkm.pull == Some("msk-request"));
        holds(right && message.outcome.is_delivered(), step, || format!("{message:?} came"))?;
        let parts = message.ids.len();
        let phone = &message.to;
        self.network(&format!(
            "hands frank's phone, {phone}, an LTKM without a key in {parts} short messages"
        ));

        let woken = self.actor("frank").receive_sms().await.step(step)?;
        let Effect::Pull(Pull::MskRequest { key_domain, msk_id }) = woken.effect else {
            return Err(Broken { step: step.to_owned(), why: format!("frank took {woken:?}") });
        };
        holds(msk_id.group() == GROUP, step, || format!("the LTKM is about {msk_id}"))?;
        let t = woken.counter;
        self.says("frank", &format!("is asked by SMS (T {t}) to pull the current key of group {GROUP:04x}"));
        let (answer, taken) = self.actor("frank").ask(&Actor::pull(key_domain, GROUP)).await.step(step)?;
        holds(answer.is_all_ok(), step, || format!("{:?}", answer.items))?;
        let came = self.only_key("frank", step, &taken, Method::Http)?;
        holds(came.to_string() == key, step, || format!("key {came} came"))?;

        let receipt = |event| match event {
            SmscEvent::Receipt { system_id, state, .. } => Some((system_id, state)),
            _ => None,
        };
        let (system_id, state) = self.happening(step, receipt).await?;
        holds(state == "delivered", step, || format!("the receipt says {state}"))?;
        self.network(&format!("{system_id} has the receipt: {state}"));
        self.verified("frank", came, step).await
    }
}
