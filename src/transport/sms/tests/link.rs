//! Binding, keeping and leaving a link.

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

use super::super::SmsSettings;
use super::super::pdu::{CommandId, Pdu};
use super::centre::{Centre, Rig, id, settings, soon, tag};
use crate::config::{BindMode, Settings};
use crate::engine::{SmsEvent, SmsOutbox};

#[tokio::test]
async fn it_binds_as_a_transceiver_and_unbinds_at_the_shutdown() {
    let centre = Centre::new().await;
    let rig = Rig::start(settings(&[centre.smsc()]));
    assert_eq!(rig.metric("ltkmd_smsc_up"), 0);
    let mut session = centre.accept().await;
    let bind = session.accept_bind(CommandId::BindTransceiver).await;
    let Some(Pdu::BindTransceiver(bind)) = bind.body else { panic!("{bind:?}") };
    assert_eq!((bind.system_id.as_str(), bind.password.as_str()), ("ltkmd", "hunter2"));
    assert_eq!(u8::from(bind.interface_version), 0x34);
    assert_eq!(soon(rig.gateway.room()).await, 3);
    assert_eq!(rig.metric("ltkmd_smsc_up"), 1);
    let metrics = Arc::clone(&rig.metrics);
    assert_eq!(rig.stop(session).await, []);
    assert!(metrics.encode().contains("ltkmd_smsc_up 0"));
}

#[tokio::test]
async fn a_pair_is_up_when_both_connections_are_bound_and_submits_by_the_transmitter() {
    let centre = Centre::new().await;
    let pair = SmsSettings { bind: BindMode::TransmitterReceiver, ..settings(&[centre.smsc()]) };
    let mut rig = Rig::start(pair);
    let mut transmitting = centre.accept().await;
    transmitting.accept_bind(CommandId::BindTransmitter).await;
    let mut receiving = centre.accept().await;
    let bind = receiving.expect(CommandId::BindReceiver).await;
    assert_eq!(rig.metric("ltkmd_smsc_up"), 0, "one is not enough");
    receiving.answer_bind(&bind, 0).await;
    rig.submit(1).await;
    let (sequence, _) = transmitting.submission().await;
    transmitting.answer(sequence, 0, "m1").await;
    assert_eq!(rig.event().await, SmsEvent::Accepted { tag: tag(1), ids: vec![id("m1")] });
    receiving.quiet().await;
    transmitting.quiet().await;

    rig.submit(2).await;
    transmitting.submission().await;
    drop(receiving);
    assert_eq!(rig.event().await, SmsEvent::Unsent { tag: tag(2) }, "the loss of one is the loss of both");
    assert!(transmitting.read().await.is_none());
    let mut transmitting = centre.accept().await;
    transmitting.accept_bind(CommandId::BindTransmitter).await;
    let mut receiving = centre.accept().await;
    receiving.accept_bind(CommandId::BindReceiver).await;
    rig.submit(3).await;
    let (sequence, _) = transmitting.submission().await;
    transmitting.answer(sequence, 0, "m3").await;
    assert!(matches!(rig.event().await, SmsEvent::Accepted { .. }));
    rig.shutdown.send_replace(true);
    tokio::join!(transmitting.unbound(), receiving.unbound());
    assert_eq!(rig.ended().await, []);
}

#[tokio::test]
async fn the_first_centre_that_binds_is_taken_and_after_a_loss_the_first_is_asked_again() {
    let (first, second, third) = (Centre::new().await, Centre::new().await, Centre::new().await);
    let nobody = Centre::new().await.smsc();
    let rig = Rig::start(settings(&[nobody, first.smsc(), second.smsc(), third.smsc()]));
    let mut refused = first.accept().await;
    let bind = refused.expect(CommandId::BindTransceiver).await;
    refused.answer_bind(&bind, 0x0D).await;
    let session = second.bound().await;
    soon(rig.gateway.room()).await;
    assert_eq!(rig.metric("ltkmd_smsc_faults_total{reason=\"connect\"}"), 1);
    assert_eq!(rig.metric("ltkmd_smsc_faults_total{reason=\"refused\"}"), 1);
    drop(session);
    let session = first.bound().await;
    soon(rig.gateway.room()).await;
    assert_eq!(rig.metric("ltkmd_smsc_faults_total{reason=\"closed\"}"), 1);
    assert_eq!(rig.stop(session).await, []);
}

