//! What comes by UDP, from whom, and where LTKMs go (LTKM profile §4, §6).

use std::net::{IpAddr, Ipv6Addr, UdpSocket};
use std::time::{Duration, Instant};

use mikey::payload::Timestamp;
use mikey::{CsbId, ErrorNo, TsType, error_message};
use serde_json::json;

use crate::harness::Daemon;
use crate::harness::digest::Digest;
use crate::harness::http::Connection;
use crate::harness::terminal::{Terminal, media_type, put_subscriber, registration, target};

const UDP: Option<&[u8]> = Some(&[0]);
const OUTCOMES: [&str; 9] =
    ["verified", "duplicate", "malformed", "error", "unknown", "stale", "wrong_mac", "shed", "unrecorded"];

fn received(daemon: &Daemon, outcome: &str) -> f64 {
    daemon.metric(&format!("ltkmd_udp_received_total{{outcome=\"{outcome}\"}}"))
}

/// Waits until so many datagrams were counted by this outcome.
fn counted(daemon: &Daemon, outcome: &str, count: usize) {
    daemon.await_metric(&format!("ltkmd_udp_received_total{{outcome=\"{outcome}\"}}"), count as f64);
}

fn state(daemon: &Daemon, terminal: &Terminal, msk_id: &str) -> String {
    let all = daemon.deliveries(&terminal.btid);
    let delivery = all.iter().find(|d| d["msk_id"] == msk_id).expect("a delivery");
    delivery["state"].as_str().expect("a state").to_owned()
}

fn await_state(daemon: &Daemon, terminal: &Terminal, msk_id: &str, wanted: &str) {
    daemon.await_state(wanted, |daemon| (state(daemon, terminal, msk_id) == wanted).then_some(()));
}

#[test]
fn what_is_no_authentic_answer_is_counted_by_its_reason_and_dropped_without_an_answer() {
    let daemon = Daemon::start();
    daemon.put_service("urn:s", 1, json!({}));
    let terminal = Terminal::provision(&daemon, &[]);
    let stranger = Terminal::provision(&daemon, &[]);
    terminal.registered(&["urn:s"], UDP);
    stranger.registered(&["urn:s"], UDP);
    let ltkm = terminal.receive();
    let of_other = stranger.receive();
    let right = terminal.verification(&ltkm);

    let mut error = [0; 100];
    let t = Timestamp { ts_type: TsType::COUNTER, value: &ltkm.counter.to_be_bytes() };
    let len = error_message::write(CsbId(9), t, &[ErrorNo::AUTH_FAILURE], &[], &mut error).expect("written");
    let nowhere = [&right[..], &[0; 2000]].concat();
    let malformed = [
        b"".to_vec(),
        b"hello".to_vec(),
        vec![0xFF; 1400],
        nowhere,
        right[..right.len() - 1].to_vec(),
        [&right[..], b"x"].concat(),
    ];
    for datagram in &malformed {
        terminal.send_udp(datagram);
    }
    for cut in 0..right.len() - 1 {
        terminal.send_udp(&right[..cut]);
    }
    // An LTKM of the daemon's own that comes back to it.
    terminal.registered(&["urn:s"], UDP);
    terminal.send_udp(&terminal.receive_octets());
    counted(&daemon, "malformed", malformed.len() + right.len());
    terminal.send_udp(&error[..len]);
    counted(&daemon, "error", 1);

    // The V payload ends the message; its last 20 octets are the MAC.
    let mut wrong = right.clone();
    *wrong.last_mut().expect("a MAC") ^= 1;
    terminal.send_udp(&wrong);
    counted(&daemon, "wrong_mac", 1);
    // The MAC of an LTKM of another terminal; another T; another CSB ID.
    let mut foreign = right.clone();
    let mac = stranger.verification(&of_other);
    let at = foreign.len() - 20;
    foreign[at..].copy_from_slice(&mac[mac.len() - 20..]);
    terminal.send_udp(&foreign);
    let mut other_csb = right.clone();
    other_csb[4] ^= 1;
    terminal.send_udp(&other_csb);
    let mut other_t = right.clone();
    other_t[12..16].copy_from_slice(&(ltkm.counter + 1).to_be_bytes());
    terminal.send_udp(&other_t);
    counted(&daemon, "wrong_mac", 4);
    let idr = terminal.btid.as_bytes();
    let place = right.windows(idr.len()).position(|w| w == idr).expect("an IDr");
    let mut nobody = right.clone();
    nobody[place] = b'!';
    terminal.send_udp(&nobody);
    let mut spaced = right.clone();
    spaced[place] = b' ';
    terminal.send_udp(&spaced);
    counted(&daemon, "unknown", 2);

    assert_eq!(received(&daemon, "verified"), 0.0);
    assert_eq!(state(&daemon, &terminal, "00010001"), "sent");
    terminal.send_udp(&right);
    counted(&daemon, "verified", 1);
    terminal.send_udp(&right);
    terminal.send_udp(&right);
    counted(&daemon, "duplicate", 2);
    assert_eq!(state(&daemon, &terminal, "00010001"), "verified");
    assert_eq!(terminal.drain().len() + stranger.drain().len(), 0, "nothing is ever answered");
    assert_eq!(daemon.metric("ltkmd_ltkm_verified_total{method=\"udp\"}"), 1.0);
}

