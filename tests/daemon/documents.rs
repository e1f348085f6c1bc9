//! Documents over the wire: forms, dialects, what is refused, and what never shows (LTKM profile §2.1, §2.2).

use data_encoding::{BASE64, HEXLOWER};
use serde_json::json;

use crate::harness::digest::Digest;
use crate::harness::http::Reply;
use crate::harness::terminal::{Terminal, deregistration, msk_request, registration};
use crate::harness::{ADMIN_TOKEN, Daemon, KEY_READER_TOKEN};

const HTTP: Option<&[u8]> = Some(&[2]);
const BCAST: &str = "urn:oma:xml:bcast:pr:orderqueries:1.0";
const MBMS: &str = "urn:3GPP:metadata:2005:MBMS";
const DECLARATION: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n";

/// The text between two marks, which stand once each.
fn between<'a>(text: &'a str, from: &str, to: &str) -> &'a str {
    let (_, rest) = text.split_once(from).unwrap_or_else(|| panic!("no {from} in {text}"));
    rest.split_once(to).unwrap_or_else(|| panic!("no {to} in {text}")).0
}

#[test]
fn answers_are_written_to_the_letter_in_both_settings_of_xml_children() {
    for (setting, prefix) in [("qualified", "bcast:"), ("default-namespace", "")] {
        let daemon = Daemon::start_with(&format!("xml.children = \"{setting}\""));
        daemon.put_service("urn:s?a=1&b=2", 0x68c9, json!({}));
        let terminal = Terminal::provision(&daemon, &[]);
        let ltkm = |text: &str| {
            let text = between(text, &format!("<{prefix}LTKM>"), &format!("</{prefix}LTKM>")).to_owned();
            terminal.open(&BASE64.decode(text.as_bytes()).expect("base64"));
            text
        };
        let types: &[u8] = &[2, 0, 77];
        let reply = terminal.register(&["urn:s?a=1&amp;b=2", "urn:unknown"], Some(types));
        assert_eq!(reply.header("content-type"), Some("application/mbms-register-response+xml"));
        let text = reply.text();
        assert_eq!(
            text,
            format!(
                "{DECLARATION}<mbmsSecurityRegisterResponse xmlns=\"{MBMS}:securityRegistrationResponse\" \
                 xmlns:bcast=\"{BCAST}\"><Response><serviceID>urn:s?a=1&amp;b=2</serviceID>\
                 <ResponseCode>200 OK</ResponseCode><bcast:RegistrationResponseResponseExtension>\
                 <{prefix}LTKM>{}</{prefix}LTKM></bcast:RegistrationResponseResponseExtension></Response>\
                 <Response><serviceID>urn:unknown</serviceID><ResponseCode>404 Not Found</ResponseCode>\
                 </Response><bcast:RegistrationResponseExtension><{prefix}LTKMDelivery>\
                 <{prefix}Type>0</{prefix}Type><{prefix}Type>2</{prefix}Type></{prefix}LTKMDelivery>\
                 </bcast:RegistrationResponseExtension></mbmsSecurityRegisterResponse>\n",
                ltkm(&text)
            )
        );

        let reply = terminal.msk_request(&[("b8709d", "68c90000"), ("b8709d", "00010001")]);
        assert_eq!(reply.header("content-type"), Some("application/mbms-msk-response+xml"));
        let text = reply.text();
        assert_eq!(
            text,
            format!(
                "{DECLARATION}<mbmsMSKResponse xmlns=\"{MBMS}:mskResponse\" xmlns:bcast=\"{BCAST}\">\
                 <Response><MSK><keyDomainID>uHCd</keyDomainID><MSKID>aMkAAA==</MSKID></MSK>\
                 <ResponseCode>200 OK</ResponseCode><bcast:LTKMResponseResponseExtension>\
                 <{prefix}LTKM>{}</{prefix}LTKM></bcast:LTKMResponseResponseExtension></Response><Response>\
                 <MSK><keyDomainID>uHCd</keyDomainID><MSKID>AAEAAQ==</MSKID></MSK>\
                 <ResponseCode>404 Not Found</ResponseCode></Response></mbmsMSKResponse>\n",
                ltkm(&text)
            )
        );

        let reply = terminal.deregister(&["urn:s?a=1&amp;b=2"]);
        assert_eq!(reply.header("content-type"), Some("application/mbms-register-response+xml"));
        let text = reply.text();
        assert_eq!(
            text,
            format!(
                "{DECLARATION}<mbmsSecurityRegisterResponse xmlns=\"{MBMS}:securityRegistrationResponse\" \
                 xmlns:bcast=\"{BCAST}\"><Response><serviceID>urn:s?a=1&amp;b=2</serviceID>\
                 <ResponseCode>200 OK</ResponseCode><bcast:DeregistrationResponseResponseExtension>\
                 <{prefix}LTKM>{}</{prefix}LTKM></bcast:DeregistrationResponseResponseExtension></Response>\
                 </mbmsSecurityRegisterResponse>\n",
                ltkm(&text)
            )
        );
    }
}

