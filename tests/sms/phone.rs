//! Terminals with a number: registered, woken by SMS, pulling over HTTP.

use mikey::ltkm::OpenedLtkm;
use serde_json::{Value, json};

use crate::harness::http::Reply;
use crate::harness::terminal::Terminal;
use crate::harness::{Daemon, FQDN, encoded};
use crate::peer::{Message, Smsc};

/// The delivery types of a terminal behind NAT: HTTP and SMS.
pub(crate) const BEHIND_NAT: &[u8] = &[2, 1];
pub(crate) const DOMAIN: &str = "b8709d";
/// Asks for the current key of the services' groups 1 and 2.
pub(crate) const GROUP_1: &str = "00010000";

/// A daemon that binds to these centres, with `urn:s` open to everybody.
pub(crate) fn daemon(centres: &[&Smsc], overrides: &str) -> Daemon {
    let daemon = Daemon::start_with(&settings(centres, overrides));
    daemon.put_service("urn:s", 1, json!({}));
    daemon
}

/// The configuration of such a daemon: one terminal may get messages as fast as the tests want it to.
pub(crate) fn settings(centres: &[&Smsc], overrides: &str) -> String {
    let urls: Vec<_> = centres.iter().map(|c| c.url()).collect();
    let mut settings = format!("{overrides}\nsms.smsc = {urls:?}\n");
    let password_file = format!("{:?}", centres[0].password_file());
    for (key, value) in [
        ("sms.system_id", "\"ltkmd\""),
        ("sms.sms_password_file", password_file.as_str()),
        ("sms.source", "\"12345\""),
        ("sms.pull_timeout", "\"60s\""),
        ("sms.terminal_interval", "\"0s\""),
        ("sms.terminal_daily", "10000"),
    ] {
        if !overrides.contains(key) {
            settings += &format!("{key} = {value}\n");
        }
    }
    settings
}

/// Puts a subscriber in, with a number or without.
pub(crate) fn put_subscriber(daemon: &Daemon, subscriber: &str, msisdn: Value) -> Reply {
    let body = json!({"msisdn": msisdn, "services": []});
    daemon.admin("PUT", &format!("/v1/subscribers/{}", encoded(subscriber)), Some(&body))
}

/// A terminal with a number.
pub(crate) struct Phone {
    pub(crate) terminal: Terminal,
    pub(crate) msisdn: String,
}

impl Phone {
    /// A provisioned one.
    pub(crate) fn new(daemon: &Daemon, n: usize) -> Self {
        let msisdn = format!("4917{n:07}");
        let subscriber = format!("{msisdn}@ims.example.com");
        assert_eq!(put_subscriber(daemon, &subscriber, json!(msisdn)).status, 201);
        Self { terminal: Terminal::provision_for(daemon, &subscriber), msisdn }
    }

    /// One that registered for these services with these delivery types, and has what came in the answer.
    pub(crate) fn registered(daemon: &Daemon, n: usize, services: &[&str], types: &[u8]) -> Self {
        let phone = Self::new(daemon, n);
        phone.register(daemon, services, types);
        phone
    }

    /// One behind NAT that is registered for `urn:s` and has its key.
    pub(crate) fn behind_nat(daemon: &Daemon, n: usize) -> Self {
        Self::registered(daemon, n, &["urn:s"], BEHIND_NAT)
    }

    /// So many of them.
    pub(crate) fn many(daemon: &Daemon, n: usize) -> Vec<Self> {
        (0..n).map(|n| Self::behind_nat(daemon, n)).collect()
    }

    /// Registers, and verifies what came in the answer.
    pub(crate) fn register(&self, daemon: &Daemon, services: &[&str], types: &[u8]) {
        let answer = self.terminal.registered(services, Some(types));
        let ltkms: Vec<_> = answer.items.iter().flat_map(|item| item.ltkms()).collect();
        self.verify(daemon, &ltkms.iter().map(|octets| self.terminal.open(octets)).collect::<Vec<_>>());
    }

    /// Requests the current key of group 1 as a trigger asks for, and verifies what came; gives it.
    pub(crate) fn pull(&self, daemon: &Daemon) -> OpenedLtkm {
        let answer = self.terminal.msks(&[(DOMAIN, GROUP_1)]);
        let mut ltkms: Vec<_> = answer.items[0].ltkms().iter().map(|l| self.terminal.open(l)).collect();
        self.verify(daemon, &ltkms);
        assert_eq!(ltkms.len(), 1, "one key for one service");
        ltkms.remove(0)
    }

    /// Verifies these, and waits until the daemon knows.
    fn verify(&self, daemon: &Daemon, ltkms: &[OpenedLtkm]) {
        ltkms.iter().for_each(|ltkm| self.terminal.verify(ltkm));
        daemon.await_state("the verification", |daemon| {
            let verified = daemon.terminal(&self.terminal.btid)["verified"].clone();
            let has = |l: &OpenedLtkm| {
                let id = json!(l.msk_id.to_string());
                verified.as_array().expect("a list").iter().any(|v| v["msk_id"] == id)
            };
            ltkms.iter().all(has).then_some(())
        });
    }

    /// Opens the trigger in a short message for this phone, which has to be right and must not bring a key.
    pub(crate) fn trigger(&self, message: &Message) -> OpenedLtkm {
        assert_eq!(message.to, self.msisdn);
        let ltkm = self.terminal.open(&message.octets);
        assert!(ltkm.key.is_none(), "a key went out by SMS");
        assert_eq!((ltkm.v, ltkm.msk_id.number()), (false, 0));
        assert_eq!((&ltkm.idi[..], &ltkm.idr[..]), (FQDN.as_bytes(), self.terminal.btid.as_bytes()));
        ltkm
    }

    /// The messages for this phone.
    pub(crate) fn messages(&self, smsc: &Smsc) -> Vec<Message> {
        smsc.messages().into_iter().filter(|m| m.to == self.msisdn).collect()
    }

    /// Waits until its delivery of this MSK ID is in this state; gives it.
    pub(crate) fn await_delivery(&self, daemon: &Daemon, msk_id: &str, state: &str) -> Value {
        daemon.await_state(&format!("{msk_id} {state}"), |daemon| {
            let all = daemon.deliveries(&self.terminal.btid);
            all.into_iter().find(|d| d["msk_id"] == msk_id && d["state"] == state)
        })
    }
}

/// Each phone has one accepted message at least, each a right trigger, and no T ever came twice except by a
/// submission that was repeated as it was.
pub(crate) fn all_triggered(phones: &[Phone], messages: &[Message]) {
    for phone in phones {
        let mut of: Vec<_> = messages.iter().filter(|m| m.to == phone.msisdn).collect();
        assert!(of.iter().any(|m| m.accepted), "{} was never triggered", phone.msisdn);
        of.dedup_by(|a, b| a.octets == b.octets);
        let counters: Vec<_> = of.iter().map(|m| phone.trigger(m).counter).collect();
        assert!(counters.is_sorted_by(|a, b| a < b), "T does not rise: {counters:?}");
    }
}
