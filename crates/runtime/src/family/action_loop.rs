//! python3, answered as the ActionLoop proxy does.
//!
//! Invariant: at most one request reaches the interpreter at a time; the state's lock is held for its length.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::Mutex;

use super::{ALREADY_INITIALISED, NO_BINARY, NO_CODE, NO_DICTIONARY, container_variables};
use crate::answer::Answer;
use crate::code::{self, Placed};
use crate::launcher::{ChildEnd, LaunchError, Launcher, find_program, wait_end};
use crate::link::Reply;
use crate::options::Options;
use crate::request::{self, InitValue};
use crate::sentinel;
use crate::serve::Stop;

/// The program inside the interpreter.
const LAUNCHER: &str = include_str!("../launchers/python.py");
/// Said when the process ends while it loads the code.
const NO_START: &str = "Cannot start action. Check logs for details.";

/// The family.
pub(crate) struct ActionLoop {
    options: Options,
    state: Arc<Mutex<State>>,
    stop: Stop,
}

struct State {
    launcher: Option<Launcher>,
    loaded: bool,
    inits: u32,
}

impl ActionLoop {
    /// Starts the interpreter ahead of the code.
    pub(crate) fn start(options: Options, stop: Stop) -> Self {
        // What went wrong is said when somebody asks: at init.
        let launcher = launch(&options).ok();
        let state = State {
            launcher,
            loaded: false,
            inits: 0,
        };
        Self {
            options,
            state: Arc::new(Mutex::new(state)),
            stop,
        }
    }

    /// `POST /init`.
    pub(crate) async fn init(&self, body: &[u8]) -> Answer {
        let mut state = self.state.lock().await;
        if state.loaded {
            sentinel::write_stderr(ALREADY_INITIALISED).await;
            return Answer::error(403, ALREADY_INITIALISED);
        }
        let value = match InitValue::parse(body) {
            Ok(value) => value,
            Err(error) => return Answer::error(400, &format!("Error unmarshaling request: {error}")),
        };
        let (Some(main), Some(code)) = (value.entry_point(), value.code()) else {
            return Answer::error(403, NO_CODE);
        };
        state.inits += 1;
        let directory = self.options.work_dir.join(format!("code-{}", state.inits));
        let binary = value.binary.unwrap_or(false);
        let answer = match code::place(&directory, code, binary, "main__.py", "__main__.py") {
            Ok(placed) => self.load(&mut state, &value, main, placed).await,
            Err(error) => {
                sentinel::write_stderr(&error.to_string()).await;
                Answer::error(502, NO_BINARY)
            }
        };
        if !state.loaded {
            sentinel::write_both().await;
        }
        answer
    }

    async fn load(&self, state: &mut State, value: &InitValue, main: &str, placed: Placed) -> Answer {
        let alive = state.launcher.take().filter(|launcher| !launcher.has_ended());
        let launcher = match alive.map_or_else(|| launch(&self.options), Ok) {
            Ok(launcher) => launcher,
            Err(error) => return Answer::error(502, &format!("cannot start action: {error}")),
        };
        let request = serde_json::json!({
            "env": value.environment(),
            "directory": placed.directory,
            "file": placed.file,
            "main": main,
        });
        match launcher.call("init", request.to_string().as_bytes()).await {
            Ok(Reply { status: 200, body }) => {
                state.loaded = true;
                if self.options.stop_with_child {
                    tokio::spawn(stop_when_idle(
                        launcher.ended(),
                        Arc::clone(&self.state),
                        Arc::clone(&self.stop),
                    ));
                }
                state.launcher = Some(launcher);
                Answer::new(200, body)
            }
            Ok(Reply { status, body }) => Answer::new(status, body),
            Err(ChildEnd::OutOfMemory) => Answer::error(502, NO_START).out_of_memory(),
            Err(ChildEnd::Exited) => Answer::error(502, NO_START),
        }
    }

    /// `POST /run`.
    pub(crate) async fn run(&self, body: &[u8]) -> Answer {
        let mut state = self.state.lock().await;
        let State {
            launcher: Some(launcher),
            loaded: true,
            ..
        } = &*state
        else {
            return Answer::error(500, "no action defined yet");
        };
        let line = match request::run_line(body) {
            Ok(line) => line,
            Err(error) => return Answer::error(400, &format!("Error unmarshaling request: {error}")),
        };
        let answer = match launcher.call("run", &line).await {
            Ok(reply) => judge(reply),
            Err(end) => {
                state.launcher = None;
                let answer = Answer::error(400, "command exited");
                if end == ChildEnd::OutOfMemory {
                    answer.out_of_memory()
                } else {
                    answer
                }
            }
        };
        sentinel::write_both().await;
        answer
    }
}

/// A result must be an object or an array; no result at all passes for an empty one.
fn judge(reply: Reply) -> Answer {
    let is_result = matches!(reply.body.first(), Some(b'{' | b'[')) || reply.body == b"null";
    if is_result {
        Answer::new(reply.status, reply.body)
    } else {
        Answer::error(502, NO_DICTIONARY)
    }
}

/// Stops the proxy if the interpreter ends between activations. During one, the answer says it.
async fn stop_when_idle(
    ended: tokio::sync::watch::Receiver<Option<ChildEnd>>,
    state: Arc<Mutex<State>>,
    stop: Stop,
) {
    wait_end(ended).await;
    if state.try_lock().is_ok_and(|state| state.launcher.is_some()) {
        stop.notify_one();
    }
}

fn launch(options: &Options) -> Result<Launcher, LaunchError> {
    let python = find_program("python3", &options.search_path)?;
    let path = write_launcher(options, "launcher.py", LAUNCHER)?;
    let args = [OsStr::new("-X"), OsStr::new("utf8"), path.as_os_str()];
    Launcher::start(
        &python,
        &args,
        &container_variables(),
        &options.work_dir,
        &options.stage,
    )
}

/// Puts a launcher's source where its interpreter can read it.
pub(super) fn write_launcher(options: &Options, name: &str, source: &str) -> Result<PathBuf, LaunchError> {
    let path = options.work_dir.join(name);
    let written = std::fs::write(&path, source);
    written.map_err(|source| LaunchError::Start {
        program: path.display().to_string(),
        source,
    })?;
    Ok(path)
}