#[test]
fn a_document_in_base64_is_answered_in_base64() {
    let daemon = Daemon::start();
    daemon.put_service("urn:s", 1, json!({}));
    let terminal = Terminal::provision(&daemon, &[]);
    let plain = registration(&["urn:s"], HTTP);
    let base64 = BASE64.encode(plain.as_bytes());
    let (first, second) = base64.split_at(76);
    for body in [base64.clone(), format!("\r\n {first}\r\n{second}\r\n")] {
        let reply = terminal.request("register", &body);
        assert_eq!(reply.status, 200, "{}", reply.text());
        let document = BASE64.decode(&reply.body).expect("base64");
        assert!(document.starts_with(b"<?xml"));
        let (answer, _) =
            ltkmd::document::RegistrationResponse::read(&document, &Default::default()).expect("an answer");
        terminal.open(&answer.items[0].ltkms()[0]);
    }
    for body in [format!("\u{FEFF}{plain}"), format!("\n {plain}\n")] {
        assert!(terminal.request("register", &body).text().starts_with("<?xml"));
    }
}

#[test]
fn every_dialect_of_the_request_documents_is_read() {
    let daemon = Daemon::start();
    daemon.put_service("urn:s", 0x68c9, json!({}));
    let terminal = Terminal::provision(&daemon, &[]);
    let types = |open: &str, close: &str| {
        format!("<{open}LTKMDelivery{close}><{open}Type> 2 </{open}Type></{open}LTKMDelivery>")
    };
    let container = |attributes: &str, inside: &str| {
        format!(
            "<b:RegistrationRequestExtension xmlns:b=\"{BCAST}\"{attributes}>{inside}\
             </b:RegistrationRequestExtension>"
        )
    };
    let register = |namespace: &str, rest: &str| {
        format!(
            "<mbmsSecurityRegister xmlns=\"{namespace}\"><serviceID>\n  urn:s\n</serviceID>{rest}\
             </mbmsSecurityRegister>"
        )
    };
    let extension = container("", &types("", ""));
    for namespace in [
        "urn:3GPP:metadata:2005:MBMS:securityRegistration",
        "urn:3GPP:metadata:2005:MBMS:securityRegistrationRequest",
        "urn:3gpp:METADATA:2005:mbms:securityRegistration",
        "urn:3GPP:metadata:2005:MBMS:mskRequest",
    ] {
        served(&terminal.request("register", &register(namespace, &extension)));
    }
    let namespace = "urn:3GPP:metadata:2005:MBMS:securityRegistration";
    for rest in [
        container(" version=\"0\"", &types("b:", "")),
        container(" version=\"7\"", &format!("<x/>{}<b:Later/>", types("b:", " x=\"y\""))),
        container("", &types("", " xmlns=\"\"").replace("<Type", "<Type xmlns=\"\"")),
        format!("<f:foreign xmlns:f=\"urn:f\"><deep><er/></deep></f:foreign>{extension}<!-- end -->"),
    ] {
        served(&terminal.request("register", &register(namespace, &rest)));
    }
    let prefixed = format!(
        "<m:mbmsSecurityRegister xmlns:m=\"{namespace}\" xmlns=\"{BCAST}\"><m:serviceID>urn:s</m:serviceID>\
         <RegistrationRequestExtension><LTKMDelivery><Type>2</Type></LTKMDelivery>\
         </RegistrationRequestExtension></m:mbmsSecurityRegister>"
    );
    served(&terminal.request("register", &prefixed));

    for written in ["<![CDATA[urn:s]]>", "urn&#58;s", "u<!-- a comment -->rn:s", "\n\turn:s\n"] {
        let body = register(namespace, &extension).replace("\n  urn:s\n", written);
        assert!(body.contains(written));
        served(&terminal.request("register", &body));
    }
    for declaration in
        ["<?xml version='1.0' encoding='utf-8' standalone=\"yes\"?>", "<?xml version=\"1.0\"?>\n"]
    {
        served(&terminal.request("register", &format!("{declaration}{}", register(namespace, &extension))));
    }

    let other_root = msk_request(&[("b8709d", "68c90000")]).replace("mbmsMSK ", "mbmsMSKRequest ");
    let other_root = other_root.replace("</mbmsMSK>", "</mbmsMSKRequest>");
    served(&terminal.request("msk-request", &other_root));
    let of_registration =
        deregistration(&["urn:s"]).replace("securityDeregistration", "securityRegistration");
    served(&terminal.request("deregister", &of_registration));
}

