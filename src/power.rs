//! What a device draws.

/// Watts that a device draws for an image, beyond what it draws anyway.
///
/// The energy of an image is `compute` while the device computes, `send` while its bytes go out, `receive` over the round
/// trip, in which the radio waits for and gets the answer, and `idle` while the server works.
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

/// No power for ever is no energy.
pub(crate) fn joules(watts: f64, seconds: f64) -> f64 {
    if watts == 0.0 { 0.0 } else { watts * seconds }
}
