//! The containers of a queue and their open asks.
//!
//! Credits are served highest first by (warmed, container id): load gathers on few containers, the others fall idle
//! and are paused. Invariant: `ready` holds exactly the containers that may be served and have credits, `gone` those that
//! are gone and of which it is known since when.

use std::time::Duration;

use whiskraft_types::{Blank, ContainerId, CreationError, Instant, InvokerId, Revision, SmallMap, SmallSet};

/// What will become of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It serves, or will.
    Serving,
    /// It gets nothing new and is told to end when what runs in it has ended: there are more than the action may have.
    /// It serves again if the limit rises before that.
    Surplus,
    /// It was told to end after what runs in it, or will be.
    Ending,
    /// It serves no more; its invoker still has to say how its activations ended. Since when that one keeps nothing of it, as
    /// far as the table knows: `None` while it does.
    Gone(Option<Instant>),
}

/// A container of this queue.
#[derive(Debug, Clone)]
pub(crate) struct Container {
    /// Where; `None` until placed.
    pub(crate) invoker: Option<InvokerId>,
    /// Revision of the action it runs.
    pub(crate) revision: Revision,
    /// Whether it runs; else it is in progress.
    pub(crate) is_running: bool,
    /// Whether a former leader reserved it.
    pub(crate) is_inherited: bool,
    /// Open asks.
    pub(crate) credits: u32,
    /// Whether its code is loaded.
    pub(crate) warmed: bool,
    /// Activations delivered to it or started in it.
    pub(crate) in_flight: u32,
    /// What will become of it.
    pub(crate) fate: Fate,
    /// What its creation waits for, if that is not only the invoker's work.
    pub(crate) delay: Option<Box<Delay>>,
}

/// What a creation waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Delay {
    /// What is missing.
    pub(crate) error: CreationError,
    /// The same for people.
    pub(crate) text: String,
}

/// Who asks for activations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asker {
    /// None of ours, or gone.
    Stranger,
    /// One that was told to end, or will be.
    Ending {
        /// Whether nothing runs in it.
        is_free: bool,
    },
    /// One that is served.
    Served,
}

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct Containers {
    all: SmallMap<ContainerId, Container>,
    ready: SmallSet<(bool, ContainerId)>,
    /// Looked at after every step: that must cost the same however many containers there are.
    gone: SmallSet<(Instant, ContainerId)>,
}

/// How many containers can serve the newest revision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Running.
    pub(crate) running: usize,
    /// In progress.
    pub(crate) in_progress: usize,
}

impl Blank for Containers {
    const BLANK: &'static Self = &Self {
        all: SmallMap::new(),
        ready: SmallSet::new(),
        gone: SmallSet::new(),
    };
}

impl Containers {
    /// A container that a former leader left.
    pub(crate) fn inherit(
        &mut self,
        id: ContainerId,
        invoker: Option<InvokerId>,
        revision: Revision,
        is_running: bool,
    ) {
        self.insert(id, invoker, revision, is_running);
        if let Some(container) = self.all.get_mut(&id) {
            container.is_inherited = true;
        }
    }

    /// A new container; a known one stays as it is.
    pub(crate) fn insert(
        &mut self,
        id: ContainerId,
        invoker: Option<InvokerId>,
        revision: Revision,
        is_running: bool,
    ) {
        let fate = Fate::Serving;
        let new = Container {
            invoker,
            revision,
            is_running,
            is_inherited: false,
            credits: 0,
            warmed: false,
            in_flight: 0,
            fate,
            delay: None,
        };
        if !self.all.contains_key(&id) {
            self.all.insert(id, new);
        }
    }

    /// The container, if it is one of ours.
    pub(crate) fn find(&self, id: ContainerId) -> Option<&Container> {
        self.all.get(&id)
    }

    /// Records where it is.
    pub(crate) fn place(&mut self, id: ContainerId, invoker: InvokerId, is_running: bool) {
        if let Some(container) = self.all.get_mut(&id) {
            container.invoker = Some(invoker);
            container.is_running |= is_running;
            container.delay = None;
        }
    }

    /// It is nowhere again, unless it pulls.
    pub(crate) fn unplace(&mut self, id: ContainerId) {
        if let Some(container) = self.all.get_mut(&id).filter(|container| !container.is_running) {
            container.invoker = None;
        }
    }

    /// Its creation waits for something; says nothing about one that runs.
    pub(crate) fn delay(&mut self, id: ContainerId, error: CreationError, text: String) {
        if let Some(container) = self.all.get_mut(&id).filter(|container| !container.is_running) {
            container.delay = Some(Box::new(Delay { error, text }));
        }
    }

