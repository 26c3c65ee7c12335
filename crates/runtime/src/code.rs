//! Puts the code of an action into its directory.

use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use crate::archive::{self, ArchiveError};

/// Base64 as tools write it, with or without padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Where the code is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Placed {
    /// The action's own directory.
    pub(crate) directory: PathBuf,
    /// The file to run; `None` for a package whose loader finds it.
    pub(crate) file: Option<PathBuf>,
}

/// Why the code could not be placed. The text goes to the action's log.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PlaceError {
    /// Not what `binary` says.
    #[error("the code is marked as binary but is not base64: {0}")]
    Base64(#[from] base64::DecodeError),
    /// The archive.
    #[error("the archive could not be unpacked: {0}")]
    Archive(#[from] ArchiveError),
    /// An archive without the file that starts it.
    #[error("the archive has no file {0} at its root")]
    NoEntry(String),
    /// The disk.
    #[error("the code could not be written: {0}")]
    Io(#[from] io::Error),
}

/// Writes code to `directory`: text and single files as `single`, an archive unpacked, in which `entry` must be
/// found unless it is empty.
pub(crate) fn place(
    directory: &Path,
    code: &str,
    binary: bool,
    single: &str,
    entry: &str,
) -> Result<Placed, PlaceError> {
    std::fs::create_dir_all(directory)?;
    let directory = directory.canonicalize()?;
    if !binary {
        return write_single(directory, single, code.as_bytes());
    }
    let compact: Vec<u8> = code.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let bytes = BASE64.decode(compact)?;
    if !archive::unpack(&bytes, &directory)? {
        return write_single(directory, single, &bytes);
    }
    let file = directory.join(entry);
    if entry.is_empty() {
        return Ok(Placed {
            directory,
            file: None,
        });
    }
    if !file.is_file() {
        return Err(PlaceError::NoEntry(entry.to_owned()));
    }
    Ok(Placed {
        directory,
        file: Some(file),
    })
}

fn write_single(directory: PathBuf, name: &str, bytes: &[u8]) -> Result<Placed, PlaceError> {
    let file = directory.join(name);
    std::fs::write(&file, bytes)?;
    Ok(Placed {
        directory,
        file: Some(file),
    })
}

/// Makes a file executable and tells whether the kernel can run it by itself (ELF or `#!`).
pub(crate) fn make_executable(file: &Path) -> io::Result<bool> {
    std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o755))?;
    let mut magic = Vec::new();
    std::fs::File::open(file)?.take(4).read_to_end(&mut magic)?;
    Ok(magic.starts_with(b"#!") || magic == b"\x7fELF")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place_in_new(
        code: &str,
        binary: bool,
        entry: &str,
    ) -> (tempfile::TempDir, Result<Placed, PlaceError>) {
        let directory = tempfile::tempdir().unwrap();
        let placed = place(&directory.path().join("code"), code, binary, "one", entry);
        (directory, placed)
    }

    #[test]
    fn text_and_single_files_become_one_file() {
        for (code, binary, expected) in [
            ("hello\n", false, "hello\n"),
            ("aGVs\nbG8=", true, "hello"),
            ("aGVsbG8", true, "hello"),
        ] {
            let (_directory, placed) = place_in_new(code, binary, "main");
            assert_eq!(
                std::fs::read_to_string(placed.unwrap().file.unwrap()).unwrap(),
                expected
            );
        }
    }

    #[test]
    fn binary_code_must_be_base64() {
        let (_directory, placed) = place_in_new("!!", true, "main");
        assert!(matches!(placed, Err(PlaceError::Base64(_))));
    }
}
