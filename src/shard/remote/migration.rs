//! How far a connection is on its way to another core: a state machine, and what travels.
//!
//! A connection moves to the core of its jobs when it has to do with no other (`Quiescing` to
//! `Accepted`; its proxy there is `Incoming` from `Accepted` on), or away from it when that core
//! has too much to do (`Offloading`, `HandingOver`; what stays behind becomes a proxy, `Offloaded`
//! until its new home has written). Knows no shard, no driver and no other core's state.
//!
//! Invariant: from `Accepted` or `HandingOver` on nothing is written to the connection here.

use crate::engine::ConnId;
use crate::protocol::session::Session;
use crate::shard::connections::Transport;
use crate::shard::cores::Core;
use crate::shard::driver::{Intake, Origin};
use crate::shard::remote::message::{ConnKey, Rest};
use crate::wire::PrioritySet;
use crate::wire::inbound::Inbound;

/// Where a connection is on its way to another core.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::shard) enum Migration {
    /// It stays.
    #[default]
    No,
    /// Its requests wait until the replies that are under way have come and left.
    Quiescing(Core),
    /// The other core has been asked.
    Requested(Core),
    /// The driver may hand it over when everything has left.
    Accepted(Core),
    /// A proxy: what there is for its connection is kept here, where it comes to.
    Incoming,
    /// It leaves the core of its jobs; see `offload`.
    Offloading(Core),
    /// The same, and the driver hands it over: what there is for it is kept.
    HandingOver(Core),
    /// A proxy: what there is for it is kept here until its new home has written.
    Offloaded,
}

/// What follows a step of a migration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::shard) enum Step {
    /// Nothing yet.
    Wait,
    /// The core that it moves to is to be asked.
    Request(Core),
    /// It stays after all; no other core expects it.
    Stay,
    /// It stays after all; the core that accepted it is to know.
    Withdraw(Core),
    /// It stays after all, and so do the next ones that would be offloaded.
    GiveUpOffload,
}

impl Migration {
    /// Whether replies are kept here, for a connection that is between two homes.
    #[inline]
    pub(in crate::shard) fn keeps_replies(self) -> bool {
        matches!(self, Self::Incoming | Self::Offloaded)
    }

    /// Whether the driver has begun to hand an offloaded connection over, or has done so.
    #[inline]
    pub(in crate::shard) fn is_handing_over(self) -> bool {
        matches!(self, Self::HandingOver(_) | Self::Offloaded)
    }

    /// What the driver should do about incoming bytes. `is_flushed` says that nothing is left to be
    /// sent, `may_read` that neither limits nor the peer's end keep it from reading.
    pub(in crate::shard) fn intake(self, is_flushed: bool, may_read: bool) -> Intake {
        match self {
            Self::Accepted(_) | Self::Offloading(_) if is_flushed => Intake::Move,
            Self::Quiescing(_) | Self::Accepted(_) | Self::Offloading(_) if may_read => {
                Intake::Read
            }
            _ => Intake::Pause,
        }
    }

    /// Goes on once nothing is under way any more (`is_quiet`). A connection whose peer has said
    /// all (`has_ended`) stays: it is about to end, and its output may never drain.
    pub(in crate::shard) fn advance(&mut self, is_quiet: bool, has_ended: bool) -> Step {
        match *self {
            Self::Quiescing(_) | Self::Offloading(_) if has_ended => {
                *self = Self::No;
                Step::Stay
            }
            Self::Accepted(_) if has_ended => self.cancel(),
            Self::Quiescing(owner) if is_quiet => {
                *self = Self::Requested(owner);
                Step::Request(owner)
            }
            _ => Step::Wait,
        }
    }

    /// The core that was asked keeps what there is for the connection.
    pub(in crate::shard) fn accept(&mut self, owner: Core) {
        debug_assert_eq!(*self, Self::Requested(owner));
        *self = Self::Accepted(owner);
    }

    /// The driver begins to hand the connection over. Returns where to; `None` if it isn't to be.
    pub(in crate::shard) fn begin_hand_over(&mut self) -> Option<Core> {
        match *self {
            Self::Accepted(to) | Self::HandingOver(to) => Some(to),
            Self::Offloading(to) => {
                *self = Self::HandingOver(to);
                Some(to)
            }
            _ => None,
        }
    }

