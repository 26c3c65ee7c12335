//! Disks that fail: each is an ext4 file system in an image file, so that writes can be lost, refused or delayed.
//!
//! What a process has written and not synced is in the kernel's memory of the mounted file system, and not in the image.
//! A copy of the image is therefore what a power cut leaves ([`Disk::lose_unsynced`]). The file system commits by itself
//! only every ten minutes, and dirty pages are written after half a minute: what counts as synced was synced.
//! Needs root, mkfs.ext4, losetup and fsfreeze.

mod command;
mod leftovers;

use std::ffi::OsStr;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

pub use command::DiskError;
use command::run;

/// Prefix of every directory with mounted disks; the pid of its test process follows.
const DIR_PREFIX: &str = "whiskraft-test-";
/// File that takes the space a full disk does not have.
const FILLER: &str = "filler";
/// Bytes taken at a time when little is left.
const FILLER_STEP: usize = 64 << 10;
/// Written without a sync just before the power is cut, to show that the cut bites.
const CANARY: &str = "canary";
/// Bytes of the image that stay readable when the rest fails: not even the journal.
const READABLE_LEN: u64 = 1 << 20;

/// Whether this process can make disks.
///
/// # Panics
/// In CI without the right to: tests that silently do nothing there would be no tests.
#[must_use]
pub fn can_make_disks() -> bool {
    let is_root = rustix::process::geteuid().is_root() && Path::new("/dev/loop-control").exists();
    if !is_root {
        assert!(
            std::env::var_os("CI").is_none(),
            "CI runs as root and must be able to mount images"
        );
        println!("not run: mounting an image needs root and loop devices");
    }
    is_root
}

/// A directory for a test's files, named so that a later run finds what a killed one has left mounted.
///
/// # Panics
/// When it cannot be made.
#[must_use]
pub fn test_dir() -> tempfile::TempDir {
    leftovers::clear();
    tempfile::Builder::new()
        .prefix(&format!("{DIR_PREFIX}{}-", std::process::id()))
        .tempdir()
        .expect("a temporary directory")
}

/// A mounted image; unmounted and deleted when dropped.
#[derive(Debug)]
pub struct Disk {
    at: PathBuf,
    image: PathBuf,
    len: u64,
    frozen: bool,
    /// The part of the image that is cut off while it fails.
    tail: Option<PathBuf>,
}

impl Disk {
    /// Makes an empty disk of `mib` MiB and mounts it at `at`, which is created.
    ///
    /// # Errors
    /// When a command fails.
    pub fn make(at: &Path, mib: u64) -> Result<Self, DiskError> {
        let image = at.with_extension("img");
        let len = mib << 20;
        fs::create_dir_all(at)?;
        fs::File::create(&image)?.set_len(len)?;
        let lazy = "lazy_itable_init=1,lazy_journal_init=1";
        run("mkfs.ext4", ["-q", "-F", "-m", "0", "-E", lazy], [&image])?;
        let disk = Self {
            at: at.to_owned(),
            image,
            len,
            frozen: false,
            tail: None,
        };
        disk.mount()?;
        Ok(disk)
    }

