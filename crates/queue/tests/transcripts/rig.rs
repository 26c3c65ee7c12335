//! The one helper of the transcripts. A line is `input` or `input -> outputs`; without an arrow nothing is expected
//! and nothing forbidden. Activations are `a1`, controllers `k1`, containers `c1`; a container of two digits sits on
//! the invoker of its first digit (`c21` on `i2`), others on `i1`. `\,` is a comma inside a text. `why x` asserts the
//! reason for which the oldest waits, `state x` the state.

mod read;
mod show;

use std::sync::Arc;
use std::time::Duration;

use whiskraft_queue::{
    Input, KnownContainer, MemoryQueue, Output, QueueSettings, Recovered, RegisteredContainer, Terms,
    Unacknowledged,
};
use whiskraft_types::{Epoch, Instant, InvokerId, QueueKey, Revision};

use read::*;
use show::show;

/// Runs a transcript on a new queue; panics with the line that went another way.
pub(crate) fn check(transcript: &str) {
    // Longer than other waits, so that transcripts about these need not speak of it.
    let settings = QueueSettings {
        result_grace: Duration::from_secs(60),
        archive: false,
        look_grid: Duration::ZERO,
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
        // `c1+` is one that the tables show to have a place.
        let granted = |id: &&str| match id.strip_suffix('+') {
            Some(id) => (container(id), Some(invoker_of(id))),
            None => (container(id), None),
        };
        let containers = ids.iter().map(granted).collect();
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

    /// `a1 a2:2 a3:1:5s a4:1::90s a5::::cancelled a6:::90s::5s`: ids with run, earliest start, age, a wish, and the time since
    /// the run might begin.
    fn recovered(&mut self, ids: &[&str]) {
        let recovered = ids.iter().map(|word| {
            let parts: Vec<&str> = word.split(':').collect();
            let part = |at: usize| parts.get(at).copied().filter(|part| !part.is_empty());
            Recovered {
                id: activation(parts[0]),
                waited: part(3).map_or(Duration::ZERO, duration),
                ready: part(5).or(part(3)).map_or(Duration::ZERO, duration),
                run: part(1).map_or(1, |run| run.parse().unwrap()),
                not_before: part(2).map(|at| Instant::ORIGIN + duration(at)),
                cancelled: part(4) == Some("cancelled"),
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
