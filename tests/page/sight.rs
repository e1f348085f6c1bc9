//! What is seen on the page, and what it takes to see it.

use std::path::{Path, PathBuf};

use serde_json::json;

use crate::browser::Browser;
use crate::harness::fleet::{BEHIND_PROXY, Fleet, btid, import, register_all};
use crate::harness::{ADMIN_TOKEN, Daemon, http};

/// Terminals of the first service; one in ten has nothing but HTTP.
const TERMINALS: usize = 60;
const PULLING: usize = TERMINALS / 10;

fn methods(n: usize) -> &'static [u8] {
    if n.is_multiple_of(10) { &[2] } else { &[0] }
}

/// A daemon whose terminals hold the first key of a service, and whose job for the second one waits for their answers.
fn busy() -> Daemon {
    let patient = "udp.first_timeout = \"1s\"\nudp.attempts = 12";
    let daemon = Daemon::start_with(&format!("{BEHIND_PROXY}\n{patient}"));
    daemon.put_service("urn:example:news", 1, json!({"lifetime": "24h", "rotate_every": "12h"}));
    daemon.put_service("urn:example:empty", 2, json!({}));
    import(&daemon, TERMINALS);
    let terminals = Fleet::listen(daemon.port);
    register_all(&daemon, &["urn:example:news"], 0..TERMINALS, methods);
    daemon.await_state("everybody's first key", |daemon| {
        let service = daemon.get("/v1/services/urn%3Aexample%3Anews");
        (service["holders"]["udp"] == TERMINALS - PULLING).then_some(())
    });
    drop(terminals);
    daemon.rotate("urn:example:news", None);
    daemon
}

fn open(daemon: &Daemon) -> Browser {
    let mut browser = Browser::start();
    browser.look(1280, 900, false);
    browser.open(&format!("http://{}/", daemon.admin));
    browser.await_true("document.querySelector('#summary .badge.good')");
    browser.await_true("!document.querySelector('#service-rows').innerText.includes('…')");
    browser.await_true("document.querySelector('#outcome-plot svg')");
    browser
}

fn pictures() -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("page");
    std::fs::create_dir_all(&dir).expect("a directory");
    dir
}

#[test]
fn the_page_shows_services_jobs_and_the_last_hour_and_the_browser_complains_of_nothing() {
    let daemon = busy();
    let mut browser = open(&daemon);
    browser.await_true("document.querySelector('.job')");

    let summary = browser.text("#summary");
    assert!(summary.contains("ready") && summary.contains("2 services"), "{summary}");
    let cards = browser.text("#cards");
    assert!(cards.contains("works") && cards.contains("SMS is not among the methods"), "{cards}");
    let rows = browser.text("#service-rows");
    assert!(rows.contains("urn:example:news") && rows.contains("00010002"), "{rows}");
    assert!(rows.contains("0 of 60 (0 %)") && rows.contains("nobody is registered"), "{rows}");
    assert!(rows.contains("ends in 23 h 59 min"), "{rows}");
    let job = browser.text(".job");
    assert!(job.contains("running") && job.contains("0 % of 60 terminals"), "{job}");
    assert!(job.contains(&format!("{PULLING} wait for a pull")), "{job}");
    let hour = browser.text("#hour-sum");
    assert!(hour.contains("54 deliveries verified, 0 failed"), "{hour}");
    let columns = browser.eval("document.querySelectorAll('#outcome-plot rect.good').length");
    assert!(columns.as_u64() >= Some(1), "{columns}");
    assert!(browser.text("#hour-since").contains("nothing from before is known here"));

    // The terminals are back: what the page says changes by itself.
    let terminals = Fleet::listen(daemon.port);
    browser.await_true("document.querySelector('#service-rows').innerText.includes('54 of 60 (90.0 %)')");
    browser.await_true("document.querySelector('#job-list').innerText.includes('No job is open')");
    browser.await_true("document.querySelector('#job-news').textContent.includes('is over')");
    let bar =
        browser.eval("document.querySelector('#service-rows tr:last-child td:nth-child(4) svg').ariaLabel");
    assert_eq!(bar, "54 of 60 (90.0 %), 54 by UDP");
    let holding = TERMINALS - PULLING;
    assert_eq!(terminals.holding("00010002"), holding, "the page says what is true");
    daemon.await_metric("ltkmd_key_holders{service=\"urn:example:news\"}", holding as f64);

    assert_eq!(browser.complaints(), [] as [String; 0]);
    let own = format!("http://{}/", daemon.admin);
    for address in browser.requested() {
        assert!(address.starts_with(&own) || address == "data:," || address == "about:blank", "{address}");
    }
}

