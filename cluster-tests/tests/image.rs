//! The image: three schedulers and an invoker in containers without a shell, as a user without rights, form a cluster,
//! run an action and go on when one of them is killed.
//!
//! Needs a Docker Engine that answers; without one the test says so and does not count as having run.

use std::collections::HashMap;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use bollard::Docker;
use bollard::exec::StartExecResults;
use bollard::models::{
    ContainerCreateBody, EndpointSettings, ExecConfig, HostConfig, NetworkCreateRequest, NetworkingConfig,
};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, InspectContainerOptions, KillContainerOptions,
    RemoveContainerOptionsBuilder, StartContainerOptions,
};
use futures::StreamExt as _;
use tokio::task::{LocalSet, spawn_local};
use whiskraft_cluster_tests::{binary, until};

const LIMIT: Duration = Duration::from_secs(90);
const MEMBERS: &str = "1=scheduler-1:7400,2=scheduler-2:7400,3=scheduler-3:7400";
const ENDPOINTS: &str = "scheduler-1:7401,scheduler-2:7401,scheduler-3:7401";

/// Containers and network of one run, by names that no other run has.
struct Stand {
    docker: Docker,
    run: String,
    image: String,
}

impl Stand {
    fn name(&self, member: &str) -> String {
        format!("{}-{member}", self.run)
    }

    async fn start(&self, member: &str, args: &[&str]) {
        let examples = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../examples")
            .canonicalize()
            .expect("the examples are there");
        let endpoint = EndpointSettings {
            aliases: Some(vec![member.to_owned()]),
            ..Default::default()
        };
        let body = ContainerCreateBody {
            image: Some(self.image.clone()),
            cmd: Some(args.iter().map(|arg| (*arg).to_owned()).collect()),
            host_config: Some(HostConfig {
                binds: Some(vec![format!("{}:/examples:ro", examples.display())]),
                network_mode: Some(self.run.clone()),
                ..Default::default()
            }),
            networking_config: Some(NetworkingConfig {
                endpoints_config: Some(HashMap::from([(self.run.clone(), endpoint)])),
            }),
            ..Default::default()
        };
        let options = CreateContainerOptionsBuilder::default()
            .name(&self.name(member))
            .build();
        self.docker
            .create_container(Some(options), body)
            .await
            .expect("the container is created");
        self.docker
            .start_container(&self.name(member), None::<StartContainerOptions>)
            .await
            .expect("it starts");
    }

    /// Runs the binary in a container; its output if it succeeded.
    async fn whiskraft(&self, member: &str, args: &[&str]) -> Option<String> {
        let command = ["/usr/bin/whiskraft"]
            .iter()
            .chain(args)
            .map(|arg| (*arg).to_owned())
            .collect();
        let config = ExecConfig {
            cmd: Some(command),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            ..Default::default()
        };
        let exec = self.docker.create_exec(&self.name(member), config).await.ok()?.id;
        let StartExecResults::Attached { mut output, .. } = self.docker.start_exec(&exec, None).await.ok()?
        else {
            return None;
        };
        let mut text = String::new();
        while let Some(Ok(part)) = output.next().await {
            text.push_str(&part.to_string());
        }
        let code = self.docker.inspect_exec(&exec).await.ok()?.exit_code;
        (code == Some(0)).then_some(text)
    }

    async fn clean_up(&self) {
        let force = || {
            RemoveContainerOptionsBuilder::default()
                .force(true)
                .v(true)
                .build()
        };
        for member in ["scheduler-1", "scheduler-2", "scheduler-3", "invoker-1"] {
            self.docker
                .remove_container(&self.name(member), Some(force()))
                .await
                .ok();
        }
        self.docker.remove_network(&self.run).await.ok();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_image_serves_without_shell_or_root() {
    let docker = Docker::connect_with_socket_defaults().ok();
    let Some(docker) = docker.filter(|_| Path::new("/var/run/docker.sock").exists()) else {
        return println!("not run: no Docker Engine here");
    };
    if let Err(error) = docker.ping().await {
        return println!("not run: the Docker Engine does not answer: {error}");
    }
    let run = format!("whiskraft-test-{}", std::process::id());
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/image.sh");
    let built = Command::new(script)
        .arg("--bin")
        .arg(binary())
        .args(["--tag", &run, "scheduler"])
        .output()
        .unwrap();
    assert!(
        built.status.success(),
        "{}",
        String::from_utf8_lossy(&built.stderr)
    );

    let stand = Stand {
        docker,
        image: format!("whiskraft:{run}"),
        run,
    };
    let network = NetworkCreateRequest {
        name: stand.run.clone(),
        ..Default::default()
    };
    stand.docker.create_network(network).await.expect("a network");
    // A task of its own, so that a failed assertion still lets the stand be cleaned up.
    let checks = check(stand.docker.clone(), stand.run.clone(), stand.image.clone());
    let verdict = LocalSet::new()
        .run_until(async { spawn_local(checks).await })
        .await;
    stand.clean_up().await;
    Command::new("docker")
        .args(["image", "rm", "--force", &stand.image])
        .output()
        .ok();
    verdict.expect("the image serves");
}

async fn check(docker: Docker, run: String, image: String) {
    let stand = Stand { docker, run, image };
    for id in ["1", "2", "3"] {
        let args = ["scheduler", "--id", id, "--initial-cluster", MEMBERS];
        stand.start(&format!("scheduler-{id}"), &args).await;
    }
    // The image holds nothing but the binary, so its containers are simulated; schedulers are what is tested.
    stand
        .start(
            "invoker-1",
            &[
                "invoker",
                "--id",
                "1",
                "--backend",
                "simulated",
                "--schedulers",
                ENDPOINTS,
            ],
        )
        .await;
    let put = ["action", "put", "hello", "/examples/hello.py", "-e", ENDPOINTS];
    until("the action is stored", LIMIT, async || {
        stand.whiskraft("scheduler-1", &put).await
    })
    .await;
    let invoke = [
        "invoke",
        "hello",
        "--repeat",
        "200",
        "--concurrency",
        "8",
        "--json",
        "-e",
        ENDPOINTS,
    ];
    let (report, _) = until("it runs", LIMIT, async || {
        stand.whiskraft("scheduler-1", &invoke).await
    })
    .await;
    let first = stand.name("scheduler-1");
    let inspected = stand
        .docker
        .inspect_container(&first, None::<InspectContainerOptions>);
    assert_eq!(
        inspected
            .await
            .expect("the container is there")
            .config
            .and_then(|config| config.user)
            .as_deref(),
        Some("65532:65532")
    );

    let victim = stand.name("scheduler-3");
    stand
        .docker
        .kill_container(&victim, None::<KillContainerOptions>)
        .await
        .expect("killed");
    let (_, took) = until("two of three serve", LIMIT, async || {
        stand.whiskraft("scheduler-1", &invoke).await
    })
    .await;
    println!(
        "200 runs: {}; 200 more after scheduler-3 was killed took {took:?}",
        report.trim().replace('\n', " ")
    );
}
