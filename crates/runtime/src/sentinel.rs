//! The mark that ends an activation's share of a log stream.

use std::io::{self, Write};
use std::time::Duration;

/// A line that holds this is never part of a log.
pub const SENTINEL: &str = "XXX_THE_END_OF_A_WHISK_ACTIVATION_XXX";

/// Pause before a full pipe is tried again. The reader drains it all the time, so this is rare.
const FULL_PAUSE: Duration = Duration::from_millis(1);
/// Tries before a pipe that nobody reads is given up, which loses a mark and not the proxy.
const FULL_TRIES_MAX: u32 = 2_000;

/// Writes the mark to both streams.
pub(crate) async fn write_both() {
    let line = format!("{SENTINEL}\n");
    write(io::stdout(), line.as_bytes()).await;
    write(io::stderr(), line.as_bytes()).await;
}

/// Writes bytes to the proxy's standard output: part of the action's log.
pub(crate) async fn write_stdout(bytes: &[u8]) {
    write(io::stdout(), bytes).await;
}

/// Writes a line to the proxy's standard error: part of the action's log.
pub(crate) async fn write_stderr(text: &str) {
    write(io::stderr(), format!("{text}\n").as_bytes()).await;
}

/// Writes all bytes. User code may have set the shared pipe to non-blocking, so a full one can say so.
async fn write(mut stream: impl Write, mut bytes: &[u8]) {
    let mut tries = 0;
    while !bytes.is_empty() && tries < FULL_TRIES_MAX {
        match stream.write(bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                tries += 1;
                tokio::time::sleep(FULL_PAUSE).await;
            }
            // The reader is gone; there is nobody left to tell.
            Err(_) => return,
        }
    }
    // `Stdout` holds back what follows the last newline.
    let _ = stream.flush();
}
