//! What answering at an exit costs, and what going on costs, under given conditions.

use crate::conditions::Conditions;
use crate::error::{Error, Result};
use crate::power::Power;

/// Most exits of a route: far more than a network has, so that a file of a policy has a bound.
pub(super) const MAX_EXITS: usize = 32;

/// What a second, a joule and a byte are worth against each other. Only their ratios matter.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Weights {
    /// Cost of a second of delay.
    pub delay: f64,
    /// Cost of a joule of the device.
    pub energy: f64,
    /// Cost of a byte sent.
    pub bytes: f64,
    /// What the device draws.
    pub power: Power,
}

impl Default for Weights {
    /// Delay alone.
    fn default() -> Self {
        Weights { delay: 1.0, energy: 0.0, bytes: 0.0, power: Power::default() }
    }
}

impl Weights {
    pub(super) fn check(&self) -> Result<()> {
        let weights = [self.delay, self.energy, self.bytes];
        let Power { compute, send, receive, idle } = self.power;
        let all = weights.into_iter().chain([compute, send, receive, idle]);
        if all.into_iter().any(|value| !(value.is_finite() && value >= 0.0)) || weights.iter().sum::<f64>() <= 0.0 {
            return Err(Error::invalid("weights and watts must not be negative, and one weight must be above 0"));
        }
        Ok(())
    }

    /// The cost of what was spent.
    pub fn cost(&self, spent: &Spent) -> f64 {
        let term = |weight: f64, amount: f64| if weight > 0.0 { weight * amount } else { 0.0 };
        term(self.delay, spent.delay) + term(self.energy, spent.energy) + term(self.bytes, spent.bytes)
    }
}

/// An exit's times on the measured machine.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Stage {
    /// Seconds of all that leads from the input to its logits, other exits not counted.
    pub seconds: f64,
    /// Seconds of the part of it that the rest of the network does not need.
    pub extra: f64,
}

/// What comes after the last exit. Seconds are those of the measured machine.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Rest {
    /// The device runs the network to its end.
    Device {
        /// Seconds of the whole network without its exits.
        seconds: f64,
    },
    /// The server runs the rest.
    Server {
        /// Seconds of the head, up to what is sent.
        head: f64,
        /// Seconds to encode it.
        encode: f64,
        /// Mean bytes sent.
        bytes: f64,
        /// Bytes that 19 of 20 images do not exceed: what deadlines are held against.
        most: f64,
        /// Seconds to decode it and of the tail.
        tail: f64,
    },
}

impl Rest {
    /// A server that gets streams of these sizes; `tail` is with decoding.
    pub fn server(head: f64, encode: f64, bytes: &[u32], tail: f64) -> Rest {
        let mut sizes = bytes.to_vec();
        sizes.sort_unstable();
        let most = sizes.get((sizes.len() * 19).div_ceil(20).saturating_sub(1)).copied().unwrap_or(0);
        let mean = sizes.iter().map(|&size| f64::from(size)).sum::<f64>() / sizes.len().max(1) as f64;
        Rest::Server { head, encode, bytes: mean, most: f64::from(most), tail }
    }
}

/// The way of an image: the exits in order, then the rest.
#[derive(Debug, Clone, PartialEq)]
pub struct Route {
    /// The exits, in the order of the network.
    pub exits: Vec<Stage>,
    /// What comes after the last.
    pub rest: Rest,
}

/// What one answer took.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Spent {
    /// Seconds from the input to the answer.
    pub delay: f64,
    /// Joules of the device.
    pub energy: f64,
    /// Bytes sent.
    pub bytes: f64,
}

impl Route {
    pub(super) fn check(&self) -> Result<()> {
        if !(1..=MAX_EXITS).contains(&self.exits.len()) {
            return Err(Error::invalid(format!("a route of {} exits: there are 1 to {MAX_EXITS}", self.exits.len())));
        }
        let rest = match self.rest {
            Rest::Device { seconds } => vec![seconds],
            Rest::Server { head, encode, bytes, most, tail } => vec![head, encode, bytes, most, tail],
        };
        let times = self.exits.iter().flat_map(|stage| [stage.seconds, stage.extra]).chain(rest);
        if times.into_iter().any(|value| !(value.is_finite() && value >= 0.0)) {
            return Err(Error::invalid("a time or a size of the route is negative or not finite"));
        }
        if self.exits.windows(2).any(|pair| pair[0].trunk() > pair[1].seconds) {
            return Err(Error::invalid("the exits are not in the order of the network: a later one takes less time"));
        }
        Ok(())
    }

    /// Seconds on the measured machine until the logits of an exit are there, those of the exits before it too. `None` for an
    /// exit that there is not.
    pub fn until(&self, exit: usize) -> Option<f64> {
        let before = self.exits.get(..exit)?.iter().map(|stage| stage.extra).sum::<f64>();
        Some(self.exits.get(exit)?.seconds + before)
    }

    /// Seconds on the measured machine that the device works if it goes on after the last exit: exits, head and encoder, or
    /// the whole network.
    pub fn on_device(&self) -> f64 {
        let trunk = self.exits.iter().map(|stage| stage.trunk()).fold(0.0, f64::max);
        let exits = self.exits.iter().map(|stage| stage.extra).sum::<f64>();
        match self.rest {
            Rest::Device { seconds } => seconds.max(trunk) + exits,
            Rest::Server { head, encode, .. } => head.max(trunk) + encode + exits,
        }
    }

