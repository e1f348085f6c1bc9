//! Verification messages: parsed, checked, recorded in batches (LTKM profile §6).

use std::collections::{BTreeMap, HashMap};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use mikey::psk::PresharedKey;
use mikey::verification::Verification;

use super::Engine;
use crate::id::{BTid, TerminalKey};
use crate::metrics::UdpOutcome;
use crate::store::{Scope, StoreError};

/// An authentic answer: whose, and to which LTKM.
type Answer = (TerminalKey, u32);

impl Engine {
    /// Takes a batch of datagrams. Whatever is no authentic answer is counted and dropped.
    ///
    /// # Errors
    /// The store does not work: the batch is counted as unrecorded, the terminals are asked again.
    pub async fn take_in(&self, datagrams: &[Vec<u8>]) -> Result<(), StoreError> {
        let mut asked: Vec<TerminalKey> = Vec::new();
        let mut read: Vec<(TerminalKey, Verification<'_>)> = Vec::new();
        for datagram in datagrams {
            match self.readable(datagram) {
                Ok((key, verification)) => {
                    asked.push(key);
                    read.push((key, verification));
                }
                Err(outcome) => self.metrics.udp_received(outcome),
            }
        }
        asked.sort_unstable();
        asked.dedup();
        let recorded = self.check_and_record(asked, &read).await;
        if recorded.is_err() {
            read.iter().for_each(|_| self.metrics.udp_received(UdpOutcome::Unrecorded));
        }
        recorded
    }

    fn readable<'a>(&self, datagram: &'a [u8]) -> Result<(TerminalKey, Verification<'a>), UdpOutcome> {
        /// HDR: version 1, data type 6 (RFC 3830 §6.1).
        const ERROR: [u8; 2] = [1, 6];
        if datagram.starts_with(&ERROR) {
            return Err(UdpOutcome::Error);
        }
        let verification = Verification::parse(datagram).map_err(|_| UdpOutcome::Malformed)?;
        let idr = std::str::from_utf8(verification.idr()).ok().and_then(|text| BTid::new(text).ok());
        let btid = idr.ok_or(UdpOutcome::Unknown)?;
        Ok((self.store.terminal_key(&btid), verification))
    }

    async fn check_and_record(
        &self,
        asked: Vec<TerminalKey>,
        read: &[(TerminalKey, Verification<'_>)],
    ) -> Result<(), StoreError> {
        if asked.is_empty() {
            return Ok(());
        }
        let terminals = self.store.terminals(asked).await.inspect_err(|_| self.metrics.store_failed())?;
        let sealer = self.store.sealer();
        let mut keys = HashMap::with_capacity(terminals.len());
        for terminal in terminals {
            let Some(credential) = terminal.credential else { continue };
            match sealer.open_muk(&credential.btid, &credential.muk) {
                Ok(muk) => {
                    keys.insert(terminal.key, (PresharedKey::new(muk.expose()), credential.btid));
                }
                Err(error) => {
                    tracing::error!(%error, btid = %credential.btid.logged(), "a MUK cannot be opened")
                }
            }
        }
        let fqdn = self.settings.identity.fqdn.as_bytes();
        let mut answers: Vec<Answer> = Vec::with_capacity(read.len());
        for (key, verification) in read {
            let Some((psk, btid)) = keys.get(key) else {
                self.metrics.udp_received(UdpOutcome::Unknown);
                continue;
            };
            let t = verification.counter();
            let (rand, csb_id) = sealer.ltkm_rand(btid, t);
            match verification.check(psk, csb_id, &rand, fqdn) {
                Ok(()) => answers.push((*key, t)),
                Err(_) => self.metrics.udp_received(UdpOutcome::WrongMac),
            }
        }
        self.record(answers).await
    }

    async fn record(&self, mut answers: Vec<Answer>) -> Result<(), StoreError> {
        if answers.is_empty() {
            return Ok(());
        }
        // What one update can change at the least cost; the units go side by side.
        let mut units: BTreeMap<u16, Vec<Answer>> = BTreeMap::new();
        for answer in answers.drain(..) {
            units.entry(self.store.unit(answer.0)).or_default().push(answer);
        }
        let mut recording: FuturesUnordered<_> =
            units.into_values().map(|unit| self.record_unit(unit)).collect();
        let mut recorded = Ok(());
        while let Some(unit) = recording.next().await {
            recorded = recorded.and(unit);
        }
        recorded
    }

    async fn record_unit(&self, mut answers: Vec<Answer>) -> Result<(), StoreError> {
        answers.sort_unstable();
        let mut keys: Vec<TerminalKey> = answers.iter().map(|(key, _)| *key).collect();
        keys.dedup();
        let outcomes = self
            .update(Scope::Terminals(keys), move |view, ctx| {
                let mut outcomes = Vec::with_capacity(answers.len());
                for terminal in &mut view.terminals {
                    let first = answers.partition_point(|(key, _)| *key < terminal.key);
                    let key = terminal.key;
                    for (_, t) in answers[first..].iter().take_while(|(of, _)| *of == key) {
                        outcomes.push(terminal.answered(*t, ctx.now));
                    }
                }
                outcomes
            })
            .await?;
        for outcome in outcomes {
            self.metrics.udp_received(match outcome {
                Some(answered) if answered.first => {
                    self.metrics.verified(answered.via, answered.after.as_secs_f64());
                    UdpOutcome::Verified
                }
                Some(_) => UdpOutcome::Duplicate,
                None => UdpOutcome::Stale,
            });
        }
        Ok(())
    }
}
