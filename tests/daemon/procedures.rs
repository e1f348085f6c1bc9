//! Registration, deregistration and MSK request: items, delivery sets, which keys (LTKM profile §2.3, §4, §7).

use ltkmd::document::ResponseItem;
use ltkmd::id::Method;
use serde_json::{Value, json};

use crate::harness::terminal::Terminal;
use crate::harness::{Daemon, encoded};

const UDP: Option<&[u8]> = Some(&[0]);
const HTTP: Option<&[u8]> = Some(&[2]);
const BOTH: Option<&[u8]> = Some(&[0, 2]);

/// Codes and counts of LTKMs, item by item.
fn told<S>(items: &[ResponseItem<S>]) -> Vec<(u16, usize)> {
    items.iter().map(|i| (i.code().number(), i.ltkms().len())).collect()
}

fn sent(daemon: &Daemon, method: &str) -> f64 {
    daemon.metric(&format!("ltkmd_ltkm_sent_total{{method=\"{method}\"}}"))
}

/// In so many seconds.
fn after(seconds: i64) -> String {
    let now = i64::try_from(ltkmd::time::Timestamp::now().as_secs()).expect("a time");
    ltkmd::time::Timestamp::from_secs((now + seconds) as u64).to_string()
}

#[test]
fn each_service_of_a_registration_has_its_own_code_in_request_order() {
    let daemon = Daemon::start();
    daemon.put_service("urn:open", 1, json!({}));
    daemon.put_service("urn:entitled", 2, json!({"open": false}));
    daemon.put_service("urn:other", 3, json!({"open": false}));
    let terminal = Terminal::provision(&daemon, &["urn:entitled"]);
    let asked = ["urn:other", "urn:entitled", "urn:unknown", "urn:open", "urn:entitled", "urn:other"];
    let answer = terminal.registered(&asked, HTTP);
    let subjects: Vec<_> = answer.items.iter().map(|i| i.subject().as_str()).collect();
    assert_eq!(subjects, asked);
    assert_eq!(told(&answer.items), [(403, 0), (200, 1), (404, 0), (200, 1), (200, 0), (403, 0)]);
    let counters: Vec<u32> =
        answer.items.iter().flat_map(ResponseItem::ltkms).map(|l| terminal.open(l).counter).collect();
    assert!(counters.is_sorted_by(|a, b| a < b), "T rises in document order: {counters:?}");
    let record = daemon.terminal(&terminal.btid);
    assert_eq!(record["services"], json!(["urn:entitled", "urn:open"]));
    assert_eq!(sent(&daemon, "http"), 2.0);
}

#[test]
fn each_service_of_a_deregistration_has_its_own_code_in_request_order() {
    let daemon = Daemon::start();
    for (id, group) in [("urn:a", 1), ("urn:b", 2), ("urn:c", 3)] {
        daemon.put_service(id, group, json!({}));
    }
    let terminal = Terminal::provision(&daemon, &[]);
    terminal.registered(&["urn:a", "urn:b"], HTTP);
    let answer = terminal.deregistered(&["urn:c", "urn:b", "urn:unknown", "urn:b"]);
    assert_eq!(told(&answer.items), [(403, 0), (200, 1), (404, 0), (200, 0)]);
    assert_eq!(daemon.terminal(&terminal.btid)["services"], json!(["urn:a"]));
    assert_eq!(told(&terminal.deregistered(&["urn:b"]).items), [(403, 0)]);
    let stranger = Terminal::provision(&daemon, &[]);
    assert_eq!(told(&stranger.deregistered(&["urn:a", "urn:unknown"]).items), [(403, 0), (404, 0)]);
}