    /// Where it is mounted.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.at
    }

    fn mount(&self) -> Result<(), DiskError> {
        let options = "loop,commit=600,noinit_itable,errors=continue";
        run("mount", ["-o", options], [&self.image, &self.at])
    }

    /// Cuts the power: afterwards the disk has what was synced, and of the rest what the kernel happened to have
    /// written. Nobody may use it meanwhile.
    ///
    /// # Errors
    /// When a command fails.
    ///
    /// # Panics
    /// When bytes that nobody synced are still there: then nothing was cut.
    pub fn lose_unsynced(&mut self) -> Result<(), DiskError> {
        fs::write(self.at.join(CANARY), "alive")?;
        let after = self.image.with_extension("after");
        run("cp", ["--sparse=always"], [&self.image, &after])?;
        self.unmount();
        fs::rename(&after, &self.image)?;
        self.mount()?;
        let canary = fs::read(self.at.join(CANARY)).unwrap_or_default();
        assert!(
            canary.is_empty(),
            "{}: a write without a sync survived",
            self.at.display()
        );
        Ok(())
    }

    /// Keeps a copy of the image as it is on disk now, to come back to.
    ///
    /// # Errors
    /// When a command fails.
    pub fn keep_copy(&self, name: &str) -> Result<PathBuf, DiskError> {
        let copy = self.image.with_extension(name);
        run("cp", ["--sparse=always"], [&self.image, &copy])?;
        Ok(copy)
    }

    /// Puts another image in the place of its own. Nobody may use it meanwhile.
    ///
    /// # Errors
    /// When a command fails.
    pub fn replace_with(&mut self, image: &Path) -> Result<(), DiskError> {
        self.unmount();
        run("cp", ["--sparse=always"], [image, &self.image])?;
        self.mount()
    }

    /// Free bytes.
    ///
    /// # Errors
    /// When the file system does not say.
    pub fn free(&self) -> Result<u64, DiskError> {
        let space = rustix::fs::statvfs(&self.at).map_err(io::Error::from)?;
        Ok(space.f_bavail.saturating_mul(space.f_frsize))
    }

    /// Takes all space but about `left` bytes.
    ///
    /// # Errors
    /// When a command fails.
    pub fn fill(&self, left: u64) -> Result<(), DiskError> {
        let filler = self.at.join(FILLER);
        // A part goes to the file system's own maps; the rest is taken piece by piece.
        let len = self.free()?.saturating_sub(left) / 100 * 98;
        run("fallocate", ["-l", &len.to_string()], [&filler])?;
        let mut file = fs::File::options().append(true).open(filler)?;
        while self.free()? > left {
            match file.write_all(&[0; FILLER_STEP]).and_then(|()| file.sync_data()) {
                Err(error) if error.kind() == io::ErrorKind::StorageFull => break,
                written => written?,
            }
        }
        Ok(())
    }

    /// Gives the space back.
    ///
    /// # Errors
    /// When it was not taken.
    pub fn unfill(&self) -> Result<(), DiskError> {
        Ok(fs::remove_file(self.at.join(FILLER))?)
    }

    /// Lets every write and sync hang until [`Disk::thaw`].
    ///
    /// # Errors
    /// When a command fails.
    pub fn freeze(&mut self) -> Result<(), DiskError> {
        run("fsfreeze", ["-f"], [&self.at])?;
        self.frozen = true;
        Ok(())
    }

    /// Lets them go on.
    ///
    /// # Errors
    /// When a command fails.
    pub fn thaw(&mut self) -> Result<(), DiskError> {
        run("fsfreeze", ["-u"], [&self.at])?;
        self.frozen = false;
        Ok(())
    }

    /// Lets every write and sync, and reads of what is not in memory, fail with an I/O error until [`Disk::mend`]. Who
    /// uses it should stand still meanwhile ([`Process::pause`](crate::Process::pause)): the cut takes a moment.
    ///
    /// # Errors
    /// When a command fails.
    pub fn break_down(&mut self) -> Result<(), DiskError> {
        let tail = self.image.with_extension("tail");
        run("cp", ["--sparse=always"], [&self.image, &tail])?;
        self.tail = Some(tail);
        let device = self.device()?;
        fs::File::options()
            .write(true)
            .open(&self.image)?
            .set_len(READABLE_LEN)?;
        run("losetup", ["-c"], [Path::new(&device)])
    }

    /// Ends [`Disk::break_down`]: what had been written before is there again. Nobody may use it meanwhile.
    ///
    /// # Errors
    /// When a command fails.
    pub fn mend(&mut self) -> Result<(), DiskError> {
        let Some(tail) = self.tail.take() else {
            return Ok(());
        };
        self.unmount();
        fs::rename(&tail, &self.image)?;
        debug_assert_eq!(fs::metadata(&self.image)?.len(), self.len);
        self.mount()
    }

    /// The loop device behind it.
    fn device(&self) -> Result<String, DiskError> {
        let mounts = fs::read_to_string("/proc/mounts")?;
        let mut lines = mounts.lines().map(|line| line.split(' '));
        let found = lines.find_map(|mut words| {
            let device = words.next()?;
            (OsStr::new(words.next()?) == self.at.as_os_str()).then(|| device.to_owned())
        });
        found.ok_or_else(|| DiskError::NotMounted(self.at.clone()))
    }

    fn unmount(&mut self) {
        if self.frozen {
            self.thaw().ok();
        }
        if run("umount", [], [&self.at]).is_err() {
            // Somebody still looks at it; the mount goes when they stop.
            run("umount", ["-l"], [&self.at]).ok();
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.unmount();
        fs::remove_file(&self.image).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(mib: u64) -> Option<(tempfile::TempDir, Disk)> {
        can_make_disks().then(|| {
            let dir = test_dir();
            let disk = Disk::make(&dir.path().join("disk"), mib).unwrap();
            (dir, disk)
        })
    }

    #[test]
    fn a_power_cut_takes_what_was_not_synced_and_leaves_what_was() {
        let Some((_dir, mut disk)) = disk(64) else { return };
        let mut half = fs::File::create(disk.path().join("half")).unwrap();
        half.write_all(&[1; 10_000]).unwrap();
        half.sync_all().unwrap();
        fs::File::open(disk.path()).unwrap().sync_all().unwrap();
        half.write_all(&[2; 10_000]).unwrap();
        fs::write(disk.path().join("never synced"), [3; 10_000]).unwrap();
        drop(half);
        disk.lose_unsynced().unwrap();
        assert_eq!(fs::read(disk.path().join("half")).unwrap(), vec![1; 10_000]);
        let rest = fs::read(disk.path().join("never synced")).unwrap_or_default();
        assert!(rest.is_empty(), "{} bytes survived", rest.len());
        disk.lose_unsynced().unwrap();
        assert!(disk.path().join("half").exists(), "a second cut takes no more");
    }

    #[test]
    fn a_full_disk_takes_nothing_until_space_comes_back() {
        let Some((_dir, disk)) = disk(64) else { return };
        disk.fill(0).unwrap();
        let write = || fs::write(disk.path().join("new"), vec![7; 1 << 20]);
        assert_eq!(write().unwrap_err().kind(), io::ErrorKind::StorageFull);
        disk.unfill().unwrap();
        write().unwrap();
    }

    #[test]
    fn a_broken_disk_fails_syncs_and_has_its_bytes_again_when_mended() {
        let Some((_dir, mut disk)) = disk(64) else { return };
        let path = disk.path().join("file");
        let mut file = fs::File::create(&path).unwrap();
        file.write_all(b"before").unwrap();
        file.sync_all().unwrap();
        fs::File::open(disk.path()).unwrap().sync_all().unwrap();
        disk.break_down().unwrap();
        let failed = file.write_all(&vec![1; 100_000]).and_then(|()| file.sync_all());
        assert!(failed.is_err(), "a sync of a broken disk cannot succeed");
        drop(file);
        disk.mend().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"before");
    }

    #[test]
    fn a_frozen_disk_holds_writes_until_it_thaws() {
        let Some((_dir, mut disk)) = disk(64) else { return };
        let path = disk.path().join("file");
        disk.freeze().unwrap();
        let write = std::thread::spawn(move || fs::write(path, "late"));
        // A write that did not hang would have ended before the thaw's own command did.
        assert!(!write.is_finished());
        disk.thaw().unwrap();
        write.join().unwrap().unwrap();
    }
}