    /// It can't be handed over, or shan't: it stays where it is.
    pub(in crate::shard) fn cancel(&mut self) -> Step {
        match std::mem::take(self) {
            Self::Accepted(owner) => Step::Withdraw(owner),
            Self::Offloading(_) | Self::HandingOver(_) => Step::GiveUpOffload,
            Self::Quiescing(_) => Step::Stay,
            other => {
                *self = other;
                Step::Wait
            }
        }
    }

    /// Much has come that waits for the move: a peer that doesn't read what has to leave before it
    /// may have more to say first. After `Requested` the answer comes first.
    pub(in crate::shard) fn may_be_cancelled(self) -> bool {
        matches!(self, Self::Quiescing(_) | Self::Accepted(_) | Self::Offloading(_))
    }
}

/// A hand-over that the driver has begun: `Shard::detach` or `Shard::cancel_hand_over` ends it.
#[derive(Debug)]
#[must_use = "a hand-over ends with `detach` or `cancel_hand_over`"]
pub struct HandOver {
    pub(in crate::shard) conn: ConnId,
    pub(in crate::shard) to: Core,
}

impl HandOver {
    /// The core that the connection is handed over to.
    #[must_use]
    pub fn to(&self) -> Core {
        self.to
    }
}

/// A connection between two cores, without its socket.
#[derive(Clone, Debug)]
pub struct MigratingConnection {
    pub(in crate::shard) key: ConnKey,
    pub(in crate::shard) origin: Origin,
    pub(in crate::shard) session: Session,
    pub(in crate::shard) transport: Transport,
    pub(in crate::shard) inbound: Inbound,
    pub(in crate::shard) rest: Rest,
    /// The peer will send nothing more.
    pub(in crate::shard) ended: bool,
    /// Of a connection that leaves the core of its jobs.
    pub(in crate::shard) interest: Option<RemoteInterest>,
}

/// What the new home of an offloaded connection has to know of the core of its jobs.
#[derive(Clone, Debug)]
pub(in crate::shard) struct RemoteInterest {
    /// Its number there, a proxy's from now on.
    pub(in crate::shard) proxy: ConnId,
    /// What it can run.
    pub(in crate::shard) functions: Vec<Box<[u8]>>,
    /// Priorities that may have jobs for it.
    pub(in crate::shard) ready: PrioritySet,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_moves_when_it_is_quiet_and_the_owner_has_accepted_it() {
        let mut migration = Migration::Quiescing(2);
        assert_eq!(migration.advance(false, false), Step::Wait);
        assert_eq!(
            migration.intake(false, true),
            Intake::Read,
            "its peer may write before it reads"
        );
        assert_eq!(migration.advance(true, false), Step::Request(2));
        assert_eq!(migration.advance(true, false), Step::Wait, "it is asked for once");
        assert_eq!(
            (migration.intake(true, true), migration.begin_hand_over()),
            (Intake::Pause, None)
        );
        migration.accept(2);
        assert_eq!(
            (migration.intake(false, true), migration.intake(true, true)),
            (Intake::Read, Intake::Move)
        );
        assert_eq!(migration.begin_hand_over(), Some(2));
        assert_eq!(migration.cancel(), Step::Withdraw(2), "the owner keeps what there is for it");
        assert_eq!(migration, Migration::No);
    }

    #[test]
    fn an_offloaded_connection_is_not_written_to_once_the_driver_has_begun() {
        let mut migration = Migration::Offloading(1);
        assert!(!migration.is_handing_over());
        assert_eq!(migration.begin_hand_over(), Some(1));
        assert!(migration.is_handing_over() && !migration.keeps_replies());
        assert_eq!(migration.begin_hand_over(), Some(1), "drivers may ask twice");
        assert_eq!(migration.cancel(), Step::GiveUpOffload);
        assert!(Migration::Offloaded.keeps_replies() && Migration::Incoming.keeps_replies());
    }

    #[test]
    fn a_connection_whose_peer_has_said_all_stays() {
        for (mut migration, step) in [
            (Migration::Quiescing(1), Step::Stay),
            (Migration::Offloading(1), Step::Stay),
            (Migration::Accepted(1), Step::Withdraw(1)),
        ] {
            assert_eq!((migration.advance(true, true), migration), (step, Migration::No));
        }
        // The answer is on its way, and finds it so.
        let mut migration = Migration::Requested(1);
        assert_eq!((migration.advance(true, true), migration.cancel()), (Step::Wait, Step::Wait));
        assert_eq!(migration, Migration::Requested(1));
    }
}
