//! Judges invokers by what becomes of the work they are given: a gray one is alive by its keepalives and useless.
//!
//! The scheduler reports what it sees of each invoker and asks before each batch of placements whom to pass over. A
//! suspicion ends by itself; the invoker is then tried again and judged afresh.
//!
//! Invariant: with fewer than two invokers known nobody is suspected: there is nobody to compare with or to go to.
//! Invariant: what is known of an invoker has a fixed size, and is forgotten ten minutes after its session or its last
//! sign, whichever is later.

mod failing;
mod slow;

use std::collections::BTreeMap;
use std::time::Duration;

use whiskraft_types::{Instant, InvokerId};

use failing::Failing;
pub use failing::FailingSettings;
pub use slow::SlowSettings;
use slow::{Others, Slow};

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
    /// It ran an activation.
    Run {
        /// Length of the run relative to the average of the same queue on all invokers, this one among them; 1 is as
        /// fast as the average.
        slowness: f64,
    },
    /// An activation that was delivered to it was given up without an answer.
    Silent,
    /// It created a container.
    Created,
    /// A creation failed there, and not through the action's fault.
    CreationFailed,
}

/// Why an invoker gets no containers while others can take them.
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

/// A suspicion and its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Suspicion {
    /// Why.
    pub reason: SuspicionReason,
    /// When it ends, if nothing new comes to light until then.
    pub until: Instant,
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
    suspicion: Option<Suspicion>,
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

    /// Takes an observation. Cheap enough for every run: the comparison with the others is made once a second.
    pub fn observe(&mut self, now: Instant, invoker: InvokerId, observation: Observation) {
        self.forget(now);
        let settings = &self.settings;
        let record = self
            .invokers
            .entry(invoker)
            .or_insert_with(|| Record::new(now, settings));
        record.seen = record.seen.max(now);
        let mut reason = record.learn(now, observation, settings);
        if record.is_comparison_due(now, settings) {
            record.compared = Some(now);
            if self.is_slow(now, invoker) {
                reason = Some(SuspicionReason::Slow);
            }
        }
        if let (Some(reason), Some(record)) = (reason, self.invokers.get_mut(&invoker)) {
            record.suspect(now, reason, &self.settings);
        }
    }

    /// Whom to pass over, and why.
    #[must_use]
    pub fn suspects(&self, now: Instant) -> BTreeMap<InvokerId, Suspicion> {
        if self.invokers.len() < 2 {
            return BTreeMap::new();
        }
        self.running(now).collect()
    }

    /// When the next suspicion ends.
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
        let running = move |(id, record): (&InvokerId, &Record)| {
            let suspicion = record.suspicion.filter(|suspicion| suspicion.until > now)?;
            Some((*id, suspicion))
        };
        self.invokers.iter().filter_map(running)
    }

    fn is_slow(&self, now: Instant, invoker: InvokerId) -> bool {
        let settings = &self.settings.slow;
        let others = self
            .invokers
            .iter()
            .filter(|(id, record)| **id != invoker && !record.is_suspect(now));
        let others = Others::of(others.map(|(_, record)| &record.slow), settings);
        let own = self.invokers.get(&invoker);
        own.is_some_and(|record| record.slow.stands_out(&others, settings))
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
            suspicion: None,
            strikes: 0,
        }
    }

    fn is_suspect(&self, now: Instant) -> bool {
        self.suspicion.is_some_and(|suspicion| suspicion.until > now)
    }

    fn is_comparison_due(&self, now: Instant, settings: &JudgeSettings) -> bool {
        let is_due = |last| now.saturating_since(last) >= COMPARE_EVERY;
        self.slow.has_enough(&settings.slow) && self.compared.is_none_or(is_due)
    }

    /// A reason if what was seen makes it a suspect by itself; its speed has to be compared.
    fn learn(
        &mut self,
        now: Instant,
        observation: Observation,
        settings: &JudgeSettings,
    ) -> Option<SuspicionReason> {
        match observation {
            Observation::Opened => {
                self.open = true;
                self.start_afresh(settings);
                None
            }
            Observation::Ended => {
                self.open = false;
                let before = self.ended.replace(now);
                let is_flapping =
                    before.is_some_and(|before| now.saturating_since(before) <= settings.flap_window);
                is_flapping.then_some(SuspicionReason::Flapping)
            }
            Observation::Run { slowness } => {
                self.silent = 0;
                self.slow.push(slowness, &settings.slow);
                None
            }
            Observation::Silent => {
                self.silent = self.silent.saturating_add(1);
                (self.silent >= settings.silent_max).then_some(SuspicionReason::Silent)
            }
            Observation::Created => {
                self.failing.push(false);
                None
            }
            Observation::CreationFailed => {
                self.failing.push(true);
                self.failing.is_bad().then_some(SuspicionReason::Failing)
            }
        }
    }

    /// What comes to light while it is suspected anyway lengthens the suspicion and is not one more.
    fn suspect(&mut self, now: Instant, reason: SuspicionReason, settings: &JudgeSettings) {
        let running = self.suspicion.filter(|suspicion| suspicion.until > now);
        let is_flap = reason == SuspicionReason::Flapping;
        if running.is_none() || is_flap {
            let calm = self
                .suspicion
                .is_none_or(|last| now.saturating_since(last.until) > settings.calm);
            self.strikes = if calm { 1 } else { self.strikes.saturating_add(1) };
        }
        let until = now + probation(self.strikes, settings);
        self.suspicion = Some(match running {
            Some(running) if running.until >= until => running,
            _ => Suspicion { reason, until },
        });
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
