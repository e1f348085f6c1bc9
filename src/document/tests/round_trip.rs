//! What is written is what the profile shows, and is read again as what it was; noise never panics.

use std::fs;
use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::document::fuzz;
use crate::id::Method;
use crate::procedure::Procedure;

fn text(body: &[u8]) -> &str {
    std::str::from_utf8(body).expect("UTF-8")
}

fn style(children: ContainerChildren) -> Style {
    Style { children, form: BodyForm::Plain }
}

fn registration_answer() -> RegistrationResponse {
    RegistrationResponse {
        items: vec![
            ResponseItem::ok(service("urn:a&b"), vec![vec![1, 0, 21]]),
            ResponseItem::new(service("urn:c"), ResponseCode::FORBIDDEN),
        ],
        ltkm_delivery: Some(vec![Method::Http]),
    }
}

#[test]
fn a_registration_answer_is_written_as_the_profile_shows_it() {
    let expected = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
        <mbmsSecurityRegisterResponse xmlns=\"urn:3GPP:metadata:2005:MBMS:securityRegistrationResponse\" \
        xmlns:bcast=\"urn:oma:xml:bcast:pr:orderqueries:1.0\">\
        <Response><serviceID>urn:a&amp;b</serviceID><ResponseCode>200 OK</ResponseCode>\
        <bcast:RegistrationResponseResponseExtension><bcast:LTKM>AQAV</bcast:LTKM>\
        </bcast:RegistrationResponseResponseExtension></Response>\
        <Response><serviceID>urn:c</serviceID><ResponseCode>403 Forbidden</ResponseCode></Response>\
        <bcast:RegistrationResponseExtension><bcast:LTKMDelivery><bcast:Type>2</bcast:Type></bcast:LTKMDelivery>\
        </bcast:RegistrationResponseExtension></mbmsSecurityRegisterResponse>\n";
    let answer = registration_answer();
    assert_eq!(text(&answer.write(style(ContainerChildren::Qualified))), expected);
    let bare = expected.replace("bcast:LTKM", "LTKM").replace("bcast:Type", "Type");
    assert_eq!(text(&answer.write(style(ContainerChildren::DefaultNamespace))), bare);
}

#[test]
fn a_deregistration_answer_has_its_own_container_and_no_delivery() {
    let answer = DeregistrationResponse { items: vec![ResponseItem::ok(service("a"), vec![vec![0; 3]])] };
    let body = answer.write(Style::default());
    assert!(
        text(&body).contains("<bcast:DeregistrationResponseResponseExtension><bcast:LTKM>AAAA</bcast:LTKM>")
    );
    assert!(!text(&body).contains("Delivery"));
    assert_eq!(DeregistrationResponse::read(&body, &Limits::default()), Ok((answer, BodyForm::Plain)));
}

#[test]
fn an_msk_answer_echoes_the_ids() {
    let answer = MskResponse {
        items: vec![ResponseItem::ok(msk_item([0xB8, 0x70, 0x9D], [0x68, 0xC9, 0, 0]), vec![vec![0; 3]])],
    };
    let body = answer.write(Style::default());
    assert!(text(&body).contains(
        "<MSK><keyDomainID>uHCd</keyDomainID><MSKID>aMkAAA==</MSKID></MSK><ResponseCode>200 OK</ResponseCode>\
         <bcast:LTKMResponseResponseExtension><bcast:LTKM>AAAA</bcast:LTKM></bcast:LTKMResponseResponseExtension>"
    ));
}

#[test]
fn containers_that_would_be_empty_are_left_out() {
    let answer =
        RegistrationResponse { items: vec![ResponseItem::ok(service("a"), vec![])], ltkm_delivery: None };
    assert!(!text(&answer.write(Style::default())).contains("bcast"));
}

#[test]
fn an_answer_takes_the_form_it_is_asked_in() {
    let answer = registration_answer();
    let body = answer.write(Style { form: BodyForm::Base64, ..Style::default() });
    let plain = data_encoding::BASE64.decode(&body).expect("base64");
    assert_eq!(plain, answer.write(Style::default()));
    assert_eq!(RegistrationResponse::read(&body, &Limits::default()), Ok((answer, BodyForm::Base64)));
}

#[test]
fn the_generic_reader_reads_each_procedure_by_its_own_root() {
    let bodies = [
        RegistrationRequest { services: vec![service("a")], ltkm_delivery: None }.write(Style::default()),
        DeregistrationRequest { services: vec![service("a")] }.write(Style::default()),
        MskRequest { items: vec![msk_item([1, 2, 3], [4, 5, 6, 7])] }.write(Style::default()),
    ];
    for (asked, procedure) in Procedure::ALL.into_iter().enumerate() {
        for (sent, body) in bodies.iter().enumerate() {
            assert_eq!(Request::read(procedure, body, &Limits::default()).is_ok(), asked == sent);
        }
    }
}

