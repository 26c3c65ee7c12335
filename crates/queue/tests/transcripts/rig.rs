//! The one helper of the transcripts. A line is `input` or `input -> outputs`; without an arrow nothing is expected
//! and nothing forbidden. Activations are `a1`, controllers `k1`, containers `c1`; a container of two digits sits on
//! the invoker of its first digit (`c21` on `i2`), others on `i1`. `\,` is a comma inside a text. `why x` asserts the
//! reason for which the oldest waits, `state x` the state.

use std::sync::Arc;
use std::time::Duration;

use whiskraft_queue::{
    ActionProfile, CancelAnswer, ControllerId, Input, JournalEntry, KnownContainer, MemoryQueue,
    NamespaceCounts, Outcome, Output, QueueSettings, Recovered, RegisteredContainer, RetryPolicy, RunEnd,
    Terms, Unacknowledged, Verdict,
};
use whiskraft_types::{
    ActivationId, ActivationStatus, ContainerId, CreationError, Epoch, Instant, InvokerId, QueueKey,
    Rejection, Revision, SessionId, ThrottleScope,
};

/// Runs a transcript on a new queue; panics with the line that went another way.
pub(crate) fn check(transcript: &str) {
    // Longer than other waits, so that transcripts about these need not speak of it.
    let settings = QueueSettings {
        result_grace: Duration::from_secs(60),
        archive: false,
        ..QueueSettings::default()
    };
    check_with(settings, transcript);
}

/// The same with other settings.
pub(crate) fn check_with(settings: QueueSettings, transcript: &str) {
    let mut rig = Rig::new(settings);
    for line in transcript.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (input, expected) = match line.split_once("->") {
            Some((input, expected)) => (input.trim(), Some(expected.trim())),
            None => (line, None),
        };
        rig.run(input, line);
        let shows_age = rig.shows_age;
        let said: Vec<String> = rig.out.drain(..).map(|output| show(&output, shows_age)).collect();
        if let Some(expected) = expected {
            assert_eq!(said, split(expected), "\nat: {line}\nin:\n{transcript}");
        }
    }
}

struct Rig {
    settings: QueueSettings,
    /// Whether deliveries say how long they waited.
    shows_age: bool,
    /// Whether a takeover is followed by what the journal has.
    recovers: bool,
    /// Whether all submissions are durable.
    is_durable: bool,
    queue: Option<MemoryQueue<String, String>>,
    now: Instant,
    out: Vec<Output<String, String>>,
}

impl Rig {
    fn new(settings: QueueSettings) -> Self {
        Self {
            settings,
            shows_age: false,
            recovers: false,
            is_durable: false,
            queue: None,
            now: Instant::ORIGIN,
            out: Vec::new(),
        }
    }
}

impl Rig {
    fn queue(&mut self) -> &mut MemoryQueue<String, String> {
        let (settings, now) = (self.settings.clone(), self.now);
        self.queue.get_or_insert_with(|| {
            let key = QueueKey {
                namespace: "guest".parse().unwrap(),
                action: "guest/hello".parse().unwrap(),
            };
            MemoryQueue::new(key, Epoch(1), profile(1, &[]), Arc::new(settings), now)
        })
    }

    fn tell(&mut self, input: Input<String, String>) {
        let (now, mut out) = (self.now, std::mem::take(&mut self.out));
        self.queue().step(now, input, &mut out);
        self.out = out;
    }

