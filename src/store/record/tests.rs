//! Every record round-trips, and no octets make reading panic.

use std::collections::BTreeMap;
use std::fmt::Debug;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::*;
use crate::digest::NonceUse;
use crate::keys::{Srtp, SrtpPolicy, SrtpStream};

fn time() -> impl Strategy<Value = Timestamp> {
    prop_oneof![any::<u64>(), 1_700_000_000_000u64..1_900_000_000_000].prop_map(Timestamp)
}

fn key() -> impl Strategy<Value = TerminalKey> {
    any::<[u8; 16]>().prop_map(TerminalKey)
}

fn of<T: Copy + Debug>(all: &'static [T]) -> impl Strategy<Value = T> {
    proptest::sample::select(all)
}

fn registrations() -> impl Strategy<Value = Registration> {
    (0u8..8, any::<IpAddr>(), vec(any::<u32>(), 0..5), time(), time()).prop_map(
        |(bits, address, services, registered_at, last_seen)| Registration {
            set: MethodSet::from_bits(bits),
            address,
            services: services.into_iter().map(ServiceNo).collect(),
            registered_at,
            last_seen,
        },
    )
}

fn legs() -> impl Strategy<Value = SmsLeg> {
    let id = "[!-~]{1,64}".prop_map(|text| MessageId::new(&text).expect("visible ASCII"));
    let receipt = option::of((of(&ReceiptState::ALL), time()));
    let barred = option::of(of(&Reason::ALL));
    (any::<u32>(), any::<u8>(), option::of(time()), vec(id, 0..4), receipt, barred).prop_map(
        |(t, attempts, turn, ids, receipt, barred)| SmsLeg { t, attempts, turn, ids, receipt, barred },
    )
}

fn deliveries() -> impl Strategy<Value = Delivery> {
    let kinds = of(&[Kind::Key, Kind::Invalidate, Kind::TriggerMskRequest, Kind::TriggerRegister]);
    let what = (any::<u32>(), any::<u16>(), kinds, of(&State::ALL), option::of(of(&Reason::ALL)));
    let how = (
        option::of(of(&Method::ALL)),
        any::<u16>(),
        any::<u8>(),
        vec((any::<u32>(), of(&Method::ALL)), 0..24),
    );
    let when = (
        time(),
        time(),
        option::of(time()),
        option::of((time(), of(&Method::ALL))),
        option::of(any::<u64>()),
    );
    (what, how, when, option::of(legs())).prop_map(
        |((service, number, kind, state, error), (method, attempts, udp_attempts, out), when, sms)| {
            let (queued, updated, next_due, verified, job) = when;
            Delivery {
                service: ServiceNo(service),
                number,
                kind,
                state,
                method,
                error,
                attempts,
                udp_attempts,
                next_due,
                queued,
                updated,
                verified,
                job: job.map(JobId),
                out,
                sms: sms.map(Box::new),
            }
        },
    )
}

/// What uses left behind: of up to 12 nonces, at moments that do not always move on.
fn nonces() -> impl Strategy<Value = NonceLedger> {
    let use_ = (0u64..12, 1u32..100, 0u64..400);
    (time(), any::<u64>(), vec(use_, 0..40)).prop_map(|(began, salt, uses)| {
        let mut ledger = NonceLedger::default();
        for (n, nc, second) in uses {
            let id = u128::from(salt ^ n) << 64 | u128::from(n.wrapping_mul(salt));
            let used = NonceUse { id, nc, issued: Timestamp(began.0.saturating_add(n * 20_000)) };
            let now = Timestamp(began.0.saturating_add(second * 1000));
            // A pair that is refused leaves it as it was.
            let _ = ledger.use_up(used, Duration::from_secs(300), now);
        }
        ledger
    })
}

