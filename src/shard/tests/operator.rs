//! What the HTTP thread asks of the cores, and the clients that it has there.

use bytes::Bytes;

use super::cluster::{CORES, Cluster, function};
use super::*;
use crate::engine::job::State;
use crate::protocol::access::{AccessList, Permissions};
use crate::protocol::peer_address::UnixPeer;
use crate::shard::operator::{
    CancelOutcome, ConnectionFilter, ConnectionKinds, FunctionsAt, JobFilter, JobsAt,
    OperatorReply, OperatorRequest, Purged,
};
use crate::shard::remote::message::{ConnKey, HomeConnId, Message};
use crate::wire::Header;

const KEY: ConnKey = ConnKey { conn: HomeConnId::of(ConnId::from_number(7)), generation: 3 };

impl Cluster {
    pub(super) fn ask(&mut self, core: usize, request: OperatorRequest) -> OperatorReply {
        self.http_sends(core, Message::Operator { ticket: 9, request: Box::new(request) });
        self.settle();
        match self.to_http.pop() {
            Some(Message::OperatorReply { ticket: 9, reply }) => *reply,
            other => panic!("{other:?}"),
        }
    }

    /// Each job's handle, part by part of `limit` rows.
    fn handles(&mut self, core: usize, filter: &JobFilter, limit: usize) -> Vec<Box<str>> {
        let (mut at, mut handles) = (Some(JobsAt::start(filter)), Vec::new());
        while let Some(from) = at {
            let request = OperatorRequest::Jobs { filter: filter.clone(), at: from, limit };
            let OperatorReply::Jobs(rows, next) = self.ask(core, request) else { panic!() };
            assert!(rows.len() <= limit);
            handles.extend(rows.into_iter().map(|row| row.handle));
            at = next;
        }
        handles
    }

    /// The HTTP thread's client submits a foreground job.
    fn submit_by_http(&mut self, core: usize) {
        let peer = (Ipv4Addr::LOCALHOST, 9).into();
        self.http_sends(core, Message::Introduced { key: KEY, peer, id: None, access: None });
        let body = Bytes::from([function(core).as_bytes(), b"\0\0x"].concat());
        let body_bytes = u32::try_from(body.len()).unwrap();
        let command = Command::SubmitJob;
        let header = Header { magic: Magic::Request, command, body_bytes };
        self.http_sends(core, Message::Request { key: KEY, slot: Some(1), header, body });
        self.settle();
    }
}

