//! Cases of the queue, of creations and of placement, by kind. Those about the queue drive a real one.

use std::time::Duration;

use serde_json::Value;
use whiskraft_queue::{
    AverageRing, Backoff, BuiltInPlacement, Candidate, Candidates, CreationJob, CreationSettings,
    CreationStep, Placement as _, PlacementRequest, PlacementSettings, Random, Shortage, WarmContainer,
    action_limit, is_too_old, match_warm, partition,
};
use whiskraft_types::{ByteSize, ContainerId, CreationError, Instant, InvokerId, SessionId};

use crate::field::{Fields, Verdict, same};

mod queue;

/// Choices are random among equals, so each case is asked with this many seeds: all must agree.
const SEEDS: u64 = 32;

pub(crate) fn check(case: &Fields<'_>, flaw: Option<&str>) -> Result<Verdict, String> {
    let (input, expect) = (case.object("in")?, case.object("expect")?);
    let kind = case.text("kind")?;
    match (kind, flaw) {
        ("placement", Some(flaw @ ("W12" | "W13"))) => {
            return placement_without_overcommit(flaw, &input, &expect);
        }
        ("action_throttle_on" | "action_throttle_off", Some("W2" | "W3")) => {
            return queue::throttle_by_length(kind, &input, &expect);
        }
        ("placement", _) => return placement(&input, &expect),
        _ => {}
    }
    match kind {
        "drop_old" => queue::drop_old(&input, &expect),
        "action_throttle_on" => queue::action_throttle_on(&input, &expect),
        "action_throttle_off" => queue::action_throttle_off(&input, &expect),
        "poll_order" => queue::poll_order(&input, &expect),
        "poll_count" => queue::poll_count(&input, &expect),
        "too_old" => too_old(&input, &expect),
        "endpoint_lookup_attempts" => lookup_attempts(&input, &expect),
        "creation_ack" => creation_ack(&input, &expect),
        "creation_timeout" => creation_timeout(&input, &expect),
        "partition" => partition_sizes(&input, &expect),
        "memory_debit" => memory_debit(&input, &expect),
        "choose_invoker" => choose_invoker(&input, &expect),
        "warmed_filter" => warmed_filter(&input, &expect),
        "average" => average(&input, &expect),
        "action_limit" => limit_of_action(&input, &expect),
        other => Err(format!("unknown kind {other:?}")),
    }
    .map(|()| Verdict::AsOriginal)
}

fn too_old(input: &Fields<'_>, expect: &Fields<'_>) -> Result<(), String> {
    expect.only(&["accepted", "system_error"])?;
    let limit = Duration::from_millis(input.millis("max_scheduling_time_ms")?);
    let refused = is_too_old(Duration::from_millis(input.millis("age_ms")?), limit);
    same("accepted", &expect.flag("accepted")?, &!refused)?;
    same(
        "system_error",
        &expect.flag_or("system_error", refused)?,
        &refused,
    )
}

fn lookup_attempts(input: &Fields<'_>, expect: &Fields<'_>) -> Result<(), String> {
    expect.only(&["attempts", "waits_ms", "total_wait_ms"])?;
    let backoff = Backoff {
        base: Duration::from_millis(1),
        retries_max: input.count32("max_retries")?,
    };
    let waits: Vec<u128> = (0..)
        .map_while(|retries| backoff.wait(retries))
        .map(|wait| wait.as_millis())
        .collect();
    for name in expect.names() {
        match name {
            "attempts" => same("attempts", &expect.count("attempts")?, &(waits.len() + 1))?,
            "waits_ms" => {
                let wanted: Option<Vec<u128>> = expect
                    .list(name)?
                    .iter()
                    .map(|wait| wait.as_u64().map(u128::from))
                    .collect();
                same("waits", &wanted, &Some(waits.clone()))?;
            }
            _ => same(
                "sum of waits",
                &u128::from(expect.millis(name)?),
                &waits.iter().sum(),
            )?,
        }
    }
    Ok(())
}

