//! Requests and answers as the tensors of the protocol.

use std::sync::Arc;

use ndarray::{ArrayD, IxDyn};
use tonic::Status;
use tonic::codegen::Bytes;

use super::bounds::ID;
use super::model::{Model, Models, VERSION};
use super::proto::infer_parameter::ParameterChoice;
use super::proto::model_infer_request::InferInputTensor;
use super::proto::model_infer_response::InferOutputTensor;
use super::proto::{InferParameter, InferTensorContents, ModelInferRequest, ModelInferResponse};

/// The items of one request.
#[derive(Debug, Clone, PartialEq)]
pub enum Data {
    /// Streams, or compressed images.
    Bytes(Vec<Bytes>),
    /// Features, or inputs: `[n, ...]`.
    Floats(ArrayD<f32>),
}

impl Data {
    /// Number of items.
    pub fn items(&self) -> usize {
        match self {
            Data::Bytes(items) => items.len(),
            Data::Floats(array) => array.shape().first().copied().unwrap_or(0),
        }
    }

    /// Bytes of the data alone.
    pub fn bytes(&self) -> usize {
        match self {
            Data::Bytes(items) => items.iter().map(Bytes::len).sum(),
            Data::Floats(array) => 4 * array.len(),
        }
    }

    /// The input tensor of this name and its raw data.
    pub(crate) fn tensor(&self, name: &str) -> (InferInputTensor, Bytes) {
        let (datatype, shape, raw) = match self {
            Data::Bytes(items) => ("BYTES", vec![items.len() as i64], join(items)),
            Data::Floats(array) => (
                "FP32",
                array.shape().iter().map(|&size| size as i64).collect(),
                array.iter().flat_map(|value| value.to_le_bytes()).collect(),
            ),
        };
        let tensor = InferInputTensor { name: name.into(), datatype: datatype.into(), shape, ..Default::default() };
        (tensor, raw)
    }
}

/// Seconds that a server spent on a request.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Times {
    /// Until its turn.
    pub queue: f64,
    /// Decoding.
    pub decode: f64,
    /// In the network, the other items of the batch included.
    pub tail: f64,
}

/// A request that was understood.
pub(crate) struct Asked {
    pub model: Arc<Model>,
    /// Name of its input.
    pub input: &'static str,
    /// Bytes of its data.
    pub bytes: usize,
    data: Data,
    outputs: Vec<Output>,
    raw: bool,
}

/// An output that a request can ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// `logits`: the scores of all classes of each item, 4 bytes each.
    Logits,
    /// `class`: the class of the largest score of each item, 8 bytes.
    Class,
}

impl Output {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Output::Logits => "logits",
            Output::Class => "class",
        }
    }

    fn of(name: &str) -> Option<Output> {
        match name {
            "logits" => Some(Output::Logits),
            "class" => Some(Output::Class),
            _ => None,
        }
    }
}

fn invalid(message: impl Into<String>) -> Status {
    Status::invalid_argument(message)
}

/// A name from a stranger, short enough to be repeated to it.
fn quoted(name: &str) -> String {
    format!("{:?}", name.chars().take(100).collect::<String>())
}

impl Asked {
    /// Reads a request of at most `most` items.
    pub fn read(request: &mut ModelInferRequest, models: &Models, most: usize) -> Result<Asked, Status> {
        if request.id.len() > ID {
            return Err(invalid(format!("an id of {} bytes: at most {ID} are taken", request.id.len())));
        }
        let model = models.get(&request.model_name, &request.model_version)?.clone();
        let outputs = outputs(request)?;
        let [bytes, floats] = model.inputs();
        let [input] = request.inputs.as_mut_slice() else {
            return Err(invalid(format!("{} inputs, wanted is one: {bytes} or {floats}", request.inputs.len())));
        };
        let raw = match std::mem::take(&mut request.raw_input_contents).as_slice() {
            [] => None,
            [raw] => Some(raw.clone()),
            many => return Err(invalid(format!("{} raw_input_contents for one input", many.len()))),
        };
        if raw.is_some() && input.contents.is_some() {
            return Err(invalid("data both in raw_input_contents and in contents: send it once"));
        }
        let is_raw = raw.is_some();
        let (name, data) = if input.name == bytes {
            (bytes, byte_strings(input, raw, most)?)
        } else if input.name == floats {
            (floats, numbers(input, raw, most, model.tail.shape())?)
        } else {
            let (name, given) = (&model.name, quoted(&input.name));
            return Err(invalid(format!("model {name} has no input {given}: send {bytes} (BYTES) or {floats} (FP32)")));
        };
        let model = match &data {
            Data::Bytes(items) if name == "stream" => model.taking(&items[0]).clone(),
            _ => model,
        };
        Ok(Asked { model, input: name, bytes: data.bytes(), data, outputs, raw: is_raw })
    }

