//! Deliveries by SMS on made-up time.

use super::*;

const SECOND: Duration = Duration::from_secs(1);
const HTTP_SMS: &[u8] = &[2, 1];
const UDP_SMS: &[u8] = &[0, 1];
const ALL: &[u8] = &[0, 1, 2];

impl World {
    /// SMS is switched on, as the last choice.
    pub(super) fn with_sms() -> Self {
        let mut world = Self::new();
        world.rules.preference = vec![Method::Http, Method::Udp, Method::Sms];
        world.rules.sms = Some(SmsLimits::default());
        world
    }

    /// With a terminal that is registered for `a` and has its key, and a newer one that is on its way.
    fn behind(declared: &[u8]) -> Self {
        let mut world = Self::with_sms();
        let outcome = world.register(&["a"], Some(declared));
        let first = outcome.items[0].orders.iter().chain(&outcome.push).next().expect("the key goes out").t;
        world.answer(first).expect("known");
        world.add_key("a", 2, world.now, world.now + HOUR);
        assert_eq!(world.update("a", 2), if declared.contains(&0) { vec![world.udp(2)] } else { vec![] });
        world
    }

    /// The order of the latest LTKM by UDP.
    fn udp(&self, number: u16) -> Order {
        let t = u32::try_from(self.terminal.next_t - 1).expect("small");
        Order { service: ServiceNo(1), number, kind: Kind::Key, t, v: true, via: Method::Udp }
    }

    fn turn_as(&mut self, reachable: Result<(), Reason>) -> Vec<Order> {
        self.decide(|terminal, ctx| {
            let mut orders = Vec::new();
            terminal.take_turn(reachable, ctx, &mut orders);
            orders
        })
    }

    /// The turn of a terminal that can be reached; what was ordered.
    fn turn(&mut self) -> Vec<Order> {
        self.turn_as(Ok(()))
    }

    /// The one trigger that leaves at the next turn.
    fn triggered(&mut self) -> Order {
        self.now = self.now.max(self.terminal.next_turn().expect("a turn is awaited"));
        match self.turn()[..] {
            [order] if order.via == Method::Sms => order,
            ref other => panic!("not one trigger by SMS: {other:?}"),
        }
    }

    fn trigger(&mut self, kind: Kind) -> bool {
        self.decide(|terminal, ctx| terminal.trigger(ServiceNo(1), kind, ctx, &mut Vec::new()))
    }

    fn receipt(&mut self, id: &str, state: ReceiptState) -> (bool, Vec<Order>) {
        let id = MessageId::new(id).expect("an id");
        self.decide(|terminal, ctx| {
            let mut orders = Vec::new();
            (terminal.sms_receipt(&id, state, ctx, &mut orders), orders)
        })
    }

    fn accepted(&mut self, t: u32, ids: &[&str]) {
        let ids: Vec<_> = ids.iter().map(|id| MessageId::new(id).expect("an id")).collect();
        self.decide(|terminal, _| terminal.sms_accepted(t, &ids));
    }
}

#[test]
fn a_key_update_triggers_a_pull_by_sms_and_the_pull_completes_the_delivery() {
    let mut world = World::behind(HTTP_SMS);
    assert_eq!((world.key(1, 2).state, world.key(1, 2).method), (State::Queued, Some(Method::Sms)));
    let order = world.triggered();
    assert_eq!((order.kind, order.number, order.v), (Kind::TriggerMskRequest, 0, false));
    assert_eq!((world.key(1, 2).state, world.key(1, 2).attempts), (State::Sent, 1));
    let outcome = world.msk_request(1, 0);
    let [pulled] = outcome.items[0].orders[..] else { panic!("{outcome:?}") };
    assert_eq!((pulled.number, pulled.via, pulled.v), (2, Method::Http, true));
    assert!(pulled.t > order.t && outcome.push.is_empty());
    assert_eq!(world.answer(pulled.t).map(|a| a.via), Some(Method::Http));
    assert_eq!((world.key(1, 2).state, world.key(1, 2).job), (State::Verified, Some(JobId(2))));
    assert_eq!(world.terminal.next_turn(), None);
}

