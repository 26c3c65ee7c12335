//! What monitors read: metrics in the text format of Prometheus, health, and that plain HTTP and gRPC share a port.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod common;

use std::collections::{BTreeMap, BTreeSet};

use common::controller::Controller;
use common::invoker::Invoker;
use common::{Cluster, config, key, soon};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use whiskraft_proto::v1;
use whiskraft_proto::v1::container_report::Change;
use whiskraft_proto::v1::operator_client::OperatorClient;
use whiskraft_types::ActionLimits;

/// Status code and body of a plain request.
async fn get(address: &str, path: &str) -> (u16, String) {
    let exchange = async {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    };
    let answer = soon(path, exchange).await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let code = head.split(' ').nth(1).unwrap().parse().unwrap();
    let is_chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
    assert!(!is_chunked, "the body is sent whole");
    (code, body.to_owned())
}

/// A parsed exposition: the number of each series.
#[derive(Debug, Default)]
struct Exposition {
    kinds: BTreeMap<String, String>,
    series: BTreeMap<String, f64>,
    labels: BTreeMap<String, BTreeSet<String>>,
}

fn is_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes
        .next()
        .is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// Checks what promtool would: each family is announced once with help and kind before its series, names are legal,
/// counters end in `_total`, no series is there twice, and buckets grow.
fn parse(text: &str) -> Exposition {
    let mut parsed = Exposition::default();
    let mut helps = BTreeSet::new();
    let mut family = String::new();
    assert!(text.ends_with('\n'));
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, help) = help.split_once(' ').unwrap();
            assert!(is_name(name) && help.len() > 10, "{line}");
            assert!(helps.insert(name.to_owned()), "announced twice: {line}");
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').unwrap();
            assert!(helps.contains(name), "no HELP before {line}");
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            assert_eq!(name.ends_with("_total"), kind == "counter", "{line}");
            assert!(
                !name.contains("_ms") && !name.contains("milli"),
                "not a base unit: {line}"
            );
            family = name.to_owned();
            parsed.kinds.insert(name.to_owned(), kind.to_owned());
        } else {
            let (series, number) = line.rsplit_once(' ').unwrap();
            let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
            let base = match parsed.kinds[&family].as_str() {
                "histogram" => ["_bucket", "_sum", "_count"]
                    .iter()
                    .find_map(|suffix| name.strip_suffix(suffix))
                    .unwrap(),
                _ => name,
            };
            assert_eq!(base, family, "{line} outside its family");
            for label in labels
                .trim_end_matches('}')
                .split(',')
                .filter(|label| !label.is_empty())
            {
                let (label, value) = label.split_once('=').unwrap();
                assert!(
                    is_name(label) && value.starts_with('"') && value.ends_with('"'),
                    "{line}"
                );
                parsed
                    .labels
                    .entry(format!("{family} {label}"))
                    .or_default()
                    .insert(value.to_owned());
            }
            let number: f64 = number.parse().unwrap();
            assert!(number >= 0.0, "{line}");
            let before = parsed.series.insert(series.to_owned(), number);
            assert_eq!(before, None, "twice: {line}");
        }
    }
    for name in parsed
        .kinds
        .iter()
        .filter(|(_, kind)| *kind == "histogram")
        .map(|(name, _)| name)
    {
        let buckets: Vec<f64> = text
            .lines()
            .filter(|line| line.starts_with(&format!("{name}_bucket")))
            .map(|line| line.rsplit_once(' ').unwrap().1.parse().unwrap())
            .collect();
        assert!(buckets.is_sorted(), "{name}");
        assert_eq!(
            buckets.last(),
            parsed.series.get(&format!("{name}_count")),
            "{name}"
        );
    }
    parsed
}

impl Exposition {
    #[track_caller]
    fn of(&self, series: &str) -> f64 {
        let number = self.series.get(series);
        *number.unwrap_or_else(|| panic!("no series {series} in {:#?}", self.series))
    }
}

async fn scrape(cluster: &Cluster, at: u64) -> Exposition {
    let (code, text) = get(&cluster.members[&at].address, "/metrics").await;
    assert_eq!(code, 200, "{text}");
    parse(&text)
}

