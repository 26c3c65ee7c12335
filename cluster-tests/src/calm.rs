//! A cluster between two faults: everybody up, everybody known.

use std::time::Duration;

use whiskraft_client::Client;

use crate::cluster::Cluster;
use crate::wait::until;

/// Time to get calm; far above what it takes, so that only a hang fails.
const CALM_LIMIT: Duration = Duration::from_secs(60);

impl Cluster {
    /// Waits until every scheduler runs and holds a session.
    ///
    /// # Panics
    /// When one has ended by itself, or does not get a session.
    pub async fn healed(&mut self) {
        let ids: Vec<u64> = self.schedulers.keys().copied().collect();
        for id in ids {
            let member = self.schedulers.get_mut(&id).expect("a scheduler of this cluster");
            let is_running = member.is_running();
            assert!(is_running, "scheduler {id} ended by itself:\n{}", self.logs());
            until("the scheduler holds a session", CALM_LIMIT, async || {
                let status = self.status_of(id).await?;
                let all_known = status.nodes.iter().all(|node| node.session.is_some());
                (!status.fenced && all_known).then_some(())
            })
            .await;
        }
    }

    /// So many new clients.
    pub async fn clients(&self, count: usize) -> Vec<Client> {
        let mut clients = Vec::new();
        for _ in 0..count {
            clients.push(self.client().await);
        }
        clients
    }
}

/// Lets time pass in which something happens, or must not.
pub async fn pass(time: Duration) {
    let clock = crate::wait::Deadline::after(time);
    until("time passes", time + CALM_LIMIT, async || {
        clock.is_past().then_some(())
    })
    .await;
}
