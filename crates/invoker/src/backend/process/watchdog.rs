//! Watches what containers use while they run something, and ends those that go over a limit.
//!
//! The kernel's own limits (set by the proxy) stop a single process from taking very much at once; this one adds up
//! the processes of a container.

use std::sync::Arc;

use super::WeakBackend;
use super::container::{Container, Exceeded};
use super::group;

/// Idle containers are looked at once in so many checks: only a process left in the background can grow there.
const IDLE_EVERY: u32 = 20;

/// Checks again and again until the backend is gone.
pub(crate) async fn run(backend: WeakBackend) {
    for check in 0_u32.. {
        let Some(interval) = backend.upgrade().map(|backend| backend.config.check_interval) else {
            return;
        };
        tokio::time::sleep(interval).await;
        let Some(backend) = backend.upgrade() else { return };
        let all = check.is_multiple_of(IDLE_EVERY);
        let watched: Vec<_> = backend
            .all()
            .into_iter()
            .filter(|container| all || container.is_busy())
            .collect();
        if watched.is_empty() {
            continue;
        }
        let processes_max = u64::from(backend.config.processes_max);
        drop(backend);
        let found = tokio::task::spawn_blocking(move || over_limit(watched, processes_max)).await;
        for (container, exceeded, note) in found.unwrap_or_default() {
            tracing::debug!(container = %container.instance, note, "container over its limit");
            // On its own: one that is slow to die must not keep the others from being watched.
            tokio::spawn(async move { container.exceed(exceeded, &note).await });
        }
    }
}

fn over_limit(watched: Vec<Arc<Container>>, processes_max: u64) -> Vec<(Arc<Container>, Exceeded, String)> {
    let judged = watched.into_iter().filter_map(|container| {
        let usage = group::usage(container.proxy);
        let memory_max = container.memory.as_bytes();
        let may_be_over = usage.memory_at_most > memory_max;
        let memory = if may_be_over {
            group::memory(container.proxy)
        } else {
            0
        };
        if memory > memory_max {
            let note = format!("The action used {memory} of {memory_max} bytes of memory.");
            return Some((container, Exceeded::Memory, note));
        }
        if usage.tasks > processes_max {
            let note = format!(
                "The action had {} of {processes_max} processes and threads.",
                usage.tasks
            );
            return Some((container, Exceeded::Processes, note));
        }
        None
    });
    judged.collect()
}
