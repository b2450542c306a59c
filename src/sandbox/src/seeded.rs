//! How likely an armed fault strikes, repeatable by its seed.

use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use serde::{Deserialize, Serialize};

/// The probability of a fault, drawn anew at every occasion that fits it. The default strikes always.
///
/// The same seed gives the same sequence of strikes and misses over the same occasions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SeededFaults {
    /// Of a hundred fitting occasions, so many are struck.
    pub percent: u8,
    /// Where the draws begin.
    #[serde(default)]
    pub seed: u64,
    /// Draws so far.
    #[serde(skip)]
    drawn: u64,
}

impl Default for SeededFaults {
    fn default() -> Self {
        Self::new(100, 0)
    }
}

impl SeededFaults {
    /// A chance of so many in a hundred.
    pub const fn new(percent: u8, seed: u64) -> Self {
        Self {
            percent,
            seed,
            drawn: 0,
        }
    }

    /// Draws once.
    pub(crate) fn strikes(&mut self) -> bool {
        if self.percent >= 100 {
            return true;
        }
        self.drawn += 1;
        let mut draws = StdRng::seed_from_u64(self.seed.rotate_left(32) ^ self.drawn);
        draws.random_range(0..100) < u32::from(self.percent)
    }
}

#[cfg(test)]
mod tests {
    use super::SeededFaults;

    #[test]
    fn a_seed_repeats_its_draws_and_the_percentage_is_kept() {
        let draw = |percent, seed| {
            let mut seeded = SeededFaults::new(percent, seed);
            (0..1_000).map(|_| seeded.strikes()).collect::<Vec<_>>()
        };
        assert_eq!(draw(30, 7), draw(30, 7));
        assert_ne!(draw(30, 7), draw(30, 8));
        let struck = draw(30, 7).into_iter().filter(|struck| *struck).count();
        assert!((250..350).contains(&struck), "{struck}");
        assert!(draw(100, 1).into_iter().all(|struck| struck));
        assert!(!draw(0, 1).into_iter().any(|struck| struck));
    }
}
