//! A fleet of devices against servers, simulated event by event.
//!
//! What is drawn is the conditions: links follow traces ([`Trace`], from a file or a [`Generator`]), servers a trace of
//! other load, requests a clock of each device. What is *measured* is the network: every request is an image of
//! [`Measurements`](crate::split::Measurements), with the bytes, answers, exits and times that were measured of it, so that
//! accuracy, bytes and exits belong together as they do in truth.
//!
//! A request waits for the device's processor, is computed there, waits for the radio, is sent at the bandwidth of the
//! moment (the trace is integrated), takes half a round trip to a server, waits there for a worker, is worked on by what others
//! leave of it (the load is integrated too), and its answer takes the other half back once the link is up. What is late before it
//! is sent is not sent, what is late when its turn at the server comes is refused there, as servers do that know the deadline.
//!
//! A device knows of link and server only what replies told it ([`LinkEstimate`](crate::split::LinkEstimate)), and never what a
//! trace does next. One that answers by itself probes: it sends the stream of an image that it has answered, which the server
//! works on as on any other. Bytes, energy and the server's work of probes are counted; their answers are not. A probe comes
//! after a second of silence; as long as probes tell nothing new the silence doubles, up to 64 seconds. Where the device alone is
//! best however good link and server are, there are none.
//!
//! [`simulate`] runs one [`Strategy`] through a [`Scenario`]. All strategies of one scenario meet the same requests on the
//! same links: device, time and image of each depend on the seed alone.

mod check;
mod csv;
mod device;
mod engine;
mod event;
mod generate;
mod outcome;
mod request;
mod scenario;
mod steps;
mod strategy;
#[cfg(test)]
mod tests;
mod trace;

pub use engine::simulate;
pub use generate::Generator;
pub use outcome::{Outcome, Slice};
pub use scenario::{Arrivals, Link, Prices, Scenario};
pub use steps::Steps;
pub use strategy::{Adaptive, Strategy};
pub use trace::{Trace, load_from_csv};
