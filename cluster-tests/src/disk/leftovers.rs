//! What test processes that were killed have left mounted.

use std::fs;
use std::path::{Path, PathBuf};

use super::DIR_PREFIX;
use super::command::run;

/// Unmounts and deletes directories of test processes that are gone.
pub(super) fn clear() {
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(1));
    for point in points.map(Path::new).filter(|point| is_orphan(point)) {
        run("fsfreeze", ["-u"], [point]).ok();
        run("umount", ["-l"], [point]).ok();
    }
    let entries = fs::read_dir(std::env::temp_dir()).into_iter().flatten().flatten();
    let dirs = entries.map(|entry| entry.path()).filter(|path| is_orphan(path));
    dirs.for_each(|dir: PathBuf| {
        fs::remove_dir_all(dir).ok();
    });
}

/// Whether it belongs to a test process that does not run any more.
fn is_orphan(path: &Path) -> bool {
    let mut parts = path.iter().filter_map(|part| part.to_str());
    let pid = parts.find_map(|part| {
        part.strip_prefix(DIR_PREFIX)?
            .split('-')
            .next()?
            .parse::<u32>()
            .ok()
    });
    pid.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_directories_of_dead_test_processes_are_orphans() {
        // Pids end far below this one.
        assert!(is_orphan(Path::new(
            "/tmp/whiskraft-test-4294967295-abc/scheduler-1"
        )));
        let own = format!("/tmp/whiskraft-test-{}-abc", std::process::id());
        assert!(!is_orphan(Path::new(&own)));
        assert!(!is_orphan(Path::new("/tmp/other")));
        assert!(!is_orphan(Path::new("/tmp/whiskraft-test-x-abc")));
    }
}
