//! The last step before user code: a short-lived command that puts limits on itself and then becomes the program.
//!
//! Limits set between fork and exec would need unsafe code in the proxy; a process may always limit itself.
//! Invariant: what it becomes dies with the proxy, so nothing runs on when both proxy and owner are killed at once.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use rustix::process::{Resource, Rlimit, Signal, getppid, set_parent_process_death_signal, setrlimit};

use crate::options::{OptionsError, number};

/// First argument that asks for this command.
pub(crate) const COMMAND: &str = "launch";
/// Exit code when the program could not be started, as shells have it.
const EXIT_NOT_STARTED: u8 = 126;

#[derive(Debug, Default)]
struct Request {
    parent: Option<u64>,
    data_max: Option<u64>,
    files_max: Option<u64>,
    program: Vec<OsString>,
}

/// Limits this process and becomes the program; returns only if that failed.
pub(crate) fn launch(args: impl Iterator<Item = OsString>) -> ExitCode {
    let failure = match Request::parse(args) {
        Ok(request) => request.become_program(),
        Err(error) => error.to_string(),
    };
    eprintln!("{failure}");
    ExitCode::from(EXIT_NOT_STARTED)
}

impl Request {
    fn parse(mut args: impl Iterator<Item = OsString>) -> Result<Self, OptionsError> {
        let mut request = Self::default();
        while let Some(arg) = args.next() {
            let (option, target) = match arg.to_str() {
                Some("--parent") => ("--parent", &mut request.parent),
                Some("--memory-max") => ("--memory-max", &mut request.data_max),
                Some("--files-max") => ("--files-max", &mut request.files_max),
                Some("--") => {
                    request.program = args.collect();
                    break;
                }
                _ => return Err(OptionsError::Unknown(arg)),
            };
            let value = args.next().ok_or(OptionsError::NoValue(option))?;
            *target = Some(number(option, value)?);
        }
        Ok(request)
    }

    fn become_program(self) -> String {
        let Some((program, args)) = self.program.split_first() else {
            return "no program to start".to_owned();
        };
        if let Err(error) = self.limit() {
            return format!("limits for {} could not be set: {error}", program.display());
        }
        // The parent may have died before the signal was asked for.
        let parent = getppid().map_or(0, |pid| pid.as_raw_nonzero().get().unsigned_abs().into());
        if self.parent.is_some_and(|expected| expected != parent) {
            return "the proxy is gone".to_owned();
        }
        let error = Command::new(program).args(args).exec();
        format!("{} could not be started: {error}", program.display())
    }

    fn limit(&self) -> rustix::io::Result<()> {
        set_parent_process_death_signal(Some(Signal::KILL))?;
        let limit = |resource, most| {
            setrlimit(
                resource,
                Rlimit {
                    current: Some(most),
                    maximum: Some(most),
                },
            )
        };
        limit(Resource::Core, 0)?;
        // Private data and not address space: interpreters reserve far more addresses than they use.
        self.data_max.map_or(Ok(()), |most| limit(Resource::Data, most))?;
        // The number of processes is not limited here: the kernel counts it per user and not per container.
        self.files_max
            .map_or(Ok(()), |most| limit(Resource::Nofile, most))
    }
}
