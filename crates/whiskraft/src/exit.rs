//! Exit codes of the binary and the error that carries one to `main`.
//!
//! Every command ends with a [`Failure`] or success; `main` prints the failure with its chain of causes, once.

use std::error::Error;
use std::fmt;
use std::process::ExitCode;

/// What the exit code of the process says. The numbers are part of the interface: `--help` and the README list them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// The operation was carried out and its answer is no: an activation failed, a name does not exist.
    Failed = 1,
    /// Wrong arguments or configuration; nothing was started. clap uses the same number.
    Usage = 2,
    /// The process refused to start: address in use, data directory locked or of another node or cluster.
    Refused = 3,
    /// No scheduler answered, or the cluster has no quorum.
    Unreachable = 4,
    /// What was asked for has been, and is not kept any more: the record of an activation has expired.
    Gone = 5,
    /// Storage or consensus failed for good; a restart recovers from disk.
    Fatal = 70,
    /// A second signal ended the process before it had shut down.
    Forced = 130,
    /// `log --check` found an entry that breaks a promise. Shares its number with [`Exit::Unreachable`], which that
    /// command cannot end with: it talks to nobody.
    Violated,
}

/// Table of the exit codes, shown below `--help`.
pub(crate) const EXIT_CODES_HELP: &str = "\
Exit codes:
  0    done; for `invoke`: the activation ended with success
  1    done, but the answer is no: the activation failed, the name does not exist
  2    wrong arguments or configuration
  3    refused to start: address in use, data directory locked or not this node's
  4    no scheduler answered, or the cluster has no quorum; for `log --check`: a promise was broken
  5    the activation has ended and its record has expired
  70   storage or consensus failed for good (restart recovers from disk)
  130  forced by a second SIGINT or SIGTERM
  >128 the process of a scheduler was killed, by signal 1 for 129 and so on";

impl Exit {
    /// The number given to the operating system.
    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::Violated => Self::Unreachable as u8,
            other => other as u8,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// Why a command did not do what it was asked for.
#[derive(Debug)]
pub(crate) struct Failure {
    exit: Exit,
    message: String,
    advice: Option<String>,
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl Failure {
    /// A failure that ends the process with `exit`; `message` says what was attempted, in lower case.
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self {
            exit,
            message: message.into(),
            advice: None,
            source: None,
        }
    }

    /// Adds the error that caused it.
    #[must_use]
    pub(crate) fn caused_by(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Adds what the user can do about it.
    #[must_use]
    pub(crate) fn advise(mut self, advice: impl Into<String>) -> Self {
        self.advice = Some(advice.into());
        self
    }

    /// The exit code.
    pub(crate) const fn exit(&self) -> Exit {
        self.exit
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        let mut cause = self.source();
        let mut shown = self.message.clone();
        while let Some(error) = cause {
            let text = error.to_string();
            // A source that its parent already quoted would read as a stutter.
            if !shown.contains(&text) {
                write!(f, ": {text}")?;
            }
            shown = text;
            cause = error.source();
        }
        match &self.advice {
            Some(advice) => write!(f, "\n{advice}"),
            None => Ok(()),
        }
    }
}

impl Error for Failure {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source
            .as_deref()
            .map(|source| source as &(dyn Error + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failure_prints_chain_then_advice() {
        let failure = Failure::new(Exit::Refused, "cannot listen on 127.0.0.1:7400")
            .caused_by(std::io::Error::other("address in use"))
            .advise("choose another port with --peer-listen");
        assert_eq!(
            failure.to_string(),
            "cannot listen on 127.0.0.1:7400: address in use\nchoose another port with --peer-listen"
        );
    }

    #[test]
    fn help_lists_every_code() {
        for exit in [
            Exit::Failed,
            Exit::Usage,
            Exit::Refused,
            Exit::Unreachable,
            Exit::Violated,
            Exit::Gone,
            Exit::Fatal,
            Exit::Forced,
        ] {
            let wanted = format!("\n  {} ", exit.code());
            assert!(EXIT_CODES_HELP.contains(&wanted), "{exit:?}");
        }
    }
}