    /// What all creations under way wait for, if all of them do: what the oldest lacks of which that is known. One that has
    /// no place waits behind those of which it is.
    pub(crate) fn delay_of_all(&self) -> Option<&Delay> {
        let all = self.all.values();
        let starting = all.filter(|container| container.fate == Fate::Serving && !container.is_running);
        let mut first = None;
        for container in starting {
            if container.delay.is_none() && container.invoker.is_some() {
                return None;
            }
            first = first.or(container.delay.as_deref());
        }
        first
    }

    /// Ends a container after what runs in it; whether it is free now.
    pub(crate) fn end(&mut self, id: ContainerId) -> bool {
        self.withdraw(id);
        let may_serve = |c: &&mut Container| matches!(c.fate, Fate::Serving | Fate::Surplus);
        let Some(container) = self.all.get_mut(&id).filter(may_serve) else {
            return false;
        };
        container.fate = Fate::Ending;
        container.in_flight == 0
    }

    /// Adds credits of a running container. One that is gone is a stranger, one that is ending keeps none.
    pub(crate) fn credit(&mut self, id: ContainerId, invoker: InvokerId, count: u32, warmed: bool) -> Asker {
        let Some(container) = self.all.get_mut(&id).filter(|c| !matches!(c.fate, Fate::Gone(_))) else {
            return Asker::Stranger;
        };
        container.invoker = Some(invoker);
        container.is_running = true;
        container.delay = None;
        if container.fate == Fate::Ending {
            return Asker::Ending {
                is_free: container.in_flight == 0,
            };
        }
        let serves = container.fate == Fate::Serving;
        if count > 0 {
            if container.credits > 0 && container.warmed != warmed {
                self.ready.remove(&(container.warmed, id));
            }
            container.warmed = warmed;
            container.credits = container.credits.saturating_add(count);
            if serves {
                self.ready.insert((warmed, id));
            }
        }
        if serves {
            Asker::Served
        } else {
            Asker::Ending { is_free: false }
        }
    }

    /// Whether somebody asks.
    pub(crate) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Takes one credit of the highest one; its activation counts as in flight.
    pub(crate) fn take_ready(&mut self) -> Option<(ContainerId, InvokerId)> {
        let &(warmed, id) = self.ready.last()?;
        let container = self.all.get_mut(&id)?;
        container.credits -= 1;
        container.in_flight += 1;
        if container.credits == 0 {
            self.ready.remove(&(warmed, id));
        }
        Some((id, container.invoker?))
    }

    /// Takes all credits of a container back.
    pub(crate) fn withdraw(&mut self, id: ContainerId) {
        if let Some(container) = self.all.get_mut(&id) {
            container.credits = 0;
            self.ready.remove(&(container.warmed, id));
        }
    }

    /// Takes all credits of an invoker's containers back.
    pub(crate) fn withdraw_all(&mut self, invoker: InvokerId) {
        self.on(invoker).into_iter().for_each(|id| self.withdraw(id));
    }

    /// An activation was found running in the container.
    pub(crate) fn adopt(&mut self, id: ContainerId) {
        if let Some(container) = self.all.get_mut(&id) {
            container.in_flight += 1;
        }
    }

    /// An activation left the container. A gone one is forgotten with its last; the answer says whether an ending one
    /// is free now.
    pub(crate) fn settle(&mut self, id: ContainerId) -> bool {
        let Some(container) = self.all.get_mut(&id) else {
            return false;
        };
        container.in_flight = container.in_flight.saturating_sub(1);
        match container.fate {
            Fate::Gone(_) if container.in_flight == 0 => {
                self.forget(id);
                false
            }
            Fate::Surplus | Fate::Ending => {
                let is_free = container.in_flight == 0;
                if is_free {
                    // Its invoker is told now: from here on there is no way back.
                    container.fate = Fate::Ending;
                }
                is_free
            }
            Fate::Serving | Fate::Gone(_) => false,
        }
    }

    /// The container serves no more; whether an invoker still has to say something about it. `since` is when it lost that
    /// too, if it has.
    pub(crate) fn leave(&mut self, id: ContainerId, since: Option<Instant>) -> bool {
        self.withdraw(id);
        match self.all.get_mut(&id) {
            Some(container) if container.in_flight > 0 => {
                let before = std::mem::replace(&mut container.fate, Fate::Gone(since));
                if let Fate::Gone(Some(before)) = before {
                    self.gone.remove(&(before, id));
                }
                self.gone.extend(since.map(|since| (since, id)));
                true
            }
            _ => {
                self.forget(id);
                false
            }
        }
    }

