//! Runs Python activations in the process backend without a cluster, and says what a run costs.
//!
//! `cargo run --release -p whiskraft-invoker --example process_host -- <path of whiskraft> runtime`
//! prints the time from nothing to loaded code, and the latency of 5,000 runs of a trivial function. With `WHISKRAFT_HOLD=<root>` in the environment it instead
//! leaves one container running, one idle and one paused, prints `ready`, and waits to be killed.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use whiskraft_invoker::backend::process::{ProcessBackend, ProcessConfig};
use whiskraft_invoker::backend::{
    Backend, ContainerSpec, Context, InitOutcome, InitRequest, Instance, RunOutcome, RunRequest,
};
use whiskraft_types::{ByteSize, InvokerId};

const CODE: &str = "def main(args):\n    while args.get('busy'):\n        pass\n    return args\n";
const RUNS: usize = 5_000;
const CREATIONS: usize = 20;
const WARM_UP: usize = 200;

type Failure = Box<dyn std::error::Error>;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let runtime = std::env::args_os().skip(1).collect();
    let mut config = ProcessConfig {
        runtime,
        ..ProcessConfig::default()
    };
    let hold = std::env::var_os("WHISKRAFT_HOLD");
    if let Some(root) = &hold {
        config.root = root.into();
    }
    let backend = ProcessBackend::start(InvokerId(7), config).await?;
    if hold.is_some() {
        hold_containers(&backend).await
    } else {
        measure(&*backend).await
    }
}

async fn hold_containers(backend: &Arc<ProcessBackend>) -> Result<(), Failure> {
    let [busy, _idle, paused] = [
        loaded(&**backend).await?,
        loaded(&**backend).await?,
        loaded(&**backend).await?,
    ];
    backend.pause(paused).await?;
    let running = Arc::clone(backend);
    tokio::spawn(async move { running.run(busy, run_of(br#"{"busy":true}"#)).await });
    println!("ready");
    std::future::pending().await
}

/// Times from nothing to loaded code, and from there to nothing again.
#[expect(clippy::disallowed_methods, reason = "a measurement reads the clock")]
async fn measure_creation(backend: &dyn Backend) -> Result<(), Failure> {
    let mut took = Vec::with_capacity(CREATIONS);
    for _ in 0..CREATIONS {
        let start = std::time::Instant::now();
        let instance = loaded(backend).await?;
        let ready = start.elapsed();
        backend.remove(instance).await;
        took.push((ready, start.elapsed() - ready));
    }
    took.sort();
    let (ready, removal) = took[CREATIONS / 2];
    println!("{CREATIONS} containers: loaded after p50 {ready:.1?}, a removal took {removal:.1?}");
    Ok(())
}

async fn measure(backend: &dyn Backend) -> Result<(), Failure> {
    measure_creation(backend).await?;
    let instance = loaded(backend).await?;
    let mut took = Vec::with_capacity(RUNS);
    for at in 0..WARM_UP + RUNS {
        match backend.run(instance, run_of(br#"{"x":1}"#)).await {
            RunOutcome::Ended(ended) if ended.is_reusable() => {
                if at >= WARM_UP {
                    took.push(ended.took);
                }
            }
            other => return Err(format!("run {at}: {other:?}").into()),
        }
    }
    took.sort();
    let at = |share: f64| took[(took.len() as f64 * share) as usize].as_micros();
    println!(
        "{RUNS} runs: p50 {} µs, p90 {} µs, p99 {} µs",
        at(0.5),
        at(0.9),
        at(0.99)
    );
    backend.shutdown().await;
    Ok(())
}

async fn loaded(backend: &dyn Backend) -> Result<Instance, Failure> {
    let spec = ContainerSpec {
        name: "host".to_owned(),
        kind: "python:3".to_owned(),
        memory: ByteSize::mib(256),
        concurrency: 1,
        environment: Default::default(),
    };
    let instance = backend.create(spec).await?;
    let request = InitRequest {
        name: "host".to_owned(),
        main: String::new(),
        binary: false,
        code: Some(Bytes::from_static(CODE.as_bytes())),
        env: Default::default(),
        context: Context::default(),
        timeout: Duration::from_secs(20),
        logs_max: ByteSize::mib(1),
    };
    match backend.init(instance, request).await {
        InitOutcome::Ready(_) => Ok(instance),
        other => Err(format!("init: {other:?}").into()),
    }
}

fn run_of(payload: &'static [u8]) -> RunRequest {
    RunRequest {
        payload: Bytes::from_static(payload),
        run: 1,
        context: Context::default(),
        timeout: Duration::from_secs(300),
        logs_max: ByteSize::mib(1),
    }
}
