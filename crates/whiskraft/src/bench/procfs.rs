//! What Linux tells of processes and of the machine in `/proc`: reading and parsing, nothing else.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;
use std::{fs, io};

use crate::role::scheduler::SUPERVISED;

/// What a process has used since it began.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Process {
    /// When it began, in ticks since the machine did: tells it from a later one with the same number.
    pub(super) began_ticks: u64,
    /// Processor time in user and kernel mode, of all threads, ended ones too. In steps of a tick, usually 10 ms.
    pub(super) cpu: Duration,
    /// Resident memory in bytes.
    pub(super) resident: u64,
    /// The most it has been.
    pub(super) resident_max: u64,
    /// Context switches of each thread that lives.
    pub(super) threads: BTreeMap<u32, Switches>,
}

/// How often a thread was taken off a processor.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Switches {
    /// Because it waited for something.
    pub(super) voluntary: u64,
    /// Because another one was to run.
    pub(super) involuntary: u64,
}

/// Processor time of the whole machine since it began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Machine {
    /// Time in which something ran, over all processors.
    pub(super) busy: Duration,
    /// Time that a hypervisor gave to others meanwhile.
    pub(super) stolen: Duration,
}

/// Reads a process.
///
/// # Errors
/// If there is none, or the system tells of it in a way that is not understood.
pub(super) fn process(pid: u32) -> io::Result<Process> {
    let dir = Path::new("/proc").join(pid.to_string());
    let stat = fs::read_to_string(dir.join("stat"))?;
    let status = fs::read_to_string(dir.join("status"))?;
    let odd = || {
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!("{} is not understood", dir.display()),
        )
    };
    let (began_ticks, cpu) = parse_stat(&stat, ticks_per_second()).ok_or_else(odd)?;
    let (resident, resident_max) = parse_memory(&status).ok_or_else(odd)?;
    Ok(Process {
        began_ticks,
        cpu,
        resident,
        resident_max,
        threads: threads(&dir)?,
    })
}

/// Whether there is still something of a process: one that dies has no memory any more before its files and sockets are closed.
pub(super) fn exists(pid: u32) -> bool {
    Path::new("/proc").join(pid.to_string()).exists()
}

/// Processes that this one has started and that have not been waited for; none if the system does not tell.
pub(super) fn children(pid: u32) -> Vec<u32> {
    let tasks = fs::read_dir(Path::new("/proc").join(pid.to_string()).join("task"));
    let of_task =
        |entry: io::Result<fs::DirEntry>| fs::read_to_string(entry.ok()?.path().join("children")).ok();
    let texts: Vec<String> = tasks.into_iter().flatten().filter_map(of_task).collect();
    let pids = texts.iter().flat_map(|text| text.split_whitespace());
    pids.filter_map(|pid| pid.parse().ok()).collect()
}

/// The scheduler that a process supervises, if it supervises one.
pub(super) fn supervised_by(pid: u32) -> Option<u32> {
    children(pid).into_iter().find(|child| {
        let line = fs::read(format!("/proc/{child}/cmdline")).unwrap_or_default();
        line.split(|byte| *byte == 0)
            .any(|word| word == SUPERVISED.as_bytes())
    })
}

/// Threads that end while they are looked at are left out.
fn threads(dir: &Path) -> io::Result<BTreeMap<u32, Switches>> {
    let entries = fs::read_dir(dir.join("task"))?;
    let thread = |entry: io::Result<fs::DirEntry>| {
        let entry = entry.ok()?;
        let id = entry.file_name().to_str()?.parse().ok()?;
        let status = fs::read_to_string(entry.path().join("status")).ok()?;
        Some((id, parse_switches(&status)?))
    };
    Ok(entries.filter_map(thread).collect())
}

/// Reads the machine.
///
/// # Errors
/// If the system does not tell, or in a way that is not understood.
pub(super) fn machine() -> io::Result<Machine> {
    let stat = fs::read_to_string("/proc/stat")?;
    parse_machine(&stat, ticks_per_second())
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "/proc/stat is not understood"))
}

/// Load average of the last minute; `None` if the system does not tell.
pub(super) fn load_average() -> Option<f64> {
    fs::read_to_string("/proc/loadavg")
        .ok()?
        .split_whitespace()
        .next()?
        .parse()
        .ok()
}

/// Name of the processor; empty if the system does not tell.
pub(super) fn processor() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = text.lines().find_map(|line| line.strip_prefix("model name"));
    name.and_then(|name| name.split_once(':'))
        .map(|(_, name)| name.trim().to_owned())
        .unwrap_or_default()
}

