//! Whether the server is alive, and whether it is ready.
//!
//! `/healthz` asks each core for a sign of life; one that hasn't turned for `STUCK_AFTER` is stuck.
//! `/readyz` says whether jobs are taken. Neither needs a right.
//!
//! Invariant: a core that has nothing to do is alive.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use tokio::time::{Instant, timeout_at};

use super::Phase;
use super::app::App;
use crate::shard::cores::Core;
use crate::shard::operator::OperatorRequest;

/// A core that answers no message for so long is stuck.
pub(super) const STUCK_AFTER: Duration = Duration::from_secs(5);

/// `GET /healthz`.
pub(super) async fn alive(State(app): State<Arc<App>>) -> Response {
    let Some(core) = stuck_core(&app, STUCK_AFTER).await else { return "ok\n".into_response() };
    let text = format!("core {core} has not turned for {} s\n", STUCK_AFTER.as_secs());
    (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
}

/// A core that doesn't turn for so long.
pub(super) async fn stuck_core(app: &App, within: Duration) -> Option<Core> {
    // Before the cores are there none can be stuck.
    let link = app.link().ok()?;
    let deadline = Instant::now() + within;
    let cores = 0..link.cores().count;
    let signs: Vec<_> = cores.map(|core| link.send_request(core, OperatorRequest::Ping)).collect();
    for (core, sign) in signs.into_iter().enumerate() {
        if !matches!(timeout_at(deadline, sign).await, Ok(Ok(_))) {
            return Some(core);
        }
    }
    None
}

/// `GET /readyz`.
pub(super) async fn ready(State(app): State<Arc<App>>) -> Response {
    let unready = match app.phase() {
        Phase::Serving if app.stores() => return "ok\n".into_response(),
        Phase::Serving => "store\n",
        Phase::Recovering => "recovering\n",
        Phase::Standby => "standby\n",
        Phase::Draining => "drain\n",
    };
    (StatusCode::SERVICE_UNAVAILABLE, unready).into_response()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::Relaxed;

    use super::*;
    use crate::cluster::view::View;
    use crate::ops::HttpSettings;

    #[test]
    fn a_suspended_server_is_not_ready_unless_the_store_does_not_matter() {
        let ready_by = |ready_without_store: bool, is_suspended: bool| {
            let cluster = Arc::new(View::default());
            cluster.is_suspended.store(is_suspended, Relaxed);
            let cluster = Some(cluster);
            let settings = HttpSettings { cluster, ready_without_store, ..HttpSettings::default() };
            let app = App::new(settings);
            app.set_phase(Phase::Serving);
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(ready(State(Arc::new(app)))).status()
        };
        assert_eq!(ready_by(false, false), StatusCode::OK);
        assert_eq!(ready_by(false, true), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(ready_by(true, true), StatusCode::OK);
    }
}
