//! Questions that only all cores together can answer: one message to each, one reply from the
//! parts.
//!
//! A question in, the joined reply in the place that its request holds. Knows what is asked, not
//! how a core finds its part.
//!
//! Invariant: each core answers once, and the reply is filled when the last has, unless the
//! connection has gone.

use super::message::{Answer, ConnKey, Message, Question};
use crate::engine::{ConnId, Now, Status};
use crate::protocol::access::Hits;
use crate::protocol::admin::access_rules;
use crate::protocol::{admin, session};
use crate::shard::Shard;
use crate::shard::denials::{Refused, latest_text};
use crate::shard::stats::Stats;
use crate::wire::outbox::{PacketBatch, Slot};

/// A question to all cores, as far as they have answered.
#[derive(Clone, Debug)]
pub(in crate::shard) struct FanOut {
    key: ConnKey,
    slot: Slot,
    question: Question,
    /// Cores that haven't answered.
    left: usize,
    latest: Option<(u64, Status)>,
    texts: Vec<Vec<u8>>,
    stats: Option<Box<Stats>>,
    hits: Hits,
    refusals: Vec<Refused>,
}

impl FanOut {
    fn new(key: ConnKey, slot: Slot, question: Question, cores: usize) -> Self {
        Self {
            key,
            slot,
            question,
            left: cores,
            latest: None,
            texts: Vec::new(),
            stats: None,
            hits: Hits::default(),
            refusals: Vec::new(),
        }
    }

    /// Adds one core's part. Returns whether it was the last.
    fn add(&mut self, answer: Answer) -> bool {
        match answer {
            Answer::Status(status) => {
                let both = [self.latest, status].into_iter().flatten();
                self.latest = both.max_by_key(|(number, _)| *number);
            }
            Answer::Text(text) => self.texts.push(text),
            Answer::Stats(stats) => match &mut self.stats {
                Some(sum) => **sum += *stats,
                none => *none = Some(stats),
            },
            Answer::Hits(hits) => self.hits += &*hits,
            Answer::Refusals(refusals) => self.refusals.extend(refusals),
        }
        self.left -= 1;
        self.left == 0
    }

    fn reply(&mut self, shard: &Shard, now: Now) -> PacketBatch {
        let mut packets = PacketBatch::default();
        match &self.question {
            Question::StatusUnique { unique, .. } => {
                packets.push(&session::status_unique(unique, self.latest));
            }
            Question::Line { .. } => packets.push_text(&admin::join(&self.texts)),
            Question::Stats => {
                let sums = self.stats.as_deref().copied().unwrap_or_default();
                packets.push_text(&shard.stats_text(&sums, now));
            }
            Question::Access => {
                let list = shard.access_list.as_deref();
                packets.push_text(&access_rules::text(list, &self.hits));
            }
            Question::Refusals => packets.push_text(&latest_text(&mut self.refusals)),
        }
        packets
    }
}

impl Shard {
    /// Asks every core, this one included.
    pub(in crate::shard) fn ask_all(&mut self, conn: ConnId, question: Question, now: Now) {
        let (key, slot) = (self.connections.key(conn), self.connections.hold(conn));
        let count = self.settings.cores.count;
        let fan_out = self.fan_outs.insert(FanOut::new(key, slot, question.clone(), count));
        for core in self.settings.cores.others() {
            self.outgoing.send(core, Message::Ask { fan_out, question: question.clone() });
        }
        let answer = self.answer_question(&question, now);
        self.add_answer(fan_out, answer, now);
    }

    /// A core has answered a question to all.
    pub(in crate::shard) fn add_answer(&mut self, fan_out: usize, answer: Answer, now: Now) {
        if !self.fan_outs[fan_out].add(answer) {
            return;
        }
        let mut fan_out = self.fan_outs.remove(fan_out);
        if let Some(conn) = self.find_key(fan_out.key) {
            let reply = fan_out.reply(self, now);
            self.fill(conn, |outbox| outbox.fill_with(fan_out.slot, reply));
        }
    }
}