    /// Its data, which is then gone.
    pub fn take(&mut self) -> Data {
        std::mem::replace(&mut self.data, Data::Bytes(Vec::new()))
    }

    /// The answer, in the form in which the data came.
    pub fn answer(&self, id: String, logits: &[Vec<f32>], times: Times) -> ModelInferResponse {
        let (model_name, model_version) = (self.model.name.clone(), VERSION.into());
        let mut response = ModelInferResponse { model_name, model_version, id, ..Default::default() };
        for (name, seconds) in [("queue", times.queue), ("decode", times.decode), ("tail", times.tail)] {
            set(&mut response, name, ParameterChoice::DoubleParam(seconds));
        }
        let rows = logits.len() as i64;
        for output in &self.outputs {
            let (datatype, shape) = match output {
                Output::Logits => ("FP32", vec![rows, self.model.tail.classes() as i64]),
                Output::Class => ("INT64", vec![rows]),
            };
            let classes = || logits.iter().map(|row| argmax(row) as i64);
            let (name, datatype) = (output.name().into(), datatype.into());
            let mut tensor = InferOutputTensor { name, datatype, shape, ..Default::default() };
            match (self.raw, output) {
                (true, Output::Logits) => {
                    let bytes: Bytes = logits.iter().flatten().flat_map(|value| value.to_le_bytes()).collect();
                    response.raw_output_contents.push(bytes);
                }
                (true, Output::Class) => {
                    response.raw_output_contents.push(classes().flat_map(i64::to_le_bytes).collect());
                }
                (false, Output::Logits) => {
                    let fp32_contents = logits.iter().flatten().copied().collect();
                    tensor.contents = Some(InferTensorContents { fp32_contents, ..Default::default() });
                }
                (false, Output::Class) => {
                    let int64_contents = classes().collect();
                    tensor.contents = Some(InferTensorContents { int64_contents, ..Default::default() });
                }
            }
            response.outputs.push(tensor);
        }
        response
    }
}

/// Sets a parameter of a response.
pub(crate) fn set(response: &mut ModelInferResponse, name: &str, value: ParameterChoice) {
    response.parameters.insert(name.into(), InferParameter { parameter_choice: Some(value) });
}

fn outputs(request: &ModelInferRequest) -> Result<Vec<Output>, Status> {
    if request.outputs.is_empty() {
        return Ok(vec![Output::Logits, Output::Class]);
    }
    let mut outputs = Vec::new();
    for asked in &request.outputs {
        let unknown =
            || invalid(format!("no output {}: there are logits (FP32) and class (INT64)", quoted(&asked.name)));
        let output = Output::of(&asked.name).ok_or_else(unknown)?;
        if outputs.contains(&output) {
            return Err(invalid(format!("output {} is asked for twice", asked.name)));
        }
        outputs.push(output);
    }
    Ok(outputs)
}

/// Number of items, the product of the axes of a shape that must fit what was sent.
fn items(count: usize, most: usize) -> Result<(), Status> {
    match count {
        0 => Err(invalid("no items: the first axis of the shape is 0")),
        count if count > most => {
            Err(invalid(format!("{count} items at once, at most {most} are taken: send several requests")))
        }
        _ => Ok(()),
    }
}

fn byte_strings(input: &mut InferInputTensor, raw: Option<Bytes>, most: usize) -> Result<Data, Status> {
    let name = &input.name;
    if input.datatype != "BYTES" {
        return Err(invalid(format!("input {name} has datatype {}, wanted is BYTES", quoted(&input.datatype))));
    }
    let strings = match raw {
        Some(raw) => split(raw, most)?,
        None => input.contents.take().unwrap_or_default().bytes_contents,
    };
    let mut axes = input.shape.iter().map(|&size| usize::try_from(size).ok());
    let product = axes.try_fold(1usize, |product, size| product.checked_mul(size?));
    if product != Some(strings.len()) {
        let shape: Vec<i64> = input.shape.iter().copied().take(8).collect();
        return Err(invalid(format!("input {name} holds {} elements, its shape says {shape:?}", strings.len())));
    }
    items(strings.len(), most)?;
    Ok(Data::Bytes(strings))
}

