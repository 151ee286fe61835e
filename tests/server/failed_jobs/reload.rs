//! A functions file that is read anew by a server under load, with jobs that have failed before.

use super::dead_list::under_load;
use super::{Functions, PAYLOAD};
use crate::conn::{Conn, Item};
use crate::harness::{Contender, Server, each_ringgear, wait_until};

each_ringgear!(
    fewer_attempts_than_a_job_has_make_its_next_failure_the_last,
    a_table_that_is_gone_makes_the_next_failure_final,
    a_bad_file_changes_nothing_and_is_told_of,
    a_bound_for_the_queue_counts_at_once,
);

/// A job that has failed so often, and waits for its next run.
struct Waiting<'s> {
    server: &'s Server,
    handle: String,
    client: Conn,
    worker: Conn,
}

const FUNCTION: &str = "f";

fn table(attempts: u32) -> String {
    format!(
        "[[function]]\nmatch = \"{FUNCTION}\"\nattempts = {attempts}\n\
         backoff = {{ first = \"1h\", factor = 1.0 }}\n"
    )
}

impl<'s> Waiting<'s> {
    fn new(server: &'s Server, failures: u32) -> Self {
        let (mut client, worker) = (Conn::open(server.address()), Conn::open(server.address()));
        client.asks_all_cores = true;
        client.packet("SUBMIT_JOB_BG", &[FUNCTION.as_bytes(), b"", PAYLOAD]);
        let answer = client.next();
        let Ok(Item::Packet(8, handle)) = answer else { panic!("no JOB_CREATED: {answer:?}") };
        let handle = String::from_utf8(handle).expect("text");
        let mut job = Self { server, handle, client, worker };
        job.worker.packet("CAN_DO", &[FUNCTION.as_bytes()]);
        job.fail();
        for _ in 1..failures {
            job.run_now();
            job.fail();
        }
        job
    }

    fn run_now(&self) {
        assert_eq!(self.server.admin(&format!("run job {}", self.handle)), "OK\n");
    }

    fn fail(&mut self) {
        self.worker.packet("GRAB_JOB", &[]);
        let assigned = self.worker.next().expect("an answer");
        let Item::Packet(11, body) = assigned else { panic!("no job: {assigned:?}") };
        assert!(body.starts_with(self.handle.as_bytes()));
        self.worker.packet("WORK_FAIL", &[self.handle.as_bytes()]);
        self.worker.sync().expect("it lives");
    }

    fn is_known(&mut self) -> bool {
        self.client.packet("GET_STATUS", &[self.handle.as_bytes()]);
        let answer = self.client.next();
        let Ok(Item::Packet(20, body)) = answer else { panic!("no STATUS_RES: {answer:?}") };
        body != [self.handle.as_bytes(), b"\x000\x000\x000\x000"].concat()
    }

    /// What `show dead` and `show retrying` say of its attempts.
    fn lists(&self) -> [Option<u32>; 2] {
        [("show dead", 4), ("show retrying", 3)].map(|(list, column)| {
            let list = self.server.admin(list);
            let row = list.lines().find(|row| row.starts_with(&format!("{}\t", self.handle)))?;
            Some(row.split('\t').nth(column)?.parse().expect("a number"))
        })
    }
}

/// Has the server read the file anew, and waits until it says so with these words.
fn reload(functions: &Functions, server: &Server, text: &str, said: &str) {
    let told = || server.log().matches(said).count();
    let before = told();
    functions.write(text);
    server.signal("HUP");
    wait_until("the file to be read", || (told() > before).then_some(()));
}

const READ: &str = "functions file read";

/// Waits until all cores have the policy, as `show policy` has it.
fn policy_is(server: &Server, text: &str) {
    // Connections go to any core.
    for _ in 0..10 {
        let policy = || server.admin(&format!("show policy {FUNCTION}"));
        wait_until(text, || (policy().contains(text)).then_some(()));
    }
}

fn fewer_attempts_than_a_job_has_make_its_next_failure_the_last(contender: Contender) {
    let functions = Functions::new(&table(10));
    let server = functions.serve(contender, &[]);
    under_load(&server, |_| {
        let mut job = Waiting::new(&server, 4);
        assert_eq!(job.lists(), [None, Some(4)]);
        reload(&functions, &server, &table(2), READ);
        policy_is(&server, "attempts\t2\n");
        // It waits as before; only its next failure matters.
        assert_eq!(job.lists(), [None, Some(4)]);
        job.run_now();
        job.fail();
        assert_eq!((job.lists(), job.is_known()), ([Some(5), None], false));
    });
}

fn a_table_that_is_gone_makes_the_next_failure_final(contender: Contender) {
    let functions = Functions::new(&table(10));
    let server = functions.serve(contender, &[]);
    under_load(&server, |_| {
        let mut job = Waiting::new(&server, 2);
        reload(&functions, &server, "", READ);
        for _ in 0..10 {
            let policy =
                || (server.admin(&format!("show policy {FUNCTION}")) == ".\n").then_some(());
            wait_until("no policy", policy);
        }
        assert_eq!(job.lists(), [None, Some(2)]);
        job.run_now();
        job.fail();
        assert_eq!((job.lists(), job.is_known()), ([None, None], false));
    });
}

fn a_bad_file_changes_nothing_and_is_told_of(contender: Contender) {
    let functions = Functions::new(&table(2));
    let server = functions.serve(contender, &[]);
    under_load(&server, |_| {
        let mut job = Waiting::new(&server, 1);
        for bad in [
            table(2).replace("attempts = 2", "atempts = 2"),
            table(2).replace("1h", "1"),
            table(2) + "[[function]]\nmatch = \"g\"\nrunning-max = 1\n",
            "[[function]\n".to_owned(),
        ] {
            reload(&functions, &server, &bad, "ERROR the functions stay as they were: ");
            policy_is(&server, "attempts\t2\n");
        }
        let told = format!("{}:3: ", functions.path().display());
        assert!(server.log().contains(&told), "{}", server.log());
        assert!(!server.log().contains(READ), "{}", server.log());
        job.run_now();
        job.fail();
        assert_eq!(job.lists(), [Some(2), None]);
    });
}

fn a_bound_for_the_queue_counts_at_once(contender: Contender) {
    let functions = Functions::new(&table(10));
    let server = functions.serve(contender, &[]);
    under_load(&server, |_| {
        let mut client = Conn::open(server.address());
        let mut submit = |packet: &str| {
            client.packet(packet, &[FUNCTION.as_bytes(), b"", PAYLOAD]);
            match client.next() {
                Ok(Item::Packet(8, _)) => true,
                Ok(Item::Packet(19, body)) if body.starts_with(b"QUEUE_ERROR\0") => false,
                other => panic!("{other:?}"),
            }
        };
        for _ in 0..3 {
            assert!(submit("SUBMIT_JOB_BG"));
        }
        reload(&functions, &server, &(table(10) + "queue-max = [0, 4, 1]\n"), READ);
        policy_is(&server, "queue-max\t[0, 4, 1]\n");
        assert!(submit("SUBMIT_JOB_BG"));
        assert!(!submit("SUBMIT_JOB_BG"));
        assert!(submit("SUBMIT_JOB_HIGH_BG"));
        reload(&functions, &server, &table(10), READ);
        policy_is(&server, "attempts\t10\n");
        wait_until("no bound", || submit("SUBMIT_JOB_BG").then_some(()));
    });
}
