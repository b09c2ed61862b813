//! What an action costs: seconds on both sides, delay, energy.

use crate::conditions::{Conditions, Deviation};
use crate::power::Power;
use crate::split::{Coding, Measurements};

/// Where a network runs, and what is sent. The numbers are places in the lists of [`Measurements`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// The whole network on the device; nothing is sent.
    Local,
    /// The input is sent, the whole network runs on the server.
    Input {
        /// Which of `inputs`.
        coding: usize,
    },
    /// The head runs on the device, the feature is sent, the tail runs on the server.
    Split {
        /// Which of `cuts`.
        cut: usize,
        /// Which of its `codings`.
        coding: usize,
    },
}

/// Seconds of work of one image on the measured machine.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Work {
    /// On the device: head and encoder, or the whole network.
    pub device: f64,
    /// On the server: decoder and tail, or decoder and the whole network; `None` if nothing is sent.
    pub server: Option<f64>,
}

impl Work {
    /// Seconds from the input to the answer, when `bytes` are sent. Infinite over a link that is down.
    pub fn delay(&self, bytes: f64, conditions: &Conditions) -> f64 {
        let device = conditions.on_device(self.device);
        match self.server {
            Some(server) => device + conditions.transfer(bytes) + conditions.on_server(server),
            None => device,
        }
    }

    /// Probability that the answer is there by the deadline, when `bytes` are sent: 0 or 1 under conditions that are certain,
    /// else by normal errors of the conditions' deviation.
    pub fn in_time(&self, bytes: f64, conditions: &Conditions) -> f64 {
        let delay = self.delay(bytes, conditions);
        let left = if delay < f64::INFINITY { conditions.deadline - delay } else { f64::NEG_INFINITY };
        let Deviation { link, device, server, wait } = conditions.deviation;
        let device = device * conditions.on_device(self.device);
        let variance = self.server.map_or(device.powi(2), |work| {
            let (transfer, server) = (link * conditions.transfer(bytes), server * work / conditions.server_speed);
            device.powi(2) + transfer.powi(2) + server.powi(2) + wait.powi(2)
        });
        // The standard deviation of normal errors is 1.253 of their mean.
        let spread = 1.253 * variance.sqrt();
        match spread > 0.0 && left.is_finite() {
            // The logistic curve is within 0.01 of the normal distribution.
            true => 1.0 / (1.0 + (-1.702 * left / spread).exp()),
            false => f64::from(u8::from(left >= 0.0)),
        }
    }

    /// Joules of the device for it.
    pub fn energy(&self, bytes: f64, conditions: &Conditions, power: &Power) -> f64 {
        power.energy(conditions, self.device, self.server.map(|server| (bytes, server)))
    }
}

