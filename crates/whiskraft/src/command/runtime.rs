//! `whiskraft runtime`: the action proxy, started by the invoker's process backend for one container each.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Args;

/// Arguments of `whiskraft runtime`; the proxy reads them itself.
#[derive(Debug, Args)]
pub(crate) struct RuntimeArgs {
    /// Options of the proxy
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<OsString>,
}

/// Serves until the owner is gone.
pub(crate) fn run(args: RuntimeArgs) -> ExitCode {
    whiskraft_runtime::run_command_line(&["runtime"], args.args)
}
