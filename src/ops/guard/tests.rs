//! Callers by what is known of them, with a list and without.

use axum::http::Request;

use super::*;
use crate::ops::HttpSettings;
use crate::protocol::access::{Conditions, parse};

/// SHA-256 of `abc`.
const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

/// The HTTP thread's own; lines that are left out of the log are summed up on it.
fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap()
}

fn app(list: Option<&str>, tokens: Option<&str>) -> Arc<App> {
    let conditions = Conditions { has_tokens: true, asks_for_certificates: true };
    Arc::new(App::new(HttpSettings {
        access_list: list.map(|text| Arc::new(parse(text, conditions).unwrap())),
        tokens: tokens.map(|text| Arc::new(Tokens::parse(text).unwrap())),
        ..HttpSettings::default()
    }))
}

fn caller(app: &Arc<App>, peer: &str, authorization: &[&str]) -> Result<Caller, ApiError> {
    let peer: Peer = peer.parse().unwrap();
    let address = peer.address.map_or_else(
        || PeerAddress::Unix(crate::protocol::peer_address::UnixPeer { uid: 33, gid: 33, pid: 1 }),
        |ip| (ip, 1).into(),
    );
    let Peer { listener, certificate, user, .. } = peer;
    let mut request = Request::new(());
    request.extensions_mut().insert(Origin { address, listener, user, certificate });
    for value in authorization {
        request.headers_mut().append(AUTHORIZATION, value.parse().unwrap());
    }
    runtime().block_on(Caller::from_request_parts(&mut request.into_parts().0, app))
}

#[test]
fn without_a_list_this_host_may_do_everything_and_others_observe() {
    let (app, runtime) = (app(None, None), runtime());
    let _entered = runtime.enter();
    for right in Right::ALL {
        for peer in ["127.0.0.1", "127.3.2.1", "::1", "user:33"] {
            let caller = caller(&app, peer, &[]).unwrap();
            assert!(caller.may(right, Scope::AllFunctions).is_ok(), "{peer} {right}");
            assert!(caller.may(right, Scope::Function(b"f")).is_ok(), "{peer} {right}");
        }
        for peer in ["10.0.0.1", "fd00::1"] {
            let caller = caller(&app, peer, &[]).unwrap();
            let may = caller.may(right, Scope::Function(b"f")).is_ok();
            assert_eq!(may, right == Right::Observe, "{peer} {right}");
            assert!(caller.shows(b"f") && caller.may_observe_all().is_ok());
        }
    }
    assert_eq!(app.denials(), [2, 2, 0, 2]);
}

#[test]
fn a_list_decides_by_address_user_certificate_listener_and_token() {
    let rule = |who: &str, right: &str| {
        format!("[[rule]]\nwho = {{ {who} }}\nmay = [\"{right}\"]\nfunctions = [\"{right}-*\"]\n")
    };
    let list = [
        rule("network = [\"10.0.0.0/8\"]", "submit"),
        rule("user = [33]", "work"),
        rule("certificate = [\"cn:web*\"]", "observe"),
        rule("token = [\"ops\"]", "admin"),
        rule("listener = [\"tls:0.0.0.0:1\"], token = [\"ops\"]", "submit"),
    ];
    let app = app(Some(&list.concat()), Some(&format!("ops {ABC}")));
    let runtime = runtime();
    let _entered = runtime.enter();
    let bearer = ["Bearer abc"];
    for (peer, token, right, expected) in [
        ("10.0.0.1", &[][..], Right::Submit, true),
        ("10.0.0.1", &[], Right::Observe, false),
        ("127.0.0.1", &[], Right::Submit, false),
        ("user:33", &[], Right::Work, true),
        ("user:34", &[], Right::Work, false),
        ("cn:web1,127.0.0.1", &[], Right::Observe, true),
        ("cn:app1,127.0.0.1", &[], Right::Observe, false),
        ("127.0.0.1", &bearer, Right::Admin, true),
        ("127.0.0.1", &bearer, Right::Observe, false),
        ("127.0.0.1,listener:tls:0.0.0.0:1", &bearer, Right::Submit, true),
    ] {
        let caller = caller(&app, peer, token).unwrap();
        let own = format!("{right}-f");
        let may = caller.may(right, Scope::Function(own.as_bytes())).is_ok();
        assert_eq!(may, expected, "{peer} {right}");
        assert!(caller.may(right, Scope::Function(b"other")).is_err(), "{peer} {right}");
        assert!(caller.may(right, Scope::AllFunctions).is_err(), "{peer} {right}");
    }
}

#[test]
fn a_token_that_is_wrong_is_refused_wherever_tokens_count() {
    let everything = "[[rule]]\nwho = {}\nmay = [\"admin\"]\n";
    let counts = app(Some(everything), Some(&format!("ops {ABC}")));
    let without = app(Some(everything), None);
    for (shown, is_taken) in [
        (&[][..], true),
        (&["Bearer abc"], true),
        (&["bearer  abc"], true),
        (&["Bearer abd"], false),
        (&["Bearer"], false),
        (&["Bearer "], false),
        (&["Basic abc"], false),
        (&["abc"], false),
        (&["Bearer abc", "Bearer abc"], false),
    ] {
        assert_eq!(caller(&counts, "127.0.0.1", shown).is_ok(), is_taken, "{shown:?}");
        assert!(caller(&without, "127.0.0.1", shown).is_ok(), "{shown:?}");
    }
}
