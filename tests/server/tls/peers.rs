//! Other people's TLS: Perl's IO::Socket::SSL, Python's ssl, stunnel in front of PHP and of
//! `gearman`, and `openssl s_client`, each against a server that asks for a certificate.

use rustls::version::{TLS12, TLS13};

use super::Files;
use super::client::{begin, config, echo};
use super::page::stunnel_file;
use crate::harness::{Contender, Server, each_ringgear, reserve_port, tool};
use crate::interop_bulk::a_large_job;
use crate::skips::note;
use crate::tools::{Finished, Tool, has, run, script};

each_ringgear!(
    perl_submits_and_works,
    gear_submits_and_works,
    php_and_the_command_line_submit_and_work_through_stunnel,
    openssls_client_is_answered,
    libgearman_built_with_tls_submits_and_works,
    payloads_of_64_mib_go_there_and_back,
);

const MIB: &str = "1048576";
const SAME_MIB: &str = "same 1048576\n";

fn perl_submits_and_works(contender: Contender) {
    if !has("perl", &["-MGearman::Client", "-MIO::Socket::SSL", "-e", "1"]) {
        return;
    }
    let files = Files::new();
    let server = files.start(contender, &[]);
    let address = format!("{}{}", server.address(), files.for_scripts());
    let mut worker = Tool::start("perl", &[&script("worker.pl"), &address, ""]);
    worker.wait_for("ready");
    let client = |words: &[&str]| {
        let script = script("client.pl");
        ended_well(run("perl", &[&[script.as_str(), &address], words].concat(), b""))
    };
    let expected = "status 1/2\nstatus 2/2\ncomplete end\nfail\nexception boom\n";
    assert_eq!(client(&["callbacks", "exceptions"]), format!("{expected}complete in time\n"));
    assert_eq!(client(&["tasks", "200"]), "ran 200\n");
    assert_eq!(client(&["large", MIB]), SAME_MIB);
    assert_eq!(client(&["large", "67108864"]), "same 67108864\n");
}

fn gear_submits_and_works(contender: Contender) {
    if !has("python3", &["-c", "import gear"]) {
        return;
    }
    let files = Files::new();
    let server = files.start(contender, &[]);
    let (address, port) = (format!("127.0.0.1{}", files.for_scripts()), server.port().to_string());
    let mut worker = Tool::start("python3", &[&script("worker.py"), &address, &port, ""]);
    worker.wait_for("ready");
    let client = |words: &[&str]| {
        let script = script("client.py");
        let finished = run("python3", &[&[script.as_str(), &address, &port], words].concat(), b"");
        assert!(finished.status.success(), "{finished:?}");
        finished.stdout
    };
    let expected = "data one\nstatus 1/2\nwarning careful\ncomplete end\nfail\nexception boom\n";
    assert_eq!(client(&["callbacks", "exceptions"]), format!("{expected}complete in time\n"));
    // Its larger payloads take minutes, in plain text, too.
    assert_eq!(client(&["large", MIB]), SAME_MIB);
}

/// The page's stunnel in front of a server; dropping it ends it.
fn stunnel(files: &Files, server: &Server) -> (Tool, String) {
    let (port, _reserved) = reserve_port();
    let mut text = "foreground = yes\npid =\ndebug = info\noutput = /dev/stdout\n".to_owned();
    text.push_str(stunnel_file());
    let replaced = [
        ("127.0.0.1:4730", format!("127.0.0.1:{port}")),
        ("jobs.example.com:4730", server.address().to_string()),
        ("/etc/stunnel/ca.pem", files.path("ca.pem")),
        ("/etc/stunnel/client.pem", files.path("web1.pem")),
        ("/etc/stunnel/client.key", files.path("web1.key")),
    ];
    for (of_the_page, ours) in replaced {
        assert!(text.contains(of_the_page), "{of_the_page}: {text}");
        text = text.replace(of_the_page, &ours);
    }
    let mut stunnel = Tool::start("stunnel4", &[&files.write("stunnel.conf", &text)]);
    stunnel.wait_for("bound to");
    (stunnel, port.to_string())
}

