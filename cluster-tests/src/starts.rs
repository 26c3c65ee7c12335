//! What simulated invokers started, from the file to which each of them appends a line per start (`backend.simulated.record`).
//!
//! The file is outside the cluster's directories: no fault touches it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// One start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Start {
    /// Activation id, 32 hex digits.
    pub id: String,
    /// Which run of the activation, from 1.
    pub run: u32,
    /// Number of the invoker.
    pub invoker: u64,
    /// Unix time in milliseconds.
    pub at_ms: u64,
}

/// Reads the file.
#[derive(Debug, Clone)]
pub struct Starts {
    path: PathBuf,
}

impl Starts {
    /// Starts in this file.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
        }
    }

    /// Where invokers append.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// All starts so far, in the order in which they were written.
    ///
    /// # Panics
    /// When a line is not what an invoker writes: a record that cannot be read proves nothing.
    #[must_use]
    pub fn all(&self) -> Vec<Start> {
        let text = fs::read_to_string(&self.path).unwrap_or_default();
        let line = |line: &str| parse(line).unwrap_or_else(|| panic!("not a start: {line:?}"));
        text.lines().map(line).collect()
    }

    /// Starts by activation.
    #[must_use]
    pub fn by_id(&self) -> BTreeMap<String, Vec<Start>> {
        let mut starts = BTreeMap::<String, Vec<Start>>::new();
        for start in self.all() {
            starts.entry(start.id.clone()).or_default().push(start);
        }
        starts
    }
}

fn parse(line: &str) -> Option<Start> {
    let mut words = line.split(' ');
    let start = Start {
        id: words.next()?.to_owned(),
        run: words.next()?.parse().ok()?,
        invoker: words.next()?.parse().ok()?,
        at_ms: words.next()?.parse().ok()?,
    };
    words.next().is_none().then_some(start)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_whole_or_not_at_all() {
        let start = parse("0123 2 7 1700000000000").unwrap();
        assert_eq!((start.run, start.invoker, start.at_ms), (2, 7, 1_700_000_000_000));
        assert_eq!(parse("0123 2 7"), None);
        assert_eq!(parse("0123 2 7 1 1"), None);
    }
}
