//! What `whiskraft scheduler` is at first: a small process that starts the scheduler as its child, passes signals on, and tells
//! the other members when the child has ended (docs/design/0012). It does not start it again.
//!
//! Both ends of the socket between the two are here: [`Supervisor`] is the child's. A datagram is a whole message: from the
//! child an [`Obituary`] as JSON, from the parent the name of a signal.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram as StdDatagram;
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, WaitOptions, WaitStatus, wait};
use tokio::net::UnixDatagram;
use tokio::signal::unix::{SignalKind, signal};
use whiskraft_raft::{EndAnswer, Node, Obituary, report_end};
use whiskraft_types::SchedulerId;

use super::scheduler::SUPERVISED;
use crate::exit::{Exit, Failure};
use crate::signals::Signals;

/// Longest message: an obituary with some thousand members.
const MESSAGE_LEN_MAX: usize = 64 << 10;
/// Longest wait for room for a signal: a process that stands still reads nothing, and its end must not be missed meanwhile.
const PASS_ON_MAX: Duration = Duration::from_millis(100);
/// Longest wait for the log: whoever reads it may have stopped.
const LOG_MAX: Duration = Duration::from_millis(200);
/// Pause between two looks of the child whether there are other members now.
const LOOK: Duration = Duration::from_secs(1);

/// Starts the scheduler with the arguments of this process, and ends as it does. To be called from the main thread: the child
/// ends with the thread that started it.
///
/// # Errors
/// If the system refuses a socket, a signal handler or the child.
pub(crate) async fn run() -> Result<ExitCode, Failure> {
    let refused = |error: io::Error| {
        Failure::new(Exit::Refused, "cannot start the scheduler's process").caused_by(error)
    };
    // Before there is a child: no end of it is missed, and no signal.
    let mut signals = Signals::install()?;
    let mut ends = signal(SignalKind::child()).map_err(refused)?;
    let (socket, far) = StdDatagram::pair().map_err(refused)?;
    let socket = from_std(socket).map_err(refused)?;
    let child = start(far).map_err(refused)?;
    let mut obituary = None;
    let mut message = vec![0; MESSAGE_LEN_MAX];
    let status = loop {
        tokio::select! {
            biased;
            _ = ends.recv() => if let Some(status) = reap(child) { break status },
            name = signals.next() => pass_on(&socket, name).await,
            read = socket.recv(&mut message) => note(&mut obituary, read, &message),
        }
    };
    // What it had said last, whether the runtime has heard of it or not.
    let socket = socket.into_std().map_err(refused)?;
    while let Ok(len) = socket.recv(&mut message) {
        note(&mut obituary, Ok(len), &message);
    }
    let code = exit_code(status);
    // One that ends well has closed its session; one that has told nothing has had none.
    if let Some(obituary) = obituary.filter(|_| code != 0) {
        // Whatever is signalled meanwhile: systemd stops a service of which the system has killed a process.
        let answers = report_end(&obituary).await;
        // Then, as nobody may read the log, and not for ever.
        let log = tokio::task::spawn_blocking(move || log_answers(&obituary, code, &answers));
        let _ = tokio::time::timeout(LOG_MAX, log).await;
    }
    Ok(ExitCode::from(code))
}

/// The same program once more, with its end of the socket as its standard input, which it does not read otherwise. It is reaped
/// by number, with whatever else this process inherits.
fn start(far: StdDatagram) -> io::Result<Pid> {
    let child = Command::new(std::env::current_exe()?)
        // Before the others: those may end with `--`.
        .args([SUPERVISED, &std::process::id().to_string()])
        .args(std::env::args_os().skip(1))
        .stdin(Stdio::from(std::os::fd::OwnedFd::from(far)))
        .spawn()?;
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    pid.ok_or_else(|| io::Error::other("the system gave a number that is no process's"))
}

/// Takes leave of all children that have ended: as the first process of a container this one inherits those of others.
fn reap(child: Pid) -> Option<WaitStatus> {
    let mut found = None;
    while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
        if pid == child {
            found = Some(status);
        }
    }
    found
}

/// Exit code of this process for that of the child, as a shell has it.
fn exit_code(status: WaitStatus) -> u8 {
    let killed = status.terminating_signal().map(|signal| 128 + signal);
    let code = status.exit_status().or(killed);
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX)
}

/// Passed on as a word: whoever signals all processes of a service would otherwise signal the child twice, and a second signal
/// means that it shall not wait.
async fn pass_on(socket: &UnixDatagram, name: &str) {
    match tokio::time::timeout(PASS_ON_MAX, socket.send(name.as_bytes())).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => tracing::warn!(signal = name, %error, "signal not passed on"),
        Err(_) => tracing::warn!(
            signal = name,
            "signal not passed on: the scheduler's process does not read"
        ),
    }
}

