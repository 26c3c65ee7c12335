//! Judges invokers by what becomes of the work they are given: a gray one is alive by its keepalives and useless.
//!
//! The scheduler reports what it sees of each invoker and asks before each batch of placements whom to pass over. A
//! suspicion ends by itself; the invoker is then on trial (`trial.rs`) until it has shown that it works.
//!
//! Invariant: with fewer than two invokers known nobody is suspected: there is nobody to compare with or to go to.
//! Invariant: what is known of an invoker has a fixed size, and is forgotten ten minutes after its session or its last
//! sign, whichever is later.

mod failing;
mod slow;
mod trial;

use std::collections::BTreeMap;
use std::time::Duration;

use whiskraft_types::{Instant, InvokerId};

use failing::Failing;
pub use failing::FailingSettings;
pub use slow::SlowSettings;
use slow::{Others, Slow};
use trial::Trial;
pub use trial::TrialSettings;

/// Pause between two comparisons of one invoker with the others.
const COMPARE_EVERY: Duration = Duration::from_secs(1);
/// Times within `forget_after` that it looks for those to forget.
const SWEEPS: u32 = 10;

/// When an invoker becomes a suspect and for how long.
#[derive(Debug, Clone, PartialEq)]
pub struct JudgeSettings {
    /// Two ends of a session within this time are flapping; one is a restart. Default 1 min.
    pub flap_window: Duration,
    /// Length of the first suspicion; each further one is twice as long. Default 10 s.
    pub probation_min: Duration,
    /// Longest suspicion without new evidence. Default 1 min.
    pub probation_max: Duration,
    /// Time without a suspicion after which the next one is a first one again. Default 5 min.
    pub calm: Duration,
    /// Activations without any answer, one after the other, that make a suspect. Default 2.
    pub silent_max: u32,
    /// When it is slow.
    pub slow: SlowSettings,
    /// When its creations fail too often.
    pub failing: FailingSettings,
    /// What it has to show after a suspicion.
    pub trial: TrialSettings,
    /// Time without a session or a sign after which an invoker is forgotten. Default 10 min.
    pub forget_after: Duration,
}

impl Default for JudgeSettings {
    fn default() -> Self {
        Self {
            flap_window: Duration::from_secs(60),
            probation_min: Duration::from_secs(10),
            probation_max: Duration::from_secs(60),
            calm: Duration::from_secs(300),
            silent_max: 2,
            slow: SlowSettings::default(),
            failing: FailingSettings::default(),
            trial: TrialSettings::default(),
            forget_after: Duration::from_secs(600),
        }
    }
}

/// Something that was seen of an invoker.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Observation {
    /// Its session opened.
    Opened,
    /// Its session ended.
    Ended,
    /// It was given a container.
    Placed,
    /// It ran an activation.
    Run {
        /// Length of the run relative to the average of the same queue on all invokers, this one among
        /// them; 1 is as fast as the average.
        /// `None` if there is nothing to compare with.
        slowness: Option<f64>,
    },
    /// A run there has lasted very long and goes on. Its end, if there is one, is another observation.
    Late {
        /// As for a run that has ended.
        slowness: f64,
    },
    /// Of an activation that was delivered to it nothing is heard.
    Silent,
    /// It created a container.
    Created,
    /// A creation failed there, and not through the action's fault.
    CreationFailed,
}

/// Why an invoker gets no containers, or few, while others can take them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SuspicionReason {
    /// Its session comes and goes.
    Flapping,
    /// It runs activations many times slower than the others.
    Slow,
    /// It takes activations and never answers.
    Silent,
    /// Its creations fail.
    Failing,
}

impl SuspicionReason {
    /// A short name for tables and labels, in lower case.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Flapping => "flapping",
            Self::Slow => "slow",
            Self::Silent => "silent",
            Self::Failing => "failing",
        }
    }
}

/// What an invoker may have while it is not trusted and others can take containers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Nothing.
    PassedOver,
    /// One container, to show what it does.
    OnTrial,
    /// Nothing more: it has that container, and nothing was heard of it yet.
    Probed,
}

/// Why an invoker is not trusted, and what it may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Suspicion {
    /// Why.
    pub reason: SuspicionReason,
    /// What it may have.
    pub standing: Standing,
    /// When that changes, if nothing new comes to light until then.
    pub until: Instant,
}

/// The last time that an invoker was caught.
#[derive(Debug, Clone, Copy)]
struct Caught {
    reason: SuspicionReason,
    /// When it is no longer passed over for it.
    until: Instant,
}

/// What one scheduler thinks of the invokers.
#[derive(Debug, Clone)]
pub struct Judge {
    settings: JudgeSettings,
    invokers: BTreeMap<InvokerId, Record>,
    /// When it last looked for those to forget.
    swept: Instant,
}

