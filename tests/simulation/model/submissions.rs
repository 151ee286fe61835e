//! The clients' half of the model: jobs that are submitted, joined and refused.
//!
//! Invariant: of equal jobs there is one.

use ringgear::engine::ConnId;
use ringgear::engine::handle::{job_number, slot};
use ringgear::wire::Command;

use super::{Job, Model, Place};

impl Model {
    pub(super) fn submit(
        &mut self,
        conn: ConnId,
        command: Command,
        parts: &[&[u8]],
        payload: &[u8],
    ) {
        use Command as C;
        let (function, unique) = (parts[0], parts[1]);
        let reduces = matches!(command, C::SubmitReduceJob | C::SubmitReduceJobBackground);
        let reducer: &[u8] = if reduces { parts[2] } else { b"" };
        let background = !matches!(
            command,
            C::SubmitJob | C::SubmitJobHigh | C::SubmitJobLow | C::SubmitReduceJob
        );
        let priority = match command {
            C::SubmitJobHigh | C::SubmitJobHighBg => 0,
            C::SubmitJobLow | C::SubmitJobLowBg => 2,
            _ => 1,
        };
        if unique.len() > 64 || reducer.len() > 64 {
            return self.expect_error(conn, "ARGUMENT_TOO_LARGE", "Unique value too large");
        }
        let mut run_at_s = 0;
        if command == C::SubmitJobEpoch {
            let Ok(epoch) = std::str::from_utf8(parts[2]).unwrap().parse::<i64>() else {
                return self.expect_error(conn, "ARGUMENT_TOO_LARGE", "Epoch out of range");
            };
            run_at_s = u64::try_from(epoch).unwrap_or(0);
        }
        self.function(function);
        if let Some(number) = self.equal(function, unique, payload) {
            self.tally.count("coalesced");
            let job = self.jobs.get_mut(&number).unwrap();
            if background {
                job.background = true;
                self.store(number);
            } else {
                job.clients.push(conn);
            }
            let waits = background && self.jobs[&number].storing;
            return self.expect_created(conn, number, waits);
        }
        let total = self.jobs.values().filter(|job| job.function == function).count();
        let max = self.functions[function].queue_max[priority] as usize;
        if max > 0 && total >= max {
            self.tally.count("queue full");
            return self.expect_error(conn, "QUEUE_ERROR", "Job queue is full");
        }
        let sequence = &mut self.next_sequences[self.rules.cores.owner_of(function)];
        let number = job_number(*sequence, slot(function));
        *sequence += 1;
        self.numbers.push(number);
        let job = Job {
            function: function.to_vec(),
            unique: unique.to_vec(),
            reducer: reducer.to_vec(),
            payload: payload.to_vec(),
            priority,
            background,
            cancelled: false,
            clients: if background { Vec::new() } else { vec![conn] },
            place: Place::Storing,
            late: None,
            run_at_ms: if run_at_s * 1000 > self.now.unix_ms { run_at_s * 1000 } else { 0 },
            attempts: 0,
            last_reason: None,
            was_lost: false,
            submitted_ms: self.now.unix_ms,
            stored: false,
            storing: false,
            promised: false,
            waiting: Vec::new(),
            progress: (0, 0),
        };
        self.jobs.insert(number, job);
        self.tally.count(if background { "background job" } else { "foreground job" });
        if background {
            self.store(number);
        }
        let waits = self.jobs[&number].storing;
        self.expect_created(conn, number, waits);
        if !waits {
            self.start(number);
        }
    }

    /// A job that is nowhere may start, now or when its time has come.
    pub(super) fn start(&mut self, number: u64) {
        let job = self.jobs.get_mut(&number).unwrap();
        if job.run_at_ms > self.now.unix_ms {
            job.place = Place::Delayed { run_at_ms: job.run_at_ms };
            self.tally.count("delayed job");
        } else {
            self.enqueue_back(number, self.clock);
        }
    }

    /// The job that a submission joins: the same function and unique, or for `-` the same payload.
    pub(super) fn equal(&self, function: &[u8], unique: &[u8], payload: &[u8]) -> Option<u64> {
        if unique.is_empty() || (unique == b"-" && payload.is_empty()) {
            return None;
        }
        let mut found = self.jobs.iter().filter(|(_, job)| {
            job.function == function
                && !job.cancelled
                && job.unique == unique
                && (unique != b"-" || job.payload == payload)
        });
        let number = *found.next()?.0;
        assert!(found.next().is_none(), "two jobs that should have been one");
        Some(number)
    }
}