    /// Forgets a container.
    pub(crate) fn remove(&mut self, id: ContainerId) -> Option<Container> {
        self.withdraw(id);
        self.forget(id)
    }

    fn forget(&mut self, id: ContainerId) -> Option<Container> {
        let container = self.all.remove(&id)?;
        if let Fate::Gone(Some(since)) = container.fate {
            self.gone.remove(&(since, id));
        }
        Some(container)
    }

    /// Ends every serving container whose revision is older than `newest`, and says which of them are free.
    pub(crate) fn end_older(&mut self, newest: Revision) -> Vec<ContainerId> {
        let may_serve = |c: &Container| matches!(c.fate, Fate::Serving | Fate::Surplus);
        let is_old = |c: &Container| may_serve(c) && c.revision < newest;
        let old: Vec<_> = self
            .all
            .iter()
            .filter(|(_, c)| is_old(c))
            .map(|(id, _)| *id)
            .collect();
        for id in &old {
            self.withdraw(*id);
            if let Some(container) = self.all.get_mut(id) {
                container.fate = Fate::Ending;
            }
        }
        old.into_iter()
            .filter(|id| self.all.get(id).is_some_and(|c| c.in_flight == 0))
            .collect()
    }

    /// Lets at most `limit` serve, the oldest, and says which of the others are free and have to end now. Asks of the
    /// others are kept: they count again when the limit rises.
    pub(crate) fn limit_to(&mut self, limit: usize) -> Vec<ContainerId> {
        let mut serving = 0;
        let mut free = Vec::new();
        for (id, container) in self.all.iter_mut() {
            if !matches!(container.fate, Fate::Serving | Fate::Surplus) {
                continue;
            }
            serving += 1;
            if serving <= limit {
                container.fate = Fate::Serving;
                if container.credits > 0 {
                    self.ready.insert((container.warmed, *id));
                }
                continue;
            }
            self.ready.remove(&(container.warmed, *id));
            if container.in_flight > 0 {
                container.fate = Fate::Surplus;
            } else {
                container.fate = Fate::Ending;
                container.credits = 0;
                free.push(*id);
            }
        }
        free
    }

    /// Whether one comes free, or is free, whatever becomes of the activations in them: it is on its way, or has room.
    pub(crate) fn has_room(&self, concurrency: u32) -> bool {
        self.all.values().any(|container| match container.fate {
            Fate::Serving => !container.is_running || container.in_flight < concurrency,
            Fate::Surplus | Fate::Ending => container.in_flight == 0,
            Fate::Gone(_) => false,
        })
    }

    /// Containers on an invoker.
    pub(crate) fn on(&self, invoker: InvokerId) -> Vec<ContainerId> {
        self.all
            .iter()
            .filter(|(_, c)| c.invoker == Some(invoker))
            .map(|(id, _)| *id)
            .collect()
    }

    /// Containers that were gone for `wait` and more, ascending.
    pub(crate) fn overdue(&self, now: Instant, wait: Duration) -> Vec<ContainerId> {
        let gone = self.gone.iter();
        let mut overdue: Vec<_> = gone
            .take_while(|(since, _)| now.saturating_since(*since) >= wait)
            .map(|(_, id)| *id)
            .collect();
        overdue.sort_unstable();
        overdue
    }

    /// When the first gone container went.
    pub(crate) fn gone_since(&self) -> Option<Instant> {
        self.gone.first().map(|(since, _)| *since)
    }

    /// How many serve the newest revision.
    pub(crate) fn counts(&self) -> Counts {
        let serving = || {
            self.all
                .values()
                .filter(|container| container.fate == Fate::Serving)
        };
        let running = serving().filter(|container| container.is_running).count();
        Counts {
            running,
            in_progress: serving().count() - running,
        }
    }

    /// How many end when what runs in them has ended.
    pub(crate) fn ending_at_work(&self) -> usize {
        let all = self.all.values();
        all.filter(|container| {
            matches!(container.fate, Fate::Surplus | Fate::Ending) && container.in_flight > 0
        })
        .count()
    }

    /// How many are ending.
    pub(crate) fn ending(&self) -> usize {
        self.all
            .values()
            .filter(|container| matches!(container.fate, Fate::Surplus | Fate::Ending))
            .count()
    }

    /// Open asks of all.
    pub(crate) fn credits(&self) -> usize {
        self.all
            .values()
            .filter(|container| container.fate == Fate::Serving)
            .map(|container| container.credits as usize)
            .sum()
    }

    /// Whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }
}
