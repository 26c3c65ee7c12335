//! Directories of containers and the tags in them, by which a later process of the same invoker finds what an
//! earlier one left behind.
//!
//! Layout: `<root>/invoker-<id>/lock`, held for the life of the process, and `<root>/invoker-<id>/<n>/` per container
//! with the proxy's socket `s`, its work directory `w` and the tag `proxy` (process id, start time, boot id).

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use whiskraft_types::InvokerId;

use super::group::{self, ProcessId};

/// Longest path of a socket: the kernel's 108 bytes, less the terminator.
const SOCKET_PATH_MAX: usize = 107;
/// Room for `/<n>/s` behind the invoker's directory.
const SOCKET_SUFFIX: usize = "/18446744073709551615/s".len();
/// Pause between two rounds of killing.
const ROUND_PAUSE: Duration = Duration::from_millis(2);
/// Rounds after which a leftover that does not die is reported instead of waited for.
const ROUNDS_MAX: u32 = 2_000;

/// Why the invoker's directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Another process has it.
    #[error("invoker {invoker} is already running on this host: {path} is locked; use another id or stop it")]
    InUse {
        /// The invoker.
        invoker: InvokerId,
        /// The lock file.
        path: PathBuf,
    },
    /// Sockets would not fit.
    #[error(
        "process root {path} is too long: sockets in it would have more than {SOCKET_PATH_MAX} bytes; set a shorter \
         `root`"
    )]
    PathTooLong {
        /// The invoker's directory.
        path: PathBuf,
    },
    /// The file system.
    #[error("{path} could not be used: {source}")]
    Io {
        /// What was touched.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// This executable is not known, and no other was named.
    #[error("no action proxy: the path of this executable is not known ({0}); set `runtime`")]
    NoRuntime(#[source] io::Error),
}

/// The directory of one invoker, locked.
#[derive(Debug)]
pub(crate) struct Place {
    path: PathBuf,
    _lock: File,
}

impl Place {
    /// Makes and locks the directory.
    pub(crate) fn claim(root: &Path, invoker: InvokerId) -> Result<Self, StartError> {
        let path = root.join(format!("invoker-{invoker}"));
        if path.as_os_str().len() + SOCKET_SUFFIX > SOCKET_PATH_MAX {
            return Err(StartError::PathTooLong { path });
        }
        let failed = |source| StartError::Io {
            path: path.clone(),
            source,
        };
        fs::create_dir_all(root).map_err(failed)?;
        make_private(&path).map_err(failed)?;
        let lock_path = path.join("lock");
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&lock_path)
            .map_err(failed)?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { path, _lock: lock }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(StartError::InUse {
                invoker,
                path: lock_path,
            }),
            Err(error) => Err(failed(error.into())),
        }
    }

    /// The directory of container `n`.
    pub(crate) fn container(&self, n: u64) -> PathBuf {
        self.path.join(n.to_string())
    }

    /// Ends and removes everything an earlier process of this invoker left; the number of containers found.
    pub(crate) fn clear(&self) -> io::Result<usize> {
        let mut found = 0;
        for entry in fs::read_dir(&self.path)? {
            let path = entry?.path();
            if path.is_dir() {
                found += 1;
                end_leftover(&path);
                remove_directory(&path)?;
            }
        }
        Ok(found)
    }
}

