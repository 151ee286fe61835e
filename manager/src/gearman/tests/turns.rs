//! Which server is asked when: sleep, NOOP, several servers, futures that are dropped.

use std::time::Duration;

use ringgear::wire::Command;
use tokio::time::{Instant, timeout};

use super::super::Ending;
use super::{Listener, client, job_of, while_waiting};

#[tokio::test(start_paused = true)]
async fn a_worker_announces_itself_sleeps_and_is_woken() {
    let listener = Listener::new();
    let mut client = client(&[&listener]);
    let mut peer = while_waiting(&mut client, listener.accept()).await;
    while_waiting(&mut client, peer.put_to_sleep()).await;
    while_waiting(&mut client, peer.expect_nothing()).await;

    peer.send(Command::Noop, b"").await;
    let job = job_of(&mut client, peer.assign("H:1")).await;
    assert_eq!(
        (job.server, &*job.handle, &*job.function, &*job.unique, &*job.payload),
        (0, &b"H:1"[..], &b"plain"[..], &b"key"[..], &b"payload"[..])
    );
}

#[tokio::test(start_paused = true)]
async fn a_silent_server_is_waited_for_while_the_worker_sleeps() {
    let listener = Listener::new();
    let mut client = client(&[&listener]);
    let mut peer = while_waiting(&mut client, listener.accept()).await;
    while_waiting(&mut client, peer.put_to_sleep()).await;
    let day = Duration::from_secs(86_400);
    timeout(day, client.next()).await.unwrap_err();
    peer.send(Command::Noop, b"").await;
    job_of(&mut client, peer.assign("H:1")).await;
}

#[tokio::test(start_paused = true)]
async fn the_second_server_is_asked_while_the_first_sleeps() {
    let (a, b) = (Listener::new(), Listener::new());
    let mut client = client(&[&a, &b]);
    let (mut a, mut b) =
        while_waiting(&mut client, async { tokio::join!(a.accept(), b.accept()) }).await;
    while_waiting(&mut client, async {
        a.expect(Command::GrabJobUniq, b"").await;
        // One request at a time: else both could assign a job.
        b.expect_nothing().await;
        a.send(Command::NoJob, b"").await;
        a.expect(Command::PreSleep, b"").await;
    })
    .await;
    let job = job_of(&mut client, b.assign("H:1")).await;
    assert_eq!(job.server, 1);
}

#[tokio::test(start_paused = true)]
async fn a_busy_server_does_not_starve_another() {
    let (a, b) = (Listener::new(), Listener::new());
    let mut client = client(&[&a, &b]);
    let (mut a, mut b) =
        while_waiting(&mut client, async { tokio::join!(a.accept(), b.accept()) }).await;
    for round in 0..3 {
        for (number, peer) in [&mut a, &mut b].into_iter().enumerate() {
            let job = job_of(&mut client, peer.assign("H:1")).await;
            assert_eq!(job.server, number, "{round}");
            assert!(client.finish(job, Ending::Fail).await);
            peer.expect(Command::WorkFail, b"H:1").await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_noop_during_another_servers_job_is_remembered() {
    let (a, b) = (Listener::new(), Listener::new());
    let mut client = client(&[&a, &b]);
    let (mut a, mut b) =
        while_waiting(&mut client, async { tokio::join!(a.accept(), b.accept()) }).await;
    while_waiting(&mut client, a.put_to_sleep()).await;
    let job = job_of(&mut client, b.assign("H:1")).await;
    a.send(Command::Noop, b"").await;
    // It is read meanwhile, or at the end.
    timeout(Duration::from_secs(1), client.withdrawn()).await.unwrap_err();
    client.finish(job, Ending::Fail).await;
    b.expect(Command::WorkFail, b"H:1").await;
    b.expect_nothing().await;
    let job = job_of(&mut client, a.assign("H:2")).await;
    assert_eq!(job.server, 0);
    // Nothing is said about it: the other server is asked once it has ended.
    b.expect_nothing().await;
}

#[tokio::test(start_paused = true)]
async fn a_noop_right_behind_pre_sleep_wakes() {
    let listener = Listener::new();
    let mut client = client(&[&listener]);
    let mut peer = while_waiting(&mut client, listener.accept()).await;
    while_waiting(&mut client, peer.expect(Command::GrabJobUniq, b"")).await;
    peer.send(Command::NoJob, b"").await;
    // As a server does that got a job between the two.
    peer.send(Command::Noop, b"").await;
    let wake = async {
        peer.expect(Command::PreSleep, b"").await;
        peer.assign("H:1").await;
    };
    job_of(&mut client, wake).await;
}

#[tokio::test(start_paused = true)]
async fn a_job_that_comes_after_next_was_dropped_is_kept() {
    let listener = Listener::new();
    let mut client = client(&[&listener]);
    let mut peer = while_waiting(&mut client, listener.accept()).await;
    let (first, rest) = (b"\0RES\0\0\0\x1f", b"\0\0\0\x0eH:1\0plain\0\0pay");
    while_waiting(&mut client, peer.expect(Command::GrabJobUniq, b"")).await;
    for bytes in [&first[..], &rest[..]] {
        use tokio::io::AsyncWriteExt;
        timeout(Duration::from_millis(1), client.next()).await.unwrap_err();
        peer.stream.write_all(bytes).await.unwrap();
    }
    let job = client.next().await;
    assert_eq!((&*job.handle, &*job.unique, &*job.payload), (&b"H:1"[..], &b""[..], &b"pay"[..]));
    peer.expect_nothing().await;
}

#[tokio::test(start_paused = true)]
async fn settling_returns_the_job_that_still_comes() {
    let listener = Listener::new();
    let mut client = client(&[&listener]);
    let mut peer = while_waiting(&mut client, listener.accept()).await;
    while_waiting(&mut client, tokio::task::yield_now()).await;
    let (job, ()) = tokio::join!(client.settle(), peer.assign("H:1"));
    client.finish(job.unwrap(), Ending::Fail).await;
    peer.expect(Command::WorkFail, b"H:1").await;
    peer.expect_nothing().await;
    assert!(client.settle().await.is_none());

    // And it may go on.
    let job = job_of(&mut client, peer.assign("H:2")).await;
    assert_eq!(&*job.handle, b"H:2");
}

#[tokio::test(start_paused = true)]
async fn settling_does_not_sleep_and_does_not_wait_for_long() {
    let (a, b) = (Listener::new(), Listener::new());
    let mut client = client(&[&a, &b]);
    assert!(client.settle().await.is_none());
    let (mut a, mut b) =
        while_waiting(&mut client, async { tokio::join!(a.accept(), b.accept()) }).await;
    while_waiting(&mut client, a.expect(Command::GrabJobUniq, b"")).await;
    a.send(Command::NoJob, b"").await;
    assert!(client.settle().await.is_none());
    a.expect_nothing().await;
    b.expect_nothing().await;

    while_waiting(&mut client, b.expect(Command::GrabJobUniq, b"")).await;
    let start = Instant::now();
    assert!(client.settle().await.is_none());
    assert_eq!(start.elapsed().as_secs(), 10);
}
