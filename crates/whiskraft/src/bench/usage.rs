//! What processes use while a run is measured, by role: processor time, memory, context switches.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::time::Duration;

use serde::Serialize;

use super::procfs::{self, Machine, Process, Switches};
use super::run_clock::RunClock;
use super::schedule::Window;

/// Role of the process that makes the load: this one.
pub(super) const OWN_ROLE: &str = "load";

/// Processes of one role, as `--watch` names them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Role {
    /// Its name, as `scheduler`.
    pub(crate) name: String,
    /// Its processes.
    pub(crate) pids: Vec<u32>,
}

impl FromStr for Role {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} must be ROLE=PID,…, for example scheduler=4711,4712");
        let (name, pids) = text
            .split_once('=')
            .filter(|(name, _)| !name.is_empty())
            .ok_or_else(wrong)?;
        if name == OWN_ROLE {
            return Err(format!(
                "{OWN_ROLE:?} is the process that makes the load, which is watched anyway"
            ));
        }
        let pids: Result<Vec<u32>, _> = pids.split(',').map(str::parse).collect();
        Ok(Self {
            name: name.to_owned(),
            pids: pids.map_err(|_| wrong())?,
        })
    }
}

/// All processes that are watched, this one too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Roles(BTreeMap<String, Vec<u32>>);

/// What everything had used at one moment.
#[derive(Debug, Clone)]
pub(super) struct Sample {
    /// When, from the start of the run.
    at: Duration,
    /// `None` for one that is gone.
    roles: BTreeMap<String, BTreeMap<u32, Option<Process>>>,
    machine: Option<Machine>,
}

/// What was seen of a measured window.
#[derive(Debug, Clone)]
pub(super) struct Watched {
    before: Sample,
    after: Sample,
    stood_still: Duration,
}

/// What the processes of a role used between two moments.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Usage {
    /// How many there are; a scheduler that is supervised is two.
    pub(crate) processes: u64,
    /// Of these, those that were gone at one of the two moments, and are not in the figures.
    pub(crate) gone: u64,
    /// Processor time in seconds.
    pub(crate) cpu_s: f64,
    /// Processors used on average.
    pub(crate) cores: f64,
    /// Processor time in seconds for 1,000 activations that ended well in that time.
    pub(crate) cpu_s_per_1000: Option<f64>,
    /// Resident memory of all of them together at the end, in MiB.
    pub(crate) resident_mib: f64,
    /// The most that the largest of them ever had, in MiB.
    pub(crate) resident_max_mib: f64,
    /// Context switches per second because a thread waited.
    pub(crate) voluntary_per_s: f64,
    /// Context switches per second because another thread was to run.
    pub(crate) involuntary_per_s: f64,
}

/// What all of that and everything else used.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Used {
    /// Time between the two moments, in seconds.
    pub(crate) over_s: f64,
    /// By role.
    pub(crate) roles: BTreeMap<String, Usage>,
    /// Processors that the whole machine used on average.
    pub(crate) machine_cores: Option<f64>,
    /// Of these, used by processes that are not watched.
    pub(crate) others_cores: Option<f64>,
    /// Processors that a hypervisor gave to others meanwhile.
    pub(crate) stolen_cores: Option<f64>,
    /// Longest time for which this process, or the machine, stood still, in seconds.
    pub(crate) stood_still_s: f64,
}

impl Roles {
    /// These and this process. The same role may be named more than once. A supervisor comes with its scheduler.
    pub(crate) fn new(named: impl IntoIterator<Item = Role>) -> Self {
        let mut roles = BTreeMap::from([(OWN_ROLE.to_owned(), vec![std::process::id()])]);
        for role in named {
            let pids: &mut Vec<u32> = roles.entry(role.name).or_default();
            pids.extend(role.pids);
        }
        Self(roles)
    }

    /// The first process that is not there, if one is not.
    pub(crate) fn missing(&self) -> Option<u32> {
        let mut all = self.0.values().flatten();
        all.find(|pid| procfs::process(**pid).is_err()).copied()
    }