#[test]
fn a_pull_for_the_group_brings_the_next_key_too_so_that_nobody_goes_dark_at_the_switch() {
    let mut world = World::with_sms();
    let first = world.register(&["a"], Some(HTTP_SMS)).items[0].orders[0].t;
    world.answer(first);
    let begins = world.now + 600 * SECOND;
    world.add_key("a", 2, begins, begins + HOUR);
    world.update("a", 2);
    world.triggered();
    let outcome = world.msk_request(1, 0);
    let brought: Vec<_> = outcome.items[0].orders.iter().map(|o| (o.number, o.via)).collect();
    assert_eq!(brought, [(1, Method::Http), (2, Method::Http)]);
    let t: Vec<_> = outcome.items[0].orders.iter().map(|o| o.t).collect();
    assert!(t[0] < t[1], "T rises in document order");
    // A request for one key by its number brings that one alone.
    let mut world = World::behind(HTTP_SMS);
    let named: Vec<_> = world.msk_request(1, 1).items[0].orders.iter().map(|o| o.number).collect();
    assert_eq!(named, [1]);
    assert!(world.key(1, 2).turn().is_some(), "the other one still waits for its turn");
}

#[test]
fn when_udp_attempts_run_out_a_pull_by_sms_is_next_and_then_the_delivery_fails() {
    let mut world = World::behind(ALL);
    for _ in 1..world.rules.attempts {
        assert_eq!(world.lapse().len(), 1);
    }
    assert_eq!(world.lapse(), []);
    assert_eq!(world.key(1, 2).method, Some(Method::Sms));
    for _ in 0..2 {
        world.triggered();
        let waits_until = world.now + Duration::from_secs(300);
        assert_eq!(world.terminal.next_due(), Some(waits_until));
        assert_eq!(world.lapse(), []);
    }
    assert_eq!((world.key(1, 2).state, world.key(1, 2).error), (State::Failed, Some(Reason::NoAnswer)));
    // The late pull of a phone that was off is answered, and everything counts from zero.
    assert_eq!(world.msk_request(1, 0).items[0].orders.len(), 1);
    assert_eq!(world.key(1, 2).state, State::Sent);
}

#[test]
fn without_a_number_to_send_to_the_next_method_comes_or_the_delivery_fails_with_that_reason() {
    let mut world = World::behind(HTTP_SMS);
    assert_eq!(world.turn_as(Err(Reason::NoMsisdn)), []);
    assert_eq!((world.key(1, 2).state, world.key(1, 2).error), (State::Failed, Some(Reason::NoMsisdn)));

    let mut world = World::with_sms();
    world.rules.preference = vec![Method::Sms, Method::Udp];
    let first = world.register(&["a"], Some(UDP_SMS)).push[0];
    assert_eq!(first.via, Method::Udp, "an answer without HTTP is followed by UDP, whatever is preferred");
    world.answer(first.t);
    world.add_key("a", 2, world.now, world.now + HOUR);
    assert_eq!(world.update("a", 2), []);
    let orders = world.turn_as(Err(Reason::NoMsisdn));
    assert_eq!(orders, [world.udp(2)]);
}

#[test]
fn when_sms_is_switched_off_what_waits_for_it_goes_on_otherwise() {
    let mut world = World::behind(HTTP_SMS);
    world.rules.sms = None;
    world.rules.preference = vec![Method::Http, Method::Udp];
    assert_eq!(world.turn_as(Err(Reason::SmsOff)), []);
    assert_eq!((world.key(1, 2).state, world.key(1, 2).error), (State::Failed, Some(Reason::SmsOff)));
    world.add_key("a", 3, world.now, world.now + HOUR);
    world.update("a", 3);
    assert_eq!(world.key(1, 3).state, State::AwaitingPull);
}

#[test]
fn one_trigger_serves_all_that_waits_a_registration_when_it_is_about_several_services() {
    let mut world = World::with_sms();
    let outcome = world.register(&["a", "b"], Some(HTTP_SMS));
    for item in &outcome.items {
        world.answer(item.orders[0].t);
    }
    for service in ["a", "b"] {
        world.add_key(service, 2, world.now, world.now + HOUR);
        world.update(service, 2);
    }
    let order = world.triggered();
    assert_eq!((order.kind, order.number), (Kind::TriggerRegister, 0));
    assert_eq!((world.key(1, 2).state, world.key(2, 2).state), (State::Sent, State::Sent));
    assert_eq!(world.terminal.next_turn(), None, "the other one does not trigger again");
    let outcome = world.register(&["a", "b"], Some(HTTP_SMS));
    assert!(outcome.items.iter().all(|item| item.orders.iter().any(|o| o.number == 2)));
}

