//! SIGTERM and SIGINT: the first asks for a graceful shutdown, the second ends the process at once.

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::exit::{Exit, Failure};

/// Listens for both signals from its creation on, so that none is missed between two waits.
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Installs the handlers.
    ///
    /// # Errors
    /// If the operating system refuses.
    pub(crate) fn install() -> Result<Self, Failure> {
        let listen = |kind| {
            signal(kind).map_err(|error| {
                Failure::new(Exit::Refused, "cannot install signal handlers").caused_by(error)
            })
        };
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
        })
    }

    /// Waits for the next signal and names it.
    pub(crate) async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }

    /// Runs `shutdown` to its end unless another signal comes first, which ends the process.
    pub(crate) async fn or_force<T>(&mut self, shutdown: impl Future<Output = T>) -> Result<T, Failure> {
        tokio::select! {
            done = shutdown => Ok(done),
            name = self.next() => Err(Failure::new(
                Exit::Forced,
                format!("second signal ({name}): stopped before the shutdown was complete"),
            )),
        }
    }
}
