//! The digest with the MRK (LTKM profile §3; RFC 7616).

use std::sync::Barrier;
use std::time::{Duration, Instant};

use data_encoding::BASE64;
use serde_json::json;

use crate::harness::Daemon;
use crate::harness::digest::{Digest, nonce, parameter};
use crate::harness::http::{Connection, Reply};
use crate::harness::terminal::{Terminal, media_type, registration, target};

const HTTP: Option<&[u8]> = Some(&[2]);

/// A daemon with an open service and a terminal.
fn setting(overrides: &str) -> (Daemon, Terminal) {
    let daemon = Daemon::start_with(overrides);
    daemon.put_service("urn:s", 1, json!({}));
    let terminal = Terminal::provision(&daemon, &[]);
    (daemon, terminal)
}

fn body() -> String {
    registration(&["urn:s"], HTTP)
}

/// A POST of a registration with this `Authorization`.
fn with(connection: &mut Connection, authorization: &str) -> Reply {
    let headers = [("Content-Type", media_type("register")), ("Authorization", authorization)];
    connection.request("POST", &target("register"), &headers, body().as_bytes())
}

fn is_stale(reply: &Reply) -> bool {
    assert_eq!(reply.status, 401, "{}", reply.text());
    let stale = |line: &&str| parameter(line, "stale").as_deref() == Some("true");
    let lines = reply.all("www-authenticate");
    assert!(lines.iter().all(stale) || !lines.iter().any(stale), "{lines:?}");
    lines.iter().any(stale)
}

fn failures(daemon: &Daemon, reason: &str) -> f64 {
    daemon.metric(&format!("ltkmd_digest_failures_total{{reason=\"{reason}\"}}"))
}

#[test]
fn a_challenge_offers_sha_256_then_md5_with_one_fresh_nonce() {
    let (daemon, terminal) = setting("");
    let mut connection = terminal.connect();
    let mut seen = Vec::new();
    for _ in 0..3 {
        let headers = [("Content-Type", media_type("register"))];
        let reply = connection.request("POST", &target("register"), &headers, body().as_bytes());
        assert!(!is_stale(&reply));
        let lines = reply.all("www-authenticate");
        let of = |name: &str| lines.iter().map(|l| parameter(l, name).expect(name)).collect::<Vec<_>>();
        assert!(lines.iter().all(|l| l.starts_with("Digest ")));
        assert_eq!(of("algorithm"), ["SHA-256", "MD5"]);
        assert_eq!(of("realm"), ["3GPP-bootstrapping@bmsc.example.com"; 2]);
        assert_eq!(of("qop"), ["auth,auth-int"; 2]);
        let nonces = of("nonce");
        assert_eq!(nonces[0], nonces[1]);
        assert!(!seen.contains(&nonces[0]));
        seen.push(nonces[0].clone());
        assert!(reply.header("authentication-info").is_none());
    }
    assert_eq!(failures(&daemon, "missing"), 3.0);
    let (_daemon, terminal) = setting("digest.algorithms = [\"MD5\"]");
    let mut connection = terminal.connect();
    let digest = terminal.digest(&mut connection, "register");
    assert!(!is_stale(&with(&mut connection, &digest.header(body().as_bytes()))), "SHA-256 is off");
    let digest = Digest { algorithm: "MD5", ..digest };
    assert_eq!(with(&mut connection, &digest.header(body().as_bytes())).status, 200);
}

