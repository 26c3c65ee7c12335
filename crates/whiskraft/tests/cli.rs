//! The binary as a user meets it: messages and exit codes of what can go wrong before anything has started.

use std::net::TcpListener;
use std::process::{Command, Output};

fn whiskraft(config: &str, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_whiskraft"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("WHISKRAFT_") {
            command.env_remove(name);
        }
    }
    command
        .args(["--config", config])
        .args(args)
        .output()
        .expect("the binary runs")
}

/// Runs the binary and checks that it ends with `code` and says each of `parts`.
fn refuses(args: &[&str], code: i32, parts: &[&str]) {
    // No file of this machine may decide how a test ends.
    refuses_with("/dev/null", args, code, parts);
}

/// The same with a configuration file.
fn refuses_with(config: &str, args: &[&str], code: i32, parts: &[&str]) {
    let output = whiskraft(config, args);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{args:?}: {text}");
    for part in parts {
        assert!(text.contains(part), "{args:?} does not say {part:?}: {text}");
    }
}

#[test]
fn unknown_flag_and_key_get_the_nearest_name() {
    refuses(&["scheduler", "--data-dri", "x"], 2, &["--data-dir"]);
    refuses(
        &["--set", "raft.hartbeat=1s", "status"],
        2,
        &["raft.hartbeat", "\"raft.heartbeat\"", "docs/config.md"],
    );
    refuses_with("/does/not/exist", &["status"], 2, &["/does/not/exist"]);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "[node]\ndata_dir = 'x'\n").unwrap();
    refuses_with(
        file.path().to_str().unwrap(),
        &["status"],
        2,
        &["node.data_dir", "\"node.data-dir\""],
    );
}

#[test]
fn contradicting_settings_are_refused_before_anything_starts() {
    let args = ["scheduler", "--set", "raft.heartbeat=1s"];
    refuses(&args, 2, &["election-min", "heartbeat"]);
    refuses(&["scheduler"], 2, &["--initial-cluster", "--join"]);
    refuses(
        &["scheduler", "--id", "9", "--initial-cluster", "1=a:7400"],
        2,
        &["scheduler 9", "[1]"],
    );
    refuses(
        &["invoker", "--schedulers", "nowhere"],
        2,
        &["nowhere", "HOST:PORT"],
    );
}

#[test]
fn port_in_use_says_which_and_what_to_do() {
    let held = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = held.local_addr().unwrap().to_string();
    let members = format!("1={address}");
    let data = tempfile::tempdir().unwrap();
    let data_dir = data.path().join("data");
    let args = [
        "scheduler",
        "--id",
        "1",
        "--initial-cluster",
        &members,
        "--data-dir",
        data_dir.to_str().unwrap(),
    ];
    refuses(&args, 3, &[&address, "--peer-listen"]);
    assert!(
        !data_dir.exists(),
        "a refused start leaves no data directory behind"
    );
}

#[test]
fn malformed_input_is_refused_without_a_cluster() {
    refuses(&["invoke", "-bad"], 2, &[]);
    refuses(&["invoke", "a//b"], 2, &["a//b"]);
    refuses(&["invoke", "hello", "-p", "name"], 2, &["KEY=VALUE"]);
    refuses(&["invoke", "hello", "-n", "bad/namespace"], 2, &["namespace"]);
    refuses(&["invoke", "no/such/file.py"], 2, &["no/such/file.py"]);
    refuses(&["invoke", "hello", "--expect", "a=b"], 2, &["--repeat"]);
    refuses(
        &["action", "put", "hello", "/does/not/exist.py"],
        2,
        &["/does/not/exist.py"],
    );
    refuses(&["activation", "get", "xyz"], 2, &["32 lower-case hex digits"]);
    refuses(
        &["namespace", "put", "guest", "--containers", "many"],
        2,
        &["many", "must be a whole number"],
    );
    refuses(
        &["namespace", "put", "guest", "--weight", "0"],
        2,
        &["must be a whole number from 1 to 10000"],
    );
    refuses(
        &["invoke", "hello", "--repeat", "0"],
        2,
        &["must be a whole number, 1 or more"],
    );
    refuses(
        &["invoke", "hello", "--timeout", "0s"],
        2,
        &["--timeout", "longer than 0", "500ms"],
    );
}

#[test]
fn no_cluster_is_told_apart_from_a_failed_command() {
    // A port that was free a moment ago: nobody answers there.
    let address = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .to_string();
    refuses(&["status", "-e", &address], 4, &[&address, "whiskraft dev"]);
}
