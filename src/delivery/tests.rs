//! The life of deliveries on made-up time: what is sent, by what, when again, and how it ends.

mod schedules;
mod sms;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use zeroize::Zeroizing;

use super::*;
use crate::gba::{Credential, GbaType};
use crate::id::{BTid, JobId, KeyDomainId, Method, MethodSet, MskId, ServiceId, SubscriberId, TerminalKey};
use crate::keys::{Catalogue, Msk, Service, ServiceKeys, Validity};
use crate::procedure::{self, Code, Outcome};
use crate::secret::Sealed;
use crate::time::Timestamp;

const DOMAIN: KeyDomainId = KeyDomainId([0xB8, 0x70, 0x9D]);
const HOUR: Duration = Duration::from_secs(3600);
const HTTP: &[u8] = &[2];
const BOTH: &[u8] = &[0, 2];

/// A terminal, the operator's part, and a clock that moves when told.
struct World {
    catalogue: Catalogue,
    rules: Rules,
    now: Timestamp,
    terminal: Terminal,
    seed: u64,
}

fn id(name: &str) -> ServiceId {
    ServiceId::new(name).expect("a service id")
}

fn address() -> IpAddr {
    IpAddr::from([192, 0, 2, 1])
}

impl World {
    /// Services `a` and `b`, each with key 1 that began now and lasts a day.
    fn new() -> Self {
        let now = Timestamp::from_secs(1_800_000_000);
        let credential = Credential {
            btid: BTid::new("t@bsf").expect("a B-TID"),
            subscriber: SubscriberId::new("u").expect("an IMPI"),
            mrk: Sealed::from_octets(&[]),
            muk: Sealed::from_octets(&[]),
            gba: GbaType::Me,
            expires: None,
        };
        let rules = Rules {
            preference: vec![Method::Http, Method::Udp],
            verify: true,
            attempts: 4,
            first_timeout: Duration::from_secs(2),
            sms_alone: SmsAlone::Accept,
            lead_time: Duration::from_secs(600),
            sms: None,
        };
        let mut terminal = Terminal::new(TerminalKey([1; 16]));
        terminal.credential = Some(credential);
        let mut world = Self { catalogue: Catalogue::default(), rules, now, terminal, seed: 1 };
        for (no, name) in [(1, "a"), (2, "b")] {
            let service = Service {
                no: ServiceNo(no),
                id: id(name),
                key_domain: DOMAIN,
                key_group: no as u16,
                validity: Validity::Ntp,
                lifetime: 24 * HOUR,
                rotate_every: None,
                open: true,
                ext_bcast: None,
                invalidate_on_deregister: true,
                mtk_ids: (1, 65535),
                salt: false,
                srtp: None,
                lead_time: None,
                retired: None,
            };
            world.catalogue.insert(ServiceKeys { service, keys: Vec::new() });
            world.add_key(name, 1, now, now + 24 * HOUR);
        }
        world
    }

    fn entry(&self, name: &str) -> Arc<ServiceKeys> {
        Arc::clone(self.catalogue.by_id(&id(name)).expect("the service is there"))
    }

    fn add_key(&mut self, name: &str, number: u16, valid_from: Timestamp, valid_to: Timestamp) {
        let mut entry = (*self.entry(name)).clone();
        let (service, msk) = (entry.service.no, Zeroizing::new([number as u8; 16]));
        let mtk_ids = (1, 65535);
        entry.keys.push(Arc::new(Msk { service, number, msk, salt: None, valid_from, valid_to, mtk_ids }));
        self.catalogue.insert(entry);
    }