    fn run(&mut self, input: &str, line: &str) {
        let (verb, rest) = input.split_once(' ').unwrap_or((input, ""));
        let words: Vec<&str> = rest.split_whitespace().collect();
        match (verb, words.as_slice()) {
            ("settings", [name, value]) => self.set(name, value.parse().unwrap()),
            ("have", ids) => self.grant(0, ids, 1),
            ("granted", [asked, ids @ .., revision]) if revision.starts_with('r') => {
                self.grant(asked.parse().unwrap(), ids, number(revision));
            }
            ("granted", [asked, ids @ ..]) => self.grant(asked.parse().unwrap(), ids, 1),
            ("submit", [ids, rest @ ..]) => self.submit(ids, rest),
            ("credit", [id, rest @ ..]) => self.credit(id, rest),
            ("completed", [id, at, rest @ ..]) => self.complete(id, at, rest),
            ("delayed", _) => self.delayed(rest),
            ("why", [reason]) => self.why(reason, line),
            ("state", [state]) => assert_eq!(format!("{:?}", self.queue().view().state), *state, "{line}"),
            ("old", [count]) => assert_eq!(self.queue().view().old.to_string(), *count, "{line}"),
            ("times", [id, begun, ended]) => {
                let end = self.queue().end(activation(id)).unwrap();
                let (begun, ended) = (duration(begun), duration(ended));
                let since = |at: Instant| at.saturating_since(Instant::ORIGIN);
                assert_eq!(
                    (since(end.begun_at), since(end.ended_at)),
                    (begun, ended),
                    "{line}"
                );
            }
            ("average", [millis]) => {
                assert_eq!(format!("{:?}", self.queue().average_ms()), *millis, "{line}");
            }
            ("show", ["ages"]) => self.shows_age = true,
            ("takeover", ["recovering", words @ ..]) => {
                self.recovers = true;
                self.takeover(words);
            }
            ("takeover", words) => self.takeover(words),
            ("recovered", ids) => self.recovered(ids),
            ("handoff", words) => self.hand_off(words),
            ("durably", []) => self.is_durable = true,
            ("delivered", [id, run]) => {
                let found = self
                    .queue()
                    .run_of(activation(id))
                    .map(|(_, run)| run.to_string());
                assert_eq!(found.as_deref(), Some(*run), "{line}");
            }
            ("find", [id, state]) => {
                let found = self.queue().find(activation(id));
                let found = found.map_or("nothing".to_owned(), |found| format!("{found:?}"));
                assert!(found.to_lowercase().starts_with(state), "{line}: {found}");
            }
            ("holds", [count]) => assert_eq!(self.queue().ledger_len().to_string(), *count, "{line}"),
            ("register", _) => self.register(rest),
            ("creation-failed", _) => self.creation_failed(rest),
            ("tick", words) => self.tell(Input::Tick(counts(words))),
            ("wait", [time, words @ ..]) => self.wait(time, words),
            ("due", ["now"]) => assert_eq!(self.queue().next_deadline(), Some(self.now), "{line}"),
            ("never", ["due"]) => assert_eq!(self.queue().next_deadline(), None, "{line}"),
            // A queue that has asked for its first container and lost it again: only demand makes it ask now.
            ("started-up", []) => {
                self.tell(Input::Tick(counts(&[])));
                self.tell(Input::Granted {
                    asked: 1,
                    containers: Vec::new(),
                    revision: Revision(1),
                });
                self.out.clear();
            }
            _ => {
                let input = simple(verb, &words).unwrap_or_else(|| panic!("cannot read {line:?}"));
                self.tell(input);
            }
        }
    }

    fn set(&mut self, name: &str, value: usize) {
        match name {
            "len-max" => self.settings.len_max = u32::try_from(value).unwrap(),
            "starved-wait" => self.settings.starved_wait = Duration::from_millis(value as u64),
            "results-max" => self.settings.results_max = value,
            "dedup-max" => self.settings.dedup_max = value,
            "unconfirmed-max" => self.settings.unconfirmed_max = value,
            other => panic!("no setting {other:?}"),
        }
    }

    fn grant(&mut self, asked: u32, ids: &[&str], revision: u64) {
        let containers = ids.iter().map(|id| container(id)).collect();
        self.tell(Input::Granted {
            asked,
            containers,
            revision: Revision(revision),
        });
    }

    fn submit(&mut self, ids: &str, words: &[&str]) {
        let value = |name| words.windows(2).find(|pair| pair[0] == name).map(|pair| pair[1]);
        let (first, last) = ids.split_once("..").unwrap_or((ids, ids));
        for id in number(first)..=number(last) {
            self.tell(Input::Submit {
                controller: controller(value("from").unwrap_or("k1")),
                id: activation(&format!("a{id}")),
                attempt: value("attempt").map_or(1, |attempt| attempt.parse().unwrap()),
                waited: value("waited").map_or(Duration::ZERO, duration),
                caller: value("by").map(activation),
                payload: value("payload").unwrap_or_default().to_owned(),
                terms: Terms {
                    durable: self.is_durable || words.contains(&"durable"),
                    not_before: value("at").map(|at| Instant::ORIGIN + duration(at)),
                },
            });
        }
    }

    fn credit(&mut self, id: &str, words: &[&str]) {
        let count = words
            .iter()
            .find_map(|word| word.strip_prefix('x'))
            .map_or(1, |count| count.parse().unwrap());
        let (invoker, container) = (invoker_of(id), container(id));
        self.tell(Input::Credit {
            invoker,
            container,
            count,
            warmed: words.contains(&"warmed"),
        });
    }

