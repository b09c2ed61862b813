//! Links that lose messages.

use rand::{Rng, SeedableRng};
use rand_pcg::Pcg32;

/// A link that loses a share of the messages: each on its own, or in bursts.
///
/// Bursts are the model of Gilbert (1960) and Elliott (1963): a chain of a bad state, which loses all, and a good one, which
/// loses a few or none. The chance to leave the bad state is one over the mean length of a burst; that to enter it follows
/// from the share.
#[derive(Debug, Clone)]
pub struct LossyLink {
    /// Share that is lost in the good state; of all where there is only that.
    good: f64,
    /// Chances to enter and to leave the bad state; `None` for messages that are lost each on its own.
    chain: Option<(f64, f64)>,
    bad: bool,
    random: Pcg32,
}

impl LossyLink {
    /// A link that loses a share of the messages, 0 to below 1; in bursts of this mean length if that is above 1, and
    /// between them the share `good`. `None` if no chain does that: where bursts make up a large share, they have to be long.
    pub fn new(share: f64, (burst, good): (f64, f64), seed: u64) -> Option<LossyLink> {
        let mut random = Pcg32::seed_from_u64(seed);
        if burst <= 1.0 {
            return Some(LossyLink { good: share, chain: None, bad: false, random });
        }
        let in_bad = if share > good { (share - good) / (1.0 - good) } else { 0.0 };
        let leave = 1.0 / burst;
        let enter = leave * in_bad / (1.0 - in_bad);
        let bad = random.random_bool(in_bad);
        (enter <= 1.0).then_some(LossyLink { good: good.min(share), chain: Some((enter, leave)), bad, random })
    }

    /// Whether the next message is lost.
    pub fn loses(&mut self) -> bool {
        let lost = self.bad || self.random.random_bool(self.good);
        let Some((enter, leave)) = self.chain else { return lost };
        let change = if self.bad { leave } else { enter };
        if self.random.random_bool(change) {
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
            let mut link = LossyLink::new(share, (burst, 0.0), 5).unwrap();
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

    #[test]
    fn what_is_lost_between_bursts_counts() {
        let mut link = LossyLink::new(0.3, (6.0, 0.05), 7).unwrap();
        let lost: Vec<bool> = (0..400_000).map(|_| link.loses()).collect();
        let share = |of: &[bool]| of.iter().filter(|&&lost| lost).count() as f64 / of.len() as f64;
        assert!((share(&lost) - 0.3).abs() < 0.01, "{}", share(&lost));
        // Where five were kept in a row the state is good, most likely.
        let after: Vec<bool> = lost.windows(6).filter(|w| !w[..5].contains(&true)).map(|w| w[5]).collect();
        assert!((0.05..0.12).contains(&share(&after)), "{}", share(&after));
    }

    #[test]
    fn bursts_too_short_for_their_share_are_refused() {
        assert!(LossyLink::new(0.9, (3.0, 0.0), 1).is_none());
        assert!(LossyLink::new(0.6, (1.2, 0.0), 1).is_none());
        assert!(LossyLink::new(0.75, (3.0, 0.0), 1).is_some());
        assert!(LossyLink::new(0.9, (1.0, 0.0), 1).is_some());
    }
}