fn creation_error(name: &str) -> Result<CreationError, String> {
    Ok(match name {
        "NoAvailableInvokersError" => CreationError::NoAvailableInvokers,
        "NoAvailableResourceInvokersError" => CreationError::NoAvailableResources,
        "ResourceNotEnoughError" => CreationError::ResourceNotEnough,
        "WhiskError" => CreationError::Whisk,
        "UnknownError" => CreationError::Unknown,
        "ShuttingDownError" => CreationError::ShuttingDown,
        "TimeoutError" => CreationError::Timeout,
        "ZeroNamespaceLimit" => CreationError::ZeroNamespaceLimit,
        "NonExecutableActionError" => CreationError::NonExecutable,
        "DBFetchError" => CreationError::Fetch,
        "BlackBoxError" => CreationError::BlackBox,
        // Nobody raises the second one; it is of the developer class, like the first.
        "InvalidActionLimitError" | "TooManyConcurrentRequests" => CreationError::InvalidLimit,
        other => return Err(format!("unknown creation error {other:?}")),
    })
}

fn creation_ack(input: &Fields<'_>, expect: &Fields<'_>) -> Result<(), String> {
    expect.only(&["outcome", "delay_ms", "error"])?;
    let container = ContainerId {
        session: SessionId(1),
        seq: 1,
    };
    let deadline = Instant::from_origin(Duration::from_secs(3600));
    let settings = CreationSettings::default();
    let mut job = CreationJob::resumed(
        container,
        deadline,
        input.count32("retry_count")?,
        settings.backoff,
    );
    let error = creation_error(input.text("error")?)?;
    let expected = match expect.text("outcome")? {
        "reschedule" => CreationStep::Retry {
            after: Duration::from_millis(expect.millis("delay_ms")?),
        },
        "failed" => CreationStep::Failed(error),
        other => return Err(format!("unknown outcome {other:?}")),
    };
    same("step", &expected, &job.on_error(Instant::ORIGIN, None, error))
}

fn creation_timeout(input: &Fields<'_>, expect: &Fields<'_>) -> Result<(), String> {
    expect.only(&["timeout_s"])?;
    let settings = CreationSettings {
        timeout: Duration::from_secs(input.millis("base_timeout_s")?),
        blackbox_multiple: input.count32("blackbox_multiple")?,
        ..CreationSettings::default()
    };
    let container = ContainerId {
        session: SessionId(1),
        seq: 1,
    };
    let job = CreationJob::new(container, Instant::ORIGIN, input.flag("blackbox")?, &settings);
    same(
        "timeout",
        &expect.millis("timeout_s")?,
        &job.deadline().since_origin().as_secs(),
    )
}

fn partition_sizes(input: &Fields<'_>, expect: &Fields<'_>) -> Result<(), String> {
    expect.only(&["managed", "blackbox"])?;
    let (managed, blackbox) = partition(
        input.count("untagged")?,
        input.float("managed_fraction")?,
        input.float("blackbox_fraction")?,
    );
    same("managed", &expect.count("managed")?, &managed)?;
    same("blackbox", &expect.count("blackbox")?, &blackbox)
}

fn candidate(index: usize, free_mb: u64, tags: Vec<String>) -> Candidate {
    Candidate {
        invoker: InvokerId(index as u64),
        usable: true,
        suspect: false,
        on_trial: false,
        total: ByteSize::mib(free_mb),
        free: ByteSize::mib(free_mb),
        tags,
        dedicated: Vec::new(),
        kinds: Vec::new(),
        zone: String::new(),
    }
}

fn request(memory_mb: u64) -> PlacementRequest {
    PlacementRequest {
        namespace: "guest".parse().expect("a valid name"),
        kind: "python:3".to_owned(),
        memory: ByteSize::mib(memory_mb),
        tags: Vec::new(),
        strict: true,
        blackbox: false,
        zones: std::collections::BTreeMap::new(),
        failed: Vec::new(),
        refused: Vec::new(),
    }
}

fn free_list(input: &Fields<'_>) -> Result<Vec<Candidate>, String> {
    let list = input.list("free_mb")?.iter().enumerate();
    list.map(|(index, free)| {
        let free = free
            .as_u64()
            .ok_or("free_mb holds something that is not a number")?;
        Ok(candidate(index, free, Vec::new()))
    })
    .collect()
}

fn memory_debit(input: &Fields<'_>, expect: &Fields<'_>) -> Result<(), String> {
    expect.only(&["free_mb"])?;
    let list = free_list(input)?;
    let count = list.len();
    let mut candidates = Candidates::new(list);
    let required = ByteSize::mib(input.millis("required_mb")?);
    candidates.debit(
        InvokerId(input.millis("invoker")?),
        required,
        ByteSize::mib(input.millis("min_mb")?),
    );
    let left: Vec<Value> = (0..count as u64)
        .map(|index| {
            candidates
                .left(InvokerId(index))
                .map_or(Value::Null, |left| left.as_mib().into())
        })
        .collect();
    same("free_mb", expect.list("free_mb")?, &left)
}