#[test]
fn one_terminal_is_not_sent_more_than_its_interval_and_its_daily_cap_allow() {
    let mut world = World::behind(HTTP_SMS);
    let limits = SmsLimits { daily: 3, ..SmsLimits::default() };
    world.rules.sms = Some(limits);
    let begun = world.now;
    let mut sent = Vec::new();
    for number in 3..8 {
        world.triggered();
        sent.push(world.now.since(begun));
        let outcome = world.msk_request(1, 0);
        world.answer(outcome.items[0].orders[0].t);
        world.add_key("a", number, world.now, world.now + 100 * HOUR);
        world.update("a", number);
    }
    let day = 24 * HOUR;
    let at = [Duration::ZERO, 10 * SECOND, 20 * SECOND, day, day + 10 * SECOND];
    assert_eq!(sent, at);
}

#[test]
fn what_no_turn_came_for_in_time_fails_or_goes_on_by_udp() {
    let mut world = World::behind(HTTP_SMS);
    world.rules.sms = Some(SmsLimits { patience: 60 * SECOND, ..SmsLimits::default() });
    world.add_key("a", 3, world.now, world.now + HOUR);
    world.update("a", 3);
    assert_eq!(world.lapse(), []);
    assert_eq!((world.key(1, 3).state, world.key(1, 3).error), (State::Failed, Some(Reason::SmsLate)));
    assert_eq!(world.key(1, 2).state, State::Superseded);
}

#[test]
fn a_key_that_ended_while_it_waited_for_its_turn_triggers_nobody() {
    let mut world = World::behind(HTTP_SMS);
    world.now = world.now + 2 * HOUR;
    assert_eq!(world.turn(), []);
    assert_eq!((world.key(1, 2).state, world.key(1, 2).error), (State::Failed, Some(Reason::KeyOver)));
}

#[test]
fn a_trigger_that_never_left_has_its_turn_again_and_does_not_count() {
    let mut world = World::behind(HTTP_SMS);
    let lost = world.triggered();
    world.decide(|terminal, ctx| terminal.sms_unsent(lost.t, ctx, &mut Vec::new()));
    assert_eq!(world.key(1, 2).state, State::Queued);
    let again = world.triggered();
    assert!(again.t > lost.t);
    assert_eq!((world.terminal.ledger.count, world.key(1, 2).sms.as_ref().unwrap().attempts), (1, 1));
    // News about the first one changes nothing any more.
    world.decide(|terminal, ctx| terminal.sms_unsent(lost.t, ctx, &mut Vec::new()));
    assert_eq!(world.key(1, 2).state, State::Sent);
}

#[test]
fn a_refused_message_ends_the_way_by_sms_at_once() {
    let mut world = World::behind(HTTP_SMS);
    let order = world.triggered();
    world.decide(|terminal, ctx| terminal.sms_refused(order.t, ctx, &mut Vec::new()));
    assert_eq!((world.key(1, 2).state, world.key(1, 2).error), (State::Failed, Some(Reason::SmsRefused)));
}

#[test]
fn receipts_are_kept_and_a_lost_message_is_not_waited_for() {
    let mut world = World::behind(HTTP_SMS);
    let order = world.triggered();
    world.accepted(order.t, &["one", "two"]);
    assert_eq!(world.receipt("three", ReceiptState::Delivered), (false, vec![]));
    world.now = world.now + 200 * SECOND;
    assert_eq!(world.receipt("one", ReceiptState::Delivered), (true, vec![]));
    assert_eq!(world.terminal.next_due(), Some(world.now + 300 * SECOND), "it has the whole time to pull");
    assert_eq!(world.receipt("two", ReceiptState::Undeliverable), (true, vec![]));
    assert_eq!((world.key(1, 2).state, world.key(1, 2).error), (State::Failed, Some(Reason::SmsUndelivered)));
    world.receipt("one", ReceiptState::Delivered);
    let kept = world.key(1, 2).sms.as_ref().and_then(|leg| leg.receipt);
    assert_eq!(kept, Some((ReceiptState::Undeliverable, world.now)), "a lost part stays lost");
}

#[test]
fn a_receipt_that_comes_after_the_pull_is_kept_and_changes_nothing_else() {
    let mut world = World::behind(HTTP_SMS);
    let order = world.triggered();
    world.accepted(order.t, &["one"]);
    let pulled = world.msk_request(1, 0).items[0].orders[0].t;
    world.answer(pulled);
    assert_eq!(world.receipt("one", ReceiptState::Expired), (true, vec![]));
    assert_eq!(world.key(1, 2).state, State::Verified);
}

