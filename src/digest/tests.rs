//! Both sides together, on virtual time.

use std::fs;
use std::path::Path;
use std::time::Duration;

use digest_auth::{AuthContext, HttpMethod, WwwAuthenticateHeader};
use proptest::prelude::*;

use super::client::{self, Challenge, ClientError, Outgoing};
use super::*;
use crate::id::BTid;
use crate::secret::Secret;
use crate::time::Timestamp;

const LIFETIME: Duration = Duration::from_secs(300);
const START: Timestamp = Timestamp(1_795_000_000_000);
const MRK: [u8; 32] = [0xA5; 32];
const TARGET: &str = "/keymanagement?requesttype=register";
const REQUEST: RequestLine<'static> =
    RequestLine { method: "POST", target: TARGET, host: Some("bmsc.example.com:8080") };
const CNONCE: &str = "0a4f113b";

fn server_with(secret: u8, algorithms: &[Algorithm]) -> Authenticator {
    server_of(NonceMemory::Process(Secret::new(vec![secret; 32])), algorithms)
}

/// A node of the cluster with this secret.
fn node(secret: u8) -> Authenticator {
    server_of(NonceMemory::Shared(Secret::new(vec![secret; 32])), &[Algorithm::Sha256])
}

fn server_of(memory: NonceMemory, algorithms: &[Algorithm]) -> Authenticator {
    let config = DigestConfig {
        fqdn: "bmsc.example.com".to_owned(),
        algorithms: algorithms.to_vec(),
        nonce_lifetime: LIFETIME,
        max_nonces: 1024,
    };
    Authenticator::new(config, memory)
}

fn server() -> Authenticator {
    server_with(1, &[Algorithm::Sha256, Algorithm::Md5])
}

fn user() -> BTid {
    BTid::new("RAND+/==@bsf.example.com").expect("a B-TID")
}

fn challenge(server: &Authenticator, random: u8) -> Challenge {
    let lines = server.challenges(START, [random; 16], false);
    Challenge::strongest(lines.iter().map(String::as_bytes)).expect("a challenge")
}

fn answer(challenge: &Challenge, qop: Qop, nc: u32, body: &[u8]) -> client::Answer {
    let outgoing = Outgoing { method: "POST", uri: TARGET, body };
    client::answer(challenge, outgoing, (&user(), &password(&MRK)), qop, CNONCE, nc)
}

fn check(server: &Authenticator, header: &str, body: &[u8], now: Timestamp) -> Result<Verified, Failure> {
    let auth = Authorization::parse(header.as_bytes())?;
    server.check(&auth, &REQUEST, body, Some(&MRK), now)
}

fn outcome(result: Result<Verified, Failure>) -> (&'static str, u16, bool) {
    match result {
        Ok(_) => ("", 200, false),
        Err(failure) => (failure.reason().as_str(), failure.status(), failure.is_stale()),
    }
}

const WELCOME: (&str, u16, bool) = ("", 200, false);

#[test]
fn there_is_a_challenge_for_each_algorithm_in_order_and_all_of_one_fresh_nonce() {
    let lines = server().challenges(START, [1; 16], false);
    assert_eq!(lines.len(), 2);
    for (line, algorithm) in lines.iter().zip(["SHA-256", "MD5"]) {
        let (before, nonce) = line.split_once(", nonce=").expect("a nonce");
        let head = "Digest realm=\"3GPP-bootstrapping@bmsc.example.com\", qop=\"auth,auth-int\", algorithm=";
        assert_eq!(before, format!("{head}{algorithm}"));
        assert!(nonce.len() > 40 && !nonce.contains("stale"));
    }
    assert_eq!(lines[0].split("nonce=").nth(1), lines[1].split("nonce=").nth(1));
    assert_ne!(lines, server().challenges(START, [2; 16], false), "unique for each challenge");
    assert!(server().challenges(START, [1; 16], true).iter().all(|line| line.ends_with(", stale=true")));
    let only = server_with(1, &[Algorithm::Md5]).challenges(START, [1; 16], false);
    assert!(only.len() == 1 && only[0].contains("algorithm=MD5"));
}