/// 200 with one LTKM inside.
fn served(reply: &Reply) {
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert_eq!(reply.text().matches("<bcast:LTKM>").count(), 1, "{}", reply.text());
}

#[test]
fn a_document_that_is_refused_is_400_and_changes_nothing() {
    let mut daemon = Daemon::start_with("http.max_items = 3");
    daemon.put_service("urn:s", 1, json!({}));
    let terminal = Terminal::provision(&daemon, &[]);
    terminal.registered(&["urn:s"], HTTP);
    let record = |daemon: &Daemon| {
        let mut record = daemon.terminal(&terminal.btid);
        let credential = format!("/v1/credentials/{}", crate::harness::encoded(&terminal.btid));
        record["t"] = daemon.get(&credential)["t"].clone();
        record
    };
    let before = record(&daemon);
    let good = registration(&["urn:s"], HTTP);
    let root = "<mbmsSecurityRegister ";
    let edit = |from: &str, to: &str| {
        assert!(good.contains(from), "{from}");
        good.replacen(from, to, 1).into_bytes()
    };
    let delivery = "<b:LTKMDelivery><b:Type>2</b:Type></b:LTKMDelivery>";
    let deep = format!("{}{}", "<d>".repeat(40), "</d>".repeat(40));
    let utf16: Vec<u8> =
        std::iter::once(0xFEFF).chain(good.encode_utf16()).flat_map(u16::to_le_bytes).collect();
    let bomb = "<!DOCTYPE a [<!ENTITY b \"cc\"><!ENTITY c \"&b;&b;\">]>";
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("nothing", Vec::new()),
        ("no XML", b"hello, world".to_vec()),
        ("half of it", good.as_bytes()[..good.len() / 2].to_vec()),
        ("a DTD", edit(root, &format!("<!DOCTYPE mbmsSecurityRegister>{root}"))),
        ("entities", edit(root, &format!("{bomb}{root}"))),
        ("an external entity", edit(root, &format!("<!DOCTYPE a SYSTEM \"file:///etc/passwd\">{root}"))),
        ("an undeclared entity", edit("urn:s", "&b;")),
        ("UTF-16", utf16),
        (
            "a declaration of Latin-1",
            edit(root, &format!("<?xml version='1.0' encoding='ISO-8859-1'?>{root}")),
        ),
        ("XML 1.0 that begins late", edit(root, &format!("<!-- --><?xml version='1.0'?>{root}"))),
        ("not UTF-8", edit("urn:s", "urn:\u{1}").iter().map(|b| if *b == 1 { 0xFF } else { *b }).collect()),
        ("a control character", edit("urn:s", "urn:\u{1}")),
        ("an undeclared prefix", edit("<serviceID>", "<x:y/><serviceID>")),
        ("an attribute twice", edit("version=\"0\"", "version=\"0\" version=\"0\"")),
        ("tags that cross", edit("</serviceID>", "</b:serviceID>")),
        ("two roots", [good.as_bytes(), good.as_bytes()].concat()),
        ("another root", edit(root, "<mbmsSecurityRegisters ")),
        ("another document", deregistration(&["urn:s"]).into_bytes()),
        ("another namespace", edit(":securityRegistration", ":userServiceDescription")),
        ("no namespace", edit("xmlns=\"urn:3GPP:metadata:2005:MBMS:securityRegistration\" ", "")),
        ("too deep", edit("</serviceID>", &format!("</serviceID>{deep}"))),
        ("no service", registration(&[], HTTP).into_bytes()),
        ("an empty service", edit("urn:s", " \n ")),
        ("too many services", registration(&["urn:a", "urn:b", "urn:c", "urn:d"], HTTP).into_bytes()),
        ("two containers", {
            let at = good.find("<b:Reg").expect("a container");
            let end = good.find("</mbms").expect("an end");
            format!("{}{}{}", &good[..end], &good[at..end], &good[end..]).into_bytes()
        }),
        ("two LTKMDelivery", edit(delivery, &delivery.repeat(2))),
        ("no Type", edit(delivery, "<b:LTKMDelivery/>")),
        ("a Type too large", edit("<b:Type>2", "<b:Type>256")),
        ("a Type that is no number", edit("<b:Type>2", "<b:Type>HTTP")),
        ("a negative Type", edit("<b:Type>2", "<b:Type>-1")),
        ("an empty Type", edit("<b:Type>2", "<b:Type>")),
        ("text where none belongs", edit("<serviceID>", "text<serviceID>")),
    ];
    let series = "ltkmd_http_requests_total{procedure=\"register\",status=\"400\"}";
    let counted = daemon.metric(series);
    let mut connection = terminal.connect();
    let digest = terminal.digest(&mut connection, "register");
    let mut nc = 0;
    for (what, body) in &cases {
        nc += 1;
        let digest = digest.count(nc);
        let reply = terminal.send_as(&mut connection, "register", body, &digest);
        assert_eq!(reply.status, 400, "{what}: {}", reply.text());
        assert_eq!(reply.header("content-type"), Some("text/plain; charset=utf-8"));
        digest.prove(&reply);
        assert_eq!(reply.text().lines().count(), 1, "{}", reply.text());
    }
    assert_eq!(daemon.metric(series), counted + cases.len() as f64);
    let mut after = record(&daemon);
    after["last_seen"] = before["last_seen"].clone();
    assert_eq!(after, before);
    let good = terminal.send_as(&mut connection, "register", good.as_bytes(), &digest.count(nc + 1));
    assert_eq!(good.status, 200, "{}", good.text());
    let lines = daemon.end_and_read_log().iter().filter(|l| l.contains("The document is refused")).count();
    assert_eq!(lines, cases.len(), "one line each");
}

