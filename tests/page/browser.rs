//! The page in headless Chromium: what is on it, keys and clicks, and what the browser complains
//! of.
//!
//! A server in, a tab out. Waits on conditions of the page, with a deadline. Knows nothing of what
//! the page is to show.
//!
//! Invariant: each test has a browser of its own, with an empty profile.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::devtools::DevTools;
use crate::harness::{Server, tool, wait_until};

/// Options that keep it from looking for anything but the page, and work in a container, which has
/// neither a sandbox of Chromium's kind nor much shared memory.
const OPTIONS: [&str; 13] = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-extensions",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    "--remote-debugging-port=0",
    "about:blank",
];
/// The file in its profile that says where it is listening.
const PORT_FILE: &str = "DevToolsActivePort";

const AXE: &str = include_str!("axe.min.js");
/// Violations that matter, one a line.
const RUN_AXE: &str = "axe.run(document, {runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa']})
    .then(it => it.violations.map(rule => rule.id + ': ' + rule.nodes.map(node => node.html)
        .slice(0, 3).join(' | ')).join('\\n'))";

/// A tab with the page in it.
pub(crate) struct View {
    tools: DevTools,
    own: String,
    browser: Child,
    _profile: TempDir,
}

/// Where a server has HTTP.
pub(crate) fn http_address(server: &Server) -> String {
    server.wait_for_log("HTTP on ", |place| Some(place.trim().to_owned()))
}

impl View {
    /// Opens the page of a server; `None` without a Chromium.
    pub(crate) fn open(server: &Server, path: &str, (width, height): (u32, u32)) -> Option<Self> {
        let chromium: PathBuf = tool("chromium")?;
        let profile = tempfile::tempdir().expect("a folder");
        let mut command = Command::new(chromium);
        command.args(OPTIONS).arg(format!("--user-data-dir={}", profile.path().display()));
        command.env("HOME", profile.path()).stdin(Stdio::null());
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let browser = command.spawn().expect("Chromium starts");
        let port = wait_until("Chromium to listen", || {
            let text = fs::read_to_string(profile.path().join(PORT_FILE)).ok()?;
            text.lines().next()?.parse().ok()
        });
        let tools = DevTools::connect(port);
        for domain in ["Page", "Runtime", "Log", "Network"] {
            tools.call(&format!("{domain}.enable"), json!({}));
        }
        // Headless windows are wider than a phone.
        let metrics =
            json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        tools.call("Emulation.setDeviceMetricsOverride", metrics);
        let own = format!("http://{}/", http_address(server));
        let view = Self { tools, own, browser, _profile: profile };
        let url = format!("{}{}", view.own, path.trim_start_matches('/'));
        view.tools.call("Page.navigate", json!({"url": url}));
        let is_loaded = "document.readyState === 'complete' && location.protocol === 'http:'";
        view.wait("the page to load", is_loaded);
        Some(view)
    }

    /// What a JavaScript expression is, or what its promise becomes.
    pub(crate) fn eval(&self, script: &str) -> Value {
        let wanted = json!({"expression": script, "awaitPromise": true, "returnByValue": true});
        let result = self.tools.call("Runtime.evaluate", wanted);
        assert!(result.get("exceptionDetails").is_none(), "{script}: {result}");
        result["result"]["value"].clone()
    }

    pub(crate) fn text(&self, script: &str) -> String {
        match self.eval(script) {
            Value::String(text) => text,
            other => other.to_string(),
        }
    }

    /// Waits until an expression is true.
    pub(crate) fn wait(&self, what: &str, script: &str) {
        wait_until(what, || (self.eval(script) == Value::Bool(true)).then_some(()));
    }

    /// Presses a key: Tab, Enter or Escape.
    pub(crate) fn key(&self, key: &str) {
        let (code, text) = match key {
            "Tab" => (9, ""),
            "Enter" => (13, "\r"),
            "Escape" => (27, ""),
            other => panic!("no key {other}"),
        };
        let down = if text.is_empty() { "rawKeyDown" } else { "keyDown" };
        for kind in [down, "keyUp"] {
            let event = json!({"type": kind, "key": key, "code": key, "text": text,
                "windowsVirtualKeyCode": code, "nativeVirtualKeyCode": code});
            self.tools.call("Input.dispatchKeyEvent", event);
        }
    }