#[test]
fn each_key_of_an_msk_request_has_its_own_code_in_request_order() {
    let daemon = Daemon::start();
    daemon.put_service("urn:a", 1, json!({}));
    daemon.put_service("urn:b", 2, json!({}));
    let terminal = Terminal::provision(&daemon, &[]);
    let stranger = Terminal::provision(&daemon, &[]);
    assert_eq!(told(&stranger.msks(&[("b8709d", "00010000")]).items), [(403, 0)]);
    terminal.registered(&["urn:a"], HTTP);
    let (_, second) = daemon.rotate("urn:a", None);
    assert_eq!(second, "00010002");
    let answer = terminal.msks(&[
        ("b8709d", "00010001"), // the older key, still valid
        ("b8709d", "00010000"), // the current one
        ("b8709d", "00010002"), // the same by its number
        ("b8709d", "00010003"), // not made yet
        ("b8709d", "00020000"), // not registered for
        ("b8709d", "00020009"), // the same, a number that does not exist
        ("b8709d", "00030000"), // no such group
        ("b8709e", "00010000"), // no such domain
        ("b8709d", "00000000"), // neither
    ]);
    let expected = [(200, 1), (200, 1), (200, 0), (404, 0), (403, 0), (403, 0), (404, 0), (404, 0), (404, 0)];
    assert_eq!(told(&answer.items), expected);
    let keys: Vec<_> = answer.items[..2].iter().map(|i| terminal.open(&i.ltkms()[0])).collect();
    assert_eq!(keys[0].msk_id.to_string(), "00010001");
    assert_eq!(keys[1].msk_id.to_string(), "00010002");
    assert!(keys[0].counter < keys[1].counter);
    assert_eq!(answer.items[1].subject().msk_id.to_string(), "00010000", "echoed as it was asked");
}

#[test]
fn a_key_that_is_over_is_404_though_it_is_retained() {
    let daemon = Daemon::start();
    daemon.put_service("urn:s", 1, json!({"lifetime": "1s"}));
    let terminal = Terminal::provision(&daemon, &[]);
    terminal.registered(&["urn:s"], HTTP);
    let codes = daemon.await_state("the key's end", |_| {
        let codes = told(&terminal.msks(&[("b8709d", "00010001"), ("b8709d", "00010000")]).items);
        (codes[0].0 == 404).then_some(codes)
    });
    assert_eq!(codes, [(404, 0), (404, 0)]);
    assert_eq!(daemon.keys("urn:s")[0]["state"], "past");
    assert_eq!(told(&terminal.registered(&["urn:s"], HTTP).items), [(200, 0)], "registered, without a key");
    let (_, msk_id) = daemon.rotate("urn:s", Some(&json!({"valid_to": after(3600)})));
    assert_eq!(msk_id, "00010002");
    assert_eq!(told(&terminal.msks(&[("b8709d", "00010000")]).items), [(200, 1)]);
}

#[test]
fn the_set_holds_from_registration_to_registration_across_services_and_deregistrations() {
    // OMA BCAST: register[s1, UDP+HTTP], register[s2, HTTP], deregister[s2], deregister[s1].
    let daemon = Daemon::start_with("udp.first_timeout = \"1m\"");
    daemon.put_service("urn:s1", 1, json!({}));
    daemon.put_service("urn:s2", 2, json!({}));
    let terminal = Terminal::provision(&daemon, &[]);
    let methods = || daemon.terminal(&terminal.btid)["methods"].clone();

    let answer = terminal.registered(&["urn:s1"], BOTH);
    assert_eq!(answer.ltkm_delivery, Some(vec![Method::Udp, Method::Http]));
    assert_eq!((told(&answer.items), methods()), (vec![(200, 1)], json!(["http", "udp"])));
    let job = daemon.rotate("urn:s1", None).0;
    assert_eq!(terminal.receive().msk_id.to_string(), "00010002", "UDP is in the set");

    let answer = terminal.registered(&["urn:s2"], HTTP);
    assert_eq!(answer.ltkm_delivery, Some(vec![Method::Http]));
    assert_eq!((told(&answer.items), methods()), (vec![(200, 1)], json!(["http"])));
    let open = daemon.get(&format!("/v1/jobs/{job}"));
    assert_eq!(open["awaiting_pull"], 1, "a resend by a method that left the set stops at once: {open}");
    let before = sent(&daemon, "udp");
    for service in ["urn:s1", "urn:s2"] {
        let job = daemon.rotate(service, None).0;
        daemon.await_state("the wait for a pull", |daemon| {
            (daemon.get(&format!("/v1/jobs/{job}"))["awaiting_pull"] == 1).then_some(())
        });
    }
    assert_eq!(told(&terminal.deregistered(&["urn:s2"]).items), [(200, 1)], "only what it was ever sent");
    assert_eq!(methods(), json!(["http"]));
    assert_eq!(told(&terminal.deregistered(&["urn:s1"]).items), [(200, 2)]);
    assert_eq!((sent(&daemon, "udp"), terminal.drain().len()), (before, 0), "nothing more by UDP");
    let gone = daemon.admin("GET", &format!("/v1/terminals?service={}", encoded("urn:s1")), None).json();
    assert_eq!(gone["items"], json!([]));

    let answer = terminal.registered(&["urn:s1"], None);
    assert_eq!((answer.ltkm_delivery, told(&answer.items)), (None, vec![(200, 0)]), "nothing declared: UDP");
    assert_eq!(methods(), json!(["udp"]));
    assert_eq!(terminal.receive().msk_id.to_string(), "00010003");
}