#[test]
fn both_algorithms_and_both_protections_serve_and_the_answer_proves_the_mrk() {
    let (_daemon, terminal) = setting("");
    let mut connection = terminal.connect();
    let digest = terminal.digest(&mut connection, "register");
    let mut nc = 0;
    for algorithm in ["SHA-256", "MD5"] {
        for qop in ["auth", "auth-int"] {
            nc += 1;
            let digest = Digest { algorithm, qop, ..digest.count(nc) };
            let reply = terminal.send_as(&mut connection, "register", body().as_bytes(), &digest);
            assert_eq!(reply.status, 200, "{algorithm} {qop}: {}", reply.text());
            assert_eq!(digest.prove(&reply), None, "the nonce is young");
            // The body is covered by auth-int alone.
            nc += 1;
            let digest = Digest { algorithm, qop, ..digest.count(nc) };
            let authorization = digest.header(b"another body");
            let status = with(&mut connection, &authorization).status;
            assert_eq!(status, if qop == "auth" { 200 } else { 401 }, "{algorithm} {qop}");
        }
    }
    // RFC 2617 terminals do not name MD5; a count may be written in capitals.
    let digest = Digest { algorithm: "MD5", nc: "0000000A".to_owned(), ..digest };
    let unnamed = digest.header(body().as_bytes()).replace("algorithm=MD5, ", "");
    let reply = with(&mut connection, &unnamed);
    assert_eq!(reply.status, 200, "{}", reply.text());
    digest.prove(&reply);
}

#[test]
fn credentials_that_cannot_be_read_are_400_and_those_for_others_are_401() {
    let (daemon, terminal) = setting("");
    let mut connection = terminal.connect();
    let digest = terminal.digest(&mut connection, "register");
    let body = body();
    let header = |digest: &Digest| digest.header(body.as_bytes());
    let right = header(&digest);
    let path = target("register");
    let cases = [
        ("malformed", 400, right.replace(", qop=auth-int", "")),
        ("malformed", 400, right.replace("qop=auth-int", "qop=auth-conf")),
        ("malformed", 400, right.replace("nc=00000001, ", "")),
        ("malformed", 400, right.replace("nc=00000001", "nc=1")),
        ("malformed", 400, right.replace("nc=00000001", "nc=0000000g")),
        ("malformed", 400, right.replace("nc=00000001", "nc=000000001")),
        ("malformed", 400, right.replace(", cnonce=\"6d8f\"", "")),
        ("malformed", 400, right.replace("realm=", "r=")),
        ("malformed", 400, format!("{right}, {}", right.trim_start_matches("Digest "))),
        ("malformed", 400, "Digest".to_owned()),
        ("malformed", 400, right.replace("\"6d8f\"", "\"6d8f")),
        ("userhash", 400, format!("{right}, userhash=true")),
        ("uri", 400, header(&Digest { uri: "/keymanagement".to_owned(), ..digest.clone() })),
        ("uri", 400, header(&Digest { uri: target("deregister"), ..digest.clone() })),
        ("uri", 400, header(&Digest { uri: format!("http://other.example.com{path}"), ..digest.clone() })),
        ("uri", 400, header(&Digest { uri: "*".to_owned(), ..digest.clone() })),
        (
            "realm",
            401,
            header(&Digest {
                realm: "3GPP-bootstrapping-uicc@bmsc.example.com".to_owned(),
                ..digest.clone()
            }),
        ),
        ("realm", 401, header(&Digest { realm: "3GPP-bootstrapping@other".to_owned(), ..digest.clone() })),
        ("algorithm", 401, right.replace("SHA-256", "SHA-512-256")),
        ("algorithm", 401, right.replace("SHA-256", "SHA-256-sess")),
        ("scheme", 401, "Basic YTpi".to_owned()),
        ("scheme", 401, "Bearer abc".to_owned()),
        ("wrong_response", 401, right.replace("response=\"", "response=\"0")),
        ("wrong_response", 401, header(&Digest { password: b"guess".to_vec(), ..digest.clone() })),
        ("wrong_response", 401, digest.header(b"another body")),
        (
            "unknown_user",
            401,
            header(&Digest { username: "nobody@bsf.example.com".to_owned(), ..digest.clone() }),
        ),
        ("unknown_user", 401, header(&Digest { username: "not a B-TID".to_owned(), ..digest.clone() })),
        ("stale", 401, header(&Digest { nonce: "b3V0IG9mIHRoaW4gYWly".to_owned(), ..digest.clone() })),
    ];
    for (reason, status, authorization) in cases {
        let before = failures(&daemon, reason);
        let reply = with(&mut connection, &authorization);
        assert_eq!(reply.status, status, "{reason}: {authorization}");
        assert_eq!(failures(&daemon, reason), before + 1.0, "{reason}: {authorization}");
        assert!(reply.header("authentication-info").is_none());
        assert_eq!(reply.all("www-authenticate").len(), if status == 401 { 2 } else { 0 });
        if status == 401 {
            assert_eq!(is_stale(&reply), reason == "stale", "{reason}");
        }
    }
    let headers =
        [("Content-Type", media_type("register")), ("Authorization", &right), ("Authorization", &right)];
    assert_eq!(connection.request("POST", &path, &headers, body.as_bytes()).status, 400);
    assert_eq!(with(&mut connection, &right).status, 200, "nothing of all that used the count up");
}