#[test]
fn a_terminal_is_found_with_the_token_alone_and_nothing_of_it_stays() {
    let daemon = busy();
    let mut browser = open(&daemon);
    // With the keyboard alone.
    browser.eval("document.querySelector('#who').focus()");
    browser.type_text(&btid(1));
    browser.press("Enter", 13);
    browser.await_true("document.querySelector('#search-state').innerText.includes('wants its admin token')");
    assert_eq!(browser.eval("document.activeElement.id"), "token", "the focus goes where it is needed");
    browser.type_text("wrong");
    browser.press("Enter", 13);
    browser.await_true("document.querySelector('#search-state').innerText.includes('refuses this token')");
    assert_eq!(browser.text("#found"), "");
    browser.eval("document.querySelector('#token').value = ''");
    browser.type_text(ADMIN_TOKEN);
    browser.press("Enter", 13);
    browser.await_true(
        "document.querySelector('#search-state').innerText.includes('registered for urn:example:news')",
    );
    let found = browser.text("#found");
    for part in [btid(1).as_str(), "127.20.0.1", "urn:example:news", "00010001", "verified", "00010002"] {
        assert!(found.contains(part), "{part} in {found}");
    }
    let rows = browser.eval("document.querySelectorAll('#found tbody tr').length");
    // One proof; a registration; the first key queued and verified, the second queued and sent.
    assert_eq!(rows, 6, "{found}");

    // A subscriber leads to its terminals, and nobody is nobody.
    browser.eval(
        "document.querySelector('#who').value = 's2'; document.querySelector('#search').requestSubmit()",
    );
    browser.await_true("document.querySelector('#found button')");
    browser.eval("document.querySelector('#found button').click()");
    browser.await_true(&format!("document.querySelector('#search-state').innerText.includes('{}')", btid(2)));
    browser.eval(
        "document.querySelector('#who').value = 'nobody'; document.querySelector('#search').requestSubmit()",
    );
    browser
        .await_true("document.querySelector('#search-state').innerText.includes('Nobody is called nobody')");

    let kept = browser.eval("JSON.stringify([localStorage, sessionStorage, document.cookie, location.href])");
    assert!(!kept.to_string().contains(ADMIN_TOKEN), "{kept}");
    browser.open(&format!("http://{}/", daemon.admin));
    browser.await_true("document.querySelector('#service-rows th')");
    assert_eq!(browser.eval("document.querySelector('#token').value"), "");
    assert_eq!(browser.complaints(), [] as [String; 0]);
}

#[test]
fn the_page_is_readable_in_both_colour_schemes_on_a_desk_and_on_a_phone() {
    let daemon = busy();
    let mut browser = open(&daemon);
    browser.await_true("document.querySelector('.job')");
    // Badges that nothing here brings about.
    for kind in ["good", "bad", "wait", "over", "sent"] {
        let badge = format!("<span class='badge {kind}'>{kind}</span>");
        browser.eval(&format!("document.querySelector('#search-state').innerHTML += {}", json!(badge)));
    }
    for (name, width, height) in [("desk", 1280, 900), ("phone", 390, 844)] {
        for (scheme, dark) in [("light", false), ("dark", true)] {
            browser.look(width, height, dark);
            let wider = browser.eval("document.documentElement.scrollWidth - window.innerWidth");
            assert!(wider.as_i64() <= Some(0), "{name}: {wider} px are out of sight");
            assert_eq!(browser.eval(LOW_CONTRAST), json!([]), "{name}, {scheme}: too little contrast");
            let picture = browser.picture();
            assert!(picture.starts_with(b"\x89PNG"));
            std::fs::write(pictures().join(format!("{name}-{scheme}.png")), picture).expect("written");
        }
    }
    assert_eq!(browser.complaints(), [] as [String; 0]);
}

/// Texts whose colour is too near to what is behind them (WCAG 2.2, 1.4.3: 4.5 to 1).
const LOW_CONTRAST: &str = r"(() => {
  const rgb = (text) => text.match(/[\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((c) => c / 255)
    .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const color = rgb(getComputedStyle(e).backgroundColor);
      if (color.length < 4 || color[3] > 0) return color;
    }
    return [255, 255, 255];
  };
  const bad = [];
  for (const e of document.querySelectorAll('body *')) {
    const text = [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    if (!text || e.closest('title, desc, .unseen') || !e.getClientRects().length) continue;
    const style = getComputedStyle(e);
    const drawn = e instanceof SVGElement;
    const [one, other] = [light(rgb(drawn ? style.fill : style.color)), light(ground(e))];
    const contrast = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
    if (contrast < 4.5) bad.push(`${e.tagName} ${e.className} ${contrast.toFixed(2)}: ${e.textContent.trim().slice(0, 40)}`);
  }
  return bad;
})()";

