//! The text protocol's half of the model: a line in, what must be answered out.
//!
//! Rows of lists may come in any order, and so may a worker's functions in its row; descriptors
//! aren't looked at. Invariant: each row follows from the model alone.

use super::{Checked, Job, Model, State};
use crate::check::compare_rows;
use crate::conn::Item;
use crate::operations::Bytes;

impl Model {
    pub(super) fn text(&mut self, line: &str) -> Checked<()> {
        let words: Vec<&str> = line.split(' ').collect();
        match *words {
            ["status"] => {
                let row = |(name, _): (&Bytes, _)| {
                    let running = self.jobs_of(name).filter(|job| job.runs()).count();
                    let (total, workers) = (self.jobs_of(name).count(), self.workers(name));
                    row(name, &[total, running, workers])
                };
                let rows = self.functions.iter().map(row).collect();
                self.expect_list(rows, 0)
            }
            ["prioritystatus"] => {
                let row = |(name, _): (&Bytes, _)| {
                    let [high, normal, low] = [0, 1, 2].map(|priority| {
                        let waits = |job: &&Job| !job.runs() && job.priority == priority;
                        self.jobs_of(name).filter(waits).count()
                    });
                    row(name, &[high, normal, low, self.workers(name)])
                };
                let rows = self.functions.iter().map(row).collect();
                self.expect_list(rows, 0)
            }
            ["workers"] => self.list_workers(),
            ["show", "jobs"] => {
                let row = |(handle, job): (&Bytes, &Job)| {
                    let ignored = usize::from(!job.is_wanted());
                    row(handle, &[job.attempts as usize, ignored, usize::from(job.background)])
                };
                let rows = self.jobs.iter().map(row).collect();
                self.expect_list(rows, 0)
            }
            ["show", "unique", "jobs"] => {
                let rows = self.jobs.values().map(|job| line_of(&job.unique)).collect();
                self.expect_list(rows, 0)
            }
            ["show", _] => self.expect_line("ERR UNKNOWN_SHOW_ARGUMENTS\r\n"),
            ["version"] => {
                let reply = self.replies.pop_front();
                let sound = |line: &[u8]| line.starts_with(b"OK ") && line.ends_with(b"\n");
                match reply {
                    Some(Item::Line(line)) if sound(&line) => Ok(()),
                    reply => Err(format!("{reply:?} is no version")),
                }
            }
            ["verbose"] => self.expect_line("OK NOTICE\n"),
            ["getpid"] => self.expect_line(&format!("OK {}\n", self.rules.pid)),
            ["cancel", "job", handle] => self.cancel(handle.as_bytes()),
            ["create", "function", name] => {
                self.functions.entry(name.into()).or_default();
                self.expect_line("OK\r\n")
            }
            ["drop", "function", name] => self.drop_function(name.as_bytes()),
            ["maxqueue", name, ref sizes @ ..] => {
                let size = |at: usize| sizes.get(at).map_or(0, |text| text.parse().unwrap_or(0));
                let max = if sizes.len() == 1 { [size(0); 3] } else { [size(0), size(1), size(2)] };
                if let Some(function) = self.functions.get_mut(name.as_bytes()) {
                    function.queue_max = max;
                }
                self.expect_line("OK\r\n")
            }
            _ => {
                let reply = format!("ERR UNKNOWN_COMMAND Unknown+server+command{}\r\n", words[0]);
                self.expect_line(&reply)
            }
        }
    }