#[test]
fn a_right_answer_is_welcome_in_every_algorithm_and_qop_and_proves_the_server_too() {
    for algorithm in [Algorithm::Sha256, Algorithm::Md5] {
        for qop in [Qop::Auth, Qop::AuthInt] {
            let server = server_with(1, &[algorithm]);
            let answer = answer(&challenge(&server, 1), qop, 1, b"request");
            let verified = check(&server, answer.header(), b"request", START).expect("authenticated");
            assert_eq!((verified.algorithm(), verified.qop()), (algorithm, qop));
            let info = verified.authentication_info(b"answer", Some("next\"nonce"));
            assert_eq!(answer.confirm(info.as_bytes(), b"answer"), Ok(Some("next\"nonce".to_owned())));
            let tampered = answer.confirm(info.as_bytes(), b"tampered");
            match qop {
                Qop::Auth => assert!(tampered.is_ok()),
                Qop::AuthInt => assert_eq!(tampered, Err(ClientError::NotProven("a wrong rspauth"))),
            }
        }
    }
}

#[test]
fn another_implementation_of_the_client_is_welcome() {
    let server = server();
    for (n, body) in [None, Some(&b"a body"[..])].into_iter().enumerate() {
        for line in server.challenges(START, [n as u8; 16], false) {
            let mut prompt = WwwAuthenticateHeader::parse(&line).expect("a challenge");
            let user = user();
            let password = password(&MRK);
            let password = std::str::from_utf8(&password).expect("base64");
            // Given a body, that client takes auth-int.
            let context =
                AuthContext::new_with_method(user.as_str(), password, TARGET, body, HttpMethod::POST);
            let header = prompt.respond(&context).expect("an answer").to_header_string();
            assert_eq!(header.contains("qop=auth-int"), body.is_some());
            // Both challenges share a nonce; its first count goes to the first.
            let now_or_replay = check(&server, &header, body.unwrap_or_default(), START);
            let expected = if line.contains("MD5") { ("replay", 401, true) } else { WELCOME };
            assert_eq!(outcome(now_or_replay), expected, "{header}");
        }
    }
}

#[test]
fn the_strongest_challenge_is_taken_wherever_it_stands() {
    let mut lines = server().challenges(START, [1; 16], false);
    lines.reverse();
    lines.insert(0, "Basic realm=\"x\"".to_owned());
    lines.push("Digest realm=\"x\", nonce=\"1\", qop=\"auth\", algorithm=SHA-512-256".to_owned());
    lines.push("Digest realm=\"no qop\", nonce=\"1\", algorithm=SHA-256".to_owned());
    let best = Challenge::strongest(lines.iter().map(String::as_bytes)).expect("a challenge");
    assert_eq!((best.algorithm, best.qops.len()), (Algorithm::Sha256, 2));
    assert_eq!(best.realm, "3GPP-bootstrapping@bmsc.example.com");
    assert_eq!(Challenge::strongest([&b"Basic realm=\"x\""[..]]), Err(ClientError::NoChallenge));
}

#[test]
fn a_wanted_algorithm_is_taken_before_a_stronger_one_or_none_is() {
    let lines = server().challenges(START, [1; 16], false);
    let lines = || lines.iter().map(String::as_bytes);
    let chosen = Challenge::choose(lines(), Some(Algorithm::Md5)).expect("a challenge");
    assert_eq!(chosen.algorithm, Algorithm::Md5);
    let sha_256_alone = lines().take(1);
    assert_eq!(Challenge::choose(sha_256_alone, Some(Algorithm::Md5)), Err(ClientError::NoChallenge));
}

#[test]
fn the_strongest_challenge_of_one_shared_line_keeps_its_own_parameters() {
    let lines = server().challenges(START, [1; 16], true).join(", ");
    let best = Challenge::strongest([lines.as_bytes()]).expect("a challenge");
    assert_eq!((best.algorithm, best.stale), (Algorithm::Sha256, true));
}