/// What was logged, for a while.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, octets: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(octets);
        Ok(octets.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Log {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

#[tokio::test]
async fn a_refused_bind_is_told_with_what_to_do_and_tried_again_and_no_level_shows_the_password() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let centre = Centre::new().await;
    let rig = Rig::start(settings(&[centre.smsc()]));
    for _ in 0..3 {
        let mut session = centre.accept().await;
        let bind = session.expect(CommandId::BindTransceiver).await;
        session.answer_bind(&bind, 0x0E).await;
        assert!(session.read().await.is_none());
        assert_eq!(rig.metric("ltkmd_smsc_up"), 0);
    }
    let mut session = centre.accept().await;
    assert!(log.text().lines().any(|l| {
        l.contains("ERROR")
            && l.contains(&format!("smsc={}", centre.smsc()))
            && l.contains("refuses the bind with ESME_RINVPASWD (0x0000000E)")
            && l.contains("check sms.system_id and sms.sms_password_file")
    }));
    session.accept_bind(CommandId::BindTransceiver).await;
    soon(rig.gateway.room()).await;
    rig.stop(session).await;
    assert!(!log.text().contains("hunter2"), "{}", log.text());
    assert!(!format!("{:?}", settings(&[])).contains("hunter2"));
}

#[tokio::test]
async fn a_centre_that_never_answers_the_bind_is_left() {
    let centre = Centre::new().await;
    let rig =
        Rig::start(SmsSettings { response_timeout: Duration::from_millis(50), ..settings(&[centre.smsc()]) });
    let mut silent = centre.accept().await;
    silent.expect(CommandId::BindTransceiver).await;
    assert!(silent.read().await.is_none(), "it hangs up");
    let again = centre.accept().await;
    assert!(rig.metric("ltkmd_smsc_faults_total{reason=\"timeout\"}") >= 1);
    rig.shutdown.send_replace(true);
    assert_eq!(rig.ended().await, [], "a bind under way does not hold the end up");
    drop(again);
}

#[tokio::test]
async fn a_silent_centre_is_asked_and_left_when_it_stays_silent() {
    let centre = Centre::new().await;
    let mut rig = Rig::start(SmsSettings {
        enquire_link: Duration::from_millis(20),
        response_timeout: Duration::from_millis(200),
        ..settings(&[centre.smsc()])
    });
    let mut session = centre.bound().await;
    for _ in 0..3 {
        let asked = session.expect(CommandId::EnquireLink).await;
        session.write(0, asked.sequence, Pdu::EnquireLinkResp).await;
    }
    let asked = session.expect(CommandId::EnquireLink).await;
    // A centre that does not know the request is there all the same.
    session.write(0x03, asked.sequence, Pdu::GenericNack).await;
    session.expect(CommandId::EnquireLink).await;
    rig.submit(1).await;
    session.submission().await;
    assert!(session.read().await.is_none(), "it hangs up");
    assert_eq!(rig.event().await, SmsEvent::Unsent { tag: tag(1) });
    assert_eq!(rig.metric("ltkmd_smsc_faults_total{reason=\"timeout\"}"), 1);
    let session = centre.bound().await;
    drop(session);
}

#[tokio::test]
async fn a_centre_that_unbinds_is_answered_and_bound_to_again() {
    let centre = Centre::new().await;
    let rig = Rig::start(settings(&[centre.smsc()]));
    let mut session = centre.bound().await;
    soon(rig.gateway.room()).await;
    let sequence = session.ask(Pdu::Unbind).await;
    assert_eq!(session.expect(CommandId::UnbindResp).await.sequence, sequence);
    assert!(session.read().await.is_none());
    let session = centre.bound().await;
    soon(rig.gateway.room()).await;
    assert_eq!(rig.metric("ltkmd_smsc_faults_total{reason=\"unbound\"}"), 1);
    rig.stop(session).await;
}

#[tokio::test]
async fn other_settings_drain_the_link_and_bind_anew_and_the_same_ones_change_nothing() {
    let centre = Centre::new().await;
    let old = settings(&[centre.smsc()]);
    let mut rig = Rig::start(old.clone());
    let mut session = centre.bound().await;
    rig.submit(1).await;
    let (sequence, _) = session.submission().await;
    rig.gateway.reload(old.clone());
    session.quiet().await;
    rig.gateway.reload(SmsSettings { system_id: "other".parse().unwrap(), ..old });
    session.answer(sequence, 0, "m1").await;
    assert_eq!(rig.event().await, SmsEvent::Accepted { tag: tag(1), ids: vec![id("m1")] });
    session.unbound().await;
    let mut session = centre.accept().await;
    let bind = session.accept_bind(CommandId::BindTransceiver).await;
    let Some(Pdu::BindTransceiver(bind)) = bind.body else { panic!("{bind:?}") };
    assert_eq!(bind.system_id.as_str(), "other");
    rig.submit(2).await;
    let (sequence, _) = session.submission().await;
    session.answer(sequence, 0, "m2").await;
    assert!(matches!(rig.event().await, SmsEvent::Accepted { .. }));
    rig.stop(session).await;
}

#[tokio::test]
async fn other_settings_end_the_wait_for_a_centre_that_is_not_there() {
    let centre = Centre::new().await;
    let nobody = Centre::new().await.smsc();
    let hour = Duration::from_secs(3600);
    let rig = Rig::start(SmsSettings { reconnect: (hour, hour), ..settings(&[nobody]) });
    rig.gateway.reload(settings(&[centre.smsc()]));
    let session = centre.bound().await;
    soon(rig.gateway.room()).await;
    rig.stop(session).await;
}

fn acceptor() -> (TlsAcceptor, String) {
    let pair = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let key = PrivateKeyDer::Pkcs8(pair.signing_key.serialize_der().into());
    let server = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![pair.cert.der().clone()], key)
        .unwrap();
    (TlsAcceptor::from(Arc::new(server)), pair.cert.pem())
}