fn php_and_the_command_line_submit_and_work_through_stunnel(contender: Contender) {
    let here = [tool("stunnel4"), tool("gearman")].iter().all(Option::is_some);
    if !here || !has("php", &["-r", "exit(extension_loaded('gearman') ? 0 : 1);"]) {
        return;
    }
    let files = Files::new();
    let server = files.start(contender, &[]);
    let (_stunnel, port) = stunnel(&files, &server);
    let mut worker = Tool::start("php", &[&script("worker.php"), "127.0.0.1", &port, ""]);
    worker.wait_for("ready");
    let client = |words: &[&str]| {
        let script = script("client.php");
        ended_well(run("php", &[&[script.as_str(), "127.0.0.1", &port], words].concat(), b""))
    };
    let steps = "created\ndata one\nstatus 1/2\nwarning careful\ndata two\ncomplete end\n";
    let expected = format!("{steps}created\nfail\ncreated\nexception boom\n");
    assert_eq!(client(&["callbacks"]), expected);
    assert_eq!(client(&["large", MIB]), SAME_MIB);
    let words = ["-h", "127.0.0.1", "-p", &port, "-f", "reverse", "hello"];
    assert_eq!(ended_well(run("gearman", &words, b"")), "olleh");
}

fn openssls_client_is_answered(contender: Contender) {
    if tool("openssl").is_none() {
        return;
    }
    let files = Files::new();
    let server = files.start(contender, &[]);
    let (address, ca) = (server.address().to_string(), files.path("ca.pem"));
    let (certificate, key) = (files.path("web1.pem"), files.path("web1.key"));
    for version in ["-tls1_2", "-tls1_3"] {
        let mut words = vec!["s_client", "-connect", &address, "-CAfile", &ca, version];
        words.extend(["-verify_return_error", "-verify_hostname", "jobs.example.com"]);
        words.extend(["-cert", &certificate, "-key", &key, "-quiet"]);
        let mut client = Tool::start_with("openssl", &words, b"version\n");
        client.wait_for(concat!("OK ", env!("CARGO_PKG_VERSION")));
    }
}

/// Names where a libgearman with TLS was installed, as `./configure --prefix` did.
const LIBGEARMAN: &str = "RINGGEAR_TLS_LIBGEARMAN";

/// Debian's has no TLS, so this one is built by hand, and CI has none.
fn libgearman_built_with_tls_submits_and_works(contender: Contender) {
    let Some(prefix) = std::env::var_os(LIBGEARMAN) else {
        return note(&format!("{LIBGEARMAN} names no libgearman that has TLS"));
    };
    let prefix = prefix.to_str().expect("text");
    let files = Files::new();
    let server = files.start(contender, &[]);
    let port = server.port().to_string();
    let variables = [
        format!("LD_LIBRARY_PATH={prefix}/lib"),
        format!("GEARMAND_CA_CERTIFICATE={}", files.path("ca.pem")),
        format!("GEARMAN_CLIENT_PEM={}", files.path("web1.pem")),
        format!("GEARMAN_CLIENT_KEY={}", files.path("web1.key")),
    ];
    let variables: Vec<&str> = variables.iter().map(String::as_str).collect();
    let gearman = format!("{prefix}/bin/gearman");
    let common = [gearman.as_str(), "-S", "-h", "127.0.0.1", "-p", &port, "-f", "reverse"];
    // It writes all of a payload to the command before it reads anything back, so not `cat`.
    let _worker = Tool::start("env", &[&variables[..], &common, &["-w", "rev"]].concat());
    let client = |input: &[u8]| {
        let finished = run("env", &[&variables[..], &common].concat(), input);
        ended_well(finished)
    };
    assert_eq!(client(b"hello"), "olleh");
    let large = "0123456789abcdef".repeat(1 << 16);
    assert!(client(large.as_bytes()) == large.chars().rev().collect::<String>());
    if has("php", &["-r", "exit(extension_loaded('gearman') ? 0 : 1);"]) {
        let code = "$client = new GearmanClient(); $client->addOptions(1 << 8);
            $client->addServer($argv[1], $argv[2]); echo $client->doNormal('reverse', 'by PHP');";
        let words = ["php", "-r", code, "127.0.0.1", &port];
        assert_eq!(ended_well(run("env", &[&variables[..], &words].concat(), b"")), "PHP yb");
    }
}

fn payloads_of_64_mib_go_there_and_back(contender: Contender) {
    let files = Files::new();
    let server = files.start(contender, &[]);
    let version = if contender == Contender::RinggearUring { &TLS12 } else { &TLS13 };
    let config = config(&files.authority.certificate, Some(&files.web1), version);
    let connect = || begin(server.connect(), config.clone()).expect("a session");
    let (mut client, mut worker) = (connect(), connect());
    echo(&mut client).expect("a reply");
    a_large_job(&mut client, &mut worker, 64 << 20);
}

/// The output of a program that ended without a complaint.
fn ended_well(finished: Finished) -> String {
    assert!(finished.status.success() && finished.stderr.is_empty(), "{finished:?}");
    finished.stdout
}
