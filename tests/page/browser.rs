//! Chromium without a window, told what to do over its debugging pipe (Chrome DevTools Protocol): commands go to its
//! third descriptor, answers and events come from its fourth, each JSON with a zero octet behind it.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use data_encoding::BASE64;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::PATIENCE;

/// What Debian calls it, and others.
const NAMES: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];

/// A browser with one page.
pub(crate) struct Browser {
    child: Child,
    commands: ChildStdin,
    messages: Receiver<Value>,
    events: VecDeque<Value>,
    session: Option<String>,
    number: u64,
    _profile: TempDir,
}

impl Browser {
    /// Starts it with an empty profile, and opens a page.
    pub(crate) fn start() -> Self {
        let found = |name: &&str| {
            let told =
                Command::new(name).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
            told.is_ok_and(|status| status.success())
        };
        let name = NAMES.into_iter().find(found).expect("chromium is installed: apt-get install chromium");
        let profile = tempfile::tempdir().expect("a directory");
        let arguments = format!(
            "--headless=new --no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run --disable-sync \
             --disable-background-networking --disable-component-update --disable-default-apps --disable-extensions \
             --hide-scrollbars --force-color-profile=srgb --lang=en-GB --remote-debugging-pipe \
             --user-data-dir={}",
            profile.path().display()
        );
        // The shell gives the two pipes their numbers.
        let mut child = Command::new("sh")
            .args(["-c", &format!("exec {name} {arguments} 3<&0 4>&1 </dev/null >/dev/null")])
            .env("TZ", "UTC")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the browser is started");
        let commands = child.stdin.take().expect("a pipe");
        let mut answers = BufReader::new(child.stdout.take().expect("a pipe"));
        let (sender, messages) = channel();
        std::thread::spawn(move || {
            let mut octets = Vec::new();
            while answers.read_until(0, &mut octets).is_ok_and(|n| n > 0) {
                octets.pop();
                let message = serde_json::from_slice(&octets).expect("the browser writes JSON");
                if sender.send(message).is_err() {
                    break;
                }
                octets.clear();
            }
        });
        let events = VecDeque::new();
        let mut browser =
            Self { child, commands, messages, events, session: None, number: 0, _profile: profile };
        let target = browser.call("Target.createTarget", json!({"url": "about:blank"}));
        let attach = json!({"targetId": target["targetId"], "flatten": true});
        let attached = browser.call("Target.attachToTarget", attach);
        browser.session = Some(attached["sessionId"].as_str().expect("a session").to_owned());
        for domain in ["Page", "Runtime", "Log", "Network"] {
            browser.call(&format!("{domain}.enable"), json!({}));
        }
        browser
    }

    fn receive(&mut self) -> Value {
        self.messages.recv_timeout(PATIENCE).expect("the browser answers")
    }

    /// A command of the protocol, and what it gives.
    pub(crate) fn call(&mut self, method: &str, parameters: Value) -> Value {
        self.number += 1;
        let mut command = json!({"id": self.number, "method": method, "params": parameters});
        if let Some(session) = &self.session {
            command["sessionId"] = json!(session);
        }
        let mut octets = command.to_string().into_bytes();
        octets.push(0);
        self.commands.write_all(&octets).expect("the browser reads");
        loop {
            let message = self.receive();
            if message["id"] == self.number {
                assert!(message["error"].is_null(), "{method}: {}", message["error"]);
                return message["result"].clone();
            }
            self.events.push_back(message);
        }
    }

    /// A window of this width, in one of the two colour schemes.
    pub(crate) fn look(&mut self, width: u32, height: u32, dark: bool) {
        let phone = width < 600;
        let metrics = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": phone});
        self.call("Emulation.setDeviceMetricsOverride", metrics);
        let scheme = json!({"name": "prefers-color-scheme", "value": if dark { "dark" } else { "light" }});
        let calm = json!({"name": "prefers-reduced-motion", "value": "reduce"});
        self.call("Emulation.setEmulatedMedia", json!({"features": [scheme, calm]}));
    }

