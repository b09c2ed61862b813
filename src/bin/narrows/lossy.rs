//! Links that lose messages.

use rand::{Rng, SeedableRng};
use rand_pcg::Pcg32;

/// A link that loses a share of the messages: each on its own, or in bursts.
///
/// Bursts are Gilbert's model (1960; Elliott 1963 with losses in both states): a chain of a good state, which loses nothing,
/// and a bad one, which loses all. The chance to leave the bad state is one over the mean length of a burst; that to enter it
/// follows from the share.
#[derive(Debug, Clone)]
pub struct LossyLink {
    share: f64,
    /// Chances to enter and to leave the bad state; `None` for messages that are lost each on its own.
    chain: Option<(f64, f64)>,
    bad: bool,
    random: Pcg32,
}

impl LossyLink {
    /// A link that loses a share of the messages, 0 to below 1; in bursts of this mean length if that is above 1.
    pub fn new(share: f64, burst: f64, seed: u64) -> LossyLink {
        let mut random = Pcg32::seed_from_u64(seed);
        let leave = 1.0 / burst;
        let chain = (burst > 1.0).then(|| (leave * share / (1.0 - share), leave));
        let bad = random.random_bool(share);
        LossyLink { share, chain, bad, random }
    }

    /// Whether the next message is lost.
    pub fn loses(&mut self) -> bool {
        let Some((enter, leave)) = self.chain else { return self.random.random_bool(self.share) };
        let lost = self.bad;
        let change = if self.bad { leave } else { enter };
        if self.random.random_bool(change.min(1.0)) {
            self.bad = !self.bad;
        }
        lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_lose_their_share_in_bursts_of_their_length() {
        for (share, burst) in [(0.1, 1.0), (0.3, 3.0), (0.5, 4.0), (0.0, 3.0)] {
            let mut link = LossyLink::new(share, burst, 5);
            let lost: Vec<bool> = (0..200_000).map(|_| link.loses()).collect();
            let count = lost.iter().filter(|&&lost| lost).count() as f64;
            assert!((count / 200_000.0 - share).abs() < 0.01, "{share} {burst}: {count}");
            let bursts = lost.windows(2).filter(|pair| pair[0] && !pair[1]).count() as f64;
            // On its own, a loss is followed by another with the chance of any.
            let length = if burst > 1.0 { burst } else { 1.0 / (1.0 - share) };
            assert!(
                share == 0.0 || (count / bursts / length - 1.0).abs() < 0.03,
                "{share} {burst}: {}",
                count / bursts
            );
        }
    }
}
