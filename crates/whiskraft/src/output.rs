//! Standard output of the commands.

use std::fmt::Display;
use std::io::{IsTerminal, Write};

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
    line(json_text(value));
}

/// A value as indented JSON.
pub(crate) fn json_text(value: &serde_json::Value) -> String {
    format!("{value:#}")
}

/// Shows a text that replaces the one before: in place on a terminal, below it (after an empty line) elsewhere.
#[derive(Debug, Default)]
pub(crate) struct Screen {
    is_used: bool,
}

impl Screen {
    /// Shows the next text.
    pub(crate) fn show(&mut self, text: &str) {
        bytes(self.frame(text, std::io::stdout().is_terminal()).as_bytes());
    }

    /// What has to be written. Lines are overwritten one by one: clearing everything first would flicker.
    fn frame(&mut self, text: &str, is_terminal: bool) -> String {
        let is_first = !std::mem::replace(&mut self.is_used, true);
        match (is_terminal, is_first) {
            (true, is_first) => {
                let start = if is_first { "\x1b[2J\x1b[H" } else { "\x1b[H" };
                let lines: String = text.lines().map(|line| format!("{line}\x1b[K\n")).collect();
                format!("{start}{lines}\x1b[J")
            }
            (false, true) => format!("{text}\n"),
            (false, false) => format!("\n{text}\n"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_is_redrawn_in_place_and_a_file_appended_to() {
        let mut screen = Screen::default();
        assert_eq!(
            screen.frame("a\nb", true),
            "\x1b[2J\x1b[Ha\x1b[K\nb\x1b[K\n\x1b[J"
        );
        assert_eq!(screen.frame("c", true), "\x1b[Hc\x1b[K\n\x1b[J");
        let mut screen = Screen::default();
        assert_eq!(screen.frame("a", false) + &screen.frame("b", false), "a\n\nb\n");
    }
}
