//! The processes of a container: found through `/proc`, counted, signalled.
//!
//! A container is its proxy, every descendant of the proxy (orphans stay descendants: the proxy is their reaper), and
//! every member of the proxy's process group. Invariant: a process is signalled through a handle taken before its
//! start time was compared, so a reused process id is never hit.

use std::collections::BTreeMap;
use std::fs;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// A process, told apart from later ones with the same id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ProcessId {
    /// Process id.
    pub(crate) pid: i32,
    /// Start, in clock ticks since boot.
    pub(crate) start: u64,
}

/// What `/proc/<pid>/stat` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stat {
    id: ProcessId,
    parent: i32,
    group: i32,
    /// Dead and only waiting to be reaped.
    ended: bool,
}

/// What a container uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Usage {
    /// Memory of its processes that is not of files. Pages that forked processes share count for each of them.
    pub(crate) memory_at_most: u64,
    /// Processes and threads.
    pub(crate) tasks: u64,
}

impl ProcessId {
    /// The live process with this id.
    pub(crate) fn of(pid: u32) -> Option<Self> {
        read_stat(i32::try_from(pid).ok()?).map(|stat| stat.id)
    }

    /// Whether this very process exists and has not ended.
    pub(crate) fn is_alive(self) -> bool {
        read_stat(self.pid).is_some_and(|stat| stat.id == self && !stat.ended)
    }

    /// Sends a signal to this very process; nothing happens if it is gone.
    pub(crate) fn signal(self, signal: Signal) {
        let Some(pid) = Pid::from_raw(self.pid) else {
            return;
        };
        let Ok(handle) = pidfd_open(pid, PidfdFlags::empty()) else {
            return;
        };
        if read_stat(self.pid).is_some_and(|stat| stat.id == self) {
            // It may have ended since, which is as good.
            let _ = pidfd_send_signal(&handle, signal);
        }
    }
}

/// Every live process of the container with this proxy, the proxy last.
pub(crate) fn members(proxy: ProcessId) -> Vec<ProcessId> {
    let all = scan();
    let is_known = all.get(&proxy.pid).is_some_and(|stat| stat.id == proxy);
    let belongs =
        |stat: &&Stat| is_known && is_descendant(&all, **stat, proxy.pid) || stat.group == proxy.pid;
    // Whoever has the group's id but is older than the proxy is not of this group.
    let of_container = all
        .values()
        .filter(belongs)
        .filter(|stat| !stat.ended && stat.id.start >= proxy.start);
    let mut found: Vec<ProcessId> = of_container.map(|stat| stat.id).collect();
    found.sort_by_key(|id| *id == proxy);
    found
}

/// Kills what the container has now; true if there was nothing left to kill.
///
/// The proxy is stopped first, so that it starts nothing more, and killed last: until then it keeps every orphan in
/// its family, where the next round finds it.
pub(crate) fn kill_round(proxy: ProcessId) -> bool {
    let found = members(proxy);
    match &found[..] {
        [] => true,
        [last] => {
            last.signal(Signal::KILL);
            false
        }
        all => {
            proxy.signal(Signal::STOP);
            all.iter()
                .filter(|id| **id != proxy)
                .for_each(|id| id.signal(Signal::KILL));
            false
        }
    }
}

/// Stops or continues every process of the container.
pub(crate) fn signal_all(proxy: ProcessId, signal: Signal) {
    members(proxy).into_iter().for_each(|id| id.signal(signal));
}

/// Memory and tasks of the container. Follows the lists of children instead of looking at every process of the host:
/// this is asked several times a second.
pub(crate) fn usage(proxy: ProcessId) -> Usage {
    let mut usage = Usage::default();
    walk(proxy, |pid, tasks| {
        usage.memory_at_most += memory_at_most(pid).unwrap_or(0);
        usage.tasks += tasks;
    });
    usage
}

