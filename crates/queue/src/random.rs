//! A small seeded generator: the same seed gives the same choices on every machine, so a run can be repeated.
//!
//! The shell seeds one per owner of placements. Good enough to spread load; nothing secret may depend on it.

/// SplitMix64 (Steele, Lea, Flood 2014).
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// A generator that starts at `seed`.
    #[must_use]
    pub const fn seeded(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub const fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`; zero if `bound` is zero.
    pub const fn below(&mut self, bound: usize) -> usize {
        // The high half of a 128-bit product maps evenly enough: the bias is bound / 2^64.
        ((self.bits() as u128 * bound as u128) >> 64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn same_seed_gives_the_same_choices_and_all_of_them() {
        let (mut a, mut b) = (Random::seeded(7), Random::seeded(7));
        let choices: Vec<_> = (0..100).map(|_| a.below(5)).collect();
        assert_eq!(choices, (0..100).map(|_| b.below(5)).collect::<Vec<_>>());
        assert!((0..5).all(|wanted| choices.contains(&wanted)));
        assert_eq!(a.below(0), 0);
    }
}