fn choose_invoker(input: &Fields<'_>, expect: &Fields<'_>) -> Result<(), String> {
    expect.only(&["invoker", "error"])?;
    let candidates = Candidates::new(free_list(input)?);
    let request = request(input.millis("required_mb")?);
    let wanted = expect.value("invoker")?;
    // The choice within one group: all of them are in the managed part.
    let settings = PlacementSettings {
        managed_fraction: 1.0,
        ..PlacementSettings::default()
    };
    let placement = BuiltInPlacement { settings };
    for seed in 0..SEEDS {
        match placement.place(&request, &mut candidates.clone(), &mut Random::seeded(seed)) {
            Ok(invoker) => check_choice(wanted, invoker)?,
            Err(shortage) => {
                same("invoker", wanted, &Value::Null)?;
                same(
                    "error",
                    &creation_error(expect.text("error")?)?,
                    &shortage.error(),
                )?;
            }
        }
    }
    Ok(())
}

/// An index, or a list of those that may come out.
fn check_choice(wanted: &Value, invoker: InvokerId) -> Result<(), String> {
    let index = Value::from(invoker.0);
    let is_wanted = wanted
        .as_array()
        .map_or(*wanted == index, |any_of| any_of.contains(&index));
    if is_wanted {
        Ok(())
    } else {
        Err(format!("invoker: expected {wanted}, found {index}"))
    }
}

struct Batch {
    candidates: Vec<Candidate>,
    requests: Vec<PlacementRequest>,
}

fn batch(input: &Fields<'_>) -> Result<Batch, String> {
    let texts = |fields: &Fields<'_>, name: &str| -> Result<Vec<String>, String> {
        let list = fields.list(name)?.iter();
        list.map(|tag| {
            tag.as_str()
                .map(str::to_owned)
                .ok_or_else(|| format!("{name} holds no texts"))
        })
        .collect()
    };
    let memory = input.millis("memory_mb")?;
    let candidates = input
        .list("invokers")?
        .iter()
        .enumerate()
        .map(|(index, invoker)| {
            let fields = Fields::new(invoker);
            Ok(candidate(
                index,
                fields.millis("free_mb")?,
                texts(&fields, "tags")?,
            ))
        });
    let requests = input.list("requests")?.iter().map(|wanted| {
        let fields = Fields::new(wanted);
        let blackbox = fields.flag_or("blackbox", false)? || fields.flag_or("pull", false)?;
        let (tags, strict) = (texts(&fields, "resources")?, fields.flag_or("strict", true)?);
        Ok(PlacementRequest {
            tags,
            strict,
            blackbox,
            ..request(memory)
        })
    });
    Ok(Batch {
        candidates: candidates.collect::<Result<_, String>>()?,
        requests: requests.collect::<Result<_, String>>()?,
    })
}

impl Batch {
    fn place(&self, seed: u64) -> Vec<Result<InvokerId, Shortage>> {
        let mut candidates = Candidates::new(self.candidates.iter().cloned());
        let mut random = Random::seeded(seed);
        let place = |request| BuiltInPlacement::default().place(request, &mut candidates, &mut random);
        self.requests.iter().map(place).collect()
    }
}

fn placement(input: &Fields<'_>, expect: &Fields<'_>) -> Result<Verdict, String> {
    expect.only(&["assign"])?;
    let batch = batch(input)?;
    let wanted = expect.list("assign")?;
    let mut verdict = Verdict::AsOriginal;
    for seed in 0..SEEDS {
        let placed = batch.place(seed);
        same("number of answers", &wanted.len(), &placed.len())?;
        for (wanted, placed) in wanted.iter().zip(placed) {
            match placed {
                Ok(invoker) => check_choice(wanted, invoker)?,
                Err(shortage) => {
                    let name = wanted
                        .as_str()
                        .ok_or_else(|| format!("expected {wanted}, found {shortage:?}"))?;
                    if let Some(instead) = check_shortage(name, shortage)? {
                        verdict = instead;
                    }
                }
            }
        }
    }
    Ok(verdict)
}

