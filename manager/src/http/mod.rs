//! `/metrics` and `/healthz`: counters in, text out.
//!
//! Handlers run on the manager's thread, but the crates that call them want values that could go to
//! another, so that they ask a task beside the counters by messages. Knows no instances.
//!
//! Invariant: an answer tells numbers of one moment.

mod health;
mod metrics;

use std::fs;
use std::io;
use std::net::TcpListener;
use std::os::unix::fs::FileTypeExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::rc::Rc;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::sync::{mpsc, oneshot};
use tokio::task::spawn_local;
use tracing::error;

use self::health::health;
use self::metrics::Scrape;
use crate::config::HttpAddress;
use crate::counters::Counters;

/// Requests that wait for numbers at once; further ones wait before that.
const WAITING_MAX: usize = 16;

/// A socket on which nothing is answered yet.
#[derive(Debug)]
pub struct Listener(Socket);

#[derive(Debug)]
enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener, SocketFile),
}

/// The file of a Unix socket, removed when this is dropped.
#[derive(Debug)]
struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = fs::remove_file(&self.0);
    }
}

/// What a handler asks.
enum Question {
    Metrics(oneshot::Sender<Scrape>),
    Health(oneshot::Sender<Result<(), String>>),
}

type Questions = mpsc::Sender<Question>;

impl Listener {
    /// Binds the address.
    ///
    /// # Errors
    /// Why it can't be bound, in a sentence.
    pub fn bind(address: &HttpAddress) -> Result<Self, String> {
        let bound = match address {
            HttpAddress::Tcp(address) => TcpListener::bind(address).map(Socket::Tcp),
            HttpAddress::Unix(path) => {
                // What a manager that was killed left; one that runs answers.
                let is_socket = fs::metadata(path).is_ok_and(|it| it.file_type().is_socket());
                if is_socket && UnixStream::connect(path).is_err() {
                    let _ = fs::remove_file(path);
                }
                UnixListener::bind(path).map(|it| Socket::Unix(it, SocketFile(path.clone())))
            }
        };
        let ready = bound.and_then(|socket| {
            match &socket {
                Socket::Tcp(listener) => listener.set_nonblocking(true)?,
                Socket::Unix(listener, _) => listener.set_nonblocking(true)?,
            }
            Ok(Self(socket))
        });
        ready.map_err(|cause| {
            let remedy = match cause.kind() {
                io::ErrorKind::AddrInUse => "end the program that has it, or choose another",
                io::ErrorKind::PermissionDenied => "choose one that this user may use",
                _ => "choose another",
            };
            format!("http can't be \"{address}\": {cause}; {remedy}")
        })
    }

    /// Answers requests until it is dropped. Must run in a `LocalSet`.
    pub async fn serve(self, counters: Rc<Counters>) {
        let (questions, mut asked) = mpsc::channel(WAITING_MAX);
        spawn_local(async move {
            while let Some(question) = asked.recv().await {
                // A client that has gone needs no answer.
                let _ = match question {
                    Question::Metrics(answer) => answer.send(Scrape::take(&counters)).is_ok(),
                    Question::Health(answer) => answer.send(health(&counters)).is_ok(),
                };
            }
        });
        let router = router(questions);
        let served = match self.0 {
            Socket::Tcp(listener) => match tokio::net::TcpListener::from_std(listener) {
                Ok(listener) => axum::serve(listener, router).await,
                Err(cause) => Err(cause),
            },
            Socket::Unix(listener, _file) => match tokio::net::UnixListener::from_std(listener) {
                Ok(listener) => axum::serve(listener, router).await,
                Err(cause) => Err(cause),
            },
        };
        if let Err(cause) = served {
            error!("/metrics and /healthz are over: {cause}; restart the manager to have them");
        }
    }
}

fn router(questions: Questions) -> Router {
    let router = Router::new().route("/metrics", get(metrics)).route("/healthz", get(healthz));
    router.fallback(not_found).with_state(questions)
}

async fn ask<T>(
    questions: &Questions,
    question: impl FnOnce(oneshot::Sender<T>) -> Question,
) -> Result<T, Response> {
    let (answer, answered) = oneshot::channel();
    // Both fail only while the manager ends.
    let ending = || (StatusCode::SERVICE_UNAVAILABLE, "the manager ends\n").into_response();
    questions.send(question(answer)).await.map_err(|_| ending())?;
    answered.await.map_err(|_| ending())
}

async fn metrics(State(questions): State<Questions>, headers: HeaderMap) -> Response {
    match ask(&questions, Question::Metrics).await {
        Ok(scrape) => ringgear::ops::exposition::answer(&headers, scrape),
        Err(response) => response,
    }
}

async fn healthz(State(questions): State<Questions>) -> Response {
    match ask(&questions, Question::Health).await {
        Ok(Ok(())) => "ok\n".into_response(),
        Ok(Err(problem)) => {
            (StatusCode::SERVICE_UNAVAILABLE, format!("{problem}\n")).into_response()
        }
        Err(response) => response,
    }
}

async fn not_found() -> Response {
    (StatusCode::NOT_FOUND, "there are /metrics and /healthz\n").into_response()
}

#[cfg(test)]
mod tests;
