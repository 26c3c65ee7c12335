//! Invokers: they read in order, start a run once, keep results until they are acknowledged, stop what they are told to.

use std::collections::{BTreeMap, VecDeque};

use whiskraft_queue::{Input, RegisteredContainer, RunEnd, Unacknowledged};
use whiskraft_types::{ActivationId, ContainerId, InvokerId, Revision, SessionId};

use crate::world::{HOSTS, Record, World, choose};

/// On the wire to an invoker.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Sent {
    Deliver(ActivationId, u32, ContainerId),
    Stop(ActivationId, ContainerId),
}

/// A run that an invoker has.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Running {
    pub(crate) container: ContainerId,
    pub(crate) run: u32,
    pub(crate) started: bool,
    pub(crate) stopped: bool,
}

/// An invoker.
#[derive(Debug, Default)]
pub(crate) struct Host {
    pub(crate) connected: bool,
    pub(crate) registered: bool,
    pub(crate) inbox: VecDeque<Sent>,
    pub(crate) running: BTreeMap<ActivationId, Running>,
    pub(crate) results: BTreeMap<ActivationId, Record>,
    /// Open asks of its containers.
    pub(crate) containers: BTreeMap<ContainerId, u32>,
}

impl Host {
    pub(crate) fn is_heard(&self) -> bool {
        self.connected && self.registered
    }
}

impl World {
    /// A container for the oldest ask for some.
    pub(crate) fn grant(&mut self, pick: u8) {
        let Some(asked) = self.asked.pop_front() else {
            return;
        };
        let room = self.counts().limit.saturating_sub(self.counts().running);
        let at = InvokerId(u64::from(pick) % HOSTS + 1);
        let containers: Vec<_> = (0..asked.min(room).min(1))
            .map(|_| self.new_container(at))
            .collect();
        self.tell(Input::Granted {
            asked,
            containers: containers.iter().map(|container| (*container, None)).collect(),
            revision: Revision(1),
        });
        for container in containers {
            self.tell(Input::ContainerPlaced {
                container,
                invoker: at,
            });
            self.hosts.get_mut(&at).unwrap().containers.insert(container, 0);
            self.ask_at(at, container);
        }
    }

    fn new_container(&mut self, at: InvokerId) -> ContainerId {
        self.seq += 1;
        let container = ContainerId {
            session: SessionId(self.epoch.0),
            seq: self.seq,
        };
        self.table.insert(container, at);
        container
    }

    /// Containers with nothing to do and no ask.
    fn idle(&self) -> Vec<(InvokerId, ContainerId)> {
        let hosts = self.hosts.iter();
        hosts
            .flat_map(|(at, host)| {
                let is_idle = |container: &ContainerId, asks: u32| {
                    asks == 0
                        && !host
                            .running
                            .values()
                            .any(|running| running.container == *container)
                };
                let idle = host.containers.iter();
                idle.filter(move |(container, asks)| is_idle(container, **asks))
                    .map(|(container, _)| (*at, *container))
            })
            .collect()
    }

    pub(crate) fn ask(&mut self, pick: u8) {
        if let Some((at, container)) = choose(self.idle(), pick) {
            self.ask_at(at, container);
        }
    }

    fn ask_at(&mut self, at: InvokerId, container: ContainerId) {
        let host = self.hosts.get_mut(&at).unwrap();
        if !host.is_heard() {
            return;
        }
        *host.containers.get_mut(&container).unwrap() += 1;
        self.tell(Input::Credit {
            invoker: at,
            container,
            count: 1,
            warmed: true,
        });
    }

    pub(crate) fn read(&mut self, pick: u8) {
        let wires = self.hosts.iter().filter(|(_, host)| !host.inbox.is_empty());
        if let Some(at) = choose(wires.map(|(at, _)| *at), pick) {
            self.read_at(at);
        }
    }

    pub(crate) fn read_at(&mut self, at: InvokerId) {
        let host = self.hosts.get_mut(&at).unwrap();
        match host.inbox.pop_front() {
            None => {}
            Some(Sent::Deliver(id, run, container)) => self.on_deliver(at, id, run, container),
            Some(Sent::Stop(id, container)) => {
                if let Some(running) = host
                    .running
                    .get_mut(&id)
                    .filter(|here| here.container == container)
                {
                    running.stopped = true;
                }
            }
        }
    }

    fn on_deliver(&mut self, at: InvokerId, id: ActivationId, run: u32, container: ContainerId) {
        let host = self.hosts.get_mut(&at).unwrap();
        let Some(asks) = host.containers.get_mut(&container) else {
            return self.say(at, Input::Refused { container, id });
        };
        assert!(*asks > 0, "{container} got more than it asked for");
        *asks -= 1;
        if let Some(here) = host.running.get(&id) {
            if here.run < run {
                self.say(at, Input::Refused { container, id });
            }
            return;
        }
        if let Some(record) = host.results.get(&id).copied() {
            if run <= record.run {
                return self.say_completed(at, container, record);
            }
            // Its leader has settled the run before.
            host.results.remove(&id);
        }
        host.running.insert(
            id,
            Running {
                container,
                run,
                started: false,
                stopped: false,
            },
        );
    }

    fn say(&mut self, at: InvokerId, input: Input<String, Record>) {
        if self.hosts[&at].is_heard() {
            self.tell(input);
        }
    }

    fn say_completed(&mut self, at: InvokerId, container: ContainerId, record: Record) {
        self.say(
            at,
            Input::Completed {
                invoker: at,
                container,
                id: record.id,
                run: record.run,
                end: record.end,
                record,
                duration: None,
                credits: 0,
            },
        );
    }

