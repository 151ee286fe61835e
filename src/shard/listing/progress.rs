//! How far a list of the text protocol, or a change of many, has come, core by core.
//!
//! Rows of one core in, those to be written and the next question out. Knows no shard and no
//! connection.
//!
//! Invariant: a connection is named once in a list of connections, whatever moves meanwhile.

use std::sync::Arc;

use foldhash::HashSet;

use crate::engine::ConnId;
use crate::engine::glob::Glob;
use crate::protocol::admin::Task;
use crate::protocol::admin::change::Tally;
use crate::protocol::admin::list::{ConnectionsAt, Listing};
use crate::shard::cores::Core;
use crate::shard::remote::message::Rows;

/// With less than this to send, a list waits for the rows of the core that was asked: clients such
/// as gearadmin take what the first read returns for the whole list.
pub(in crate::shard) const LIST_PIECE_BYTES: usize = 64 << 10;

/// Most rounds of a list of connections. Each takes as long as messages to all cores and back, so
/// this many see no rest only where connections move all the time.
const ROUNDS_MAX: u32 = 100;

/// How far a list or a change has come, core by core.
#[derive(Clone, Debug)]
pub(in crate::shard) struct Progress {
    pub(in crate::shard) core: Core,
    /// What this core is asked for next, or was; nothing is left once it has given its last rows.
    pub(in crate::shard) next: Option<Task>,
    /// The list or the change from its start.
    task: Task,
    /// Of which functions; `None` = of all.
    pub(in crate::shard) names: Option<Arc<Glob>>,
    /// What was changed.
    tally: Tally,
    /// Its rows are on their way.
    pub(in crate::shard) asked: bool,
    census: Census,
}

/// The rounds by which a list of connections names each connection once, though connections move
/// between cores meanwhile. The first asks all cores for all rows, the others for those of
/// connections that have come since. It is complete when all that had arrived in one round is all
/// that had departed in the next: then none was on its way between the two.
#[derive(Clone, Debug, Default)]
struct Census {
    /// Numbers of the connections that were named.
    named: HashSet<i32>,
    /// How many had moved to each core when its part of the round before last began.
    arrived: Vec<u64>,
    /// All that had departed when each core's part of this round began.
    departed: u64,
    /// All that had arrived in the round before; nothing in the first.
    arrived_before: Option<u64>,
    rounds: u32,
}

impl Progress {
    pub(in crate::shard) fn of(task: Task, names: Option<Glob>) -> Self {
        Self {
            core: 0,
            next: Some(task),
            task,
            names: names.map(Arc::new),
            tally: Tally::default(),
            asked: false,
            census: Census::default(),
        }
    }

    /// What the last core's part is followed by.
    pub(in crate::shard) fn end(&self) -> Vec<u8> {
        match self.task {
            Task::List(_) => b".\n".to_vec(),
            Task::Change(change) => change.reply(self.tally),
        }
    }

    /// A core has given its next rows, and has `next` left: those to be written.
    pub(in crate::shard) fn take_in(&mut self, rows: Rows, next: Option<Task>) -> Vec<u8> {
        self.tally += rows.tally;
        let task = std::mem::replace(&mut self.next, next);
        let Some(Task::List(Listing::Workers(at) | Listing::Connections(at))) = task else {
            return rows.text;
        };
        let Census { named, arrived, departed, .. } = &mut self.census;
        // A connection that comes while a core gives its rows may stand behind the last row.
        if at.conn == ConnId::FIRST {
            arrived.resize(arrived.len().max(self.core + 1), 0);
            arrived[self.core] = rows.arrived;
            *departed += rows.departed;
        }
        let (mut text, mut start) = (Vec::with_capacity(rows.text.len()), 0);
        for (number, end) in rows.named {
            // A number that was named may be the next connection's by now, which is newer than the
            // list.
            if named.insert(number) {
                text.extend_from_slice(rows.text.get(start..end).unwrap_or_default());
            }
            start = end;
        }
        text
    }

    /// A core has no rows left: goes on with the next. `false` at the end of the list.
    pub(in crate::shard) fn go_on(&mut self, cores: usize) -> bool {
        self.core += 1;
        let Census { arrived, departed, arrived_before, rounds, .. } = &mut self.census;
        let has_census =
            matches!(self.task, Task::List(Listing::Workers(_) | Listing::Connections(_)));
        if self.core == cores {
            let is_complete = *arrived_before == Some(*departed) || *rounds >= ROUNDS_MAX;
            if cores == 1 || !has_census || is_complete {
                return false;
            }
            self.core = 0;
            *arrived_before = Some(arrived.iter().sum());
            (*departed, *rounds) = (0, *rounds + 1);
        }
        let newcomers = || {
            let since = arrived.get(self.core).copied();
            ConnectionsAt { since, ..ConnectionsAt::START }
        };
        self.next = Some(match self.task {
            Task::List(Listing::Workers(_)) if *rounds > 0 => {
                Task::List(Listing::Workers(newcomers()))
            }
            Task::List(Listing::Connections(_)) if *rounds > 0 => {
                Task::List(Listing::Connections(newcomers()))
            }
            task => task,
        });
        true
    }
}
