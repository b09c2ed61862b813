//! Early exits: whether the device answers on its own or goes on.
//!
//! A network with early exits has small classifiers behind some of its layers. At each of them the device may answer and
//! stop, or go on: to the next exit, and from the last one to the server (or to the end of the network on the device).
//! Stopping saves delay, energy and bytes, and loses accuracy. A [`Policy`] decides, image by image.
//!
//! [`Policy::fit`] makes one from a validation set ([`Samples`]), in four steps, no threshold set by hand:
//!
//! 1. Each exit gets a temperature that minimises the negative log-likelihood of its answers (Guo et al., *On calibration
//!    of modern neural networks*, 2017).
//! 2. The share of right answers as a function of the calibrated confidence, by isotonic regression: of the exit itself,
//!    and of what comes after the last exit; and how the confidence at one exit leads to that at the next.
//! 3. What an answer is worth: its probability to be right, less `price` times what it costs ([`Weights`]) under the present
//!    [`Conditions`](crate::Conditions). The device answers where no way of going on is worth more, found backwards from the
//!    last exit (dynamic programming over a chain of some dozen confidences for each exit).
//! 4. The price is the highest at which the target accuracy holds with a stated certainty on images that the curves have
//!    not seen ([`Target`]).
//!
//! A worse link makes going on cost more, and the policy answers more often on the device; a deadline that going on would
//! miss leaves it no value at all. The rules that the literature starts from are there as policies too, for comparison:
//! [`Policy::never`], [`Policy::always`], [`Policy::single_threshold`], [`Policy::max_probability`] and
//! [`Policy::entropy`].
//!
//! ```
//! use narrows::Conditions;
//! use narrows::exit::{Decision, Policy, Rest, Route, Samples, Stage, Target, Weights};
//!
//! // A validation set made up here: an exit that is right where it is sure, and a server that is nearly always right.
//! let labels: Vec<u32> = (0..400).map(|i| i % 2).collect();
//! let sure = |i: u32| if i % 4 < 2 { 3.0 } else { 0.2 };
//! let wrong = |i: u32| i % 4 >= 2 && i % 5 < 2;
//! let exit: Vec<Vec<f32>> = (0..400)
//!     .map(|i| if (i % 2 == 0) != wrong(i) { vec![sure(i), 0.0] } else { vec![0.0, sure(i)] })
//!     .collect();
//! let answers: Vec<u32> = (0..400).map(|i| if i % 40 == 7 { 1 - i % 2 } else { i % 2 }).collect();
//! let samples = Samples { labels: &labels, exits: vec![&exit], answers: &answers, bytes: &[200; 400] };
//! let route = Route {
//!     exits: vec![Stage { seconds: 0.002, extra: 0.0002 }],
//!     rest: Rest::server(0.004, 0.0001, samples.bytes, 0.003),
//! };
//! let conditions = Conditions::default();
//! let policy = Policy::fit(&samples, route, Weights::default(), &conditions, Target::loss(0.02))?;
//! assert_eq!(policy.decide(0, &[3.0, 0.0], &conditions), Decision::Answer(0));
//! assert_eq!(policy.decide(0, &[0.0, 0.2], &conditions), Decision::Continue);
//! // Nothing to wait for on a link that is down.
//! let down = Conditions { bandwidth: 0.0, ..conditions };
//! assert_eq!(policy.decide(0, &[0.0, 0.2], &down), Decision::Answer(1));
//! # Ok::<(), narrows::Error>(())
//! ```

mod baselines;
mod bound;
mod costs;
mod curves;
mod file;
mod fit;
mod isotonic;
mod outcome;
mod policy;
mod samples;
mod softmax;
mod temperature;
#[cfg(test)]
pub(crate) mod tests;

pub use crate::power::Power;
pub use bound::Target;
pub use costs::{Rest, Route, Spent, Stage, Weights};
pub use outcome::Outcome;
pub use policy::{Decision, Evidence, Policy};
pub use samples::Samples;
pub use softmax::Reading;
pub use temperature::fit_temperature;
