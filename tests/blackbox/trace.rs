//! What happened last, in words: deeds and answers in, the story of a failure out.
//!
//! Invariant: no more than the last deeds are kept.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write;

use crate::conn::Item;
use crate::connection::Received;

const KEPT: usize = 60;

/// The last deeds of a run.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    command: String,
    lines: VecDeque<String>,
    /// All deeds so far.
    pub(crate) deeds: usize,
}

impl Trace {
    /// A run starts, with this server.
    pub(crate) fn begin(&mut self, command: &str) {
        command.clone_into(&mut self.command);
        self.lines.clear();
    }

    /// Something was done.
    pub(crate) fn note(&mut self, line: String) {
        self.deeds += 1;
        self.push(line);
    }

    /// Something came.
    pub(crate) fn received(&mut self, received: &BTreeMap<usize, Received>) {
        for (place, came) in received {
            let Received { replies, works, noops } = came;
            let mut line = format!("    c{place} got");
            for item in replies.iter().chain(works) {
                let _ = write!(line, " {item:?},");
            }
            if *noops > 0 {
                let _ = write!(line, " {noops} NOOP");
            }
            if *noops > 0 || !replies.is_empty() || !works.is_empty() {
                self.push(line);
            }
        }
    }

    /// Packets and lines came, the answers to barriers left out.
    pub(crate) fn came(&mut self, came: &BTreeMap<usize, Vec<Item>>) {
        for (place, items) in came.iter().filter(|(_, items)| !items.is_empty()) {
            self.push(format!("    c{place} got {items:?}"));
        }
    }

    fn push(&mut self, line: String) {
        if self.lines.len() == KEPT {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
    }

    /// The server's command line and the last deeds.
    pub(crate) fn story(&self) -> String {
        let lines: Vec<&str> = self.lines.iter().map(String::as_str).collect();
        format!("{}\n{}", self.command, lines.join("\n"))
    }
}
