//! What is known of link, device and server when a choice is made.

use crate::error::{Error, Result};

/// Mean absolute deviations above the mean at which the 95th percentile of normal errors lies, 1.645 times 1.253, and a fifth
/// more because the mean is of few.
const CAUTION: f64 = 2.5;

/// Link, device, server and the time that is left, as measured or estimated at one moment.
///
/// Times are in seconds, bandwidth in bits a second. Speeds are relative to the machine on which times were measured:
/// a device of speed 0.1 takes ten times as long as that machine did.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Conditions {
    /// Bits a second from the device to the server.
    pub bandwidth: f64,
    /// Seconds for an empty message there and back.
    pub round_trip: f64,
    /// Seconds that a request waits at the server before its turn.
    pub wait: f64,
    /// Seconds until the answer is worth nothing; infinite if there is no deadline.
    pub deadline: f64,
    /// Speed of the device.
    pub device_speed: f64,
    /// Speed of the server.
    pub server_speed: f64,
    /// How far off all this usually is.
    pub deviation: Deviation,
}

/// How far off what is expected usually is: means of |seen - expected|. 0 is certain.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Deviation {
    /// Of the time of a transfer, as a share of the expected time.
    pub link: f64,
    /// Of the time that work takes on the device, as a share of the expected time.
    pub device: f64,
    /// Of the time that work takes at the server, as a share of the expected time.
    pub server: f64,
    /// Of the time that a request waits at the server, in seconds: the expected wait is often 0.
    pub wait: f64,
}

impl Default for Conditions {
    /// 1 Mbit/s, 40 ms there and back, an idle server, no deadline, both machines as fast as the measured one, for certain.
    fn default() -> Self {
        Conditions {
            bandwidth: 1e6,
            round_trip: 0.04,
            wait: 0.0,
            deadline: f64::INFINITY,
            device_speed: 1.0,
            server_speed: 1.0,
            deviation: Deviation::default(),
        }
    }
}

impl Conditions {
    /// Seconds from the first bit of a message of `bytes` sent to the answer's arrival, the server's work not counted: the
    /// bytes at the bandwidth, and a round trip. Infinite on a link that is down.
    pub fn transfer(&self, bytes: f64) -> f64 {
        if bytes <= 0.0 {
            return self.round_trip;
        }
        bytes * 8.0 / self.bandwidth.max(0.0) + self.round_trip
    }

    /// Seconds that work takes on the device which took `seconds` on the measured machine.
    pub fn on_device(&self, seconds: f64) -> f64 {
        seconds / self.device_speed
    }

    /// Seconds that work takes at the server, its queue counted, which took `seconds` on the measured machine.
    pub fn on_server(&self, seconds: f64) -> f64 {
        self.wait + seconds / self.server_speed
    }

    /// Conditions so much worse than expected that about 95 of 100 transfers, waits and pieces of work are no slower: for
    /// deadlines. They are certain, so that caution is taken only once.
    pub fn cautious(&self) -> Conditions {
        let [link, device, server] =
            [self.deviation.link, self.deviation.device, self.deviation.server].map(|one| 1.0 + CAUTION * one);
        Conditions {
            bandwidth: self.bandwidth / link,
            round_trip: self.round_trip * link,
            wait: self.wait + CAUTION * self.deviation.wait,
            device_speed: self.device_speed / device,
            server_speed: self.server_speed / server,
            deviation: Deviation::default(),
            ..*self
        }
    }

    /// Checks that all are numbers in their range.
    ///
    /// # Errors
    /// `InvalidInput` that names the first that is not: a bandwidth, time, deadline or deviation below 0, a speed that is not
    /// above 0.
    pub fn checked(&self) -> Result<&Self> {
        let times = [("bandwidth", self.bandwidth), ("round trip", self.round_trip), ("wait", self.wait)];
        let Deviation { link, device, server, wait } = self.deviation;
        let deviations = [("link", link), ("device", device), ("server", server), ("wait", wait)];
        for (name, value) in deviations {
            if !(value >= 0.0 && value.is_finite()) {
                return Err(Error::invalid(format!("conditions: a deviation of {value} of the {name}")));
            }
        }
        for (name, value) in times.into_iter().chain([("deadline", self.deadline)]) {
            if value.is_nan() || value < 0.0 {
                return Err(Error::invalid(format!("conditions: a {name} of {value}")));
            }
        }
        for (name, value) in [("device", self.device_speed), ("server", self.server_speed)] {
            if !(value > 0.0 && value.is_finite()) {
                return Err(Error::invalid(format!("conditions: a {name} speed of {value}")));
            }
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_takes_its_bits_and_a_round_trip() {
        let conditions = Conditions { wait: 0.5, device_speed: 0.5, server_speed: 4.0, ..Conditions::default() };
        assert!((conditions.transfer(1000.0) - 0.048).abs() < 1e-12);
        assert_eq!(conditions.transfer(0.0), 0.04);
        assert_eq!((conditions.on_device(0.1), conditions.on_server(0.2)), (0.2, 0.55));
        let down = Conditions { bandwidth: 0.0, ..conditions };
        assert_eq!((down.transfer(1.0), down.transfer(0.0)), (f64::INFINITY, 0.04));
    }

    #[test]
    fn caution_makes_all_worse_that_is_not_certain() {
        let sure = Conditions { wait: 0.5, deadline: 3.0, ..Conditions::default() };
        assert_eq!(sure.cautious(), sure);
        let deviation = Deviation { link: 0.4, device: 0.2, server: 0.1, wait: 0.2 };
        let cautious = Conditions { deviation, ..sure }.cautious();
        let (device_speed, server_speed) = (1.0 / 1.5, 0.8);
        let worse = Conditions { bandwidth: 5e5, round_trip: 0.08, wait: 1.0, device_speed, server_speed, ..sure };
        assert_eq!(cautious, worse);
        assert_eq!(cautious.cautious(), cautious);
    }

    #[test]
    fn what_is_no_condition_is_named() {
        let good = Conditions::default();
        assert!(good.checked().is_ok());
        for (bad, name) in [
            (Conditions { bandwidth: f64::NAN, ..good }, "bandwidth"),
            (Conditions { round_trip: -1.0, ..good }, "round trip"),
            (Conditions { deadline: -0.1, ..good }, "deadline"),
            (Conditions { device_speed: 0.0, ..good }, "device speed"),
            (Conditions { server_speed: f64::INFINITY, ..good }, "server speed"),
            (Conditions { deviation: Deviation { link: f64::NAN, ..Deviation::default() }, ..good }, "deviation"),
            (Conditions { deviation: Deviation { wait: -1.0, ..Deviation::default() }, ..good }, "of the wait"),
        ] {
            assert!(bad.checked().unwrap_err().to_string().contains(name), "{name}");
        }
    }
}