fn terminals() -> impl Strategy<Value = Terminal> {
    let ledger = (time(), time(), any::<u16>());
    let ledger = ledger.prop_map(|(last, since, count)| SmsLedger { last, since, count });
    let ledger = prop_oneof![Just(SmsLedger::default()), ledger];
    let nonces = prop_oneof![Just(NonceLedger::default()), nonces()];
    (key(), option::of(registrations()), any::<u64>(), vec(deliveries(), 0..5), ledger, nonces).prop_map(
        |(key, registration, next_t, deliveries, ledger, nonces)| Terminal {
            key,
            credential: None,
            registration,
            next_t,
            deliveries,
            ledger,
            nonces,
        },
    )
}

fn credentials() -> impl Strategy<Value = Credential> {
    let sealed = || vec(any::<u8>(), 0..100).prop_map(|o| Sealed::from_octets(&o));
    ("[!-~]{1,255}", "[ -~é]{1,80}", sealed(), sealed(), any::<bool>(), option::of(time())).prop_map(
        |(btid, subscriber, mrk, muk, gba, expires)| Credential {
            btid: BTid::new(&btid).expect("visible ASCII"),
            subscriber: SubscriberId::new(&subscriber).expect("no control characters"),
            mrk,
            muk,
            gba: if gba { GbaType::U } else { GbaType::Me },
            expires,
        },
    )
}

fn service_ids() -> impl Strategy<Value = ServiceId> {
    "[!-~]{1,40}".prop_map(|s| ServiceId::new(&s).expect("visible ASCII"))
}

fn id() -> SubscriberId {
    SubscriberId::new("x@ims").expect("an IMPI")
}

fn subscribers() -> impl Strategy<Value = SubscriberRecord> {
    let msisdn = option::of("[0-9]{1,15}".prop_map(|s| Msisdn::new(&s).expect("digits")));
    let subscriber = (msisdn, vec(service_ids(), 0..5)).prop_map(|(msisdn, services)| Subscriber {
        id: id(),
        msisdn,
        services,
    });
    (option::of(subscriber), vec(key(), 0..5))
        .prop_map(|(subscriber, terminals)| SubscriberRecord { subscriber, terminals })
}

fn jobs() -> impl Strategy<Value = Job> {
    let states = of(&[JobState::Running, JobState::Paused, JobState::Cancelled, JobState::Done]);
    let what = (any::<bool>(), states, any::<u32>(), any::<u16>(), any::<u64>(), option::of(key()));
    (what, any::<[u64; 8]>(), any::<u64>(), time(), option::of(time())).prop_map(
        |((retire, state, service, number, expected, cursor), states, sent, started, finished)| Job {
            id: JobId(7),
            kind: if retire { JobKind::Retire } else { JobKind::KeyUpdate },
            service: ServiceNo(service),
            number,
            state,
            expected,
            cursor,
            states,
            sent,
            started,
            finished,
        },
    )
}

fn spans() -> impl Strategy<Value = Duration> {
    (any::<u64>(), 0u32..1_000_000_000).prop_map(|(secs, nanos)| Duration::new(secs, nanos))
}

fn srtp() -> impl Strategy<Value = Srtp> {
    let stream = (any::<u8>(), any::<u32>(), any::<u32>()).prop_map(|(policy, ssrc, roc)| SrtpStream {
        policy,
        ssrc,
        roc,
    });
    let policy = (any::<u8>(), proptest::collection::btree_map(any::<u8>(), any::<u8>(), 0..4))
        .prop_map(|(policy, parameters)| SrtpPolicy { policy, parameters });
    (vec(stream, 0..3), vec(policy, 0..3)).prop_map(|(streams, policies)| Srtp { streams, policies })
}

