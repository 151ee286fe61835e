//! The page in headless Chromium: what is on it, keys and clicks, and what the browser complains
//! of.
//!
//! A server in, a tab out. Waits on conditions of the page, with a deadline. Knows nothing of what
//! the page is to show.
//!
//! Invariant: each test has a browser of its own, with an empty profile.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use headless_chrome::protocol::cdp::types::Event;
use headless_chrome::protocol::cdp::{Emulation, HeapProfiler, Network, Page, Performance};
use headless_chrome::{Browser, LaunchOptions, Tab};
use serde_json::Value;

use crate::harness::{Server, tool, wait_until};

/// Options that keep it from looking for anything but the page.
const QUIET: [&str; 7] = [
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
];
/// Of the whole browser, when nothing is asked of it.
const IDLE: Duration = Duration::from_secs(3700);

const AXE: &str = include_str!("axe.min.js");
/// Violations that matter, one a line.
const RUN_AXE: &str = "axe.run(document, {runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa']})
    .then(it => it.violations.map(rule => rule.id + ': ' + rule.nodes.map(node => node.html)
        .slice(0, 3).join(' | ')).join('\\n'))";

/// A tab with the page in it.
pub(crate) struct View {
    tab: Arc<Tab>,
    complaints: Arc<Mutex<Vec<String>>>,
    _browser: Browser,
}

/// Where a server has HTTP.
pub(crate) fn http_address(server: &Server) -> String {
    server.wait_for_log("HTTP on ", |place| Some(place.trim().to_owned()))
}

impl View {
    /// Opens the page of a server; `None` without a Chromium.
    pub(crate) fn open(server: &Server, path: &str, size: (u32, u32)) -> Option<Self> {
        let chromium: PathBuf = tool("chromium")?;
        let options = LaunchOptions {
            // Containers have no user namespaces for it; the page is this project's own.
            sandbox: false,
            path: Some(chromium),
            window_size: Some(size),
            args: QUIET.iter().map(OsStr::new).collect(),
            idle_browser_timeout: IDLE,
            ..LaunchOptions::default()
        };
        let browser = Browser::new(options).expect("Chromium starts");
        let tab = browser.new_tab().expect("a tab");
        let complaints = Arc::<Mutex<Vec<String>>>::default();
        let address = http_address(server);
        let (noted, own) = (Arc::clone(&complaints), format!("http://{address}/"));
        tab.enable_log().expect("the log");
        tab.enable_runtime().expect("the console");
        tab.call_method(enable_network()).expect("requests");
        let listener = move |event: &Event| {
            let complaint = complaint(event, &own);
            noted.lock().expect("no panic").extend(complaint);
        };
        tab.add_event_listener(Arc::new(listener)).expect("a listener");
        // Headless windows are wider than a phone.
        let metrics = Emulation::SetDeviceMetricsOverride {
            width: size.0,
            height: size.1,
            device_scale_factor: 1.0,
            mobile: false,
            scale: None,
            screen_width: None,
            screen_height: None,
            position_x: None,
            position_y: None,
            dont_set_visible_size: None,
            screen_orientation: None,
            viewport: None,
            display_feature: None,
            device_posture: None,
        };
        tab.call_method(metrics).expect("a size");
        tab.navigate_to(&format!("http://{address}{path}")).expect("the page loads");
        tab.wait_until_navigated().expect("the page loads");
        Some(Self { tab, complaints, _browser: browser })
    }

    /// What a JavaScript expression is, or what its promise becomes.
    pub(crate) fn eval(&self, script: &str) -> Value {
        let object = self.tab.evaluate(script, true);
        object.unwrap_or_else(|error| panic!("{script}: {error}")).value.unwrap_or_default()
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

    pub(crate) fn key(&self, key: &str) {
        self.tab.press_key(key).expect("a key");
    }

    pub(crate) fn type_text(&self, text: &str) {
        self.tab.type_str(text).expect("keys");
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
        let features = vec![Emulation::MediaFeature {
            name: "prefers-color-scheme".to_owned(),
            value: "dark".to_owned(),
        }];
        let media = Emulation::SetEmulatedMedia { media: None, features: Some(features) };
        self.tab.call_method(media).expect("a colour scheme");
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
        self.tab.call_method(HeapProfiler::CollectGarbage(None)).expect("a collection");
        let metrics = self.tab.call_method(Performance::GetMetrics(None)).expect("numbers");
        let value = |name: &str| {
            let mut metrics = metrics.metrics.iter();
            metrics.find(|it| it.name == name).map_or(0.0, |it| it.value)
        };
        (value("JSHeapUsedSize"), value("Nodes"))
    }

    /// Begins to count for `memory`.
    pub(crate) fn count_memory(&self) {
        let enable = Performance::Enable { time_domain: None };
        self.tab.call_method(enable).expect("numbers");
    }

    /// Writes a picture, if `PAGE_PICTURES` names a folder for it.
    pub(crate) fn picture(&self, name: &str) {
        let Some(folder) = std::env::var_os("PAGE_PICTURES") else { return };
        let format = Page::CaptureScreenshotFormatOption::Png;
        let picture = self.tab.capture_screenshot(format, None, None, true).expect("a picture");
        let path = PathBuf::from(folder).join(format!("{name}.png"));
        std::fs::write(path, picture).expect("a folder that can be written to");
    }

    /// Fails if the browser complained, or the page asked for something of another host.
    pub(crate) fn check_console(&self) {
        let complaints = self.complaints.lock().expect("no panic");
        assert!(complaints.is_empty(), "{complaints:#?}");
    }
}

fn enable_network() -> Network::Enable {
    Network::Enable {
        max_total_buffer_size: None,
        max_resource_buffer_size: None,
        max_post_data_size: None,
        report_direct_socket_traffic: None,
        enable_durable_messages: None,
    }
}

/// What an event says that shouldn't happen.
fn complaint(event: &Event, own: &str) -> Option<String> {
    match event {
        Event::LogEntryAdded(entry) => Some(format!("{:?}", entry.params.entry)),
        Event::RuntimeConsoleAPICalled(call) => Some(format!("{:?}", call.params)),
        Event::RuntimeExceptionThrown(thrown) => Some(format!("{:?}", thrown.params)),
        Event::NetworkRequestWillBeSent(request) => {
            let url = &request.params.request.url;
            let is_own = url.starts_with(own) || url.starts_with("data:");
            (!is_own).then(|| format!("a request for {url}"))
        }
        Event::NetworkResponseReceived(response) => {
            let response = &response.params.response;
            (response.status >= 400).then(|| format!("{} of {}", response.status, response.url))
        }
        _ => None,
    }
}
