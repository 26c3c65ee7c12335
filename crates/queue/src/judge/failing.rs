//! Share of failed creations among the last ones of an invoker.

/// When creations fail too often.
#[derive(Debug, Clone, PartialEq)]
pub struct FailingSettings {
    /// Creations looked back on, at most 32. Default 10.
    pub samples_max: u32,
    /// Fewest failures that say something. Default 3.
    pub failed_min: u32,
    /// Share of failures from which on it is suspected. Default 0.5.
    pub share: f64,
}

impl Default for FailingSettings {
    fn default() -> Self {
        Self {
            samples_max: 10,
            failed_min: 3,
            share: 0.5,
        }
    }
}

/// The last creations, one bit each.
#[derive(Debug, Clone)]
pub(super) struct Failing {
    failed: u32,
    count: u32,
    settings: FailingSettings,
}

impl Failing {
    pub(super) fn new(settings: &FailingSettings) -> Self {
        Self {
            failed: 0,
            count: 0,
            settings: settings.clone(),
        }
    }

    pub(super) fn push(&mut self, failed: bool) {
        let samples_max = self.settings.samples_max.clamp(1, u32::BITS);
        self.failed = (self.failed << 1 | u32::from(failed)) & (u32::MAX >> (u32::BITS - samples_max));
        self.count = (self.count + 1).min(samples_max);
    }

    pub(super) fn is_bad(&self) -> bool {
        let failed = self.failed.count_ones();
        failed >= self.settings.failed_min && f64::from(failed) >= self.settings.share * f64::from(self.count)
    }
}