#[test]
fn a_wrong_answer_gets_a_fresh_challenge_whatever_is_wrong_with_it() {
    let server = server();
    let good = answer(&challenge(&server, 1), Qop::AuthInt, 1, b"body");
    let header = good.header();
    let wrong = ("wrong_response", 401, false);
    assert_eq!(outcome(check(&server, header, b"other body", START)), wrong);
    let response = header.split("response=\"").nth(1).expect("a response");
    for changed in [
        header.replace(response, &format!("{}\"", "0".repeat(64))),
        header.replace(response, "\""),
        header.replace("nc=00000001", "nc=00000002"),
        header.replace(CNONCE, "1a4f113b"),
        header.replace("qop=auth-int", "qop=auth"),
        header.replace("algorithm=SHA-256", "algorithm=MD5"),
        header.replace("algorithm=SHA-256, ", ""),
        header.replace("RAND+", "RAND-"),
    ] {
        assert_ne!(changed, header);
        assert_eq!(outcome(check(&server, &changed, b"body", START)), wrong, "{changed}");
    }
    let auth = Authorization::parse(header.as_bytes()).expect("credentials");
    let get = RequestLine { method: "GET", ..REQUEST };
    assert_eq!(outcome(server.check(&auth, &get, b"body", Some(&MRK), START)), wrong);
    assert_eq!(outcome(server.check(&auth, &REQUEST, b"body", Some(&[0; 32]), START)), wrong);
    assert_eq!(outcome(check(&server, header, b"body", START)), WELCOME, "wrong answers use up no count");
}

#[test]
fn an_unknown_user_differs_from_a_wrong_answer_in_the_log_alone() {
    let server = server();
    let good = answer(&challenge(&server, 1), Qop::Auth, 1, b"");
    let auth = Authorization::parse(good.header().as_bytes()).expect("credentials");
    assert_eq!(outcome(server.check(&auth, &REQUEST, b"", None, START)), ("unknown_user", 401, false));
}

#[test]
fn the_mrk_of_nobody_opens_nothing() {
    let server = server();
    let outgoing = Outgoing { method: "POST", uri: TARGET, body: b"" };
    let password = password(&[0; 32]);
    let good = client::answer(&challenge(&server, 1), outgoing, (&user(), &password), Qop::Auth, CNONCE, 1);
    let auth = Authorization::parse(good.header().as_bytes()).expect("credentials");
    assert_eq!(outcome(server.check(&auth, &REQUEST, b"", None, START)), ("unknown_user", 401, false));
}

#[test]
fn a_realm_or_algorithm_that_is_not_offered_is_a_401() {
    let server = server();
    let good = answer(&challenge(&server, 1), Qop::Auth, 1, b"");
    for (from, to, reason) in [
        ("3GPP-bootstrapping@", "3GPP-bootstrapping-uicc@", "realm"),
        ("@bmsc.example.com", "@other.example.com", "realm"),
        ("SHA-256", "SHA-256-sess", "algorithm"),
        ("SHA-256", "SHA-512-256", "algorithm"),
    ] {
        let header = good.header().replacen(from, to, 1);
        assert_eq!(outcome(check(&server, &header, b"", START)), (reason, 401, false), "{to}");
    }
    let sha_only = server_with(1, &[Algorithm::Sha256]);
    let md5 = good.header().replace("SHA-256", "MD5");
    assert_eq!(outcome(check(&sha_only, &md5, b"", START)), ("algorithm", 401, false));
}