/// What is known of one invoker.
#[derive(Debug, Clone)]
struct Record {
    /// Whether its session is open, as far as we have heard.
    open: bool,
    seen: Instant,
    ended: Option<Instant>,
    silent: u32,
    slow: Slow,
    /// When it was last compared with the others.
    compared: Option<Instant>,
    failing: Failing,
    caught: Option<Caught>,
    /// What it has shown since, unless that was enough.
    trial: Option<Trial>,
    /// Suspicions since it was calm.
    strikes: u32,
}

impl Judge {
    /// One that knows nobody.
    #[must_use]
    pub const fn new(settings: JudgeSettings) -> Self {
        Self {
            settings,
            invokers: BTreeMap::new(),
            swept: Instant::ORIGIN,
        }
    }

    /// Takes an observation. Cheap enough for every run: the comparison with the others is made once a second, but for
    /// those on trial.
    pub fn observe(&mut self, now: Instant, invoker: InvokerId, observation: Observation) {
        self.forget(now);
        let settings = &self.settings;
        let record = self
            .invokers
            .entry(invoker)
            .or_insert_with(|| Record::new(now, settings));
        record.seen = record.seen.max(now);
        record.begin_trial(now, settings);
        let mut reason = record.learn(now, observation, settings);
        if record.is_comparison_due(now, settings) {
            record.compared = Some(now);
            if self.is_slow(now, invoker) {
                reason = Some(SuspicionReason::Slow);
            }
        }
        let Some(record) = self.invokers.get_mut(&invoker) else {
            return;
        };
        match reason {
            Some(reason) => record.suspect(now, reason, &self.settings),
            None => record.try_on(now, observation, &self.settings),
        }
    }

    /// Who is not trusted, why, and what it may have.
    #[must_use]
    pub fn suspects(&self, now: Instant) -> BTreeMap<InvokerId, Suspicion> {
        if self.invokers.len() < 2 {
            return BTreeMap::new();
        }
        self.running(now).collect()
    }

    /// When the next of them changes by itself.
    #[must_use]
    pub fn next_change(&self, now: Instant) -> Option<Instant> {
        self.running(now).map(|(_, suspicion)| suspicion.until).min()
    }

    /// Invokers that it knows.
    #[must_use]
    pub fn known(&self) -> usize {
        self.invokers.len()
    }

    fn running(&self, now: Instant) -> impl Iterator<Item = (InvokerId, Suspicion)> {
        let running =
            move |(id, record): (&InvokerId, &Record)| Some((*id, record.suspicion(now, &self.settings)?));
        self.invokers.iter().filter_map(running)
    }

    fn is_slow(&self, now: Instant, invoker: InvokerId) -> bool {
        let settings = &self.settings;
        let Some(record) = self.invokers.get(&invoker) else {
            return false;
        };
        let others = self
            .invokers
            .iter()
            .filter(|(id, record)| **id != invoker && !record.is_passed_over(now));
        let others = Others::of(others.map(|(_, record)| &record.slow), &settings.slow);
        let slow = match record.tried_for(now, settings) {
            Some(_) => &settings.trial.slow(&settings.slow),
            None => &settings.slow,
        };
        record.slow.stands_out(&others, slow)
    }

    /// Whoever has a session is kept, but not what it did long ago.
    fn forget(&mut self, now: Instant) {
        let settings = &self.settings;
        if now.saturating_since(self.swept) < settings.forget_after / SWEEPS {
            return;
        }
        self.swept = now;
        self.invokers.retain(|_, record| {
            let is_old = now.saturating_since(record.seen) > settings.forget_after;
            if is_old && record.open {
                *record = Record::new(now, settings);
            }
            !is_old || record.open
        });
    }
}

impl Record {
    fn new(now: Instant, settings: &JudgeSettings) -> Self {
        Self {
            open: true,
            seen: now,
            ended: None,
            silent: 0,
            slow: Slow::default(),
            compared: None,
            failing: Failing::new(&settings.failing),
            caught: None,
            trial: None,
            strikes: 0,
        }
    }

    fn is_passed_over(&self, now: Instant) -> bool {
        self.caught.is_some_and(|caught| caught.until > now)
    }

    /// Why it was caught last, if what it does since is watched closely. Nobody is for longer than `calm`: who gets no
    /// work cannot show anything.
    fn tried_for(&self, now: Instant, settings: &JudgeSettings) -> Option<SuspicionReason> {
        let (caught, _) = self.caught.zip(self.trial.as_ref())?;
        let is_over = caught.until <= now && now < caught.until + settings.calm;
        is_over.then_some(caught.reason)
    }