#[test]
fn msk_requests_with_wrong_ids_are_refused() {
    let daemon = Daemon::start();
    let terminal = Terminal::provision(&daemon, &[]);
    let good = msk_request(&[("b8709d", "68c90001")]);
    for (from, to) in [
        ("uHCd", "uHA="),
        ("uHCd", "uHCdAA=="),
        ("uHCd", "!!!!"),
        ("aMkAAQ==", "aMkA"),
        ("aMkAAQ==", ""),
        ("<MSKID>aMkAAQ==</MSKID>", ""),
        ("<MSK><keyDomainID>uHCd</keyDomainID><MSKID>aMkAAQ==</MSKID></MSK>", ""),
    ] {
        assert!(good.contains(from), "{from} in {good}");
        let reply = terminal.request("msk-request", &good.replace(from, to));
        assert_eq!(reply.status, 400, "{from} -> {to}: {}", reply.text());
    }
}

#[test]
fn no_log_answer_or_metric_shows_a_secret() {
    let mut daemon = Daemon::start_with("log.filter = \"trace\"\nudp.attempts = 1");
    daemon.put_service("urn:s", 1, json!({"salt": true}));
    let terminal = Terminal::provision(&daemon, &[]);
    let answer = terminal.registered(&["urn:s"], Some(&[0, 2]));
    terminal.verify(&terminal.open(&answer.items[0].ltkms()[0]));
    let outside = [0x5A; 16];
    daemon.rotate("urn:s", Some(&json!({"msk": BASE64.encode(&outside)})));
    terminal.verify(&terminal.receive());
    let mut connection = terminal.connect();
    let right = terminal.digest(&mut connection, "register");
    let wrong = Digest { password: b"wrong".to_vec(), ..right.clone() };
    assert_eq!(terminal.send_as(&mut connection, "register", b"<", &wrong).status, 401);
    assert_eq!(terminal.send_as(&mut connection, "register", b"<", &right).status, 400);
    let wrong = json!({"subscriber": "nobody", "mrk": BASE64.encode(&terminal.mrk), "muk": "AA=="});
    assert_eq!(daemon.admin("PUT", "/v1/credentials/x@y", Some(&wrong)).status, 422);
    assert_eq!(daemon.admin_as("guess", "GET", "/v1/terminals", None).status, 401);
    let mut secrets = vec![terminal.mrk.clone(), terminal.muk.clone(), outside.to_vec()];
    for key in daemon.keys("urn:s") {
        for field in ["msk", "salt"] {
            let text = key[field].as_str().expect("a secret");
            secrets.push(BASE64.decode(text.as_bytes()).expect("base64"));
        }
    }
    secrets.extend([ADMIN_TOKEN, KEY_READER_TOKEN].map(|token| token.as_bytes().to_vec()));
    let metrics = crate::harness::http::request(daemon.admin, "GET", "/metrics", &[], b"").text();
    let lists = ["/v1/terminals", "/v1/deliveries", "/v1/services", "/v1/services/urn:s/keys", "/v1/jobs/1"];
    let lists: Vec<String> = lists.iter().map(|path| daemon.get(path).to_string()).collect();
    daemon.signal(nix::sys::signal::Signal::SIGHUP);
    daemon.await_log("configuration read again");
    let log = daemon.end_and_read_log().join("\n");
    assert!(log.contains("TRACE") && log.contains("request refused"));
    for seen in lists.iter().chain([&log, &metrics]) {
        for secret in &secrets {
            let forms = [
                HEXLOWER.encode(secret),
                BASE64.encode(secret).trim_end_matches('=').to_owned(),
                data_encoding::BASE64URL_NOPAD.encode(secret),
                format!("{secret:?}"),
                String::from_utf8_lossy(secret).into_owned(),
            ];
            for form in forms {
                let lower = seen.to_lowercase();
                assert!(!lower.contains(&form.to_lowercase()), "{form} shows in {seen}");
            }
        }
    }
}