#[test]
fn a_container_without_a_delivery_element_declares_nothing() {
    let daemon = Daemon::start();
    daemon.put_service("urn:s", 1, json!({}));
    let terminal = Terminal::provision(&daemon, &[]);
    terminal.registered(&["urn:s"], HTTP);
    let body = crate::harness::terminal::registration(&["urn:s"], HTTP);
    let from = body.find("<b:LTKMDelivery>").expect("the element");
    let to = body.find("</b:RegistrationRequestExtension>").expect("the container");
    let reply = terminal.request("register", &format!("{}{}", &body[..from], &body[to..]));
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert!(!reply.text().contains("RegistrationResponseExtension"), "{}", reply.text());
    assert_eq!(daemon.terminal(&terminal.btid)["methods"], json!(["udp"]));
    terminal.receive();
}

#[test]
fn types_that_are_unknown_or_not_enabled_do_not_count() {
    let daemon = Daemon::start_with("delivery.methods = [\"http\", \"udp\"]");
    daemon.put_service("urn:s", 1, json!({}));
    let terminal = Terminal::provision(&daemon, &[]);
    let answer = terminal.registered(&["urn:s"], Some(&[200, 1, 2, 3, 127, 128, 255, 2]));
    assert_eq!(answer.ltkm_delivery, Some(vec![Method::Http]));
    for none in [&[1][..], &[3], &[128, 255], &[1, 77]] {
        let reply = terminal.register(&["urn:s"], Some(none));
        assert_eq!(reply.status, 403, "{none:?}");
        assert_eq!(reply.text().lines().count(), 1);
    }
    let no_http = Daemon::start_with("delivery.methods = [\"udp\"]");
    no_http.put_service("urn:s", 1, json!({}));
    let terminal = Terminal::provision(&no_http, &[]);
    assert_eq!(terminal.register(&["urn:s"], HTTP).status, 403);
    let reply = no_http.admin("GET", &format!("/v1/terminals/{}", encoded(&terminal.btid)), None);
    assert_eq!(reply.status, 404, "nobody was registered");
    let answer = terminal.registered(&["urn:s"], BOTH);
    assert_eq!((answer.ltkm_delivery, told(&answer.items)), (Some(vec![Method::Udp]), vec![(200, 0)]));
    terminal.receive();
}

#[test]
fn the_set_is_recorded_whatever_the_items_say() {
    let daemon = Daemon::start();
    daemon.put_service("urn:s", 1, json!({}));
    let terminal = Terminal::provision(&daemon, &[]);
    terminal.registered(&["urn:s"], HTTP);
    let answer = terminal.registered(&["urn:unknown"], UDP);
    assert_eq!((told(&answer.items), answer.ltkm_delivery), (vec![(404, 0)], Some(vec![Method::Udp])));
    assert_eq!(daemon.terminal(&terminal.btid)["methods"], json!(["udp"]));
    daemon.rotate("urn:s", None);
    let ids: Vec<String> = (0..2).map(|_| terminal.receive().msk_id.to_string()).collect();
    assert!(ids.contains(&"00010002".to_owned()), "{ids:?}");
}

