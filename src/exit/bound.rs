//! Target accuracies, and what a validation set allows to say of them.

use crate::error::{Error, Result};

/// Images are counted in whole numbers; the normal distribution is held against the middle between two of them.
const HALF: f64 = 0.5;

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
    /// It holds if the lower end of Wilson's score interval does, with half an image less than was seen: with 2,000 images and
    /// certainty 0.9 that is 0.9 points below the share that was seen, at a share of 0.9. A certainty of 0.5 takes the share
    /// as seen.
    pub fn accuracy(share: f64) -> Target {
        Target { wanted: Wanted::Accuracy(share), certainty: 0.9 }
    }

    /// At most so much below the share of right answers that always going on has: 0.005 for half a point.
    ///
    /// This is known better than the accuracy itself, since it is a matter only of the images on which the two differ. It
    /// holds if so few are lost as would be a chance rarer than the certainty leaves, if as many were lost on average as is
    /// allowed. A certainty of 0.5 takes the loss as seen. With few images nothing is certain enough: that none of them is lost
    /// tells of a loss of half a point with certainty 0.9 if they are 510, with 0.99 if they are 1,280; half of the images that
    /// a policy is fitted on count.
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
                let p = (seen.right as f64 - if z > 0.0 { HALF } else { 0.0 }).max(0.0) / n;
                let (centre, spread) = (p + z * z / (2.0 * n), z * (p * (1.0 - p) / n + z * z / (4.0 * n * n)).sqrt());
                (centre - spread) / (1.0 + z * z / n) >= share - 1e-12
            }
            Wanted::Loss(share) => {
                let (lost, won) = (seen.lost as f64, seen.won as f64);
                let (seen, allowed) = (lost - won, n * share);
                // The variance is that of a policy that loses just what is allowed: what few images happen to show would make
                // a loss of none certain.
                let margin = HALF + z * (n * (share * (1.0 - share) + 2.0 * won / n)).sqrt();
                seen + if z > 0.0 { margin } else { 0.0 } <= allowed + 1e-9
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

    /// Whether more images were lost than won, by more than a standard error.
    pub fn is_clear_loss(&self) -> bool {
        self.lost as f64 - self.won as f64 > ((self.lost + self.won) as f64).sqrt()
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
        // Wilson's bound at certainty 0.9 for 1799.5: 0.89975 - 0.0089.
        assert!(Target::accuracy(0.8908).holds(&seen) && !Target::accuracy(0.8909).holds(&seen));
        assert!(Target::accuracy(0.9).certainty(0.5).holds(&seen));
        assert!(!Target::accuracy(0.0).holds(&Tally::default()));
    }

    #[test]
    fn a_loss_counts_the_images_that_differ() {
        let seen = Tally { images: 2000, right: 1800, lost: 10, won: 6 };
        // 4.5 + 1.2816 sqrt(2000 x (1 - x) + 12) = 2000 x at x = 0.00529.
        assert!(Target::loss(0.0053).holds(&seen) && !Target::loss(0.0052).holds(&seen));
        assert!(Target::loss(0.002).certainty(0.5).holds(&seen) && !Target::loss(0.0019).certainty(0.5).holds(&seen));
        // That nothing differs among few images does not say that nothing ever will.
        let none = |images| Tally { images, right: images, lost: 0, won: 0 };
        assert!(!Target::loss(0.0).holds(&none(100)));
        assert_eq!([500, 520].map(|images| Target::loss(0.005).holds(&none(images))), [false, true]);
        let sure = Target::loss(0.005).certainty(0.99);
        assert_eq!([1260, 1280].map(|images| sure.holds(&none(images))), [false, true]);
    }

    /// Logarithms of factorials.
    fn factorials(most: usize) -> Vec<f64> {
        (0..=most)
            .scan(0.0, |sum, k: usize| {
                *sum += (k.max(1) as f64).ln();
                Some(*sum)
            })
            .collect()
    }

    #[test]
    fn a_policy_that_loses_just_too_much_passes_no_more_often_than_the_certainty_leaves() {
        let factorial = factorials(2000);
        let mut nearest: f64 = 0.0;
        for certainty in [0.9, 0.99, 0.9999] {
            for (n, share) in [(300, 0.01), (500, 0.005), (1000, 0.002), (1000, 0.004), (1000, 0.02), (2000, 0.02)] {
                let target = Target::loss(share).certainty(certainty);
                for wins in [0.0f64, 0.0005, 0.002, 0.01, 0.03] {
                    // Every image is lost, won or neither, with these probabilities.
                    let loses = share + wins;
                    let most = |mean: f64| ((mean + 10.0 * mean.sqrt() + 8.0) as usize).min(n);
                    let mut passes = 0.0;
                    for won in 0..=if wins > 0.0 { most(n as f64 * wins) } else { 0 } {
                        for lost in 0..=most(n as f64 * loses).min(n - won) {
                            if !target.holds(&Tally { images: n, right: 0, lost, won }) {
                                break;
                            }
                            let ways = factorial[n] - factorial[won] - factorial[lost] - factorial[n - won - lost];
                            let won_ln = if won > 0 { won as f64 * wins.ln() } else { 0.0 };
                            let neither = (n - won - lost) as f64 * (1.0 - loses - wins).ln();
                            passes += (ways + won_ln + lost as f64 * loses.ln() + neither).exp();
                        }
                    }
                    let allowed = 1.0 - certainty;
                    assert!(passes <= allowed, "{n} images, loss {share}, {wins} won, {certainty}: {passes}");
                    nearest = nearest.max(passes / allowed);
                }
            }
        }
        // Nor is it timid throughout.
        assert!(nearest > 0.8, "{nearest}");
    }

    #[test]
    fn a_policy_that_is_just_too_inaccurate_passes_no_more_often_than_the_certainty_leaves() {
        let factorial = factorials(2000);
        for certainty in [0.9, 0.99, 0.9999] {
            for (n, share) in [(100, 0.5f64), (200, 0.9), (500, 0.9), (1000, 0.8), (2000, 0.95), (500, 0.99)] {
                let target = Target::accuracy(share).certainty(certainty);
                let chance = |right: usize| {
                    let ways = factorial[n] - factorial[right] - factorial[n - right];
                    (ways + right as f64 * share.ln() + (n - right) as f64 * (1.0 - share).ln()).exp()
                };
                let holds = |right: &usize| target.holds(&Tally { images: n, right: *right, lost: 0, won: 0 });
                let passes = (0..=n).filter(holds).map(chance).sum::<f64>();
                assert!(passes <= 1.0 - certainty, "{n} images, {share}, {certainty}: {passes}");
            }
        }
    }

    #[test]
    fn targets_outside_their_range_are_refused() {
        for bad in [Target::accuracy(1.1), Target::loss(-0.1), Target::loss(f64::NAN), Target::loss(0.1).certainty(1.0)]
        {
            assert!(bad.check().is_err(), "{bad:?}");
        }
    }
}
