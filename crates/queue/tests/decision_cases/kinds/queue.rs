//! Kinds that are answered by a real memory queue: what it throttles, drops and hands out.

use std::sync::Arc;
use std::time::Duration;

use whiskraft_queue::{
    ActionProfile, ControllerId, Input, MemoryQueue, NamespaceCounts, Outcome, Output, QueueSettings, Terms,
};
use whiskraft_types::{
    ActivationId, ContainerId, Epoch, Instant, InvokerId, QueueKey, Rare, Revision, SessionId,
};

use crate::field::{Fields, Verdict, same};

const INVOKER: InvokerId = InvokerId(1);

/// A queue that is told things at chosen times and keeps all it answered.
struct Rig {
    queue: MemoryQueue<(), ()>,
    now: Instant,
    out: Vec<Output<(), ()>>,
    submitted: u128,
    is_throttled: bool,
}

fn at(millis: u64) -> Instant {
    Instant::from_origin(Duration::from_millis(millis))
}

fn container(rank: usize) -> ContainerId {
    ContainerId {
        session: SessionId(1),
        seq: rank as u64 + 1,
    }
}

impl Rig {
    fn new(settings: QueueSettings) -> Self {
        let key = QueueKey {
            namespace: "guest".parse().expect("a valid name"),
            action: "guest/hello".parse().expect("a valid name"),
        };
        let action = ActionProfile {
            revision: Revision(1),
            concurrency: 1,
            instances: None,
            blackbox: false,
            timeout: Duration::from_secs(60),
            deleted: false,
            retry: Rare::new(),
        };
        let queue = MemoryQueue::new(key, Epoch(1), action, Arc::new(settings), Instant::ORIGIN);
        Self {
            queue,
            now: Instant::ORIGIN,
            out: Vec::new(),
            submitted: 0,
            is_throttled: false,
        }
    }

    fn tell(&mut self, input: Input<(), ()>) {
        let from = self.out.len();
        self.queue.step(self.now, input, &mut self.out);
        for output in &self.out[from..] {
            if let Output::SetThrottle(is_throttled) = output {
                self.is_throttled = *is_throttled;
            }
        }
    }

    fn submit(&mut self) {
        self.submitted += 1;
        let id = ActivationId::from_bytes(self.submitted.to_be_bytes());
        self.tell(Input::Submit {
            controller: ControllerId([1; 16]),
            id,
            attempt: 1,
            waited: Duration::ZERO,
            caller: None,
            payload: (),
            terms: Terms::default(),
        });
    }

    fn have(&mut self, count: usize) {
        let containers = (0..count).map(|rank| (container(rank), None)).collect();
        self.tell(Input::Granted {
            asked: 0,
            containers,
            revision: Revision(1),
        });
    }

    fn credit(&mut self, rank: usize, warmed: bool, count: u32) {
        self.tell(Input::Credit {
            invoker: INVOKER,
            container: container(rank),
            count,
            warmed,
        });
    }

    fn tick(&mut self) {
        self.tell(Input::Tick(NamespaceCounts {
            limit: 10,
            limit_over: 10,
            running: 0,
            in_progress: 0,
        }));
    }

    fn dropped(&self) -> usize {
        let is_drop = |output: &&Output<(), ()>| {
            matches!(
                output,
                Output::Complete {
                    outcome: Outcome::Failure { .. },
                    ..
                }
            )
        };
        self.out.iter().filter(is_drop).count()
    }

    fn served(&self) -> Vec<ContainerId> {
        let served = self.out.iter().filter_map(|output| match output {
            Output::Deliver { container, .. } => Some(*container),
            _ => None,
        });
        served.collect()
    }
}

pub(super) fn drop_old(input: &Fields<'_>, expect: &Fields<'_>) -> Result<(), String> {
    expect.only(&["dropped", "remaining"])?;
    let retention = Duration::from_millis(input.millis("retention_ms")?);
    let mut rig = Rig::new(QueueSettings {
        retention,
        ..QueueSettings::default()
    });
    for enqueued in input.list("enqueued_at_ms")? {
        rig.now = at(enqueued
            .as_u64()
            .ok_or("enqueued_at_ms holds something that is not a time")?);
        rig.submit();
    }
    rig.now = at(input.millis("now_ms")?);
    rig.tick();
    same("dropped", &expect.count("dropped")?, &rig.dropped())?;
    same(
        "remaining",
        &expect.count("remaining")?,
        &rig.queue.view().waiting,
    )
}

/// A queue with `size` waiting of at most `len_max`.
fn filled(input: &Fields<'_>, size: usize) -> Result<Rig, String> {
    let defaults = QueueSettings::default();
    let fraction = input
        .float("throttling_fraction")
        .unwrap_or(defaults.throttling_fraction);
    let len_max = input.count32("max_retention_size")?;
    let mut rig = Rig::new(QueueSettings {
        len_max,
        throttling_fraction: fraction,
        ..defaults
    });
    (0..size).for_each(|_| rig.submit());
    Ok(rig)
}

pub(super) fn action_throttle_on(input: &Fields<'_>, expect: &Fields<'_>) -> Result<(), String> {
    expect.only(&["throttled"])?;
    let rig = filled(input, input.count("size_after_enqueue")?)?;
    same("throttled", &expect.flag("throttled")?, &rig.is_throttled)
}