fn numbers(input: &mut InferInputTensor, raw: Option<Bytes>, most: usize, item: &[usize]) -> Result<Data, Status> {
    let name = &input.name;
    if input.datatype != "FP32" {
        return Err(invalid(format!("input {name} has datatype {}, wanted is FP32", quoted(&input.datatype))));
    }
    let fits = input.shape.len() == item.len() + 1
        && input.shape.iter().skip(1).zip(item).all(|(&given, &wanted)| usize::try_from(given) == Ok(wanted));
    let count = input.shape.first().and_then(|&count| usize::try_from(count).ok());
    let Some(count) = count.filter(|_| fits) else {
        let given: Vec<i64> = input.shape.iter().copied().take(8).collect();
        let wanted: Vec<String> = item.iter().map(usize::to_string).collect();
        return Err(invalid(format!("input {name} has shape {given:?}, wanted is [n, {}]", wanted.join(", "))));
    };
    items(count, most)?;
    let wanted = count * item.iter().product::<usize>();
    let floats: Vec<f32> = match raw {
        Some(raw) if raw.len() == 4 * wanted => {
            raw.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect()
        }
        Some(raw) => {
            return Err(invalid(format!("input {name} holds {} bytes, its shape wants {}", raw.len(), 4 * wanted)));
        }
        None => input.contents.take().unwrap_or_default().fp32_contents,
    };
    let given = floats.len();
    let shape: Vec<usize> = std::iter::once(count).chain(item.iter().copied()).collect();
    ArrayD::from_shape_vec(IxDyn(&shape), floats)
        .map(Data::Floats)
        .map_err(|_| invalid(format!("input {name} holds {given} numbers, its shape wants {wanted}")))
}

/// Byte strings in raw form: each after its length in 4 bytes.
fn split(mut raw: Bytes, most: usize) -> Result<Vec<Bytes>, Status> {
    let mut strings = Vec::new();
    while !raw.is_empty() {
        items(strings.len() + 1, most)?;
        let cut_off =
            || invalid("raw BYTES end within an element: each begins with its length in 4 bytes, little-endian");
        let length = raw.first_chunk::<4>().map(|&bytes| u32::from_le_bytes(bytes) as usize).ok_or_else(cut_off)?;
        if raw.len() - 4 < length {
            return Err(cut_off());
        }
        strings.push(raw.slice(4..4 + length));
        raw = raw.slice(4 + length..);
    }
    Ok(strings)
}

fn join(strings: &[Bytes]) -> Bytes {
    let mut raw = Vec::with_capacity(strings.iter().map(|string| 4 + string.len()).sum());
    for string in strings {
        raw.extend_from_slice(&(string.len() as u32).to_le_bytes());
        raw.extend_from_slice(string);
    }
    raw.into()
}

/// Index of the largest score, the first of equal ones.
pub(crate) fn argmax(logits: &[f32]) -> usize {
    let mut best = 0;
    for (i, value) in logits.iter().enumerate() {
        if *value > logits[best] || logits[best].is_nan() {
            best = i;
        }
    }
    best
}

/// Probability of the class of the largest score.
pub(crate) fn confidence(logits: &[f32]) -> f64 {
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|&value| f64::from(value - most).exp()).sum();
    if sum.is_finite() && sum > 0.0 { 1.0 / sum } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn byte_strings_come_back_from_raw_form() {
        let strings: Vec<Bytes> = vec![Bytes::from_static(b"abc"), Bytes::new(), Bytes::from(vec![7; 300])];
        let raw = join(&strings);
        assert_eq!(split(raw.clone(), 3).unwrap(), strings);
        assert!(split(raw.clone(), 2).unwrap_err().message().contains("at most 2"));
        for length in 1..raw.len() {
            if ![0, 7, 11].contains(&length) {
                assert!(split(raw.slice(..length), 9).is_err(), "{length}");
            }
        }
    }

    #[test]
    fn confidence_is_the_largest_probability() {
        assert!((confidence(&[0.0, 0.0]) - 0.5).abs() < 1e-12);
        assert!((confidence(&[1000.0, 0.0]) - 1.0).abs() < 1e-12);
        assert_eq!(confidence(&[]), 0.0);
        assert_eq!(confidence(&[f32::NAN, 1.0]), 0.0);
        assert_eq!((argmax(&[f32::NAN, 1.0, 2.0]), argmax(&[3.0, 3.0]), argmax(&[])), (2, 0, 0));
    }
}
