//! The actor's slower half: session, members, keepalives, owner tasks, shutdown.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tracing::Instrument;
use whiskraft_pool::{Change, Output as PoolOutput, WorkerId};
use whiskraft_proto::v1;
use whiskraft_types::{ContainerId, Instant, QueueKey, SchedulerId};

use crate::actor::{Actor, Link, Owner, Phase};
use crate::event::Event;
use crate::keepalives::Keepalives;
use crate::link::{Announced, LinkTask};
use crate::metrics::Snapshot;
use crate::run::{Right, Run};
use crate::session::Opened;
use crate::words::{Action, Input, Output};
use crate::worker::{Order, Worker};

/// Orders beside runs that can wait for an owner task: pause, resume, stop, remove and one to spare.
const ORDERS_BESIDE_RUNS: usize = 5;
/// Time that the backend gets to remove what still ran when the shutdown's grace was over.
const REMOVAL_WAIT: Duration = Duration::from_secs(30);
/// Time that results and reports get to be acknowledged after the last container has gone.
const PARTING_WAIT: Duration = Duration::from_secs(2);
/// Time that a scheduler gets to end the session; afterwards it ends with its time to live.
const LEAVING_WAIT: Duration = Duration::from_secs(1);

impl Actor {
    pub(crate) fn carry_out(&mut self, now: Instant, output: Output) {
        let Some(output) = self.outgoing.push(output) else {
            return;
        };
        match output {
            PoolOutput::Create {
                worker,
                container,
                key,
                action,
            } => {
                self.start_owner(worker, container, key, action);
            }
            PoolOutput::Run {
                worker,
                id,
                init,
                start_by,
                content,
            } => {
                let run = Run {
                    id,
                    init,
                    start_by,
                    delivery: content,
                };
                self.order(worker, Order::Run(Box::new(run)));
            }
            PoolOutput::Stop { worker, id } => self.order(worker, Order::Stop(id)),
            PoolOutput::Pause { worker } => self.order(worker, Order::Pause),
            PoolOutput::Resume { worker, container } => self.order(worker, Order::Resume(container)),
            PoolOutput::Remove { worker } => self.order(worker, Order::Remove),
            PoolOutput::Report(report) => {
                // The leader waits for it; anybody else can put it into the log.
                let is_up = |id: &SchedulerId| self.links.get(id).is_some_and(|link| link.up.is_some());
                let leader = Some(report.leader).filter(is_up);
                if let Some(to) = leader.or_else(|| self.talking_to()) {
                    self.outgoing.report(to, report);
                }
            }
            PoolOutput::Memory(memory) => {
                if let Some(home) = self.keepalives.as_ref().and_then(Keepalives::home) {
                    self.outgoing.memory(home, memory);
                }
            }
            PoolOutput::Emptied => self.on_emptied(now),
            PoolOutput::Credit { .. }
            | PoolOutput::Started { .. }
            | PoolOutput::Completed(_)
            | PoolOutput::Refused { .. }
            | PoolOutput::Withdraw { .. }
            | PoolOutput::Register(_) => {}
        }
    }

    pub(crate) fn count(&mut self, output: &Output) {
        match output {
            PoolOutput::Refused { .. } => self.host.metrics.refused(),
            PoolOutput::Report(report) if report.seq > self.reported => {
                self.reported = report.seq;
                if let Change::Failed { error, .. } = &report.change {
                    self.host.metrics.creation_failed(*error);
                }
            }
            _ => {}
        }
    }

    /// The numbers of now.
    pub(crate) fn look(&self, now: Instant) -> Snapshot {
        let renewed = self.keepalives.as_ref().and_then(Keepalives::renewed_at);
        let trouble = match self.phase {
            Phase::Serving if self.session().is_none() => Some("no session"),
            Phase::Serving if self.pool.is_fenced(now) => Some("fenced: no keepalive is acknowledged"),
            Phase::Serving => None,
            Phase::Draining { .. }
            | Phase::Ending { .. }
            | Phase::Parting { .. }
            | Phase::Leaving { .. }
            | Phase::Stopped => Some("shutting down"),
        };
        Snapshot {
            lives: self.pool.containers().map(|view| view.life).collect(),
            memory: self.pool.memory_use(),
            results: self.pool.unacknowledged_len(),
            keepalive_age: renewed.map(|at| now.saturating_since(at)),
            connected: self.links.values().filter(|link| link.up.is_some()).count(),
            trouble,
        }
    }

