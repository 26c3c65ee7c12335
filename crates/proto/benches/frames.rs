//! What frames of the hot path cost to write, read and turn into `types`, per activation in them.

mod wire;

use bytes::BytesMut;
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput};
use whiskraft_proto::{InvalidMessage, Message, v1};

/// Activations in a frame: one at a time, and what is ready together on a busy stream.
const COUNTS: [u64; 2] = [1, 64];

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    measure::<v1::SubmitFrame>(&mut criterion, "submit", wire::submit, wire::parse_submit);
    measure::<v1::PullDown>(&mut criterion, "deliver", wire::deliver, wire::parse_deliver);
    measure::<v1::PullUp>(
        &mut criterion,
        "completed",
        wire::completed,
        wire::parse_completed,
    );
    measure::<v1::ResultFrame>(&mut criterion, "results", wire::results, wire::parse_results);
    criterion.final_summary();
}

fn measure<F: Message + Default + Clone>(
    criterion: &mut Criterion,
    name: &str,
    frame: impl Fn(u64) -> F,
    parse: impl Fn(F) -> Result<usize, InvalidMessage>,
) {
    let mut group = criterion.benchmark_group(name);
    for count in COUNTS {
        group.throughput(Throughput::Elements(count));
        let frame = frame(count);
        // The transport keeps its buffer from frame to frame.
        let mut buffer = BytesMut::new();
        group.bench_function(BenchmarkId::new("encode", count), |bencher| {
            bencher.iter(|| {
                buffer.clear();
                frame.encode(&mut buffer).expect("the buffer grows");
            });
        });
        let bytes = wire::encoded(&frame);
        group.bench_function(BenchmarkId::new("decode", count), |bencher| {
            bencher.iter(|| F::decode(bytes.clone()).expect("it was encoded"));
        });
        let decoded = F::decode(bytes).expect("it was encoded");
        group.bench_function(BenchmarkId::new("parse", count), |bencher| {
            let parse = |frame| parse(frame).expect("it is valid");
            bencher.iter_batched(|| decoded.clone(), parse, BatchSize::SmallInput);
        });
    }
    group.finish();
}
