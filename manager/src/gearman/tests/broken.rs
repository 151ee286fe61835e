//! Connections that can't be made, break, or stand still.

use std::rc::Rc;
use std::time::Duration;

use ringgear::wire::Command;
use tokio::time::{Instant, timeout};

use super::super::{Ending, Report, Withdrawal};
use super::{Listener, Log, client, client_of, job_of, servers, while_waiting};
use crate::counters::Counters;

#[tokio::test(start_paused = true)]
async fn a_job_whose_connection_breaks_is_lost_and_all_is_announced_again() {
    let listener = Listener::new();
    let mut client = client(&[&listener]);
    let mut peer = while_waiting(&mut client, listener.accept()).await;
    let job = job_of(&mut client, peer.assign("H:1")).await;
    drop(peer);
    assert_eq!(client.withdrawn().await, Withdrawal::Disconnected);
    client.report(&job, Report::Status(1, 2)).await;
    assert!(!client.finish(job, Ending::Fail).await);

    let mut peer = while_waiting(&mut client, listener.accept()).await;
    job_of(&mut client, peer.assign("H:1")).await;
}

#[tokio::test(start_paused = true)]
async fn a_result_for_a_connection_that_broke_unseen_is_lost() {
    let listener = Listener::new();
    let mut client = client(&[&listener]);
    let mut peer = while_waiting(&mut client, listener.accept()).await;
    let job = job_of(&mut client, peer.assign("H:1")).await;
    drop(peer);
    assert!(!client.finish(job, Ending::Fail).await);
}

#[tokio::test(start_paused = true)]
async fn the_servers_reconnect_while_a_job_runs() {
    let (a, b) = (Listener::new(), Listener::new());
    let mut client = client(&[&a, &b]);
    let (mut a_peer, b_peer) =
        while_waiting(&mut client, async { tokio::join!(a.accept(), b.accept()) }).await;
    let job = job_of(&mut client, a_peer.assign("H:1")).await;
    drop(b_peer);
    let mut b_peer = tokio::select! {
        withdrawal = client.withdrawn() => panic!("{withdrawal:?}"),
        peer = b.accept() => peer,
    };
    b_peer.expect_nothing().await;
    client.finish(job, Ending::Fail).await;
    a_peer.expect(Command::WorkFail, b"H:1").await;
    job_of(&mut client, b_peer.assign("H:1")).await;
}

