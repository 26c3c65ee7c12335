//! The proxy as a program: command line, runtime, reaping of orphans.

use std::ffi::OsString;
use std::process::ExitCode;

use tokio::signal::unix::{SignalKind, signal};

use crate::options::{Options, OptionsError};
use crate::serve::{ServeError, Stopped};
use crate::{orphans, serve, stage};

/// Exit code when the user's process ended and the proxy with it.
const EXIT_CHILD_ENDED: u8 = 3;
/// The first descriptor after the standard streams.
const FIRST_FD: i32 = 3;
/// Exit code for a command line that was not understood.
const EXIT_USAGE: u8 = 2;

/// Runs the proxy as the whole of this process. `leading` are the arguments that lead this executable here (for
/// `whiskraft runtime …` that is `["runtime"]`), so that it can start itself; `args` are those that follow.
///
/// Call it on the main thread outside of any async runtime: user processes die with the thread that started them.
pub fn run_command_line(leading: &[&str], args: impl IntoIterator<Item = OsString>) -> ExitCode {
    // Whatever our starter left open is nothing for user code.
    close_fds::set_fds_cloexec(FIRST_FD, &[]);
    let mut args = args.into_iter().peekable();
    if args.peek().is_some_and(|first| first == stage::COMMAND) {
        args.next();
        return stage::launch(args);
    }
    match options(leading, args).map(run) {
        Ok(Ok(Stopped::Terminated)) => ExitCode::SUCCESS,
        Ok(Ok(Stopped::ChildEnded)) => ExitCode::from(EXIT_CHILD_ENDED),
        Ok(Err(error)) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(EXIT_USAGE)
        }
    }
}

fn options(leading: &[&str], args: impl Iterator<Item = OsString>) -> Result<Options, OptionsError> {
    let mut options = Options::parse(args)?;
    // Without a path to this executable user code runs without limits of its own.
    if let Ok(executable) = std::env::current_exe() {
        let leading = leading.iter().map(OsString::from);
        options.stage.command = std::iter::once(executable.into_os_string())
            .chain(leading)
            .chain([stage::COMMAND.into()])
            .collect();
    }
    Ok(options)
}

fn run(options: Options) -> Result<Stopped, ServeError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(ServeError::Runtime)?;
    let stopped = runtime.block_on(async {
        tokio::select! {
            biased;
            stopped = serve(options) => stopped,
            () = terminated() => Ok(Stopped::Terminated),
            never = orphans::reap() => match never {},
        }
    });
    // Not waited for: a connection that nobody answers must end now.
    runtime.shutdown_background();
    stopped
}

/// Waits for the request to end. The first process of an image gets it only if it asks for it.
async fn terminated() {
    match signal(SignalKind::terminate()) {
        Ok(mut asked) => {
            asked.recv().await;
        }
        Err(_) => std::future::pending().await,
    }
}