    fn complete(&mut self, id: &str, at: &str, words: &[&str]) {
        let credits = words
            .iter()
            .find_map(|word| word.strip_prefix('+'))
            .map_or(0, |count| count.parse().unwrap());
        self.tell(Input::Completed {
            invoker: invoker_of(at),
            container: container(at),
            id: activation(id),
            run: run_in(words),
            end: end_in(words),
            record: id.to_owned(),
            duration: None,
            credits,
        });
    }

    fn takeover(&mut self, words: &[&str]) {
        let mut lists = words.split(|word| *word == "with");
        let (invokers, containers) = (lists.next().unwrap_or_default(), lists.next().unwrap_or_default());
        let mut invokers = invokers.split(|word| *word == "lost");
        let mut ids = || {
            invokers
                .next()
                .unwrap_or_default()
                .iter()
                .map(|id| InvokerId(number(id)))
                .collect()
        };
        let (expected, lost) = (ids(), ids());
        let known = |id: &&str| KnownContainer {
            container: container(id),
            invoker: Some(invoker_of(id)),
            revision: Revision(1),
            running: true,
        };
        self.tell(Input::Takeover {
            expected,
            lost,
            containers: containers.iter().map(known).collect(),
            recovers: self.recovers,
        });
    }

    /// `i1 c1 has a1 a2 asks 2, c2 has asks 0 unacked a3 a4`
    fn register(&mut self, text: &str) {
        let (text, unacked) = text.split_once("unacked").unwrap_or((text, ""));
        let (invoker, containers) = text.trim().split_once(' ').unwrap_or((text.trim(), ""));
        let containers = containers
            .split(',')
            .filter(|text| !text.trim().is_empty())
            .map(|text| {
                let (id, rest) = text.split_once("has").unwrap();
                let (in_flight, asks) = rest.split_once("asks").unwrap();
                RegisteredContainer {
                    container: container(id.trim()),
                    revision: Revision(1),
                    in_flight: in_flight.split_whitespace().map(activation).collect(),
                    credits: asks.trim().parse().unwrap(),
                    warmed: true,
                }
            });
        let containers = containers.collect();
        let unacknowledged = unacked
            .split_whitespace()
            .map(|word| {
                // `a1:2:failed`
                let parts: Vec<&str> = word.split(':').collect();
                Unacknowledged {
                    id: activation(parts[0]),
                    run: parts.get(1).map_or(1, |run| run.parse().unwrap()),
                    end: end_in(&parts),
                    record: parts[0].to_owned(),
                }
            })
            .collect();
        self.tell(Input::Register {
            invoker: InvokerId(number(invoker)),
            containers,
            unacknowledged,
        });
    }

    /// The queue goes to another leader, which knows what the old one knew.
    fn hand_off(&mut self, words: &[&str]) {
        let now = self.now;
        let moved = self.queue().export(now);
        self.queue = None;
        self.takeover(words);
        self.out.clear();
        self.tell(Input::Import(moved));
    }

    /// `a1 a2:2 a3:1:5s a4:1::90s`: ids with run, earliest start and age.
    fn recovered(&mut self, ids: &[&str]) {
        let recovered = ids.iter().map(|word| {
            let parts: Vec<&str> = word.split(':').collect();
            let part = |at: usize| parts.get(at).copied().filter(|part| !part.is_empty());
            Recovered {
                id: activation(parts[0]),
                waited: part(3).map_or(Duration::ZERO, duration),
                run: part(1).map_or(1, |run| run.parse().unwrap()),
                not_before: part(2).map(|at| Instant::ORIGIN + duration(at)),
                payload: String::new(),
            }
        });
        let recovered = recovered.collect();
        self.tell(Input::Recovered(recovered));
    }

    fn creation_failed(&mut self, text: &str) {
        let (container, error, message) = creation_error(text);
        self.tell(Input::CreationFailed {
            container,
            error,
            message,
        });
    }

    fn delayed(&mut self, text: &str) {
        let (container, error, message) = creation_error(text);
        self.tell(Input::CreationDelayed {
            container,
            error,
            message,
        });
    }

    fn why(&mut self, reason: &str, line: &str) {
        let wait = self.queue().view().wait;
        let found = wait.as_ref().map_or("none", |wait| wait.reason.name());
        assert_eq!(found, reason, "\nat: {line}: {wait:?}");
        assert!(wait.is_none_or(|wait| !wait.detail.is_empty()), "{line}");
    }

