//! Standard output of the commands.

use std::fmt::Display;
use std::io::Write;

use crate::exit::Exit;

/// Prints a line. When nobody reads any more (`whiskraft status --watch | head`) the process ends quietly.
pub(crate) fn line(text: impl Display) {
    bytes(format!("{text}\n").as_bytes());
}

/// Prints bytes as they are.
pub(crate) fn bytes(bytes: &[u8]) {
    let mut stdout = std::io::stdout().lock();
    if stdout.write_all(bytes).and_then(|()| stdout.flush()).is_err() {
        std::process::exit(i32::from(Exit::Failed.code()));
    }
}

/// Prints a value as indented JSON.
pub(crate) fn json(value: &serde_json::Value) {
    line(format_args!("{value:#}"));
}
