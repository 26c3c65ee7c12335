//! Log output: `tracing` events on standard error, human or JSON, filtered by `--log`.
//!
//! Called once by `main`, after the configuration is known and before anything else starts.

use std::io::{IsTerminal, stderr};

use tracing_subscriber::EnvFilter;

use crate::config::LogFormat;
use crate::exit::{Exit, Failure};

/// Installs the subscriber.
///
/// # Errors
/// If `filter` is not a valid filter.
pub(crate) fn init(filter: &str, format: LogFormat) -> Result<(), Failure> {
    let filter = EnvFilter::try_new(filter).map_err(|error| {
        Failure::new(Exit::Usage, format!("log filter {filter:?} is not valid"))
            .caused_by(error)
            .advise(
                "write a level (error, warn, info, debug, trace) or pairs such as info,whiskraft_raft=debug",
            )
    })?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        // A line that cannot be written is lost: to say so would need the same place, and end the process.
        .log_internal_errors(false)
        .with_writer(stderr);
    match format {
        LogFormat::Human => builder.with_ansi(stderr().is_terminal()).init(),
        LogFormat::Json => builder.json().flatten_event(true).with_current_span(true).init(),
    }
    Ok(())
}
