//! A job server of a few lines, one thread per connection, that can do one thing wrong, once.

#![allow(clippy::unwrap_used, unreachable_pub, missing_docs, reason = "a module of tests")]

use std::collections::{HashMap, VecDeque};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use ringgear::wire::frame::{Cut, cut};
use ringgear::wire::{Arguments, Command, HEADER_BYTES, Magic, encode};

/// What it does wrong, at the job with number `AT`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrong {
    Nothing,
    LosesAnswer,
    LosesJob,
    DuplicatesAnswer,
    RunsTwice,
    SwapsAnswers,
    Misdelivers,
    ChangesByte,
    Refuses,
    HangsUp,
}

const AT: u64 = 50;

#[derive(Clone)]
struct Job {
    number: u64,
    /// Clients that await the result; none for background jobs.
    clients: Vec<usize>,
    key: (Vec<u8>, Vec<u8>),
    payload: Vec<u8>,
}

#[derive(Default)]
struct State {
    writers: HashMap<usize, TcpStream>,
    registered: HashMap<usize, Vec<Vec<u8>>>,
    asleep: Vec<usize>,
    queued: VecDeque<Job>,
    running: HashMap<u64, (usize, Job)>,
    next: u64,
    completed: u64,
    held: Option<(Vec<usize>, Vec<u8>, Vec<u8>)>,
}

pub struct Fake {
    pub addr: SocketAddr,
}

impl Fake {
    pub fn start(wrong: Wrong) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State::default()));
        std::thread::spawn(move || {
            for (me, stream) in listener.incoming().flatten().enumerate() {
                let state = Arc::clone(&state);
                std::thread::spawn(move || {
                    stream.set_nodelay(true).unwrap();
                    state.lock().unwrap().writers.insert(me, stream.try_clone().unwrap());
                    serve(&state, wrong, me, stream);
                    state.lock().unwrap().leave(me);
                });
            }
        });
        Self { addr }
    }
}

fn serve(state: &Mutex<State>, wrong: Wrong, me: usize, mut stream: TcpStream) {
    let mut buffer = Vec::new();
    let mut chunk = vec![0; 64 << 10];
    while let Ok(bytes @ 1..) = stream.read(&mut chunk) {
        buffer.extend_from_slice(&chunk[..bytes]);
        let mut used = 0;
        while let Ok(Cut::Packet { header, body }) = cut(&buffer[used..], 0) {
            let arguments = Arguments::split(header.command, body).unwrap();
            let payload = &body[arguments.payload_at().min(body.len())..];
            let mut state = state.lock().unwrap();
            state.packet(wrong, me, header.command, &arguments, payload);
            used += HEADER_BYTES + body.len();
        }
        buffer.drain(..used);
    }
}

impl State {
    fn send(&mut self, to: usize, command: Command, arguments: &[&[u8]], payload: &[u8]) {
        let mut out = Vec::new();
        encode(&mut out, Magic::Response, command, arguments, payload);
        if let Some(writer) = self.writers.get_mut(&to) {
            let _ = writer.write_all(&out);
        }
    }

    fn packet(
        &mut self,
        wrong: Wrong,
        me: usize,
        command: Command,
        arguments: &Arguments<'_>,
        payload: &[u8],
    ) {
        match command {
            Command::EchoReq => self.send(me, Command::EchoRes, &[], payload),
            Command::CanDo => {
                self.registered.entry(me).or_default().push(arguments.part(0).to_vec());
            }
            Command::GrabJob | Command::GrabJobAll => self.grab(me),
            Command::PreSleep => {
                self.asleep.push(me);
                self.wake();
            }
            Command::WorkComplete => self.complete(wrong, arguments.part(0), payload),
            _ => self.submit(wrong, me, command, arguments, payload),
        }
    }