    fn start_owner(&mut self, worker: WorkerId, container: ContainerId, key: QueueKey, action: Action) {
        let concurrency = action.as_ref().map_or(1, |action| action.limits.concurrency);
        let capacity = usize::try_from(concurrency)
            .unwrap_or(1)
            .saturating_add(ORDERS_BESIDE_RUNS);
        let (orders, receiver) = mpsc::channel(capacity);
        let span = tracing::info_span!("container", %worker, %container, queue = %key);
        let task = Worker {
            id: worker,
            container,
            key,
            host: Arc::clone(&self.host),
            orders: receiver,
        };
        self.workers.insert(
            worker,
            Owner {
                orders,
                instance: None,
            },
        );
        // The task ends by telling that its container is gone, which the pool waits for.
        tokio::spawn(task.run(action).instrument(span));
    }

    fn order(&mut self, worker: WorkerId, order: Order) {
        let Some(owner) = self.workers.get(&worker) else {
            return;
        };
        if let Err(error) = owner.orders.try_send(order) {
            tracing::error!(%worker, %error, "owner task takes no order");
        }
    }

    /// Begins (again) with an open session. Fenced until its first keepalive is acknowledged, which leaves with the
    /// first link: the answer to an opening may be about a session found again, and then it has renewed nothing.
    pub(crate) fn on_opened(&mut self, now: Instant, opened: Opened) {
        tracing::info!(invoker = %self.config.id, session = %opened.session, "session open");
        self.keepalives = Some(Keepalives::new(opened.ttl, opened.keepalive, now));
        let announced = Announced {
            session: opened.session,
            cluster_id: opened.cluster_id,
        };
        self.announced.send_replace(Some(announced));
        self.on_members(opened.schedulers);
        self.step(now, Input::SessionOpened);
    }

    pub(crate) fn on_expired(&mut self, now: Instant) {
        let Some(session) = self.session() else { return };
        if matches!(self.phase, Phase::Leaving { .. }) {
            tracing::info!(invoker = %self.config.id, %session, "session closed");
        } else {
            tracing::warn!(invoker = %self.config.id, %session, "session expired, all containers go");
        }
        // Links close on this, so that nothing of the old session is said or heard any more.
        self.announced.send_replace(None);
        self.right.send_replace(Right::default());
        self.keepalives = None;
        for link in self.links.values_mut() {
            link.up = None;
        }
        self.step(now, Input::SessionExpired);
    }

    /// Another cluster answers where a scheduler was. While this one's own cluster keeps its session alive that is a
    /// wrong address, and nothing else. Once it is fenced its cluster may have been restored from a backup: it joins the
    /// new one, unless it still has something that only the old one can be told.
    pub(crate) fn on_other_cluster(&mut self, now: Instant, scheduler: SchedulerId, reason: &str) {
        let owes = self.pool.unacknowledged_len() > 0
            || self
                .pool
                .containers()
                .any(|container| !container.running.is_empty());
        if !self.pool.is_fenced(now) {
            tracing::warn!(%scheduler, reason, "another cluster answers at the address of a scheduler");
        } else if owes {
            tracing::error!(
                %scheduler,
                reason,
                "another cluster answers at the address of a scheduler; this invoker still has activations or results of \
                 its own, and waits for that: start it again if it is gone for good"
            );
        } else {
            tracing::warn!(%scheduler, reason, "the cluster is gone and another is in its place; joins it");
            self.on_expired(now);
        }
    }

    /// Asks for the end of the session, so that another process can have this id, and others the slots, at once.
    fn leave(&mut self, now: Instant) {
        let to = self.talking_to();
        let (Some(to), Some(session)) = (to, self.session()) else {
            self.phase = Phase::Stopped;
            return;
        };
        tracing::info!(invoker = %self.config.id, %session, scheduler = %to, "leaving");
        self.outgoing.leaving(to);
        self.phase = Phase::Leaving {
            until: now + LEAVING_WAIT,
        };
    }

    /// The home scheduler, or else any that a stream is open to.
    fn talking_to(&self) -> Option<SchedulerId> {
        let is_up = |id: &SchedulerId| self.links.get(id).is_some_and(|link| link.up.is_some());
        let home = self.keepalives.as_ref().and_then(Keepalives::home);
        home.filter(is_up)
            .or_else(|| self.links.keys().find(|id| is_up(id)).copied())
    }

    fn on_emptied(&mut self, now: Instant) {
        match self.phase {
            Phase::Serving => self.open_session(),
            Phase::Draining { .. } | Phase::Ending { .. } => {
                self.phase = Phase::Parting {
                    until: now + PARTING_WAIT,
                }
            }
            Phase::Parting { .. } | Phase::Leaving { .. } | Phase::Stopped => {}
        }
    }

    fn open_session(&mut self) {
        if self.session().is_some() || self.session_task.is_some() {
            return;
        }
        let (opener, events) = (Arc::clone(&self.opener), self.host.events.clone());
        let addresses = self.addresses.borrow().clone();
        self.session_task = Some(tokio::spawn(async move {
            let opened = opener.open(&addresses).await;
            // Fails only when the actor is gone.
            let _ = events.send(Event::Session(opened)).await;
        }));
    }