fn services() -> impl Strategy<Value = Service> {
    let what = (service_ids(), any::<[u8; 3]>(), any::<u16>(), any::<bool>(), any::<(u16, u16)>());
    let how = (spans(), option::of(spans()), option::of(spans()), option::of(time()));
    let flags = (any::<bool>(), any::<bool>(), any::<bool>());
    (what, how, flags, option::of(vec(any::<u8>(), 0..50)), option::of(srtp())).prop_map(
        |(
            (id, domain, key_group, mtk, mtk_ids),
            (lifetime, rotate_every, lead_time, retired),
            flags,
            ext,
            srtp,
        )| {
            Service {
                no: ServiceNo(3),
                id,
                key_domain: KeyDomainId(domain),
                key_group,
                validity: if mtk { Validity::MtkId } else { Validity::Ntp },
                lifetime,
                rotate_every,
                open: flags.0,
                ext_bcast: ext,
                invalidate_on_deregister: flags.1,
                mtk_ids,
                salt: flags.2,
                srtp,
                lead_time,
                retired,
            }
        },
    )
}

fn keys() -> impl Strategy<Value = KeyRecord> {
    (any::<u64>(), vec(any::<u8>(), 0..60), time(), time(), any::<(u16, u16)>()).prop_map(
        |(ordinal, sealed, valid_from, valid_to, mtk_ids)| KeyRecord {
            ordinal,
            sealed: Sealed::from_octets(&sealed),
            valid_from,
            valid_to,
            mtk_ids,
        },
    )
}

fn totals() -> impl Strategy<Value = Totals> {
    let members = any::<[u64; 4]>().prop_map(|[udp, http, sms, total]| Members { udp, http, sms, total });
    let by_service = proptest::collection::btree_map(any::<u32>(), members, 0..5);
    (by_service, any::<[u64; 8]>(), any::<u64>(), any::<u32>(), any::<u64>()).prop_map(
        |(members, deliveries, terminals, next_service, next_ordinal)| Totals {
            members: members.into_iter().map(|(no, m)| (ServiceNo(no), m)).collect::<BTreeMap<_, _>>(),
            deliveries,
            terminals,
            next_service,
            next_ordinal,
        },
    )
}

fn octets_of<T>(value: &T, put: impl Fn(&mut Vec<u8>, &T)) -> Vec<u8> {
    let mut out = Vec::new();
    put(&mut out, value);
    out
}