    fn submit(
        &mut self,
        wrong: Wrong,
        me: usize,
        command: Command,
        arguments: &Arguments<'_>,
        payload: &[u8],
    ) {
        let background = command.name().ends_with("_BG");
        let key = (arguments.part(0).to_vec(), arguments.part(1).to_vec());
        let mut known = self.queued.iter_mut().chain(self.running.values_mut().map(|(_, job)| job));
        if let Some(job) = known.find(|job| !key.1.is_empty() && job.key == key) {
            job.clients.extend((!background).then_some(me));
            let handle = format!("H:fake:{}", job.number);
            return self.send(me, Command::JobCreated, &[handle.as_bytes()], &[]);
        }
        let number = self.next;
        self.next += 1;
        let handle = format!("H:fake:{number}");
        if number == AT && wrong == Wrong::Refuses {
            return self.send(me, Command::Error, &[b"QUEUE_ERROR", b"Job queue is full"], &[]);
        }
        if number == AT && wrong == Wrong::HangsUp {
            if let Some(writer) = self.writers.remove(&me) {
                writer.shutdown(std::net::Shutdown::Both).unwrap();
            }
            return;
        }
        self.send(me, Command::JobCreated, &[handle.as_bytes()], &[]);
        let clients = if background { vec![] } else { vec![me] };
        let job = Job { number, clients, key, payload: payload.to_vec() };
        if number == AT && wrong == Wrong::LosesJob {
            return;
        }
        if number == AT && wrong == Wrong::RunsTwice {
            self.queued.push_back(Job { number: u64::MAX, ..job.clone() });
        }
        self.queued.push_back(job);
        self.wake();
    }

    fn can(&self, worker: usize, job: &Job) -> bool {
        self.registered.get(&worker).is_some_and(|functions| functions.contains(&job.key.0))
    }

    fn wake(&mut self) {
        let (woken, asleep): (Vec<_>, Vec<_>) = std::mem::take(&mut self.asleep)
            .into_iter()
            .partition(|worker| self.queued.iter().any(|job| self.can(*worker, job)));
        self.asleep = asleep;
        woken.into_iter().for_each(|worker| self.send(worker, Command::Noop, &[], &[]));
    }

    fn grab(&mut self, me: usize) {
        self.asleep.retain(|worker| *worker != me);
        let Some(at) = self.queued.iter().position(|job| self.can(me, job)) else {
            return self.send(me, Command::NoJob, &[], &[]);
        };
        let job = self.queued.remove(at).unwrap();
        let handle = format!("H:fake:{}", job.number);
        self.send(me, Command::JobAssign, &[handle.as_bytes(), &job.key.0], &job.payload);
        self.running.insert(job.number, (me, job));
    }

    fn complete(&mut self, wrong: Wrong, handle: &[u8], result: &[u8]) {
        let number = std::str::from_utf8(&handle[7..]).unwrap().parse().unwrap();
        let Some((_, job)) = self.running.remove(&number) else { return };
        let at = self.completed;
        self.completed += 1;
        let mut result = result.to_vec();
        let mut clients = job.clients;
        if let Some((others, other_handle, other_result)) = self.held.take() {
            others.iter().for_each(|c| self.answer(*c, &other_handle, &result));
            result = other_result;
        }
        match wrong {
            _ if at != AT => {}
            Wrong::LosesAnswer => return,
            Wrong::DuplicatesAnswer => clients.push(clients[0]),
            Wrong::SwapsAnswers => {
                self.held = Some((clients, handle.to_vec(), result));
                return;
            }
            Wrong::Misdelivers => {
                let other = self
                    .writers
                    .keys()
                    .find(|peer| **peer != clients[0] && !self.registered.contains_key(*peer));
                clients = vec![*other.unwrap()];
            }
            Wrong::ChangesByte => *result.last_mut().unwrap() ^= 1,
            _ => {}
        }
        clients.into_iter().for_each(|client| self.answer(client, handle, &result));
    }

    fn answer(&mut self, client: usize, handle: &[u8], result: &[u8]) {
        self.send(client, Command::WorkComplete, &[handle], result);
    }

    fn leave(&mut self, me: usize) {
        self.writers.remove(&me);
        self.registered.remove(&me);
        self.asleep.retain(|worker| *worker != me);
        let given_up: Vec<u64> =
            self.running.values().filter(|(by, _)| *by == me).map(|(_, job)| job.number).collect();
        for number in given_up {
            let (_, job) = self.running.remove(&number).unwrap();
            self.queued.push_front(job);
        }
        self.wake();
    }
}
