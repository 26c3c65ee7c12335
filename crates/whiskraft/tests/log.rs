//! `whiskraft log` on the data directory of a scheduler that this test ran.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

/// Tries of a command that waits some seconds for the cluster by itself.
const TRIES: usize = 12;

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_whiskraft"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("WHISKRAFT_") {
            command.env_remove(name);
        }
    }
    command.args(["--config", "/dev/null"]).args(args);
    command
}

fn run(args: &[&str]) -> Output {
    command(args).output().expect("the binary runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A scheduler with simulated containers, killed when dropped.
struct Dev {
    process: Child,
    endpoint: String,
}

impl Dev {
    fn start(data_dir: &Path) -> Self {
        let endpoint = free_endpoint();
        let process = command(&["dev", "--listen", &endpoint, "--set", "backend.kind=simulated"])
            .arg("--data-dir")
            .arg(data_dir)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the binary runs");
        let dev = Self { process, endpoint };
        dev.does(&["status"]);
        dev
    }

    /// Runs a command against it until it succeeds.
    fn does(&self, args: &[&str]) {
        let args = [args, &["-e", &self.endpoint]].concat();
        let mut last = String::new();
        for _ in 0..TRIES {
            let output = run(&args);
            if output.status.success() {
                return;
            }
            last = text(&output.stderr);
        }
        panic!("{args:?}: {last}");
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        // The directory of a scheduler that was killed is what an audit usually gets.
        self.process.kill().expect("it can be killed");
        self.process.wait().expect("it ends");
    }
}

/// An address whose port and the one below it, which the peers get, are free.
fn free_endpoint() -> String {
    loop {
        let upper = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = upper.local_addr().expect("an address").port();
        if TcpListener::bind(("127.0.0.1", port - 1)).is_ok() {
            return format!("127.0.0.1:{port}");
        }
    }
}

#[test]
fn log_of_a_killed_scheduler_is_shown_and_found_in_order() {
    let dir = tempfile::tempdir().expect("a directory");
    let data = dir.path().join("data");
    let data_dir = data.to_str().expect("plain text");
    let source = dir.path().join("hello.py");
    std::fs::write(&source, "def main(args): return args\n").expect("written");

    let dev = Dev::start(&data);
    dev.does(&["namespace", "put", "guest", "--containers", "2"]);
    dev.does(&["action", "put", "hello", source.to_str().expect("plain text")]);
    dev.does(&["invoke", "hello", "-p", "name=Ada"]);
    let busy = run(&["log", data_dir, "--check"]);
    assert_eq!(busy.status.code(), Some(3), "{}", text(&busy.stderr));
    assert!(
        text(&busy.stderr).contains("used by another process"),
        "{}",
        text(&busy.stderr)
    );
    drop(dev);

    let files = files_of(&data);
    let checked = run(&["log", data_dir, "--check"]);
    let said = text(&checked.stdout);
    assert_eq!(checked.status.code(), Some(0), "{said}{}", text(&checked.stderr));
    assert!(said.contains(" entries from revision 0 to "), "{said}");
    assert!(said.contains("1 containers granted, 0 violations"), "{said}");

    let lines = text(&run(&["log", data_dir]).stdout);
    for part in [
        "put-namespace guest containers 2",
        "ensure-queue guest:guest/hello",
        "granted 1 [",
    ] {
        assert!(lines.contains(part), "{part:?} is not in:\n{lines}");
    }
    let one = text(&run(&["log", data_dir, "--from", "1", "--to", "1", "--json"]).stdout);
    let entry: serde_json::Value = serde_json::from_str(&one).expect("one object");
    assert_eq!(entry["revision"], 1);
    let beyond = run(&["log", data_dir, "--from", "123456789"]);
    assert_eq!(beyond.status.code(), Some(2), "{}", text(&beyond.stdout));
    assert!(
        text(&beyond.stderr).contains("--from 123456789 is not in the log: the log has revisions 0 to "),
        "{}",
        text(&beyond.stderr)
    );
    let summary = text(&run(&["log", data_dir, "--summary", "--json"]).stdout);
    let summary: serde_json::Value = serde_json::from_str(&summary).expect("one object");
    assert_eq!(summary["kinds"]["put-namespace"]["entries"], 1);
    assert_eq!(files, files_of(&data), "reading has changed the directory");
}

/// Names and lengths of what a scheduler would read again.
fn files_of(data: &Path) -> Vec<(String, u64)> {
    let mut files = Vec::new();
    for name in ["", "store", "snapshots"] {
        let Ok(entries) = std::fs::read_dir(data.join(name)) else {
            continue;
        };
        for entry in entries {
            let entry = entry.expect("readable");
            let file = format!("{name}/{}", entry.file_name().to_string_lossy());
            let meta = entry.metadata().expect("readable");
            // RocksDB's diary is no part of the data.
            if meta.is_file() && !file.contains("LOG") {
                files.push((file, meta.len()));
            }
        }
    }
    files.sort();
    files
}

#[test]
fn directory_of_something_else_is_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let output = run(&["log", dir.path().to_str().expect("plain text"), "--check"]);
    assert_eq!(output.status.code(), Some(3), "{}", text(&output.stderr));
    assert!(
        text(&output.stderr).contains("not a data directory"),
        "{}",
        text(&output.stderr)
    );
    assert_eq!(
        std::fs::read_dir(dir.path()).expect("readable").count(),
        0,
        "nothing is made"
    );
}
