//! What the calls do.

use serde_json::{Value, json};

use super::*;

#[tokio::test]
async fn a_service_comes_back_as_it_was_put() {
    let world = World::new().await;
    let created = world.call("PUT", SERVICE, service()).await;
    assert_eq!(created.status, 201);
    let mut expected = json!({
        "id": SERVICE_ID, "key_domain": "b8709d", "key_group": "68c9", "validity": "ntp", "lifetime": "24h",
        "rotate_every": null, "open": false, "ext_bcast": null, "invalidate_on_deregister": true,
        "mtk_ids": [1, 65535], "salt": false, "srtp": null, "lead_time": null, "msk_id": "68c90001",
        "terminals": {"udp": 0, "http": 0, "sms": 0, "total": 0},
        "holders": {"udp": 0, "http": 0, "sms": 0, "total": 0, "assumed": 0}
    });
    assert_eq!(created.body, expected);
    assert_eq!(world.get(SERVICE).await.body, expected);
    let all = json!({
        "id": SERVICE_ID, "key_domain": "B8709D", "key_group": "68C9", "validity": "ntp", "lifetime": "7d",
        "rotate_every": "90m", "open": true, "ext_bcast": "AQID", "invalidate_on_deregister": false,
        "mtk_ids": [2, 9], "salt": true, "lead_time": "5m", "srtp": {
            "streams": [{"policy": 0, "ssrc": 4_294_967_295_u32, "roc": 0}],
            "policies": [{"policy": 0, "parameters": {"0": 1, "255": 0}}]
        }
    });
    let updated = world.call("PUT", SERVICE, all.clone()).await;
    assert_eq!(updated.status, 200);
    for (name, value) in all.as_object().expect("an object") {
        expected[name] = value.clone();
    }
    expected["key_domain"] = json!("b8709d");
    expected["key_group"] = json!("68c9");
    assert_eq!(updated.body, expected);
    assert_eq!(world.call("PUT", SERVICE, all).await.body, expected, "repeating is harmless");
}

#[tokio::test]
async fn a_key_group_belongs_to_one_service_for_ever() {
    let world = World::new().await;
    world.call("PUT", SERVICE, service()).await;
    let mut changed = service();
    changed["key_group"] = json!("68ca");
    assert_eq!(world.call("PUT", SERVICE, changed).await.status, 409);
    assert_eq!(world.call("PUT", "/v1/services/other", service()).await.status, 409);
}

#[tokio::test]
async fn lists_come_in_pages_that_follow_one_another() {
    let world = World::new().await;
    for n in 0..5 {
        let mut service = service();
        service["key_group"] = json!(format!("{n:04x}"));
        assert_eq!(world.call("PUT", &format!("/v1/services/urn:a%26b%2F{n}"), service).await.status, 201);
    }
    let (mut seen, mut next) = (Vec::new(), String::new());
    loop {
        let page = world.get(&format!("/v1/services?limit=2{next}")).await;
        let items = page.body["items"].as_array().expect("items");
        assert!((1..=2).contains(&items.len()));
        seen.extend(items.iter().map(|s| s["id"].as_str().expect("an id").to_owned()));
        let Some(id) = page.body["next"].as_str() else { break };
        next = format!("&after={}", id.replace('&', "%26"));
    }
    assert_eq!(seen, (0..5).map(|n| format!("urn:a&b/{n}")).collect::<Vec<_>>());
    for wrong in ["limit=0", "limit=1001", "limit=x"] {
        assert_eq!(world.get(&format!("/v1/services?{wrong}")).await.field(), "limit");
    }
    assert_eq!(world.get("/v1/services?bogus=1").await.field(), "bogus");
}

#[tokio::test]
async fn each_token_opens_what_is_its_own_and_nothing_else() {
    let world = World::new().await;
    world.provision().await;
    let keys = format!("{SERVICE}/keys");
    let secrets = format!("{SERVICE}/keys?secrets=true");
    let status = async |token: &str, path: &str| world.send(token, "GET", path, "", Vec::new()).await.status;
    for path in ["/metrics", "/healthz", "/readyz", "/openapi.json"] {
        assert_eq!(status("", path).await, 200, "{path}");
    }
    for path in [SERVICE, "/v1/nothing", &keys, &secrets] {
        let refused = world.send("", "GET", path, "", Vec::new()).await;
        assert_eq!(
            (refused.status, refused.header("www-authenticate")),
            (401, "Bearer realm=\"ltkmd\""),
            "{path}"
        );
        assert_eq!(status("wrong", path).await, 401, "{path}");
    }
    assert_eq!(status("admin", &keys).await, 200);
    assert_eq!(status("admin", &secrets).await, 401);
    assert_eq!(status("reader", &keys).await, 401);
    assert_eq!(status("reader", &secrets).await, 200);
    assert_eq!(status("reader", SERVICE).await, 401);
    assert_eq!(world.send("reader", "POST", &secrets, "", Vec::new()).await.status, 401);
    assert_eq!(world.send("reader", "DELETE", SERVICE, "", Vec::new()).await.status, 401);
}

