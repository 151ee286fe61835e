//! Frames, packets and outboxes: bytes in, borrowed requests out, and responses to bytes.
//!
//! Every figure is per packet. `--quick` runs them briefly.

mod common;

use std::hint::black_box;
use std::time::Duration;

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ringgear::wire::frame::{self, Cut};
use ringgear::wire::outbox::Outbox;
use ringgear::wire::{Command, Grab, HEADER_BYTES, Header, Payload, Request, Response};

use common::{FUNCTION, HANDLE, PAYLOAD};

const PACKETS: usize = 1000;

/// What a busy server reads: submissions, results and grabs, in turns.
fn requests() -> Vec<u8> {
    common::requests().iter().cycle().take(PACKETS).flatten().copied().collect()
}

fn cut_all(bytes: &[u8], mut each: impl FnMut(Header, &[u8])) {
    let mut rest = bytes;
    while let Ok(Cut::Packet { header, body }) = frame::cut(rest, 0) {
        each(header, body);
        rest = rest.get(HEADER_BYTES + body.len()..).unwrap_or_default();
    }
}

fn parsing(criterion: &mut Criterion) {
    let bytes = requests();
    let mut group = criterion.benchmark_group("parser");
    group.throughput(Throughput::Elements(PACKETS as u64));
    group.bench_function("frame", |bencher| {
        bencher.iter(|| {
            cut_all(black_box(&bytes), |header, body| {
                black_box((header, body));
            })
        });
    });
    group.bench_function("frame and packet", |bencher| {
        bencher.iter(|| {
            cut_all(black_box(&bytes), |header, body| {
                let request = Request::parse(header, Payload::borrowed(body));
                let _ = black_box(request);
            });
        });
    });
    group.finish();
}

fn responses() -> [Response<'static>; 3] {
    let payload = Payload::borrowed(&PAYLOAD);
    [
        Response::JobCreated { handle: HANDLE },
        Response::JobAssign {
            grab: Grab::Plain,
            handle: HANDLE,
            function: FUNCTION,
            unique: b"",
            reducer: b"",
            payload,
        },
        Response::Work { command: Command::WorkComplete, body: payload },
    ]
}

fn writing(criterion: &mut Criterion) {
    let responses = responses();
    let mut group = criterion.benchmark_group("outbox");
    group.throughput(Throughput::Elements(responses.len() as u64));
    let mut outbox = Outbox::default();
    group.bench_function("push, take, sent", |bencher| {
        bencher.iter(|| {
            for response in &responses {
                outbox.push(black_box(response));
            }
            while let Some((chunk, _)) = outbox.take() {
                outbox.sent(black_box(chunk));
            }
        });
    });
    let shared = Bytes::from(vec![b'x'; 1 << 20]);
    group.throughput(Throughput::Elements(1));
    group.bench_function("a payload of 1 MiB", |bencher| {
        bencher.iter(|| {
            outbox.push(&Response::EchoRes { payload: Payload::shared(&shared) });
            while let Some((chunk, _)) = outbox.take() {
                outbox.sent(black_box(chunk));
            }
        });
    });
    group.finish();
    let mut out = Vec::with_capacity(1 << 10);
    let mut group = criterion.benchmark_group("encode");
    group.throughput(Throughput::Elements(responses.len() as u64));
    group.bench_function("heads of responses", |bencher| {
        bencher.iter(|| {
            out.clear();
            for response in &responses {
                black_box(response).head(&mut out);
            }
            black_box(&out);
        });
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2));
    targets = parsing, writing
}
criterion_main!(benches);
