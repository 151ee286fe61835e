//! The page for operators, as people use it: in headless Chromium, against a real server that
//! works.
//!
//! Without a Chromium the tests are skipped, which is told at the end and fails under `CI=true`.
//! `PAGE_PICTURES=FOLDER` keeps pictures of what was looked at.

mod browser;
mod devtools;

#[path = "../support/child.rs"]
#[allow(dead_code)]
mod child;
#[path = "../server/conn.rs"]
#[allow(dead_code)]
mod conn;
#[path = "../server/harness.rs"]
#[allow(dead_code, unused_macros, unused_imports)]
mod harness;
#[path = "../server/skips.rs"]
#[allow(dead_code)]
mod skips;

use std::time::{Duration, Instant};

use tempfile::NamedTempFile;

use self::browser::View;
use self::conn::{Conn, Item};
use self::harness::{Server, wait_until};

const WIDE: (u32, u32) = (1440, 1000);
const PHONE: (u32, u32) = (360, 800);

/// The rows that are shown, as text.
const ROWS: &str = "[...document.querySelectorAll('#list tbody tr')].map(it => it.innerText)";

fn start() -> Server {
    Server::start_ringgear("epoll", 0, &["--threads", "2", "--http", "127.0.0.1:0"])
}

const FUNCTIONS: &str = r#"
[[function]]
match = "once"
attempts = 1

[[function]]
match = "slow"
attempts = 5
backoff = { first = "1h", jitter = 0.0 }
"#;

/// A server whose functions have policies; the file is needed as long.
fn start_with_policies() -> (Server, NamedTempFile) {
    let file = NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), FUNCTIONS).expect("written");
    let option = format!("--functions-file={}", file.path().display());
    let options = ["--threads", "2", "--http", "127.0.0.1:0", &option];
    (Server::start_ringgear("epoll", 0, &options), file)
}

/// Submits background jobs; returns their handles.
fn submit(server: &Server, function: &str, jobs: usize) -> Vec<String> {
    let mut client = Conn::open(server.address());
    let submitted = (0..jobs).map(|_| {
        client.packet("SUBMIT_JOB_BG", &[function.as_bytes(), b"", b"payload"]);
        let Ok(Item::Packet(8, handle)) = client.next() else { panic!("no JOB_CREATED") };
        String::from_utf8(handle).expect("a handle is text")
    });
    submitted.collect()
}

/// A worker that is registered for functions.
fn worker(server: &Server, functions: &[&str]) -> Conn {
    let mut worker = Conn::open(server.address());
    worker.packet("SET_CLIENT_ID", &[b"worker-1"]);
    for function in functions {
        worker.packet("CAN_DO", &[function.as_bytes()]);
    }
    worker.sync().expect("registered");
    worker
}

/// Three functions that work, as a shop has them.
fn shop(server: &Server) -> Vec<Conn> {
    let mut workers = vec![worker(server, &["mail", "thumbnail"]), worker(server, &["mail"])];
    submit(server, "mail", 3);
    submit(server, "thumbnail", 2);
    submit(server, "index", 1);
    for _ in 0..2 {
        workers[0].packet("GRAB_JOB", &[]);
        assert!(matches!(workers[0].next(), Ok(Item::Packet(11, _))));
    }
    workers
}

fn rows(count: usize) -> String {
    format!("document.querySelectorAll('#list tbody tr').length === {count}")
}

fn row_with(text: &str) -> String {
    format!("{ROWS}.some(it => it.includes({}))", serde_json::json!(text))
}

