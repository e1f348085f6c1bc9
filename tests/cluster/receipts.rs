//! Delivery receipts that a centre hands to another daemon than the one that submitted the message.

use serde_json::{Value, json};

use crate::harness::Daemon;
use crate::nodes::{Cluster, alone, await_shares};
use crate::peer::Smsc;
use crate::phone::{Phone, settings};
use crate::server::shared;

/// Phones: with so many, either daemon looks after some.
const PHONES: usize = 12;

/// Two daemons, each bound to a centre of its own: what one submits, the other hears of.
struct World {
    database: String,
    cluster: Cluster,
    centres: [Smsc; 2],
}

impl World {
    fn new() -> Self {
        let database = shared().database();
        let cluster = Cluster::new(&shared().url_of("postgres", &database), "");
        Self { database, cluster, centres: [Smsc::start(), Smsc::start()] }
    }

    /// Starts the daemon of the first or the second centre.
    fn start(&self, n: usize) -> Daemon {
        let name = ["a", "b"][n];
        let log = "log.filter = \"info,ltkmd::engine=debug\"";
        let with_sms = settings(&[&self.centres[n]], log);
        let mut daemon = Daemon::start_unready(&self.cluster.settings_with(name, &with_sms));
        daemon.port = self.cluster.port;
        daemon.await_ready();
        self.centres[n].await_bound(1);
        daemon
    }
}

/// The delivery of a key that a short message is about.
fn delivery(daemon: &Daemon, phone: &Phone, msk_id: &str) -> Option<Value> {
    daemon.deliveries(&phone.terminal.btid).into_iter().find(|d| d["msk_id"] == msk_id)
}

#[test]
fn a_receipt_finds_its_delivery_at_whichever_daemon_it_comes() {
    let _alone = alone();
    let world = World::new();
    let [first, second] = &world.centres;
    // A is alone, and submits everything.
    let a = world.start(0);
    a.put_service("urn:s", 1, json!({}));
    let phones = Phone::many(&a, PHONES);
    let (_, msk_id) = a.rotate("urn:s", None);
    let messages = first.await_accepted(PHONES);
    for phone in &phones {
        a.await_state("the message's name", |a| {
            delivery(a, phone, &msk_id)
                .filter(|d| d["message_ids"].as_array().is_some_and(|ids| !ids.is_empty()))
        });
    }
    // B takes half of the terminals over, and hears of them all.
    let b = world.start(1);
    await_shares(shared(), &world.database, &["a", "b"]);
    let (lost, reached) = phones.split_at(PHONES / 2);
    for (phones, word, state, name) in
        [(reached, "DELIVRD", "sent", "delivered"), (lost, "UNDELIV", "failed", "undeliverable")]
    {
        for phone in phones {
            let message = messages.iter().find(|m| m.to == phone.msisdn).expect("its message");
            second.receipt(&message.ids[0], word, "both");
        }
        for (phone, daemon) in phones.iter().flat_map(|phone| [(phone, &b), (phone, &a)]) {
            let told = daemon.await_state(&format!("the receipt {name}"), |daemon| {
                delivery(daemon, phone, &msk_id).filter(|d| !d["receipt"].is_null())
            });
            assert_eq!((&told["receipt"]["state"], &told["state"]), (&json!(name), &json!(state)), "{told}");
        }
    }
    b.await_metric("ltkmd_sms_receipts_total{state=\"delivered\"}", reached.len() as f64);
    assert_eq!(a.metric("ltkmd_sms_receipts_total{state=\"delivered\"}"), 0.0, "A has heard nothing");
    assert!(second.submits().is_empty(), "B has submitted nothing");
}

#[test]
fn a_receipt_that_comes_before_the_other_daemon_knows_its_messages_name_waits_for_it() {
    let _alone = alone();
    let world = World::new();
    let [first, second] = &world.centres;
    let a = world.start(0);
    a.put_service("urn:s", 1, json!({}));
    let phone = Phone::behind_nat(&a, 1);
    first.tell(json!({"do": "hold"}));
    let (_, msk_id) = a.rotate("urn:s", None);
    first.await_submits(1);
    let mut b = world.start(1);
    let early = first.id(1);
    second.receipt(&early, "DELIVRD", "both");
    b.await_log("a receipt waits for its message's name");
    let nameless = delivery(&b, &phone, &msk_id).expect("its delivery");
    assert_eq!((&nameless["message_ids"], &nameless["receipt"]), (&json!([]), &json!(null)), "{nameless}");
    // B hears nothing more from its centre: it asks by itself.
    first.tell(json!({"do": "release"}));
    let told = b.await_state("the receipt", |b| {
        delivery(b, &phone, &msk_id).filter(|d| d["receipt"]["state"] == "delivered")
    });
    assert_eq!(told["message_ids"], json!([early]));
}
