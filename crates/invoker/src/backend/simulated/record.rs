//! A file of starts: what really ran, for whoever judges a fault test.
//!
//! One line per start, `ID RUN INVOKER UNIX_MS`, appended in one write before the run begins, so that several invokers may
//! share the file and a killed one leaves no half line.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;

use whiskraft_types::InvokerId;

/// The file, open.
#[derive(Debug)]
pub struct StartRecord {
    file: File,
    invoker: InvokerId,
}

impl StartRecord {
    /// Opens the file, which is created if it does not exist.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn open(path: &Path, invoker: InvokerId) -> io::Result<Self> {
        let file = File::options().create(true).append(true).open(path)?;
        Ok(Self { file, invoker })
    }

    /// Appends a start.
    ///
    /// # Panics
    /// When it cannot be written: a test that judges by a record with holes would pass for the wrong reason.
    pub(super) fn append(&self, id: &str, run: u32, start_ms: u64) {
        let line = format!("{id} {run} {} {start_ms}\n", self.invoker.0);
        (&self.file)
            .write_all(line.as_bytes())
            .expect("the record of starts takes a line");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_of_several_invokers_share_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("starts");
        let [one, two] = [1, 2].map(|id| StartRecord::open(&path, InvokerId(id)).unwrap());
        one.append("aa", 1, 5);
        two.append("bb", 2, 6);
        one.append("cc", 1, 7);
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text, "aa 1 1 5\nbb 2 2 6\ncc 1 1 7\n");
    }
}
