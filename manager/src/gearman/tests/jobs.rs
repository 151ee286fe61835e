//! What is said about a job, by the worker and by its server.

use std::time::Duration;

use bytes::Bytes;
use ringgear::wire::Command;
use tokio::time::timeout;

use super::super::{Ending, Report, Withdrawal};
use super::{Listener, client, job_of, while_waiting};

/// More than the sockets hold.
const LARGE: usize = 3 << 20;

#[tokio::test(start_paused = true)]
async fn reports_and_endings_are_sent_in_order() {
    let listener = Listener::new();
    let mut client = client(&[&listener]);
    let mut peer = while_waiting(&mut client, listener.accept()).await;
    let job = job_of(&mut client, peer.assign("H:1")).await;
    client.report(&job, Report::Status(1, 10)).await;
    client.report(&job, Report::Data(Bytes::from_static(b"a\0b"))).await;
    client.report(&job, Report::Warning(Bytes::from_static(b"hm"))).await;
    assert!(client.finish(job, Ending::Complete(Bytes::from_static(b"result"))).await);
    peer.expect(Command::WorkStatus, b"H:1\x001\x0010").await;
    peer.expect(Command::WorkData, b"H:1\0a\0b").await;
    peer.expect(Command::WorkWarning, b"H:1\0hm").await;
    peer.expect(Command::WorkComplete, b"H:1\0result").await;

    let job = job_of(&mut client, peer.assign("H:2")).await;
    assert!(client.finish(job, Ending::Exception(Bytes::from_static(b"why"))).await);
    peer.expect(Command::WorkException, b"H:2\0why").await;
    let job = job_of(&mut client, peer.assign("H:3")).await;
    assert!(client.finish(job, Ending::Fail).await);
    peer.expect(Command::WorkFail, b"H:3").await;
}

#[tokio::test(start_paused = true)]
async fn an_ending_and_the_next_request_are_one_write() {
    use tokio::io::AsyncReadExt;
    let listener = Listener::new();
    let mut client = client(&[&listener]);
    let mut peer = while_waiting(&mut client, listener.accept()).await;
    let job = job_of(&mut client, peer.assign("H:1")).await;
    client.finish(job, Ending::Fail).await;
    let mut bytes = [0; 100];
    let count = peer.stream.read(&mut bytes).await.unwrap();
    assert_eq!(&bytes[..count], b"\0REQ\0\0\0\x0e\0\0\0\x03H:1\0REQ\0\0\0\x1e\0\0\0\0");
}

