//! The admin protocol's half of the model: a line in, what must be answered out.
//!
//! Lists are compared without regard to their order, which the protocol leaves open. Invariant:
//! each row follows from the model alone.

use ringgear::engine::ConnId;

use crate::model::{Job, Model, Place, handle, number};
use crate::wire::Packet;

impl Model {
    pub(crate) fn handle_line(&mut self, conn: ConnId, line: &str) {
        let words: Vec<&str> = line.split(' ').collect();
        match *words {
            ["status"] => self.list_status(conn),
            ["prioritystatus"] => self.list_priorities(conn),
            ["workers"] => self.list_workers(conn),
            ["show", "jobs"] => self.list_jobs(conn),
            ["show", "unique", "jobs"] => {
                let uniques = self.jobs.values().map(|job| job.unique.clone()).collect();
                self.expect_list(conn, uniques);
            }
            ["cancel", "job", handle] => self.cancel(conn, handle),
            ["create", "function", name] => {
                self.function(name.as_bytes());
                self.expect(conn, &Packet::line("OK"));
            }
            ["drop", "function", name] => self.drop_function(conn, name.as_bytes()),
            ["maxqueue", name, ref sizes @ ..] => {
                let size = |at: usize| sizes.get(at).map_or(0, |text| text.parse().unwrap());
                let one = sizes.len() == 1;
                let max = if one { [size(0); 3] } else { [size(0), size(1), size(2)] };
                if let Some(function) = self.functions.get_mut(name.as_bytes()) {
                    function.queue_max = max;
                }
                self.expect(conn, &Packet::line("OK"));
            }
            _ => {
                let reply = format!("ERR UNKNOWN_COMMAND Unknown+server+command{}", words[0]);
                self.expect(conn, &Packet::line(&reply));
            }
        }
    }

    /// A list in any order, and the line that ends it.
    fn expect_list(&mut self, conn: ConnId, mut expected: Vec<Vec<u8>>) {
        let mut lines = Vec::new();
        loop {
            match self.next(conn) {
                Some(Packet::Line(line)) if line == b"." => break,
                Some(Packet::Line(line)) => lines.push(line),
                Some(other) => panic!("{other:?} within a list"),
                None if self.output.slow.contains(&conn) => return,
                None => panic!("a list without an end"),
            }
        }
        if self.rules.cores.count > 1 {
            // A worker's functions: those of its core, then those of others.
            lines.iter_mut().chain(&mut expected).for_each(sort_functions);
        }
        lines.sort_unstable();
        expected.sort_unstable();
        let text = |lines: &[Vec<u8>]| -> Vec<String> {
            lines.iter().map(|line| line.escape_ascii().to_string()).collect()
        };
        assert_eq!(text(&lines), text(&expected));
    }

    fn list_status(&mut self, conn: ConnId) {
        let rows = self.functions.keys().map(|name| {
            let jobs = || self.jobs.values().filter(|job| job.function == *name);
            let running = jobs().filter(|job| matches!(job.place, Place::Running { .. })).count();
            let rest = format!("\t{}\t{running}\t{}", jobs().count(), self.workers(name));
            [name, rest.as_bytes()].concat()
        });
        let rows = rows.collect();
        self.expect_list(conn, rows);
    }

    fn list_priorities(&mut self, conn: ConnId) {
        let rows = self.functions.keys().map(|name| {
            let count = |priority: usize| {
                let waits = |job: &&Job| matches!(job.place, Place::Queued | Place::Delayed { .. });
                let jobs = self.jobs.values().filter(waits);
                jobs.filter(|job| job.function == *name && job.priority == priority).count()
            };
            let (high, normal, low) = (count(0), count(1), count(2));
            let rest = format!("\t{high}\t{normal}\t{low}\t{}", self.workers(name));
            [name, rest.as_bytes()].concat()
        });
        let rows = rows.collect();
        self.expect_list(conn, rows);
    }

