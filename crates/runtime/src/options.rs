//! What the proxy is started with, and the reading of its command line.

use std::ffi::{OsStr, OsString};
use std::net::SocketAddr;
use std::path::PathBuf;

/// Where the proxy listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    /// `tcp:<address>:<port>`.
    Tcp(SocketAddr),
    /// `unix:<path>`, made by the proxy.
    Unix(PathBuf),
}

/// How an action is run and answered: the three families of OpenWhisk runtimes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// A python3 process that runs one activation after the other, answers as the ActionLoop proxy.
    Python,
    /// A node process, answers as the Node.js runtime.
    Node,
    /// A process per activation, run by `sh` unless it says otherwise; answers as the Docker skeleton.
    Shell,
    /// A process per activation from an executable file; answers as the Docker skeleton.
    Native,
}

/// Puts limits on a process before it becomes user code: the command that does it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Stage {
    /// Program and first arguments that end in the proxy's `launch` command; empty: start user code as it is.
    pub command: Vec<OsString>,
    /// Most bytes of private data of one process; `None`: no limit.
    pub data_max: Option<u64>,
    /// Most open files of one process; `None`: no limit.
    pub files_max: Option<u64>,
}

/// Everything the proxy needs to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Where to listen.
    pub listen: Listen,
    /// What to run.
    pub family: Family,
    /// Directory for code; made if it is not there.
    pub work_dir: PathBuf,
    /// Standard input is a stream of the owner: a line is written to it when the proxy listens, and its end means
    /// that the owner is gone, upon which the whole process group is killed.
    pub lifeline: bool,
    /// Stop when the user's process ends, even between activations.
    pub stop_with_child: bool,
    /// Where interpreters are looked for, as `PATH`.
    pub search_path: OsString,
    /// How user code is started.
    pub stage: Stage,
}

/// Why a command line was not understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OptionsError {
    /// Not one of ours.
    #[error(
        "unknown option {0:?}; the options are --listen, --kind, --work-dir, --memory-max, --files-max, \
         --lifeline and --stop-with-child"
    )]
    Unknown(OsString),
    /// An option that wants a value is the last word.
    #[error("option {0} needs a value")]
    NoValue(&'static str),
    /// A value that cannot be.
    #[error("option {option}: {value:?} is not {wanted}")]
    BadValue {
        /// Which option.
        option: &'static str,
        /// What was given.
        value: OsString,
        /// What it should be.
        wanted: &'static str,
    },
}

impl Family {
    /// The family of a kind as in action documents ("python:3", "nodejs:20", "sh", "native"), if it is one of ours.
    #[must_use]
    pub fn of_kind(kind: &str) -> Option<Self> {
        let (name, version) = kind.split_once(':').unwrap_or((kind, ""));
        match name {
            "python" if !version.starts_with('2') => Some(Self::Python),
            "python3" => Some(Self::Python),
            "nodejs" | "node" => Some(Self::Node),
            "sh" | "shell" => Some(Self::Shell),
            "native" => Some(Self::Native),
            _ => None,
        }
    }
}

impl Options {
    /// Reads a command line; what is not given gets its default: `tcp:0.0.0.0:8080`, kind `native`, `/action`.
    ///
    /// # Errors
    /// Unknown options, missing or impossible values.
    pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Self, OptionsError> {
        let mut options = Self {
            listen: Listen::Tcp(SocketAddr::from(([0, 0, 0, 0], 8080))),
            family: Family::Native,
            work_dir: PathBuf::from("/action"),
            lifeline: false,
            stop_with_child: false,
            search_path: std::env::var_os("PATH").unwrap_or_else(|| OsString::from("/usr/bin:/bin")),
            stage: Stage::default(),
        };
        let mut args = args.into_iter();
        while let Some(arg) = args.next() {
            match arg.to_str() {
                Some("--listen") => options.listen = listen(value("--listen", &mut args)?)?,
                Some("--kind") => options.family = family(value("--kind", &mut args)?)?,
                Some("--work-dir") => options.work_dir = value("--work-dir", &mut args)?.into(),
                Some("--memory-max") => {
                    options.stage.data_max = Some(number("--memory-max", value("--memory-max", &mut args)?)?);
                }
                Some("--files-max") => {
                    options.stage.files_max = Some(number("--files-max", value("--files-max", &mut args)?)?);
                }
                Some("--lifeline") => options.lifeline = true,
                Some("--stop-with-child") => options.stop_with_child = true,
                _ => return Err(OptionsError::Unknown(arg)),
            }
        }
        Ok(options)
    }
}

fn value(option: &'static str, args: &mut impl Iterator<Item = OsString>) -> Result<OsString, OptionsError> {
    args.next().ok_or(OptionsError::NoValue(option))
}

/// A count, for this command line and that of the stage.
pub(crate) fn number(option: &'static str, value: OsString) -> Result<u64, OptionsError> {
    let parsed = value.to_str().and_then(|text| text.parse().ok());
    parsed.ok_or(OptionsError::BadValue {
        option,
        value,
        wanted: "a number",
    })
}

fn family(value: OsString) -> Result<Family, OptionsError> {
    let wanted = "a kind: python:3, nodejs:20, sh or native";
    let found = value.to_str().and_then(Family::of_kind);
    found.ok_or(OptionsError::BadValue {
        option: "--kind",
        value,
        wanted,
    })
}

fn listen(value: OsString) -> Result<Listen, OptionsError> {
    use std::os::unix::ffi::OsStrExt;

    let bytes = value.as_bytes();
    let found = if let Some(path) = bytes.strip_prefix(b"unix:") {
        (!path.is_empty()).then(|| Listen::Unix(PathBuf::from(OsStr::from_bytes(path))))
    } else {
        let text = value
            .to_str()
            .map(|text| text.strip_prefix("tcp:").unwrap_or(text));
        text.and_then(|text| text.parse().ok()).map(Listen::Tcp)
    };
    let wanted = "unix:<path> or tcp:<address>:<port>";
    found.ok_or(OptionsError::BadValue {
        option: "--listen",
        value,
        wanted,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Options, OptionsError> {
        Options::parse(line.split_whitespace().map(OsString::from))
    }

    #[test]
    fn reads_a_command_line() {
        let options =
            parse("--listen unix:/run/p.sock --kind nodejs:20 --work-dir /w --memory-max 9 --lifeline")
                .unwrap();
        assert_eq!(options.listen, Listen::Unix("/run/p.sock".into()));
        assert_eq!(options.family, Family::Node);
        assert_eq!((options.work_dir, options.stage.data_max), ("/w".into(), Some(9)));
        assert!(options.lifeline && !options.stop_with_child);
    }

    #[test]
    fn says_what_is_wrong_with_one() {
        for (line, part) in [
            ("--lisen x", "--lisen"),
            ("--listen", "needs a value"),
            ("--listen unix:", "unix:<path>"),
            ("--kind java", "python:3"),
            ("--kind python:2", "python:3"),
            ("--memory-max lots", "a number"),
        ] {
            let error = parse(line).unwrap_err().to_string();
            assert!(error.contains(part), "{line}: {error}");
        }
    }
}
