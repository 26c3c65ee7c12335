//! node, answered as the Node.js runtime does.
//!
//! The original is one process that serves HTTP itself, so when user code ends that process the connection ends
//! without an answer; the proxy does the same. Invariant: after a failed init or a synchronous throw nothing runs.

use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::Value;

use super::action_loop::write_launcher;
use super::{ALREADY_INITIALISED, NO_CODE, container_variables};
use crate::answer::Answer;
use crate::code;
use crate::launcher::{LaunchError, Launcher, find_program, wait_end};
use crate::link::Reply;
use crate::options::Options;
use crate::request::{self, InitValue};
use crate::sentinel;
use crate::serve::Stop;

/// The program inside the interpreter.
const LAUNCHER: &str = include_str!("../launchers/node.js");

/// The family.
pub(crate) struct Node {
    options: Options,
    state: Mutex<State>,
    launcher: tokio::sync::RwLock<Option<Launcher>>,
    stop: Stop,
    concurrent: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Fresh,
    Initialising,
    Ready { running: u32 },
    Stopped,
}

impl Node {
    /// Starts the interpreter ahead of the code.
    pub(crate) fn start(options: Options, stop: Stop) -> Self {
        // What went wrong is said when somebody asks: at init.
        let launcher = launch(&options).ok();
        let concurrent = std::env::var_os("__OW_ALLOW_CONCURRENT").is_some_and(|value| value == "true");
        let launcher = tokio::sync::RwLock::new(launcher);
        Self {
            options,
            state: Mutex::new(State::Fresh),
            launcher,
            stop,
            concurrent,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `POST /init`.
    pub(crate) async fn init(&self, body: &[u8]) -> Answer {
        if let Err(text) = self.enter_init() {
            sentinel::write_stderr(text).await;
            return Answer::error(403, text);
        }
        let answer = self.load(body).await;
        let is_ready = matches!(&answer, Answer::Reply { status: 200, .. });
        *self.state() = if is_ready {
            State::Ready { running: 0 }
        } else {
            State::Stopped
        };
        if !is_ready {
            sentinel::write_both().await;
        }
        answer
    }

    fn enter_init(&self) -> Result<(), &'static str> {
        let mut state = self.state();
        match *state {
            State::Fresh => {
                *state = State::Initialising;
                Ok(())
            }
            State::Initialising => Err("System not ready, status is starting."),
            State::Ready { .. } => Err(ALREADY_INITIALISED),
            State::Stopped => Err("System not ready, status is stopped."),
        }
    }

    async fn load(&self, body: &[u8]) -> Answer {
        let Ok(value) = InitValue::parse(body) else {
            return Answer::error(500, "Bad request.");
        };
        // Unlike the others, this runtime wants to be told the entry point.
        let main = value
            .main
            .as_ref()
            .and_then(Value::as_str)
            .filter(|main| !main.is_empty());
        let (Some(main), Some(code)) = (main, value.code()) else {
            return Answer::error(403, NO_CODE);
        };
        let binary = value.binary.unwrap_or(false);
        let directory = self.options.work_dir.join("code");
        let placed = match code::place(&directory, code, binary, "action.js", "") {
            Ok(placed) => placed,
            Err(error) => return failed_init(&error.to_string()),
        };
        let mut slot = self.launcher.write().await;
        let alive = slot.take().filter(|launcher| !launcher.has_ended());
        let launcher = match alive.map_or_else(|| launch(&self.options), Ok) {
            Ok(launcher) => launcher,
            Err(error) => return failed_init(&error.to_string()),
        };
        let request = serde_json::json!({
            "env": value.environment(),
            "directory": placed.directory,
            "file": placed.file,
            "main": main,
        });
        match launcher.call("init", request.to_string().as_bytes()).await {
            Ok(Reply { status, body }) => {
                let (ended, stop) = (launcher.ended(), self.stop.clone());
                tokio::spawn(async move {
                    wait_end(ended).await;
                    stop.notify_one();
                });
                *slot = Some(launcher);
                Answer::new(status, body)
            }
            Err(_) => Answer::Cut,
        }
    }

    /// `POST /run`.
    pub(crate) async fn run(&self, body: &[u8]) -> Answer {
        if let Err(text) = self.enter_run() {
            return Answer::error(403, text);
        }
        let answer = self.call(body).await;
        let threw = matches!(&answer, Answer::Reply { status: 502, body, .. }
            if body.starts_with(br#"{"error":"An error has occurred: "#));
        self.leave_run(threw);
        sentinel::write_both().await;
        answer
    }

    async fn call(&self, body: &[u8]) -> Answer {
        let Ok(line) = request::run_line(body) else {
            return Answer::error(500, "Bad request.");
        };
        if let Some(text) = refused_argument(body) {
            return Answer::error(403, &text);
        }
        let slot = self.launcher.read().await;
        let Some(launcher) = &*slot else {
            return Answer::Cut;
        };
        match launcher.call("run", &line).await {
            Ok(Reply { status, body }) => Answer::new(status, body),
            Err(_) => Answer::Cut,
        }
    }

    fn enter_run(&self) -> Result<(), &'static str> {
        let mut state = self.state();
        match &mut *state {
            State::Ready { running } if *running == 0 || self.concurrent => {
                *running += 1;
                Ok(())
            }
            State::Ready { .. } => Err("System not ready, status is running."),
            State::Fresh | State::Initialising => Err("System not initialized."),
            State::Stopped => Err("System not ready, status is stopped."),
        }
    }

    fn leave_run(&self, threw: bool) {
        let mut state = self.state();
        match &mut *state {
            State::Ready { .. } if threw => *state = State::Stopped,
            State::Ready { running } => *running = running.saturating_sub(1),
            State::Fresh | State::Initialising | State::Stopped => {}
        }
    }
}

fn failed_init(text: &str) -> Answer {
    Answer::error(502, &format!("Initialization has failed due to: {text}"))
}

/// The refusal of arguments that are no dictionary (nor array).
fn refused_argument(body: &[u8]) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Run<'a> {
        #[serde(borrow, default)]
        value: Option<&'a serde_json::value::RawValue>,
    }
    let run: Run<'_> = serde_json::from_slice(body).ok()?;
    let kind = match run.value?.get().as_bytes().first()? {
        b'{' | b'[' | b'n' => return None,
        b'"' => "string",
        b't' | b'f' => "boolean",
        _ => "number",
    };
    Some(format!(
        "Internal system error: the argument must be a dictionary but has type '{kind}'."
    ))
}

fn launch(options: &Options) -> Result<Launcher, LaunchError> {
    let node = find_program("node", &options.search_path)?;
    let path = write_launcher(options, "launcher.js", LAUNCHER)?;
    let mut env = container_variables();
    env.insert("PATH".into(), options.search_path.clone());
    Launcher::start(
        &node,
        &[path.as_os_str()],
        &env,
        &options.work_dir,
        &options.stage,
    )
}
