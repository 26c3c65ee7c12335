//! Shell scripts and executables: a process per activation, answered as the Docker skeleton does.
//!
//! Arguments arrive on standard input and, if short enough, as first argument; the last line of standard output is
//! the result, everything before it is log.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::value::RawValue;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStdout, Command};
use tokio::sync::Mutex;

use super::{ALREADY_INITIALISED, NO_BINARY, NO_DICTIONARY, container_variables};
use crate::answer::Answer;
use crate::code;
use crate::launcher::{LaunchError, find_program};
use crate::options::{Family, Options};
use crate::request::{InitValue, text_of};
use crate::{orphans, sentinel};

/// Longest arguments that are also passed on the command line: the kernel's limit of one argument, less its end.
const ARGUMENT_LEN_MAX: usize = 131_071;
/// Longest last line that can be a result. Above every result limit; a longer line is log.
const RESULT_LEN_MAX: usize = 64 << 20;
/// How long output may still be on its way when the process has ended but something it started holds the pipe.
const LAST_WORDS: Duration = Duration::from_millis(20);

/// The family.
pub(crate) struct Skeleton {
    options: Options,
    state: Mutex<Option<Loaded>>,
}

/// A body of `/run`, the argument's text untouched: the action may care for the order of its keys.
type Fields = BTreeMap<String, Box<RawValue>>;

struct Loaded {
    file: PathBuf,
    directory: PathBuf,
    by_shell: bool,
    env: BTreeMap<String, String>,
}

impl Skeleton {
    /// Waits for code.
    pub(crate) fn new(options: Options) -> Self {
        Self {
            options,
            state: Mutex::new(None),
        }
    }

    /// `POST /init`. A body that is no JSON is an init without code.
    pub(crate) async fn init(&self, body: &[u8]) -> Answer {
        let mut state = self.state.lock().await;
        if state.is_some() {
            sentinel::write_stderr(ALREADY_INITIALISED).await;
            return Answer::error(403, ALREADY_INITIALISED);
        }
        let value = InitValue::parse(body).unwrap_or_default();
        match self.load(&value) {
            Ok(loaded) => {
                *state = Some(loaded);
                Answer::new(200, "OK")
            }
            Err(text) => {
                sentinel::write_stderr(&text).await;
                sentinel::write_both().await;
                Answer::error(502, NO_BINARY)
            }
        }
    }

    fn load(&self, value: &InitValue) -> Result<Loaded, String> {
        let code = value.code().ok_or("there is no code")?;
        let directory = self.options.work_dir.join("code");
        // What a failed init left there must not be found by the next one.
        let _ = std::fs::remove_dir_all(&directory);
        let placed = code::place(&directory, code, value.binary.unwrap_or(false), "exec", "exec");
        let placed = placed.map_err(|error| error.to_string())?;
        let file = placed.file.ok_or("there is no file exec")?;
        let is_program = code::make_executable(&file).map_err(|error| error.to_string())?;
        let by_shell = !is_program;
        if by_shell && self.options.family == Family::Native {
            return Err("exec is neither an ELF executable nor a script that starts with #!".to_owned());
        }
        Ok(Loaded {
            file,
            directory: placed.directory,
            by_shell,
            env: value.environment(),
        })
    }

    /// `POST /run`.
    pub(crate) async fn run(&self, body: &[u8]) -> Answer {
        let state = self.state.lock().await;
        let Some(loaded) = &*state else {
            return Answer::error(502, NO_BINARY);
        };
        let Ok(mut fields) = serde_json::from_slice::<Fields>(body) else {
            return no_argument();
        };
        let value = fields.remove("value");
        let arguments = value.as_deref().map_or("{}", RawValue::get);
        if !arguments.starts_with(['{', '[']) {
            return no_argument();
        }
        let answer = match self.spawn(loaded, arguments, &fields) {
            Ok(child) => exchange(child, arguments).await,
            Err(error) => {
                sentinel::write_stderr(&error.to_string()).await;
                Answer::error(502, NO_DICTIONARY)
            }
        };
        sentinel::write_both().await;
        answer
    }