    fn list_workers(&mut self, conn: ConnId) {
        let rows = self.peers.values().map(|peer| {
            let mut row = format!("{} 10.0.0.1 ", peer.fd).into_bytes();
            row.extend_from_slice(&peer.id);
            row.extend_from_slice(b" :");
            for name in peer.order.iter().rev() {
                row.extend_from_slice(&[b" ", name.as_slice()].concat());
            }
            row
        });
        let rows = rows.collect();
        self.expect_list(conn, rows);
    }

    fn list_jobs(&mut self, conn: ConnId) {
        let rows = self.jobs.iter().map(|(&number, job)| {
            let (attempts, ignored) = (job.attempts, u8::from(!job.is_wanted()));
            let rest = format!("\t{attempts}\t{ignored}\t{}", u8::from(job.background));
            [handle(number), rest.into_bytes()].concat()
        });
        let rows = rows.collect();
        self.expect_list(conn, rows);
    }

    fn workers(&self, name: &[u8]) -> usize {
        self.peers.values().filter(|peer| peer.abilities.contains_key(name)).count()
    }

    fn cancel(&mut self, conn: ConnId, handle: &str) {
        let number = number(handle.as_bytes());
        if let Some(number) = number.filter(|number| self.jobs.contains_key(number)) {
            self.expect(conn, &Packet::line("OK"));
            self.cancel_job(number);
        } else if number.is_some_and(|number| self.remove_dead(number)) {
            self.tally.count("dead cancelled");
            self.expect(conn, &Packet::line("OK"));
        } else {
            self.expect(conn, &Packet::line("ERR UNKNOWN_JOB"));
        }
    }

    fn cancel_job(&mut self, number: u64) {
        self.tally.count("cancelled");
        self.fail(number);
        let job = self.jobs.get_mut(&number).unwrap();
        if matches!(job.place, Place::Running { .. }) {
            (job.cancelled, job.background) = (true, false);
            self.notify_cancelled(number);
            self.unstore(number);
        } else {
            self.drop_queued(number);
        }
    }

    fn drop_function(&mut self, conn: ConnId, name: &[u8]) {
        let names = self.functions.keys().filter(|other| other.eq_ignore_ascii_case(name));
        let names: Vec<Vec<u8>> = names.cloned().collect();
        let is_busy = |name: &Vec<u8>| {
            let running = |job: &Job| matches!(job.place, Place::Running { .. });
            self.workers(name) > 0
                || self.jobs.values().any(|job| job.function == *name && running(job))
        };
        let (busy, idle): (Vec<_>, Vec<_>) = names.into_iter().partition(is_busy);
        let mut replies = vec![
            b"ERR there are still connected workers or executing clients"
                .to_vec();
            busy.len()
        ];
        replies.extend(vec![b"OK".to_vec(); idle.len()]);
        if replies.is_empty() {
            replies.push(b"ERR function not found".to_vec());
        }
        replies.sort_unstable();
        let mut lines: Vec<Vec<u8>> = Vec::new();
        for _ in 0..replies.len() {
            match self.next(conn) {
                Some(Packet::Line(line)) => lines.push(line),
                other => panic!("{other:?} for `drop function`"),
            }
        }
        lines.sort_unstable();
        assert_eq!(lines, replies);
        for name in idle {
            let jobs = self.jobs.iter().filter(|(_, job)| job.function == name);
            for number in jobs.map(|(&number, _)| number).collect::<Vec<_>>() {
                self.cancel_job(number);
            }
            let dead = self.dead.iter().filter(|letter| letter.job.function == name);
            for number in dead.map(|letter| letter.number).collect::<Vec<_>>() {
                self.remove_dead(number);
            }
            let function = self.functions.remove(&name);
            if function.is_some_and(|function| function.pause.is_some()) {
                self.store_pause(&name, None);
            }
        }
    }
}

fn sort_functions(row: &mut Vec<u8>) {
    let Some(at) = row.windows(3).position(|part| part == b" : ") else { return };
    let mut names: Vec<Vec<u8>> =
        row[at + 3..].split(|&byte| byte == b' ').map(<[u8]>::to_vec).collect();
    names.sort_unstable();
    row.truncate(at + 3);
    row.extend(names.join(&b' '));
}
