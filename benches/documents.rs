//! What a request costs before and after the store: its digest checked, its document read, its answer written.

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use ltkmd::digest::{
    Algorithm, Authenticator, Authorization, DigestConfig, NonceMemory, Qop, RequestLine, client, password,
};
use ltkmd::document::{Limits, RegistrationRequest, RegistrationResponse, ResponseItem, Style};
use ltkmd::id::{BTid, Method, ServiceId};
use ltkmd::secret::Secret;
use ltkmd::time::Timestamp;

const NOW: Timestamp = Timestamp(1_795_000_000_000);
const TARGET: &str = "/keymanagement?requesttype=register";

fn request() -> RegistrationRequest {
    let service = |n: u8| ServiceId::new(&format!("urn:3gpp:mbms:example:service:identification:{n:015x}"));
    let services = [1, 2].map(|n| service(n).expect("a service id")).to_vec();
    RegistrationRequest { services, ltkm_delivery: Some(vec![0, 2]) }
}

fn documents(c: &mut Criterion) {
    let request = request();
    let body = request.write(Style::default());
    c.bench_function("read a registration of 2 services", |b| {
        b.iter(|| RegistrationRequest::read(black_box(&body), &Limits::default()));
    });
    let answer = RegistrationResponse {
        items: request.services.into_iter().map(|s| ResponseItem::ok(s, vec![vec![7; 240]])).collect(),
        ltkm_delivery: Some(vec![Method::Http]),
    };
    c.bench_function("write its answer with 2 LTKMs", |b| {
        b.iter(|| black_box(&answer).write(Style::default()))
    });
}

fn digest(c: &mut Criterion) {
    let config = DigestConfig {
        fqdn: "bmsc.example.com".to_owned(),
        algorithms: vec![Algorithm::Sha256],
        nonce_lifetime: Duration::from_secs(300),
        max_nonces: 1 << 16,
    };
    let server = Authenticator::new(config, NonceMemory::Process(Secret::new(vec![1; 32])));
    let mrk = [9; 32];
    let user = BTid::new("cmFuZG9tcmFuZG9tcmFuZA==@bsf.example.com").expect("a B-TID");
    let body = request().write(Style::default());
    let lines = server.challenges(NOW, [1; 16], false);
    let challenge = client::Challenge::strongest(lines.iter().map(String::as_bytes)).expect("a challenge");
    let line = RequestLine { method: "POST", target: TARGET, host: None };
    let outgoing = client::Outgoing { method: "POST", uri: TARGET, body: &body };
    for qop in [Qop::Auth, Qop::AuthInt] {
        let sent = client::answer(&challenge, outgoing, (&user, &password(&mrk)), qop, "0a4f113b0a4f113b", 1);
        // Only the first is welcome; the others go all the way to the counts and are replays.
        c.bench_function(&format!("check a SHA-256 digest, {}", qop.as_str()), |b| {
            b.iter(|| {
                let auth = Authorization::parse(black_box(sent.header().as_bytes())).expect("credentials");
                server.check(&auth, &line, &body, Some(&mrk), NOW).map(drop)
            });
        });
    }
    c.bench_function("make a challenge", |b| b.iter(|| server.challenges(NOW, black_box([2; 16]), false)));
}

criterion_group!(benches, documents, digest);
criterion_main!(benches);
