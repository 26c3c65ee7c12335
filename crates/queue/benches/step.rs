//! What one life of an activation costs in [`MemoryQueue::step`](whiskraft_queue::MemoryQueue::step).

mod lives;

use criterion::{Criterion, Throughput};
use lives::{Lives, Scene};

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("step");
    group.throughput(Throughput::Elements(1));
    for scene in Scene::ALL {
        let mut lives = None;
        group.bench_function(scene.name, |bencher| {
            // Not made for a scene that is filtered out.
            let lives = lives.get_or_insert_with(|| Lives::new(scene));
            bencher.iter(|| lives.live());
        });
    }
    group.finish();
    criterion.final_summary();
}
