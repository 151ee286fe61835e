//! Clients that people have: curl, and PHP without any extension.

use super::{path, start, worker};
use crate::harness::{Contender, each_ringgear, tool};
use crate::tools::{has, run};

each_ringgear!(curl_submits_and_waits, php_submits_and_waits);

fn curl_submits_and_waits(contender: Contender) {
    if tool("curl").is_none() {
        return;
    }
    let (server, http) = start(contender, &[]);
    worker::start(server.address());
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("payload");
    let large = "0123456789".repeat(300_000);
    std::fs::write(&file, &large).expect("a file");
    let from_file = format!("@{}", file.display());
    let cases: &[(&str, &[&str], &str)] = &[
        ("reverse", &["-d", "abc"], "cba 200"),
        ("fail", &["-d", "abc", "-o", "/dev/null"], " 502"),
        ("nothing", &["-d", "abc", "-o", "/dev/null", "-H", "Prefer: wait=0"], " 504"),
        ("bg", &["-d", "a", "-o", "/dev/null", "-H", "Prefer: respond-async"], " 202"),
        ("parts?stream=1", &["-d", ""], "one two three 200"),
        // With `Expect: 100-continue`.
        ("reverse", &["--data-binary", &from_file], &format!("{} 200", reversed(&large))),
    ];
    for (function, options, expected) in cases {
        let (name, query) = function.split_once('?').unwrap_or((function, ""));
        let url = format!("http://{http}{}?{query}", path(name));
        let fixed = ["-sS", "-m", "20", "-H", "X-Ringgear: 1", "-w", " %{http_code}", &url];
        let finished = run("curl", &[&fixed, *options].concat(), b"");
        assert_eq!(finished.stdout.trim_end_matches('\n'), *expected, "{}", finished.stderr);
    }
}

fn reversed(text: &str) -> String {
    text.chars().rev().collect()
}

fn php_submits_and_waits(contender: Contender) {
    if !has("php", &["-r", "exit(ini_get('allow_url_fopen') ? 0 : 1);"]) {
        return;
    }
    let (server, http) = start(contender, &[]);
    worker::start(server.address());
    let submit = |function: &str, more: &str| {
        let url = format!("http://{http}{}", path(function));
        let script = format!(
            "$context = stream_context_create(['http' => ['method' => 'POST', 'content' => 'abc', \
             'ignore_errors' => true, 'header' => \"X-Ringgear: 1\\r\\n{more}\"]]);\n\
             $body = file_get_contents('{url}', false, $context);\n\
             echo explode(' ', $http_response_header[0])[1], ' ', $body;"
        );
        run("php", &["-d", "display_errors=stderr", "-r", &script], b"").stdout
    };
    assert_eq!(submit("reverse", "").trim_end(), "200 cba");
    let failed = submit("throw", "");
    assert!(failed.starts_with("502 {\"error\":{\"code\":\"WORK_EXCEPTION\""), "{failed}");
    let accepted = submit("bg", "Prefer: respond-async\\r\\n");
    assert!(accepted.starts_with("202 {\"handle\":\"H:"), "{accepted}");
    assert!(submit("bg", "Ringgear-Run-At: soon\\r\\n").starts_with("400 "));
}
