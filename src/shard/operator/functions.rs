//! Functions as operators see them: where a list has come to in, the next rows out.
//!
//! Those that are named in metrics come first, with what was counted of them, then all others.
//! Knows no JSON and no metrics.
//!
//! Invariant: of a row, all numbers are of the same moment, so that jobs add up.

use super::ROWS_MAX;
use crate::engine::FunctionId;
use crate::engine::named::NamedFunction;
use crate::engine::numbers::{Gauges, Numbers};
use crate::engine::record::Pause;
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
    /// For how long it is paused, if it is.
    pub pause: Option<Pause>,
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
            FunctionsAt::Named(from) => {
                let mut named = self.engine.named_from(from);
                let rows: Vec<_> =
                    named.by_ref().take(ROWS_MAX).map(|it| self.named_row(it)).collect();
                let next = named.next().map(|next| FunctionsAt::Named(next.index));
                (rows, next.or(Some(FunctionsAt::Other(FunctionId::FIRST))))
            }
            FunctionsAt::Other(from) => {
                let functions = self.engine.functions().iter_from(from);
                let mut others = functions.filter(|(_, function)| !function.is_named());
                let rows = others.by_ref().take(ROWS_MAX).map(|(id, function)| FunctionRow {
                    name: Some(function.name.clone()),
                    exists: true,
                    gauges: self.engine.gauges(id),
                    numbers: None,
                    queue_max: function.queue_max,
                    pause: function.pause,
                });
                let rows: Vec<_> = rows.collect();
                (rows, others.next().map(|(id, _)| FunctionsAt::Other(id)))
            }
        }
    }

    fn named_row(&self, named: NamedFunction<'_>) -> FunctionRow {
        let function = named.function.map(|id| &self.engine.functions()[id]);
        FunctionRow {
            name: named.name.map(Box::from),
            exists: function.is_some(),
            gauges: named.gauges,
            numbers: Some(Box::new(*named.numbers)),
            queue_max: named.queue_max,
            pause: function.and_then(|it| it.pause),
        }
    }
}