    fn suspicion(&self, now: Instant, settings: &JudgeSettings) -> Option<Suspicion> {
        let Caught { reason, until } = self.caught?;
        let (standing, until) = if until > now {
            (Standing::PassedOver, until)
        } else {
            self.tried_for(now, settings)?;
            let end = until + settings.calm;
            match self.trial.as_ref()?.waits_until(now) {
                Some(until) => (Standing::Probed, until.min(end)),
                None => (Standing::OnTrial, end),
            }
        };
        Some(Suspicion {
            reason,
            standing,
            until,
        })
    }

    fn is_comparison_due(&self, now: Instant, settings: &JudgeSettings) -> bool {
        if self.tried_for(now, settings).is_some() {
            return true;
        }
        let is_due = |last| now.saturating_since(last) >= COMPARE_EVERY;
        self.slow.has_enough(&settings.slow) && self.compared.is_none_or(is_due)
    }

    /// What it did while it was passed over is settled: on trial it is judged by what it does from then on.
    fn begin_trial(&mut self, now: Instant, settings: &JudgeSettings) {
        let begins = self.tried_for(now, settings).is_some();
        if begins && self.trial.as_mut().is_some_and(Trial::begin) {
            self.start_afresh(settings);
        }
    }

    /// A reason if what was seen makes it a suspect by itself; its speed has to be compared. On trial the first bad sign
    /// is enough.
    fn learn(
        &mut self,
        now: Instant,
        observation: Observation,
        settings: &JudgeSettings,
    ) -> Option<SuspicionReason> {
        let tried_for = self.tried_for(now, settings);
        match observation {
            Observation::Opened => {
                self.open = true;
                self.start_afresh(settings);
                None
            }
            Observation::Ended => {
                self.open = false;
                let before = self.ended.replace(now);
                let is_soon =
                    before.is_some_and(|before| now.saturating_since(before) <= settings.flap_window);
                let is_flapping = is_soon || tried_for == Some(SuspicionReason::Flapping);
                is_flapping.then_some(SuspicionReason::Flapping)
            }
            Observation::Placed => None,
            Observation::Run { slowness } => {
                self.silent = 0;
                if let Some(slowness) = slowness {
                    self.slow.push(slowness, &settings.slow);
                }
                None
            }
            Observation::Late { slowness } => {
                self.slow.push(slowness, &settings.slow);
                None
            }
            Observation::Silent => {
                self.silent = self.silent.saturating_add(1);
                let is_silent = tried_for.is_some() || self.silent >= settings.silent_max;
                is_silent.then_some(SuspicionReason::Silent)
            }
            Observation::Created => {
                self.failing.push(false);
                None
            }
            Observation::CreationFailed => {
                self.failing.push(true);
                let is_failing = tried_for.is_some() || self.failing.is_bad();
                is_failing.then_some(SuspicionReason::Failing)
            }
        }
    }

    /// Takes what was no bad sign into account, if it is on trial.
    fn try_on(&mut self, now: Instant, observation: Observation, settings: &JudgeSettings) {
        let Some(reason) = self.tried_for(now, settings) else {
            return;
        };
        let has_runs = self.slow.has_enough(&settings.slow);
        let is_done = self.trial.as_mut().is_none_or(|trial| {
            trial.observe(now, observation, reason, &settings.trial);
            // Slowness is told from noise by as many runs as make anybody slow.
            trial.has_passed(reason, &settings.trial) && (reason != SuspicionReason::Slow || has_runs)
        });
        if is_done {
            self.trial = None;
        }
    }

    /// What comes to light while it is suspected anyway lengthens the suspicion and is not one more.
    fn suspect(&mut self, now: Instant, reason: SuspicionReason, settings: &JudgeSettings) {
        let running = self.caught.filter(|caught| caught.until > now);
        let is_flap = reason == SuspicionReason::Flapping;
        if running.is_none() || is_flap {
            let calm = self
                .caught
                .is_none_or(|last| now.saturating_since(last.until) > settings.calm);
            self.strikes = if calm { 1 } else { self.strikes.saturating_add(1) };
        }
        let until = now + probation(self.strikes, settings);
        self.caught = Some(match running {
            Some(running) if running.until >= until => running,
            _ => Caught { reason, until },
        });
        self.trial = Some(Trial::default());
        self.start_afresh(settings);
    }

    fn start_afresh(&mut self, settings: &JudgeSettings) {
        self.silent = 0;
        (self.slow, self.compared) = (Slow::default(), None);
        self.failing = Failing::new(&settings.failing);
    }
}

/// The minimum for the first strike, twice as long for each further one, up to the maximum.
fn probation(strikes: u32, settings: &JudgeSettings) -> Duration {
    let doubled = 2_u32.saturating_pow(strikes.saturating_sub(1));
    settings
        .probation_min
        .saturating_mul(doubled)
        .min(settings.probation_max)
}
