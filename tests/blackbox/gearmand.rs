//! What Debian's gearmand does otherwise: deeds in, whether both servers answer them alike out.
//!
//! Taken from the transcripts that say `ours:`, and from docs/coming-from-gearmand.md. What isn't
//! left out here but differs, such as the order of a worker's functions, is a rule of the model.
//! Invariant: a deed that is left out is left out whatever the server's state is, but for what its
//! peer holds.

use crate::model::{Model, Place};
use crate::operations::{Bytes, Deed, Request, Submission};

/// gearmand takes longer keys and handles for shorter ones, or doesn't answer.
const NAME_BYTES_MAX: usize = 63;
/// Times before this are past.
const PAST: [&[u8]; 3] = [b"", b"0", b"1700000000"];

/// Names of functions that both take alike.
pub(crate) fn functions(names: &mut Vec<Bytes>) {
    names.retain(|name| !name.is_empty() && name.len() <= NAME_BYTES_MAX);
}

/// Whether both servers answer this alike.
pub(crate) fn agrees(deed: &Deed, place: Place, model: &Model) -> bool {
    match deed {
        Deed::Open => true,
        // It takes FIN for the end of the connection.
        Deed::Send { fin: true, .. } => false,
        Deed::Send { requests, .. } => {
            requests.iter().all(|request| agrees_on(request, place, model))
        }
        // It reads beyond what is malformed, and keeps the connection.
        Deed::Break(_) => false,
        // It keeps abandoned jobs until a worker comes by, background ones among them.
        Deed::Close { .. } => !model.is_client(place),
    }
}

fn agrees_on(request: &Request, place: Place, model: &Model) -> bool {
    let is_short = |name: &Bytes| name.len() <= NAME_BYTES_MAX;
    match request {
        Request::Submit(submission) => {
            let Submission { unique, reducer, epoch, .. } = submission;
            // Nothing wakes a worker when a delayed job is due.
            let is_delayed = submission.has_epoch() && !PAST.contains(&&epoch[..]);
            is_short(unique) && is_short(reducer) && !is_delayed
        }
        // A second one makes a second entry, and a sleeper isn't woken for what it can do now.
        Request::CanDo { function, .. } => !model.can(place, function) && !model.is_asleep(place),
        Request::Work { handle, .. } | Request::GetStatus { handle } => is_short(handle),
        Request::GetStatusUnique { unique } => is_short(unique),
        Request::Text { line, crlf } => match line.split(' ').next() {
            // Cancelled jobs stay until a worker comes by, and so do those of a dropped function.
            Some("cancel" | "drop") => false,
            // It takes two bytes for the end of the line.
            Some("create" | "maxqueue") => *crlf,
            // Its default is another one.
            Some("verbose") => false,
            _ => true,
        },
        _ => true,
    }
}