    /// What an answer at an exit takes. `None` for an exit that there is not.
    pub fn at_exit(&self, exit: usize, conditions: &Conditions, power: &Power) -> Option<Spent> {
        let work = self.until(exit)?;
        Some(Spent { delay: conditions.on_device(work), energy: power.energy(conditions, work, None), bytes: 0.0 })
    }

    /// What the answer of the rest takes on the average image.
    pub fn at_rest(&self, conditions: &Conditions, power: &Power) -> Spent {
        self.sending(if let Rest::Server { bytes, .. } = self.rest { bytes } else { 0.0 }, conditions, power)
    }

    /// What the answer of the rest takes if it sends so many bytes.
    pub fn sending(&self, bytes: f64, conditions: &Conditions, power: &Power) -> Spent {
        let work = self.on_device();
        let (server, bytes) = match self.rest {
            Rest::Device { .. } => (None, 0.0),
            Rest::Server { tail, .. } => (Some(tail), bytes),
        };
        let device = conditions.on_device(work);
        Spent {
            delay: server.map_or(device, |tail| device + conditions.transfer(bytes) + conditions.on_server(tail)),
            energy: power.energy(conditions, work, server.map(|tail| (bytes, tail))),
            bytes,
        }
    }

    /// Seconds to the answer of the rest that 19 of 20 images do not exceed, as far as their bytes go.
    pub(super) fn slow(&self, conditions: &Conditions, power: &Power) -> f64 {
        let most = if let Rest::Server { most, .. } = self.rest { most } else { 0.0 };
        self.sending(most, conditions, power).delay
    }
}

impl Stage {
    /// Seconds of the part that the rest of the network needs too.
    fn trunk(&self) -> f64 {
        (self.seconds - self.extra).max(0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(rest: Rest) -> Route {
        Route { exits: vec![Stage { seconds: 0.010, extra: 0.002 }, Stage { seconds: 0.020, extra: 0.003 }], rest }
    }

    #[test]
    fn times_add_up() {
        let conditions = Conditions { device_speed: 0.5, server_speed: 2.0, wait: 0.01, ..Conditions::default() };
        let power = Power { compute: 2.0, send: 3.0, receive: 0.5, idle: 1.0 };
        let rest = Rest::server(0.030, 0.001, &[1000; 20], 0.004);
        let route = route(rest);
        let first = route.at_exit(0, &conditions, &power).unwrap();
        assert!((first.delay - 0.020).abs() < 1e-12 && (first.energy - 0.040).abs() < 1e-12);
        // The second exit waits for the first one's extra work as well.
        assert!((route.at_exit(1, &conditions, &power).unwrap().delay - 0.044).abs() < 1e-12);
        assert_eq!((route.at_exit(2, &conditions, &power), route.until(2), route.until(3)), (None, None, None));
        let rest = route.at_rest(&conditions, &power);
        let (device, sending, server) = (0.036 / 0.5, 0.008, 0.01 + 0.002);
        assert!((rest.delay - device - sending - 0.04 - server).abs() < 1e-12, "{rest:?}");
        assert!((rest.energy - 2.0 * device - 3.0 * sending - 0.02 - server).abs() < 1e-12);
        let weights = Weights { delay: 1.0, energy: 2.0, bytes: 0.5, power };
        assert!((weights.cost(&rest) - rest.delay - 2.0 * rest.energy - 500.0).abs() < 1e-9);
    }

    #[test]
    fn a_cut_before_an_exit_still_computes_up_to_the_exit() {
        let early = route(Rest::server(0.005, 0.001, &[10; 20], 0.004));
        assert!((early.on_device() - (0.017 + 0.001 + 0.005)).abs() < 1e-12);
        let whole = route(Rest::Device { seconds: 0.050 });
        let spent = whole.at_rest(&Conditions { bandwidth: 0.0, ..Conditions::default() }, &Power::default());
        assert!((spent.delay - 0.055).abs() < 1e-12 && spent.bytes == 0.0);
    }

    #[test]
    fn nineteen_of_twenty_sizes_are_below_most() {
        let sizes: Vec<u32> = (1..=100).collect();
        let Rest::Server { bytes, most, .. } = Rest::server(0.0, 0.0, &sizes, 0.0) else { panic!() };
        assert_eq!((bytes, most), (50.5, 95.0));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let mut bad = route(Rest::Device { seconds: 0.05 });
        bad.exits.swap(0, 1);
        assert!(bad.check().unwrap_err().to_string().contains("order"));
        assert!(route(Rest::Device { seconds: f64::NAN }).check().is_err());
        for exits in [0, MAX_EXITS + 1] {
            let many = Route { exits: vec![Stage { seconds: 0.01, extra: 0.0 }; exits], ..bad.clone() };
            assert!(many.check().unwrap_err().to_string().contains("1 to 32"), "{exits}");
        }
        assert!(Weights { delay: 0.0, ..Weights::default() }.check().is_err());
        assert!(Weights { energy: -1.0, ..Weights::default() }.check().is_err());
    }
}