#[test]
fn the_uri_must_be_the_requests_in_origin_or_absolute_form() {
    let server = server();
    let challenge = challenge(&server, 1);
    let mut nc = 0;
    let mut with = |uri: &str, request: RequestLine<'_>| {
        nc += 1;
        let outgoing = Outgoing { method: "POST", uri, body: b"" };
        let good = client::answer(&challenge, outgoing, (&user(), &password(&MRK)), Qop::Auth, CNONCE, nc);
        let auth = Authorization::parse(good.header().as_bytes()).expect("credentials");
        outcome(server.check(&auth, &request, b"", Some(&MRK), START))
    };
    let absolute = |authority: &str| format!("http://{authority}{TARGET}");
    for authority in
        ["bmsc.example.com:8080", "BMSC.example.com:8080", "bmsc.example.com", "bmsc.example.com:443"]
    {
        assert_eq!(with(&absolute(authority), REQUEST), WELCOME, "{authority}");
    }
    let host = RequestLine { host: Some("10.0.0.1"), ..REQUEST };
    assert_eq!(with(&absolute("10.0.0.1:80"), host), WELCOME);
    let target = absolute("bmsc.example.com");
    let proxied = RequestLine { target: &target, ..REQUEST };
    assert_eq!(with(&target, proxied), WELCOME);
    assert_eq!(with(TARGET, proxied), WELCOME);
    let refused = ("uri", 400, false);
    for uri in [
        "/keymanagement?requesttype=deregister",
        "/keymanagement",
        "/",
        "",
        "/Keymanagement?requesttype=register",
        "/keymanagement?requesttype=register#x",
        "http://other.example.com/keymanagement?requesttype=register",
        "http://bmsc.example.com.evil.example/keymanagement?requesttype=register",
        "ftp://bmsc.example.com/keymanagement?requesttype=register",
        "http://bmsc.example.com",
    ] {
        assert_eq!(with(uri, REQUEST), refused, "{uri}");
    }
}

#[test]
fn counts_are_taken_once_and_a_replay_is_stale() {
    let server = server();
    let challenge = challenge(&server, 1);
    let send = |nc| outcome(check(&server, answer(&challenge, Qop::Auth, nc, b"").header(), b"", START));
    let replay = ("replay", 401, true);
    assert_eq!(send(1), WELCOME);
    assert_eq!(send(1), replay);
    assert_eq!(send(3), WELCOME);
    assert_eq!(send(2), WELCOME, "late, within the window");
    assert_eq!(send(2), replay);
    assert_eq!(send(100), WELCOME);
    assert_eq!(send(36), replay, "behind the window");
    assert_eq!(send(0), replay, "counts begin at 1");
}

#[test]
fn a_nonce_lives_for_its_lifetime_and_then_a_right_answer_is_stale() {
    let server = server();
    let challenge = challenge(&server, 1);
    let stale = ("stale", 401, true);
    let send = |nc, now| outcome(check(&server, answer(&challenge, Qop::Auth, nc, b"").header(), b"", now));
    assert_eq!(send(1, START + LIFETIME - Duration::from_millis(1)), WELCOME);
    assert_eq!(send(2, START + LIFETIME), stale);
    assert_eq!(send(3, START - Duration::from_secs(60)), stale, "from the future");
    let wrong = answer(&challenge, Qop::Auth, 4, b"").header().replace("nc=00000004", "nc=00000005");
    assert_eq!(outcome(check(&server, &wrong, b"", START + LIFETIME)), ("wrong_response", 401, false));
}

#[test]
fn a_nonce_of_an_earlier_life_or_of_nobody_is_stale() {
    let server = server();
    let mut challenge = challenge(&server_with(2, &[Algorithm::Sha256]), 1);
    assert_eq!(
        outcome(check(&server, answer(&challenge, Qop::Auth, 1, b"").header(), b"", START)),
        ("stale", 401, true)
    );
    challenge.nonce = "my own".to_owned();
    assert_eq!(
        outcome(check(&server, answer(&challenge, Qop::Auth, 1, b"").header(), b"", START)),
        ("stale", 401, true)
    );
}