/// The original says that there is no invoker when all that there are lack memory, too; we tell the two apart, as
/// operators have to. Both are whisk errors: what follows is the same.
fn check_shortage(name: &str, shortage: Shortage) -> Result<Option<Verdict>, String> {
    let original = creation_error(name)?;
    if (original, shortage) == (CreationError::NoAvailableInvokers, Shortage::Memory) {
        return Ok(Some(Verdict::Instead {
            original: name.to_owned(),
            ours: format!("{:?}", shortage.error()),
            because: "an invoker without memory is still there",
        }));
    }
    same("error", &original, &shortage.error())?;
    Ok(None)
}

/// The original forgets debits within a batch. Ours never promise more than there is, and turn nobody away for whom
/// an invoker has room.
fn placement_without_overcommit(
    flaw: &str,
    input: &Fields<'_>,
    expect: &Fields<'_>,
) -> Result<Verdict, String> {
    let batch = batch(input)?;
    for seed in 0..SEEDS {
        let mut left: Vec<u64> = batch
            .candidates
            .iter()
            .map(|candidate| candidate.free.as_mib())
            .collect();
        for (request, placed) in batch.requests.iter().zip(batch.place(seed)) {
            let need = request.memory.as_mib();
            match placed {
                Ok(invoker) => {
                    let left = &mut left[invoker.0 as usize];
                    *left = left
                        .checked_sub(need)
                        .ok_or_else(|| format!("{flaw}: {invoker} is over-committed"))?;
                }
                Err(error) => {
                    let could = |(candidate, left): (&Candidate, &u64)| {
                        *left >= need
                            && (!request.strict
                                || request.tags.iter().all(|tag| candidate.tags.contains(tag)))
                    };
                    let is_wrong = batch.candidates.iter().zip(&left).any(could) && !request.blackbox;
                    if is_wrong {
                        return Err(format!(
                            "{flaw}: refused with {error:?} although an invoker has room"
                        ));
                    }
                }
            }
        }
    }
    let original = format!("{}", expect.value("assign")?);
    let ours = format!("assign {:?}", batch.place(0));
    let because = "every assignment is debited from what the ones before it left";
    Ok(Verdict::Instead {
        original,
        ours,
        because,
    })
}

fn warmed_filter(input: &Fields<'_>, expect: &Fields<'_>) -> Result<(), String> {
    expect.only(&["warmed"])?;
    let text = |value: &Value| {
        value
            .as_str()
            .map(str::to_owned)
            .ok_or_else(|| format!("{value} is not a text"))
    };
    let index = |value: &Value| {
        value
            .as_u64()
            .map(InvokerId)
            .ok_or_else(|| format!("{value} is not an invoker"))
    };
    let warm = input.list("warmed")?.iter().map(|warm| {
        Ok(WarmContainer {
            action: text(&warm[0])?,
            revision: text(&warm[1])?,
            invoker: index(&warm[2])?,
        })
    });
    let usable = input.list("usable_invokers")?.iter().map(index);
    let requests = input
        .list("requests")?
        .iter()
        .map(|request| Ok((text(&request[0])?, text(&request[1])?)));
    let found = match_warm(
        &warm.collect::<Result<Vec<_>, String>>()?,
        &usable.collect::<Result<Vec<_>, String>>()?,
        &requests.collect::<Result<Vec<_>, String>>()?,
    );
    let found: Vec<Value> = found
        .iter()
        .map(|hit| hit.map_or(Value::Null, |invoker| invoker.0.into()))
        .collect();
    same("warmed", expect.list("warmed")?, &found)
}

fn average(input: &Fields<'_>, expect: &Fields<'_>) -> Result<(), String> {
    expect.only(&["average"])?;
    let mut ring = AverageRing::new(input.count("buffer_size")?);
    for sample in input.list("samples")? {
        let millis = sample
            .as_f64()
            .ok_or_else(|| format!("sample {sample} is not a number"))?;
        ring.push(Duration::from_secs_f64(millis / 1000.0));
    }
    let found = ring.mean_ms().map(|mean| (mean * 1e6).round() / 1e6);
    let wanted = expect
        .value("average")?
        .as_f64()
        .map(|mean| (mean * 1e6).round() / 1e6);
    same("average", &wanted, &found)
}

fn limit_of_action(input: &Fields<'_>, expect: &Fields<'_>) -> Result<(), String> {
    expect.only(&["action_limit"])?;
    let instances = input.value("instances_limit")?;
    let instances = if instances.is_null() {
        None
    } else {
        Some(input.count32("instances_limit")?)
    };
    let found = action_limit(input.count32("namespace_limit")?, instances);
    same("action_limit", &expect.count32("action_limit")?, &found)
}