#[test]
fn an_unknown_name_and_a_wrong_secret_get_the_same_answer() {
    let (daemon, terminal) = setting("");
    let gone = Terminal::provision(&daemon, &[]);
    let path = format!("/v1/subscribers/{}", crate::harness::encoded(&gone.subscriber));
    assert_eq!(daemon.admin("DELETE", &path, None).status, 204);
    let mut connection = terminal.connect();
    let mut answers = Vec::new();
    for change in 0..4 {
        let mut digest = terminal.digest(&mut connection, "register");
        match change {
            0 => digest.password = b"wrong".to_vec(),
            1 => digest.username = "nobody@bsf.example.com".to_owned(),
            2 => digest.username = "no B-TID at all".to_owned(),
            // Right, but of a subscriber that is gone.
            _ => digest = Digest::new(&gone, "register", &digest.nonce),
        }
        let mut reply = with(&mut connection, &digest.header(body().as_bytes()));
        let fresh = nonce(&reply);
        assert_ne!(fresh, digest.nonce);
        for (name, value) in &mut reply.headers {
            *value = value.replace(&fresh, "NONCE");
            if name.eq_ignore_ascii_case("date") {
                value.clear();
            }
        }
        answers.push((reply.status, reply.headers, reply.body));
    }
    assert_eq!(answers[0].0, 401);
    assert!(answers.iter().all(|a| *a == answers[0]), "{answers:#?}");
    assert_eq!(failures(&daemon, "unknown_user"), 3.0);
}

#[test]
fn a_nonce_is_replaced_from_three_quarters_of_its_life_and_stale_at_its_end() {
    let (daemon, terminal) = setting("digest.nonce_lifetime = \"1s\"");
    let mut connection = terminal.connect();
    let asked = Instant::now();
    let digest = terminal.digest(&mut connection, "register");
    let (mut nc, mut next, mut young) = (0, None, 0);
    let stale = loop {
        nc += 1;
        let digest = digest.count(nc);
        // Refused for its body, but authenticated: nothing is written.
        let reply = terminal.send_as(&mut connection, "register", b"<", &digest);
        // The daemon's clock counts milliseconds, and its steps are not this one's.
        let age = asked.elapsed() + Duration::from_millis(5);
        if reply.status == 401 {
            assert!(age >= Duration::from_secs(1), "stale after {age:?}");
            break reply;
        }
        match digest.prove(&reply) {
            Some(nonce) => {
                assert!(age >= Duration::from_millis(750), "nextnonce after {age:?}");
                next = Some(nonce);
            }
            None => {
                assert!(next.is_none(), "once it is near its end it stays so");
                young += 1;
            }
        }
    };
    assert!(young > 0 && is_stale(&stale) && failures(&daemon, "stale") == 1.0);
    if let Some(next) = next {
        let digest = Digest { nonce: next, ..digest.clone() };
        assert_eq!(with(&mut connection, &digest.header(body().as_bytes())).status, 200, "nextnonce is good");
    }
    // An old nonce with a wrong answer is not stale: that would tell which B-TIDs exist.
    let wrong = Digest { password: b"wrong".to_vec(), ..digest.count(nc) };
    assert!(!is_stale(&with(&mut connection, &wrong.header(body().as_bytes()))));
    let renewed = Digest { nonce: nonce(&stale), ..digest };
    assert_eq!(with(&mut connection, &renewed.header(body().as_bytes())).status, 200);
}

