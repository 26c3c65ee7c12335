//! Starts a real proxy and talks to it the way an invoker does: a socket, `/init`, `/run`, two log streams.

#![allow(dead_code, reason = "each test binary uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a failed step of the harness is a failed test")]

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

/// Longest wait for anything; reaching it fails the test.
const PATIENCE: Duration = Duration::from_secs(20);

/// A running proxy; killed with everything it started when dropped.
pub(crate) struct Proxy {
    child: Child,
    /// Our end of its standard input; closing it ends the proxy.
    pub(crate) lifeline: Option<UnixStream>,
    directory: tempfile::TempDir,
}

/// What came back: status, headers, body. `None` in place of it is a connection cut without an answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: String,
    pub(crate) body: Value,
}

impl Proxy {
    pub(crate) fn start(kind: &str) -> Self {
        Self::start_with(kind, &[], &[])
    }

    pub(crate) fn start_with(kind: &str, args: &[&str], env: &[(&str, &str)]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_read_timeout(Some(PATIENCE)).unwrap();
        let log = |name| File::create(directory.path().join(name)).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_whiskraft-runtime"));
        command.args(["--kind", kind, "--lifeline", "--listen"]);
        command.arg(format!("unix:{}", directory.path().join("s").display()));
        command
            .arg("--work-dir")
            .arg(directory.path().join("w"))
            .args(args);
        command
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("SECRET_OF_THE_HOST", "x");
        command
            .env("__OW_API_HOST", "https://api.example")
            .envs(env.iter().copied());
        command.stdin(Stdio::from(OwnedFd::from(theirs))).process_group(0);
        command.stdout(log("stdout")).stderr(log("stderr"));
        let child = command.spawn().unwrap();
        drop(command);
        let mut proxy = Self {
            child,
            lifeline: Some(ours),
            directory,
        };
        let mut ready = [0; 6];
        let read = proxy.lifeline.as_mut().unwrap().read_exact(&mut ready);
        assert!(
            read.is_ok() && &ready == b"ready\n",
            "{read:?}, stderr: {}",
            proxy.stderr()
        );
        proxy
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn post(&self, path: &str, body: &[u8]) -> Option<Answer> {
        let mut stream = UnixStream::connect(self.directory.path().join("s")).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: c\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(body).unwrap();
        let mut answer = Vec::new();
        let read = stream.read_to_end(&mut answer);
        assert!(
            !matches!(&read, Err(e) if e.kind() == std::io::ErrorKind::WouldBlock),
            "no answer in time"
        );
        parse(&answer)
    }

    pub(crate) fn init(&self, value: Value) -> Answer {
        self.post("/init", json!({ "value": value }).to_string().as_bytes())
            .expect("an answer of /init")
    }

    pub(crate) fn init_code(&self, code: &str) -> Answer {
        self.init(json!({ "name": "n", "main": "main", "binary": false, "code": code }))
    }

    /// Inits with code that has to be good.
    pub(crate) fn loaded(self, code: &str) -> Self {
        let answer = self.init_code(code);
        assert_eq!(answer.status, 200, "{answer:?} {}", self.stderr());
        self
    }

    pub(crate) fn run(&self, value: Value) -> Answer {
        self.run_with(json!({ "value": value }))
    }

    pub(crate) fn run_with(&self, body: Value) -> Answer {
        self.post("/run", body.to_string().as_bytes())
            .expect("an answer of /run")
    }

    pub(crate) fn stdout(&self) -> String {
        fs::read_to_string(self.directory.path().join("stdout")).unwrap()
    }

    pub(crate) fn stderr(&self) -> String {
        fs::read_to_string(self.directory.path().join("stderr")).unwrap()
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.directory.path().to_owned()
    }

    /// Waits for the proxy to end by itself.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let deadline = deadline();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            pause(&deadline, "the proxy to end");
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.lifeline = None;
        let _ = self.wait();
    }
}

fn parse(answer: &[u8]) -> Option<Answer> {
    let text = String::from_utf8(answer.to_vec()).unwrap();
    let (headers, body) = text.split_once("\r\n\r\n")?;
    let headers = headers.to_ascii_lowercase();
    let status = headers.split(' ').nth(1)?.parse().ok()?;
    assert!(
        headers.contains(&format!("content-length: {}", body.len())),
        "{headers}"
    );
    let body = serde_json::from_str(body).unwrap_or_else(|_| Value::from(body));
    Some(Answer {
        status,
        headers,
        body,
    })
}

pub(crate) const SENTINEL: &str = "XXX_THE_END_OF_A_WHISK_ACTIVATION_XXX";

pub(crate) fn sentinels(text: &str) -> usize {
    text.matches(SENTINEL).count()
}

pub(crate) fn error_of(answer: &Answer) -> &str {
    answer.body["error"]
        .as_str()
        .unwrap_or_else(|| panic!("no error text in {answer:?}"))
}

/// A deadline to poll against.
#[expect(
    clippy::disallowed_methods,
    reason = "tests wait for conditions with deadlines"
)]
pub(crate) fn deadline() -> std::time::Instant {
    std::time::Instant::now() + PATIENCE
}

/// One step of waiting for a condition that has no event to wait for.
#[expect(
    clippy::disallowed_methods,
    reason = "tests wait for conditions with deadlines"
)]
pub(crate) fn pause(deadline: &std::time::Instant, what: &str) {
    assert!(
        std::time::Instant::now() < *deadline,
        "waited too long for {what}"
    );
    std::thread::sleep(Duration::from_millis(2));
}

/// Waits until the process is gone or a zombie of somebody else.
pub(crate) fn wait_gone(pid: &str) {
    let deadline = deadline();
    let status = PathBuf::from(format!("/proc/{pid}/stat"));
    while is_alive(&status) {
        pause(&deadline, &format!("process {pid} to end"));
    }
}

fn is_alive(stat: &Path) -> bool {
    let Ok(text) = fs::read_to_string(stat) else {
        return false;
    };
    !text
        .rsplit(") ")
        .next()
        .is_some_and(|rest| rest.starts_with(['Z', 'X']))
}

/// A zip of these files, as base64.
pub(crate) fn zip(files: &[(&str, &str)]) -> String {
    use base64::Engine;
    use zip::write::SimpleFileOptions;

    let mut writer = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, content) in files {
        writer
            .start_file(*name, SimpleFileOptions::default().unix_permissions(0o755))
            .unwrap();
        writer.write_all(content.as_bytes()).unwrap();
    }
    base64::engine::general_purpose::STANDARD.encode(writer.finish().unwrap().into_inner())
}

pub(crate) fn binary(code: &str) -> Value {
    json!({ "name": "n", "main": "main", "binary": true, "code": code })
}

/// Whether this host has node; says so if not.
pub(crate) fn has_node() -> bool {
    let found = ["/usr/local/bin/node", "/usr/bin/node", "/bin/node"]
        .iter()
        .any(|path| Path::new(path).exists());
    if !found {
        eprintln!("skipped: node is not installed in /usr/local/bin, /usr/bin or /bin");
    }
    found
}