impl Measurements {
    /// Every action that was measured: local, then the codecs of the input, then the cuts and their codings.
    pub fn actions(&self) -> impl Iterator<Item = Action> + '_ {
        let inputs = (0..self.inputs.len()).map(|coding| Action::Input { coding });
        let cuts = self.cuts.iter().enumerate();
        let splits =
            cuts.flat_map(|(i, cut)| (0..cut.codings.len()).map(move |coding| Action::Split { cut: i, coding }));
        std::iter::once(Action::Local).chain(inputs).chain(splits)
    }

    /// The coding that an action sends; `None` for [`Action::Local`] and for places that there are not.
    pub fn coding(&self, action: Action) -> Option<&Coding> {
        match action {
            Action::Local => None,
            Action::Input { coding } => self.inputs.get(coding),
            Action::Split { cut, coding } => self.cuts.get(cut)?.codings.get(coding),
        }
    }

    /// Seconds of work of an action; `None` for places that there are not.
    pub fn work(&self, action: Action) -> Option<Work> {
        if action == Action::Local {
            return Some(Work { device: self.whole, server: None });
        }
        let ((head, tail), coding) = self.halves(action).zip(self.coding(action))?;
        Some(Work { device: head + coding.encode, server: Some(coding.decode + tail) })
    }

    /// Seconds of the network before what an action sends and behind it; `None` if it sends nothing.
    pub(super) fn halves(&self, action: Action) -> Option<(f64, f64)> {
        match action {
            Action::Local => None,
            Action::Input { .. } => Some((0.0, self.whole)),
            Action::Split { cut, .. } => self.cuts.get(cut).map(|cut| (cut.head, cut.tail)),
        }
    }

    /// An action in words, for example `local`, `JPEG q75` or `narrows x1 @ stage3.0.out`.
    pub fn name(&self, action: Action) -> String {
        let Some(coding) = self.coding(action) else { return "local".into() };
        let mut name = format!("{} {}", coding.codec, coding.setting).trim_end().to_string();
        if let Some((layer, of)) = coding.layer {
            name += &format!(" layer {layer}/{of}");
        }
        match action {
            Action::Split { cut, .. } => format!("{name} @ {}", self.cuts[cut].name),
            _ => name,
        }
    }

    /// Share of images that an action answers as `labels` has it.
    pub fn accuracy(&self, action: Action) -> f64 {
        match self.coding(action) {
            Some(coding) => coding.share_of(&self.labels),
            None => {
                let right = self.answers.iter().zip(&self.labels).filter(|(answer, label)| answer == label).count();
                right as f64 / self.labels.len().max(1) as f64
            }
        }
    }

    /// Standard error of the difference between an action's accuracy and the uncut network's, from the images that only one of
    /// the two answers rightly. 0 for [`Action::Local`].
    pub fn accuracy_error(&self, action: Action) -> f64 {
        let Some(coding) = self.coding(action) else { return 0.0 };
        let right = |answers: &[u32]| answers.iter().zip(&self.labels).map(|(a, b)| a == b).collect::<Vec<bool>>();
        let (own, uncut) = (right(&coding.answers), right(&self.answers));
        let differences =
            own.iter().zip(&uncut).map(|(&own, &uncut)| f64::from(u8::from(own)) - f64::from(u8::from(uncut)));
        let (sum, squares) = differences.fold((0.0, 0.0), |(sum, squares), one| (sum + one, squares + one * one));
        let images = self.labels.len().max(1) as f64;
        ((squares / images - (sum / images).powi(2)).max(0.0) / images).sqrt()
    }

    /// The same with the uncut network's answers for labels: accuracy becomes agreement with it.
    pub fn by_agreement(mut self) -> Measurements {
        self.labels.clone_from(&self.answers);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::split::tests::example;

    #[test]
    fn an_action_takes_what_its_parts_take() {
        let measured = example();
        let conditions =
            Conditions { bandwidth: 8e5, wait: 0.5, device_speed: 0.5, server_speed: 2.0, ..Conditions::default() };
        let local = measured.work(Action::Local).unwrap();
        assert_eq!(local.delay(1e9, &conditions), 0.2);
        // Head 40 ms and encoder 1 ms at half speed, 100 bytes at 100 kB/s, 40 ms, wait, decoder 1 ms and tail 60 ms at
        // twice the speed.
        let split = measured.work(Action::Split { cut: 0, coding: 0 }).unwrap();
        assert!((split.delay(100.0, &conditions) - (0.082 + 0.001 + 0.04 + 0.5 + 0.0305)).abs() < 1e-12);
        let power = Power { compute: 2.0, send: 10.0, receive: 1.0, idle: 0.1 };
        let energy = split.energy(100.0, &conditions, &power);
        assert!((energy - (2.0 * 0.082 + 10.0 * 0.001 + 0.04 + 0.1 * 0.5305)).abs() < 1e-12);
        assert_eq!(local.energy(1e9, &conditions, &power), 0.4);
    }

    #[test]
    fn the_deadline_is_met_as_often_as_errors_let_it() {
        let split = example().work(Action::Split { cut: 0, coding: 0 }).unwrap();
        let sure = Conditions { deadline: split.delay(1000.0, &Conditions::default()), ..Conditions::default() };
        let in_time = |deadline: f64, deviation: Deviation| {
            split.in_time(1000.0, &Conditions { deadline: sure.deadline + deadline, deviation, ..sure })
        };
        let certain = Deviation::default();
        assert_eq!([-1e-6, 0.0, f64::INFINITY].map(|more| in_time(more, certain)), [0.0, 1.0, 1.0]);
        // A transfer of 48 ms that is off by 10 % has a standard deviation of 6 ms.
        let link = Deviation { link: 0.1, ..certain };
        for (deviations, share) in [(-1.0, 0.159), (0.0, 0.5), (1.645, 0.95), (1e9, 1.0), (-1e9, 0.0)] {
            assert!((in_time(deviations * 0.006_014, link) - share).abs() < 0.01, "{deviations}");
        }
        // Device 41 ms and server 61 ms beside, and a wait that is off by 20 ms.
        let all = Deviation { link: 0.1, device: 0.2, server: 0.1, wait: 0.02 };
        let spread = 1.253 * f64::hypot(f64::hypot(0.0048, 0.02), f64::hypot(0.0082, 0.0061));
        assert!((in_time(1.645 * spread, all) - 0.95).abs() < 0.01);
        let down = Conditions { bandwidth: 0.0, deviation: all, ..sure };
        assert_eq!(split.in_time(1.0, &down), 0.0);
        assert_eq!(split.in_time(1.0, &Conditions { deadline: f64::INFINITY, ..down }), 0.0);
    }

    #[test]
    fn a_link_that_is_down_is_no_nan() {
        let down = Conditions { bandwidth: 0.0, ..Conditions::default() };
        let split = example().work(Action::Split { cut: 0, coding: 0 }).unwrap();
        assert_eq!(split.delay(10.0, &down), f64::INFINITY);
        let silent = Power { compute: 1.0, send: 0.0, receive: 0.0, idle: 0.0 };
        assert!(split.energy(10.0, &down, &silent).is_finite());
    }

    #[test]
    fn places_that_there_are_not_have_no_work() {
        let measured = example();
        for action in
            [Action::Input { coding: 9 }, Action::Split { cut: 0, coding: 9 }, Action::Split { cut: 9, coding: 0 }]
        {
            assert_eq!((measured.work(action), measured.coding(action)), (None, None));
        }
        assert_eq!(measured.actions().count(), 6);
        assert!(measured.actions().all(|action| measured.work(action).is_some()));
        assert_eq!(measured.name(Action::Split { cut: 0, coding: 1 }), "narrows x2 @ cut");
    }
}
