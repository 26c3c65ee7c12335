//! How much memory a queue takes.

#[path = "../benches/lives/mod.rs"]
mod lives;

use lives::{Lives, Scene};

#[test]
fn probe() {
    for remembered in [0, 1, 3, 8, 12, 20] {
        let scene = Scene { queues: 1000, remembered, ..Scene::ALL[0] };
        let mut kept = None;
        let measured = allocation_counter::measure(|| kept = Some(Lives::new(scene)));
        println!("remembered {remembered}: {} bytes in {} allocations", measured.bytes_current / 1000, measured.count_current / 1000);
    }
}