    /// What each has used so far.
    pub(super) fn sample(&self, at: Duration) -> Sample {
        let read = |pids: &Vec<u32>| {
            // A supervisor may have started its scheduler just now.
            let all = pids
                .iter()
                .flat_map(|pid| std::iter::once(*pid).chain(procfs::supervised_by(*pid)));
            all.map(|pid| (pid, procfs::process(pid).ok())).collect()
        };
        Sample {
            at,
            roles: self
                .0
                .iter()
                .map(|(name, pids)| (name.clone(), read(pids)))
                .collect(),
            machine: procfs::machine().ok(),
        }
    }
}

impl Roles {
    /// Lets a window pass, with a look now and then, and samples at both of its ends.
    pub(super) async fn watch(&self, clock: RunClock, window: Window, look: impl Fn()) -> Watched {
        clock.pass(window.from, &look).await;
        let before = self.sample(clock.elapsed());
        let stood_still = clock.pass(window.to, &look).await;
        Watched {
            before,
            after: self.sample(clock.elapsed()),
            stood_still,
        }
    }

    /// Samples before and after some work.
    pub(super) async fn during(&self, clock: RunClock, work: impl Future<Output = ()>) -> Watched {
        let before = self.sample(clock.elapsed());
        work.await;
        Watched {
            before,
            after: self.sample(clock.elapsed()),
            stood_still: Duration::ZERO,
        }
    }
}

impl Watched {
    /// What was used in it, while so many ended well.
    pub(super) fn used(&self, done: u64) -> Used {
        Used {
            stood_still_s: self.stood_still.as_secs_f64(),
            ..self.before.until(&self.after, done)
        }
    }
}

impl Sample {
    /// What was used from `self` to `later`, in which so many activations ended well.
    pub(super) fn until(&self, later: &Self, done: u64) -> Used {
        let over = later.at.saturating_sub(self.at);
        let role = |(name, after): (&String, &BTreeMap<u32, Option<Process>>)| {
            let before = self.roles.get(name)?;
            Some((name.clone(), usage(before, after, over, done)))
        };
        let roles: BTreeMap<String, Usage> = later.roles.iter().filter_map(role).collect();
        let machine = self.machine.zip(later.machine);
        let cores = |part: fn(Machine) -> Duration| {
            machine.map(|(before, after)| {
                per_second(part(after).saturating_sub(part(before)).as_secs_f64(), over)
            })
        };
        let machine_cores = cores(|machine| machine.busy);
        let watched: f64 = roles.values().map(|usage| usage.cores).sum();
        Used {
            over_s: over.as_secs_f64(),
            machine_cores,
            others_cores: machine_cores.map(|cores| (cores - watched).max(0.0)),
            stolen_cores: cores(|machine| machine.stolen),
            stood_still_s: 0.0,
            roles,
        }
    }
}

fn usage(
    before: &BTreeMap<u32, Option<Process>>,
    after: &BTreeMap<u32, Option<Process>>,
    over: Duration,
    done: u64,
) -> Usage {
    let both = |(pid, after): (&u32, &Option<Process>)| {
        let after = after.clone()?;
        // One that was not there at all has begun since.
        let new = || {
            Some(Process {
                began_ticks: after.began_ticks,
                ..Process::default()
            })
        };
        let before = before.get(pid).cloned().unwrap_or_else(new)?;
        (before.began_ticks == after.began_ticks).then_some((before, after))
    };
    let pairs: Vec<(Process, Process)> = after.iter().filter_map(both).collect();
    let cpu: Duration = pairs
        .iter()
        .map(|(before, after)| after.cpu.saturating_sub(before.cpu))
        .sum();
    let (mut voluntary, mut involuntary) = (0, 0);
    for (before, after) in &pairs {
        let more = switches(before, after);
        voluntary += more.voluntary;
        involuntary += more.involuntary;
    }
    let resident: u64 = pairs.iter().map(|(_, after)| after.resident).sum();
    let resident_max = pairs.iter().map(|(_, after)| after.resident_max).max();
    Usage {
        processes: after.len() as u64,
        gone: (after.len() - pairs.len()) as u64,
        cpu_s: cpu.as_secs_f64(),
        cores: per_second(cpu.as_secs_f64(), over),
        cpu_s_per_1000: (done > 0).then(|| cpu.as_secs_f64() * 1000.0 / done as f64),
        resident_mib: mib(resident),
        resident_max_mib: mib(resident_max.unwrap_or(0)),
        voluntary_per_s: per_second(voluntary as f64, over),
        involuntary_per_s: per_second(involuntary as f64, over),
    }
}