#[test]
fn each_column_sorts_both_ways_and_keeps_the_focus() {
    let server = start();
    let _workers = shop(&server);
    let Some(view) = View::open(&server, "/", WIDE) else { return };
    view.wait("three functions", &rows(3));
    let headers = view.text("[...document.querySelectorAll('#list thead th')].length");
    let headers: usize = headers.parse().expect("a number");
    assert!(headers >= 5);
    for header in 0..headers {
        let button = format!("document.querySelectorAll('#list thead th')[{header}]");
        let sorted = format!("{button}.getAttribute('aria-sort')");
        let mut seen = Vec::new();
        for _ in 0..2 {
            view.eval(&format!("{button}.querySelector('button').focus()"));
            view.key("Enter");
            view.wait(
                "the sort",
                &format!(
                    "/^(ascending|descending)$/.test({sorted}) && {sorted} !== '{}'",
                    seen.last().cloned().unwrap_or_default()
                ),
            );
            view.wait(
                "the focus",
                &format!("document.activeElement === {button}.querySelector('button')"),
            );
            seen.push(view.text(&sorted));
        }
        assert_ne!(seen[0], seen[1], "column {header}");
    }
    // By name, both ways.
    let names = "[...document.querySelectorAll('#list tbody tr')]\
        .map(it => it.querySelector('a, button').innerText).join()";
    let header = "document.querySelector('#list thead th button')";
    view.eval(&format!("{header}.click()"));
    wait_until("both orders", || {
        let before = view.text(names);
        view.eval(&format!("{header}.click()"));
        view.wait("another order", &format!("{names} !== {}", serde_json::json!(before)));
        let both = [before, view.text(names)];
        (both.contains(&"index,mail,thumbnail".to_owned())
            && both.contains(&"thumbnail,mail,index".to_owned()))
        .then_some(())
    });
    view.check_console();
}

#[test]
fn a_filter_finds_one_of_twenty_thousand_functions_and_stays_in_the_address() {
    let server = start();
    let mut worker = Conn::open(server.address());
    for n in 0..20_000 {
        worker.packet("CAN_DO", &[format!("function-{n:05}").as_bytes()]);
    }
    worker.sync().expect("registered");
    let Some(view) = View::open(&server, "/", WIDE) else { return };
    view.wait("fifty rows", "document.querySelectorAll('#list tbody tr').length >= 50");
    view.wait("the number of all", "/20.?000/.test(document.querySelector('#count').innerText)");
    view.picture("many");
    view.tab_to("it.matches('input') && /^Filter/.test(it.ariaLabel || it.labels[0].innerText)");
    view.type_text("function-19999");
    view.wait("the row", &format!("{} && {}", rows(1), row_with("function-19999")));
    view.wait("the address", "location.search.includes('function-19999')");
    let address = view.text("location.pathname + location.search");
    let Some(again) = View::open(&server, &address, WIDE) else { return };
    again.wait("the same row", &format!("{} && {}", rows(1), row_with("function-19999")));
    again.check_console();
    view.check_console();
}

#[test]
fn what_changes_on_the_server_shows_on_the_page() {
    let server = start();
    let mut workers = shop(&server);
    let Some(view) = View::open(&server, "/", WIDE) else { return };
    view.wait("three functions", &rows(3));
    submit(&server, "fresh", 4);
    view.wait("a new function", &row_with("fresh"));
    // Both workers of mail stop, with jobs left.
    workers.clear();
    let alarm = "[...document.querySelectorAll('#alarm-list li')].some(it => \
        it.innerText.includes('mail') && it.innerText.includes('no workers'))";
    view.wait("the alarm", alarm);
    view.picture("alarm");
    view.check_console();
}

#[test]
fn a_job_is_cancelled_by_keyboard_alone() {
    let server = start();
    let handles = submit(&server, "mail", 3);
    let Some(view) = View::open(&server, "/", WIDE) else { return };
    view.wait("the function", &row_with("mail"));
    view.tab_to("it.matches('#list a, #list tbody button') && it.innerText === 'mail'");
    view.key("Enter");
    view.wait("its jobs", &row_with(&handles[1]));
    let of_second = format!(
        "it.matches('button') && it.innerText.startsWith('Cancel') && \
         !!it.closest('tr') && it.closest('tr').innerText.includes({})",
        serde_json::json!(handles[1])
    );
    view.tab_to(&of_second);
    view.key("Enter");
    view.wait("the dialog", "document.querySelector('dialog').open");
    view.picture("cancel");
    view.check_accessibility("the dialog");
    view.key("Escape");
    view.wait("no dialog", "!document.querySelector('dialog').open");
    assert!(server.admin("show jobs").contains(&handles[1]), "Escape cancels nothing");
    view.tab_to(&of_second);
    view.key("Enter");
    view.wait("the dialog", "document.querySelector('dialog').open");
    view.tab_to("it.matches('button') && it.innerText === 'Cancel job'");
    view.key("Enter");
    view.wait("the row to go", &format!("!{}", row_with(&handles[1])));
    wait_until("the job to go", || {
        (!server.admin("show jobs").contains(&handles[1])).then_some(())
    });
    assert!(server.admin("show jobs").contains(&handles[0]));
    view.check_console();
}