    /// Lets time pass and ticks at every deadline on the way.
    fn wait(&mut self, time: &str, words: &[&str]) {
        let until = self.now + duration(time);
        // More ticks than any transcript needs: a queue that keeps asking for the same moment is caught here.
        for _ in 0..10_000 {
            match self.queue().next_deadline().filter(|at| *at <= until) {
                Some(at) => {
                    self.now = self.now.max(at);
                    self.tell(Input::Tick(counts(words)));
                }
                None => {
                    self.now = until;
                    return;
                }
            }
        }
        panic!("the queue wants a tick for ever");
    }
}

fn simple(verb: &str, words: &[&str]) -> Option<Input<String, String>> {
    Some(match (verb, words) {
        ("received", [id]) => Input::Received {
            controller: controller("k1"),
            id: activation(id),
        },
        ("received", [id, "from", from]) => Input::Received {
            controller: controller(from),
            id: activation(id),
        },
        ("knotted", []) => Input::Knotted(true),
        ("unknotted", []) => Input::Knotted(false),
        ("withdraw", [id]) => Input::Withdraw {
            container: container(id),
        },
        ("started", [id, at]) => Input::Started {
            container: container(at),
            id: activation(id),
        },
        ("refused", [id, at]) => Input::Refused {
            container: container(at),
            id: activation(id),
        },
        ("disconnected", [id]) => Input::Disconnected {
            invoker: InvokerId(number(id)),
        },
        ("gone", [id]) => Input::InvokerGone {
            invoker: InvokerId(number(id)),
        },
        ("placed", [id]) => Input::ContainerPlaced {
            container: container(id),
            invoker: invoker_of(id),
        },
        ("unplaced", [id]) => Input::ContainerUnplaced {
            container: container(id),
        },
        ("running", [id]) => Input::ContainerRunning {
            container: container(id),
            invoker: invoker_of(id),
        },
        ("warm", [id]) => Input::ContainerWarm {
            container: container(id),
        },
        ("ended", [id]) => Input::ContainerEnded {
            container: container(id),
        },
        ("removed", [id]) => Input::ContainerRemoved {
            container: container(id),
        },
        ("action", [revision, rest @ ..]) => Input::Action(profile(number(revision), rest)),
        ("sampled", [time]) => Input::Sampled(duration(time)),
        ("room", []) => Input::NamespaceFull(false),
        ("full", []) => Input::NamespaceFull(true),
        ("drain", []) => Input::Draining(true),
        ("undrain", []) => Input::Draining(false),
        ("fence", []) => Input::Fence(true),
        ("unfence", []) => Input::Fence(false),
        ("removal-failed", []) => Input::RemovalFailed,
        ("cancel", [id, rest @ ..]) => Input::Cancel {
            ask: rest.first().map_or(1, |ask| ask.parse().unwrap()),
            id: activation(id),
        },
        ("journal", [id, words @ ..]) => Input::Journaled {
            id: activation(id),
            verdict: verdict(id, words),
        },
        _ => return None,
    })
}

fn verdict(id: &str, words: &[&str]) -> Verdict<String> {
    match words {
        ["written"] => Verdict::Written,
        ["recorded"] => Verdict::Recorded(id.to_owned()),
        ["open", run, rest @ ..] => Verdict::Open {
            run: run.parse().unwrap(),
            not_before: rest.first().map(|at| Instant::ORIGIN + duration(at)),
        },
        ["ended"] => Verdict::Ended(Outcome::Record(id.to_owned())),
        ["expired"] => Verdict::Expired,
        ["conflict"] => Verdict::Conflict,
        ["refused"] => Verdict::Refused(Rejection::Draining),
        ["unknown"] => Verdict::Unknown,
        other => panic!("no verdict {other:?}"),
    }
}

/// `run 2`, else the first.
fn run_in(words: &[&str]) -> u32 {
    let run = words.windows(2).find(|pair| pair[0] == "run");
    run.map_or(1, |pair| pair[1].parse().unwrap())
}

/// `failed` or `stopped`, else well.
fn end_in(words: &[&str]) -> RunEnd {
    if words.contains(&"failed") {
        RunEnd::Failed
    } else if words.contains(&"stopped") {
        RunEnd::Cancelled
    } else {
        RunEnd::Success
    }
}

