//! Whether an invoker runs activations much slower than the others, told from noise.
//!
//! Durations have heavy tails, so a mean of ratios is decided by a few of them. Here the logarithm is averaged: one run
//! that took a hundred times as long counts like a handful that took three times as long. The mean of a queue is itself
//! drawn up by its tail, which pushes everybody's logarithm down alike; so an invoker is held against the middle one of
//! the others and not against zero. How far it has to stand out depends on how much the samples scatter.

/// When an invoker is slow.
#[derive(Debug, Clone, PartialEq)]
pub struct SlowSettings {
    /// Slowness, relative to the middle one of the other invokers, from which on it is suspected. Default 5.
    pub factor: f64,
    /// Fewest runs that say something. Default 5.
    pub samples_min: u32,
    /// Weight of the newest run in the mean. Default 0.125.
    pub newest: f64,
    /// Standard errors by which it must stand out besides. Default 5.
    pub errors: f64,
}

impl Default for SlowSettings {
    fn default() -> Self {
        Self {
            factor: 5.0,
            samples_min: 5,
            newest: 0.125,
            errors: 5.0,
        }
    }
}

/// Logarithms are cut off here: beyond a factor of 64 it does not matter how slow a run was.
const LOG_MAX: f64 = 6.0;
/// Least scatter assumed, in doublings: few samples that happen to agree prove little.
const SCATTER_MIN: f64 = 0.5;
/// Scatter assumed while the others have too few samples, in doublings.
const SCATTER_UNKNOWN: f64 = 2.0;

/// Exponentially weighted mean and scatter of one invoker's slowness, in doublings.
#[derive(Debug, Clone, Default)]
pub(super) struct Slow {
    count: u32,
    mean: f64,
    variance: f64,
    /// Sum of the weights and of their squares: how much the samples so far are worth.
    weights: f64,
    squares: f64,
}

/// What the other invokers are like.
#[derive(Debug, Clone, Copy)]
pub(super) struct Others {
    middle: f64,
    scatter: f64,
}

impl Others {
    pub(super) fn of<'a>(others: impl Iterator<Item = &'a Slow>, settings: &SlowSettings) -> Self {
        let mut known: Vec<(f64, f64)> = others
            .filter(|slow| slow.has_enough(settings))
            .map(|slow| (slow.mean, slow.variance))
            .collect();
        if known.is_empty() {
            return Self {
                middle: 0.0,
                scatter: SCATTER_UNKNOWN,
            };
        }
        known.sort_by(|(a, _), (b, _)| a.total_cmp(b));
        let variance = known.iter().map(|(_, variance)| variance).sum::<f64>() / known.len() as f64;
        Self {
            // Of an even number the faster one: two slow ones of four must not hide each other.
            middle: known[(known.len() - 1) / 2].0,
            scatter: variance.sqrt().max(SCATTER_MIN),
        }
    }
}

impl Slow {
    pub(super) fn push(&mut self, slowness: f64, settings: &SlowSettings) {
        // A ratio to nothing or of nothing says nothing.
        if !slowness.is_finite() || slowness <= 0.0 {
            return;
        }
        let sample = slowness.log2().clamp(-LOG_MAX, LOG_MAX);
        let keep = 1.0 - settings.newest.clamp(0.01, 1.0);
        self.weights = self.weights * keep + 1.0;
        self.squares = self.squares * keep * keep + 1.0;
        // The first sample weighs all, later ones ever less, down to `newest`: no start value has to fade.
        let weight = 1.0 / self.weights;
        let off = sample - self.mean;
        self.mean += weight * off;
        self.variance = (1.0 - weight) * (self.variance + weight * off * off);
        self.count = self.count.saturating_add(1);
    }

    pub(super) const fn has_enough(&self, settings: &SlowSettings) -> bool {
        self.count > 0 && self.count >= settings.samples_min
    }

    /// Whether it is slow. The fewer runs and the wider the others scatter, the further it has to stand out.
    pub(super) fn stands_out(&self, others: &Others, settings: &SlowSettings) -> bool {
        let error = others.scatter * self.squares.sqrt() / self.weights.max(1.0);
        let above = self.mean - others.middle;
        self.has_enough(settings)
            && above >= settings.factor.max(1.0).log2()
            && above >= settings.errors * error
    }
}
