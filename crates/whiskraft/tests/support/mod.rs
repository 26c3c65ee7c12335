//! The binary as a user meets it, against scripted schedulers.

#![allow(clippy::unwrap_used, unreachable_pub, reason = "a panic is how a test fails")]

use std::process::{Command, Output};

use crate::fake::Fake;

/// The binary with arguments, asked to talk to these schedulers and to nobody else, if there are any.
pub fn command(fakes: &[Fake], args: &[&str]) -> Command {
    let endpoints: Vec<_> = fakes.iter().map(|fake| fake.address.as_str()).collect();
    let mut command = Command::new(env!("CARGO_BIN_EXE_whiskraft"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("WHISKRAFT_") {
            command.env_remove(name);
        }
    }
    command.args(["--config", "/dev/null"]).args(args);
    if !endpoints.is_empty() {
        command.args(["-e", &endpoints.join(",")]);
    }
    command
}

async fn output(fakes: &[Fake], args: &[&str]) -> Output {
    let mut command = command(fakes, args);
    tokio::task::spawn_blocking(move || command.output().unwrap())
        .await
        .unwrap()
}

/// Runs the binary, checks its exit code, and returns both outputs with single spaces.
pub async fn run(fakes: &[Fake], args: &[&str], code: i32) -> (String, String) {
    let output = output(fakes, args).await;
    let text = |bytes: &[u8]| {
        let lines = String::from_utf8_lossy(bytes).into_owned();
        let lines: Vec<_> = lines
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect();
        lines.join("\n")
    };
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{args:?}: {out}\n{err}");
    (out, err)
}

/// Checks that a text has each of these parts.
pub fn says(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "no {part:?} in {text}");
    }
}
