//! Paused containers are used before new ones are created.

use whiskraft_types::InvokerId;

/// A paused container with its code loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WarmContainer<A, V> {
    /// What it runs.
    pub action: A,
    /// Which revision of it.
    pub revision: V,
    /// Where it is.
    pub invoker: InvokerId,
}

/// Gives each request a paused container of the same action and revision on a usable invoker, each at most once;
/// `None` is a cold start. The log grants slots by this rule; here it serves whoever plans without the log.
pub fn match_warm<A: PartialEq, V: PartialEq>(
    warm: &[WarmContainer<A, V>],
    usable: &[InvokerId],
    requests: &[(A, V)],
) -> Vec<Option<InvokerId>> {
    let mut free: Vec<Option<&WarmContainer<A, V>>> = warm.iter().map(Some).collect();
    let mut take = |action: &A, revision: &V| {
        let matches = |slot: &&mut Option<&WarmContainer<A, V>>| {
            slot.is_some_and(|warm| {
                warm.action == *action && warm.revision == *revision && usable.contains(&warm.invoker)
            })
        };
        free.iter_mut()
            .find(matches)
            .and_then(Option::take)
            .map(|warm| warm.invoker)
    };
    requests
        .iter()
        .map(|(action, revision)| take(action, revision))
        .collect()
}