#[test]
fn an_operators_trigger_is_done_with_the_request_it_asks_for() {
    for (kind, declared) in [
        (Kind::TriggerMskRequest, HTTP_SMS),
        (Kind::TriggerRegister, ALL),
        (Kind::TriggerRegister, &[0][..]),
        (Kind::TriggerMskRequest, &[1]),
    ] {
        let mut world = World::with_sms();
        world.register(&["a"], Some(declared));
        assert!(world.trigger(kind), "{declared:?}");
        let via = if declared.contains(&1) { Method::Sms } else { Method::Udp };
        if via == Method::Sms {
            let order = world.triggered();
            assert_eq!((order.kind, order.number), (kind, 0));
        }
        let trigger = world.delivery(1, 0, kind);
        assert_eq!((trigger.state, trigger.method), (State::Sent, Some(via)));
        if kind == Kind::TriggerRegister {
            world.register(&["a"], Some(declared));
        } else {
            world.msk_request(1, 0);
        }
        assert_eq!(world.delivery(1, 0, kind).state, State::Verified);
        assert_eq!(world.delivery(1, 0, kind).verified.map(|(_, via)| via), Some(via));
    }
    let mut world = World::with_sms();
    world.register(&["a"], Some(HTTP));
    assert!(!world.trigger(Kind::TriggerRegister), "a set of HTTP alone has no method for it");
}

#[test]
fn a_trigger_that_waits_for_its_turn_is_not_doubled_and_one_without_an_answer_fails() {
    let mut world = World::with_sms();
    world.register(&["a"], Some(HTTP_SMS));
    for _ in 0..5 {
        assert!(world.trigger(Kind::TriggerRegister));
    }
    world.triggered();
    assert_eq!(world.terminal.next_turn(), None);
    for _ in 0..2 {
        world.now = world.delivery(1, 0, Kind::TriggerRegister).next_due.expect("a pull is awaited");
        world.decide(|terminal, ctx| terminal.due(ctx, &mut Vec::new()));
        if world.terminal.next_turn().is_some() {
            world.triggered();
        }
    }
    let trigger = world.delivery(1, 0, Kind::TriggerRegister);
    assert_eq!((trigger.state, trigger.error), (State::Failed, Some(Reason::NoAnswer)));
}

#[test]
fn when_sms_leaves_the_set_nothing_goes_by_it_any_more() {
    let mut world = World::behind(HTTP_SMS);
    world.register(&["b"], Some(HTTP));
    assert_eq!(world.key(1, 2).state, State::AwaitingPull);
    assert_eq!(world.turn(), []);

    let mut world = World::behind(HTTP_SMS);
    world.triggered();
    world.register(&["b"], Some(BOTH));
    let orders = world.lapse();
    assert!(orders.iter().all(|o| o.via == Method::Udp) && orders.iter().any(|o| o.number == 2));
}

#[test]
fn a_request_for_something_else_leaves_a_pull_that_was_triggered_alone() {
    let mut world = World::behind(HTTP_SMS);
    world.triggered();
    world.register(&["b"], Some(HTTP_SMS));
    assert!(world.key(1, 2).awaits_pull_by_sms());
}

#[test]
fn an_invalidation_never_goes_by_sms() {
    let mut world = World::behind(HTTP_SMS);
    world.triggered();
    let entry = world.entry("a");
    let orders = world.decide(|terminal, ctx| {
        let mut orders = Vec::new();
        terminal.leave(&entry, false, ctx, &mut orders);
        orders
    });
    assert_eq!(orders, []);
    assert_eq!(world.terminal.next_turn(), None);
    assert_eq!(world.delivery(1, 1, Kind::Invalidate).state, State::AwaitingPull);
}

#[test]
fn a_cancelled_job_ends_what_waits_for_its_turn_and_nothing_else() {
    let cancel = |world: &mut World, job| world.decide(|t, ctx| t.cancel_job(JobId(job), ctx.now));
    let mut world = World::behind(HTTP_SMS);
    cancel(&mut world, 3);
    assert_eq!(world.key(1, 2).state, State::Queued, "another job's");
    cancel(&mut world, 2);
    assert_eq!((world.key(1, 2).state, world.terminal.next_turn()), (State::Cancelled, None));
    let brought: Vec<_> = world.msk_request(1, 0).items[0].orders.iter().map(|o| o.number).collect();
    assert_eq!(brought, [2], "who asks for the key gets it");

    let mut world = World::behind(HTTP_SMS);
    world.triggered();
    cancel(&mut world, 2);
    assert!(world.key(1, 2).awaits_pull_by_sms(), "what went out goes on");

    let mut world = World::behind(BOTH);
    cancel(&mut world, 2);
    assert_eq!(world.key(1, 2).state, State::Sent);
}