/// Makes a directory only its owner can enter; that it exists is fine.
pub(crate) fn make_private(path: &Path) -> io::Result<()> {
    match fs::DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

/// Notes whose directory this is.
pub(crate) fn write_tag(directory: &Path, proxy: ProcessId) -> io::Result<()> {
    fs::write(
        directory.join("proxy"),
        format!("{} {} {}", proxy.pid, proxy.start, boot_id()),
    )
}

/// The proxy that a tag names, if it was started since this boot.
fn read_tag(directory: &Path) -> Option<ProcessId> {
    let text = fs::read_to_string(directory.join("proxy")).ok()?;
    let mut words = text.split_ascii_whitespace();
    let id = ProcessId {
        pid: words.next()?.parse().ok()?,
        start: words.next()?.parse().ok()?,
    };
    (words.next()? == boot_id()).then_some(id)
}

fn boot_id() -> String {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    text.trim().to_owned()
}

/// Kills what is left of a container. If its proxy is gone, the number of its group may by now name another group,
/// so only members that are inside of the container's directory are touched.
fn end_leftover(directory: &Path) {
    let Some(proxy) = read_tag(directory) else { return };
    for _ in 0..ROUNDS_MAX {
        let known = proxy.is_alive();
        if known {
            group::kill_round(proxy);
        } else {
            let inside = |id: &ProcessId| {
                let cwd = fs::read_link(format!("/proc/{}/cwd", id.pid));
                cwd.is_ok_and(|cwd| cwd.starts_with(directory))
            };
            let left: Vec<_> = group::members(proxy).into_iter().filter(inside).collect();
            if left.is_empty() {
                return;
            }
            left.into_iter()
                .for_each(|id| id.signal(rustix::process::Signal::KILL));
        }
        pause();
    }
    tracing::warn!(directory = %directory.display(), pid = proxy.pid, "leftover container does not end");
}

#[expect(
    clippy::disallowed_methods,
    reason = "a killed process of somebody else can only be looked for again"
)]
fn pause() {
    std::thread::sleep(ROUND_PAUSE);
}

/// Removes a directory and all in it, whatever modes user code gave it; that it is gone already is fine.
pub(crate) fn remove_directory(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            open_directories(path);
            fs::remove_dir_all(path)
        }
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Gives the owner back the right to list and change every directory below.
fn open_directories(path: &Path) {
    let mut left = vec![path.to_owned()];
    while let Some(directory) = left.pop() {
        // Failures show when the removal is tried again.
        let _ = fs::set_permissions(&directory, fs::Permissions::from_mode(0o700));
        let entries = fs::read_dir(&directory).into_iter().flatten().flatten();
        left.extend(
            entries
                .filter(|e| e.file_type().is_ok_and(|kind| kind.is_dir()))
                .map(|e| e.path()),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_has_one_user_at_a_time() {
        let root = tempfile::tempdir().unwrap();
        let place = Place::claim(root.path(), InvokerId(3)).unwrap();
        let second = Place::claim(root.path(), InvokerId(3)).unwrap_err();
        assert!(
            second.to_string().contains("invoker 3 is already running"),
            "{second}"
        );
        assert!(
            Place::claim(root.path(), InvokerId(33)).is_ok(),
            "another id is another directory"
        );
        drop(place);
        assert!(Place::claim(root.path(), InvokerId(3)).is_ok());
    }

    #[test]
    fn a_root_too_long_for_sockets_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let error = Place::claim(&root.path().join("x".repeat(90)), InvokerId(1)).unwrap_err();
        assert!(matches!(error, StartError::PathTooLong { .. }), "{error}");
    }

    #[test]
    fn tags_of_another_boot_name_nobody() {
        let directory = tempfile::tempdir().unwrap();
        let id = ProcessId { pid: 7, start: 9 };
        write_tag(directory.path(), id).unwrap();
        assert_eq!(read_tag(directory.path()), Some(id));
        fs::write(directory.path().join("proxy"), "7 9 other-boot").unwrap();
        assert_eq!(read_tag(directory.path()), None);
        fs::write(directory.path().join("proxy"), "nonsense").unwrap();
        assert_eq!(read_tag(directory.path()), None);
    }

    #[test]
    fn a_process_that_only_shares_the_number_is_left_alone() {
        let root = tempfile::tempdir().unwrap();
        let place = Place::claim(root.path(), InvokerId(1)).unwrap();
        let directory = place.container(1);
        make_private(&directory).unwrap();
        let me = ProcessId::of(std::process::id()).unwrap();
        // The tag of an earlier process that had our number: killing by number would end this test.
        write_tag(
            &directory,
            ProcessId {
                start: me.start - 1,
                ..me
            },
        )
        .unwrap();
        assert_eq!(place.clear().unwrap(), 1);
        assert!(!directory.exists());
    }
}