/// Switches between two moments of the threads that live at the second; one that is new began with none.
fn switches(before: &Process, after: &Process) -> Switches {
    let mut sum = Switches::default();
    for (thread, now) in &after.threads {
        let then = before.threads.get(thread).copied().unwrap_or_default();
        sum.voluntary += now.voluntary.saturating_sub(then.voluntary);
        sum.involuntary += now.involuntary.saturating_sub(then.involuntary);
    }
    sum
}

fn per_second(count: f64, over: Duration) -> f64 {
    if over.is_zero() {
        0.0
    } else {
        count / over.as_secs_f64()
    }
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(cpu_ms: u64, resident_mib: u64, threads: &[(u32, u64, u64)]) -> Process {
        let thread = |(id, voluntary, involuntary): &(u32, u64, u64)| {
            let switches = Switches {
                voluntary: *voluntary,
                involuntary: *involuntary,
            };
            (*id, switches)
        };
        Process {
            began_ticks: 7,
            cpu: Duration::from_millis(cpu_ms),
            resident: resident_mib << 20,
            resident_max: (resident_mib + 1) << 20,
            threads: threads.iter().map(thread).collect(),
        }
    }

    fn sample(at_s: u64, busy_s: u64, processes: [Option<Process>; 2]) -> Sample {
        let [one, two] = processes;
        let busy = Duration::from_secs(busy_s);
        Sample {
            at: Duration::from_secs(at_s),
            roles: [("scheduler".to_owned(), [(1, one), (2, two)].into())].into(),
            machine: Some(Machine {
                busy,
                stolen: Duration::ZERO,
            }),
        }
    }

    #[test]
    fn roles_are_read_as_they_are_written() {
        let role: Role = "scheduler=12,13".parse().unwrap();
        assert_eq!((role.name.as_str(), &role.pids[..]), ("scheduler", &[12, 13][..]));
        for text in [
            "12",
            "=12",
            "scheduler=",
            "scheduler=a",
            "scheduler=1;2",
            "load=1",
        ] {
            assert!(text.parse::<Role>().is_err(), "{text}");
        }
        let roles = Roles::new([role.clone(), role]);
        assert_eq!(roles.0["scheduler"], [12, 13, 12, 13]);
        assert_eq!(roles.0[OWN_ROLE], [std::process::id()]);
        assert_eq!(Roles::new([]).missing(), None);
    }

    #[test]
    fn use_is_the_difference_of_two_moments_by_role() {
        let before = [
            Some(process(1000, 10, &[(1, 100, 10), (2, 50, 5)])),
            Some(process(500, 20, &[])),
        ];
        let after = [
            Some(process(3000, 12, &[(1, 300, 20), (3, 100, 30)])),
            Some(process(1500, 30, &[])),
        ];
        let used = sample(10, 100, before).until(&sample(20, 108, after), 2000);
        let scheduler = &used.roles["scheduler"];
        assert_eq!((scheduler.processes, scheduler.gone), (2, 0));
        assert_eq!((scheduler.cpu_s, scheduler.cores), (3.0, 0.3));
        assert_eq!(scheduler.cpu_s_per_1000, Some(1.5));
        assert_eq!((scheduler.resident_mib, scheduler.resident_max_mib), (42.0, 31.0));
        assert_eq!(
            (scheduler.voluntary_per_s, scheduler.involuntary_per_s),
            (30.0, 4.0)
        );
        assert_eq!((used.over_s, used.machine_cores), (10.0, Some(0.8)));
        assert_eq!(used.others_cores, Some(0.5));
    }

    #[test]
    fn a_process_that_ended_or_is_another_one_is_not_counted() {
        let other = Process {
            began_ticks: 8,
            ..process(9000, 1, &[])
        };
        let before = [Some(process(1000, 10, &[])), Some(process(1000, 10, &[]))];
        let used = sample(0, 0, before).until(&sample(1, 1, [None, Some(other)]), 0);
        let scheduler = &used.roles["scheduler"];
        assert_eq!((scheduler.gone, scheduler.cpu_s), (2, 0.0));
        assert_eq!(scheduler.cpu_s_per_1000, None);
    }
}