#[tokio::test]
async fn keys_are_shown_to_their_reader_alone() {
    let world = World::new().await;
    let mut salted = service();
    salted["salt"] = json!(true);
    world.call("PUT", SERVICE, salted).await;
    let msk = data_encoding::BASE64.encode(b"0123456789abcdef");
    let body = json!({"msk": msk, "valid_from": "2030-01-01T00:00:00Z", "valid_to": "2030-02-01T00:00:00Z"});
    let rotated = world.call("POST", &format!("{SERVICE}/rotate"), body).await;
    assert_eq!((rotated.status, &rotated.body["msk_id"]), (202, &json!("68c90002")));
    assert_eq!(rotated.header("location"), format!("/v1/jobs/{}", rotated.body["job"]));
    let public = world.get(&format!("{SERVICE}/keys")).await.body;
    assert!(public["items"].as_array().is_some_and(|keys| keys.iter().all(|k| k.get("msk").is_none())));
    let path = format!("{SERVICE}/keys?secrets=true");
    let secret = world.send("reader", "GET", &path, "", Vec::new()).await.body;
    let second = &secret["items"][1];
    assert_eq!((&second["msk"], &second["state"]), (&json!(msk), &json!("next")));
    assert_eq!(second["valid_from"], "2030-01-01T00:00:00Z");
    assert!(second["salt"].is_string());
    let first = world.get(&format!("{SERVICE}/keys?limit=1")).await.body;
    assert_eq!((&first["items"][0]["msk_id"], &first["next"]), (&json!("68c90001"), &json!("68c90001")));
    let rest = world.get(&format!("{SERVICE}/keys?after=68c90001")).await.body;
    assert_eq!((&rest["items"][0]["msk_id"], &rest["next"]), (&json!("68c90002"), &Value::Null));
}

#[tokio::test]
async fn over_a_unix_socket_only_secrets_need_a_token() {
    let world = World::listening(true).await;
    let answer = world.send("", "PUT", SERVICE, "application/json", service().to_string().into()).await;
    assert_eq!(answer.status, 201);
    let path = format!("{SERVICE}/keys?secrets=true");
    for (token, status) in [("", 401), ("wrong", 401), ("admin", 401), ("reader", 200)] {
        assert_eq!(world.send(token, "GET", &path, "", Vec::new()).await.status, status, "{token}");
    }
}

#[tokio::test]
async fn a_credential_shows_no_key_and_is_found_under_its_encoded_id() {
    let world = World::new().await;
    world.provision().await;
    let shown = world.get(CREDENTIAL).await;
    let expected = json!({
        "btid": BTID, "subscriber": "alice@example.com", "gba": "u", "expires": null, "t": 0
    });
    assert_eq!(shown.body, expected);
    let ks = data_encoding::BASE64.encode(&[1; 32]);
    let rand = data_encoding::BASE64.encode(&[2; 16]);
    let derived = json!({
        "subscriber": "alice@example.com", "ks": ks, "rand": rand, "gba": "me",
        "expires": "2030-01-01T00:00:00Z", "t": 41
    });
    let put = world.call("PUT", CREDENTIAL, derived).await;
    assert_eq!(
        (put.status, &put.body["t"], &put.body["expires"]),
        (200, &json!(41), &json!("2030-01-01T00:00:00Z"))
    );
    let subscriber = world.get("/v1/subscribers/alice%40example.com").await;
    let expected = json!({
        "id": "alice@example.com", "msisdn": "4917012345678", "services": [SERVICE_ID], "credentials": [BTID]
    });
    assert_eq!(subscriber.body, expected);
    assert_eq!(world.call("DELETE", CREDENTIAL, Value::Null).await.status, 204);
    assert_eq!(world.get(CREDENTIAL).await.status, 404);
}