#[test]
fn a_client_of_the_http_thread_waits_for_its_job_as_any_other() {
    for core in 0..CORES {
        let mut cluster = Cluster::new(Durability::None, 1);
        let worker = cluster.worker(core, &[function(core)]);
        cluster.submit_by_http(core);
        let Some(Message::Reply { key: KEY, slot: 1, packets }) = cluster.to_http.pop() else {
            panic!("{:?}", cluster.to_http)
        };
        assert!(packets.bytes() > 12, "JOB_CREATED");
        cluster.packet(worker, Command::GrabJob, &[], b"");
        cluster.settle();
        let job = cluster.shards[core].engine().jobs().iter_from(engine::JobId::FIRST);
        let number = job.map(|(_, job)| job.number).next().unwrap();
        let handle = cluster.shards[core].settings.handles.text(number);
        cluster.packet(worker, Command::WorkComplete, &[handle.as_ref()], b"done");
        cluster.settle();
        match cluster.to_http.pop() {
            Some(Message::Forward { key: KEY, command: Command::WorkComplete, body }) => {
                assert!(body.ends_with(b"\0done"));
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_client_that_leaves_takes_its_waiting_job_along() {
    let mut cluster = Cluster::new(Durability::None, 1);
    cluster.submit_by_http(1);
    assert_eq!(cluster.shards[1].engine().jobs().len(), 1);
    cluster.http_sends(1, Message::Gone(KEY.conn));
    cluster.settle();
    assert_eq!(cluster.shards[1].engine().jobs().len(), 0);
    assert_eq!(cluster.shards[1].remote_counts(), (0, 0));
}

#[test]
fn jobs_are_listed_once_each_in_parts_of_any_size() {
    let mut cluster = Cluster::new(Durability::None, 1);
    let client = cluster.connect(0);
    let name = function(1);
    let commands = [Command::SubmitJobBg, Command::SubmitJobHighBg, Command::SubmitJobLowBg];
    for command in commands.into_iter().cycle().take(10) {
        cluster.packet(client, command, &[name.as_bytes(), b""], b"x");
    }
    cluster.packet(client, Command::SubmitJobBg, &[function(2).as_bytes(), b""], b"x");
    cluster.settle();
    let function = Some(name.as_bytes().into());
    let queued = JobFilter {
        function: function.clone(),
        state: Some(State::Queued),
        ..JobFilter::default()
    };
    for filter in [&queued, &JobFilter { function, ..JobFilter::default() }] {
        let all = cluster.handles(1, filter, 256);
        assert_eq!(all.len(), 10);
        for limit in 1..5 {
            assert_eq!(cluster.handles(1, filter, limit), all, "{limit}");
        }
    }
    let delayed = JobFilter { state: Some(State::Delayed), ..JobFilter::default() };
    assert!(cluster.handles(1, &delayed, 256).is_empty());
}

#[test]
fn operators_cancel_one_job_or_purge_a_queue() {
    let mut cluster = Cluster::new(Durability::None, 1);
    let client = cluster.connect(0);
    let name = function(1);
    for _ in 0..2500 {
        cluster.packet(client, Command::SubmitJobBg, &[name.as_bytes(), b""], b"x");
    }
    cluster.settle();
    let number = cluster.shards[1].engine().jobs().iter_from(engine::JobId::FIRST);
    let number = number.map(|(_, job)| job.number).next().unwrap();
    let nothing = Arc::new(AccessList::new(Vec::new()));
    let nothing = Some(Arc::new(Permissions::of(&nothing, &Default::default())));
    for (access, number, outcome) in [
        (nothing, number, CancelOutcome::Forbidden),
        (None, number, CancelOutcome::Cancelled),
        (None, number, CancelOutcome::Unknown),
    ] {
        let reply = cluster.ask(1, OperatorRequest::Cancel { number, access });
        assert!(matches!(reply, OperatorReply::Cancelled(it) if it == outcome), "{reply:?}");
    }
    let filter = JobFilter {
        function: Some(name.as_bytes().into()),
        state: Some(State::Queued),
        ..JobFilter::default()
    };
    let (mut at, mut parts) = (Some(JobsAt::start(&filter)), Vec::new());
    while let Some(from) = at {
        let request = OperatorRequest::Purge { filter: filter.clone(), at: from };
        let OperatorReply::Purged(Purged { removed, next }) = cluster.ask(1, request) else {
            panic!()
        };
        parts.push(removed);
        at = next;
    }
    assert_eq!(parts, [1000, 1000, 499]);
    assert!(cluster.shards[1].engine().jobs().is_empty());
}

#[test]
fn functions_are_listed_once_each_over_several_parts() {
    let mut cluster = Cluster::new(Durability::None, 1);
    let client = cluster.connect(0);
    let mut count = 0;
    for n in 0..2000 {
        let name = format!("f{n}");
        if cluster.shards[0].settings.cores.owner_of(name.as_bytes()) == 0 {
            cluster.packet(client, Command::SubmitJobBg, &[name.as_bytes(), b""], b"x");
            count += 1;
        }
    }
    let (mut at, mut names) = (Some(FunctionsAt::START), Vec::new());
    while let Some(from) = at {
        let OperatorReply::Functions(rows, next) = cluster.ask(0, OperatorRequest::Functions(from))
        else {
            panic!()
        };
        names.extend(rows.into_iter().filter_map(|row| row.name));
        at = next;
    }
    let listed = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!((listed, names.len()), (count, count));
}

#[test]
fn connections_are_told_by_function_and_with_what_they_run_of_each_core() {
    let mut cluster = Cluster::new(Durability::None, 1);
    let client = cluster.connect(0);
    let worker = cluster.worker(0, &[function(0), function(1)]);
    for function in [0, 1].map(function) {
        cluster.packet(client, Command::SubmitJobBg, &[function.as_bytes(), b""], b"x");
        cluster.packet(worker, Command::GrabJob, &[], b"");
        cluster.settle();
    }
    let mut ask = |filter: ConnectionFilter| {
        let request = OperatorRequest::Connections { filter, from: HomeConnId::FIRST };
        let OperatorReply::Connections(rows, None) = cluster.ask(0, request) else { panic!() };
        rows
    };
    assert_eq!(ask(ConnectionFilter::default()).len(), 2);
    let of =
        |name: &str| ConnectionFilter { function: Some(name.as_bytes().into()), workers: false };
    assert_eq!(ask(of(&function(2))).len(), 0);
    assert_eq!(ask(of(&function(1))).len(), 1, "another core owns it");
    let rows = ask(ConnectionFilter { workers: true, function: None });
    let [row] = &rows[..] else { panic!("{rows:?}") };
    assert_eq!(row.function_count, 2);
    let key = row.key;
    let mut running = |core, key| {
        let request = OperatorRequest::Running { home: 0, conns: vec![key] };
        let OperatorReply::Running(rows) = cluster.ask(core, request) else { panic!() };
        rows.len()
    };
    assert_eq!([0, 1, 2].map(|core| running(core, key)), [1, 1, 0]);
    let earlier = ConnKey { generation: key.generation.wrapping_sub(1), ..key };
    assert_eq!([0, 1].map(|core| running(core, earlier)), [0, 0], "not another's jobs");
}

/// They are counted as they come and go, also where they move to another core.
#[test]
fn connections_are_told_by_kind_wherever_they_are() {
    let kinds = |cluster: &mut Cluster| {
        let mut sum = [0; 3];
        for core in 0..CORES {
            let reply = cluster.ask(core, OperatorRequest::Numbers);
            let OperatorReply::Numbers(numbers) = reply else { panic!("{reply:?}") };
            let ConnectionKinds { plain, tls, unix } = numbers.connections;
            sum.iter_mut().zip([plain, tls, unix]).for_each(|(sum, more)| *sum += more);
        }
        sum
    };
    let mut cluster = Cluster::new(Durability::None, 1);
    let mut peers = Vec::new();
    for core in 0..CORES {
        let unix = UnixPeer { uid: 7, gid: 7, pid: 7 };
        peers.push(cluster.connect_by(core, unix.into(), 0));
        peers.push(cluster.connect(core));
        // Others know them by proxies, which aren't counted.
        for peer in &peers {
            for owner in 0..CORES {
                let name = function(owner);
                cluster.packet(*peer, Command::SubmitJob, &[name.as_bytes(), b""], b"x");
            }
        }
        cluster.settle();
        assert_eq!(kinds(&mut cluster), [core as u64 + 1, 0, core as u64 + 1]);
    }
    for (core, conn) in peers {
        let now = cluster.now;
        cluster.shards[core].disconnect(conn, now);
    }
    cluster.settle();
    assert_eq!(kinds(&mut cluster), [0; 3]);
}
