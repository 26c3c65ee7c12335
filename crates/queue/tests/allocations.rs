//! How often the memory allocator is asked in one life of an activation: a guard against regressions. The bounds are a
//! little more than what was measured when they were written; who needs more raises them and says why.

#[path = "../benches/lives/mod.rs"]
mod lives;

use lives::{Lives, Scene};

/// Lives over which the mean is taken: a container of the standard library that grows does so once in many.
const LIVES: u64 = 1000;

/// Allocations per thousand lives, by scene: the entry, and nodes of trees, as they split. Measured were 1,086, 1,086, 1,175, 1,130, 1,216, (many
/// queues: not counted), 1,086 and 1,216.
const BOUNDS: [u64; Scene::ALL.len()] = [1100, 1100, 1200, 1150, 1250, 1100, 1100, 1250];

#[test]
fn a_life_asks_for_little_memory() {
    // Many queues ask no more often than one, and take long to fill.
    let scenes = Scene::ALL
        .into_iter()
        .zip(BOUNDS)
        .filter(|(scene, _)| scene.queues == 1);
    for (scene, bound) in scenes {
        let mut lives = Lives::new(scene);
        let measured = allocation_counter::measure(|| (0..LIVES).for_each(|_| lives.live()));
        println!(
            "{}: {} allocations and {} bytes in {LIVES} lives, at most {bound}",
            scene.name, measured.count_total, measured.bytes_total
        );
        assert!(measured.count_total <= bound, "{}", scene.name);
    }
}
