//! The body of a request as it comes: pieces in, one allocation with arguments before them out.
//!
//! Knows no commands. It trusts no announced length: memory grows with what has come.
//!
//! Invariant: memory is counted before it is allocated, until what is returned is dropped.

use std::time::Duration;

use axum::body::Body;
use axum::http::StatusCode;
use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::Body as _;
use tokio::time::timeout;

use crate::ops::error::ApiError;
use crate::ops::link::{Held, Link};

/// How long what is left of a refused body is received, and most of it, so that a client that sends
/// all of it first gets its answer.
const DISCARD_TIME: Duration = Duration::from_secs(5);
const DISCARD_BYTES: usize = 64 << 20;
/// Smallest growth.
const STEP_BYTES: usize = 64 << 10;

/// Receives a body behind `arguments`; both together have at most `bytes_max` bytes.
///
/// # Errors
/// `ApiError` if it is too large for a job or for the memory that is left, or doesn't come.
pub(super) async fn receive(
    link: &Link,
    arguments: &[u8],
    bytes_max: usize,
    body: &mut Body,
) -> Result<(Bytes, Held), ApiError> {
    let hint = body.size_hint();
    let announced = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
    if announced(hint.lower()).saturating_add(arguments.len()) > bytes_max {
        return Err(too_large(bytes_max));
    }
    // It would be refused later, with all memory taken until then.
    if announced(hint.lower()) > link.memory_left() {
        return Err(out_of_memory());
    }
    let total = hint.upper().map_or(bytes_max, announced).saturating_add(arguments.len());
    let mut packet = Vec::new();
    let mut held = link.held(0);
    reserve(link, &mut packet, &mut held, arguments.len(), total)?;
    packet.extend_from_slice(arguments);
    loop {
        let Some(frame) = body.frame().await else { break };
        let Ok(data) = frame.map_err(|_| broken())?.into_data() else { continue };
        let needed = packet.len().saturating_add(data.len());
        if needed > bytes_max {
            return Err(too_large(bytes_max));
        }
        reserve(link, &mut packet, &mut held, needed, total)?;
        packet.extend_from_slice(&data);
    }
    Ok((Bytes::from(packet), held))
}

/// Receives what is left of a body, up to a limit, while the answer is on its way.
pub(in crate::ops) fn discard(mut body: Body) {
    if body.is_end_stream() {
        return;
    }
    tokio::spawn(timeout(DISCARD_TIME, async move {
        let mut left = DISCARD_BYTES;
        while let Some(Ok(frame)) = body.frame().await
            && let Ok(data) = frame.into_data()
            && data.len() <= left
        {
            left -= data.len();
        }
    }));
}

/// Makes room for `needed` bytes, and for some of those that may follow, up to `total`.
fn reserve(
    link: &Link,
    packet: &mut Vec<u8>,
    held: &mut Held,
    needed: usize,
    total: usize,
) -> Result<(), ApiError> {
    if needed <= packet.capacity() {
        return Ok(());
    }
    let generous = STEP_BYTES.max(2 * packet.len()).min(total).max(needed);
    let left = link.memory_left().saturating_add(packet.capacity());
    let capacity = if generous <= left { generous } else { needed };
    let more = capacity - packet.capacity();
    let additional = capacity - packet.len();
    if capacity > left || packet.try_reserve_exact(additional).is_err() {
        return Err(out_of_memory());
    }
    held.grow(more);
    Ok(())
}

fn too_large(bytes_max: usize) -> ApiError {
    ApiError::new(
        StatusCode::PAYLOAD_TOO_LARGE,
        "PAYLOAD_TOO_LARGE",
        format!("the job is larger than {bytes_max} bytes, with the names of function and key"),
        "send less, or raise --job-size-max",
    )
}

/// Memory is short.
pub(in crate::ops) fn out_of_memory() -> ApiError {
    ApiError::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "OUT_OF_MEMORY",
        "the server has reached --memory-max",
        "try again when jobs are done, or raise --memory-max",
    )
    .retry_after(1)
}

fn broken() -> ApiError {
    ApiError::new(
        StatusCode::BAD_REQUEST,
        "BROKEN_BODY",
        "the body ended early, or its chunks are broken",
        "send as many bytes as announced",
    )
}
