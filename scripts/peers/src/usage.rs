//! What processes use, from `/proc`: processor time and resident memory.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};

/// Ticks of processor time per second that Linux tells on every platform we build for.
const TICKS_PER_SECOND: f64 = 100.0;

/// Processor time used so far, in seconds.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Reading {
    /// By the processes that are watched, together.
    servers: f64,
    /// By this process.
    load: f64,
    /// By everything on the machine.
    machine: f64,
}

/// What was used between two readings.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Used {
    /// Processor seconds of the servers.
    pub(crate) servers_cpu_s: f64,
    /// Processors that the servers used.
    pub(crate) servers_cores: f64,
    /// Processors that this process used.
    pub(crate) load_cores: f64,
    /// Processors that everything else used.
    pub(crate) others_cores: f64,
}

impl Reading {
    /// Reads all of them.
    ///
    /// # Errors
    /// If a server is gone.
    pub(crate) fn take(servers: &[u32]) -> Result<Self> {
        let mut reading = Self {
            load: process_cpu("self")?,
            machine: machine_cpu()?,
            servers: 0.0,
        };
        for pid in servers {
            reading.servers += process_cpu(&pid.to_string())?;
        }
        Ok(reading)
    }

    /// What was used since an earlier reading.
    pub(crate) fn since(&self, earlier: &Self, time: Duration) -> Used {
        let cores = |cpu_s: f64| cpu_s / time.as_secs_f64();
        let (servers, load) = (self.servers - earlier.servers, self.load - earlier.load);
        let others = (self.machine - earlier.machine - servers - load).max(0.0);
        Used {
            servers_cpu_s: servers,
            servers_cores: cores(servers),
            load_cores: cores(load),
            others_cores: cores(others),
        }
    }
}

/// Resident memory of each process, in MiB.
///
/// # Errors
/// If one is gone.
pub(crate) fn resident_mib(pids: &[u32]) -> Result<Vec<f64>> {
    let resident = |pid: &u32| {
        let status = read(&format!("/proc/{pid}/status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|rest| rest.split_whitespace().next()?.parse::<f64>().ok());
        Ok(kib.with_context(|| format!("process {pid} tells no resident memory"))? / 1024.0)
    };
    pids.iter().map(resident).collect()
}

/// Load average of the last minute, and the name of the processor.
pub(crate) fn machine() -> (Option<f64>, String) {
    let load = fs::read_to_string("/proc/loadavg").ok();
    let load = load.and_then(|text| text.split_whitespace().next()?.parse().ok());
    let processors = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = processors
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    (load, name.map_or_else(String::new, |(_, name)| name.to_owned()))
}

fn process_cpu(pid: &str) -> Result<f64> {
    let stat = read(&format!("/proc/{pid}/stat"))?;
    // The name stands in brackets and may hold anything; user and system time are fields 14 and 15 of all.
    let ticks = stat.rsplit_once(')').and_then(|(_, rest)| {
        let fields: Vec<&str> = rest.split_whitespace().collect();
        Some(fields.get(11)?.parse::<f64>().ok()? + fields.get(12)?.parse::<f64>().ok()?)
    });
    Ok(ticks.with_context(|| format!("/proc/{pid}/stat is not understood"))? / TICKS_PER_SECOND)
}

/// Everything but idling, waiting for disks, and what the hypervisor gave to others.
fn machine_cpu() -> Result<f64> {
    let stat = read("/proc/stat")?;
    let fields: Vec<f64> = stat
        .lines()
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .filter_map(|field| field.parse().ok())
        .collect();
    match fields[..] {
        [user, nice, system, _idle, _wait, irq, soft_irq, ..] => {
            Ok((user + nice + system + irq + soft_irq) / TICKS_PER_SECOND)
        }
        _ => anyhow::bail!("/proc/stat is not understood"),
    }
}

fn read(path: &str) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {path}: has the process ended?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_read() {
        let own = [std::process::id()];
        assert!(resident_mib(&own).unwrap()[0] > 0.1);
        let before = Reading::take(&own).unwrap();
        let used = Reading::take(&own)
            .unwrap()
            .since(&before, Duration::from_secs(1));
        assert!(used.servers_cores >= 0.0 && used.others_cores >= 0.0);
        assert!(Reading::take(&[u32::MAX]).is_err());
    }
}
