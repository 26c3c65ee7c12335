//! Looking once, or again and again until Ctrl-C: what `status` and `queues` share.

use std::time::Duration;

use clap::Args;

use crate::exit::Failure;
use crate::output;
use crate::signals::Signals;
use crate::units::parse_time;

/// Options of the commands that show something that changes.
#[derive(Debug, Args)]
pub(crate) struct LookArgs {
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
    /// Show it again and again until Ctrl-C: in place on a terminal, one below the other otherwise
    #[arg(long, short = 'w')]
    watch: bool,
    /// Time between two looks
    #[arg(long, value_name = "TIME", default_value = "1s", requires = "watch", value_parser = parse_time)]
    interval: Duration,
}

/// Prints what `look` finds, once, or until a signal comes, which ends it with success.
///
/// # Errors
/// If a single look fails. While watching a failure is printed and the next look taken: a cluster that elects a leader
/// answers again soon.
pub(super) async fn look_again(
    args: &LookArgs,
    mut look: impl AsyncFnMut() -> Result<String, Failure>,
) -> Result<(), Failure> {
    if !args.watch {
        output::line(look().await?);
        return Ok(());
    }
    let mut signals = Signals::install()?;
    let mut screen = output::Screen::default();
    loop {
        tokio::select! {
            found = look() => match found {
                // JSON is for programs, wherever it goes.
                Ok(text) if args.json => output::line(text),
                Ok(text) => screen.show(&text),
                Err(failure) => eprintln!("{failure}"),
            },
            _ = signals.next() => return Ok(()),
        }
        tokio::select! {
            () = tokio::time::sleep(args.interval) => {}
            _ = signals.next() => return Ok(()),
        }
    }
}