#[tokio::test(start_paused = true)]
async fn a_job_whose_connection_broke_before_it_was_returned_never_is() {
    let listener = Listener::new();
    let mut client = client(&[&listener]);
    let mut peer = while_waiting(&mut client, listener.accept()).await;
    while_waiting(&mut client, peer.expect(Command::GrabJobUniq, b"")).await;
    let bytes = b"\0RES\0\0\0\x1f\0\0\0\x0bH:1\0plain\0\0what's this?";
    tokio::io::AsyncWriteExt::write_all(&mut peer.stream, bytes).await.unwrap();
    let mut peer = while_waiting(&mut client, listener.accept()).await;
    let job = job_of(&mut client, peer.assign("H:2")).await;
    assert_eq!(&*job.handle, b"H:2");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_cannot_be_reached_does_not_hold_another_up() {
    let (gone, listener) = (Listener::new(), Listener::new());
    let servers = servers(&[&gone, &listener]);
    let counters = Rc::new(Counters::default());
    let name = gone.name();
    drop(gone);
    let mut client = client_of(servers, &counters);
    let start = Instant::now();
    let mut peer = while_waiting(&mut client, listener.accept()).await;
    let job = job_of(&mut client, peer.assign("H:1")).await;
    assert!(start.elapsed() < Duration::from_millis(50), "{:?}", start.elapsed());
    assert_eq!(job.server, 1);
    let connections = counters.connections.borrow();
    assert_eq!((connections[&name], connections[&listener.name()]), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn attempts_to_connect_become_rare() {
    let listener = Listener::new();
    let mut client = client(&[&listener]);
    let start = Instant::now();
    let mut gaps = Vec::new();
    let mut before = start;
    for _ in 0..12 {
        // Closed without a word.
        while_waiting(&mut client, listener.accept_silently()).await;
        gaps.push(before.elapsed().as_secs_f64());
        before = Instant::now();
    }
    assert!(gaps[0] < 0.01, "{gaps:?}");
    assert!((0.07..0.13).contains(&gaps[1]), "{gaps:?}");
    assert!((0.14..0.26).contains(&gaps[2]), "{gaps:?}");
    assert!((7.4..12.6).contains(&gaps[11]), "{gaps:?}");

    // A connection that works begins anew.
    let mut peer = while_waiting(&mut client, listener.accept()).await;
    while_waiting(&mut client, peer.put_to_sleep()).await;
    drop(peer);
    before = Instant::now();
    while_waiting(&mut client, listener.accept_silently()).await;
    assert!(before.elapsed() < Duration::from_millis(130), "{:?}", before.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_server_that_hangs_holds_others_up_only_once() {
    let (hung, listener) = (Listener::new(), Listener::new());
    let mut client = client(&[&hung, &listener]);
    let (mut hung_peer, mut peer) =
        while_waiting(&mut client, async { tokio::join!(hung.accept(), listener.accept()) }).await;
    let start = Instant::now();
    while_waiting(&mut client, hung_peer.expect(Command::GrabJobUniq, b"")).await;
    let job = job_of(&mut client, peer.assign("H:1")).await;
    assert_eq!(start.elapsed().as_secs(), 10);
    hung_peer.expect_end().await;

    // It accepts connections, but reacts to nothing: no job is asked for.
    client.finish(job, Ending::Fail).await;
    peer.expect(Command::WorkFail, b"H:1").await;
    while_waiting(&mut client, peer.put_to_sleep()).await;
    let mut silent = while_waiting(&mut client, hung.accept_silently()).await;
    peer.send(Command::Noop, b"").await;
    job_of(&mut client, peer.assign("H:2")).await;
    silent.expect_nothing().await;
}

#[tokio::test(start_paused = true)]
async fn a_server_that_hung_is_asked_when_it_reacts() {
    let listener = Listener::new();
    let mut client = client(&[&listener]);
    let mut peer = while_waiting(&mut client, listener.accept()).await;
    while_waiting(&mut client, peer.expect(Command::GrabJobUniq, b"")).await;
    while_waiting(&mut client, peer.expect_end()).await;
    let mut peer = while_waiting(&mut client, listener.accept_silently()).await;
    while_waiting(&mut client, peer.expect_nothing()).await;
    peer.send(Command::OptionRes, b"cancel-notice").await;
    job_of(&mut client, peer.assign("H:1")).await;
}

#[tokio::test(start_paused = true)]
async fn a_server_that_reads_nothing_for_a_minute_is_given_up() {
    let listener = Listener::new();
    let mut client = client(&[&listener]);
    let mut peer = while_waiting(&mut client, listener.accept()).await;
    let job = job_of(&mut client, peer.assign("H:1")).await;
    // A job may take its time.
    timeout(Duration::from_secs(1000), client.withdrawn()).await.unwrap_err();
    let start = Instant::now();
    let result = vec![0; 3 << 20];
    assert!(!client.finish(job, Ending::Complete(result.into())).await);
    assert_eq!(start.elapsed().as_secs(), 60);
}

#[tokio::test(start_paused = true)]
async fn what_no_server_sends_ends_the_connection() {
    let listener = Listener::new();
    let bad: [&[u8]; 6] = [
        b"\0RES\0\0\0\x0a\0\0\0\0",
        b"\0REQ\0\0\0\x06\0\0\0\0",
        b"HTTP/1.1 400 Bad Request\r\n",
        b"\0RES\0\0\0\x08\0\0\0\x03H:1",
        b"\0RES\0\0\0\x1f\0\0\0\x03abc",
        b"\0RES\0\0\0\x1f\xff\xff\xff\xff",
    ];
    for bytes in bad {
        let counters = Rc::new(Counters::default());
        let (log, _guard) = Log::start();
        let mut client = client_of(servers(&[&listener]), &counters);
        let mut peer = while_waiting(&mut client, listener.accept()).await;
        while_waiting(&mut client, peer.put_to_sleep()).await;
        tokio::io::AsyncWriteExt::write_all(&mut peer.stream, bytes).await.unwrap();
        while_waiting(&mut client, peer.expect_end()).await;
        let lines = log.lines();
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(lines[0].contains("WARN") && lines[0].contains("`[tls]`"), "{lines:?}");
        let mut peer = while_waiting(&mut client, listener.accept()).await;
        job_of(&mut client, peer.assign("H:1")).await;
    }
}

#[tokio::test(start_paused = true)]
async fn all_instances_together_log_that_a_server_went_and_came_back_once() {
    let listener = Listener::new();
    let (log, _guard) = Log::start();
    let counters = Rc::new(Counters::default());
    let count = || counters.connections.borrow()[&listener.name()];
    let mut first = client_of(servers(&[&listener]), &counters);
    let mut second = client_of(servers(&[&listener]), &counters);
    assert_eq!(count(), 0);
    let mut first_peer = while_waiting(&mut first, listener.accept()).await;
    while_waiting(&mut first, first_peer.put_to_sleep()).await;
    let mut second_peer = while_waiting(&mut second, listener.accept()).await;
    while_waiting(&mut second, second_peer.put_to_sleep()).await;
    assert_eq!((count(), log.lines()), (2, vec![]));

    drop(first_peer);
    timeout(Duration::from_millis(1), first.next()).await.unwrap_err();
    assert_eq!((count(), log.lines()), (1, vec![]));
    drop(second_peer);
    timeout(Duration::from_millis(1), second.next()).await.unwrap_err();
    assert_eq!((count(), log.lines().len()), (0, 1));
    for _ in 0..3 {
        while_waiting(&mut first, listener.accept_silently()).await;
        timeout(Duration::from_millis(1), first.next()).await.unwrap_err();
    }
    let lines = log.lines();
    assert!(lines.len() == 1 && lines[0].contains("WARN"), "{lines:?}");
    assert!(lines[0].contains("the server closed the connection; look at its log"), "{lines:?}");
    assert!(lines[0].contains(&listener.name()), "{lines:?}");

    let mut peer = while_waiting(&mut first, listener.accept()).await;
    while_waiting(&mut first, peer.put_to_sleep()).await;
    let lines = log.lines();
    assert!(lines.len() == 2 && lines[1].contains("INFO"), "{lines:?}");
    // An instance that ends takes its connection along, and this is no news.
    drop(first);
    assert_eq!((count(), log.lines().len()), (0, 2));
    peer.expect_end().await;
}

#[tokio::test(start_paused = true)]
async fn refusals_are_logged_but_for_that_of_the_option() {
    let listener = Listener::new();
    let (log, _guard) = Log::start();
    let mut client = client(&[&listener]);
    let mut peer = while_waiting(&mut client, listener.accept_silently()).await;
    peer.send(Command::Error, b"UNKNOWN_OPTION\0what?").await;
    while_waiting(&mut client, peer.put_to_sleep()).await;
    assert_eq!(log.lines(), Vec::<String>::new());
    for _ in 0..3 {
        peer.send(Command::Error, b"ACCESS_DENIED\0no\nno").await;
        timeout(Duration::from_secs(1), client.next()).await.unwrap_err();
    }
    let lines = log.lines();
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].contains(r"ACCESS_DENIED no\nno; look at its log"), "{lines:?}");
}