    /// Goes to an address.
    pub(crate) fn open(&mut self, address: &str) {
        let went = self.call("Page.navigate", json!({"url": address}));
        assert!(went["errorText"].is_null(), "{address}: {went}");
    }

    /// What a JavaScript expression gives.
    pub(crate) fn eval(&mut self, expression: &str) -> Value {
        let asked = json!({"expression": expression, "returnByValue": true, "awaitPromise": true});
        let told = self.call("Runtime.evaluate", asked);
        assert!(told["exceptionDetails"].is_null(), "{expression}: {}", told["exceptionDetails"]);
        told["result"]["value"].clone()
    }

    /// The text of the first element that a selector finds, as it is read.
    pub(crate) fn text(&mut self, selector: &str) -> String {
        let told = self.eval(&format!("document.querySelector({})?.innerText ?? ''", json!(selector)));
        told.as_str().unwrap_or_default().to_owned()
    }

    /// Waits until an expression is true.
    pub(crate) fn await_true(&mut self, expression: &str) {
        let deadline = Instant::now() + PATIENCE;
        while self.eval(&format!("Boolean({expression})")) != true {
            if Instant::now() > deadline {
                let page = self.text("body");
                panic!("{expression} did not become true; {:?}\n{page}", self.complaints());
            }
            // Leaves the processor to what is waited for; nothing depends on how long.
            std::thread::park_timeout(Duration::from_millis(50));
        }
    }

    /// Types text into the element that has the focus, as a keyboard would.
    pub(crate) fn type_text(&mut self, text: &str) {
        self.call("Input.insertText", json!({"text": text}));
    }

    /// Presses a key.
    pub(crate) fn press(&mut self, key: &str, code: u32) {
        let text = if key == "Enter" { "\r" } else { "" };
        for kind in ["keyDown", "keyUp"] {
            let key =
                json!({"type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code, "text": text});
            self.call("Input.dispatchKeyEvent", key);
        }
    }

    /// A picture of the whole page as it is now, PNG.
    pub(crate) fn picture(&mut self) -> Vec<u8> {
        let told =
            self.call("Page.captureScreenshot", json!({"format": "png", "captureBeyondViewport": true}));
        BASE64.decode(told["data"].as_str().expect("a picture").as_bytes()).expect("base64")
    }

    /// A picture of a part of the page, from left and top so wide and high, PNG.
    pub(crate) fn picture_of(&mut self, (x, y, width, height): (u32, u32, u32, u32)) -> Vec<u8> {
        let clip = json!({"x": x, "y": y, "width": width, "height": height, "scale": 1});
        let asked = json!({"format": "png", "captureBeyondViewport": true, "clip": clip});
        let told = self.call("Page.captureScreenshot", asked);
        BASE64.decode(told["data"].as_str().expect("a picture").as_bytes()).expect("base64")
    }

    /// What the browser complained of: exceptions, errors and warnings on the console, what the policy forbade.
    /// Answers of the admin API that refuse are the test's own business.
    pub(crate) fn complaints(&mut self) -> Vec<String> {
        self.events.extend(self.messages.try_iter());
        let complaint = |event: &Value| {
            let parameters = &event["params"];
            let entry = &parameters["entry"];
            match event["method"].as_str()? {
                "Runtime.exceptionThrown" => true,
                "Runtime.consoleAPICalled" => {
                    matches!(parameters["type"].as_str()?, "error" | "warning" | "assert")
                }
                "Log.entryAdded" => {
                    let api = entry["url"].as_str().is_some_and(|url| url.contains("/v1/"));
                    !(entry["source"] == "network" && api)
                        && entry["level"] != "verbose"
                        && entry["level"] != "info"
                }
                _ => false,
            }
            .then(|| event.to_string())
        };
        self.events.iter().filter_map(complaint).collect()
    }

    /// The addresses that were asked for so far.
    pub(crate) fn requested(&mut self) -> Vec<String> {
        self.events.extend(self.messages.try_iter());
        let request = |event: &Value| {
            let asked = event["method"] == "Network.requestWillBeSent";
            asked.then(|| event["params"]["request"]["url"].as_str().unwrap_or_default().to_owned())
        };
        self.events.iter().filter_map(request).collect()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