/// One of two invokers fails whatever it is given: the scheduler that gave it says so, in both of its views.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_invoker_that_fails_is_shown_as_failing() {
    let cluster = Cluster::start().await;
    cluster.put_action("guest/a", ActionLimits::default()).await;
    let mut failing = Invoker::start(7, &cluster.addresses()).await;
    let mut good = Invoker::start(8, &cluster.addresses()).await;
    cluster
        .until("both invokers are healthy", |state| {
            state.invokers().filter(|(_, row)| row.healthy).count() == 2
        })
        .await;
    let leadership = cluster.ensure(1, &key("guest", "guest/a")).await.unwrap();
    let controller = Controller::connect(&leadership.client_address, 1).await;
    for number in 1..=16 {
        controller.submit(&leadership, number, 1, "{}").await;
    }
    let mut operator = OperatorClient::new(cluster.channel(leadership.leader).await);
    let is_shown = async {
        loop {
            let status = operator.status(v1::StatusRequest {}).await.unwrap().into_inner();
            let shown: Vec<_> = status
                .invokers
                .into_iter()
                .map(|invoker| (invoker.invoker, invoker.suspicion))
                .collect();
            if shown == [(7, "failing".to_owned()), (8, String::new())] {
                return;
            }
        }
    };
    let fail = async {
        loop {
            tokio::select! {
                (scheduler, create) = failing.next_create() => {
                    let change = Change::Failed(v1::ContainerCreationFailed {
                        error: v1::CreationError::Whisk.into(),
                        message: "it never works".to_owned(),
                    });
                    failing.report(scheduler, &create, change).await;
                }
                (scheduler, create) = good.next_create() => good.run(scheduler, &create, 0).await,
            }
        }
    };
    tokio::select! {
        () = soon("the invoker is shown as failing", is_shown) => {}
        () = fail => {}
    }
    let (_, text) = get(&leadership.client_address, "/metrics").await;
    assert!(text.contains("whiskraft_invokers{state=\"failing\"} 1"), "{text}");
    assert!(text.contains("whiskraft_invokers{state=\"healthy\"} 1"), "{text}");
    assert!(
        text.contains("whiskraft_invokers{state=\"disconnected\"} 0"),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scripted_workload_is_counted_to_the_last_activation() {
    let mut settings = config();
    settings.queue.len_max = std::num::NonZeroU32::new(3).unwrap();
    let cluster = Cluster::start_with(settings).await;
    cluster.put_action("guest/a", ActionLimits::default()).await;
    let queue = key("guest", "guest/a");
    let leadership = cluster.ensure(1, &queue).await.unwrap();
    let leader = leadership.leader;
    let mut controller = Controller::connect(&leadership.client_address, 1).await;
    for number in 1..=3 {
        controller.submit(&leadership, number, 1, "{}").await;
        controller.accepted(number).await;
    }
    controller.submit(&leadership, 4, 1, "{}").await;
    controller.rejection(4).await;

    let waiting = scrape(&cluster, leader).await;
    assert_eq!(
        waiting.of("whiskraft_activations_waiting{namespace=\"guest\"}"),
        3.0
    );
    assert_eq!(waiting.of("whiskraft_queues_throttled"), 1.0);
    assert_eq!(waiting.of("whiskraft_activations_delivered_total"), 0.0);

    let mut invoker = Invoker::start(7, &cluster.addresses()).await;
    let (_, create) = invoker.serve_create().await;
    for number in 1..=2 {
        let (_, deliver) = invoker.next_deliver().await;
        assert_eq!(deliver.container, create.container);
        invoker
            .complete(leader, &queue, &deliver, u32::from(number == 1))
            .await;
        controller.record(number).await;
    }
    invoker.all_acked().await;

    let done = scrape(&cluster, leader).await;
    for (series, number) in [
        ("whiskraft_activations_accepted_total", 3.0),
        (
            "whiskraft_activations_rejected_total{reason=\"throttled-action\"}",
            1.0,
        ),
        ("whiskraft_activations_rejected_total{reason=\"not-leader\"}", 0.0),
        ("whiskraft_activations_delivered_total", 2.0),
        ("whiskraft_activation_wait_seconds_count", 2.0),
        ("whiskraft_activations_completed_total{status=\"success\"}", 2.0),
        (
            "whiskraft_activations_completed_total{status=\"whisk-error\"}",
            0.0,
        ),
        ("whiskraft_activations_waiting{namespace=\"guest\"}", 1.0),
        (
            "whiskraft_action_activations_waiting{action=\"guest/a\",namespace=\"guest\"}",
            1.0,
        ),
        ("whiskraft_queues", 1.0),
        ("whiskraft_queues_led", 1.0),
        ("whiskraft_queue_leaderships_total{event=\"created\"}", 1.0),
        ("whiskraft_creations_total{outcome=\"running\"}", 1.0),
        ("whiskraft_container_start_seconds_count", 1.0),
        (
            "whiskraft_namespace_containers{namespace=\"guest\",state=\"running\"}",
            1.0,
        ),
        (
            "whiskraft_action_containers{action=\"guest/a\",namespace=\"guest\",state=\"running\"}",
            1.0,
        ),
        ("whiskraft_invokers{state=\"healthy\"}", 1.0),
        ("whiskraft_sessions{owner=\"scheduler\"}", 3.0),
        ("whiskraft_sessions{owner=\"invoker\"}", 1.0),
        ("whiskraft_fenced", 0.0),
        ("whiskraft_watchers", 0.0),
    ] {
        let name = series.replace(
            "{action=\"guest/a\",namespace=\"guest\"",
            "{namespace=\"guest\",action=\"guest/a\"",
        );
        let found = done
            .series
            .get(series)
            .or_else(|| done.series.get(&name))
            .copied();
        assert_eq!(found, Some(number), "{series} in {:#?}", done.series);
    }
    assert!(done.of("whiskraft_reservations_total{outcome=\"granted\"}") >= 1.0);
    assert!(done.of("whiskraft_keepalives_total{outcome=\"acknowledged\"}") >= 1.0);
    assert!(done.of("whiskraft_proposals_total{outcome=\"done\"}") >= 1.0);
    assert!(done.of("whiskraft_shard_turn_seconds_count") > 0.0);
    assert!(done.of("whiskraft_log_revision") > 0.0);
    let roles = done
        .series
        .iter()
        .filter(|(name, _)| name.starts_with("whiskraft_raft_role{"));
    assert_eq!(roles.map(|(_, number)| number).sum::<f64>(), 1.0);
    for (label, values) in &done.labels {
        assert!(values.len() <= 1001, "{label} has {} values", values.len());
    }
    let led_elsewhere = scrape(&cluster, cluster.other_than(leader)).await;
    assert_eq!(led_elsewhere.of("whiskraft_queues"), 1.0);
    assert_eq!(led_elsewhere.of("whiskraft_queues_led"), 0.0);
    assert_eq!(led_elsewhere.of("whiskraft_activations_accepted_total"), 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_stream_is_counted_while_it_is_open() {
    use v1::watch_client::WatchClient;

    let cluster = Cluster::start().await;
    let mut client = WatchClient::new(cluster.channel(1).await);
    let request = v1::WatchRequest {
        tables: vec![v1::Table::Members.into()],
        after: 0,
    };
    let mut watch = client.watch(request).await.unwrap().into_inner();
    soon("snapshot", watch.message()).await.unwrap().unwrap();
    assert_eq!(scrape(&cluster, 1).await.of("whiskraft_watchers"), 1.0);
    drop(watch);
    let closed = async { while scrape(&cluster, 1).await.of("whiskraft_watchers") > 0.0 {} };
    soon("the stream's end is noticed", closed).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scheduler_is_healthy_while_it_holds_its_lease() {
    let mut cluster = Cluster::start().await;
    let address = cluster.members[&1].address.clone();
    assert_eq!(get(&address, "/ping").await, (200, "pong\n".to_owned()));
    let healthy = async { while get(&address, "/healthz").await.0 != 200 {} };
    soon("health", healthy).await;
    let (code, _) = get(&address, "/elsewhere").await;
    assert_eq!(code, 404);

    cluster.crash(2).await;
    cluster.crash(3).await;
    let lost = async {
        loop {
            if let (503, reason) = get(&address, "/healthz").await {
                return reason;
            }
        }
    };
    let reason = soon("the lease runs out without a quorum", lost).await;
    assert!(
        reason.contains("fenced") || reason.contains("no session"),
        "{reason}"
    );
    assert_eq!(scrape(&cluster, 1).await.of("whiskraft_fenced"), 1.0);
    assert_eq!(get(&address, "/ping").await.0, 200);
}