#[test]
fn what_went_inside_an_answer_goes_on_by_udp_only_where_udp_is_in_the_set() {
    let daemon = Daemon::start_with("udp.first_timeout = \"100ms\"\nudp.attempts = 2");
    daemon.put_service("urn:s", 1, json!({}));
    let both = Terminal::provision(&daemon, &[]);
    let first = both.registered(&["urn:s"], BOTH);
    let first = both.open(&first.items[0].ltkms()[0]);
    let again = both.receive();
    assert!(again.counter > first.counter && again.msk_id == first.msk_id);
    both.verify(&again);
    let http = Terminal::provision(&daemon, &[]);
    http.registered(&["urn:s"], HTTP);
    let delivery = daemon.await_state("the wait for a pull", |daemon| {
        daemon.deliveries(&http.btid).into_iter().find(|d| d["state"] == "awaiting_pull")
    });
    assert_eq!((&delivery["attempts"], &delivery["method"]), (&json!(1), &json!("http")));
    assert_eq!(http.drain().len(), 0);
    assert_eq!(told(&http.msks(&[("b8709d", "00010000")]).items), [(200, 1)], "served when it asks");
}

#[test]
fn what_is_outstanding_goes_out_at_the_next_contact() {
    let daemon = Daemon::start_with("udp.first_timeout = \"100ms\"\nudp.attempts = 1");
    daemon.put_service("urn:a", 1, json!({}));
    daemon.put_service("urn:b", 2, json!({}));
    let terminal = Terminal::provision(&daemon, &[]);
    terminal.registered(&["urn:a"], UDP);
    assert_eq!(terminal.receive().msk_id.to_string(), "00010001");
    let failed = |daemon: &Daemon| {
        let all = daemon.deliveries(&terminal.btid);
        (!all.is_empty() && all.iter().all(|d| d["state"] == "failed")).then_some(())
    };
    daemon.await_state("the failure", failed);
    // A request that does not name the service brings its key by UDP.
    terminal.msks(&[("b8709d", "00020000")]);
    let again = terminal.receive();
    assert_eq!(again.msk_id.to_string(), "00010001");
    terminal.verify(&again);
    daemon.await_state("the verification", |daemon| {
        (daemon.deliveries(&terminal.btid)[0]["state"] == "verified").then_some(())
    });
    let before = sent(&daemon, "udp");
    terminal.msks(&[("b8709d", "00020000")]);
    assert_eq!(sent(&daemon, "udp"), before, "nothing is outstanding");
}

#[test]
fn a_registration_brings_the_next_key_once_its_lead_time_has_begun() {
    let daemon = Daemon::start_with("keys.lead_time = \"10m\"");
    daemon.put_service("urn:far", 1, json!({}));
    daemon.put_service("urn:near", 2, json!({}));
    daemon.put_service("urn:own", 3, json!({"lead_time": "2h"}));
    for (service, seconds) in [("urn:far", 3600), ("urn:near", 300), ("urn:own", 3600)] {
        daemon.rotate(service, Some(&json!({"valid_from": after(seconds)})));
    }
    let terminal = Terminal::provision(&daemon, &[]);
    let answer = terminal.registered(&["urn:far", "urn:near", "urn:own"], HTTP);
    assert_eq!(told(&answer.items), [(200, 1), (200, 2), (200, 2)]);
    let ids: Vec<_> = answer
        .items
        .iter()
        .flat_map(ResponseItem::ltkms)
        .map(|l| terminal.open(l).msk_id.to_string())
        .collect();
    assert_eq!(ids, ["00010001", "00020001", "00020002", "00030001", "00030002"]);
    let answer = terminal.msks(&[("b8709d", "00010000"), ("b8709d", "00010002")]);
    assert_eq!(told(&answer.items), [(200, 1), (200, 1)], "asked for by its number it comes at any time");
    let states: Vec<Value> = daemon.keys("urn:far").iter().map(|k| k["state"].clone()).collect();
    assert_eq!(states, ["current", "next"]);
}

