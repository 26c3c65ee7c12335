//! One kind of work, so many times: for `scripts/instructions.sh`, which counts instructions of two such runs and divides
//! the difference. Such counts stay the same while others use the machine.

mod lives;
mod places;

use lives::{Lives, Scene};
use places::Places;

fn main() {
    let mut args = std::env::args().skip(1).filter(|arg| !arg.starts_with("--"));
    let (Some(name), Some(count)) = (
        args.next(),
        args.next().and_then(|count| count.parse::<u32>().ok()),
    ) else {
        // `cargo bench` runs all targets, `cargo test --benches` too.
        println!("usage: instructions NAME COUNT");
        Scene::ALL.iter().for_each(|scene| println!("{}", scene.name));
        Places::LENS.iter().for_each(|len| println!("place {len}"));
        return;
    };
    if let Some(scene) = Scene::ALL.into_iter().find(|scene| scene.name == name) {
        let mut lives = Lives::new(scene);
        (0..count).for_each(|_| lives.live());
    } else if let Some(len) = name.strip_prefix("place ").and_then(|len| len.parse().ok()) {
        let mut places = Places::new(len);
        (0..count).for_each(|_| places.place());
    } else {
        println!("nothing is called {name:?}");
    }
}
