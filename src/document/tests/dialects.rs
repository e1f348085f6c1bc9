//! What is out there and must be read (LTKM profile §2.1), the examples of OMA BCAST first.

use data_encoding::BASE64;

use super::*;
use crate::id::Method;

/// The change request's example of a registration request, spacing as published.
const BCAST_REGISTRATION: &str = r#"<?xml version="1.0" encoding="UTF-8"?>

   <mbmsSecurityRegister

      xmlns="urn:3GPP:metadata:2005:MBMS:securityRegistration" 

      xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"

      xmlns:bcast="urn:oma:xml:bcast:pr:orderqueries:1.0">

        <serviceID>

           urn:3gpp:mbms:example:service:identification:123456789abcdef

        </serviceID>

        <serviceID>

           urn:3gpp:mbms:example:service:identification:fedcba987654321
        </serviceID>

        <bcast:RegistrationRequestExtension>
           <LTKMDelivery>

              <Type>0</Type>  <!-- UDP  -->
              <Type>2</Type>  <!-- HTTP -->
           </LTKMDelivery> 

        </bcast:RegistrationRequestExtension>
    </mbmsSecurityRegister>
"#;

/// The change request's example of an MSK answer, with a message where it has dots and its end tags repaired.
const BCAST_MSK_RESPONSE: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<mbmsMSKResponse
   xmlns="urn:3GPP:metadata:2005:MBMS:mskResponse"
   xmlns:bcast="urn:oma:xml:bcast:pr:orderqueries:1.0"
   xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"
   xsi:schemaLocation="urn:3GPP:metadata:2005:MBMS:mskResponse">
   <Response>
      <MSK>
         <keyDomainID>uHCd</keyDomainID>
         <MSKID>aMkAAA==</MSKID>
      </MSK>
      <ResponseCode>200 OK</ResponseCode>
      <bcast:LTKMResponseResponseExtension>
         <LTKM>AQAV</LTKM>
      </bcast:LTKMResponseResponseExtension>
   </Response>
   <Response>
      <MSK>
         <keyDomainID>uHCd</keyDomainID>
         <MSKID>JMtEAA==</MSKID>
      </MSK>
      <ResponseCode>404 Not Found</ResponseCode>
   </Response>
</mbmsMSKResponse>"#;

/// The change request's example of a registration answer, with a message where it has dots.
const BCAST_REGISTRATION_RESPONSE: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<mbmsSecurityRegisterResponse
   xmlns="urn:3GPP:metadata:2005:MBMS:securityRegistrationResponse"
   xmlns:bcast="urn:oma:xml:bcast:pr:orderqueries:1.0"
   xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">
   <Response>
      <serviceID>
         urn:3gpp:mbms:example:service:identification:123456789abcdef
      </serviceID>
      <ResponseCode>200 OK</ResponseCode>
      <bcast:RegistrationResponseResponseExtension>
         <LTKM>AQAV</LTKM>
         <LTKM>AQAW</LTKM>
      </bcast:RegistrationResponseResponseExtension>
   </Response>
   <Response>
      <serviceID>
         urn:3gpp:mbms:example:service:identification:fedcba987654321
      </serviceID>
      <ResponseCode>403 Forbidden</ResponseCode> <!-- service not allowed -->
   </Response>
   <bcast:RegistrationResponseExtension>
      <LTKMDelivery>
         <Type>2</Type> <!-- only HTTP will be used -->
      </LTKMDelivery>
   </bcast:RegistrationResponseExtension>
</mbmsSecurityRegisterResponse>"#;

#[test]
fn the_published_registration_is_read() {
    let request = read(BCAST_REGISTRATION).expect("a registration");
    let ids: Vec<_> = request.services.iter().map(ServiceId::as_str).collect();
    assert_eq!(
        ids,
        [
            "urn:3gpp:mbms:example:service:identification:123456789abcdef",
            "urn:3gpp:mbms:example:service:identification:fedcba987654321"
        ]
    );
    assert_eq!(request.ltkm_delivery, Some(vec![0, 2]));
}

#[test]
fn the_published_answers_are_read() {
    let (answer, _) = RegistrationResponse::read(BCAST_REGISTRATION_RESPONSE.as_bytes(), &Limits::default())
        .expect("an answer");
    assert_eq!(answer.ltkm_delivery, Some(vec![Method::Http]));
    assert_eq!(answer.items[0].ltkms(), [vec![1, 0, 0x15], vec![1, 0, 0x16]]);
    assert_eq!(answer.items[1].code(), ResponseCode::FORBIDDEN);

    let (answer, _) =
        MskResponse::read(BCAST_MSK_RESPONSE.as_bytes(), &Limits::default()).expect("an answer");
    let expected = vec![
        ResponseItem::ok(msk_item([0xB8, 0x70, 0x9D], [0x68, 0xC9, 0, 0]), vec![vec![1, 0, 0x15]]),
        ResponseItem::new(msk_item([0xB8, 0x70, 0x9D], [0x24, 0xCB, 0x44, 0]), ResponseCode::NOT_FOUND),
    ];
    assert_eq!(answer.items, expected);
}

