//! Target accuracies, and what a validation set allows to say of them.

use crate::error::{Error, Result};

/// The accuracy that a policy must reach, and how certain that must be on images that nobody has seen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Target {
    wanted: Wanted,
    /// Probability that the target holds on unseen images of the same kind, 0.5 to 0.9999.
    certainty: f64,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Wanted {
    /// Share of right answers.
    Accuracy(f64),
    /// Share of right answers below that of always going on.
    Loss(f64),
}

impl Target {
    /// A share of right answers, 0 to 1.
    ///
    /// It holds if the lower end of Wilson's score interval does: with 2,000 images and certainty 0.9 that is 0.9 points
    /// below the share that was seen, at a share of 0.9. A certainty of 0.5 takes the share as seen.
    pub fn accuracy(share: f64) -> Target {
        Target { wanted: Wanted::Accuracy(share), certainty: 0.9 }
    }

    /// At most so much below the share of right answers that always going on has: 0.005 for half a point.
    ///
    /// This is known better than the accuracy itself, since it is a matter only of the images on which the two differ: it
    /// holds if the mean of the difference and its standard error, as often as the certainty asks, stay below it.
    pub fn loss(share: f64) -> Target {
        Target { wanted: Wanted::Loss(share), certainty: 0.9 }
    }

    /// Sets the certainty, 0.5 to 0.9999; 0.9 if not set.
    pub fn certainty(self, certainty: f64) -> Target {
        Target { certainty, ..self }
    }

    pub(super) fn check(&self) -> Result<()> {
        let (Wanted::Accuracy(share) | Wanted::Loss(share)) = self.wanted;
        if !(0.0..=1.0).contains(&share) || !(0.5..=0.9999).contains(&self.certainty) {
            let certainty = self.certainty;
            let message =
                format!("a target of {share} at certainty {certainty}: shares are 0 to 1, certainty 0.5 to 0.9999");
            return Err(Error::invalid(message));
        }
        Ok(())
    }

    /// Whether it holds, by what was seen.
    pub(super) fn holds(&self, seen: &Tally) -> bool {
        let (n, z) = (seen.images as f64, quantile(self.certainty));
        if seen.images == 0 {
            return false;
        }
        match self.wanted {
            Wanted::Accuracy(share) => {
                let p = seen.right as f64 / n;
                let (centre, spread) = (p + z * z / (2.0 * n), z * (p * (1.0 - p) / n + z * z / (4.0 * n * n)).sqrt());
                (centre - spread) / (1.0 + z * z / n) >= share - 1e-12
            }
            Wanted::Loss(share) => {
                let (lost, won) = (seen.lost as f64, seen.won as f64);
                let mean = (lost - won) / n;
                // One image more than was seen differs: none seen does not mean that none will.
                let variance = (lost + won + if z > 0.0 { 1.0 } else { 0.0 }) / n - mean * mean;
                mean + z * (variance.max(0.0) / n).sqrt() <= share + 1e-12
            }
        }
    }
}

/// Answers of a policy beside those of always going on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Tally {
    pub images: usize,
    /// Right answers of the policy.
    pub right: usize,
    /// Images that going on would have answered right, and the policy did not.
    pub lost: usize,
    /// Images that the policy answered right, and going on would not have.
    pub won: usize,
}

impl Tally {
    pub fn add(&mut self, right: bool, rest_right: bool) {
        self.images += 1;
        self.right += usize::from(right);
        self.lost += usize::from(rest_right && !right);
        self.won += usize::from(right && !rest_right);
    }

    pub fn accuracy(&self) -> f64 {
        self.right as f64 / self.images.max(1) as f64
    }
}

/// The standard normal quantile of a probability of 0.5 or more.
fn quantile(probability: f64) -> f64 {
    let (mut low, mut high) = (0.0, 8.0);
    for _ in 0..60 {
        let middle = 0.5 * (low + high);
        let below = 1.0 - 0.5 * libm::erfc(middle / std::f64::consts::SQRT_2);
        if below < probability { low = middle } else { high = middle }
    }
    if probability <= 0.5 { 0.0 } else { 0.5 * (low + high) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_the_tables() {
        for (probability, z) in [(0.5, 0.0), (0.9, 1.281552), (0.975, 1.959964), (0.9999, 3.719016)] {
            assert!((quantile(probability) - z).abs() < 1e-6, "{probability}");
        }
    }

    #[test]
    fn an_accuracy_needs_room_below_what_was_seen() {
        let seen = Tally { images: 2000, right: 1800, lost: 0, won: 0 };
        // Wilson's bound at certainty 0.9: 0.9 - 0.0087.
        assert!(Target::accuracy(0.8910).holds(&seen) && !Target::accuracy(0.8915).holds(&seen));
        assert!(Target::accuracy(0.9).certainty(0.5).holds(&seen));
        assert!(!Target::accuracy(0.0).holds(&Tally::default()));
    }

    #[test]
    fn a_loss_counts_the_images_that_differ() {
        let seen = Tally { images: 2000, right: 1800, lost: 10, won: 6 };
        // 0.002 + 1.2816 sqrt(17 / 2000 / 2000)
        assert!(Target::loss(0.0047).holds(&seen) && !Target::loss(0.0046).holds(&seen));
        assert!(Target::loss(0.002).certainty(0.5).holds(&seen) && !Target::loss(0.0019).certainty(0.5).holds(&seen));
        // That nothing differs among few images does not say that nothing ever will.
        assert!(!Target::loss(0.0).holds(&Tally { images: 100, right: 90, lost: 0, won: 0 }));
    }

    #[test]
    fn targets_outside_their_range_are_refused() {
        for bad in [Target::accuracy(1.1), Target::loss(-0.1), Target::loss(f64::NAN), Target::loss(0.1).certainty(1.0)]
        {
            assert!(bad.check().is_err(), "{bad:?}");
        }
    }
}
