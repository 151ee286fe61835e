//! Why a run of a job ended without a result: the reasons that policies name and lists show.
//!
//! Values. Knows no jobs and no policies.
//!
//! Invariant: a reason keeps its name and its number: stores have both.

use super::answer::Outcome;

/// Why a run of a job ended without WORK_COMPLETE, or why a job was never run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// Its worker's connection ended, or its worker withdrew the function.
    Lost,
    /// It exceeded the timeout.
    TimedOut,
    /// WORK_FAIL.
    Fail,
    /// WORK_EXCEPTION.
    Exception,
    /// It wasn't started in time.
    Expired,
}

impl Reason {
    /// Each reason, in the order of their numbers.
    pub const ALL: [Self; 5] =
        [Self::Lost, Self::TimedOut, Self::Fail, Self::Exception, Self::Expired];

    /// Its name in files, lists and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::TimedOut => "timeout",
            Self::Fail => "fail",
            Self::Exception => "exception",
            Self::Expired => "expired",
        }
    }

    /// The reason of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.name() == name)
    }
}

impl From<Outcome> for Reason {
    /// A result is no reason; it doesn't come here.
    fn from(outcome: Outcome) -> Self {
        if outcome == Outcome::Exception { Self::Exception } else { Self::Fail }
    }
}
