//! Measured bytes, answers and times of a network: the basis of plans and simulations.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// What `narrows eval --measurements` saw of a network: bytes and answers image by image, times as medians.
///
/// Everything is of the same images in the same order: entry `i` of each list is image `i`. Times are seconds of one
/// image on one thread of `machine`, bytes have all headers in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Measurements {
    /// Version of the file, 1.
    pub version: u32,
    /// File name of the network.
    pub model: String,
    /// Name of the output that is the answer.
    pub output: String,
    /// Processor and backend that the times are of.
    pub machine: String,
    /// Number of classes.
    pub classes: usize,
    /// The right class of each image; the uncut network's answers where none is known, so that accuracy is agreement.
    pub labels: Vec<u32>,
    /// The class that the uncut network gives for the raw input.
    pub answers: Vec<u32>,
    /// Probability that it gives this class.
    pub confidence: Vec<f32>,
    /// Seconds of the whole network.
    pub whole: f64,
    /// Codecs of the input, which send it compressed: the whole network runs on what comes out.
    pub inputs: Vec<Coding>,
    /// Cuts, in the order of the network.
    pub cuts: Vec<Cut>,
    /// Early exits, in the order of the network.
    pub exits: Vec<Exit>,
}

/// A place where the network can be cut, and codings of the feature there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cut {
    /// Name of the tensor.
    pub name: String,
    /// Shape of the feature of one image.
    pub shape: Vec<usize>,
    /// Seconds of the head.
    pub head: f64,
    /// Seconds of the tail.
    pub tail: f64,
    /// Codecs of the feature, at their settings.
    pub codings: Vec<Coding>,
}

/// One setting of one codec.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Coding {
    /// Name of the codec, for example `JPEG` or `narrows`.
    pub codec: String,
    /// Its setting in words, for example `q75` or `x1`.
    pub setting: String,
    /// Step scale, of narrows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scale: Option<f32>,
    /// Content hash of the profile in 16 hexadecimal digits, of narrows with one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// Which layer of how many this is, the layers below counted in `bytes`; `None` for a stream of one layer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layer: Option<(u32, u32)>,
    /// Seconds to encode.
    pub encode: f64,
    /// Seconds to decode.
    pub decode: f64,
    /// Bytes of each image.
    pub bytes: Vec<u32>,
    /// The class that comes out.
    pub answers: Vec<u32>,
    /// Probability that the network gives this class.
    pub confidence: Vec<f32>,
}

/// An early exit on the device.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exit {
    /// Name of its output.
    pub name: String,
    /// Seconds of all that leads from the input to its logits.
    pub seconds: f64,
    /// Seconds of the part of it that the whole network does not need.
    pub extra: f64,
    /// Logits of each image.
    pub logits: Vec<Vec<f32>>,
}

impl Measurements {
    /// Number of images.
    pub fn images(&self) -> usize {
        self.labels.len()
    }

    /// Reads a measurement file.
    ///
    /// # Errors
    /// `InvalidInput` that says where the file is not what it should be; `Unsupported` for a later version.
    pub fn from_json(bytes: &[u8]) -> Result<Measurements> {
        let invalid = |error: serde_json::Error| Error::invalid(format!("not a measurement file: {error}"));
        let measurements: Measurements = serde_json::from_slice(bytes).map_err(invalid)?;
        measurements.check()?;
        Ok(measurements)
    }

    /// Writes a measurement file.
    ///
    /// # Errors
    /// `InvalidInput` that says where, if a number is not finite or lengths and classes do not agree: what is written can be read.
    pub fn to_json(&self) -> Result<Vec<u8>> {
        self.check()?;
        serde_json::to_vec(self).map_err(|error| Error::invalid(format!("measurements: {error}")))
    }

    /// Checks lengths, classes and times.
    fn check(&self) -> Result<()> {
        if self.version != 1 {
            return Err(Error::Unsupported { what: "a measurement file of a later version" });
        }
        let times = self
            .inputs
            .iter()
            .chain(self.cuts.iter().flat_map(|cut| &cut.codings))
            .flat_map(|coding| [coding.encode, coding.decode])
            .chain(self.cuts.iter().flat_map(|cut| [cut.head, cut.tail]))
            .chain(self.exits.iter().flat_map(|exit| [exit.seconds, exit.extra]))
            .chain([self.whole]);
        for time in times {
            if !(time.is_finite() && time >= 0.0) {
                return Err(Error::invalid(format!("measurements: a time of {time} seconds")));
            }
        }
        let list = |name: &str, length: usize| match length == self.images() {
            true => Ok(()),
            false => Err(Error::invalid(format!("measurements: {length} {name} for {} images", self.images()))),
        };
        let classes = |name: &str, values: &[u32]| {
            list(name, values.len())?;
            match values.iter().find(|&&class| class as usize >= self.classes) {
                Some(class) => Err(Error::invalid(format!("measurements: class {class} of {}", self.classes))),
                None => Ok(()),
            }
        };
        let sure = |name: &str, values: &[f32]| {
            list(name, values.len())?;
            match values.iter().position(|value| !value.is_finite()) {
                Some(image) => Err(Error::invalid(format!("measurements: {name}, image {image}: {}", values[image]))),
                None => Ok(()),
            }
        };
        let coding = |coding: &Coding| {
            list(&format!("sizes of {} {}", coding.codec, coding.setting), coding.bytes.len())?;
            sure(&format!("confidences of {} {}", coding.codec, coding.setting), &coding.confidence)?;
            classes(&format!("answers of {} {}", coding.codec, coding.setting), &coding.answers)
        };
        classes("labels", &self.labels)?;
        classes("answers", &self.answers)?;
        sure("confidences", &self.confidence)?;
        self.inputs.iter().try_for_each(coding)?;
        self.cuts.iter().flat_map(|cut| &cut.codings).try_for_each(coding)?;
        for exit in &self.exits {
            list(&format!("logits of {}", exit.name), exit.logits.len())?;
            for (image, logits) in exit.logits.iter().enumerate() {
                if logits.len() != self.classes {
                    return Err(Error::invalid(format!(
                        "measurements: {} has not {} classes",
                        exit.name, self.classes
                    )));
                }
                if let Some(logit) = logits.iter().find(|logit| !logit.is_finite()) {
                    let name = &exit.name;
                    return Err(Error::invalid(format!(
                        "measurements: {name} has a logit of {logit} for image {image}"
                    )));
                }
            }
        }
        Ok(())
    }
}

impl Coding {
    /// Mean bytes of an image.
    pub fn mean_bytes(&self) -> f64 {
        self.bytes.iter().map(|&bytes| f64::from(bytes)).sum::<f64>() / self.bytes.len().max(1) as f64
    }

    /// Share of images whose answer is the given one: the labels for accuracy, the uncut network's for agreement.
    pub fn share_of(&self, answers: &[u32]) -> f64 {
        let equal = self.answers.iter().zip(answers).filter(|(own, given)| own == given).count();
        equal as f64 / self.answers.len().max(1) as f64
    }
}