#[test]
fn nodes_with_one_cluster_secret_accept_each_others_nonces_and_say_what_is_to_be_used_up() {
    let challenge = challenge(&node(1), 1);
    let sent = answer(&challenge, Qop::Auth, 5, b"");
    let of = |server: &Authenticator| {
        check(server, sent.header(), b"", START).map(|verified| verified.nonce_use().expect("a pair"))
    };
    let first = of(&node(1)).expect("authenticated");
    assert_eq!((first.nc, first.issued), (5, START));
    // A node does not remember it: what follows from a pair is decided where it is used up.
    let other = node(1);
    assert_eq!((of(&other), of(&other)), (Ok(first), Ok(first)), "the pair is the same at every node");
    assert_eq!(other.nonces_remembered(), 0);
    let another = answer(&self::challenge(&node(1), 2), Qop::Auth, 5, b"");
    let another = check(&other, another.header(), b"", START).expect("authenticated").nonce_use();
    assert_ne!(another.map(|used| used.id), Some(first.id), "each nonce has an id of its own");
    let stale = ("stale", 401, true);
    assert_eq!(outcome(check(&node(2), sent.header(), b"", START)), stale, "another cluster");
    assert_eq!(outcome(check(&server(), sent.header(), b"", START)), stale, "no cluster");
    assert_eq!(outcome(check(&node(1), sent.header(), b"", START + LIFETIME)), stale, "expired");
}

#[test]
fn a_process_by_itself_leaves_no_pair_to_be_used_up() {
    let server = server();
    let sent = answer(&challenge(&server, 1), Qop::Auth, 1, b"");
    assert_eq!(check(&server, sent.header(), b"", START).expect("authenticated").nonce_use(), None);
    assert_eq!(outcome(check(&server, sent.header(), b"", START)), ("replay", 401, true));
}

#[test]
fn pairs_that_a_ledger_refuses_are_answered_like_those_that_memory_refuses() {
    let of = |refused: Refused| outcome(Err(refused.into()));
    assert_eq!(of(Refused::Replayed), ("replay", 401, true));
    assert_eq!(of(Refused::Forgotten), ("stale", 401, true));
}

#[test]
fn the_next_nonce_is_offered_from_three_quarters_of_the_lifetime_and_works() {
    let server = server();
    let mut challenge = challenge(&server, 1);
    let wants = |nc, now| {
        let sent = answer(&challenge, Qop::Auth, nc, b"");
        check(&server, sent.header(), b"", now).expect("authenticated").wants_next_nonce()
    };
    assert!(!wants(1, START));
    assert!(!wants(2, START + LIFETIME * 3 / 4 - Duration::from_millis(1)));
    let late = START + LIFETIME * 3 / 4;
    assert!(wants(3, late));
    challenge.nonce = server.next_nonce(late, [9; 16]);
    let sent = answer(&challenge, Qop::Auth, 1, b"");
    assert_eq!(outcome(check(&server, sent.header(), b"", START + LIFETIME * 3 / 2)), WELCOME);
}

#[test]
fn an_answer_that_is_not_about_this_request_proves_nothing() {
    let server = server();
    let challenge = challenge(&server, 1);
    let (one, two) = (answer(&challenge, Qop::Auth, 1, b""), answer(&challenge, Qop::Auth, 2, b""));
    let info =
        check(&server, one.header(), b"", START).expect("authenticated").authentication_info(b"", None);
    assert_eq!(one.confirm(info.as_bytes(), b""), Ok(None));
    assert_eq!(two.confirm(info.as_bytes(), b""), Err(ClientError::NotProven("another nc")));
    assert_eq!(one.confirm(b"nextnonce=\"x\"", b""), Err(ClientError::NotProven("no rspauth")));
    assert!(matches!(one.confirm(b"rspauth=\"", b""), Err(ClientError::Malformed { .. })));
}

#[test]
fn the_shape_of_authentication_info_is_that_of_the_rfc() {
    let server = server();
    let answer = answer(&challenge(&server, 1), Qop::AuthInt, 0x1F, b"");
    let verified = check(&server, answer.header(), b"", START).expect("authenticated");
    let info = verified.authentication_info(b"", Some("n"));
    let (rspauth, rest) = info.split_once(", ").expect("several parameters");
    assert_eq!(rspauth.len(), "rspauth=\"\"".len() + 64);
    assert_eq!(rest, "qop=auth-int, cnonce=\"0a4f113b\", nc=0000001f, nextnonce=\"n\"");
}

