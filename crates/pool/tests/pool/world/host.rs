//! The host: it runs containers, and what is under way there ends when a test says so.

use super::{Record, World};
use whiskraft_pool::{Finished, Input, WorkerId};
use whiskraft_types::{ActivationId, CreationError};

/// What the host does with one container.
#[derive(Debug, Default, Clone)]
pub(crate) struct Host {
    pub(crate) creating: bool,
    pub(crate) pausing: bool,
    pub(crate) resuming: bool,
    pub(crate) removing: bool,
    /// Activation, and whether it loads the code first.
    pub(crate) runs: Vec<(ActivationId, bool)>,
    pub(crate) memory: u64,
}

impl World {
    pub(super) fn host(&mut self, worker: WorkerId) -> &mut Host {
        self.hosts
            .get_mut(&worker)
            .expect("an order for a container that exists")
    }

    pub(super) fn on_pause(&mut self, worker: WorkerId) {
        assert!(self.host(worker).runs.is_empty(), "pause while running");
        self.host(worker).pausing = true;
        let view = self.pool.containers().find(|view| view.worker == worker).unwrap();
        for leader in &self.leaders {
            assert_eq!(
                leader.asks.get(&view.container).copied().unwrap_or(0),
                0,
                "pause with open asks"
            );
        }
        let coming = self.down.iter().any(|(_, input)| {
            matches!(input, Input::Deliver(deliver) if deliver.container == view.container
                && self.leaders.iter().any(|leader| leader.id == deliver.from && leader.epoch == deliver.epoch))
        });
        assert!(!coming, "pause while an activation is being fetched");
    }

    pub(crate) fn created(&mut self, worker: WorkerId) {
        self.host(worker).creating = false;
        self.step(Input::Created { worker });
    }

    /// The first run of a container ends well.
    pub(crate) fn finish(&mut self, worker: WorkerId, reusable: bool) {
        let (id, init) = self.host(worker).runs.remove(0);
        if init {
            self.step(Input::Initialised { worker });
        }
        let run = self.runs.last(id);
        self.step(Input::Finished(Finished {
            worker,
            id,
            record: Record { id, run },
            len: 100,
            reusable,
            healthy: true,
        }));
    }

    pub(crate) fn not_started(&mut self, worker: WorkerId, reusable: bool) {
        let (id, _) = self.host(worker).runs.remove(0);
        *self.starts.get_mut(&id).unwrap() -= 1;
        self.runs.not_started(id);
        self.step(Input::NotStarted {
            worker,
            id,
            reusable,
            reason: "test".to_owned(),
        });
    }

    pub(crate) fn paused(&mut self, worker: WorkerId) {
        self.host(worker).pausing = false;
        self.step(Input::Paused { worker });
    }

    /// The removal ends, after everything that runs.
    pub(crate) fn gone(&mut self, worker: WorkerId) {
        while !self.host(worker).runs.is_empty() {
            self.finish(worker, false);
        }
        self.hosts.remove(&worker);
        self.step(Input::Gone { worker });
    }

    /// Ends everything that is under way, until nothing is.
    pub(crate) fn settle(&mut self) {
        loop {
            self.arrive();
            let busy = self.hosts.iter().find(|(_, host)| {
                host.creating || host.pausing || host.resuming || host.removing || !host.runs.is_empty()
            });
            let Some((worker, host)) = busy.map(|(worker, host)| (*worker, host.clone())) else {
                return;
            };
            self.end_one(worker, &host);
        }
    }

    pub(crate) fn end_one(&mut self, worker: WorkerId, host: &Host) {
        if host.creating {
            self.created(worker);
        } else if host.removing {
            self.gone(worker);
        } else if host.pausing {
            self.paused(worker);
        } else if host.resuming {
            self.host(worker).resuming = false;
            self.step(Input::Resumed { worker });
        } else if !host.runs.is_empty() {
            self.finish(worker, true);
        }
    }

    pub(crate) fn fail_one(&mut self, worker: WorkerId, host: &Host) {
        if host.creating {
            self.hosts.remove(&worker);
            self.step(Input::CreationFailed {
                worker,
                error: CreationError::Whisk,
                message: "test".to_owned(),
            });
        } else if host.pausing {
            self.host(worker).pausing = false;
            self.step(Input::PauseFailed { worker });
        } else if host.resuming {
            self.host(worker).resuming = false;
            self.step(Input::ResumeFailed { worker });
        } else if !host.runs.is_empty() {
            self.finish(worker, false);
        } else if !host.removing {
            self.step(Input::Died {
                worker,
                reason: "test".to_owned(),
            });
        }
    }
}
