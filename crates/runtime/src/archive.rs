//! Unpacks zip and tar.gz archives, within limits.
//!
//! The unpacked code runs with the rights of the proxy, so there is nothing an archive could gain by names that point
//! elsewhere; they are refused all the same, because they are never meant.

use std::fs;
use std::io::{self, Cursor, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use flate2::read::GzDecoder;

/// Most bytes an archive may unpack to. A small one can claim to hold terabytes.
const UNPACKED_LEN_MAX: u64 = 1 << 30;
/// Most entries of an archive; large `node_modules` have some ten thousand.
const ENTRIES_MAX: usize = 200_000;
/// Longest target of a symbolic link.
const TARGET_LEN_MAX: u64 = 4096;
/// File type bits of a Unix mode, and the type of symbolic links.
const MODE_TYPE: u32 = 0o170_000;
const MODE_LINK: u32 = 0o120_000;

/// Why an archive could not be unpacked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ArchiveError {
    /// Damaged or of an unknown kind.
    #[error("zip: {0}")]
    Zip(#[from] zip::result::ZipError),
    /// A name that leaves the directory.
    #[error("entry {0} is outside of the archive's root")]
    Outside(String),
    /// Over a limit.
    #[error("it unpacks to more than {UNPACKED_LEN_MAX} bytes or {ENTRIES_MAX} entries")]
    TooLarge,
    /// The disk, or a damaged stream.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// Unpacks `bytes` into a directory; false if they are no archive.
pub(crate) fn unpack(bytes: &[u8], directory: &Path) -> Result<bool, ArchiveError> {
    if bytes.starts_with(b"PK\x03\x04") || bytes.starts_with(b"PK\x05\x06") {
        unpack_zip(bytes, directory)?;
    } else if bytes.starts_with(b"\x1f\x8b") {
        unpack_tar(bytes, directory)?;
    } else {
        return Ok(false);
    }
    Ok(true)
}

fn unpack_zip(bytes: &[u8], directory: &Path) -> Result<(), ArchiveError> {
    let mut archive = zip::ZipArchive::new(Cursor::new(bytes))?;
    if archive.len() > ENTRIES_MAX {
        return Err(ArchiveError::TooLarge);
    }
    let mut left = UNPACKED_LEN_MAX;
    let mut links = Vec::new();
    for at in 0..archive.len() {
        let mut entry = archive.by_index(at)?;
        let name = entry
            .enclosed_name()
            .ok_or_else(|| ArchiveError::Outside(format!("number {at}")))?;
        let path = directory.join(name);
        let mode = entry.unix_mode();
        if entry.is_dir() {
            fs::create_dir_all(&path)?;
        } else if mode.is_some_and(|mode| mode & MODE_TYPE == MODE_LINK) {
            let mut target = String::new();
            entry.by_ref().take(TARGET_LEN_MAX).read_to_string(&mut target)?;
            links.push((path, target));
        } else {
            left -= write_file(&mut entry, &path, mode, left)?;
        }
    }
    // Last, so that no file is written through a link.
    links
        .iter()
        .try_for_each(|(path, target)| make_link(path, target))
}

fn write_file(entry: &mut impl Read, path: &Path, mode: Option<u32>, left: u64) -> Result<u64, ArchiveError> {
    make_parent(path)?;
    let mut file = fs::File::create(path)?;
    let written = io::copy(&mut entry.take(left + 1), &mut file)?;
    if written > left {
        return Err(ArchiveError::TooLarge);
    }
    if let Some(mode) = mode {
        // Always readable and writable by us, whatever the archive says.
        file.set_permissions(fs::Permissions::from_mode(mode & 0o777 | 0o600))?;
    }
    Ok(written)
}

fn make_link(path: &PathBuf, target: &str) -> Result<(), ArchiveError> {
    make_parent(path)?;
    Ok(std::os::unix::fs::symlink(target, path)?)
}

fn make_parent(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), fs::create_dir_all)
}

fn unpack_tar(bytes: &[u8], directory: &Path) -> Result<(), ArchiveError> {
    let mut archive = tar::Archive::new(GzDecoder::new(bytes).take(UNPACKED_LEN_MAX));
    for (at, entry) in archive.entries()?.enumerate() {
        if at >= ENTRIES_MAX {
            return Err(ArchiveError::TooLarge);
        }
        let mut entry = entry?;
        if !entry.unpack_in(directory)? {
            return Err(ArchiveError::Outside(
                String::from_utf8_lossy(&entry.path_bytes()).into_owned(),
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use zip::write::SimpleFileOptions;

    use super::*;

    fn zip_of(entries: &[(&str, &str, u32)]) -> Vec<u8> {
        let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
        for (name, content, mode) in entries {
            writer
                .start_file(*name, SimpleFileOptions::default().unix_permissions(*mode))
                .unwrap();
            writer.write_all(content.as_bytes()).unwrap();
        }
        writer
            .add_symlink("link", "dir/a", SimpleFileOptions::default())
            .unwrap();
        writer.finish().unwrap().into_inner()
    }

    #[test]
    fn zip_keeps_directories_modes_and_links() {
        let directory = tempfile::tempdir().unwrap();
        let bytes = zip_of(&[("dir/a", "one", 0o644), ("exec", "two", 0o755)]);
        assert!(unpack(&bytes, directory.path()).unwrap());
        assert_eq!(fs::read_to_string(directory.path().join("link")).unwrap(), "one");
        let mode = fs::metadata(directory.path().join("exec"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o111, 0o111);
    }

    #[test]
    fn zip_with_a_name_outside_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let inner = directory.path().join("inner");
        fs::create_dir(&inner).unwrap();
        let error = unpack(&zip_of(&[("../evil", "x", 0o644)]), &inner);
        assert!(error.is_err(), "{error:?}");
        assert!(!directory.path().join("evil").exists());
    }

    #[test]
    fn tar_gz_is_unpacked() {
        let directory = tempfile::tempdir().unwrap();
        let gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        let mut builder = tar::Builder::new(gz);
        let mut header = tar::Header::new_gnu();
        header.set_size(3);
        header.set_mode(0o644);
        builder.append_data(&mut header, "dir/a", &b"one"[..]).unwrap();
        let bytes = builder.into_inner().unwrap().finish().unwrap();
        assert!(unpack(&bytes, directory.path()).unwrap());
        assert_eq!(fs::read_to_string(directory.path().join("dir/a")).unwrap(), "one");
    }

    #[test]
    fn damaged_archives_are_errors_and_other_bytes_no_archives() {
        let directory = tempfile::tempdir().unwrap();
        assert!(unpack(b"PK\x03\x04broken", directory.path()).is_err());
        assert!(unpack(b"\x1f\x8bbroken", directory.path()).is_err());
        assert!(!unpack(b"\x7fELF", directory.path()).unwrap());
    }
}