#[tokio::test]
async fn a_registered_terminal_is_listed_with_what_it_negotiated_and_what_it_awaits() {
    let world = World::new().await;
    world.provision().await;
    assert_eq!(world.get(TERMINAL).await.status, 404);
    world.register(&[2, 0]).await;
    let terminal = world.get(TERMINAL).await.body;
    assert_eq!(terminal["methods"], json!(["http", "udp"]), "in the configured preference");
    assert_eq!(terminal["services"], json!([SERVICE_ID]));
    assert_eq!(terminal["address"], "192.0.2.1");
    assert_eq!((&terminal["deliveries_open"], &terminal["verified"]), (&json!(1), &json!([])));
    let encoded = "urn:oma:bcast%2Fnews+1";
    for (query, found) in [
        (String::new(), 1),
        (format!("?service={encoded}"), 1),
        ("?method=http".to_owned(), 1),
        (format!("?method=sms&service={encoded}"), 0),
    ] {
        let listed = world.get(&format!("/v1/terminals{query}")).await.body;
        assert_eq!(listed["items"].as_array().map(Vec::len), Some(found), "{query}");
    }
    assert_eq!(world.get("/v1/terminals?service=other").await.field(), "service");
    assert_eq!(world.get("/v1/terminals?method=fax").await.field(), "method");
    let deliveries = world.get(&format!("/v1/deliveries?state=sent&service={encoded}")).await.body;
    let delivery = &deliveries["items"][0];
    assert_eq!((&delivery["terminal"], &delivery["msk_id"]), (&json!(BTID), &json!("68c90001")));
    assert_eq!((&delivery["kind"], &delivery["method"]), (&json!("key"), &json!("http")));
    assert_eq!(world.get("/v1/deliveries?state=verified").await.body["items"], json!([]));
    assert_eq!(world.get("/v1/deliveries?state=lost").await.field(), "state");
    assert_eq!(world.get("/v1/deliveries?after=zz").await.field(), "after");
    let service = world.get(SERVICE).await.body;
    assert_eq!(service["terminals"], json!({"udp": 1, "http": 1, "sms": 0, "total": 1}));
}

#[tokio::test]
async fn a_key_that_a_terminal_proved_to_have_is_listed_under_it() {
    let world = World::new().await;
    world.provision().await;
    world.register(&[0]).await;
    let btid = BTid::new(BTID).expect("a B-TID");
    let now = world.engine.now();
    let answered = move |view: &mut crate::store::View| {
        view.terminals[0].answered(1, now);
    };
    let scope = crate::store::Scope::Terminal(btid);
    world.engine.store().update(scope, Box::new(answered)).await.expect("the store works");
    let terminal = world.get(TERMINAL).await.body;
    let expected = json!([{"service": SERVICE_ID, "msk_id": "68c90001", "at": now}]);
    assert_eq!((&terminal["verified"], &terminal["deliveries_open"]), (&expected, &json!(0)));
}

#[tokio::test]
async fn a_trigger_needs_a_method_that_can_carry_it() {
    let world = World::new().await;
    world.provision().await;
    let path = format!("{TERMINAL}/trigger");
    let register = json!({"procedure": "register"});
    assert_eq!(world.call("POST", &path, register.clone()).await.status, 409, "not registered");
    world.register(&[2]).await;
    assert_eq!(world.call("POST", &path, register.clone()).await.status, 409, "HTTP alone");
    world.register(&[0]).await;
    assert_eq!(world.call("POST", &path, register.clone()).await.status, 202);
    let request = json!({"procedure": "msk-request", "service": SERVICE_ID});
    assert_eq!(world.call("POST", &path, request).await.status, 202);
    let encoded = BTID.replace('/', "%2F").replace('+', "%2B");
    let deliveries = world.get(&format!("/v1/deliveries?terminal={encoded}")).await.body;
    let triggers = deliveries["items"].as_array().expect("items").iter().filter(|d| d["kind"] == "trigger");
    let mut triggers: Vec<_> = triggers.map(|d| (&d["service"], &d["msk_id"])).collect();
    triggers.sort_by_key(|(_, msk_id)| msk_id.as_str());
    assert_eq!(triggers, [(&Value::Null, &json!("00000000")), (&json!(SERVICE_ID), &json!("68c90000"))]);
    assert_eq!(world.call("POST", "/v1/terminals/nobody/trigger", register).await.status, 404);
}

