//! Damage to the files of a node that does not run: torn tails, flipped bits, old and foreign directories.

use std::fs;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

/// Files below `dir` whose name ends so, largest first.
///
/// # Errors
/// When a directory cannot be read.
pub fn files(dir: &Path, suffix: &str) -> io::Result<Vec<PathBuf>> {
    let (mut found, mut open) = (Vec::new(), vec![dir.to_owned()]);
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(dir)? {
            let (path, meta) = entry.and_then(|entry| Ok((entry.path(), entry.metadata()?)))?;
            match meta.is_dir() {
                true => open.push(path),
                false if path.to_string_lossy().ends_with(suffix) => found.push((meta.len(), path)),
                false => {}
            }
        }
    }
    found.sort();
    Ok(found.into_iter().rev().map(|(_, path)| path).collect())
}

/// Appends the first bytes of a log file to its end: the beginning of a record whose rest was never written.
///
/// # Errors
/// When it cannot be changed, or is shorter.
pub fn tear(path: &Path, bytes: usize) -> io::Result<()> {
    let mut file = fs::File::options().read(true).append(true).open(path)?;
    let mut first = vec![0; bytes];
    file.read_exact(&mut first)?;
    file.write_all(&first)?;
    file.sync_all()
}

/// Cuts bytes off the end of a file: writes that the disk had confirmed, and has lost.
///
/// # Errors
/// When it cannot be changed, or is shorter.
pub fn cut_tail(path: &Path, bytes: u64) -> io::Result<()> {
    let file = fs::File::options().write(true).open(path)?;
    let len = file.metadata()?.len();
    let left = len.checked_sub(bytes);
    let left = left.ok_or_else(|| io::Error::other(format!("{} has {len} bytes only", path.display())))?;
    file.set_len(left)?;
    file.sync_all()
}

/// Flips the lowest bit of the byte at `at`.
///
/// # Errors
/// When it cannot be changed, or is shorter.
pub fn flip_bit(path: &Path, at: u64) -> io::Result<()> {
    let mut file = fs::File::options().read(true).write(true).open(path)?;
    let mut byte = [0];
    file.seek(SeekFrom::Start(at))?;
    file.read_exact(&mut byte)?;
    file.seek(SeekFrom::Start(at))?;
    file.write_all(&[byte[0] ^ 1])?;
    file.sync_all()
}

/// Copies a directory with everything in it.
///
/// # Errors
/// When something cannot be read or written.
pub fn copy_dir(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        match entry.file_type()?.is_dir() {
            true => copy_dir(&entry.path(), &target)?,
            false => fs::copy(entry.path(), target).map(|_| ())?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damage_does_what_it_says() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("a")).unwrap();
        let (long, short) = (dir.path().join("a/1.log"), dir.path().join("2.log"));
        fs::write(&long, "0123").unwrap();
        fs::write(&short, "0").unwrap();
        assert_eq!(files(dir.path(), ".log").unwrap(), [long.clone(), short]);
        tear(&long, 2).unwrap();
        flip_bit(&long, 2).unwrap();
        assert_eq!(fs::read(&long).unwrap(), b"013301");
        let copy = dir.path().join("b");
        copy_dir(&dir.path().join("a"), &copy).unwrap();
        assert_eq!(fs::read(copy.join("1.log")).unwrap(), b"013301");
        assert!(flip_bit(&long, 6).is_err(), "there is no such byte");
        cut_tail(&long, 2).unwrap();
        assert_eq!(fs::read(&long).unwrap(), b"0133");
        assert!(cut_tail(&long, 5).is_err(), "there are no so many bytes");
    }
}
