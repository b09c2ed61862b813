//! Early exits of a measured network, as policies take them.

use crate::conditions::Conditions;
use crate::exit::{Decision, Policy, Rest, Route, Samples, Stage};
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

    /// What the exits do to the measured images on the way to an action, as the policy decides under these conditions. `None`
    /// where there are no images, or the policy is for other exits. An exit that was not measured on an image has no answer.
    pub(super) fn passing(&self, action: Action, policy: &Policy, conditions: &Conditions) -> Option<Passing> {
        let (samples, route) = (self.exit_samples(action)?, self.exit_route(action)?);
        if policy.exits() != samples.exits.len() {
            return None;
        }
        let answer = |image: usize| {
            samples.exits.iter().enumerate().find_map(|(exit, logits)| {
                let passed = conditions.on_device(route.until(exit)?);
                let now = Conditions { deadline: (conditions.deadline - passed).max(0.0), ..*conditions };
                match policy.decide_for(exit, &policy.read(exit, logits.get(image)?)?, &now, &route) {
                    Decision::Answer(class) => Some((exit, class)),
                    Decision::Continue => None,
                }
            })
        };
        // Images, right answers and seconds of those that an exit answers and of the others.
        let mut sums = [[0.0f64; 3]; 2];
        for (image, &label) in samples.labels.iter().enumerate() {
            let (at, right, seconds) = match answer(image) {
                Some((exit, class)) => (0, class == label as usize, route.until(exit)?),
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