/// A browser tells that a dialog was closed in a later task. A dialog that had been opened again by
/// then lost its contents, and its button did nothing.
#[test]
fn a_dialog_that_is_opened_again_at_once_does_what_it_says() {
    let server = start();
    let handles = submit(&server, "mail", 1);
    let Some(view) = View::open(&server, "/?view=jobs&function=mail", WIDE) else { return };
    view.wait("the job", &row_with(&handles[0]));
    view.eval(
        "(() => {
            const cancel = document.querySelector('#list tbody button');
            cancel.click();
            document.querySelector('#dialog-leave').click();
            cancel.click();
        })()",
    );
    // The event is a task of its own, before this one.
    view.eval("new Promise((resolve) => setTimeout(resolve, 0))");
    view.eval("document.querySelector('#dialog-confirm').click()");
    view.wait("the row to go", &format!("!{}", row_with(&handles[0])));
    view.check_console();
}

/// Submits jobs that fail for good at a worker of their own.
fn kill(server: &Server, function: &str, jobs: usize) -> Vec<String> {
    let mut worker = worker(server, &[function]);
    let handles = submit(server, function, jobs);
    for handle in &handles {
        worker.packet("GRAB_JOB", &[]);
        assert!(matches!(worker.next(), Ok(Item::Packet(11, _))));
        worker.packet("WORK_EXCEPTION", &[handle.as_bytes(), b"no such <b>file</b>"]);
    }
    worker.sync().expect("it lives");
    handles
}

const OPEN: &str = "document.querySelector('dialog').open";

#[test]
fn dead_letters_are_requeued_and_dropped_by_keyboard_alone() {
    let (server, _file) = start_with_policies();
    let handles = kill(&server, "once", 3);
    let Some(view) = View::open(&server, "/", WIDE) else { return };
    view.tab_to("it.id === 'nav-dead'");
    view.key("Enter");
    view.wait("the letters", &format!("{} && {}", rows(3), row_with("no such <b>file</b>")));
    // One is requeued.
    view.tab_to(&format!(
        "it.matches('#list button') && it.innerText.startsWith('Requeue') && \
         it.closest('tr').innerText.includes({})",
        serde_json::json!(handles[1])
    ));
    view.key("Enter");
    view.wait("the dialog", OPEN);
    view.check_accessibility("the dialog");
    view.picture("requeue");
    view.tab_to("it.id === 'dialog-confirm' && it.innerText === 'Requeue 1 dead letter'");
    view.key("Enter");
    view.wait("the row to go", &rows(2));
    wait_until("the job", || server.admin("show jobs").contains(&handles[1]).then_some(()));
    // The others are dropped; the function has no more then.
    view.tab_to("it.matches('#actions button') && it.innerText === 'Drop 2…'");
    view.key("Enter");
    view.wait("the dialog", OPEN);
    view.tab_to("it.id === 'dialog-confirm' && it.innerText === 'Drop 2 dead letters'");
    view.key("Enter");
    view.wait("no rows", "!document.querySelector('#empty').hidden");
    assert!(!server.admin("show jobs").contains(&handles[0]));
    view.check_console();
}

