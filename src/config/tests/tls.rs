//! The certificate and key of the terminal-facing listener, and the authorities of short message centres.

use super::super::tls::SYSTEM_AUTHORITIES;
use super::{BASE, Sandbox, assert_lines};

fn sandbox() -> Sandbox {
    let sandbox = Sandbox::new();
    for name in ["a", "b"] {
        let pair = rcgen::generate_simple_self_signed([format!("{name}.example")]).unwrap();
        sandbox.write(&format!("{name}.crt"), pair.cert.pem());
        sandbox.write(&format!("{name}.key"), pair.signing_key.serialize_pem());
    }
    sandbox.write("text", "no PEM at all\n");
    sandbox
}

fn text(certificate: &str, key: &str) -> String {
    format!("{BASE}[http.tls]\ncertificate = \"DIR/{certificate}\"\nkey = \"DIR/{key}\"\n")
}

#[test]
fn a_certificate_with_its_key_makes_a_server() {
    let tls = sandbox().load(&text("a.crt", "a.key")).unwrap().http.tls.unwrap();
    assert_eq!(tls.server.alpn_protocols, [b"http/1.1"]);
}

#[test]
fn the_first_end_of_the_chain_is_known_and_one_that_is_past_is_warned_of() {
    let sandbox = sandbox();
    let key = rcgen::KeyPair::generate().unwrap();
    let until = |year| {
        let mut parameters = rcgen::CertificateParams::new(["c.example".to_owned()]).unwrap();
        parameters.not_after = rcgen::date_time_ymd(year, 6, 1);
        parameters.self_signed(&key).unwrap().pem()
    };
    sandbox.write("c.key", key.serialize_pem());
    sandbox.write("chain.crt", until(2060) + &until(2055) + &until(2070));
    let settings = sandbox.load(&text("chain.crt", "c.key")).unwrap();
    let expires = settings.http.tls.unwrap().expires.unwrap();
    assert_eq!(expires.to_string(), "2055-06-01T00:00:00Z");
    assert!(!settings.warnings.iter().any(|w| w.key == "http.tls.certificate"));

    sandbox.write("past.crt", until(2020));
    let settings = sandbox.load(&text("past.crt", "c.key")).unwrap();
    let told = settings.warnings.iter().find(|w| w.key == "http.tls.certificate").unwrap();
    assert!(told.what.contains("ended on 2020-06-01T00:00:00Z"), "{}", told.what);
}

#[test]
fn files_that_do_not_belong_together_or_hold_something_else_are_faults() {
    let sandbox = sandbox();
    let faults = |certificate, key| sandbox.faults(&text(certificate, key));
    assert_lines(&faults("a.crt", "b.key"), &["a.toml:9: http.tls.key: is not the key of the certificate"]);
    assert_lines(
        &faults("none", "none"),
        &[
            "a.toml:8: http.tls.certificate: none cannot be read",
            "a.toml:9: http.tls.key: none cannot be read",
        ],
    );
    assert_lines(
        &faults("text", "text"),
        &[
            "a.toml:8: http.tls.certificate: text holds no certificate",
            "a.toml:9: http.tls.key: text holds no private key",
        ],
    );
    assert_lines(
        &faults("a.key", "a.crt"),
        &[
            "a.toml:8: http.tls.certificate: a.key holds no certificate",
            "a.toml:9: http.tls.key: a.crt holds no private key",
        ],
    );
    sandbox.write("junk.crt", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    assert_lines(
        &faults("junk.crt", "a.key"),
        &["a.toml:8: http.tls.certificate: the file holds no usable certificate"],
    );
    sandbox.write("junk.key", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n");
    assert_lines(
        &faults("a.crt", "junk.key"),
        &["a.toml:9: http.tls.key: junk.key holds a private key of no use here"],
    );
}

#[test]
fn one_of_the_two_alone_is_a_fault() {
    let sandbox = sandbox();
    let missing = |given: &str| sandbox.faults(&format!("{BASE}[http.tls]\n{given}\n"));
    assert_lines(&missing("certificate = \"DIR/a.crt\""), &["a.toml:7: http.tls.key: is missing"]);
    assert_lines(&missing("key = \"DIR/a.key\""), &["a.toml:7: http.tls.certificate: is missing"]);
    assert_eq!(missing("").len(), 2);
}

#[test]
fn the_authorities_of_a_centre_are_read_and_compared_by_their_certificates() {
    let sandbox = sandbox();
    let load = |given: &str| sandbox.load(&format!("{BASE}{given}\n")).unwrap().sms.unwrap();
    assert!(load("").authorities.is_none(), "nobody needs them");
    let a = load("sms.tls_ca = \"DIR/a.crt\"").authorities.unwrap();
    let b = load("sms.tls_ca = \"DIR/b.crt\"").authorities.unwrap();
    assert!(a != b && a.file.ends_with("a.crt"));
    sandbox.write("c.crt", std::fs::read(sandbox.path().join("a.crt")).unwrap());
    assert!(load("sms.tls_ca = \"DIR/c.crt\"").authorities.unwrap() == a);
}

#[test]
fn authorities_that_are_none_are_faults() {
    let sandbox = sandbox();
    sandbox.write("junk.crt", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    for (file, what) in [
        ("none", "none cannot be read"),
        ("text", "text holds no certificate"),
        ("junk.crt", "junk.crt holds an unusable certificate"),
    ] {
        let faults = sandbox.faults(&format!("{BASE}sms.tls_ca = \"DIR/{file}\"\n"));
        assert_lines(&faults, &[&format!("a.toml:7: sms.tls_ca: {what}")]);
    }
}

#[test]
fn a_centre_over_tls_needs_authorities_given_ones_or_the_systems() {
    let sandbox = sandbox();
    let tls = BASE.replace("smpp://127.0.0.1:2775", "smpps://127.0.0.1:3550");
    let given = sandbox.load(&format!("{tls}sms.tls_ca = \"DIR/a.crt\"\n")).unwrap();
    assert!(given.sms.unwrap().authorities.unwrap().file.ends_with("a.crt"));
    match SYSTEM_AUTHORITIES.iter().find(|p| std::path::Path::new(p).is_file()) {
        Some(system) => {
            let authorities = sandbox.load(&tls).unwrap().sms.unwrap().authorities.unwrap();
            assert_eq!(authorities.file, std::path::Path::new(system));
        }
        None => {
            assert_lines(&sandbox.faults(&tls), &["a.toml:6: sms.tls_ca: is missing: an smpps:// centre"])
        }
    }
}
