//! What the access list has refused: lines of the log, counts, and the latest refusals.
//!
//! Refusals in; lines out, at most one a second for each address and right, with the number of
//! those since the line before. Knows no rules.
//!
//! Invariant: each refusal is counted once; all that is kept has a largest size.

use std::collections::VecDeque;

use tracing::warn;

use super::throttle::Throttle;
use crate::engine::Now;
use crate::protocol::access::{RIGHTS, Right};
use crate::protocol::admin::columns;
use crate::protocol::peer_address::{PeerAddress, PeerHost};

/// Refusals that are kept, on each core and in the answer to `show refusals`.
pub(super) const KEPT_MAX: usize = 100;
/// What is kept of a function's name, in bytes.
const NAME_BYTES_MAX: usize = 128;

/// A refusal.
#[derive(Clone, Debug)]
pub struct Refused {
    unix_ms: u64,
    peer: Box<str>,
    right: Right,
    function: Option<Box<[u8]>>,
}

impl Refused {
    pub(crate) fn new(peer: &str, right: Right, function: Option<&[u8]>, now: Now) -> Self {
        let short = |name: &[u8]| name.get(..NAME_BYTES_MAX).unwrap_or(name).into();
        Self { unix_ms: now.unix_ms, peer: peer.into(), right, function: function.map(short) }
    }

    /// Memory that it takes, in bytes.
    pub(super) fn bytes(&self) -> usize {
        size_of::<Self>() + self.peer.len() + self.function.as_ref().map_or(0, |it| it.len())
    }
}

/// What one core has refused.
#[derive(Clone, Debug, Default)]
pub(crate) struct Denials {
    totals: [u64; RIGHTS],
    latest: VecDeque<Refused>,
    lines: Throttle<(PeerHost, Right)>,
}

impl Denials {
    /// Notes a refusal. `peer` is where it came from.
    pub(crate) fn note(&mut self, refused: Refused, peer: PeerAddress, now: Now) {
        self.totals[refused.right as usize] += 1;
        if let Some(repeated) = self.lines.note((peer.host(), refused.right), now) {
            let who = &*refused.peer;
            let right = refused.right.name();
            let function = refused.function.as_ref().map(|name| name.escape_ascii());
            let function = function.map(tracing::field::display);
            warn!(
                %peer, who, right, function, repeated,
                "access refused: ringgeard --access-check tells which rule decides"
            );
        }
        if self.latest.len() == KEPT_MAX {
            self.latest.pop_front();
        }
        self.latest.push_back(refused);
    }

    /// Refusals by right since the start.
    pub(crate) fn totals(&self) -> [u64; RIGHTS] {
        self.totals
    }

    /// The latest refusals, the oldest first.
    pub(super) fn latest(&self) -> Vec<Refused> {
        self.latest.iter().cloned().collect()
    }

    /// When `report` has something to write.
    #[inline]
    pub(crate) fn deadline_ms(&self) -> Option<u64> {
        self.lines.deadline_ms()
    }

    /// Writes the lines of addresses whose period is over.
    pub(crate) fn report(&mut self, now: Now) {
        self.lines.report(now, |key, repeated| match key {
            Some((address, right)) => {
                let right = right.name();
                warn!(peer = %address, right, repeated, "access refused");
            }
            None => warn!(repeated, "access refused: peers of too many addresses for a line each"),
        });
    }
}

/// The answer to `show refusals` by the refusals of all cores.
pub(super) fn latest_text(refusals: &mut [Refused]) -> Vec<u8> {
    refusals.sort_by_key(|refused| refused.unix_ms);
    let mut out = Vec::new();
    for refused in refusals.iter().skip(refusals.len().saturating_sub(KEPT_MAX)) {
        columns::moment(&mut out, Some(refused.unix_ms));
        out.push(b'\t');
        columns::name(&mut out, refused.peer.as_bytes());
        columns::text(&mut out, &[b"\t", refused.right.name().as_bytes(), b"\t"]);
        columns::name(&mut out, refused.function.as_deref().unwrap_or_default());
        out.push(b'\n');
    }
    out.extend_from_slice(b".\n");
    out
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn at(mono_ms: u64) -> Now {
        Now { mono_ms, unix_ms: 1_700_000_000_000 + mono_ms }
    }

    fn note(denials: &mut Denials, address: u32, right: Right, ms: u64) {
        let refused = Refused::new("peer", right, Some(b"f"), at(ms));
        denials.note(refused, (Ipv4Addr::from_bits(address), 1).into(), at(ms));
    }

    #[test]
    fn what_is_kept_has_a_largest_size() {
        let mut denials = Denials::default();
        for address in 0..300 {
            note(&mut denials, address, Right::Submit, 10);
        }
        note(&mut denials, 1, Right::Work, 20);
        assert_eq!((denials.latest().len(), denials.totals()), (KEPT_MAX, [300, 1, 0, 0]));
        let long = Refused::new("peer", Right::Work, Some(&[b'x'; 9000]), at(5));
        assert!(long.bytes() < 500);
    }
}