#[test]
fn a_count_is_good_once_in_any_order_within_64() {
    let (daemon, terminal) = setting("");
    let mut connection = terminal.connect();
    let digest = terminal.digest(&mut connection, "register");
    for (nc, good) in [
        (1, true),
        (1, false),
        (100, true),
        (37, true),
        (36, false),
        (37, false),
        (99, true),
        (98, true),
        (100, false),
        (0, false),
        (u32::MAX, true),
        (101, false),
    ] {
        let digest = digest.count(nc);
        let reply = terminal.send_as(&mut connection, "register", b"<", &digest);
        if good {
            assert_eq!(reply.status, 400, "{nc}");
            digest.prove(&reply);
        } else {
            assert!(is_stale(&reply), "{nc}");
        }
    }
    assert_eq!(failures(&daemon, "replay"), 6.0);
    // A count belongs to its nonce, whoever uses it and for whatever.
    let other = Terminal::provision(&daemon, &[]);
    let stolen = Digest { nonce: digest.nonce.clone(), ..Digest::new(&other, "register", &digest.nonce) };
    assert!(is_stale(&with(&mut connection, &stolen.header(body().as_bytes()))));
}

#[test]
fn of_two_requests_with_one_count_exactly_one_wins() {
    let (daemon, terminal) = setting("");
    let mut one = terminal.connect();
    let mut two = terminal.connect();
    let digest = terminal.digest(&mut one, "register");
    for nc in 1..=50 {
        let digest = &digest.count(nc);
        let together = Barrier::new(2);
        let mut statuses = std::thread::scope(|scope| {
            let race = [&mut one, &mut two].map(|connection| {
                let (together, terminal) = (&together, &terminal);
                scope.spawn(move || {
                    together.wait();
                    terminal.send_as(connection, "register", body().as_bytes(), digest).status
                })
            });
            race.map(|thread| thread.join().expect("an answer"))
        });
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 401], "count {nc}");
    }
    assert_eq!(failures(&daemon, "replay"), 50.0);
}

#[test]
fn after_a_restart_every_earlier_nonce_is_stale() {
    let (mut daemon, mut terminal) = setting("");
    let mut connection = terminal.connect();
    let digest = terminal.digest(&mut connection, "register");
    assert_eq!(with(&mut connection, &digest.header(body().as_bytes())).status, 200);
    daemon.kill();
    daemon.restart();
    terminal.follow(&daemon);
    let mut connection = terminal.connect();
    for nc in [1, 2] {
        assert!(is_stale(&with(&mut connection, &digest.count(nc).header(body().as_bytes()))));
    }
}

#[test]
fn a_b_tid_at_its_end_is_asked_to_bootstrap_again() {
    let (daemon, terminal) = setting("");
    for (more, why) in [
        (json!({"expires": "2020-01-01T00:00:00Z"}), "expired"),
        (json!({"expires": null, "t": 0xFFFF_FFF0_u32}), "its counter is spent"),
    ] {
        assert_eq!(terminal.put(&daemon, more).status, 200);
        let mut connection = terminal.connect();
        let digest = terminal.digest(&mut connection, "register");
        let reply = with(&mut connection, &digest.header(body().as_bytes()));
        assert!(!is_stale(&reply), "{why}");
        assert_ne!(nonce(&reply), digest.nonce);
        assert!(reply.header("authentication-info").is_none());
        // Without the MRK nobody learns that.
        let wrong = Digest { password: b"wrong".to_vec(), ..terminal.digest(&mut connection, "register") };
        assert_eq!(with(&mut connection, &wrong.header(body().as_bytes())).body, reply.body);
    }
    assert_eq!(failures(&daemon, "expired"), 2.0);
    let reply =
        daemon.admin("GET", &format!("/v1/terminals/{}", crate::harness::encoded(&terminal.btid)), None);
    assert_eq!(reply.status, 404, "nobody was registered");
}