#[test]
fn keys_that_the_schedule_makes_reach_the_terminals() {
    let daemon = Daemon::start_with("keys.lead_time = \"1s\"");
    daemon.put_service("urn:s", 1, json!({"lifetime": "6s", "rotate_every": "2s"}));
    let terminal = Terminal::provision(&daemon, &[]);
    terminal.registered(&["urn:s"], UDP);
    let mut last = (0, 0);
    while last.1 < 3 {
        let ltkm = terminal.receive();
        terminal.verify(&ltkm);
        assert!(ltkm.counter > last.0 && u32::from(ltkm.msk_id.number()) >= last.1, "{ltkm:?}");
        last = (ltkm.counter, u32::from(ltkm.msk_id.number()));
    }
    let keys = daemon.keys("urn:s");
    let time = |n: usize, field: &str| -> ltkmd::time::Timestamp {
        keys[n][field].as_str().expect("a time").parse().expect("RFC 3339")
    };
    let every = std::time::Duration::from_secs(2);
    assert_eq!(time(1, "valid_from"), time(0, "valid_from") + every);
    assert_eq!(time(2, "valid_from"), time(1, "valid_from") + every);
    assert_eq!(time(1, "valid_to"), time(1, "valid_from") + every * 3);
}

#[test]
fn a_newer_key_supersedes_an_older_delivery_that_is_not_verified() {
    let daemon = Daemon::start_with("udp.first_timeout = \"1m\"");
    daemon.put_service("urn:s", 1, json!({}));
    let terminal = Terminal::provision(&daemon, &[]);
    terminal.registered(&["urn:s"], UDP);
    let first = terminal.receive();
    let job = daemon.rotate("urn:s", None).0;
    let second = terminal.receive();
    let states = |daemon: &Daemon| {
        let all = daemon.deliveries(&terminal.btid);
        let state = |id: &str| all.iter().find(|d| d["msk_id"] == id).map(|d| d["state"].clone());
        (state("00010001"), state("00010002"))
    };
    assert_eq!(states(&daemon), (Some(json!("superseded")), Some(json!("sent"))));
    // The answer to the superseded key records that key and verifies no newer one.
    terminal.verify(&first);
    daemon.await_state("the record", |daemon| {
        (daemon.terminal(&terminal.btid)["verified"][0]["msk_id"] == "00010001").then_some(())
    });
    assert_eq!(states(&daemon).1, Some(json!("sent")));
    assert_eq!(daemon.get(&format!("/v1/jobs/{job}"))["verified"], 0);
    terminal.verify(&second);
    daemon.await_state("the end", |daemon| {
        (daemon.get(&format!("/v1/jobs/{job}"))["state"] == "done").then_some(())
    });
}

#[test]
fn a_trigger_has_no_key_data_and_names_what_to_pull() {
    let daemon = Daemon::start();
    daemon.put_service("urn:s", 0x68c9, json!({}));
    let terminal = Terminal::provision(&daemon, &[]);
    let path = format!("/v1/terminals/{}/trigger", encoded(&terminal.btid));
    let trigger = |what: Value| daemon.admin("POST", &path, Some(&what)).status;
    let pull = json!({"procedure": "msk-request", "service": "urn:s"});
    terminal.registered(&["urn:s"], UDP);
    terminal.verify(&terminal.receive());
    for (what, msk_id) in [(pull.clone(), "68c90000"), (json!({"procedure": "register"}), "00000000")] {
        assert_eq!(trigger(what), 202);
        let ltkm = terminal.receive();
        assert_eq!((ltkm.msk_id.to_string().as_str(), ltkm.v, ltkm.key.is_none()), (msk_id, false, true));
    }
    terminal.registered(&["urn:s"], HTTP);
    assert_eq!(trigger(pull), 409, "HTTP brings no LTKM with empty key data");
}

#[test]
fn as_many_services_as_a_request_may_name_are_served_at_once() {
    const MOST: usize = 256;
    let daemon = Daemon::start();
    let ids: Vec<String> = (0..MOST).map(|n| format!("urn:s{n}")).collect();
    for (n, id) in ids.iter().enumerate() {
        daemon.put_service(id, n as u16 + 1, json!({}));
    }
    let services: Vec<&str> = ids.iter().map(String::as_str).collect();
    let terminal = Terminal::provision(&daemon, &[]);
    let reply = terminal.register(&services, HTTP);
    let limits = ltkmd::document::Limits { max_octets: 1 << 20, max_items: MOST };
    let (answer, _) =
        ltkmd::document::RegistrationResponse::read(&reply.body, &limits).expect("a registration answer");
    let counters: Vec<u32> =
        answer.items.iter().flat_map(ResponseItem::ltkms).map(|l| terminal.open(l).counter).collect();
    assert_eq!(counters.len(), MOST);
    assert!(counters.is_sorted_by(|a, b| a < b), "T rises in document order");
    assert_eq!(terminal.register(&services, UDP).status, 200);
    let mut pushed: Vec<_> = (0..MOST).map(|_| terminal.receive().msk_id).collect();
    pushed.sort_unstable_by_key(|id| id.0);
    pushed.dedup();
    assert_eq!(pushed.len(), MOST);
    let one_more = [&services[..], &["urn:s0"]].concat();
    assert_eq!(terminal.register(&one_more, HTTP).status, 400);
}

