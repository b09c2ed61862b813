//! What a policy does on a set of images.

use crate::conditions::Conditions;
use crate::error::{Error, Result};
use crate::exit::costs::Spent;
use crate::exit::policy::Policy;
use crate::exit::samples::Samples;

/// Accuracy and costs of a policy over a set of images, each with its own bytes.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// Share of right answers.
    pub accuracy: f64,
    /// Share of images answered at each exit; the others went on to the end.
    pub answered: Vec<f64>,
    /// Mean seconds, joules and bytes of an image.
    pub mean: Spent,
    /// Mean cost by the weights of the policy.
    pub cost: f64,
    /// Share of answers within the deadline.
    pub in_time: f64,
    /// Share of answers that are right and within the deadline.
    pub right_in_time: f64,
}

impl Outcome {
    /// Share of images answered on the device.
    pub fn local(&self) -> f64 {
        self.answered.iter().sum()
    }
}

impl Policy {
    /// Runs the policy on images under conditions that do not change; the deadline counts from the input.
    ///
    /// # Errors
    /// `InvalidInput` if there are no images, the samples do not have the policy's exits and classes, or the conditions are not in
    /// their range. Logits that are not finite are no error: that exit does not answer.
    pub fn evaluate(&self, samples: &Samples<'_>, conditions: &Conditions) -> Result<Outcome> {
        samples.check_shape()?;
        conditions.checked()?;
        if samples.exits.len() != self.exits() || samples.classes() != self.classes {
            let (exits, classes) = (samples.exits.len(), samples.classes());
            let (own, own_classes) = (self.exits(), self.classes);
            let message =
                format!("a policy of {own} exits, {own_classes} classes for {exits} exits, {classes} classes");
            return Err(Error::invalid(message));
        }
        let images = samples.labels.len();
        let (mut right, mut in_time, mut both) = (0usize, 0usize, 0usize);
        let mut answered = vec![0usize; self.exits()];
        let (mut sum, mut cost) = (Spent::default(), 0.0);
        let asked = self.asked(conditions, &self.route);
        let power = &self.weights.power;
        let at_exits: Option<Vec<Spent>> =
            (0..self.exits()).map(|exit| self.route.at_exit(exit, conditions, power)).collect();
        let at_exits = at_exits.ok_or_else(|| Error::invalid("a policy with more exits than its route"))?;
        for image in 0..images {
            let answer = asked.first(|exit| self.read(exit, &samples.exits[exit][image]));
            let (class, spent) = match answer {
                Some((exit, class)) => {
                    answered[exit] += 1;
                    (class, at_exits[exit])
                }
                None => {
                    let bytes = samples.bytes.get(image).map_or(0.0, |&bytes| f64::from(bytes));
                    (samples.answers[image] as usize, self.route.sending(bytes, conditions, power))
                }
            };
            let (is_right, is_in_time) = (class == samples.labels[image] as usize, spent.delay <= conditions.deadline);
            right += usize::from(is_right);
            in_time += usize::from(is_in_time);
            both += usize::from(is_right && is_in_time);
            sum.delay += spent.delay;
            sum.energy += spent.energy;
            sum.bytes += spent.bytes;
            cost += self.weights.cost(&spent);
        }
        let share = |count: usize| count as f64 / images as f64;
        let n = images as f64;
        Ok(Outcome {
            accuracy: share(right),
            answered: answered.into_iter().map(share).collect(),
            mean: Spent { delay: sum.delay / n, energy: sum.energy / n, bytes: sum.bytes / n },
            cost: cost / n,
            in_time: share(in_time),
            right_in_time: share(both),
        })
    }
}
