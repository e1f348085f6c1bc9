//! What must be refused (LTKM profile §2.1): each entry for its own reason.

use super::*;

/// A fault without its details.
fn kind(fault: &Fault) -> &'static str {
    match fault {
        Fault::Empty => "empty",
        Fault::TooLarge(_) => "large",
        Fault::NotUtf8 => "utf8",
        Fault::Utf16 => "utf16",
        Fault::Encoding(_) => "encoding",
        Fault::NotXml => "not-xml",
        Fault::Dtd => "dtd",
        Fault::Entity(_) => "entity",
        Fault::IllFormed(_) => "ill-formed",
        Fault::Namespace(_) => "namespace",
        Fault::TooDeep(_) => "deep",
        Fault::TooManyAttributes(_) => "attributes",
        Fault::LongName(_) => "long-name",
        Fault::Root { .. } => "root",
        Fault::RootNamespace(_) => "root-namespace",
        Fault::Element(_) => "element",
        Fault::Text(_) => "text",
        Fault::Missing { .. } => "missing",
        Fault::Twice(_) => "twice",
        Fault::TooManyItems(_) => "items",
        Fault::ServiceId(_) => "service-id",
        Fault::Value { .. } => "value",
        Fault::LtkmBesideFailure => "ltkm",
    }
}

fn refusal<T: std::fmt::Debug>(result: Result<T, DocumentError>) -> &'static str {
    match result {
        Ok(read) => panic!("read as {read:?}"),
        Err(error) => kind(&error.fault),
    }
}

#[test]
fn hostile_prologs_and_epilogs_are_refused() {
    let good = registration("<serviceID>a</serviceID>");
    let laughs = "<!DOCTYPE l [<!ENTITY a 'ha'><!ENTITY b '&a;&a;&a;'>]>";
    for (body, why) in [
        (format!("{laughs}{good}"), "dtd"),
        (format!("<!DOCTYPE mbmsSecurityRegister>{good}"), "dtd"),
        (format!("<!doctype x>{good}"), "dtd"),
        (format!("<!DOCTYPE x SYSTEM 'file:///etc/passwd'>{good}"), "dtd"),
        (format!("<?xml version='1.0'?><!DOCTYPE x SYSTEM 'http://127.0.0.1/'>{good}"), "dtd"),
        ("<!DOCTYPE x [".to_owned(), "dtd"),
        (format!("{good}<!DOCTYPE x>"), "dtd"),
        (format!("<!ENTITY x 'y'>{good}"), "ill-formed"),
        (format!("{good}{good}"), "ill-formed"),
        (format!("{good}garbage"), "text"),
        (format!("{good}&amp;"), "ill-formed"),
        (format!("{good}<![CDATA[ ]]>"), "ill-formed"),
        (format!("{good}<"), "ill-formed"),
        (format!("{good}<x"), "ill-formed"),
        (format!("{good}</x>"), "ill-formed"),
        (format!("{good}<!--"), "ill-formed"),
        (format!("{good}<?xml version='1.0'?>"), "ill-formed"),
        (format!(" <?xml version='1.0'?>{good}"), "ill-formed"),
        (format!("<!-- c --><?xml version='1.0'?>{good}"), "ill-formed"),
        (format!("<?xml version='1.0' encoding='UTF-16'?>{good}"), "encoding"),
        (format!("<?xml version='1.0' encoding='ISO-8859-1'?>{good}"), "encoding"),
        (format!("<?xml encoding='UTF-8'?>{good}"), "ill-formed"),
        (format!("<?xml version='2.0'?>{good}"), "ill-formed"),
        (format!("<?xml version='1.0' standalone='maybe'?>{good}"), "ill-formed"),
        (format!("<?xml version='1.0' x='y'?>{good}"), "ill-formed"),
        (format!("<?xml?>{good}"), "ill-formed"),
        (format!("<?XML x?>{good}"), "ill-formed"),
        (format!("<? x?>{good}"), "ill-formed"),
        (format!("<!-- a -- b -->{good}"), "ill-formed"),
        (format!("<![CDATA[x]]>{good}"), "ill-formed"),
        (format!("{good}\0"), "ill-formed"),
        ("<?xml version='1.0'?>".to_owned(), "ill-formed"),
        ("<!-- -->".to_owned(), "ill-formed"),
        ("<".to_owned(), "ill-formed"),
        ("<>".to_owned(), "namespace"),
        ("</a>".to_owned(), "ill-formed"),
    ] {
        assert_eq!(refusal(read(&body)), why, "{body}");
    }
}