fn note(obituary: &mut Option<Obituary>, read: io::Result<usize>, message: &[u8]) {
    let parsed = read.and_then(|len| Ok(serde_json::from_slice(&message[..len])?));
    match parsed {
        Ok(newer) => *obituary = Some(newer),
        Err(error) => tracing::warn!(%error, "word of the scheduler's process not understood"),
    }
}

fn log_answers(obituary: &Obituary, code: u8, answers: &BTreeMap<SchedulerId, EndAnswer>) {
    tracing::warn!(scheduler = %obituary.scheduler, code, "the scheduler's process has ended");
    for (to, answer) in answers {
        match answer {
            EndAnswer::Unavailable(reason) => tracing::warn!(%to, reason, "the end could not be told"),
            answer => tracing::info!(%to, ?answer, "the end was told"),
        }
    }
}

fn from_std(socket: StdDatagram) -> io::Result<UnixDatagram> {
    socket.set_nonblocking(true)?;
    UnixDatagram::from_std(socket)
}

/// The supervisor, as the scheduler that it started has it.
#[derive(Debug, Clone)]
pub(crate) struct Supervisor {
    socket: Arc<UnixDatagram>,
}

impl Supervisor {
    /// Takes the socket from the standard input.
    ///
    /// # Errors
    /// If it is none: nobody supervises this process.
    pub(crate) fn open() -> Result<Self, Failure> {
        let stdin = io::stdin().as_fd().try_clone_to_owned();
        let socket = stdin.and_then(|socket| from_std(StdDatagram::from(socket)));
        let socket = socket.map_err(|error| {
            Failure::new(
                Exit::Usage,
                format!("{SUPERVISED} is for the supervisor of a scheduler only"),
            )
            .caused_by(error)
        })?;
        Ok(Self {
            socket: Arc::new(socket),
        })
    }

    /// The next signal that it passes on.
    pub(crate) async fn signal(&self) -> &'static str {
        let mut name = [0; 16];
        loop {
            match self.socket.recv(&mut name).await {
                Ok(len) if name[..len] == *b"SIGINT" => return "SIGINT",
                Ok(len) if name[..len] == *b"SIGTERM" => return "SIGTERM",
                Ok(len) if name[..len] == *b"SIGHUP" => return "SIGHUP",
                Ok(_) => tracing::warn!("word of the supervisor not understood"),
                // It is gone, and this process with it.
                Err(_) => std::future::pending().await,
            }
        }
    }

    /// Has it know what is to be told of this process, and to whom, for as long as it is polled.
    pub(crate) async fn keep_informed(&self, node: &Node, incarnation: [u8; 16]) {
        let mut told = None;
        loop {
            let obituary = node.obituary(incarnation);
            if told.as_ref() != Some(&obituary) {
                let text = serde_json::to_vec(&obituary).map_err(io::Error::from);
                let sent = async { self.socket.send(&text?).await };
                match sent.await {
                    Ok(_) => told = Some(obituary),
                    Err(error) => {
                        tracing::warn!(%error, "the supervisor does not know what to tell if this process dies")
                    }
                }
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use whiskraft_types::SchedulerId;

    use super::*;

    fn pair() -> (UnixDatagram, Supervisor) {
        let (near, far) = StdDatagram::pair().unwrap();
        let socket = Arc::new(from_std(far).unwrap());
        (from_std(near).unwrap(), Supervisor { socket })
    }

    #[tokio::test]
    async fn an_obituary_survives_the_way_and_the_last_one_counts() {
        let (near, supervisor) = pair();
        let mut known = None;
        for members in 1..3 {
            let address = |id| (SchedulerId(id), format!("h{id}:7400"));
            let obituary = Obituary {
                cluster_id: "c".to_owned(),
                scheduler: SchedulerId(9),
                incarnation: [members; 16],
                others: BTreeMap::from_iter((1..=u64::from(members)).map(address)),
            };
            let text = serde_json::to_vec(&obituary).unwrap();
            supervisor.socket.send(&text).await.unwrap();
            let mut message = [0; 1024];
            let read = near.recv(&mut message).await;
            note(&mut known, read, &message);
            assert_eq!(known, Some(obituary));
        }
        note(&mut known, Ok(3), b"???");
        assert!(known.is_some(), "what is not understood changes nothing");
    }

    #[tokio::test]
    async fn a_signal_is_passed_on_by_name() {
        let (near, supervisor) = pair();
        for name in ["SIGTERM", "SIGINT", "SIGHUP"] {
            pass_on(&near, name).await;
            assert_eq!(supervisor.signal().await, name);
        }
    }
}