fn any_style() -> impl Strategy<Value = Style> {
    (any::<bool>(), any::<bool>()).prop_map(|(qualified, plain)| Style {
        children: if qualified { ContainerChildren::Qualified } else { ContainerChildren::DefaultNamespace },
        form: if plain { BodyForm::Plain } else { BodyForm::Base64 },
    })
}

fn any_service() -> impl Strategy<Value = ServiceId> {
    prop_oneof!["[ -~]{1,40}", "\\PC{1,20}"].prop_filter_map("no id", |text| {
        let text = value::collapse(&text).into_owned();
        if text.chars().all(xml_name::is_char) { ServiceId::new(&text).ok() } else { None }
    })
}

fn any_ltkms() -> impl Strategy<Value = Vec<Vec<u8>>> {
    prop::collection::vec(prop::collection::vec(any::<u8>(), 1..200), 0..3)
}

fn any_item<S: Clone + std::fmt::Debug + 'static>(
    subject: impl Strategy<Value = S> + 'static,
) -> impl Strategy<Value = ResponseItem<S>> {
    (subject, any_ltkms(), 200u16..600).prop_map(|(subject, ltkms, code)| match ResponseCode::new(code) {
        Some(code) if !code.is_ok() && code.number() % 2 == 0 => ResponseItem::new(subject, code),
        _ => ResponseItem::ok(subject, ltkms),
    })
}

fn any_msk() -> impl Strategy<Value = MskItem> {
    (any::<[u8; 3]>(), any::<[u8; 4]>()).prop_map(|(key_domain, msk_id)| msk_item(key_domain, msk_id))
}

proptest! {
    #[test]
    fn a_registration_survives_a_round_trip(
        services in prop::collection::vec(any_service(), 1..5),
        types in prop::option::of(prop::collection::vec(any::<u8>(), 1..5)),
        style in any_style(),
    ) {
        let request = RegistrationRequest { services, ltkm_delivery: types };
        prop_assert_eq!(RegistrationRequest::read(&request.write(style), &Limits::default()), Ok((request, style.form)));
    }

    #[test]
    fn answers_survive_a_round_trip(
        items in prop::collection::vec(any_item(any_service()), 1..4),
        msk_items in prop::collection::vec(any_item(any_msk()), 1..4),
        methods in prop::option::of(prop::sample::subsequence(Method::ALL.to_vec(), 1..=3)),
        style in any_style(),
    ) {
        let answer = RegistrationResponse { items: items.clone(), ltkm_delivery: methods };
        prop_assert_eq!(RegistrationResponse::read(&answer.write(style), &Limits::default()), Ok((answer, style.form)));
        let answer = DeregistrationResponse { items };
        prop_assert_eq!(DeregistrationResponse::read(&answer.write(style), &Limits::default()), Ok((answer, style.form)));
        let answer = MskResponse { items: msk_items };
        prop_assert_eq!(MskResponse::read(&answer.write(style), &Limits::default()), Ok((answer, style.form)));
    }

    #[test]
    fn a_mutated_document_never_panics_and_what_is_still_read_survives(
        at in any::<prop::sample::Index>(),
        cut in any::<prop::sample::Index>(),
        octet in any::<u8>(),
        piece in "[<>&;:!\\[\\]?/='\" a-cD0-2xmlns-]{0,6}",
    ) {
        let mut body = registration_answer().write(Style::default());
        let at = at.index(body.len());
        body[at] = octet;
        fuzz::documents(&body);
        body.splice(at..at, piece.bytes());
        fuzz::documents(&body);
        body.truncate(cut.index(body.len()));
        fuzz::documents(&body);
    }

    #[test]
    fn noise_of_markup_never_panics(noise in "(<|>|</|/>|<!--|-->|<!\\[CDATA\\[|\\]\\]>|<\\?|\\?>|&|;|&#x|'|\"|=|xmlns|:| |a|<!DOCTYPE|\\[|é){0,60}") {
        fuzz::documents(noise.as_bytes());
        fuzz::documents(format!("<{noise}").as_bytes());
        fuzz::documents(registration(&noise).as_bytes());
    }

    #[test]
    fn an_error_never_points_behind_the_document(noise in "\\PC{0,80}") {
        let body = registration(&noise);
        if let Err(error) = read(&body) {
            prop_assert!(error.octet <= body.len());
        }
    }
}

#[test]
fn truncated_at_any_octet_a_document_is_refused() {
    let body = registration_answer().write(Style::default());
    let end = body.len() - 1; // the newline at the end is no part of it
    for len in 0..end {
        assert!(RegistrationResponse::read(&body[..len], &Limits::default()).is_err(), "at {len}");
    }
    assert!(RegistrationResponse::read(&body[..end], &Limits::default()).is_ok());
}

#[test]
fn the_fuzzing_corpus_is_replayed() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/document");
    let mut replayed = 0;
    for entry in fs::read_dir(&dir).expect("the corpus is in the repository") {
        let path = entry.expect("an entry").path();
        fuzz::documents(&fs::read(&path).expect("a corpus file"));
        replayed += 1;
    }
    assert!(replayed >= 20, "only {replayed} files in {}", dir.display());
}