#[test]
fn no_single_bit_of_a_verification_message_may_differ() {
    let daemon = Daemon::start();
    daemon.put_service("urn:s", 1, json!({}));
    let terminal = Terminal::provision(&daemon, &[]);
    terminal.registered(&["urn:s"], UDP);
    let ltkm = terminal.receive();
    let right = terminal.verification(&ltkm);
    for bit in 0..right.len() * 8 {
        let mut wrong = right.clone();
        wrong[bit / 8] ^= 1 << (bit % 8);
        terminal.send_udp(&wrong);
    }
    let bits = (right.len() * 8) as f64;
    daemon.await_state("the count", |daemon| {
        (OUTCOMES.iter().map(|o| received(daemon, o)).sum::<f64>() == bits).then_some(())
    });
    let taken = received(&daemon, "verified") + received(&daemon, "duplicate") + received(&daemon, "stale");
    assert_eq!((taken, state(&daemon, &terminal, "00010001")), (0.0, "sent".to_owned()));
}

#[test]
fn an_answer_counts_from_any_address_late_after_a_restart_and_after_a_failure() {
    let mut daemon = Daemon::start_with("udp.attempts = 2\nudp.first_timeout = \"100ms\"");
    daemon.put_service("urn:s", 1, json!({}));
    let mut terminal = Terminal::provision(&daemon, &[]);
    terminal.registered(&["urn:s"], UDP);
    let first = terminal.receive();
    let second = terminal.receive();
    await_state(&daemon, &terminal, "00010001", "failed");
    daemon.kill();
    daemon.restart();
    terminal.follow(&daemon);
    // Behind a NAT: another address, another port.
    let nat = UdpSocket::bind(("127.9.9.9", 0)).expect("bound");
    nat.send_to(&terminal.verification(&first), daemon.udp).expect("sent");
    await_state(&daemon, &terminal, "00010001", "verified");
    assert_eq!(
        daemon.terminal(&terminal.btid)["address"],
        terminal.address.to_string(),
        "that changes nothing"
    );
    terminal.verify(&second);
    counted(&daemon, "duplicate", 1);
}

#[test]
fn an_authentic_answer_to_what_is_long_forgotten_is_stale() {
    let daemon = Daemon::start();
    daemon.put_service("urn:s", 1, json!({}));
    let terminal = Terminal::provision(&daemon, &[]);
    terminal.registered(&["urn:s"], UDP);
    let first = terminal.receive();
    terminal.verify(&first);
    await_state(&daemon, &terminal, "00010001", "verified");
    // Brought anew, the delivery knows its own LTKMs alone.
    terminal.registered(&["urn:s"], UDP);
    let again = terminal.receive();
    terminal.verify(&first);
    counted(&daemon, "stale", 1);
    assert_eq!(state(&daemon, &terminal, "00010001"), "sent");
    terminal.verify(&again);
    await_state(&daemon, &terminal, "00010001", "verified");
}

#[test]
fn ltkms_leave_from_the_port_that_listens() {
    let daemon = Daemon::start();
    daemon.put_service("urn:s", 1, json!({}));
    let terminal = Terminal::provision(&daemon, &[]);
    terminal.registered(&["urn:s"], UDP);
    let mut buffer = [0; 2048];
    let (len, from) = terminal.socket.recv_from(&mut buffer).expect("a datagram");
    assert_eq!(from, daemon.udp);
    terminal.verify(&terminal.open(&buffer[..len]));
    counted(&daemon, "verified", 1);
}

/// Registers over a connection of a proxy, with these header lines.
fn through(daemon: &Daemon, terminal: &Terminal, proxy: &str, forwarded: &[(&str, &str)]) {
    let mut connection = Connection::open_from(proxy.parse().expect("an address"), daemon.http);
    let digest = terminal.digest(&mut connection, "register");
    let body = registration(&["urn:s"], UDP);
    let authorization = digest.header(body.as_bytes());
    let mut headers = vec![("Content-Type", media_type("register")), ("Authorization", &authorization)];
    headers.extend(forwarded);
    let reply = connection.request("POST", &target("register"), &headers, body.as_bytes());
    assert_eq!(reply.status, 200, "{}", reply.text());
}

