//! A source file on disk as an action: which runtime it needs, and whether its code is text.

use std::path::{Path, PathBuf};

use whiskraft_client::ActionSpec;
use whiskraft_types::{ActionName, NamespaceName};

use crate::exit::{Exit, Failure};

/// First bytes of an executable file on Linux.
const ELF_MAGIC: &[u8] = b"\x7fELF";
/// First bytes of a zip archive.
const ZIP_MAGIC: &[u8] = b"PK\x03\x04";
/// Runtimes by extension of the source file.
const KINDS: [(&str, &str); 6] = [
    ("py", "python:3"),
    ("js", "nodejs:20"),
    ("cjs", "nodejs:20"),
    ("mjs", "nodejs:20"),
    ("sh", "sh"),
    ("bash", "sh"),
];

/// The file that an argument means, if it means one: it exists, and looks like a path or a source file. Names of
/// actions may contain dots, so a dot alone decides nothing.
pub(crate) fn as_file(argument: &str) -> Option<PathBuf> {
    let path = PathBuf::from(argument);
    let looks_like_path = argument.starts_with(['.', '/', '~']) || kind_of_extension(&path).is_some();
    (looks_like_path && path.is_file()).then_some(path)
}

/// Whether a text that names no existing file was surely meant to: it has the extension of a source file.
pub(crate) fn looks_like_file(argument: &str) -> bool {
    kind_of_extension(Path::new(argument)).is_some()
}

fn kind_of_extension(path: &Path) -> Option<&'static str> {
    let extension = path.extension()?.to_str()?;
    KINDS
        .iter()
        .find(|(known, _)| *known == extension)
        .map(|(_, kind)| *kind)
}

/// The full name that `text` means for a caller in `namespace`: `hello`, `package/hello` (with one slash it is
/// `namespace/name`, as in OpenWhisk's fully qualified names) or `/namespace/package/hello`.
pub(crate) fn action_name(text: &str, namespace: &NamespaceName) -> Result<ActionName, Failure> {
    let full = if text.contains('/') {
        text.to_owned()
    } else {
        format!("{namespace}/{text}")
    };
    full.parse()
        .map_err(|error| Failure::new(Exit::Usage, format!("action name {text:?}")).caused_by(error))
}

/// The name that a file gets when it is invoked at once: its stem, in the caller's namespace.
pub(crate) fn name_of_file(path: &Path, namespace: &NamespaceName) -> Result<ActionName, Failure> {
    let stem = path
        .file_stem()
        .and_then(|stem| stem.to_str())
        .unwrap_or_default();
    action_name(stem, namespace)
}

/// Reads `path` into an action called `name`. `kind` overrides what the file looks like.
///
/// # Errors
/// If the file cannot be read, is empty, or its runtime cannot be told.
pub(crate) fn read(path: &Path, name: ActionName, kind: Option<&str>) -> Result<ActionSpec, Failure> {
    let shown = path.display();
    let code = std::fs::read(path)
        .map_err(|error| Failure::new(Exit::Usage, format!("cannot read {shown}")).caused_by(error))?;
    if code.is_empty() {
        return Err(Failure::new(
            Exit::Usage,
            format!("{shown} is empty: an action needs code"),
        ));
    }
    let executable = code.starts_with(ELF_MAGIC) || (code.starts_with(b"#!") && path.extension().is_none());
    let binary = executable || code.starts_with(ZIP_MAGIC);
    let guessed = kind_of_extension(path).or(executable.then_some("native"));
    let kind = kind.or(guessed).ok_or_else(|| {
        Failure::new(
            Exit::Usage,
            format!("cannot tell the runtime of {shown} from its name"),
        )
        .advise("name it with --kind: python:3, nodejs:20, sh or native")
    })?;
    if !binary && std::str::from_utf8(&code).is_err() {
        let failure = Failure::new(
            Exit::Usage,
            format!("{shown} is neither text, a zip nor an executable"),
        );
        return Err(failure.advise("source code must be UTF-8 text"));
    }
    let mut spec = ActionSpec::new(name, kind, code);
    spec.binary = binary;
    Ok(spec)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec_of(file: &str, content: &[u8], kind: Option<&str>) -> Result<ActionSpec, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(file);
        std::fs::write(&path, content).unwrap();
        read(&path, "guest/x".parse().unwrap(), kind).map_err(|failure| failure.to_string())
    }

    #[test]
    fn runtime_follows_extension_and_content() {
        let kind = |file: &str, content: &[u8]| {
            let spec = spec_of(file, content, None).unwrap();
            (spec.kind, spec.binary)
        };
        assert_eq!(kind("a.py", b"x"), ("python:3".to_owned(), false));
        assert_eq!(kind("a.js", b"x"), ("nodejs:20".to_owned(), false));
        assert_eq!(kind("a.sh", b"#!/bin/sh\n"), ("sh".to_owned(), false));
        assert_eq!(kind("a", b"\x7fELF\x02\xff"), ("native".to_owned(), true));
        assert_eq!(kind("a.py", b"PK\x03\x04\xff"), ("python:3".to_owned(), true));
    }

    #[test]
    fn what_cannot_run_is_refused_with_advice() {
        assert!(spec_of("a.txt", b"hello", None).unwrap_err().contains("--kind"));
        assert!(
            spec_of("a.zip", b"PK\x03\x04", None)
                .unwrap_err()
                .contains("--kind")
        );
        assert!(spec_of("a.py", b"", None).unwrap_err().contains("empty"));
        assert!(spec_of("a.py", b"\xff\xfe", None).unwrap_err().contains("UTF-8"));
        assert_eq!(spec_of("a.txt", b"x", Some("sh")).unwrap().kind, "sh");
    }

    #[test]
    fn short_names_are_in_the_callers_namespace() {
        let guest: NamespaceName = "guest".parse().unwrap();
        let name = |text: &str| action_name(text, &guest).map(|name| name.to_string()).ok();
        assert_eq!(name("hello").as_deref(), Some("guest/hello"));
        assert_eq!(name("/other/pkg/hello").as_deref(), Some("other/pkg/hello"));
        assert_eq!(name("-bad"), None);
        assert_eq!(
            name_of_file(Path::new("/x/hello.v2.py"), &guest)
                .unwrap()
                .as_str(),
            "guest/hello.v2"
        );
    }
}
