//! What each activation is: its queue, its arguments, and whether it is durable. All of it follows from its number, so that
//! two runs of a plan ask for the same.

use whiskraft_types::{ActionName, NameError, NamespaceName, QueueKey};

use super::arguments::Arguments;
use super::plan::Plan;

/// Activations by number.
#[derive(Debug)]
pub(super) struct Mix {
    queues: Vec<QueueKey>,
    durable_percent: u32,
    arguments: Arguments,
}

impl Mix {
    /// The activations of a plan.
    ///
    /// # Errors
    /// If the prefix makes no names.
    pub(super) fn new(plan: &Plan) -> Result<Self, NameError> {
        let queues = (0..plan.actions).map(|action| queue(plan, action));
        Ok(Self {
            queues: queues.collect::<Result<_, _>>()?,
            durable_percent: plan.durable_percent,
            arguments: Arguments::new(plan.run_ms, plan.payload_bytes),
        })
    }

    /// All queues, the one of action 0 first.
    pub(super) fn queues(&self) -> &[QueueKey] {
        &self.queues
    }

    /// The queue of activation `n`: one after the other, so that each gets its part at once.
    pub(super) fn queue(&self, n: u64) -> &QueueKey {
        let count = self.queues.len() as u64;
        &self.queues[usize::try_from(n % count).expect("below a length")]
    }

    /// Whether activation `n` is durable. Drawn, so that no queue gets only such.
    pub(super) fn is_durable(&self, n: u64) -> bool {
        drawn(n) % 100 < u64::from(self.durable_percent)
    }

    /// The arguments of activation `n`.
    pub(super) fn arguments(&self, n: u64) -> String {
        self.arguments.text(n)
    }
}

/// Name of namespace number `n`.
pub(super) fn namespace(prefix: &NamespaceName, n: u32) -> Result<NamespaceName, NameError> {
    format!("{prefix}-{n}").parse()
}

fn queue(plan: &Plan, action: u32) -> Result<QueueKey, NameError> {
    let namespace = namespace(&plan.prefix, action % plan.namespaces)?;
    let action: ActionName = format!("{namespace}/a{}", action / plan.namespaces).parse()?;
    Ok(QueueKey { namespace, action })
}

/// A number that looks drawn and is the same in every run (splitmix64).
fn drawn(n: u64) -> u64 {
    let mut state = n.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    state ^ (state >> 31)
}

#[cfg(test)]
mod tests {
    use super::super::plan::tests::plan;
    use super::*;

    fn mix(actions: u32, namespaces: u32, durable_percent: u32) -> Mix {
        Mix::new(&Plan {
            actions,
            namespaces,
            durable_percent,
            ..plan()
        })
        .unwrap()
    }

    #[test]
    fn actions_take_turns_over_all_namespaces() {
        let mix = mix(5, 2, 0);
        let names: Vec<_> = (0..6).map(|n| mix.queue(n).action.to_string()).collect();
        assert_eq!(
            names,
            [
                "bench-0/a0",
                "bench-1/a0",
                "bench-0/a1",
                "bench-1/a1",
                "bench-0/a2",
                "bench-0/a0"
            ]
        );
        assert_eq!(mix.queue(3).namespace.as_str(), "bench-1");
        assert_eq!(mix.queues().len(), 5);
    }

    #[test]
    fn a_share_of_the_activations_of_every_queue_is_durable() {
        let count = |mix: &Mix, numbers: &mut dyn Iterator<Item = u64>| {
            numbers.filter(|n| mix.is_durable(*n)).count()
        };
        let some = mix(10, 1, 30);
        for queue in 0..10 {
            let of_queue = count(&some, &mut (0..10_000).map(|n| n * 10 + queue));
            assert!((2800..3200).contains(&of_queue), "{of_queue}");
        }
        assert_eq!(count(&mix(10, 1, 0), &mut (0..1000)), 0);
        assert_eq!(count(&mix(10, 1, 100), &mut (0..1000)), 1000);
    }
}