/// Settings that trust these authorities, by way of the configuration.
fn trusting(centre: &Centre, pem: &str) -> SmsSettings {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("ca.pem");
    std::fs::write(&file, pem).unwrap();
    let text = format!(
        "node.fqdn = \"bmsc.example.com\"\nstore.url = \"file:{dir}/store\"\nadmin.listen = \"unix:{dir}/a\"\n\
         sms.smsc = \"{}\"\nsms.tls_ca = \"{}\"\n",
        centre.smsc(),
        file.display(),
        dir = dir.path().display()
    );
    let config = Settings::from_toml_str(&text, "test").unwrap();
    let made = SmsSettings::new(&config.sms.unwrap(), config.udp.port);
    let fast = settings(&[]);
    SmsSettings { reconnect: fast.reconnect, drain: fast.drain, ..made }
}

#[tokio::test]
async fn smpps_is_smpp_over_tls_with_a_trusted_certificate() {
    let (acceptor, pem) = acceptor();
    let centre = Centre::new().await.with_tls(acceptor);
    let mut rig = Rig::start(trusting(&centre, &pem));
    let mut session = centre.bound().await;
    for t in 1..=3 {
        rig.submit(t).await;
        let (sequence, _) = session.submission().await;
        session.answer(sequence, 0, "m").await;
        assert_eq!(rig.event().await, SmsEvent::Accepted { tag: tag(t), ids: vec![id("m")] });
    }
    rig.stop(session).await;
}

#[tokio::test]
async fn a_certificate_that_nobody_trusts_ends_before_the_bind() {
    let centre = Centre::new().await.with_tls(acceptor().0);
    let rig = Rig::start(trusting(&centre, &acceptor().1));
    assert!(centre.try_accept().await.is_err());
    assert!(centre.try_accept().await.is_err(), "it is tried again");
    assert!(rig.metric("ltkmd_smsc_faults_total{reason=\"tls\"}") >= 1);
    rig.shutdown.send_replace(true);
    rig.ended().await;
}