    pub(crate) fn type_text(&self, text: &str) {
        for character in text.chars() {
            let event = json!({"type": "char", "text": character.to_string()});
            self.tools.call("Input.dispatchKeyEvent", event);
        }
    }

    /// Presses Tab until the element in focus fulfils a condition on `it`.
    pub(crate) fn tab_to(&self, condition: &str) {
        for _ in 0..200 {
            let script = format!("(it => {condition})(document.activeElement)");
            if self.eval(&script) == Value::Bool(true) {
                return;
            }
            self.key("Tab");
        }
        panic!("no key leads to {condition}");
    }

    pub(crate) fn prefer_dark(&self) {
        let features = json!([{"name": "prefers-color-scheme", "value": "dark"}]);
        self.tools.call("Emulation.setEmulatedMedia", json!({"features": features}));
    }

    /// Fails if axe finds that people with disabilities can't use what is there.
    pub(crate) fn check_accessibility(&self, what: &str) {
        // Without the page's policy, which forbids foreign scripts: evaluated, not loaded.
        self.eval(&format!("{AXE}; true"));
        assert_eq!(self.text(RUN_AXE), "", "{what}");
    }

    /// Fails if something is wider than the window.
    pub(crate) fn check_width(&self, what: &str) {
        let wider = "document.documentElement.scrollWidth - document.documentElement.clientWidth";
        assert_eq!(self.eval(wider), 0, "{what} scrolls sideways");
    }

    /// Bytes that the page's script holds, and the number of nodes on the page.
    pub(crate) fn memory(&self) -> (f64, f64) {
        self.tools.call("Performance.enable", json!({}));
        self.tools.call("HeapProfiler.collectGarbage", json!({}));
        let metrics = self.tools.call("Performance.getMetrics", json!({}));
        let value = |name: &str| {
            let mut metrics = metrics["metrics"].as_array().expect("numbers").iter();
            let found = metrics.find(|it| it["name"] == name).expect("a number of that name");
            found["value"].as_f64().expect("a number")
        };
        (value("JSHeapUsedSize"), value("Nodes"))
    }

    /// Writes a picture, if `PAGE_PICTURES` names a folder for it.
    pub(crate) fn picture(&self, name: &str) {
        let Some(folder) = std::env::var_os("PAGE_PICTURES") else { return };
        let picture = self.tools.call("Page.captureScreenshot", json!({}));
        let picture = picture["data"].as_str().expect("a picture");
        let path = PathBuf::from(folder).join(format!("{name}.png"));
        fs::write(path, from_base64(picture)).expect("a folder that can be written to");
    }

    /// Fails if the browser complained, or the page asked for something of another host.
    pub(crate) fn check_console(&self) {
        let complaints: Vec<String> =
            self.tools.events().iter().filter_map(|event| complaint(event, &self.own)).collect();
        assert!(complaints.is_empty(), "{complaints:#?}");
    }
}

impl Drop for View {
    fn drop(&mut self) {
        // All of its processes end with the first.
        drop(self.browser.kill());
        drop(self.browser.wait());
    }
}

/// What an event says that shouldn't happen.
fn complaint(event: &Value, own: &str) -> Option<String> {
    let (name, parameters) = (event["method"].as_str()?, &event["params"]);
    match name {
        "Log.entryAdded" | "Runtime.consoleAPICalled" | "Runtime.exceptionThrown" => {
            Some(event.to_string())
        }
        "Network.requestWillBeSent" => {
            let url = parameters["request"]["url"].as_str()?;
            let is_own = url.starts_with(own) || url.starts_with("data:");
            (!is_own).then(|| format!("a request for {url}"))
        }
        "Network.responseReceived" => {
            let response = &parameters["response"];
            let status = response["status"].as_i64()?;
            (status >= 400).then(|| format!("{status} of {}", response["url"]))
        }
        _ => None,
    }
}

/// The bytes of base64 with padding, as DevTools sends them.
fn from_base64(text: &str) -> Vec<u8> {
    base64::Engine::decode(&base64::engine::general_purpose::STANDARD, text).expect("base64")
}
