//! Numbers that look drawn and are the same in every run with the same seed.

/// The `n`-th number (splitmix64).
#[must_use]
pub fn drawn(n: u64) -> u64 {
    let mut state = n.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    state ^ (state >> 31)
}

/// A row of them.
#[derive(Debug, Clone)]
pub struct Chance {
    next: u64,
}

impl Chance {
    /// The row of a seed.
    #[must_use]
    pub const fn seeded(seed: u64) -> Self {
        // Far from the rows of other seeds.
        Self { next: seed << 32 }
    }

    /// The next one, below `end`.
    ///
    /// # Panics
    /// When `end` is zero.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next += 1;
        drawn(self.next) % end
    }
}

/// A size of a test: the environment variable of this name, or `default`, which suits a run of all tests.
///
/// # Panics
/// When the variable is no number.
#[must_use]
pub fn size(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| {
        text.parse()
            .unwrap_or_else(|_| panic!("{name}={text} is no number"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_seed_gives_one_row() {
        let row = |seed| {
            let mut chance = Chance::seeded(seed);
            [0; 8].map(|_| chance.below(1000))
        };
        assert_eq!(row(3), row(3));
        assert_ne!(row(3), row(4));
    }
}
