//! Functions as operators see them: where a list has come to in, the next rows out.
//!
//! Those that are named in metrics come first, with what was counted of them, then all others.
//! Knows no JSON and no metrics.
//!
//! Invariant: of a row, all numbers are of the same moment, so that jobs add up.

use super::{RECORDS_MAX, ROWS_MAX};
use crate::engine::FunctionId;
use crate::engine::numbers::{Gauges, Numbers};
use crate::shard::Shard;

/// How far a list of functions has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FunctionsAt {
    /// At this one of those that are named in metrics.
    Named(usize),
    /// At this one of the others.
    Other(FunctionId),
}

impl FunctionsAt {
    /// The start of the list.
    pub const START: Self = Self::Named(0);
}

/// A function.
#[derive(Clone, Debug)]
pub struct FunctionRow {
    /// Its name; `None` for the sum of those that aren't named in metrics.
    pub name: Option<Box<[u8]>>,
    /// Whether the function is there, or was and has only its counts.
    pub exists: bool,
    /// What there is of it.
    pub gauges: Gauges,
    /// What was counted of it, if it is named in metrics, or of those that aren't together.
    pub numbers: Option<Box<Numbers>>,
    /// Most jobs by priority; 0 = no limit.
    pub queue_max: [u32; 3],
}

impl FunctionRow {
    pub(super) fn bytes(&self) -> usize {
        let numbers = self.numbers.as_ref().map_or(0, |_| size_of::<Numbers>());
        size_of::<Self>() + numbers + self.name.as_ref().map_or(0, |name| name.len())
    }
}

impl Shard {
    pub(super) fn function_rows(&self, at: FunctionsAt) -> (Vec<FunctionRow>, Option<FunctionsAt>) {
        match at {
            FunctionsAt::Named(from) => self.named_rows(from),
            FunctionsAt::Other(from) => self.other_rows(from),
        }
    }

    fn named_rows(&self, from: usize) -> (Vec<FunctionRow>, Option<FunctionsAt>) {
        let mut functions = self.engine.named_from(from);
        let rows = functions.by_ref().take(ROWS_MAX).map(|it| FunctionRow {
            name: it.name.map(Box::from),
            exists: it.name.is_none() || it.function.is_some(),
            gauges: it.gauges,
            numbers: Some(Box::new(*it.numbers)),
            queue_max: it.queue_max,
        });
        let rows: Vec<_> = rows.collect();
        let next = match rows.len() {
            ROWS_MAX => FunctionsAt::Named(from + ROWS_MAX),
            _ => FunctionsAt::Other(FunctionId::FIRST),
        };
        (rows, Some(next))
    }

    fn other_rows(&self, from: FunctionId) -> (Vec<FunctionRow>, Option<FunctionsAt>) {
        let functions = self.engine.functions().iter_from(from).take(RECORDS_MAX).enumerate();
        let mut rows = Vec::new();
        for (looked_at, (id, function)) in functions {
            if rows.len() == ROWS_MAX || looked_at + 1 == RECORDS_MAX {
                return (rows, Some(FunctionsAt::Other(id)));
            }
            if !function.is_named() {
                rows.push(FunctionRow {
                    name: Some(function.name.clone()),
                    exists: true,
                    gauges: self.engine.gauges(id),
                    numbers: None,
                    queue_max: function.queue_max,
                });
            }
        }
        (rows, None)
    }
}