#[test]
fn any_case_of_the_stem_and_any_of_the_last_parts_is_read() {
    for namespace in [
        "urn:3GPP:metadata:2005:MBMS:securityRegistrationRequest",
        "urn:3gpp:metadata:2005:mbms:securityRegistration",
        "URN:3GPP:METADATA:2005:MBMS:securityRegistration",
        "urn:3GPP:metadata:2005:MBMS:mskRequest",
        "urn:3GPP:metadata:2005:MBMS:securityDeregistration",
        "urn:3GPP:metadata:2005:MBMS:securityRegistrationResponse",
        "urn&#58;3GPP:metadata:2005:MBMS&#x3a;securityRegistration",
    ] {
        let body = format!(
            "<mbmsSecurityRegister xmlns='{namespace}'><serviceID>a</serviceID></mbmsSecurityRegister>"
        );
        assert_eq!(read(&body).map(|r| r.services), Ok(vec![service("a")]), "{namespace}");
    }
}

#[test]
fn prefixes_mean_nothing_and_namespaces_everything() {
    let body = format!(
        "<bcast:mbmsSecurityRegister xmlns:bcast='{REG}'><bcast:serviceID>a</bcast:serviceID>\
         <x:RegistrationRequestExtension xmlns:x='{BCAST}'><x:LTKMDelivery><x:Type>1</x:Type></x:LTKMDelivery>\
         </x:RegistrationRequestExtension></bcast:mbmsSecurityRegister>"
    );
    let request = read(&body).expect("a registration");
    assert_eq!(request, RegistrationRequest { services: vec![service("a")], ltkm_delivery: Some(vec![1]) });
}

#[test]
fn children_of_a_container_are_read_in_its_namespace_in_the_default_one_and_in_none() {
    for (delivery, kind) in [
        ("<bcast:LTKMDelivery><bcast:Type>2</bcast:Type></bcast:LTKMDelivery>", "the container's"),
        ("<LTKMDelivery><Type>2</Type></LTKMDelivery>", "the default"),
        ("<LTKMDelivery xmlns=''><Type>2</Type></LTKMDelivery>", "none"),
        ("<bcast:LTKMDelivery><Type>2</Type></bcast:LTKMDelivery>", "mixed"),
        ("<LTKMDelivery><bcast:Type>2</bcast:Type></LTKMDelivery>", "mixed the other way"),
    ] {
        let body = registration(&format!(
            "<serviceID>a</serviceID><bcast:RegistrationRequestExtension version='0'>{delivery}</bcast:RegistrationRequestExtension>"
        ));
        assert_eq!(read(&body).map(|r| r.ltkm_delivery), Ok(Some(vec![2])), "{kind}");
    }
}

#[test]
fn the_default_namespace_of_a_prefixed_root_is_the_documents_too() {
    let body = format!(
        "<m:mbmsSecurityRegister xmlns:m='{REG}' xmlns='urn:x' xmlns:b='{BCAST}'><m:serviceID>a</m:serviceID>\
         <b:RegistrationRequestExtension><LTKMDelivery><Type>2</Type></LTKMDelivery></b:RegistrationRequestExtension>\
         </m:mbmsSecurityRegister>"
    );
    assert_eq!(read(&body).map(|r| r.ltkm_delivery), Ok(Some(vec![2])));
}

#[test]
fn a_child_of_a_container_in_a_foreign_namespace_is_not_the_one_meant() {
    let body = registration(
        "<serviceID>a</serviceID><bcast:RegistrationRequestExtension>\
         <LTKMDelivery xmlns='urn:foreign'><Type>2</Type></LTKMDelivery></bcast:RegistrationRequestExtension>",
    );
    assert_eq!(read(&body).map(|r| r.ltkm_delivery), Ok(None));
}

#[test]
fn what_nobody_knows_is_skipped() {
    let body = registration(
        "<x:a xmlns:x='urn:x'>text<x:serviceID>not this</x:serviceID><b c='d'/></x:a>\
         <serviceID>a</serviceID>\
         <bcast:SubscriptionWindow>later</bcast:SubscriptionWindow>\
         <bcast:RegistrationRequestExtension version='7' x='y'>\
           <future><LTKMDelivery><Type>9</Type></LTKMDelivery></future>\
           <bcast:LTKMDelivery><bcast:Future>1</bcast:Future><bcast:Type>200</bcast:Type><bcast:Type>2</bcast:Type></bcast:LTKMDelivery>\
           <bcast:Other/>\
         </bcast:RegistrationRequestExtension>",
    );
    let expected = RegistrationRequest { services: vec![service("a")], ltkm_delivery: Some(vec![200, 2]) };
    assert_eq!(read(&body), Ok(expected));
}