    /// Asks one scheduler for the members; the answer comes as an event, or not at all until the next time.
    pub(crate) fn refresh_members(&mut self, now: Instant) {
        self.refresh_at = now + self.config.members_refresh;
        if self.session().is_none() || std::mem::replace(&mut self.refreshing, true) {
            return;
        }
        let (opener, events) = (Arc::clone(&self.opener), self.host.events.clone());
        let addresses = self.addresses.borrow().clone();
        tokio::spawn(async move {
            let mut members = Vec::new();
            for address in &addresses {
                if let Ok(opened) = opener.open_at(address).await {
                    members = opened.schedulers;
                    break;
                }
            }
            let _ = events.send(Event::Members(members)).await;
        });
    }

    /// Keeps one link per member. An empty list says nothing.
    pub(crate) fn on_members(&mut self, members: Vec<v1::SchedulerAddress>) {
        if members.is_empty() {
            return;
        }
        let listed = |id: &SchedulerId, address: &str| {
            members
                .iter()
                .any(|member| member.scheduler == id.0 && member.client_address == address)
        };
        self.links.retain(|id, link| {
            let keep = listed(id, &link.address);
            if !keep {
                tracing::info!(scheduler = %id, address = link.address, "scheduler left");
                link.task.abort();
            }
            keep
        });
        for member in &members {
            let id = SchedulerId(member.scheduler);
            if !self.links.contains_key(&id) {
                let link = self.start_link(id, member.client_address.clone());
                self.links.insert(id, link);
            }
        }
        let mut addresses: Vec<String> = members.into_iter().map(|member| member.client_address).collect();
        // The configured ones stay: they are what the operator vouches for.
        addresses.extend(self.config.schedulers.iter().cloned());
        addresses.sort_unstable();
        addresses.dedup();
        self.addresses.send_replace(addresses);
    }

    fn start_link(&mut self, scheduler: SchedulerId, address: String) -> Link {
        let serial = self.next_serial;
        // Far enough apart that numbers of two tasks for the same scheduler never meet.
        self.next_serial += 1 << 32;
        let task = LinkTask {
            invoker: self.config.id,
            scheduler,
            address: address.clone(),
            config: self.config.link.clone(),
            session: self.announced.subscribe(),
            events: self.host.events.clone(),
            serial,
        };
        Link {
            address,
            task: tokio::spawn(task.run()),
            serial,
            up: None,
        }
    }

    pub(crate) fn send_keepalive(&mut self, now: Instant) {
        let Some(keepalives) = &mut self.keepalives else {
            return;
        };
        if now < keepalives.next_deadline() {
            return;
        }
        let linked = self
            .links
            .iter()
            .filter(|(_, link)| link.up.is_some())
            .map(|(id, _)| *id)
            .collect();
        let before = keepalives.home();
        if let Some((to, seq)) = keepalives.due(now, &linked) {
            self.outgoing.keepalive(to, seq);
            if before != Some(to) {
                self.outgoing.memory(to, self.pool.memory_use());
            }
        }
    }

    pub(crate) fn on_shutdown(&mut self, now: Instant) {
        tracing::info!(invoker = %self.config.id, "shutting down");
        self.phase = Phase::Draining {
            until: now + self.config.shutdown_grace,
        };
        self.step(now, Input::Drain);
    }

    /// Moves the shutdown on when its time has come.
    pub(crate) fn on_phase(&mut self, now: Instant) {
        match self.phase {
            Phase::Draining { until } if now >= until => {
                tracing::warn!(invoker = %self.config.id, "shutdown grace is over, running activations are ended");
                self.phase = Phase::Ending {
                    until: now + REMOVAL_WAIT,
                };
                self.step(now, Input::DrainEnded);
            }
            Phase::Ending { until } if now >= until => {
                tracing::error!(invoker = %self.config.id, "containers are left behind, the backend does not remove them");
                self.phase = Phase::Stopped;
            }
            Phase::Parting { until } => {
                let settled = self.pool.unacknowledged_len() == 0 && self.pool.unreported_len() == 0;
                if settled || now >= until {
                    self.leave(now);
                }
            }
            Phase::Leaving { until } if now >= until => {
                tracing::warn!(invoker = %self.config.id, "no scheduler has ended the session, it ends with its time");
                self.phase = Phase::Stopped;
            }
            Phase::Leaving { .. } if self.session().is_none() => self.phase = Phase::Stopped,
            Phase::Leaving { .. }
            | Phase::Serving
            | Phase::Draining { .. }
            | Phase::Ending { .. }
            | Phase::Stopped => {}
        }
    }
}
