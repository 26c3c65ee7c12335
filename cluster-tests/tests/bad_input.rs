//! Bad input gets a message that names the value and the way out, and changes nothing.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use whiskraft_cluster_tests::{Cluster, ClusterOptions, binary};

fn run(cluster: &Cluster, args: &[&str]) -> Output {
    let mut command = Command::new(binary());
    command
        .args(args)
        .env("WHISKRAFT_ENDPOINTS", cluster.endpoints().join(","));
    command.output().expect("the binary runs")
}

/// Runs the binary, which must fail with `code` and an error that holds every one of `words`.
fn refused(cluster: &Cluster, args: &[&str], code: i32, words: &[&str]) {
    let output = run(cluster, args);
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    println!(
        "whiskraft {}\n  -> {:?} {}",
        args.join(" "),
        output.status.code(),
        message.trim()
    );
    assert_eq!(output.status.code(), Some(code), "{args:?}: {message}");
    let missing: Vec<_> = words.iter().filter(|word| !message.contains(**word)).collect();
    assert!(missing.is_empty(), "{args:?} does not say {missing:?}: {message}");
}

fn write(dir: &Path, name: &str, text: &str) -> String {
    let path = dir.join(name);
    fs::write(&path, text).expect("the file is written");
    path.display().to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_input_is_refused_with_the_way_out() {
    let cluster = Cluster::start(ClusterOptions::default()).await;
    let client = cluster.client().await;
    cluster.put_recorder(&client).await;
    let dir = cluster.dir().to_owned();
    let code = write(&dir, "ok.py", "def main(args):\n    return args\n");
    let huge = write(
        &dir,
        "huge.json",
        &format!("{{\"text\": \"{}\"}}", "x".repeat(10 << 20)),
    );
    let typo = write(&dir, "typo.toml", "[raft]\nheartbeet = \"100ms\"\n");

    refused(
        &cluster,
        &["action", "put", "bad//name", &code],
        2,
        &["bad//name"],
    );
    refused(
        &cluster,
        &["action", "put", "guest/ä", &code],
        2,
        &["ä", "letters"],
    );
    refused(
        &cluster,
        &["invoke", "record", "--param-file", &huge],
        2,
        &["1048576", "larger than allowed"],
    );
    refused(&cluster, &["invoke", "nothing"], 1, &["guest/nothing"]);
    refused(
        &cluster,
        &["invoke", "record", "--paramz", "x=1"],
        2,
        &["--paramz", "--param"],
    );
    refused(
        &cluster,
        &["--config", &typo, "status"],
        2,
        &["heartbeet", "raft.heartbeat"],
    );
    refused(
        &cluster,
        &["--set", "raft.heartbeat=soon", "status"],
        2,
        &["raft.heartbeat", "soon"],
    );

    let status = client.status().await.unwrap();
    assert_eq!(
        status.queues_total, 0,
        "refused input leaves nothing behind: {:?}",
        status.queues
    );
}