    /// Runs that have started, or not.
    pub(crate) fn runs(&self, started: bool) -> Vec<(InvokerId, ActivationId)> {
        let hosts = self.hosts.iter();
        hosts
            .flat_map(|(at, host)| {
                let running = host.running.iter();
                running
                    .filter(move |(_, here)| here.started == started)
                    .map(|(id, _)| (*at, *id))
            })
            .collect()
    }

    pub(crate) fn start(&mut self, pick: u8) {
        let Some((at, id)) = choose(self.runs(false), pick) else {
            return;
        };
        let here = self.hosts.get_mut(&at).unwrap().running.get_mut(&id).unwrap();
        let (container, run) = (here.container, here.run);
        if here.stopped {
            self.hosts.get_mut(&at).unwrap().running.remove(&id);
            return self.say(at, Input::Refused { container, id });
        }
        here.started = true;
        *self.starts.entry((id, run)).or_default() += 1;
        self.say(at, Input::Started { container, id });
    }

    pub(crate) fn complete(&mut self, pick: u8, how: u8) {
        if let Some(at) = choose(self.runs(true), pick) {
            self.complete_at(at, !how.is_multiple_of(3));
        }
    }

    pub(crate) fn complete_at(&mut self, (at, id): (InvokerId, ActivationId), is_well: bool) {
        let host = self.hosts.get_mut(&at).unwrap();
        let Running {
            container,
            run,
            stopped,
            ..
        } = host.running.remove(&id).unwrap();
        let end = match is_well {
            _ if stopped => RunEnd::Cancelled,
            true => RunEnd::Success,
            false => RunEnd::Failed,
        };
        let record = Record { id, run, end };
        host.results.insert(id, record);
        self.say_completed(at, container, record);
        if stopped {
            self.end_container(container);
        }
    }

    pub(crate) fn refuse(&mut self, pick: u8) {
        let Some((at, id)) = choose(self.runs(false), pick) else {
            return;
        };
        let here = self.hosts.get_mut(&at).unwrap().running.remove(&id).unwrap();
        let container = here.container;
        self.say(at, Input::Refused { container, id });
    }

    pub(crate) fn on_acknowledge(&mut self, invoker: InvokerId, id: ActivationId) {
        self.hosts.get_mut(&invoker).unwrap().results.remove(&id);
    }

    /// The container ends once nothing runs in it, and the table hears of it.
    pub(crate) fn end_container(&mut self, container: ContainerId) {
        let Some(at) = self.table.get(&container).copied() else {
            return;
        };
        let host = self.hosts.get_mut(&at).unwrap();
        if host.running.values().any(|here| here.container == container) {
            return;
        }
        host.containers.remove(&container);
        self.table.remove(&container);
        self.tell(Input::ContainerRemoved { container });
    }

    pub(crate) fn lose_invoker(&mut self, at: InvokerId) {
        let host = std::mem::take(self.hosts.get_mut(&at).unwrap());
        for (id, here) in &host.running {
            self.ghosts.insert((*id, here.run), at);
        }
        for record in host.results.values() {
            self.ghosts.insert((record.id, record.run), at);
        }
        for sent in &host.inbox {
            if let Sent::Deliver(id, run, _) = sent {
                self.ghosts.insert((*id, *run), at);
            }
        }
        // What is settled needs no ghost.
        let is_settled = |world: &Self, id: &ActivationId, run: u32| match world.rows.get(id) {
            Some(row) => row.ended.is_some() || row.run > run,
            None => world.calls[id].answer.is_some(),
        };
        let settled: Vec<_> = self
            .ghosts
            .keys()
            .filter(|(id, run)| is_settled(self, id, *run))
            .copied()
            .collect();
        settled.iter().for_each(|ghost| _ = self.ghosts.remove(ghost));
        self.tell(Input::Disconnected { invoker: at });
        self.tell(Input::InvokerGone { invoker: at });
        let gone: Vec<_> = self
            .table
            .iter()
            .filter(|(_, on)| **on == at)
            .map(|(id, _)| *id)
            .collect();
        for container in gone {
            self.table.remove(&container);
            self.tell(Input::ContainerRemoved { container });
        }
    }

    pub(crate) fn disconnect(&mut self, at: InvokerId) {
        let host = self.hosts.get_mut(&at).unwrap();
        if std::mem::take(&mut host.connected) {
            host.registered = false;
            host.inbox.clear();
            self.tell(Input::Disconnected { invoker: at });
        }
    }

    /// The stream stands (again) and the leader hears all that the invoker has.
    pub(crate) fn connect(&mut self, at: InvokerId) {
        let host = self.hosts.get_mut(&at).unwrap();
        if host.is_heard() {
            return;
        }
        (host.connected, host.registered) = (true, true);
        host.inbox.clear();
        let has = |container: ContainerId| {
            let here = host
                .running
                .iter()
                .filter(move |(_, here)| here.container == container);
            here.map(|(id, _)| *id).collect()
        };
        let containers = host
            .containers
            .iter()
            .map(|(container, asks)| RegisteredContainer {
                container: *container,
                revision: Revision(1),
                in_flight: has(*container),
                credits: *asks,
                warmed: true,
            });
        let unacknowledged = host.results.values().map(|record| Unacknowledged {
            id: record.id,
            run: record.run,
            end: record.end,
            record: *record,
        });
        let register = Input::Register {
            invoker: at,
            containers: containers.collect(),
            unacknowledged: unacknowledged.collect(),
        };
        self.tell(register);
    }
}