#[tokio::test(start_paused = true)]
async fn resting_asks_for_no_job_before_next() {
    let listener = Listener::new();
    let mut client = client(&[&listener]);
    let mut peer = while_waiting(&mut client, listener.accept()).await;
    let job = job_of(&mut client, peer.assign("H:1")).await;
    assert!(client.finish_and_rest(job, Ending::Fail).await);
    peer.expect(Command::WorkFail, b"H:1").await;
    peer.expect_nothing().await;
    job_of(&mut client, peer.assign("H:2")).await;
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_job_is_withdrawn_and_not_reported() {
    let listener = Listener::new();
    let mut client = client(&[&listener]);
    let mut peer = while_waiting(&mut client, listener.accept()).await;
    let job = job_of(&mut client, peer.assign("H:2")).await;
    // Of a job that has ended, as the notice may cross its end.
    peer.send(Command::WorkFail, b"H:1").await;
    timeout(Duration::from_secs(1), client.withdrawn()).await.unwrap_err();
    peer.send(Command::WorkFail, b"H:2").await;
    assert_eq!(client.withdrawn().await, Withdrawal::Cancelled);
    client.report(&job, Report::Status(1, 2)).await;
    assert!(client.finish(job, Ending::Fail).await);
    let job = job_of(&mut client, peer.assign("H:3")).await;
    assert_eq!(&*job.handle, b"H:3");
}

#[tokio::test(start_paused = true)]
async fn a_job_that_is_cancelled_before_it_is_returned_never_is() {
    let listener = Listener::new();
    let mut client = client(&[&listener]);
    let mut peer = while_waiting(&mut client, listener.accept()).await;
    while_waiting(&mut client, peer.expect(Command::GrabJobUniq, b"")).await;
    let mut both = Vec::new();
    both.extend_from_slice(b"\0RES\0\0\0\x1f\0\0\0\x0bH:1\0plain\0\0");
    both.extend_from_slice(b"\0RES\0\0\0\x0e\0\0\0\x03H:1");
    tokio::io::AsyncWriteExt::write_all(&mut peer.stream, &both).await.unwrap();
    let job = job_of(&mut client, peer.assign("H:2")).await;
    assert_eq!(&*job.handle, b"H:2");
}

#[tokio::test(start_paused = true)]
async fn large_payloads_go_both_ways() {
    let listener = Listener::new();
    let mut client = client(&[&listener]);
    let mut peer = while_waiting(&mut client, listener.accept()).await;
    let payload: Vec<u8> = (0..LARGE).map(|at| (at % 251).to_le_bytes()[0]).collect();
    let body = [b"H:1\0plain\0\0", &payload[..]].concat();
    let job = job_of(&mut client, async {
        peer.expect(Command::GrabJobUniq, b"").await;
        peer.send(Command::JobAssignUniq, &body).await;
    })
    .await;
    assert!(job.payload == payload);
    let result = job.payload.clone();
    let (is_taken, (command, body)) =
        tokio::join!(client.finish(job, Ending::Complete(result)), peer.packet());
    assert!(is_taken);
    assert_eq!(command, Command::WorkComplete);
    assert!(body.strip_prefix(b"H:1\0") == Some(&payload[..]));
    job_of(&mut client, peer.assign("H:2")).await;
}

#[tokio::test(start_paused = true)]
async fn a_report_waits_for_a_server_that_does_not_read_and_survives_being_dropped() {
    let listener = Listener::new();
    let mut client = client(&[&listener]);
    let mut peer = while_waiting(&mut client, listener.accept()).await;
    let job = job_of(&mut client, peer.assign("H:1")).await;
    let data = Bytes::from(vec![7; LARGE]);
    let report = client.report(&job, Report::Data(data.clone()));
    timeout(Duration::from_secs(1), report).await.unwrap_err();
    let finish = client.finish(job, Ending::Fail);
    let (is_taken, ()) = tokio::join!(finish, async {
        let (command, body) = peer.packet().await;
        assert_eq!((command, body.len()), (Command::WorkData, LARGE + 4));
        peer.expect(Command::WorkFail, b"H:1").await;
    });
    assert!(is_taken);
    job_of(&mut client, peer.assign("H:2")).await;
}

#[tokio::test(start_paused = true)]
async fn a_report_that_waits_ends_when_its_job_is_withdrawn() {
    let listener = Listener::new();
    let mut client = client(&[&listener]);
    let mut peer = while_waiting(&mut client, listener.accept()).await;
    let job = job_of(&mut client, peer.assign("H:1")).await;
    let data = Report::Data(Bytes::from(vec![7; LARGE]));
    tokio::join!(client.report(&job, data), peer.send(Command::WorkFail, b"H:1"));
    assert_eq!(client.withdrawn().await, Withdrawal::Cancelled);

    // What is left of the packet comes before anything else.
    let (is_taken, ()) = tokio::join!(client.finish(job, Ending::Fail), async {
        assert_eq!(peer.packet().await.1.len(), LARGE + 4);
    });
    assert!(is_taken);
    let job = job_of(&mut client, peer.assign("H:2")).await;
    let data = Report::Data(Bytes::from(vec![7; LARGE]));
    tokio::join!(client.report(&job, data), async { drop(peer) });
    assert_eq!(client.withdrawn().await, Withdrawal::Disconnected);
    assert!(!client.finish(job, Ending::Fail).await);
}