    fn spawn(&self, loaded: &Loaded, arguments: &str, context: &Fields) -> Result<Child, LaunchError> {
        let mut command = self.command(loaded)?;
        if arguments.len() <= ARGUMENT_LEN_MAX {
            command.arg(arguments);
        }
        command
            .env_clear()
            .env("PATH", &self.options.search_path)
            .envs(container_variables());
        command.envs(&loaded.env).envs(context_variables(context));
        command
            .current_dir(&loaded.directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let started = orphans::spawn(&mut command);
        started.map_err(|source| LaunchError::Start {
            program: loaded.file.display().to_string(),
            source,
        })
    }

    fn command(&self, loaded: &Loaded) -> Result<Command, LaunchError> {
        if !loaded.by_shell {
            return Ok(self.options.stage.command(&loaded.file));
        }
        let shell = find_program("sh", &self.options.search_path)?;
        let mut command = self.options.stage.command(Path::new(&shell));
        command.arg(&loaded.file);
        Ok(command)
    }
}

fn no_argument() -> Answer {
    Answer::error(
        404,
        "The action did not receive a dictionary or array as an argument.",
    )
}

fn context_variables(context: &Fields) -> Vec<(OsString, OsString)> {
    let text = |value: &RawValue| {
        serde_json::from_str(value.get())
            .map(|value| text_of(&value))
            .unwrap_or_default()
    };
    let variables = context
        .iter()
        .map(|(key, value)| (format!("__OW_{}", key.to_uppercase()), text(value)));
    let usable = variables.filter(|(name, value)| !name.contains(['=', '\0']) && !value.contains('\0'));
    usable.map(|(name, value)| (name.into(), value.into())).collect()
}

/// Feeds the process and takes its output apart until it ends.
async fn exchange(mut child: Child, arguments: &str) -> Answer {
    let (pid, input, output) = (child.id(), child.stdin.take(), child.stdout.take());
    let feed = async {
        if let Some(mut input) = input {
            // A program need not read its arguments.
            let _ = input.write_all(arguments.as_bytes()).await;
        }
    };
    let mut lines = Lines::default();
    let ((), ()) = tokio::join!(feed, drain(&mut child, output, &mut lines));
    orphans::forget(pid);
    let last = lines.finish().await;
    let is_result = matches!(last.first(), Some(b'{' | b'['))
        && std::str::from_utf8(&last)
            .is_ok_and(|text| serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok());
    if is_result {
        return Answer::new(200, last);
    }
    if !last.is_empty() {
        sentinel::write_stdout(&[&last[..], b"\n"].concat()).await;
    }
    Answer::error(502, NO_DICTIONARY)
}

/// Reads until the process has ended and its output is read.
async fn drain(child: &mut Child, output: Option<ChildStdout>, lines: &mut Lines) {
    let Some(mut output) = output else { return };
    let mut buffer = vec![0; 32 << 10];
    let mut ended = false;
    loop {
        let read = tokio::select! {
            biased;
            read = output.read(&mut buffer) => read,
            _ = child.wait(), if !ended => {
                ended = true;
                continue;
            }
            () = tokio::time::sleep(LAST_WORDS), if ended => break,
        };
        match read {
            Ok(0) | Err(_) => break,
            Ok(read) => lines.push(&buffer[..read]).await,
        }
    }
    if !ended {
        // Output is closed; the exit code does not count.
        let _ = child.wait().await;
    }
}

/// Holds the last line back, passes everything before it on as log.
#[derive(Default)]
struct Lines {
    last: Vec<u8>,
    ended: bool,
}

impl Lines {
    async fn push(&mut self, bytes: &[u8]) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            if self.ended || self.last.len() + piece.len() > RESULT_LEN_MAX {
                sentinel::write_stdout(&self.last).await;
                self.last.clear();
            }
            self.last.extend_from_slice(piece);
            self.ended = piece.ends_with(b"\n");
        }
    }

    /// The last line, without its end; blank ones after it are log.
    async fn finish(self) -> Vec<u8> {
        self.last.trim_ascii().to_vec()
    }
}