pub(super) fn action_throttle_off(input: &Fields<'_>, expect: &Fields<'_>) -> Result<(), String> {
    expect.only(&["throttled"])?;
    let rig = shrunk(input)?;
    same("throttled", &expect.flag("throttled")?, &rig.is_throttled)
}

/// Fills the queue to its limit and shrinks it to the size that the case names: by pulls, or as the field's name says.
fn shrunk(input: &Fields<'_>) -> Result<Rig, String> {
    let names = input.names();
    let name = names
        .iter()
        .find(|name| name.starts_with("size_after_"))
        .ok_or("field \"size_after_…\" is missing")?;
    let (size, len_max) = (input.count(name)?, input.count("max_retention_size")?);
    if size > len_max {
        return Err(format!("{name} is above max_retention_size"));
    }
    let mut rig = filled(input, 0)?;
    (size..len_max).for_each(|_| rig.submit());
    rig.now = at(30_000);
    (0..size).for_each(|_| rig.submit());
    same("throttled when full", &true, &rig.is_throttled)?;
    if *name == "size_after_pull" {
        rig.have(1);
        rig.credit(
            0,
            false,
            u32::try_from(len_max - size).map_err(|error| error.to_string())?,
        );
    } else {
        rig.now = at(60_000);
        rig.tick();
    }
    same("size", &size, &rig.queue.view().waiting)?;
    Ok(rig)
}

/// Ours is a function of the length alone, so key and state cannot disagree and any shrink ends it.
pub(super) fn throttle_by_length(
    kind: &str,
    input: &Fields<'_>,
    expect: &Fields<'_>,
) -> Result<Verdict, String> {
    let original = expect.flag("throttled")?;
    let len_max = input.count("max_retention_size")?;
    let (found, wanted) = if kind == "action_throttle_on" {
        let size = input.count("size_after_enqueue")?;
        (filled(input, size)?.is_throttled, size >= len_max)
    } else {
        let rig = shrunk(input)?;
        let released = len_max as f64 * input.float("throttling_fraction")?;
        (rig.is_throttled, rig.queue.view().waiting as f64 > released)
    };
    same("throttled by length", &wanted, &found)?;
    if found == original {
        return Ok(Verdict::AsOriginal);
    }
    let because =
        "throttling is derived from the length: on when full, off on any shrink to the release size";
    Ok(Verdict::Instead {
        original: format!("throttled={original}"),
        ours: format!("say throttled={found}"),
        because,
    })
}

pub(super) fn poll_order(input: &Fields<'_>, expect: &Fields<'_>) -> Result<(), String> {
    expect.only(&["served_in_order", "no_activation"])?;
    let polls: Option<Vec<(&str, bool)>> = input
        .list("polls")?
        .iter()
        .map(|poll| Some((poll[0].as_str()?, poll[1].as_bool()?)))
        .collect();
    let polls = polls.ok_or("polls holds something that is not [id, warmed]")?;
    // The original compares ids as texts; ours are numbers, given here in the order of the texts.
    let mut names: Vec<&str> = polls.iter().map(|(name, _)| *name).collect();
    names.sort_unstable();
    names.dedup();
    let rank = |name: &str| {
        names
            .iter()
            .position(|known| *known == name)
            .expect("a name of the list")
    };

    let mut rig = Rig::new(QueueSettings::default());
    rig.have(names.len());
    polls
        .iter()
        .for_each(|(name, warmed)| rig.credit(rank(name), *warmed, 1));
    (0..input.count("messages")?).for_each(|_| rig.submit());

    let served: Vec<&str> = rig.served().iter().map(|id| names[id.seq as usize - 1]).collect();
    let mut unserved: Vec<&str> = polls.iter().map(|(name, _)| *name).collect();
    for name in &served {
        let at = unserved
            .iter()
            .position(|other| other == name)
            .ok_or("a container got more than it asked for")?;
        unserved.remove(at);
    }
    unserved.sort_unstable();
    let texts = |name| -> Result<Vec<&str>, String> {
        expect
            .list(name)?
            .iter()
            .map(|id| id.as_str().ok_or_else(|| format!("{name} holds no texts")))
            .collect()
    };
    same("served_in_order", &texts("served_in_order")?, &served)?;
    let mut wanted = texts("no_activation")?;
    wanted.sort_unstable();
    same("no_activation", &wanted, &unserved)
}

/// Asks against activations: each ask gets at most one. Expectations are counts, told apart by their names.
pub(super) fn poll_count(input: &Fields<'_>, expect: &Fields<'_>) -> Result<(), String> {
    let polls = input.value("polls")?;
    let polls = polls
        .as_array()
        .map(Vec::len)
        .map_or_else(|| input.count("polls"), Ok)?;
    let mut rig = Rig::new(QueueSettings::default());
    rig.have(polls);
    (0..polls).for_each(|rank| rig.credit(rank, false, 1));
    (0..input.count("messages")?).for_each(|_| rig.submit());
    let served = rig.served().len();
    for name in expect.names() {
        let found = match name {
            _ if name.contains("no_activation") || name.contains("empty") => polls - served,
            _ if name.contains("remain") || name.contains("waiting") || name.contains("left") => {
                rig.queue.view().waiting
            }
            _ if name.contains("deliver") || name.contains("serve") || name.contains("activation") => served,
            _ => return Err(format!("nobody checks the expectation {name:?}")),
        };
        same(name, &expect.count(name)?, &found)?;
    }
    Ok(())
}