/// Memory of the container with every page counted once. The kernel walks page tables for it, so it is asked only
/// of containers that may be over their limit.
pub(crate) fn memory(proxy: ProcessId) -> u64 {
    let mut memory = 0;
    walk(proxy, |pid, _| {
        memory += proportional_memory(pid)
            .or_else(|| memory_at_most(pid))
            .unwrap_or(0)
    });
    memory
}

/// Visits the proxy and its descendants with the number of their threads.
fn walk(proxy: ProcessId, mut visit: impl FnMut(i32, u64)) {
    let mut left = vec![proxy.pid];
    while let Some(pid) = left.pop() {
        let mut threads = 0;
        let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else {
            continue;
        };
        for task in tasks.flatten() {
            threads += 1;
            let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
            left.extend(
                children
                    .split_ascii_whitespace()
                    .filter_map(|pid| pid.parse::<i32>().ok()),
            );
        }
        visit(pid, threads);
    }
}

/// Resident memory that is not of files.
fn memory_at_most(pid: i32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    let mut pages = text
        .split_ascii_whitespace()
        .skip(1)
        .map_while(|field| field.parse::<u64>().ok());
    let (resident, shared) = (pages.next()?, pages.next()?);
    Some(resident.saturating_sub(shared) * rustix::param::page_size() as u64)
}

/// Resident memory that is not of files, shared pages divided by those who share them.
fn proportional_memory(pid: i32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let kib = text.lines().filter_map(|line| {
        let value = line
            .strip_prefix("Pss_Anon:")
            .or_else(|| line.strip_prefix("Pss_Shmem:"))?;
        value.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()
    });
    kib.map(|kib| kib << 10).reduce(|sum, part| sum + part)
}

fn is_descendant(all: &BTreeMap<i32, Stat>, mut stat: Stat, ancestor: i32) -> bool {
    // The table is a snapshot of a moving forest: a step per process bounds even a loop.
    for _ in 0..all.len() {
        if stat.id.pid == ancestor {
            return true;
        }
        match all.get(&stat.parent) {
            Some(parent) => stat = *parent,
            None => return false,
        }
    }
    false
}

fn scan() -> BTreeMap<i32, Stat> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return BTreeMap::new();
    };
    let pids = entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter_map(|pid| Some((pid, read_stat(pid)?))).collect()
}

fn read_stat(pid: i32) -> Option<Stat> {
    parse_stat(pid, &fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// Fields are counted from the end of the program's name, which may hold anything.
fn parse_stat(pid: i32, text: &str) -> Option<Stat> {
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    let number = |at: usize| fields.get(at)?.parse::<i64>().ok();
    Some(Stat {
        id: ProcessId {
            pid,
            start: number(19)?.try_into().ok()?,
        },
        parent: number(1)?.try_into().ok()?,
        group: number(2)?.try_into().ok()?,
        ended: matches!(*fields.first()?, "Z" | "X"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_does_not_shift_the_fields() {
        let text = "42 (a) b (c) S 7 8 9 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 3 0 12345 1 2 3";
        let stat = parse_stat(42, text).unwrap();
        assert_eq!(
            (stat.id.start, stat.parent, stat.group, stat.ended),
            (12_345, 7, 8, false)
        );
        assert!(
            parse_stat(42, "42 (x) Z 1 42 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 5")
                .unwrap()
                .ended
        );
        assert_eq!(parse_stat(42, "42 (x"), None);
    }

    #[test]
    fn this_process_is_alive_and_a_later_one_with_its_id_is_another() {
        let me = ProcessId::of(std::process::id()).unwrap();
        assert!(me.is_alive());
        let other = ProcessId {
            start: me.start + 1,
            ..me
        };
        assert!(!other.is_alive());
        // Would end the test if it were sent.
        other.signal(Signal::KILL);
        assert!(usage(me).memory_at_most > 0 && usage(me).tasks > 0 && memory(me) > 0);
    }
}