#[test]
fn an_absent_delivery_is_told_from_a_declared_one() {
    for content in [
        "",
        "<bcast:RegistrationRequestExtension/>",
        "<bcast:RegistrationRequestExtension></bcast:RegistrationRequestExtension>",
    ] {
        let body = registration(&format!("<serviceID>a</serviceID>{content}"));
        assert_eq!(read(&body).map(|r| r.ltkm_delivery), Ok(None), "{content}");
    }
}

#[test]
fn a_value_may_be_cut_by_comments_references_and_cdata() {
    let body = registration("<serviceID> a&amp;b<!-- c --><![CDATA[<&]]><?pi d?>&#x65;&#10;</serviceID>");
    assert_eq!(read(&body).map(|r| r.services), Ok(vec![service("a&b<&e")]));
}

#[test]
fn base64_of_the_document_is_read_as_the_document_and_told() {
    let plain = registration("<serviceID>a</serviceID>");
    let lines: String = BASE64
        .encode(plain.as_bytes())
        .as_bytes()
        .chunks(64)
        .map(|l| format!("{}\r\n", String::from_utf8_lossy(l)))
        .collect();
    let (request, form) =
        RegistrationRequest::read(lines.as_bytes(), &Limits::default()).expect("a registration");
    assert_eq!((request.services, form), (vec![service("a")], BodyForm::Base64));
    let (_, form) = RegistrationRequest::read(plain.as_bytes(), &Limits::default()).expect("a registration");
    assert_eq!(form, BodyForm::Plain);
}

#[test]
fn a_byte_order_mark_and_what_may_stand_around_the_root_are_fine() {
    let body = format!(
        "\u{FEFF}<?xml version='1.0' encoding='utf-8' standalone='yes' ?><!-- before -->\n<?style x?>\n{}\n<!-- after --><?pi?>\n",
        registration("<serviceID>a</serviceID>")
    );
    assert_eq!(read(&body).map(|r| r.services), Ok(vec![service("a")]));
    assert!(read(format!("\n {}", registration("<serviceID>a</serviceID>"))).is_ok());
}

#[test]
fn repeated_services_stay_repeated() {
    let body = registration("<serviceID>a</serviceID><serviceID>b</serviceID><serviceID>a</serviceID>");
    assert_eq!(read(&body).map(|r| r.services), Ok(vec![service("a"), service("b"), service("a")]));
}

#[test]
fn both_roots_of_an_msk_request_are_read_and_its_children_in_any_order() {
    let expected = vec![msk_item([0xB8, 0x70, 0x9D], [0x68, 0xC9, 0, 0])];
    for root in ["mbmsMSK", "mbmsMSKRequest"] {
        let body = format!(
            "<{root} xmlns='urn:3GPP:metadata:2005:MBMS:mskRequest'><MSK><MSKID> aMkA\nAA== </MSKID>\
             <x xmlns='urn:x'/><keyDomainID>uHCd</keyDomainID></MSK></{root}>"
        );
        let (request, _) = MskRequest::read(body.as_bytes(), &Limits::default()).expect("an MSK request");
        assert_eq!(request.items, expected, "{root}");
    }
}

#[test]
fn thirty_two_elements_inside_each_other_are_the_most() {
    let nested = |n: usize| {
        let (open, close): (String, String) = ("<d>".repeat(n), "</d>".repeat(n));
        registration(&format!("<serviceID>a</serviceID><x xmlns='urn:x'>{open}{close}</x>"))
    };
    assert!(read(nested(30)).is_ok());
    assert_eq!(read(nested(31)).map_err(|e| e.fault), Err(Fault::TooDeep(32)));
}

#[test]
fn max_items_are_read_and_one_more_is_not() {
    let services = |n: usize| registration(&"<serviceID>a</serviceID>".repeat(n));
    assert_eq!(read(services(256)).map(|r| r.services.len()), Ok(256));
    assert_eq!(read(services(257)).map_err(|e| e.fault), Err(Fault::TooManyItems(256)));
    let msk = "<MSK><keyDomainID>uHCd</keyDomainID><MSKID>aMkAAA==</MSKID></MSK>";
    assert_eq!(msk_request(&msk.repeat(256)).map(|r| r.items.len()), Ok(256));
    assert_eq!(msk_request(&msk.repeat(257)).map_err(|e| e.fault), Err(Fault::TooManyItems(256)));
}
