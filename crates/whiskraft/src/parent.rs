//! A process that ends when the one that started it does, also if that one is killed and cannot say so.

use rustix::process::{Signal, getppid, set_parent_process_death_signal};

use crate::exit::{Exit, Failure};

/// Lets the system end this process with its parent, which should be this one.
///
/// # Errors
/// If the system refuses, or the parent has ended already.
pub(crate) fn die_with(parent: u32) -> Result<(), Failure> {
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(|error| {
        Failure::new(Exit::Refused, "cannot be made to end with another process").caused_by(error)
    })?;
    // After the order above: a parent that ended before it would never be noticed.
    let found = getppid().map(|pid| pid.as_raw_nonzero().get().unsigned_abs());
    if found == Some(parent) {
        return Ok(());
    }
    Err(Failure::new(
        Exit::Refused,
        format!("process {parent}, which started this one, has ended"),
    ))
}
