//! The commands that make and break disks.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// Why something could not be done to a disk.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// A command failed.
    #[error("`{command}` failed: {output}")]
    Command {
        /// The command with its arguments.
        command: String,
        /// What it said.
        output: String,
    },
    /// Nothing is mounted there.
    #[error("no disk is mounted at {}", .0.display())]
    NotMounted(PathBuf),
    /// A file operation failed.
    #[error("a file of a disk could not be used")]
    File(#[from] std::io::Error),
}

/// Runs a command on paths and waits for its end.
pub(super) fn run<const W: usize, const P: usize>(
    program: &str,
    words: [&str; W],
    paths: [impl AsRef<OsStr>; P],
) -> Result<(), DiskError> {
    let mut command = Command::new(program);
    command.args(words).args(paths).stdin(Stdio::null());
    let output = command.output();
    let failed = |output: String| DiskError::Command {
        command: format!("{command:?}"),
        output,
    };
    let output = output.map_err(|error| failed(error.to_string()))?;
    if output.status.success() {
        return Ok(());
    }
    Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
}
