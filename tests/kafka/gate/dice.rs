//! Chances from a seed, so that a failure can be had again.

use super::now_ms;

/// Chances from a seed (SplitMix64), so that a failure can be had again.
pub struct Dice(u64);

impl Dice {
    /// From the clock, and said, so that `COUNTERSIGN_TEST_SEED` can repeat it.
    pub fn new(test: &str) -> Self {
        let given = std::env::var("COUNTERSIGN_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = given.unwrap_or_else(|| now_ms().unsigned_abs());
        println!("{test}: COUNTERSIGN_TEST_SEED={seed}");
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// Chances of their own, from the same seed.
    pub fn another(&mut self) -> Self {
        Self(self.next())
    }

    /// A number from 0, below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}