#[test]
fn ltkms_go_to_the_address_that_a_trusted_proxy_names() {
    let daemon = Daemon::start_with("http.trusted_proxies = [\"127.200.0.0/16\"]");
    daemon.put_service("urn:s", 1, json!({}));
    let terminal = Terminal::provision(&daemon, &[]);
    let own = terminal.address.to_string();
    let quoted = format!("for=\"{own}:4711\";proto=https");
    let list = format!("203.0.113.9, {own}, 127.200.0.7");
    let spoofed = format!("for=203.0.113.9, for={own}");
    for forwarded in [
        vec![("Forwarded", quoted.as_str())],
        vec![("Forwarded", spoofed.as_str())],
        vec![("X-Forwarded-For", list.as_str())],
        vec![("X-Forwarded-For", "203.0.113.9"), ("Forwarded", quoted.as_str())],
        vec![("Forwarded", "for=unknown"), ("X-Forwarded-For", own.as_str())],
    ] {
        through(&daemon, &terminal, "127.200.0.1", &forwarded);
        assert_eq!(daemon.terminal(&terminal.btid)["address"], json!(own), "{forwarded:?}");
        terminal.receive();
    }
    // A proxy that is not trusted speaks for itself alone.
    let other = Terminal::provision(&daemon, &[]);
    let peer = other.address.to_string();
    through(&daemon, &other, &peer, &[("Forwarded", &format!("for={own}"))]);
    assert_eq!(daemon.terminal(&other.btid)["address"], json!(peer));
    other.receive();
    through(&daemon, &other, "127.200.0.1", &[]);
    assert_eq!(daemon.terminal(&other.btid)["address"], "127.200.0.1", "a trusted one that names nobody");
}

#[test]
fn terminals_are_served_over_ipv6_too() {
    let daemon = Daemon::start_with(
        "http.listen = [\"[::1]:0\", \"127.0.0.1:0\"]\nudp.listen = [\"127.0.0.1:0\", \"[::1]:0\"]",
    );
    daemon.put_service("urn:s", 1, json!({}));
    let loopback = IpAddr::V6(Ipv6Addr::LOCALHOST);
    assert_eq!(put_subscriber(&daemon, "six", &[]).status, 201);
    let mut six = Terminal::provision_at(&daemon, "six", loopback);
    (six.http, six.bsm) = (daemon.http_all[0], daemon.udp_all[1]);
    let mut four = Terminal::provision(&daemon, &[]);
    four.http = daemon.http_all[1];
    for terminal in [&six, &four] {
        terminal.registered(&["urn:s"], UDP);
        let mut buffer = [0; 2048];
        let (len, from) = terminal.socket.recv_from(&mut buffer).expect("a datagram");
        assert_eq!(from, terminal.bsm);
        terminal.verify(&terminal.open(&buffer[..len]));
        await_state(&daemon, terminal, "00010001", "verified");
    }
    assert_eq!(daemon.terminal(&six.btid)["address"], "::1");
    daemon.rotate("urn:s", None);
    assert_eq!(six.receive().msk_id, four.receive().msk_id);
    // The digest may name the target in absolute form.
    let mut connection = six.connect();
    let digest = six.digest(&mut connection, "register");
    let uri = format!("http://{}{}", crate::harness::FQDN, target("register"));
    let digest = Digest { uri, ..digest };
    let body = registration(&["urn:s"], UDP);
    assert_eq!(six.send_as(&mut connection, "register", body.as_bytes(), &digest).status, 200);
}

#[test]
fn the_waits_between_attempts_double() {
    let daemon = Daemon::start_with("udp.first_timeout = \"200ms\"\nudp.attempts = 4");
    daemon.put_service("urn:s", 1, json!({}));
    let terminal = Terminal::provision(&daemon, &[]);
    terminal.registered(&["urn:s"], UDP);
    let arrivals: Vec<Instant> = (0..4)
        .map(|_| {
            terminal.receive();
            Instant::now()
        })
        .collect();
    // A wait lasts at least its span less a tenth; how much longer depends on the machine. Arrivals are read late at
    // most, so that a span between two of them may look a little shorter.
    for (n, pair) in arrivals.windows(2).enumerate() {
        let (wait, least) = (pair[1] - pair[0], Duration::from_millis(200 << n).mul_f64(0.8));
        assert!(wait >= least, "attempt {} came {wait:?} after the one before", n + 2);
    }
    await_state(&daemon, &terminal, "00010001", "failed");
    assert_eq!(daemon.deliveries(&terminal.btid)[0]["error"], "no_answer");
    assert_eq!(terminal.drain().len(), 0);
}
