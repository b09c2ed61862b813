//! Split computing: measurements of a network's cuts, and decisions based on them.
//!
//! [`Measurements`] hold bytes, answers and times of every way to run a network on two machines. A [`Planner`] finds the
//! best of them for the [`Conditions`](crate::Conditions) of the moment, which a [`LinkEstimate`] makes of the transfers
//! that it has seen.

mod deadline;
mod exits;
mod goal;
mod link;
mod measurements;
mod planner;
mod stop;
mod work;

pub use crate::power::Power;
pub use deadline::layers_by_deadline;
pub use goal::{Estimate, Goal};
pub use link::LinkEstimate;
pub use measurements::{Coding, Cut, Exit, Measurements};
pub use planner::{Hysteresis, Planner};
pub use stop::Stop;
pub use work::{Action, Work};

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A network of 100 ms, cut where 40 ms have passed; three codings of the input and two of the feature, for 20 images.
    pub(crate) fn example() -> Measurements {
        let coding = |codec: &str, setting: &str, bytes: u32, right: usize| Coding {
            codec: codec.into(),
            setting: setting.into(),
            scale: None,
            profile: None,
            layer: None,
            encode: 0.001,
            decode: 0.001,
            bytes: (0..20).map(|i| bytes + bytes / 50 * i).collect(),
            answers: (0..20).map(|i| u32::from(i >= right)).collect(),
            confidence: vec![0.9; 20],
        };
        let codings = vec![coding("narrows", "x1", 1000, 19), coding("narrows", "x2", 400, 17)];
        Measurements {
            version: 1,
            model: "net.onnx".into(),
            output: "logits".into(),
            machine: "a machine".into(),
            classes: 2,
            labels: vec![0; 20],
            answers: (0..20).map(|i| u32::from(i >= 19)).collect(),
            confidence: vec![0.9; 20],
            whole: 0.1,
            inputs: vec![
                coding("PNG", "", 20_000, 19),
                coding("JPEG", "q75", 8000, 18),
                coding("JPEG", "q30", 3000, 15),
            ],
            cuts: vec![Cut { name: "cut".into(), shape: vec![1, 8, 4, 4], head: 0.04, tail: 0.06, codings }],
            exits: Vec::new(),
        }
    }

    #[test]
    fn the_example_is_a_file() {
        let measured = example();
        assert_eq!(Measurements::from_json(&measured.to_json().unwrap()).unwrap(), measured);
    }

    #[test]
    fn what_could_not_be_read_is_not_written() {
        let exit = Exit { name: "exit1".into(), seconds: 0.01, extra: 0.001, logits: vec![vec![1.0, 0.0]; 20] };
        for bad in [f32::NAN, f32::NEG_INFINITY] {
            let mut measured = example();
            measured.exits.push(exit.clone());
            assert!(measured.to_json().is_ok());
            measured.exits[0].logits[7][1] = bad;
            let error = measured.to_json().unwrap_err().to_string();
            assert!(error.contains("exit1") && error.contains("image 7"), "{error}");
            let mut measured = example();
            measured.inputs[1].confidence[3] = bad;
            let error = measured.to_json().unwrap_err().to_string();
            assert!(error.contains("JPEG q75") && error.contains("image 3"), "{error}");
        }
    }
}