fn profile(revision: u64, words: &[&str]) -> ActionProfile {
    let value = |name| words.windows(2).find(|pair| pair[0] == name).map(|pair| pair[1]);
    ActionProfile {
        revision: Revision(revision),
        concurrency: value("concurrency").map_or(1, |count| count.parse().unwrap()),
        instances: value("instances").map(|count| count.parse().unwrap()),
        blackbox: words.contains(&"blackbox"),
        timeout: value("timeout").map_or(Duration::from_secs(60), duration),
        deleted: words.contains(&"deleted"),
        retry: RetryPolicy {
            runs_max: value("runs").map_or(1, |count| count.parse().unwrap()),
            backoff: value("backoff").map_or(Duration::from_secs(1), duration),
            backoff_max: value("backoff-max").map_or(Duration::from_secs(60), duration),
            age_max: value("age-max").map(duration),
            on_loss: words.contains(&"on-loss"),
        },
    }
}

/// `100ms` or `2s`.
fn duration(text: &str) -> Duration {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let count: u64 = digits.parse().unwrap();
    if text.ends_with("ms") {
        Duration::from_millis(count)
    } else {
        Duration::from_secs(count)
    }
}

/// `c1 resources: no room`
fn creation_error(text: &str) -> (ContainerId, CreationError, String) {
    let (what, message) = text.split_once(": ").unwrap();
    let (id, error) = what.split_once(' ').unwrap();
    let error = match error {
        "invokers" => CreationError::NoAvailableInvokers,
        "resources" => CreationError::NoAvailableResources,
        "pool" => CreationError::ResourceNotEnough,
        "start" => CreationError::Whisk,
        "image" => CreationError::BlackBox,
        "fetch" => CreationError::Fetch,
        "limit" => CreationError::InvalidLimit,
        other => panic!("no error {other:?}"),
    };
    (container(id), error, message.to_owned())
}

fn counts(words: &[&str]) -> NamespaceCounts {
    let value = |name| {
        words
            .windows(2)
            .find(|pair| pair[0] == name)
            .map(|pair| pair[1].parse().unwrap())
    };
    NamespaceCounts {
        limit: value("limit").unwrap_or(10),
        limit_over: value("over").or(value("limit")).unwrap_or(10),
        running: value("running").unwrap_or(0),
        in_progress: value("starting").unwrap_or(0),
    }
}

fn number(name: &str) -> u64 {
    name[1..]
        .parse()
        .unwrap_or_else(|_| panic!("no number in {name:?}"))
}

fn activation(name: &str) -> ActivationId {
    ActivationId::from_bytes(u128::from(number(name)).to_be_bytes())
}

fn controller(name: &str) -> ControllerId {
    ControllerId(u128::from(number(name)).to_be_bytes())
}

fn container(name: &str) -> ContainerId {
    ContainerId {
        session: SessionId(1),
        seq: number(name),
    }
}

fn invoker_of(name: &str) -> InvokerId {
    InvokerId(match number(name) {
        seq @ 10.. => seq / 10,
        _ => 1,
    })
}

fn show_id(id: ActivationId) -> String {
    format!("a{}", u128::from_be_bytes(*id.as_bytes()))
}

fn show(output: &Output<String, String>, shows_age: bool) -> String {
    let controller_name = |controller: &ControllerId| format!("k{}", u128::from_be_bytes(controller.0));
    match output {
        Output::Accept { id, .. } => format!("accepted {}", show_id(*id)),
        Output::Reject { id, rejection, .. } => {
            format!("rejected {} {}", show_id(*id), show_rejection(rejection))
        }
        Output::Deliver {
            invoker,
            container,
            id,
            waited,
            run,
            ..
        } => {
            let name = format!("c{}", container.seq);
            assert_eq!(*invoker, invoker_of(&name), "delivered to the wrong invoker");
            let age = if shows_age {
                format!(" after {}ms", waited.as_millis())
            } else {
                String::new()
            };
            let run = if *run > 1 {
                format!(" run {run}")
            } else {
                String::new()
            };
            format!("deliver {} to {name}{run}{age}", show_id(*id))
        }
        Output::Complete {
            controller,
            id,
            outcome,
            run,
        } => {
            let to = format!(" to {}", controller_name(controller));
            show_outcome(*id, outcome, &to, *run)
        }
        Output::Journal { id, entry } => show_entry(*id, entry),
        Output::Archive { id, outcome, run } => {
            format!("archive {}", show_outcome(*id, outcome, "", *run))
        }
        Output::CancelAnswered { ask, answer } => {
            let answer = match answer {
                CancelAnswer::Unknown => "unknown",
                CancelAnswer::BeforeStart => "before-start",
                CancelAnswer::Stopping => "stopping",
                CancelAnswer::Ended => "ended",
                CancelAnswer::Unavailable => "unavailable",
            };
            format!("answer {ask} {answer}")
        }
        Output::Stop { container, id, .. } => format!("stop {} in c{}", show_id(*id), container.seq),
        Output::AcknowledgeInvoker { invoker, id } => format!("ack {} to i{invoker}", show_id(*id)),
        Output::WithdrawAck { container } => format!("withdrawn c{}", container.seq),
        Output::Reserve { count } => format!("reserve {count}"),
        Output::SetThrottle(true) => "throttle on".to_owned(),
        Output::SetThrottle(false) => "throttle off".to_owned(),
        Output::Starved => "starved".to_owned(),
        Output::Entangled => "entangled".to_owned(),
        Output::Silent { container, .. } => format!("silent c{}", container.seq),
        Output::Late { container, age, .. } => format!("late c{} {}ms", container.seq, age.as_millis()),
        Output::RemoveContainer { container } => format!("remove c{}", container.seq),
        Output::RemoveQueue => "remove queue".to_owned(),
    }
}