#[test]
fn memory_is_spent_on_right_answers_alone_and_is_bounded() {
    let server = server();
    for random in 0..100 {
        let challenge = challenge(&server, random);
        let header = answer(&challenge, Qop::Auth, 1, b"").header().replace("response=\"", "response=\"0");
        assert_eq!(outcome(check(&server, &header, b"", START)), ("wrong_response", 401, false));
    }
    assert_eq!(server.nonces_remembered(), 0);
    let mut challenge = challenge(&server, 0);
    for n in 0..5000u128 {
        challenge.nonce = server.next_nonce(START, n.to_be_bytes());
        let _ = check(&server, answer(&challenge, Qop::Auth, 1, b"").header(), b"", START);
    }
    assert!((512..=1024).contains(&server.nonces_remembered()), "{}", server.nonces_remembered());
}

#[test]
fn an_expired_credential_gets_a_fresh_challenge() {
    let failure = Failure::expired();
    assert_eq!((failure.status(), failure.is_stale(), failure.reason().as_str()), (401, false, "expired"));
}

#[test]
fn nothing_secret_is_printed() {
    let server = server();
    let answer = answer(&challenge(&server, 1), Qop::Auth, 1, b"");
    let verified = check(&server, answer.header(), b"", START).expect("authenticated");
    let memory = NonceMemory::Shared(Secret::new(vec![1; 32]));
    let printed = format!("{server:?} {verified:?} {memory:?} {:?}", node(1));
    assert!(!printed.contains("[1, 1") && !printed.contains("165"), "{printed}");
}

#[test]
fn every_reason_has_a_label_of_its_own() {
    let mut labels: Vec<_> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
    labels.sort_unstable();
    labels.dedup();
    assert_eq!(labels.len(), Reason::ALL.len());
}

proptest! {
    #[test]
    fn changed_credentials_never_panic_and_never_pass(at in any::<prop::sample::Index>(), octet in any::<u8>()) {
        let server = server();
        let good = answer(&challenge(&server, 1), Qop::AuthInt, 1, b"body");
        let mut header = good.header().as_bytes().to_vec();
        let at = at.index(header.len());
        let before = header[at];
        header[at] = octet;
        fuzz::headers(&header);
        if let Ok(auth) = Authorization::parse(&header) {
            let same = Authorization::parse(good.header().as_bytes()) == Ok(auth.clone());
            let passed = server.check(&auth, &REQUEST, b"body", Some(&MRK), START).is_ok();
            prop_assert!(same || !passed, "{before} -> {octet} at {at}");
        }
    }

    #[test]
    fn noise_never_panics(noise in "(Digest|[ ,=\"\\\\]|nc|qop|username\\*?|UTF-8''|%[0-9a-f]{1,2}|auth|[a-z0-9]{1,8}|é){0,40}") {
        fuzz::headers(noise.as_bytes());
        fuzz::headers(format!("Digest {noise}").as_bytes());
    }

    #[test]
    fn any_value_survives_quoting(value in "[ -~]{0,40}") {
        let server = server();
        let challenge = challenge(&server, 1);
        let outgoing = Outgoing { method: "POST", uri: &value, body: b"" };
        let sent = client::answer(&challenge, outgoing, (&user(), b"x"), Qop::Auth, &value, 1);
        let auth = Authorization::parse(sent.header().as_bytes()).expect("credentials");
        prop_assert_eq!((&*auth.uri, &*auth.cnonce), (&*value, &*value));
    }
}

#[test]
fn the_fuzzing_corpus_is_replayed() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/digest");
    let mut replayed = 0;
    for entry in fs::read_dir(&dir).expect("the corpus is in the repository") {
        let path = entry.expect("an entry").path();
        fuzz::headers(&fs::read(&path).expect("a corpus file"));
        replayed += 1;
    }
    assert!(replayed >= 15, "only {replayed} files in {}", dir.display());
}