#[test]
fn a_function_is_paused_and_resumed_and_a_retry_starts_at_once() {
    let (server, _file) = start_with_policies();
    let mut worker = worker(&server, &["slow"]);
    let handle = submit(&server, "slow", 1).remove(0);
    worker.packet("GRAB_JOB", &[]);
    assert!(matches!(worker.next(), Ok(Item::Packet(11, _))));
    worker.packet("WORK_FAIL", &[handle.as_bytes()]);
    let Some(view) = View::open(&server, "/?view=jobs&function=slow", WIDE) else { return };
    view.wait("the retry", &row_with("fail, in 59 min"));
    view.picture("retrying");
    view.tab_to("it.matches('#list button') && it.innerText === 'Run now'");
    view.key("Enter");
    view.wait("it waits for a worker", &row_with("waiting"));
    view.tab_to("it.matches('#actions button') && it.innerText === 'Pause…'");
    view.key("Enter");
    view.wait("the dialog", OPEN);
    view.check_accessibility("the dialog");
    view.picture("pause");
    view.tab_to("it.id === 'dialog-confirm'");
    view.key("Enter");
    view.wait("the pause", "document.querySelector('#summary').innerText.includes('paused')");
    worker.packet("GRAB_JOB", &[]);
    assert!(matches!(worker.next(), Ok(Item::Packet(10, _))), "NO_JOB");
    view.tab_to("it.id === 'nav-functions'");
    view.key("Enter");
    view.wait("the mark", "document.querySelector('#list .tag')?.innerText.includes('paused')");
    let calm = "document.querySelector('#alarm-count').innerText === 'No alarms'";
    view.wait("no alarm", calm);
    view.picture("paused");
    view.tab_to("it.matches('#list a')");
    view.key("Enter");
    view.wait("its jobs", &row_with("waiting"));
    view.tab_to("it.matches('#actions button') && it.innerText === 'Resume'");
    view.key("Enter");
    view.wait("no pause", "!document.querySelector('#summary').innerText.includes('paused')");
    worker.packet("GRAB_JOB", &[]);
    assert!(matches!(worker.next(), Ok(Item::Packet(11, _))));
    view.check_console();
}

#[test]
fn the_page_is_accessible_in_both_colours_on_every_view_and_on_a_phone() {
    let (server, _file) = start_with_policies();
    let _workers = shop(&server);
    kill(&server, "once", 2);
    assert_eq!(server.admin("pause function index"), "OK\n");
    let views = [
        "/?view=functions",
        "/?view=jobs&function=mail",
        "/?view=workers",
        "/?view=dead",
        "/?view=dead&function=once",
        "/?view=server",
    ];
    for size in [WIDE, PHONE] {
        for path in views {
            let Some(view) = View::open(&server, path, size) else { return };
            view.wait("numbers", "document.querySelector('#t-running').innerText === '2'");
            for colours in ["light", "dark"] {
                if colours == "dark" {
                    view.prefer_dark();
                }
                let what = format!("{path} in {colours} at {}", size.0);
                view.check_accessibility(&what);
                view.check_width(&what);
                let name = path.trim_start_matches("/?view=").replace(['&', '='], "-");
                view.picture(&format!("{name}-{colours}-{}", size.0));
            }
            view.check_console();
        }
    }
}

/// Has the page hear of three servers on one database, of which it has loaded one; the server under
/// test has none.
const SEVERAL_SERVERS: &str = r#"(() => {
    const ask = window.fetch;
    const rows = [
        { id: 0, state: 'owned', name: 'web-1', address: 'web-1.example:4730', generation: 3,
            beat_age_seconds: 0.4, jobs: 1200 },
        { id: 1, state: 'owned', name: 'web-2', address: 'web-2.example:4730', generation: 1,
            beat_age_seconds: 0.9, jobs: 31 },
        { id: 2, state: 'offered', name: '<b>web-3</b>', address: null, generation: 7,
            beat_age_seconds: 2.2, jobs: 1 },
        { id: 3, state: 'free', name: null, address: null, generation: 2,
            beat_age_seconds: null, jobs: 0 },
    ];
    window.membership = { partitions: 4, own: [0], suspended: false, adopted: 0, lost: 0,
        orphaned: 0 };
    window.fetch = async (path, how) => {
        if (path.startsWith('/api/v1/cluster')) {
            return new Response(JSON.stringify({ partitions: rows, total: 4, next: null }));
        }
        const answer = await ask(path, how);
        if (!path.startsWith('/api/v1/server')) return answer;
        const server = await answer.json();
        return new Response(JSON.stringify({ ...server, cluster: window.membership }));
    };
    // Events would tell what the server knows.
    source.close();
    window.EventSource = class { addEventListener() {} close() {} };
    connect();
})()"#;