#[test]
fn who_cannot_see_the_page_finds_its_way() {
    let daemon = busy();
    let mut browser = open(&daemon);
    browser.await_true("document.querySelector('.job')");
    let count = |browser: &mut Browser, selector: &str| {
        browser
            .eval(&format!("document.querySelectorAll({}).length", json!(selector)))
            .as_u64()
            .expect("a number")
    };
    for landmark in ["header", "nav[aria-label]", "main", "footer", "h1", "[role=search]"] {
        assert_eq!(count(&mut browser, landmark), 1, "{landmark}");
    }
    assert_eq!(count(&mut browser, "section"), count(&mut browser, "section[aria-labelledby] > h2"));
    assert_eq!(count(&mut browser, "table"), count(&mut browser, "table > caption"));
    assert_eq!(
        count(&mut browser, "svg"),
        count(&mut browser, "svg[role=img]:is([aria-label], [aria-labelledby])")
    );
    assert_eq!(count(&mut browser, "input"), count(&mut browser, "label[for] + input"));
    assert_eq!(count(&mut browser, "[aria-live=polite]"), 1);
    assert_eq!(browser.eval("document.documentElement.lang"), "en");
    let broken = browser.eval(
        "[...document.querySelectorAll('[aria-labelledby], [aria-describedby]')].flatMap((e) => \
         [e.getAttribute('aria-labelledby'), e.getAttribute('aria-describedby')])\
         .filter((id) => id && !document.getElementById(id)?.textContent.trim())",
    );
    assert_eq!(broken, json!([]), "a name that leads nowhere");
    // The first stop of the keyboard leads past the navigation; each stop is seen.
    browser.press("Tab", 9);
    assert_eq!(browser.eval("document.activeElement.className"), "skip");
    let seen = browser.eval("getComputedStyle(document.activeElement).outlineStyle");
    assert_eq!(seen, "solid", "the focus is seen");
    let mut stops = Vec::new();
    for _ in 0..40 {
        browser.press("Tab", 9);
        stops.push(browser.eval("document.activeElement.id || document.activeElement.tagName").to_string());
    }
    for wanted in ["who", "token", "BUTTON", "SUMMARY"] {
        assert!(stops.iter().any(|stop| stop.contains(wanted)), "{wanted} in {stops:?}");
    }
}

#[test]
fn the_files_of_the_page_are_sent_with_a_strict_policy_and_need_no_token() {
    let daemon = Daemon::start();
    for path in
        ["/", "/page/style.css", "/page/main.js", "/page/parts.js", "/page/plots.js", "/page/terminal.js"]
    {
        let reply = http::request(daemon.admin, "GET", path, &[], b"");
        assert_eq!(reply.status, 200, "{path}");
        let policy = reply.header("content-security-policy").expect("a policy").to_owned();
        assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
        assert_eq!(reply.header("x-content-type-options"), Some("nosniff"), "{path}");
        let text = reply.text();
        assert!(!text.contains("http://www.") || text.contains("http://www.w3.org/2000/svg"), "{path}");
        assert!(
            !text.contains("https://") && !text.contains(" style=\"") && !text.contains("onclick"),
            "{path}"
        );
    }
    for path in ["/v1/terminals", "/v1/deliveries", "/v1/jobs", "/v1/status"] {
        assert_eq!(http::request(daemon.admin, "GET", path, &[], b"").status, 401, "{path}");
    }
}

#[test]
fn open_streams_of_events_do_not_hold_up_the_end_of_the_daemon() {
    let mut daemon = Daemon::start();
    let mut browser = open(&daemon);
    browser.await_true(
        "performance.getEntriesByType('resource').some((e) => e.name.endsWith('/page/terminal.js'))",
    );
    let begun = std::time::Instant::now();
    assert!(daemon.terminate().success());
    assert!(begun.elapsed().as_secs() < 8, "{:?}: requests have 10 s", begun.elapsed());
    browser.await_true("document.querySelector('#link').innerText.includes('does not answer')");
}

/// `LTKMD_PAGE=http://127.0.0.1:9470/ cargo test --test page -- --ignored`, after an hour of something to see.
#[test]
#[ignore = "takes the documentation's pictures, of a daemon that runs already"]
fn the_pictures_of_the_documentation_show_a_daemon_at_work() {
    let address = std::env::var("LTKMD_PAGE").expect("LTKMD_PAGE says where the page is");
    let to = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/images");
    let mut browser = Browser::start();
    for (name, width, dark) in [("light", 1100, false), ("phone", 390, true)] {
        browser.look(width, 900, dark);
        browser.open(&address);
        browser.await_true("document.querySelector('#service-rows th')");
        browser.await_true("document.querySelector('#outcome-plot svg')");
        browser.await_true("document.querySelector('.job')");
        let picture = browser.picture_of((0, 0, width, 1900));
        std::fs::write(to.join(format!("page-{name}.png")), picture).expect("written");
    }
    assert_eq!(browser.complaints(), [] as [String; 0]);
}
