//! Threads that keep processors busy, as somebody else's work on the same machine would.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use crate::exit::{Exit, Failure};

/// Turns between two looks whether it is over: well below a millisecond.
const TURNS: u32 = 10_000;

/// They end when it is dropped.
#[derive(Debug)]
pub(super) struct Busy {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Busy {
    /// Starts so many.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub(super) fn start(threads: u32) -> Result<Self, Failure> {
        let mut busy = Self {
            stop: Arc::default(),
            threads: Vec::new(),
        };
        for _ in 0..threads {
            let stop = Arc::clone(&busy.stop);
            let turn = move || {
                while !stop.load(Ordering::Relaxed) {
                    (0..TURNS).for_each(|_| std::hint::spin_loop());
                }
            };
            let thread = std::thread::Builder::new()
                .name("bench-busy".to_owned())
                .spawn(turn);
            let refused = |error| Failure::new(Exit::Refused, "cannot start a thread").caused_by(error);
            busy.threads.push(thread.map_err(refused)?);
        }
        Ok(busy)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().expect("it does nothing that could panic");
        }
    }
}