    fn list_workers(&mut self) -> Checked<()> {
        let row = |peer: &super::Peer| {
            let mut row = [b"127.0.0.1 ", &peer.id[..], b" :"].concat();
            for name in peer.abilities.keys() {
                row.extend([b" ", name.as_slice()].concat());
            }
            line_of(&row)
        };
        let mut rows: Vec<Bytes> = self.peers.values().map(row).collect();
        // The connection that looks whether others are gone.
        rows.push(b"127.0.0.1 - :\n".to_vec());
        let end = Item::Line(b".\n".to_vec());
        for reply in self.replies.iter_mut().take_while(|reply| **reply != end) {
            if let Item::Line(line) = reply
                && line.first().is_some_and(u8::is_ascii_digit)
                && let Some(space) = line.iter().position(|&byte| byte == b' ')
            {
                // The descriptor.
                line.drain(..=space);
            }
        }
        let unclear = if self.rules.cores > 1 { 1 } else { 0 };
        self.expect_list(rows, unclear)
    }

    fn expect_line(&mut self, line: &str) -> Checked<()> {
        self.expect(&Item::Line(line.as_bytes().to_vec()))
    }

    /// Rows in any order and the line that ends them; so many may be missing or come twice.
    fn expect_list(&mut self, due: Vec<Bytes>, unclear: usize) -> Checked<()> {
        let mut rows = Vec::new();
        loop {
            match self.replies.pop_front() {
                Some(Item::Line(line)) if line == b".\n" => break,
                Some(Item::Line(line)) => rows.push(line),
                other => return Err(format!("{other:?} within a list of {rows:?}")),
            }
        }
        compare_rows(due, rows, unclear)
    }

    fn workers(&self, name: &[u8]) -> usize {
        self.peers.values().filter(|peer| peer.abilities.contains_key(name)).count()
    }

    fn cancel(&mut self, handle: &[u8]) -> Checked<()> {
        if !self.jobs.contains_key(handle) {
            return self.expect_line("ERR UNKNOWN_JOB\r\n");
        }
        self.cancel_job(handle);
        self.expect_line("OK\r\n")
    }

    fn cancel_job(&mut self, handle: &[u8]) {
        self.fail(handle, self.clock);
        let ended = self.jobs[handle].clone();
        self.end_of(handle, &ended);
        let job = self.job(handle);
        if matches!(job.state, State::Running { .. }) {
            (job.cancelled, job.background) = (true, false);
        } else {
            self.remove(handle);
        }
    }

    fn drop_function(&mut self, name: &[u8]) -> Checked<()> {
        let names = self.functions.keys().filter(|other| other.eq_ignore_ascii_case(name));
        let names: Vec<Bytes> = names.cloned().collect();
        let is_busy =
            |name: &Bytes| self.workers(name) > 0 || self.jobs_of(name).any(|job| job.runs());
        let (busy, idle): (Vec<Bytes>, Vec<Bytes>) = names.into_iter().partition(is_busy);
        let refusal = b"ERR there are still connected workers or executing clients\r\n";
        let mut due = vec![refusal.to_vec(); busy.len()];
        due.extend(vec![b"OK\r\n".to_vec(); idle.len()]);
        if due.is_empty() {
            due.push(b"ERR function not found\r\n".to_vec());
        }
        let mut lines = Vec::new();
        for _ in 0..due.len() {
            match self.replies.pop_front() {
                Some(Item::Line(line)) => lines.push(line),
                other => return Err(format!("{other:?} for `drop function`")),
            }
        }
        compare_rows(due, lines, 0)?;
        for name in idle {
            let of_it = self.jobs.iter().filter(|(_, job)| job.function == name);
            let handles: Vec<Bytes> = of_it.map(|(handle, _)| handle.clone()).collect();
            for handle in handles {
                self.cancel_job(&handle);
            }
            self.functions.remove(&name);
        }
        Ok(())
    }
}

/// A line with its end.
fn line_of(text: &[u8]) -> Bytes {
    [text, b"\n"].concat()
}

/// A name and numbers, with tabs between them.
fn row(name: &[u8], numbers: &[usize]) -> Bytes {
    let numbers: Vec<String> = numbers.iter().map(usize::to_string).collect();
    line_of(&[name, b"\t", numbers.join("\t").as_bytes()].concat())
}
