//! The action proxy as a program of its own, for images that hold nothing else of Whiskraft.

use std::process::ExitCode;

fn main() -> ExitCode {
    whiskraft_runtime::run_command_line(&[], std::env::args_os().skip(1))
}
