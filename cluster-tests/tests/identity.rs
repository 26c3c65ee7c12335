//! A scheduler that lost its memory, or brings somebody else's, is refused with a message that says what to do.

use std::fs;
use std::time::Duration;

use whiskraft_cluster_tests::{Cluster, ClusterOptions, Exit, Process};

const REFUSAL_LIMIT: Duration = Duration::from_secs(20);
/// Exit code of a start that was refused.
const REFUSED: Option<i32> = Some(3);

fn without_invoker() -> ClusterOptions {
    ClusterOptions {
        invokers: 0,
        ..ClusterOptions::default()
    }
}

/// Starts scheduler 2 once more and waits until it gives up.
async fn refused_start(cluster: &mut Cluster) -> Exit {
    cluster.start_scheduler(2);
    let member = cluster.schedulers.get_mut(&2).expect("a cluster of three");
    let exit = member.process().exit(REFUSAL_LIMIT).await;
    let last = exit.output.lines().last().unwrap_or_default().to_owned();
    println!("code {:?}: {last}", exit.code);
    Exit { output: last, ..exit }
}

/// F05: an empty directory under an old id could vote twice in one term.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wiped_data_directory_is_refused() {
    let mut cluster = Cluster::start(without_invoker()).await;
    cluster.kill_scheduler(2);
    fs::remove_dir_all(cluster.schedulers[&2].data_dir()).unwrap();
    let exit = refused_start(&mut cluster).await;
    assert_eq!(exit.code, REFUSED);
    assert!(exit.output.contains("another data directory"), "{}", exit.output);
    cluster.serves().await;
}

/// F05: a directory of another cluster holds votes and entries that mean nothing here.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_of_another_cluster_is_refused() {
    let mut other = Cluster::start(without_invoker()).await;
    other.kill_scheduler(2);
    let mut cluster = Cluster::start(without_invoker()).await;
    cluster.kill_scheduler(2);
    let own = cluster.schedulers[&2].data_dir().to_owned();
    fs::remove_dir_all(&own).unwrap();
    fs::rename(other.schedulers[&2].data_dir(), &own).unwrap();
    let exit = refused_start(&mut cluster).await;
    assert_eq!(exit.code, REFUSED);
    assert!(
        exit.output.contains("belongs to") && exit.output.contains("cluster"),
        "{}",
        exit.output
    );
    cluster.serves().await;
}

/// A directory of another member of the same cluster would vote in that member's name.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_of_another_member_is_refused() {
    let mut cluster = Cluster::start(without_invoker()).await;
    (2..=3).for_each(|id| cluster.kill_scheduler(id));
    let own = cluster.schedulers[&2].data_dir().to_owned();
    fs::remove_dir_all(&own).unwrap();
    fs::rename(cluster.schedulers[&3].data_dir(), &own).unwrap();
    let exit = refused_start(&mut cluster).await;
    assert_eq!(exit.code, REFUSED);
    assert!(
        exit.output.contains('3') && exit.output.contains('2'),
        "{}",
        exit.output
    );
}

/// Two processes on one directory would write one log with two hands.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_process_on_a_data_directory_is_refused() {
    let cluster = Cluster::start(without_invoker()).await;
    let member = &cluster.schedulers[&2];
    let mut args = member.args().to_vec();
    for flag in ["--peer-listen", "--client-listen"] {
        let at = args.iter().position(|arg| arg == flag).unwrap() + 1;
        "127.0.0.1:0".clone_into(&mut args[at]);
    }
    let log = cluster.dir().join("second.log");
    let exit = Process::start(&args, &log).unwrap().exit(REFUSAL_LIMIT).await;
    println!("code {:?}: {}", exit.code, exit.output.trim());
    assert_eq!(exit.code, REFUSED);
    assert!(
        exit.output.contains(&member.data_dir().display().to_string()),
        "{}",
        exit.output
    );
}

/// A port in use is named, with the flag that chooses another.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_in_use_is_refused() {
    let cluster = Cluster::start(without_invoker()).await;
    let mut args = cluster.schedulers[&2].args().to_vec();
    let at = args.iter().position(|arg| arg == "--data-dir").unwrap() + 1;
    args[at] = cluster.dir().join("elsewhere").display().to_string();
    let exit = Process::start(&args, &cluster.dir().join("second.log"))
        .unwrap()
        .exit(REFUSAL_LIMIT)
        .await;
    println!("code {:?}: {}", exit.code, exit.output.trim());
    assert_eq!(exit.code, REFUSED);
    assert!(
        exit.output.contains("--peer-listen") && exit.output.contains("in use"),
        "{}",
        exit.output
    );
}