fn ticks_per_second() -> u64 {
    rustix::param::clock_ticks_per_second().max(1)
}

fn ticks(count: u64, per_second: u64) -> Duration {
    Duration::from_nanos(count.saturating_mul(1_000_000_000 / per_second))
}

/// Begin and processor time. The name, in brackets, may hold anything, brackets and spaces too.
fn parse_stat(text: &str, per_second: u64) -> Option<(u64, Duration)> {
    let (_, rest) = text.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    // The first of these is field 3 of proc(5); user time is 14, system time 15, begin 22.
    let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    Some((field(22)?, ticks(field(14)? + field(15)?, per_second)))
}

/// Resident memory now and at most, in bytes.
fn parse_memory(status: &str) -> Option<(u64, u64)> {
    let kib = |name: &str| {
        let value = value(status, name)?.trim_end_matches("kB").trim_end();
        value.parse::<u64>().ok().map(|kib| kib * 1024)
    };
    Some((kib("VmRSS")?, kib("VmHWM")?))
}

fn parse_switches(status: &str) -> Option<Switches> {
    let count = |name: &str| value(status, name)?.parse().ok();
    Some(Switches {
        voluntary: count("voluntary_ctxt_switches")?,
        involuntary: count("nonvoluntary_ctxt_switches")?,
    })
}

/// What follows `name:` in a status file.
fn value<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    let after = |line: &'a str| line.strip_prefix(name)?.strip_prefix(':');
    status.lines().find_map(after).map(str::trim)
}

/// Sums over all processors, from the first line of `/proc/stat`.
fn parse_machine(text: &str, per_second: u64) -> Option<Machine> {
    let line = text.lines().next()?.strip_prefix("cpu ")?;
    let fields: Vec<u64> = line
        .split_whitespace()
        .map_while(|field| field.parse().ok())
        .collect();
    // user nice system idle iowait irq softirq steal; guests are in user already.
    let [user, nice, system, _idle, _iowait, irq, softirq, steal, ..] = fields[..] else {
        return None;
    };
    Some(Machine {
        busy: ticks(user + nice + system + irq + softirq, per_second),
        stolen: ticks(steal, per_second),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_with_an_odd_name_is_read() {
        let text =
            "4321 (a b) (c) d) S 1 4321 4321 0 -1 4194560 9 0 0 0 250 75 0 0 20 0 9 0 98765 1000 200 184 1";
        let (began, cpu) = parse_stat(text, 100).unwrap();
        assert_eq!((began, cpu), (98_765, Duration::from_millis(3250)));
        assert_eq!(parse_stat("4321 (a) S 1", 100), None);
        assert_eq!(parse_stat("", 100), None);
    }

    #[test]
    fn memory_and_switches_are_found_by_name() {
        let status = "Name:\twhiskraft\nVmPeak:\t  900 kB\nVmHWM:\t   2048 kB\nVmRSS:\t   1024 kB\nThreads:\t3\n\
                      voluntary_ctxt_switches:\t150\nnonvoluntary_ctxt_switches:\t7\n";
        assert_eq!(parse_memory(status), Some((1024 * 1024, 2048 * 1024)));
        let switches = Switches {
            voluntary: 150,
            involuntary: 7,
        };
        assert_eq!(parse_switches(status), Some(switches));
        assert_eq!(
            parse_memory("Name:\tkthreadd\n"),
            None,
            "a thread of the kernel has none"
        );
    }

    #[test]
    fn the_machine_is_busy_with_all_but_waiting() {
        let text = "cpu  100 20 30 4000 500 6 4 7 50 0\ncpu0 1 2 3 4 5 6 7 8 9 0\n";
        let machine = parse_machine(text, 100).unwrap();
        assert_eq!(machine.busy, Duration::from_millis(1600));
        assert_eq!(machine.stolen, Duration::from_millis(70));
        assert_eq!(parse_machine("cpu  1 2 3\n", 100), None);
    }

    #[test]
    fn this_process_is_there_and_uses_memory() {
        let own = process(std::process::id()).unwrap();
        assert!(own.resident > 0 && own.resident_max >= own.resident && !own.threads.is_empty());
        assert!(machine().unwrap().busy >= own.cpu);
        assert!(process(u32::MAX).is_err());
    }

    #[test]
    fn a_process_that_was_started_is_found() {
        let own = std::process::id();
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        assert!(children(own).contains(&child.id()));
        assert_eq!(children(child.id()), [0_u32; 0]);
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!children(own).contains(&child.id()));
    }
}
