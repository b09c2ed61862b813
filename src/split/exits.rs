//! Early exits of a measured network, as policies take them.

use crate::exit::{Rest, Route, Samples, Stage};
use crate::split::{Action, Measurements};

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

    fn rest(&self, action: Action) -> Option<Rest> {
        let (head, tail) = match action {
            Action::Local => return Some(Rest::Device { seconds: self.whole }),
            Action::Input { .. } => (0.0, self.whole),
            Action::Split { cut, .. } => self.cuts.get(cut).map(|cut| (cut.head, cut.tail))?,
        };
        let coding = self.coding(action)?;
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