#[test]
fn ill_formed_content_is_refused() {
    for (content, why) in [
        ("<serviceID>&lol;</serviceID>", "entity"),
        ("<serviceID>&#0;</serviceID>", "ill-formed"),
        ("<serviceID>&#x1;</serviceID>", "ill-formed"),
        ("<serviceID>&#xFFFE;</serviceID>", "ill-formed"),
        ("<serviceID>a & b</serviceID>", "ill-formed"),
        ("<serviceID>a &amp b</serviceID>", "ill-formed"),
        ("<serviceID>a\u{1}</serviceID>", "ill-formed"),
        ("<serviceID>a]]>b</serviceID>", "ill-formed"),
        ("<serviceID>a</serviceid>", "ill-formed"),
        ("<serviceID>a", "ill-formed"),
        ("<serviceID>a</serviceID", "ill-formed"),
        ("<serviceID a=b>a</serviceID>", "ill-formed"),
        ("<serviceID a>a</serviceID>", "ill-formed"),
        ("<serviceID a='1' a='2'>a</serviceID>", "ill-formed"),
        ("<serviceID a='1'b='2'>a</serviceID>", "ill-formed"),
        ("<serviceID a='<'>a</serviceID>", "ill-formed"),
        ("<serviceID a='&x;'>a</serviceID>", "entity"),
        ("<1>a</1>", "namespace"),
        ("<a:b:c xmlns:a='x'/>", "namespace"),
        ("<:a/>", "namespace"),
        ("<nope:serviceID>a</nope:serviceID>", "namespace"),
        ("<serviceID nope:a='1'>a</serviceID>", "namespace"),
        ("<serviceID xmlns:p=''>a</serviceID>", "namespace"),
        ("<serviceID xmlns:xml='urn:x'>a</serviceID>", "namespace"),
        ("<serviceID xmlns:xmlns='urn:x'>a</serviceID>", "namespace"),
        ("<serviceID xmlns:p='http://www.w3.org/2000/xmlns/'>a</serviceID>", "namespace"),
        ("<serviceID xmlns='http://www.w3.org/XML/1998/namespace'>a</serviceID>", "namespace"),
        ("<xmlns:a/>", "namespace"),
        ("<x:a xmlns:x='u' xmlns:y='u' x:b='1' y:b='2'/>", "namespace"),
        ("<?a:b c?>", "ill-formed"),
        ("<x xmlns='urn:x'><!DOCTYPE y></x>", "dtd"),
        ("<x xmlns='urn:x'>&evil;</x>", "entity"),
        ("<x xmlns='urn:x'><y></x></y>", "ill-formed"),
    ] {
        assert_eq!(refusal(read(registration(content))), why, "{content}");
    }
}