#[test]
fn several_servers_on_one_database_are_listed_and_raise_alarms() {
    let server = start();
    for size in [WIDE, PHONE] {
        let Some(view) = View::open(&server, "/?view=server", size) else { return };
        let cards = "[...document.querySelectorAll('#server .card')].map(it => it.innerText)";
        view.wait("cards", &format!("{cards}.some(it => it.startsWith('Process'))"));
        let titled = format!("{cards}.filter(it => it.startsWith('Servers'))");
        assert_eq!(view.eval(&format!("{titled}.length")), 0, "there is one server");
        view.eval(SEVERAL_SERVERS);
        view.wait("the servers", &format!("{titled}.length === 1"));
        let rows = "[...document.querySelectorAll('#server .card')]\
            .find(it => it.innerText.startsWith('Servers')).querySelectorAll('dl div')";
        let rows = view.text(&format!("[...{rows}].map(it => it.innerText).join('|')"));
        let expected = "0 web-1\nthis server, owned, web-1.example:4730, beat 400 ms ago, \
            1\u{202f}200 jobs|\
            1 web-2\nowned, web-2.example:4730, beat 900 ms ago, 31 jobs|\
            2 <b>web-3</b>\noffered, beat 2.2 s ago, 1 job|\
            3 –\nfree, 0 jobs";
        assert_eq!(rows, expected);
        let alarms = "document.querySelector('#alarm-list').innerText";
        assert_eq!(view.text(alarms), "");
        view.eval("Object.assign(membership, { suspended: true, orphaned: 2 }); 0");
        view.wait("both alarms", &format!("/Suspended/.test({alarms}) && /2 part/.test({alarms})"));
        view.picture(&format!("servers-{}", size.0));
        view.check_accessibility("the servers");
        view.check_width("the servers");
        view.check_console();
    }
}

#[test]
fn hostile_names_are_shown_and_never_run() {
    let server = start();
    let hostile =
        ["<img src=x onerror=window.ran=1>", "\"'><script>ran=1</script>", "a\nb", "../x"];
    for name in hostile {
        submit(&server, name, 1);
    }
    let mut client = Conn::open(server.address());
    client.packet("SUBMIT_JOB_BG", &[b"\xff\xfe", b"<b>", b"<i>"]);
    client.next().expect("an answer");
    let Some(view) = View::open(&server, "/", WIDE) else { return };
    view.wait("five functions", &rows(5));
    view.wait("the name", &row_with("<img src=x onerror=window.ran=1>"));
    view.eval(
        "[...document.querySelectorAll('#list tbody a')]\
         .find(it => it.innerText.startsWith('<img')).click()",
    );
    view.wait("its job", &row_with("H:"));
    assert_eq!(view.text("typeof window.ran"), "undefined");
    assert_eq!(view.eval("document.querySelectorAll('img, script:not([src])').length"), 0);
    view.check_console();
}

/// A page is left open for weeks.
#[test]
fn the_page_takes_no_more_memory_the_longer_it_is_open() {
    let seconds = std::env::var("PAGE_SECONDS").ok().and_then(|it| it.parse().ok());
    let seconds = Duration::from_secs(seconds.unwrap_or(20));
    let server = start();
    let Some(view) = View::open(&server, "/", WIDE) else { return };
    let mut worker = worker(&server, &["mail"]);
    let mut client = Conn::open(server.address());
    // Each round changes what the page shows.
    let mut work = |until: Instant| {
        while Instant::now() < until {
            client.packet("SUBMIT_JOB_BG", &[b"mail", b"", b"x"]);
            let Ok(Item::Packet(8, handle)) = client.next() else { panic!("no JOB_CREATED") };
            worker.packet("GRAB_JOB", &[]);
            assert!(matches!(worker.next(), Ok(Item::Packet(11, _))));
            worker.packet("WORK_COMPLETE", &[&handle, b""]);
            worker.sync().expect("it lives");
        }
    };
    let start = Instant::now();
    work(start + seconds / 2);
    let (bytes_before, nodes_before) = view.memory();
    work(start + seconds);
    let (bytes, nodes) = view.memory();
    assert!(bytes_before > 0.0 && nodes_before > 0.0);
    assert!(bytes < bytes_before * 1.1 + 1e6, "{bytes_before} bytes became {bytes}");
    assert!(nodes < nodes_before * 1.1 + 50.0, "{nodes_before} nodes became {nodes}");
    view.check_console();
}

#[test]
fn the_page_is_small_and_of_one_piece() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/ops/page");
    let files = std::fs::read_dir(folder).expect("the page's folder").flatten();
    let sizes = files.map(|file| file.metadata().expect("a file").len());
    let bytes: u64 = sizes.sum();
    assert!(bytes > 0 && bytes <= 60 << 10, "{bytes} bytes are more than 60 KiB");
}