#[tokio::test]
async fn an_import_applies_right_lines_and_tells_the_faulty_ones() {
    let world = World::new().await;
    let mut service = service();
    service["id"] = json!(SERVICE_ID);
    let mut lines = vec![
        json!({"service": service}).to_string(),
        String::new(),
        json!({"subscriber": {"id": "alice@example.com", "services": [SERVICE_ID, 3]}}).to_string(),
        "{broken".to_owned(),
        json!({"service": {"id": "x"}, "subscriber": {"id": "y"}}).to_string(),
        format!("\"{}\"", "x".repeat(70_000)),
    ];
    for n in 0..1500 {
        lines.push(json!({"subscriber": {"id": format!("s{n}"), "services": [SERVICE_ID]}}).to_string());
        let mut credential = credential();
        credential["id"] = json!(format!("b{n}@bsf"));
        credential["subscriber"] = json!(if n == 7 { "nobody".to_owned() } else { format!("s{n}") });
        lines.push(json!({"credential": credential}).to_string());
    }
    let text = lines.join("\r\n");
    let told = world.send("admin", "POST", "/v1/import", "application/x-ndjson", text.into()).await;
    assert_eq!(told.status, 200);
    assert_eq!(told.body["counts"], json!({"service": 1, "subscriber": 1500, "credential": 1499}));
    assert_eq!(told.body["failed"], 5);
    let faults = told.body["faults"].as_array().expect("faults");
    let lines: Vec<_> = faults.iter().map(|f| f["line"].as_u64().expect("a line")).collect();
    assert_eq!(lines, [3, 4, 5, 6, 22]);
    assert!(
        faults[0]["error"].as_str().is_some_and(|e| e.starts_with("subscriber.services[1] ")),
        "{faults:?}"
    );
    assert_eq!(world.get("/v1/credentials/b1499%40bsf").await.status, 200);
    assert_eq!(world.get("/v1/subscribers/nobody").await.status, 404);
}

#[tokio::test]
async fn lines_of_a_batch_find_what_they_name_wherever_it_stands_and_the_last_of_a_kind_wins() {
    let world = World::new().await;
    let mut service = service();
    service["id"] = json!(SERVICE_ID);
    let mut credential = credential();
    credential["id"] = json!(BTID);
    let lines = [
        json!({"credential": credential}),
        json!({"subscriber": {"id": "alice@example.com", "services": []}}),
        json!({"subscriber": {"id": "alice@example.com", "services": [SERVICE_ID]}}),
        json!({"service": service}),
    ];
    let text = lines.map(|line| line.to_string()).join("\n");
    let told = world.send("admin", "POST", "/v1/import", "application/x-ndjson", text.into()).await;
    assert_eq!(told.body["counts"], json!({"service": 1, "subscriber": 2, "credential": 1}));
    let subscriber = world.get("/v1/subscribers/alice%40example.com").await.body;
    assert_eq!((&subscriber["services"], &subscriber["credentials"]), (&json!([SERVICE_ID]), &json!([BTID])));
}

#[tokio::test]
async fn an_import_stops_where_the_store_does_and_says_how_far_it_came() {
    let world = World::new().await;
    let line = |n| json!({"subscriber": {"id": format!("s{n}")}}).to_string();
    let text = (0..1500).map(line).collect::<Vec<_>>().join("\n");
    world.break_store(Some(StoreError::Unavailable("the disk is full".to_owned())));
    let told = world.send("admin", "POST", "/v1/import", "application/x-ndjson", text.clone().into()).await;
    assert_eq!((told.status, told.header("retry-after")), (503, "1"));
    assert!(told.body["detail"].as_str().is_some_and(|d| d.contains("the disk is full; ")));
    world.break_store(None);
    let told = world.send("admin", "POST", "/v1/import", "application/x-ndjson", text.into()).await;
    assert_eq!((told.status, &told.body["counts"]["subscriber"]), (200, &json!(1500)));
}

#[tokio::test]
async fn what_is_not_there_is_a_problem_document_too() {
    let world = World::new().await;
    for path in ["/page", "/v1", "/v1/services/a/b", "/v2/services", "/v1/services/"] {
        assert_eq!(world.get(path).await.status, 404, "{path}");
    }
    let refused = world.call("POST", "/v1/services", Value::Null).await;
    assert_eq!((refused.status, refused.header("allow")), (405, "GET, HEAD"));
    let refused = world.call("PATCH", SERVICE, Value::Null).await;
    assert_eq!((refused.status, refused.header("allow")), (405, "PUT, GET, HEAD, DELETE"));
    let refused = world.send("", "DELETE", "/metrics", "", Vec::new()).await;
    assert_eq!((refused.status, refused.header("allow")), (405, "GET, HEAD"));
}