fn show_outcome(id: ActivationId, outcome: &Outcome<String>, to: &str, run: u32) -> String {
    let id = show_id(id);
    let run = if run > 1 {
        format!(" run {run}")
    } else {
        String::new()
    };
    match outcome {
        Outcome::Record(record) => {
            assert_eq!(*record, id, "the record of another activation");
            format!("done {id}{to}{run}")
        }
        Outcome::Failure {
            status: ActivationStatus::WhiskError,
            text,
        } => {
            format!("failed {id}{to}{run} whisk: {text}")
        }
        Outcome::Failure { status, text } => {
            assert_eq!(*status, ActivationStatus::DeveloperError);
            format!("failed {id}{to}{run} developer: {text}")
        }
        Outcome::Cancelled => format!("cancelled {id}{to}{run}"),
    }
}

fn show_entry(id: ActivationId, entry: &JournalEntry<String, String>) -> String {
    let since = |at: &Instant| at.saturating_since(Instant::ORIGIN).as_millis();
    match entry {
        JournalEntry::Accept { not_before: None, .. } => format!("journal {}", show_id(id)),
        JournalEntry::Accept {
            not_before: Some(at), ..
        } => format!("journal {} at {}ms", show_id(id), since(at)),
        JournalEntry::Retry { run, not_before } => {
            format!(
                "journal retry {} run {run} at {}ms",
                show_id(id),
                since(not_before)
            )
        }
        JournalEntry::End {
            outcome,
            run,
            dead_letter,
        } => {
            let dead = if *dead_letter { " dead-letter" } else { "" };
            format!("journal end{dead} {}", show_outcome(id, outcome, "", *run))
        }
    }
}

fn show_rejection(rejection: &Rejection) -> String {
    let name = match rejection {
        Rejection::NoQueue => "no-queue",
        Rejection::Throttled {
            scope,
            limit: Some(limit),
            ..
        } => {
            let scope = match scope {
                ThrottleScope::Action => "action",
                ThrottleScope::Namespace => "namespace",
                ThrottleScope::Results => "results",
                ThrottleScope::Rate | ThrottleScope::Stream => panic!("a queue does not say {rejection}"),
            };
            return format!("throttled {scope} {limit}");
        }
        Rejection::Conflict => "conflict",
        Rejection::Unavailable { .. } => "unavailable",
        Rejection::Invalid { .. } => "invalid",
        Rejection::Draining => "draining",
        other => panic!("a queue does not say {other}"),
    };
    name.to_owned()
}

/// Splits expectations at commas and spells `accepted a1..a3` out.
fn split(expected: &str) -> Vec<String> {
    if expected == "nothing" {
        return Vec::new();
    }
    let protected = expected.replace("\\,", "\u{0}");
    let mut parts = Vec::new();
    for part in protected.split(',').map(|part| part.trim().replace('\u{0}', ",")) {
        match part
            .strip_prefix("accepted ")
            .and_then(|ids| ids.split_once(".."))
        {
            Some((first, last)) => {
                parts.extend((number(first)..=number(last)).map(|id| format!("accepted a{id}")));
            }
            None => parts.push(part),
        }
    }
    parts
}
