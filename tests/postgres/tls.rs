//! TLS: who vouches for a server, and what is said when nobody does.

use std::path::Path;

use ltkmd::store::StoreError;
use ltkmd::store::postgres::Pool;

use crate::connect::{assert_open, pool, refused, show};
use crate::server::{BY_PASSWORD, Options, Postgres, shared};

const ENCRYPTED: &str = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";

fn url(server: &Postgres, host: &str, parameters: &str) -> String {
    format!("postgres://keeper@{host}:{}/postgres?{parameters}", server.port())
}

fn verified(server: &Postgres, host: &str, authority: &Path) -> String {
    url(server, host, &format!("sslrootcert={}", authority.display()))
}

fn start() -> Postgres {
    let server = Postgres::start_with(&Options {
        tls: true,
        hba: "hostnossl all keeper 127.0.0.1/32 reject".to_owned(),
        ..Options::default()
    });
    server.sql(&format!("CREATE ROLE keeper LOGIN PASSWORD 'hunter2' IN ROLE {BY_PASSWORD}"));
    server
}

#[tokio::test]
async fn a_server_is_taken_whose_certificate_comes_from_the_authority_and_names_the_host() {
    let (server, other) = (start(), start());
    // SCRAM binds to the certificate: a wrong hash of it would be refused.
    let client = pool(&verified(&server, "localhost", &server.authority())).get().await.unwrap();
    assert_eq!(show(&client, ENCRYPTED).await, "true");

    let stranger = refused(&verified(&server, "localhost", &other.authority())).await;
    assert_open(&stranger, "comes from none of the authorities of sslrootcert");
    let misnamed = refused(&verified(&server, "127.0.0.1", &server.authority())).await;
    assert_open(&misnamed, "is not for this host name");
}

#[tokio::test]
async fn without_an_authority_tls_is_taken_when_that_is_asked_for() {
    let server = start();
    let client = pool(&url(&server, "127.0.0.1", "sslmode=require")).get().await.unwrap();
    assert_eq!(show(&client, ENCRYPTED).await, "true");
    assert_open(&refused(&url(&server, "127.0.0.1", "sslmode=disable")).await, "refuses the user");
    let plain = shared();
    let error = refused(&url(plain, "127.0.0.1", "sslmode=require")).await;
    assert_open(&error, "has no TLS, which store.url asks for");
}

#[tokio::test]
async fn a_file_of_authorities_that_is_of_no_use_is_told_before_anybody_is_connected_to() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("ca.pem");
    let made =
        || Pool::new(format!("postgres://db1/d?sslrootcert={}", file.display()).parse().unwrap(), None, 2);
    let told = |told: &str| match made() {
        Err(StoreError::Open(text)) => assert!(text.contains(told), "{text}"),
        other => panic!("{other:?}"),
    };
    told("cannot be read");
    std::fs::write(&file, "nothing").unwrap();
    told("holds no certificate");
    std::fs::write(&file, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
    told("holds an unusable certificate");
}
