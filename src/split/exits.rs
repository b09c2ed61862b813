//! Early exits of a measured network, as policies take them.

use crate::conditions::Conditions;
use crate::exit::{Policy, Reading, Rest, Route, Samples, Stage};
use crate::split::{Action, Measurements};

/// What the exits on the way to an action answer, and what they cost the others.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Passing {
    /// Share of images that an exit answers.
    pub share: f64,
    /// Share of right answers among those.
    pub right: f64,
    /// Mean seconds of work until they are answered.
    pub seconds: f64,
    /// Share of right answers among the others.
    pub rest_right: f64,
    /// Seconds of the device's work for the others, exits counted.
    pub device: f64,
}

/// What the exits said of all measured images, by the temperatures of a policy: reading logits takes far longer than deciding.
#[derive(Debug)]
pub(super) struct Readings {
    classes: usize,
    sharpness: Vec<f64>,
    /// [exit][image]; none for an exit that was not measured on an image, or said nothing.
    all: Vec<Vec<Option<Reading>>>,
}

impl Readings {
    pub fn new(measured: &Measurements, policy: &Policy) -> Readings {
        let (classes, sharpness) = policy.reads_by();
        let one = |image: usize, (exit, logits): (usize, &[Vec<f32>])| policy.read(exit, logits.get(image)?);
        let exits = measured.exits.iter().map(|exit| exit.logits.as_slice()).enumerate();
        let all = exits.map(|exit| (0..measured.images()).map(|image| one(image, exit)).collect()).collect();
        Readings { classes, sharpness: sharpness.to_vec(), all }
    }

    /// True if they are what this policy reads.
    pub fn are_by(&self, policy: &Policy) -> bool {
        policy.reads_by() == (self.classes, &self.sharpness)
    }
}

impl Measurements {
    /// What the exits said of each image, and what comes out if the device goes on to an action. `None` for places that
    /// there are not.
    pub fn exit_samples(&self, action: Action) -> Option<Samples<'_>> {
        let coding = self.coding(action);
        if coding.is_none() && action != Action::Local {
            return None;
        }
        Some(Samples {
            labels: &self.labels,
            exits: self.exits.iter().map(|exit| exit.logits.as_slice()).collect(),
            answers: coding.map_or(&self.answers, |coding| &coding.answers),
            bytes: coding.map_or(&[], |coding| &coding.bytes),
        })
    }

    /// The way of an image past all exits to an action. `None` for places that there are not.
    pub fn exit_route(&self, action: Action) -> Option<Route> {
        let exits = self.exits.iter().map(|exit| Stage { seconds: exit.seconds, extra: exit.extra }).collect();
        Some(Route { exits, rest: self.rest(action)? })
    }

    /// The same way without the exits: their logits are not computed, and take no time.
    pub fn direct_route(&self, action: Action) -> Option<Route> {
        let exits = vec![Stage { seconds: 0.0, extra: 0.0 }; self.exits.len()];
        Some(Route { exits, rest: self.rest(action)? })
    }

    /// What the exits do to the measured images on the way to an action, as the policy decides under these conditions on what it
    /// has read. `None` where there are no images, or the policy is for other exits.
    pub(super) fn passing(
        &self,
        action: Action,
        policy: &Policy,
        readings: &Readings,
        conditions: &Conditions,
    ) -> Option<Passing> {
        let (samples, route) = (self.exit_samples(action)?, self.exit_route(action)?);
        if policy.exits() != samples.exits.len() {
            return None;
        }
        let asked = policy.asked(conditions, &route);
        let until: Vec<f64> = (0..policy.exits()).map(|exit| route.until(exit)).collect::<Option<_>>()?;
        // Images, right answers and seconds of those that an exit answers and of the others.
        let mut sums = [[0.0f64; 3]; 2];
        for (image, &label) in samples.labels.iter().enumerate() {
            let (at, right, seconds) = match asked.first(|exit| readings.all[exit][image]) {
                Some((exit, class)) => (0, class == label as usize, until[exit]),
                None => (1, samples.answers.get(image) == Some(&label), route.on_device()),
            };
            let one = [1.0, f64::from(u8::from(right)), seconds];
            sums[at].iter_mut().zip(one).for_each(|(sum, one)| *sum += one);
        }
        let [early, rest] = sums;
        let mean = |[count, right, seconds]: [f64; 3]| (right / count.max(1.0), seconds / count.max(1.0));
        let ((right, seconds), (rest_right, _)) = (mean(early), mean(rest));
        let images = early[0] + rest[0];
        (images > 0.0).then(|| Passing {
            share: early[0] / images,
            right,
            seconds,
            rest_right,
            device: route.on_device(),
        })
    }

    fn rest(&self, action: Action) -> Option<Rest> {
        if action == Action::Local {
            return Some(Rest::Device { seconds: self.whole });
        }
        let ((head, tail), coding) = self.halves(action).zip(self.coding(action))?;
        Some(Rest::server(head, coding.encode, &coding.bytes, coding.decode + tail))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conditions::Conditions;
    use crate::power::Power;
    use crate::split::tests::example;
    use crate::split::{Exit, Goal, Planner};

    #[test]
    fn a_direct_route_takes_what_the_planner_says() {
        let mut measured = example();
        let exit = Exit { name: "exit".into(), seconds: 0.02, extra: 0.003, logits: vec![vec![1.0, 0.0]; 20] };
        measured.exits.push(exit);
        let conditions = Conditions { device_speed: 0.3, wait: 0.01, ..Conditions::default() };
        let planner = Planner::new(std::sync::Arc::new(measured.clone()), Power::default(), Goal::Accuracy);
        for estimate in planner.candidates(&conditions) {
            let power = Power::default();
            let direct = measured.direct_route(estimate.action).unwrap().at_rest(&conditions, &power);
            assert!((direct.delay - estimate.delay).abs() < 1e-12 && (direct.energy - estimate.energy).abs() < 1e-12);
            let with_exit = measured.exit_route(estimate.action).unwrap().at_rest(&conditions, &power);
            // The exit takes its own work, and the head at least up to it.
            let head = if let Action::Input { .. } = estimate.action { 0.017 } else { 0.0 };
            assert!((with_exit.delay - direct.delay - (0.003 + head) / 0.3).abs() < 1e-9, "{estimate:?}");
        }
        assert!(measured.exit_route(Action::Input { coding: 9 }).is_none());
        assert!(measured.exit_samples(Action::Split { cut: 9, coding: 0 }).is_none());
        assert_eq!(measured.exit_samples(Action::Local).unwrap().bytes.len(), 0);
    }
}