#[test]
fn documents_of_the_wrong_shape_are_refused() {
    let ext = |inside: &str| {
        format!(
            "<serviceID>a</serviceID><bcast:RegistrationRequestExtension>{inside}</bcast:RegistrationRequestExtension>"
        )
    };
    let delivery = "<LTKMDelivery><Type>0</Type></LTKMDelivery>";
    for (content, why) in [
        (String::new(), "missing"),
        ("<serviceID/>".to_owned(), "service-id"),
        ("<serviceID> \r\n\t</serviceID>".to_owned(), "service-id"),
        (format!("<serviceID>{}</serviceID>", "a".repeat(1025)), "service-id"),
        ("<serviceID>a\u{85}b</serviceID>".to_owned(), "service-id"),
        ("<serviceID>a<b/></serviceID>".to_owned(), "element"),
        ("<serviceID>a</serviceID>stray".to_owned(), "text"),
        ("stray<serviceID>a</serviceID>".to_owned(), "text"),
        ("<serviceID>a</serviceID>&amp;".to_owned(), "text"),
        ("<serviceID>a</serviceID><![CDATA[x]]>".to_owned(), "text"),
        ("<serviceid>a</serviceid>".to_owned(), "element"),
        ("<x:serviceID xmlns:x='urn:x'>a</x:serviceID>".to_owned(), "missing"),
        ("<serviceID xmlns=''>a</serviceID>".to_owned(), "element"),
        ("<serviceID>a</serviceID><RegistrationRequestExtension/>".to_owned(), "element"),
        (ext("stray"), "text"),
        (ext(&format!("{delivery}{delivery}")), "twice"),
        (ext(&format!("{delivery}<bcast:LTKMDelivery><Type>0</Type></bcast:LTKMDelivery>")), "twice"),
        (format!("{}<bcast:RegistrationRequestExtension/>", ext(delivery)), "twice"),
        (ext("<LTKMDelivery/>"), "missing"),
        (ext("<LTKMDelivery><Other>0</Other></LTKMDelivery>"), "missing"),
        (ext("<LTKMDelivery>0</LTKMDelivery>"), "text"),
        (ext("<LTKMDelivery><Type/></LTKMDelivery>"), "value"),
        (ext("<LTKMDelivery><Type>256</Type></LTKMDelivery>"), "value"),
        (ext("<LTKMDelivery><Type>-1</Type></LTKMDelivery>"), "value"),
        (ext("<LTKMDelivery><Type>udp</Type></LTKMDelivery>"), "value"),
        (ext("<LTKMDelivery><Type>1 2</Type></LTKMDelivery>"), "value"),
        (ext("<LTKMDelivery><Type><b/>1</Type></LTKMDelivery>"), "element"),
    ] {
        assert_eq!(refusal(read(registration(&content))), why, "{content}");
    }
}

#[test]
fn a_wrong_root_or_namespace_is_refused() {
    let body = |root: &str, namespace: &str| {
        format!("<{root} xmlns='{namespace}'><serviceID>a</serviceID></{root}>")
    };
    for (body, why) in [
        (body("mbmsSecurityDeregister", REG), "root"),
        (body("mbmsSecurityRegisterResponse", REG), "root"),
        (body("MBMSSecurityRegister", REG), "root"),
        (body("mbmsSecurityRegister", "urn:example:other"), "root-namespace"),
        (body("mbmsSecurityRegister", ""), "root-namespace"),
        (body("mbmsSecurityRegister", BCAST), "root-namespace"),
        (body("mbmsSecurityRegister", "urn:3GPP:metadata:2005:MBMS:envelope"), "root-namespace"),
        (body("mbmsSecurityRegister", "urn:3GPP: metadata:2005:MBMS:securityRegistration"), "root-namespace"),
        (body("html", "http://www.w3.org/1999/xhtml"), "root"),
    ] {
        assert_eq!(refusal(read(&body)), why, "{body}");
    }
}

#[test]
fn a_faulty_msk_is_refused() {
    let domain = "<keyDomainID>uHCd</keyDomainID>";
    let id = "<MSKID>aMkAAA==</MSKID>";
    for (content, why) in [
        (String::new(), "missing"),
        ("<MSK/>".to_owned(), "missing"),
        (format!("<MSK>{domain}</MSK>"), "missing"),
        (format!("<MSK>{id}</MSK>"), "missing"),
        (format!("<MSK>{domain}{domain}{id}</MSK>"), "twice"),
        (format!("<MSK>{domain}{id}{id}</MSK>"), "twice"),
        (format!("<MSK>{domain}{id}x</MSK>"), "text"),
        (format!("<MSK>{domain}{id}<other/></MSK>"), "element"),
        (format!("{domain}{id}"), "element"),
        (format!("<MSK>{domain}<MSKID>aMkA</MSKID></MSK>"), "value"),
        (format!("<MSK>{domain}<MSKID>aMkAAAA=</MSKID></MSK>"), "value"),
        (format!("<MSK>{domain}<MSKID>aMkAAA</MSKID></MSK>"), "value"),
        (format!("<MSK>{domain}<MSKID>!!!!</MSKID></MSK>"), "value"),
        (format!("<MSK>{domain}<MSKID></MSKID></MSK>"), "value"),
        (format!("<MSK><keyDomainID>uHCdAA==</keyDomainID>{id}</MSK>"), "value"),
        (format!("<MSK><keyDomainID>b8709d</keyDomainID>{id}</MSK>"), "value"),
    ] {
        assert_eq!(refusal(msk_request(&content)), why, "{content}");
    }
}

