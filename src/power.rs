//! What a device draws.

use crate::conditions::Conditions;

/// Watts that a device draws for an image, beyond what it draws anyway.
///
/// The energy of an image is `compute` while the device computes, `send` while its bytes go out, `receive` over the round
/// trip, in which the radio waits for and gets the answer, and `idle` while the server works. What a radio draws after a
/// transfer while it stays connected is not counted, for it depends on when the next one comes: an LTE modem draws some 1.06 W
/// for 11.6 s (Huang et al. 2012), which is more than a small transfer takes itself.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Power {
    /// While computing.
    pub compute: f64,
    /// While sending.
    pub send: f64,
    /// While the radio waits for the answer and gets it.
    pub receive: f64,
    /// While the server works.
    pub idle: f64,
}

impl Default for Power {
    /// A small board with an LTE modem: 3.2 W for computing, as a Raspberry Pi 4 draws under load beyond its rest (5.4 W
    /// and 2.2 W); 1.73 W for sending at 1 Mbit/s, 1.29 W for the open channel and 1.06 W for the connection at rest, from
    /// the LTE model of Huang et al., "A Close Examination of Performance and Power Characteristics of 4G LTE Networks",
    /// MobiSys 2012. Measure your own device where energy decides.
    fn default() -> Self {
        Power { compute: 3.2, send: 1.73, receive: 1.29, idle: 1.06 }
    }
}

impl Power {
    /// Joules for an image that takes the device `work` seconds on the measured machine, and the server, if bytes are sent to
    /// it, so many: (bytes, seconds).
    pub(crate) fn energy(&self, conditions: &Conditions, work: f64, sent: Option<(f64, f64)>) -> f64 {
        // No power for ever is no energy.
        let joules = |watts: f64, seconds: f64| if watts == 0.0 { 0.0 } else { watts * seconds };
        let compute = joules(self.compute, conditions.on_device(work));
        let Some((bytes, server)) = sent else { return compute };
        let sending = Conditions { round_trip: 0.0, ..*conditions }.transfer(bytes);
        let radio = joules(self.send, sending) + joules(self.receive, conditions.round_trip);
        compute + radio + joules(self.idle, conditions.on_server(server))
    }
}
