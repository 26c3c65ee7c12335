//! A scheduler whose disk is full refuses what it cannot store, with a typed error, and the cluster goes on.
//!
//! The small disk is a tmpfs, so this needs root; without it the test says so and does not count as having run.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use whiskraft_client::{ActionSpec, Client, Expect};
use whiskraft_cluster_tests::{Process, until};
use whiskraft_types::NamespaceLimits;

const LIMIT: Duration = Duration::from_secs(60);
/// Room for a node, its reserve of 256 MiB and some code.
const DISK_MIB: u32 = 512;

/// A mounted tmpfs; unmounted when dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: &Path, mib: u32) -> Option<Self> {
        fs::create_dir_all(at).ok()?;
        let options = format!("size={mib}m");
        let done = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "tmpfs"])
            .arg(at)
            .status()
            .ok()?;
        done.success().then(|| Self(at.to_owned()))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        Command::new("umount").arg("-l").arg(&self.0).status().ok();
    }
}

/// Bytes that no compression makes smaller (xorshift), other ones for each seed.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    (0..len / 8).flat_map(|_| next()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_code_and_reads_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::mount(&dir.path().join("data"), DISK_MIB) else {
        assert!(
            std::env::var_os("CI").is_none(),
            "CI runs as root and must be able to mount a tmpfs"
        );
        println!("not run: mounting a tmpfs needs root");
        return;
    };
    let args = [
        "scheduler",
        "--id",
        "1",
        "--initial-cluster",
        "1=127.0.0.1:17480",
        "--client-listen",
        "127.0.0.1:17481",
    ];
    let mut args: Vec<String> = args.map(str::to_owned).to_vec();
    args.extend(["--data-dir".to_owned(), disk.0.join("node").display().to_string()]);
    let mut scheduler = Process::start(&args, &dir.path().join("log")).unwrap();
    let (client, _) = until("it serves", LIMIT, async || {
        let client = Client::connect(["127.0.0.1:17481"]).await.ok()?;
        client
            .put_namespace(&"probe".parse().unwrap(), &NamespaceLimits::containers(1))
            .await
            .ok()
            .map(|_| client)
    })
    .await;

    let mut stored = 0;
    let error = loop {
        assert!(stored < 100, "the disk never got full");
        let code = noise(stored, 4 << 20);
        let mut spec = ActionSpec::new(format!("guest/a{stored}").parse().unwrap(), "python:3", code);
        spec.binary = true;
        match client.put_action(&spec, Expect::Anything).await {
            Ok(_) => stored += 1,
            Err(error) => break error,
        }
    };
    let chain = std::iter::successors(Some(&error as &dyn std::error::Error), |error| error.source());
    let text = chain.map(ToString::to_string).collect::<Vec<_>>().join(": ");
    println!("after {stored} actions of 4 MiB: {text}");
    assert!(stored > 0 && text.contains("disk"), "{text}");
    assert!(
        scheduler.is_running(),
        "refusing is not dying: {}",
        scheduler.output()
    );
    assert!(
        client.get_action(&"guest/a0".parse().unwrap()).await.is_ok(),
        "reads go on"
    );
}
