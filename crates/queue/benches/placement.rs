//! What the choice of an invoker costs, by the number of them.

mod places;

use criterion::{BenchmarkId, Criterion, Throughput};
use places::Places;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("placement");
    group.throughput(Throughput::Elements(1));
    for len in Places::LENS {
        let mut places = Places::new(len);
        group.bench_function(BenchmarkId::new("built-in", len), |bencher| {
            bencher.iter(|| places.place());
        });
    }
    group.finish();
    criterion.final_summary();
}