#[test]
fn an_mrk_of_any_length_from_16_to_64_octets_serves() {
    let (daemon, mut terminal) = setting("");
    for len in [16, 33, 64] {
        terminal.mrk = (0..len).collect();
        terminal.muk = (0..len).map(|i| i ^ 0x55).collect();
        assert_eq!(terminal.put(&daemon, json!({})).status, 200);
        let answer = terminal.registered(&["urn:s"], HTTP);
        terminal.open(&answer.items[0].ltkms()[0]);
    }
    for len in [0, 15, 65] {
        let more = json!({"mrk": BASE64.encode(&vec![1; len])});
        assert_eq!(terminal.put(&daemon, more).status, 422, "{len}");
    }
}

#[test]
fn a_b_tid_acts_for_its_own_subscriber_alone() {
    let daemon = Daemon::start();
    daemon.put_service("urn:closed", 1, json!({"open": false}));
    let entitled = Terminal::provision(&daemon, &["urn:closed"]);
    let other = Terminal::provision(&daemon, &[]);
    assert_eq!(entitled.registered(&["urn:closed"], HTTP).items[0].code().number(), 200);
    assert_eq!(other.registered(&["urn:closed"], HTTP).items[0].code().number(), 403);
    let mut connection = other.connect();
    let digest = other.digest(&mut connection, "register");
    let borrowed = Digest { username: entitled.btid.clone(), ..digest };
    assert_eq!(with(&mut connection, &borrowed.header(body().as_bytes())).status, 401);
}

#[test]
fn a_target_in_absolute_form_is_served_and_the_digest_may_name_it_in_either_form() {
    let (daemon, terminal) = setting("");
    let mut connection = terminal.connect();
    let digest = terminal.digest(&mut connection, "register");
    let (origin, body) = (target("register"), body());
    let absolute = format!("http://{}{origin}", crate::harness::FQDN);
    let mut nc = 0;
    for line in [&origin, &absolute] {
        for uri in [&origin, &absolute] {
            nc += 1;
            let digest = Digest { uri: uri.clone(), ..digest.count(nc) };
            let authorization = digest.header(body.as_bytes());
            let headers =
                [("Content-Type", media_type("register")), ("Authorization", authorization.as_str())];
            let reply = connection.request("POST", line, &headers, body.as_bytes());
            assert_eq!(reply.status, 200, "{line} {uri}: {}", reply.text());
            digest.prove(&reply);
        }
    }
    daemon.await_metric("ltkmd_digest_nonces", 1.0);
}

#[test]
fn a_b_tid_of_any_visible_characters_is_a_user_name() {
    let (daemon, terminal) = setting("");
    for btid in ["a\"b\\c@bsf.example.com", "a,b=c;d@bsf.example.com", "a/b+c==@bsf.example.com", "%41'&<>@x"]
    {
        let path = format!("/v1/credentials/{}", crate::harness::encoded(btid));
        let (mrk, muk) = (BASE64.encode(&terminal.mrk), BASE64.encode(&terminal.muk));
        let body = json!({"subscriber": terminal.subscriber, "mrk": mrk, "muk": muk});
        assert_eq!(daemon.admin("PUT", &path, Some(&body)).status, 201);
        let mut connection = terminal.connect();
        let digest = Digest { username: btid.to_owned(), ..terminal.digest(&mut connection, "register") };
        let body = registration(&["urn:s"], HTTP);
        let quoted = format!("username=\"{}\"", btid.replace('\\', "\\\\").replace('"', "\\\""));
        let authorization = digest.header(body.as_bytes()).replace(&format!("username=\"{btid}\""), &quoted);
        let reply = with(&mut connection, &authorization);
        assert_eq!(reply.status, 200, "{authorization}: {}", reply.text());
        digest.prove(&reply);
        let (answer, _) = ltkmd::document::RegistrationResponse::read(&reply.body, &Default::default())
            .expect("a registration answer");
        let ltkm = terminal.open(&answer.items[0].ltkms()[0]);
        assert_eq!(ltkm.idr, btid.as_bytes());
        terminal.verify(&ltkm);
        daemon.await_state("the verification", |daemon| {
            (daemon.deliveries(btid)[0]["state"] == "verified").then_some(())
        });
    }
}