/// The record reads back as it was; no shorter and no longer one reads at all; one with a changed octet
/// reads as something else, or not, without a panic.
fn proves<T: PartialEq + Debug>(value: &T, octets: &[u8], read: impl Fn(&[u8]) -> Read<T>) {
    assert_eq!(read(octets).as_ref(), Ok(value));
    for n in 0..octets.len() {
        assert_eq!(read(&octets[..n]), Err(Damaged), "cut to {n} octets");
    }
    assert_eq!(read(&[octets, &[0]].concat()), Err(Damaged), "one octet more");
    for n in 0..octets.len() {
        for bit in 0..8 {
            let mut changed = octets.to_vec();
            changed[n] ^= 1 << bit;
            assert_ne!(read(&changed).as_ref(), Ok(value), "bit {bit} of octet {n} means nothing");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn a_state_record_round_trips_and_damage_is_told(t in terminals()) {
        proves(&t, &octets_of(&t, put_state), |o| read_state(t.key, o));
    }

    #[test]
    fn a_credential_record_round_trips_and_damage_is_told(c in credentials()) {
        proves(&c, &octets_of(&c, put_credential), read_credential);
    }

    #[test]
    fn a_subscriber_record_round_trips_and_damage_is_told(s in subscribers()) {
        proves(&s, &put_subscriber(&s), |o| read_subscriber(&id(), o));
    }

    #[test]
    fn a_job_record_round_trips_and_damage_is_told(j in jobs()) {
        proves(&j, &put_job(&j), |o| read_job(j.id, o));
    }

    #[test]
    fn a_service_record_round_trips_and_damage_is_told(s in services()) {
        let octets = put_service(&s);
        prop_assert_eq!(read_service(s.no, &octets), Ok(s.clone()));
        for n in 0..octets.len() {
            prop_assert_eq!(read_service(s.no, &octets[..n]), Err(Damaged));
        }
    }

    #[test]
    fn a_key_record_round_trips_and_damage_is_told(k in keys()) {
        proves(&k, &put_key(&k), read_key);
    }

    #[test]
    fn counters_round_trip_and_damage_is_told(t in totals()) {
        let octets = put_totals(&t);
        prop_assert_eq!(read_totals(&octets), Ok(t.clone()));
        for n in 0..octets.len() {
            prop_assert_eq!(read_totals(&octets[..n]), Err(Damaged));
        }
    }

    #[test]
    fn no_octets_make_reading_panic(octets in vec(any::<u8>(), 0..200)) {
        let versioned = [&[VERSION], &octets[..]].concat();
        let with_nonces = [&[VERSION + WITH_NONCES, 0, 0, 0], &octets[..]].concat();
        for o in [&octets, &versioned, &with_nonces] {
            let _ = read_state(TerminalKey::MIN, o);
            let _ = read_credential(o);
            let _ = read_subscriber(&id(), o);
            let _ = read_job(JobId(1), o);
            let _ = read_service(ServiceNo(1), o);
            let _ = read_key(o);
            let _ = read_totals(o);
        }
    }
}

/// As they were written before there were nonces in records.
#[test]
fn records_without_nonces_are_octet_by_octet_what_they_always_were() {
    let plain = Terminal { next_t: 300, ..Terminal::new(TerminalKey::MIN) };
    let ledger = SmsLedger { last: Timestamp(9), since: Timestamp(7), count: 3 };
    let with_ledger = Terminal { ledger, ..plain.clone() };
    for (terminal, octets) in
        [(plain, &[1u8, 0xAC, 2, 0, 0][..]), (with_ledger, &[2, 0xAC, 2, 0, 0, 7, 4, 3])]
    {
        assert_eq!(octets_of(&terminal, put_state), octets);
        assert_eq!(read_state(TerminalKey::MIN, octets), Ok(terminal));
    }
}

#[test]
fn nonces_follow_in_records_of_their_own_versions_and_take_little_room() {
    let mut terminal = Terminal::new(TerminalKey::MIN);
    let issued = Timestamp(1_800_000_000_000);
    let used = NonceUse { id: 5, nc: 1, issued };
    terminal.nonces.use_up(used, Duration::from_secs(300), issued).expect("fresh");
    let octets = octets_of(&terminal, put_state);
    assert_eq!(octets[0], 3);
    assert_eq!(read_state(TerminalKey::MIN, &octets), Ok(terminal.clone()));
    assert!(octets.len() <= 4 + 26, "{} octets", octets.len());
    terminal.ledger.note(issued);
    let octets = octets_of(&terminal, put_state);
    assert_eq!(octets[0], 4);
    assert_eq!(read_state(TerminalKey::MIN, &octets), Ok(terminal));
    for version in [0, 5, 6, 255] {
        let other = [&[version], &octets[1..]].concat();
        assert_eq!(read_state(TerminalKey::MIN, &other), Err(Damaged), "version {version}");
    }
}

#[test]
fn the_state_of_a_registered_terminal_with_one_delivery_is_small() {
    let now = Timestamp(1_800_000_000_000);
    let mut t = Terminal::new(TerminalKey::MIN);
    let rules = crate::delivery::Rules {
        preference: vec![Method::Udp],
        verify: true,
        attempts: 4,
        first_timeout: Duration::from_secs(2),
        sms_alone: crate::delivery::SmsAlone::Accept,
        lead_time: Duration::ZERO,
        sms: None,
    };
    t.renew(MethodSet::UDP, IpAddr::from([192, 0, 2, 1]), now);
    t.registration.as_mut().expect("just made").services.push(ServiceNo(1));
    let mut d = Delivery::new(ServiceNo(1), 7, Kind::Key, Some(JobId(9)), now);
    d.attempt(Method::Udp, 12, true, now, &rules, &mut crate::delivery::Entropy::new(1));
    t.deliveries.push(d);
    let octets = octets_of(&t, put_state).len();
    assert!(octets <= 48, "{octets} octets");
}