    /// Runs a decision at this moment; checks what must hold after each.
    fn decide<R>(&mut self, decision: impl FnOnce(&mut Terminal, &mut Context<'_>) -> R) -> R {
        self.seed += 1;
        let before = self.terminal.next_t;
        let entropy = Entropy::new(self.seed);
        let mut ctx = Context::new(&self.catalogue, &self.rules, self.now, entropy);
        let result = decision(&mut self.terminal, &mut ctx);
        assert!(self.terminal.next_t >= before, "T went back");
        for d in &self.terminal.deliveries {
            let waits = matches!(d.state, State::Sent | State::Queued);
            assert_eq!(d.next_due.is_some(), waits, "what awaits an answer or its turn is due: {d:?}");
        }
        result
    }

    fn register(&mut self, services: &[&str], declared: Option<&[u8]>) -> Outcome {
        let services: Vec<_> = services.iter().map(|s| id(s)).collect();
        let outcome = self.decide(|terminal, ctx| {
            procedure::register(terminal, &mut [], &[], address(), &services, declared, ctx)
        });
        outcome.expect("a method is left")
    }

    fn deregister(&mut self, services: &[&str]) -> Outcome {
        let services: Vec<_> = services.iter().map(|s| id(s)).collect();
        self.decide(|terminal, ctx| procedure::deregister(terminal, address(), &services, ctx))
    }

    fn msk_request(&mut self, group: u16, number: u16) -> Outcome {
        let keys = [(DOMAIN, MskId::new(group, number))];
        self.decide(|terminal, ctx| procedure::msk_request(terminal, address(), &keys, ctx))
    }

    fn update(&mut self, name: &str, number: u16) -> Vec<Order> {
        let entry = self.entry(name);
        self.decide(|terminal, ctx| {
            let mut orders = Vec::new();
            terminal.update(&entry, number, JobId(number.into()), ctx, &mut orders);
            orders
        })
    }

    /// Moves to the next due moment and looks at what is due.
    fn lapse(&mut self) -> Vec<Order> {
        self.now = self.terminal.next_due().expect("something is due");
        self.decide(|terminal, ctx| {
            let mut orders = Vec::new();
            terminal.due(ctx, &mut orders);
            orders
        })
    }

    fn answer(&mut self, t: u32) -> Option<Answered> {
        let now = self.now;
        self.decide(|terminal, _| terminal.answered(t, now))
    }

    fn delivery(&self, service: u32, number: u16, kind: Kind) -> &Delivery {
        let mut all = self.terminal.deliveries.iter().filter(|d| d.is(ServiceNo(service), number, kind));
        let found = all.next().expect("the delivery is there");
        assert!(all.next().is_none(), "one delivery per service, key and kind");
        found
    }

    fn key(&self, service: u32, number: u16) -> &Delivery {
        self.delivery(service, number, Kind::Key)
    }
}

#[test]
fn a_terminal_that_declares_nothing_gets_its_key_by_udp_beside_the_answer() {
    let mut world = World::new();
    let outcome = world.register(&["a"], None);
    assert_eq!(outcome.announced, None);
    assert!(outcome.items[0].orders.is_empty());
    assert_eq!(outcome.push.len(), 1);
    assert_eq!((outcome.push[0].via, outcome.push[0].v, outcome.push[0].t), (Method::Udp, true, 1));
}

#[test]
fn with_http_in_the_set_keys_ride_beside_their_own_service_in_order_of_t() {
    let mut world = World::new();
    let outcome = world.register(&["b", "a"], Some(BOTH));
    assert_eq!(outcome.announced, Some(MethodSet::UDP.with(Method::Http)));
    let t: Vec<_> =
        outcome.items.iter().map(|i| (i.orders[0].service, i.orders[0].t, i.orders[0].via)).collect();
    assert_eq!(t, [(ServiceNo(2), 1, Method::Http), (ServiceNo(1), 2, Method::Http)]);
    assert!(outcome.push.is_empty());
}

#[test]
fn a_service_listed_twice_has_its_ltkms_in_the_first_listing_only() {
    let mut world = World::new();
    let outcome = world.register(&["a", "a"], Some(HTTP));
    let shape: Vec<_> = outcome.items.iter().map(|i| (i.code, i.orders.len())).collect();
    assert_eq!(shape, [(Code::Ok, 1), (Code::Ok, 0)]);
}

#[test]
fn waits_double_until_the_attempts_are_spent_then_the_delivery_fails() {
    let mut world = World::new();
    world.register(&["a"], None);
    let mut waits = Vec::new();
    for attempt in 2..=4 {
        let before = world.now;
        assert_eq!(world.lapse().len(), 1, "attempt {attempt}");
        waits.push(world.now.since(before).as_millis());
    }
    let before = world.now;
    assert!(world.lapse().is_empty());
    waits.push(world.now.since(before).as_millis());
    for (wait, nominal) in waits.into_iter().zip([2000, 4000, 8000, 16_000]) {
        assert!(wait.abs_diff(nominal) <= nominal / 10, "{wait} ms is not {nominal} ms ± 10 %");
    }
    let d = world.key(1, 1);
    assert_eq!((d.state, d.error, d.attempts), (State::Failed, Some(Reason::NoAnswer), 4));
    assert_eq!(world.terminal.next_due(), None);
}

#[test]
fn any_attempt_may_be_answered_also_after_the_delivery_failed_and_only_once() {
    let mut world = World::new();
    let first = world.register(&["a"], None).push[0].t;
    while world.terminal.next_due().is_some() {
        world.lapse();
    }
    assert!(world.answer(first).expect("known").first);
    assert_eq!(world.key(1, 1).state, State::Verified);
    assert!(!world.answer(first + 1).expect("known").first, "the second answer is a duplicate");
    assert_eq!(world.answer(99), None);
}

#[test]
fn what_rode_in_an_answer_unverified_goes_on_by_udp_or_awaits_a_pull() {
    let mut world = World::new();
    world.register(&["a"], Some(BOTH));
    assert_eq!(world.lapse().iter().map(|o| o.via).collect::<Vec<_>>(), [Method::Udp]);

    let mut world = World::new();
    world.register(&["a"], Some(HTTP));
    assert!(world.lapse().is_empty());
    assert_eq!(world.key(1, 1).state, State::AwaitingPull);
}

#[test]
fn a_pull_completes_what_awaited_it_and_counts_for_the_same_job() {
    let mut world = World::new();
    let t = world.register(&["a"], Some(HTTP)).items[0].orders[0].t;
    world.answer(t);
    world.add_key("a", 2, world.now, world.now + HOUR);
    assert!(world.update("a", 2).is_empty());
    assert_eq!(world.key(1, 2).state, State::AwaitingPull);
    let outcome = world.msk_request(1, 0);
    assert_eq!((outcome.items[0].code, outcome.items[0].orders[0].number), (Code::Ok, 2));
    world.answer(outcome.items[0].orders[0].t);
    assert_eq!((world.key(1, 2).state, world.key(1, 2).job), (State::Verified, Some(JobId(2))));
}

#[test]
fn a_newer_key_supersedes_and_a_late_answer_records_the_older_alone() {
    let mut world = World::new();
    let old = world.register(&["a"], None).push[0].t;
    world.add_key("a", 2, world.now, world.now + HOUR);
    assert_eq!(world.update("a", 2).len(), 1);
    assert_eq!(world.key(1, 1).state, State::Superseded);
    assert!(world.answer(old).expect("known").first);
    assert!(world.key(1, 1).verified.is_some());
    assert_eq!((world.key(1, 1).state, world.key(1, 2).state), (State::Superseded, State::Sent));
}

#[test]
fn current_and_next_key_of_one_registration_do_not_supersede_each_other() {
    let mut world = World::new();
    world.add_key("a", 2, world.now + HOUR, world.now + 25 * HOUR);
    assert_eq!(world.register(&["a"], None).push.len(), 1, "the lead time has not begun");
    world.now = world.now + Duration::from_secs(3001);
    assert_eq!(world.register(&["a"], None).push.len(), 2);
    assert_eq!((world.key(1, 1).state, world.key(1, 2).state), (State::Sent, State::Sent));
}

#[test]
fn what_failed_goes_out_again_at_the_next_contact_and_a_young_attempt_is_left_alone() {
    let mut world = World::new();
    world.register(&["a"], None);
    while world.terminal.next_due().is_some() {
        world.lapse();
    }
    let outcome = world.register(&["b"], None);
    let sent: Vec<_> = outcome.push.iter().map(|o| o.service.0).collect();
    assert_eq!(sent, [2, 1]);
    assert!(world.msk_request(9, 0).push.is_empty(), "both were sent a moment ago");
    world.now = world.now + Duration::from_secs(3);
    assert_eq!(world.msk_request(9, 0).push.len(), 2);
}

#[test]
fn what_goes_by_udp_waits_behind_the_answer_that_ltkms_ride_in() {
    let mut world = World::new();
    world.register(&["a"], Some(BOTH));
    while world.terminal.next_due().is_some() {
        world.lapse();
    }
    let outcome = world.register(&["b"], Some(BOTH));
    let t = outcome.items[0].orders[0].t;
    assert!(outcome.push.is_empty(), "a datagram would overtake the answer");
    assert_eq!(world.key(1, 1).state, State::Queued);
    let sent = world.lapse();
    assert_eq!((sent[0].service, sent[0].via), (ServiceNo(1), Method::Udp));
    assert!(sent[0].t > t);

    let outcome = world.register(&["b"], Some(HTTP));
    assert_eq!(outcome.items[0].orders.len(), 1);
    assert_eq!(world.key(1, 1).state, State::AwaitingPull, "the turn that waits for UDP ends with UDP");
}

#[test]
fn deregistration_cancels_and_invalidates_each_key_that_the_terminal_may_hold() {
    let mut world = World::new();
    let t = world.register(&["a"], Some(BOTH)).items[0].orders[0].t;
    world.answer(t);
    world.add_key("a", 2, world.now, world.now + HOUR);
    world.update("a", 2);
    let outcome = world.deregister(&["a", "b", "c"]);
    let codes: Vec<_> = outcome.items.iter().map(|i| i.code).collect();
    assert_eq!(codes, [Code::Ok, Code::Forbidden, Code::NotFound]);
    let sent: Vec<_> = outcome.items[0].orders.iter().map(|o| (o.kind, o.number, o.v)).collect();
    assert_eq!(sent, [(Kind::Invalidate, 1, true), (Kind::Invalidate, 2, true)]);
    assert_eq!(world.key(1, 2).state, State::Cancelled);
    assert!(!world.terminal.is_registered());
    assert!(world.key(1, 1).verified.is_none(), "an invalidated key is not held any more");
}

#[test]
fn a_new_registration_stops_an_invalidation_that_is_under_way() {
    let mut world = World::new();
    world.register(&["a"], None);
    world.deregister(&["a"]);
    assert_eq!(world.delivery(1, 1, Kind::Invalidate).state, State::Sent);
    world.register(&["a"], None);
    assert_eq!(world.delivery(1, 1, Kind::Invalidate).state, State::Cancelled);
    assert_eq!(world.key(1, 1).state, State::Sent);
}

#[test]
fn a_method_that_leaves_the_set_is_not_used_again() {
    let mut world = World::new();
    world.register(&["a"], None);
    world.now = world.now + Duration::from_millis(10);
    let outcome = world.register(&["b"], Some(HTTP));
    assert!(outcome.push.is_empty());
    assert_eq!(world.key(1, 1).state, State::AwaitingPull);
    while world.terminal.next_due().is_some() {
        assert!(world.lapse().is_empty(), "nothing leaves by UDP");
    }
}

#[test]
fn no_declared_method_is_403_and_changes_nothing() {
    let mut world = World::new();
    world.register(&["a"], Some(BOTH));
    let before = world.terminal.clone();
    let refused = world.decide(|terminal, ctx| {
        procedure::register(terminal, &mut [], &[], address(), &[id("b")], Some(&[1, 200]), ctx)
    });
    assert_eq!(refused, None);
    assert_eq!(world.terminal, before);
}

#[test]
fn the_set_is_recorded_whatever_the_items_say() {
    let mut world = World::new();
    let outcome = world.register(&["nowhere"], Some(HTTP));
    assert_eq!(outcome.items[0].code, Code::NotFound);
    assert_eq!(world.terminal.set(&world.rules), MethodSet::EMPTY.with(Method::Http));
    assert!(!world.terminal.is_registered());
}

#[test]
fn a_registration_under_a_new_btid_ends_the_old_one() {
    let mut world = World::new();
    world.register(&["a"], None);
    let mut old = world.terminal.clone();
    old.key = TerminalKey([2; 16]);
    let services = [id("a")];
    world.decide(|terminal, ctx| {
        let others = std::slice::from_mut(&mut old);
        procedure::register(terminal, others, &[], address(), &services, None, ctx)
    });
    assert_eq!(old.registration, None);
    assert!(old.deliveries.iter().all(|d| d.state == State::Cancelled));
}

#[test]
fn msk_requests_know_the_unregistered_the_unknown_and_the_ended() {
    let mut world = World::new();
    assert_eq!(world.msk_request(1, 0).items[0].code, Code::Forbidden);
    assert_eq!(world.msk_request(7, 0).items[0].code, Code::NotFound);
    world.register(&["a"], Some(HTTP));
    assert_eq!(world.msk_request(1, 5).items[0].code, Code::NotFound);
    assert_eq!(world.msk_request(1, 1).items[0].orders.len(), 1);
    world.now = world.now + 25 * HOUR;
    assert_eq!(world.msk_request(1, 1).items[0].code, Code::NotFound);
    assert_eq!(world.msk_request(1, 0).items[0].code, Code::NotFound);
}

#[test]
fn pushes_stop_when_the_credential_ends_or_its_counter_is_spent() {
    let mut world = World::new();
    world.register(&["a"], None);
    let end = world.now + Duration::from_millis(1);
    world.terminal.credential.as_mut().expect("it has one").expires = Some(end);
    assert!(world.lapse().is_empty());
    assert_eq!(world.key(1, 1).error, Some(Reason::Expired));

    let mut world = World::new();
    world.terminal.next_t = 0xFFFF_0000;
    assert!(world.terminal.spent());
    assert!(world.register(&["a"], None).push.is_empty());
    assert_eq!(world.key(1, 1).error, Some(Reason::CounterSpent));
}

#[test]
fn without_v_a_key_is_assumed_and_never_resent() {
    let mut world = World::new();
    world.rules.verify = false;
    assert!(!world.register(&["a"], None).push[0].v);
    assert_eq!(world.key(1, 1).state, State::Assumed);
    assert_eq!(world.terminal.next_due(), None);
}

#[test]
fn sms_alone_ends_failed_with_no_method() {
    let mut world = World::new();
    world.rules.preference.push(Method::Sms);
    let outcome = world.register(&["a"], Some(&[1]));
    assert!(outcome.push.is_empty() && outcome.items[0].orders.is_empty());
    assert_eq!((world.key(1, 1).state, world.key(1, 1).error), (State::Failed, Some(Reason::NoMethod)));
}

#[test]
fn a_key_whose_validity_ended_is_not_resent() {
    let mut world = World::new();
    world.add_key("a", 2, world.now, world.now + Duration::from_secs(1));
    world.register(&["a"], None);
    assert!(world.lapse().is_empty());
    assert_eq!(world.key(1, 2).error, Some(Reason::KeyOver));
}

#[test]
fn a_job_finds_a_terminal_that_has_the_key_and_counts_it() {
    let mut world = World::new();
    world.add_key("a", 2, world.now, world.now + HOUR);
    let t = world.register(&["a"], None).push[0].t;
    world.answer(t);
    assert!(world.update("a", 2).is_empty(), "nothing is sent twice");
    assert_eq!((world.key(1, 2).state, world.key(1, 2).job), (State::Verified, Some(JobId(2))));
}

#[test]
fn an_older_job_that_comes_late_sends_nothing() {
    let mut world = World::new();
    world.register(&["b"], None);
    world.add_key("b", 2, world.now, world.now + HOUR);
    world.add_key("b", 3, world.now, world.now + HOUR);
    assert_eq!(world.update("b", 3).len(), 1);
    assert!(world.update("b", 2).is_empty());
    assert_eq!(world.key(2, 2).state, State::Superseded);
}

#[test]
fn closed_deliveries_are_kept_within_bounds() {
    let mut world = World::new();
    world.register(&["a"], None);
    for number in 2..100 {
        world.add_key("a", number, world.now, world.now + HOUR);
        world.update("a", number);
        world.decide(|terminal, ctx| terminal.prune(ctx.catalogue, ctx.now));
    }
    assert!(world.terminal.deliveries.len() <= 17, "{} are kept", world.terminal.deliveries.len());
    assert_eq!(world.key(1, 99).state, State::Sent);
}