#[tokio::test]
async fn bodies_have_their_limits_of_size_and_kind() {
    let world = World::new().await;
    let head = |length: usize| {
        format!(
            "PUT {SERVICE} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer admin\r\nContent-Type: application/json\r\n\
             Content-Length: {length}\r\n\r\n"
        )
    };
    let told = world.raw(head((1 << 20) + 1).as_bytes()).await;
    assert!(told.starts_with("HTTP/1.1 413 ") && told.contains("application/problem+json"), "{told}");
    let put = async |media: &str, octets: &[u8]| {
        world.send("admin", "PUT", SERVICE, media, octets.to_vec()).await.status
    };
    assert_eq!(
        put("application/json", &vec![b' '; 1 << 20]).await,
        400,
        "as large as it may be, and no JSON"
    );
    assert_eq!(put("", service().to_string().as_bytes()).await, 201);
    assert_eq!(put("text/plain", service().to_string().as_bytes()).await, 200);
    assert_eq!(put("application/json; charset=utf-8", service().to_string().as_bytes()).await, 200);
    assert_eq!(put("application/json", b"").await, 400);
    assert_eq!(put("application/json", b"{\"key_domain\": \xff}").await, 400);
    assert_eq!(put("application/json", "[".repeat(100_000).as_bytes()).await, 400);
    assert_eq!(put("application/json", b"[]").await, 422);
    let twice = service().to_string().replacen('{', "{\"open\": true, \"open\": false,", 1);
    assert_eq!(put("application/json", twice.as_bytes()).await, 400, "which of both is meant is not known");
}

#[tokio::test]
async fn a_path_that_is_not_percent_encoded_names_nothing() {
    let world = World::new().await;
    for path in ["/v1/services/urn%ZZ", "/v1/services/urn%3", "/v1/services/%FF"] {
        let put = world.call("PUT", path, service()).await;
        assert_eq!(put.status, 400, "{path}: {put:?}");
        assert_eq!(world.get(path).await.status, 400, "{path}");
    }
    assert_eq!(world.get("/v1/services").await.body["items"], json!([]));
}

#[tokio::test]
async fn what_names_somebody_unknown_is_a_sentence_about_the_field() {
    let world = World::new().await;
    world.provision().await;
    let told = |answer: Answer, field: &str, sentence: &str| {
        assert_eq!((answer.status, &answer.body["field"]), (422, &json!(field)), "{answer:?}");
        assert_eq!(answer.body["detail"], sentence);
    };
    let bob = world.call("PUT", "/v1/subscribers/bob", json!({"services": ["urn:none"]})).await;
    told(bob, "services", "services has urn:none, which is no service: put it first");
    let mut of_nobody = credential();
    of_nobody["subscriber"] = json!("nobody");
    let put = world.call("PUT", CREDENTIAL, of_nobody).await;
    told(put, "subscriber", "subscriber is nobody, which is no subscriber: put it first");
}

#[tokio::test]
async fn readiness_tells_what_does_not_work() {
    let world = World::new().await;
    let latch = world.engine.add_latch("udp");
    let answer = world.send("", "GET", "/readyz", "", Vec::new()).await;
    assert_eq!(answer.status, 503);
    assert!(answer.body["detail"].as_str().is_some_and(|d| d.contains("udp: ")));
    assert_eq!(world.send("", "GET", "/healthz", "", Vec::new()).await.status, 200);
    latch.store(true, std::sync::atomic::Ordering::Relaxed);
    let answer = world.send("", "GET", "/readyz", "", Vec::new()).await;
    assert_eq!((answer.status, &answer.body["checks"]["udp"]), (200, &json!("ok")));
    let status = world.get("/v1/status").await.body;
    assert_eq!((&status["ready"], &status["services"]), (&json!(true), &json!(0)));
}

#[tokio::test]
async fn a_shutdown_lets_the_request_under_way_end_and_takes_no_other() {
    let world = World::new().await;
    let mut stream = TcpStream::connect(world.address.expect("TCP")).await.expect("a connection");
    let document = json!({"id": "s"}).to_string();
    let head = format!(
        "PUT /v1/subscribers/s HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer admin\r\n\
         Content-Type: application/json\r\nExpect: 100-continue\r\nContent-Length: {}\r\n\r\n",
        document.len()
    );
    stream.write_all(head.as_bytes()).await.expect("it is taken");
    // The handler reads the body: the request is under way.
    let mut goon = [0; 25];
    stream.read_exact(&mut goon).await.expect("100 Continue");
    world.stop.send(true).expect("it listens");
    stream.write_all(document.as_bytes()).await.expect("it is taken");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("an answer and its end");
    assert!(answer.starts_with("HTTP/1.1 201 "), "{answer}");
    world.server.await.expect("no panic").expect("an end in order");
    assert!(TcpStream::connect(world.address.expect("TCP")).await.is_err());
}