#[test]
fn limits_end_the_reading() {
    let attributes: String = (0..33).map(|n| format!(" a{n}='x'")).collect();
    let prefixes =
        |from: usize, to: usize| (from..to).map(|n| format!(" xmlns:p{n}='urn:{n}'")).collect::<String>();
    for (content, why) in [
        (format!("<x{attributes}/>"), "attributes"),
        (
            format!("<x{}><y{}><z{}/></y></x>", prefixes(0, 30), prefixes(30, 60), prefixes(60, 90)),
            "attributes",
        ),
        (format!("<{}/>", "n".repeat(257)), "long-name"),
        (format!("<x {}='y'/>", "n".repeat(257)), "long-name"),
        ("<a>".repeat(10_000), "deep"),
    ] {
        assert_eq!(refusal(read(registration(&format!("<f xmlns='urn:f'>{content}</f>")))), why);
    }
    let long = registration(&" ".repeat(64 * 1024));
    let error = read(&long).expect_err("too long");
    assert_eq!((kind(&error.fault), error.status()), ("large", 413));
}

#[test]
fn answers_with_ltkms_beside_a_failure_or_twice_what_may_be_once_are_refused() {
    let answer = |inside: &str| {
        let ns = "urn:3GPP:metadata:2005:MBMS:securityRegistrationResponse";
        let text = format!(
            "<mbmsSecurityRegisterResponse xmlns='{ns}' xmlns:b='{BCAST}'>{inside}</mbmsSecurityRegisterResponse>"
        );
        RegistrationResponse::read(text.as_bytes(), &Limits::default())
    };
    let ltkms = "<b:RegistrationResponseResponseExtension><b:LTKM>AAAA</b:LTKM></b:RegistrationResponseResponseExtension>";
    let id = "<serviceID>a</serviceID>";
    let ok = "<ResponseCode>200 OK</ResponseCode>";
    for (inside, why) in [
        (String::new(), "missing"),
        (format!("<Response>{id}</Response>"), "missing"),
        (format!("<Response>{ok}</Response>"), "missing"),
        (format!("<Response>{id}{id}{ok}</Response>"), "twice"),
        (format!("<Response>{id}{ok}{ok}</Response>"), "twice"),
        (format!("<Response>{id}{ok}{ltkms}{ltkms}</Response>"), "twice"),
        (format!("<Response>{id}<ResponseCode>403 Forbidden</ResponseCode>{ltkms}</Response>"), "ltkm"),
        (format!("<Response>{id}<ResponseCode>fine</ResponseCode></Response>"), "value"),
        (format!("<Response>{id}{ok}{}</Response>", ltkms.replace("AAAA", "...")), "value"),
        (format!("<Response>{id}{ok}</Response>").replace("Response>", "Answer>"), "element"),
    ] {
        assert_eq!(refusal(answer(&inside)), why, "{inside}");
    }
    assert!(answer(&format!("<Response>{id}{ok}{ltkms}</Response>")).is_ok());
}

#[test]
fn an_error_says_where_and_fits_a_log_line() {
    let body = "<?xml version='1.0'?>\n<mbmsSecurityRegister xmlns='urn:3GPP:metadata:2005:MBMS:securityRegistration'>\n  <serviceID>a</serviceID>\n  <é\u{202e}/>\n</mbmsSecurityRegister>";
    let error = read(body).expect_err("a name with a control character");
    assert_eq!((error.line, error.octet), (4, body.find("<é").expect("the element")));

    let hostile = format!("stray \u{1b}]0;{}", "x".repeat(5000)).replace('\u{1b}', "\u{9b}");
    let error = read(registration(&hostile)).expect_err("text").to_string();
    assert!(error.len() < 150 && error.bytes().all(|b| (0x20..0x7F).contains(&b)), "{error}");
}

#[test]
fn octets_are_counted_behind_a_byte_order_mark_and_inside_base64() {
    let body = "\u{FEFF}<a/>";
    assert_eq!(read(body).expect_err("a root").octet, 3);
    let encoded = data_encoding::BASE64.encode(body.as_bytes());
    assert_eq!(read(encoded).expect_err("a root").octet, 3);
}
