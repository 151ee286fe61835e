//! What a job sends, in parts as it comes: events in, the body of an answer out.
//!
//! A task receives the events, so that a client that doesn't read is noticed although nothing asks
//! for the next part. Knows no headers.
//!
//! Invariant: a body that ends was followed by the job's end; one that breaks off was not.

use std::io::{Error, ErrorKind};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures_util::stream::unfold;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::Instant;

use super::{Event, Job, counted, failed, next_until, threw};
use crate::ops::error::ApiError;
use crate::ops::link::Link;

/// A part of the body.
enum Part {
    Data(Bytes),
    End,
}

/// Waits for the first part of a job's result. The body has it and all others.
///
/// # Errors
/// `ApiError` if the job ends without a result, or sends nothing in time.
pub(super) async fn start(
    link: Link,
    mut job: Job,
    permit: OwnedSemaphorePermit,
    wait: Duration,
) -> Result<Body, ApiError> {
    let deadline = Instant::now() + wait;
    let first = loop {
        match next_until(&mut job, Some(deadline)).await? {
            Event::Data(data) => break data,
            Event::Warning => {}
            Event::Complete(result) => return Ok(Body::from(counted(&link, result))),
            Event::Fail => return Err(failed()),
            Event::Exception(text) => return Err(threw(&text)),
        }
    };
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        pump(&link, job, first, &sender, deadline).await;
        drop(permit);
    });
    let parts = unfold(Some(receiver), async |receiver: Option<mpsc::Receiver<Part>>| {
        let mut receiver = receiver?;
        match receiver.recv().await {
            Some(Part::Data(data)) => Some((Ok(data), Some(receiver))),
            Some(Part::End) => None,
            None => Some((Err(Error::from(ErrorKind::ConnectionAborted)), None)),
        }
    });
    Ok(Body::from_stream(Box::pin(parts)))
}

/// Sends the parts of a result. Without an end if the job has none in time, fails, or the client
/// doesn't read.
async fn pump(
    link: &Link,
    mut job: Job,
    first: Bytes,
    sender: &mpsc::Sender<Part>,
    deadline: Instant,
) {
    let mut part = counted(link, first);
    let mut is_last = false;
    loop {
        let room = tokio::select! {
            room = sender.reserve() => room,
            () = job.closed() => return,
        };
        let Ok(room) = room else { return };
        room.send(Part::Data(part));
        if is_last {
            drop(sender.send(Part::End).await);
            return;
        }
        part = loop {
            let event = tokio::select! {
                event = next_until(&mut job, Some(deadline)) => event,
                () = sender.closed() => return,
            };
            match event {
                Ok(Event::Data(data)) => break counted(link, data),
                Ok(Event::Complete(result)) => {
                    is_last = true;
                    break counted(link, result);
                }
                Ok(Event::Warning) => {}
                Ok(Event::Fail | Event::Exception(_)) | Err(_) => return,
            }
        };
    }
}