#[test]
fn requests_of_one_terminal_at_once_never_share_a_t() {
    let daemon = Daemon::start();
    daemon.put_service("urn:s", 1, json!({}));
    let terminal = Terminal::provision(&daemon, &[]);
    let mut counters: Vec<u32> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let register = |_| terminal.registered(&["urn:s"], HTTP).items[0].ltkms()[0].clone();
                    (0..25).map(register).map(|l| terminal.open(&l).counter).collect::<Vec<_>>()
                })
            })
            .collect();
        threads.into_iter().flat_map(|t| t.join().expect("answers")).collect()
    });
    counters.sort_unstable();
    counters.dedup();
    assert_eq!(counters.len(), 100);
}

#[test]
fn the_address_is_that_of_the_last_authenticated_request() {
    let daemon = Daemon::start();
    daemon.put_service("urn:s", 1, json!({}));
    let first = Terminal::provision(&daemon, &[]);
    first.registered(&["urn:s"], UDP);
    first.verify(&first.receive());
    // The same terminal with another address.
    let moved = Terminal::provision_for(&daemon, &first.subscriber);
    let gone = daemon.admin("DELETE", &format!("/v1/credentials/{}", encoded(&moved.btid)), None);
    assert_eq!(gone.status, 204);
    let (btid, mrk, muk) = (first.btid.clone(), first.mrk.clone(), first.muk.clone());
    let moved = Terminal { btid, mrk, muk, ..moved };
    moved.msks(&[("b8709d", "00090000")]);
    assert_eq!(daemon.terminal(&first.btid)["address"], json!(moved.address.to_string()));
    daemon.rotate("urn:s", None);
    moved.receive();
    let mut stranger = first.connect();
    first.challenge(&mut stranger, "register");
    assert_eq!(daemon.terminal(&first.btid)["address"], json!(moved.address.to_string()), "not who it was");
}

#[test]
fn keys_are_purged_when_they_were_retained_long_enough_and_numbers_go_on() {
    let daemon = Daemon::start_with("keys.retain = \"1s\"");
    daemon.put_service("urn:s", 1, json!({"lifetime": "1s"}));
    let terminal = Terminal::provision(&daemon, &[]);
    terminal.registered(&["urn:s"], UDP);
    daemon.rotate("urn:s", None);
    daemon.rotate("urn:s", None);
    let left = daemon.await_state("the purge", |daemon| {
        let keys = daemon.keys("urn:s");
        (keys.len() == 1).then(|| keys[0]["msk_id"].clone())
    });
    assert_eq!(left, "00010003", "the newest stays, though it is over");
    assert_eq!(daemon.rotate("urn:s", None).1, "00010004");
}

#[test]
fn a_key_that_ends_before_it_is_delivered_is_not_sent_any_more() {
    let daemon = Daemon::start_with("udp.first_timeout = \"3s\"");
    daemon.put_service("urn:s", 1, json!({"lifetime": "2s"}));
    let terminal = Terminal::provision(&daemon, &[]);
    terminal.registered(&["urn:s"], UDP);
    let failed = daemon.await_state("the failure", |daemon| {
        daemon.deliveries(&terminal.btid).into_iter().find(|d| d["state"] == "failed")
    });
    assert_eq!((&failed["error"], &failed["attempts"]), (&json!("key_over"), &json!(1)));
    assert_eq!(daemon.metric("ltkmd_ltkm_failed_total{reason=\"key_over\"}"), 1.0);
}
