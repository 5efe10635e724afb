//! Random numbers that a seed repeats.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A sequence of random numbers; clones draw from the same one. `SplitMix64`: enough to choose moments, and no dependency.
#[derive(Clone, Debug)]
pub struct Dice(Arc<AtomicU64>);

const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

impl Dice {
    /// The sequence of this seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(AtomicU64::new(seed)))
    }

    /// The next number.
    #[must_use]
    pub fn next(&self) -> u64 {
        let mut mixed = self.0.fetch_add(STEP, Ordering::SeqCst).wrapping_add(STEP);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// The next number below `bound`; 0 if that is 0.
    #[must_use]
    pub fn below(&self, bound: u32) -> u32 {
        let rest = self.next().checked_rem(u64::from(bound));
        u32::try_from(rest.unwrap_or_default()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::Dice;

    #[test]
    fn a_seed_repeats_and_another_differs() {
        let throw = |seed| {
            let dice = Dice::new(seed);
            (0..8).map(|_| dice.below(1000)).collect::<Vec<u32>>()
        };
        assert_eq!(throw(1), throw(1));
        assert_ne!(throw(1), throw(2));
        assert!(throw(1).iter().all(|n| *n < 1000));
        assert_eq!(Dice::new(1).below(0), 0);
    }
}
