//! The action proxy as an executable of its own, for the tests of the process backend: `whiskraft runtime` in short.

use std::process::ExitCode;

fn main() -> ExitCode {
    whiskraft_runtime::run_command_line(&[], std::env::args_os().skip(1))
}
