//! Networks in a profile's file: the nodes as JSON, the numbers in tensors, in the order of the nodes.

use serde_json::{Value, json};

use super::check::Checked;
use super::{
    Analysis, Convolution, Float, FloatConstants, Integer, IntegerConstants, MAX_NODES, Network, Node, Normalisation,
    Op,
};
use crate::error::{Error, Result};
use crate::limits::Limits;

/// The numbers of a network as a file holds them.
#[derive(Debug, Default, Clone)]
pub(crate) struct Stored {
    pub weights: Vec<i8>,
    pub constants: Vec<i32>,
    pub values: Vec<f32>,
}

/// Takes numbers off the front.
#[derive(Debug)]
pub(crate) struct Numbers<'a> {
    weights: &'a [i8],
    constants: &'a [i32],
    values: &'a [f32],
}

fn bad<T>() -> Result<T> {
    Err(Error::corrupt("a network of the profile", 0))
}

fn take<'a, T>(from: &mut &'a [T], count: usize) -> Result<&'a [T]> {
    if count > from.len() {
        return Err(Error::corrupt("a network of the profile has too few numbers", 0));
    }
    let (head, rest) = from.split_at(count);
    *from = rest;
    Ok(head)
}

/// What differs between the kinds of arithmetic in a file.
pub(crate) trait Filed: Checked {
    fn put(convolution: &Convolution<Self>, out: &mut Stored);
    fn numbers(
        node: &Value,
        weights: usize,
        outputs: usize,
        from: &mut Numbers<'_>,
    ) -> Result<(Vec<Self::Weight>, Self::Constants)>;
    fn describe(constants: &Self::Constants, node: &mut Value);
}

impl Filed for Integer {
    fn put(convolution: &Convolution<Integer>, out: &mut Stored) {
        let constants = &convolution.constants;
        out.weights.extend_from_slice(&convolution.weights);
        out.constants.extend_from_slice(&constants.bias);
        out.constants.extend_from_slice(&constants.quality);
        out.constants.extend(constants.multiplier.iter().chain(&constants.slope).map(|&value| i32::from(value)));
    }

    fn numbers(
        node: &Value,
        weights: usize,
        outputs: usize,
        from: &mut Numbers<'_>,
    ) -> Result<(Vec<i8>, IntegerConstants)> {
        let weights = take(&mut from.weights, weights)?.to_vec();
        let small = |values: &[i32]| -> Result<Vec<i16>> {
            let values: Option<_> = values.iter().map(|&value| i16::try_from(value).ok()).collect();
            values.ok_or(Error::corrupt("a multiplier or slope of a network", 0))
        };
        let shifts = sizes(&node["shifts"])?;
        let bounds = node["bounds"].as_array().filter(|bounds| bounds.len() == 2);
        let bound = |at: usize| bounds.and_then(|b| b[at].as_i64()).and_then(|bound| i16::try_from(bound).ok());
        let (Some(low), Some(high), &[first, second]) = (bound(0), bound(1), &shifts[..]) else { return bad() };
        let constants = IntegerConstants {
            bias: take(&mut from.constants, outputs)?.to_vec(),
            quality: take(&mut from.constants, if flag(node, "quality") { outputs } else { 0 })?.to_vec(),
            multiplier: small(take(&mut from.constants, outputs)?)?,
            slope: small(take(&mut from.constants, if flag(node, "slope") { outputs } else { 0 })?)?,
            shifts: [first.min(99) as u32, second.min(99) as u32],
            low,
            high,
        };
        Ok((weights, constants))
    }

    fn describe(constants: &IntegerConstants, node: &mut Value) {
        node["quality"] = json!(!constants.quality.is_empty());
        node["slope"] = json!(!constants.slope.is_empty());
        node["shifts"] = json!(constants.shifts);
        node["bounds"] = json!([constants.low, constants.high]);
    }
}

impl Filed for Float {
    fn put(convolution: &Convolution<Float>, out: &mut Stored) {
        let constants = &convolution.constants;
        for values in [&convolution.weights, &constants.bias, &constants.quality, &constants.slope] {
            out.values.extend_from_slice(values);
        }
    }

    fn numbers(
        node: &Value,
        weights: usize,
        outputs: usize,
        from: &mut Numbers<'_>,
    ) -> Result<(Vec<f32>, FloatConstants)> {
        let weights = take(&mut from.values, weights)?.to_vec();
        let bound = |at: usize, otherwise: f32| match &node["bounds"][at] {
            Value::Null => Ok(otherwise),
            value => value.as_f64().map(|value| value as f32).ok_or(Error::corrupt("the bounds of a network", 0)),
        };
        let constants = FloatConstants {
            bias: take(&mut from.values, outputs)?.to_vec(),
            quality: take(&mut from.values, if flag(node, "quality") { outputs } else { 0 })?.to_vec(),
            slope: take(&mut from.values, if flag(node, "slope") { outputs } else { 0 })?.to_vec(),
            low: bound(0, f32::MIN)?,
            high: bound(1, f32::MAX)?,
        };
        Ok((weights, constants))
    }

    fn describe(constants: &FloatConstants, node: &mut Value) {
        let bound = |bound: f32, otherwise: f32| if bound == otherwise { Value::Null } else { json!(bound) };
        node["quality"] = json!(!constants.quality.is_empty());
        node["slope"] = json!(!constants.slope.is_empty());
        node["bounds"] = json!([bound(constants.low, f32::MIN), bound(constants.high, f32::MAX)]);
    }
}

fn flag(node: &Value, key: &str) -> bool {
    node[key].as_bool().unwrap_or(false)
}

fn size(value: &Value) -> Result<usize> {
    // Large enough for every size that is allowed, small enough for products of three.
    value.as_u64().filter(|&size| size <= 1 << 20).map_or_else(bad, |size| Ok(size as usize))
}

fn sizes(value: &Value) -> Result<Vec<usize>> {
    value.as_array().map_or_else(bad, |list| list.iter().map(size).collect())
}

/// A place or nothing.
fn place(value: &Value) -> Result<Option<usize>> {
    if value.is_null() { Ok(None) } else { size(value).map(Some) }
}

impl<A: Filed> Network<A> {
    /// The nodes as JSON.
    pub fn describe(&self) -> Value {
        let nodes = self.nodes.iter().map(|node| {
            let mut value = match &node.op {
                Op::Convolution(convolution) => {
                    let mut value = json!({
                        "op": "convolution",
                        "kernel": convolution.kernel,
                        "stride": convolution.stride,
                        "padding": convolution.padding,
                        "depthwise": convolution.depthwise,
                        "transposed": convolution.transposed,
                    });
                    A::describe(&convolution.constants, &mut value);
                    value
                }
                Op::Shuffle(factor) => json!({"op": "shuffle", "factor": factor}),
                Op::Unshuffle(factor) => json!({"op": "unshuffle", "factor": factor}),
                Op::Normalisation(normalisation) => json!({"op": "normalisation", "inverse": normalisation.inverse}),
            };
            value["input"] = json!(node.input);
            value["add"] = json!(node.add);
            value["channels"] = json!(node.channels);
            value
        });
        Value::Array(nodes.collect())
    }

    /// The numbers of all nodes.
    pub fn store(&self) -> Stored {
        let mut out = Stored::default();
        for node in &self.nodes {
            match &node.op {
                Op::Convolution(convolution) => A::put(convolution, &mut out),
                Op::Normalisation(normalisation) => {
                    out.values.extend_from_slice(&normalisation.beta);
                    out.values.extend_from_slice(&normalisation.gamma);
                }
                Op::Shuffle(_) | Op::Unshuffle(_) => {}
            }
        }
        out
    }

    /// A network of `inputs` channels from its description and its numbers.
    ///
    /// # Errors
    /// `Corrupt` or `LimitExceeded` for what is not a network.
    pub fn read(inputs: usize, nodes: &Value, stored: &Stored, limits: &Limits) -> Result<Network<A>> {
        let list = nodes.as_array().ok_or(Error::corrupt("a network of the profile has no nodes", 0))?;
        if list.len() > MAX_NODES {
            return bad();
        }
        let mut from = Numbers { weights: &stored.weights, constants: &stored.constants, values: &stored.values };
        let (mut nodes, mut channels) = (Vec::new(), vec![inputs]);
        for value in list {
            let input = size(&value["input"])?;
            let outputs = size(&value["channels"])?;
            let Some(&inputs) = channels.get(input) else { return bad() };
            let op = match value["op"].as_str() {
                Some("convolution") => Op::Convolution(Box::new(convolution(value, inputs, outputs, &mut from)?)),
                Some("shuffle") => Op::Shuffle(size(&value["factor"])?),
                Some("unshuffle") => Op::Unshuffle(size(&value["factor"])?),
                Some("normalisation") => Op::Normalisation(Box::new(Normalisation {
                    inverse: flag(value, "inverse"),
                    beta: take(&mut from.values, outputs)?.to_vec(),
                    gamma: take(&mut from.values, outputs.saturating_mul(outputs))?.to_vec(),
                })),
                _ => return Err(Error::Unsupported { what: "a node of a network" }),
            };
            nodes.push(Node { op, input, add: place(&value["add"])?, channels: outputs });
            channels.push(outputs);
        }
        if !(from.weights.is_empty() && from.constants.is_empty() && from.values.is_empty()) {
            return Err(Error::corrupt("a network of the profile has too many numbers", 0));
        }
        let mut network = Network::new(inputs, nodes, limits)?;
        for node in &mut network.nodes {
            if let Op::Convolution(convolution) = &mut node.op {
                convolution.packed = A::pack(convolution, node.channels);
            }
        }
        Ok(network)
    }
}

fn convolution<A: Filed>(
    value: &Value,
    inputs: usize,
    outputs: usize,
    from: &mut Numbers<'_>,
) -> Result<Convolution<A>> {
    let (kernel, padding) = (sizes(&value["kernel"])?, sizes(&value["padding"])?);
    let (&[rows, columns], &[above, left]) = (&kernel[..], &padding[..]) else { return bad() };
    let depthwise = flag(value, "depthwise");
    let each = [rows, columns, if depthwise { 1 } else { inputs }, outputs];
    let weights = each.into_iter().fold(1, usize::saturating_mul);
    let (weights, constants) = A::numbers(value, weights, outputs, from)?;
    Ok(Convolution {
        kernel: [rows, columns],
        stride: size(&value["stride"])?,
        padding: [above, left],
        depthwise,
        transposed: place(&value["transposed"])?,
        weights,
        constants,
        packed: Vec::new(),
    })
}

impl Analysis {
    /// The description of its nodes.
    pub fn describe(&self) -> Value {
        match self {
            Analysis::Integer(network) => json!({"arithmetic": "integer", "nodes": network.describe()}),
            Analysis::Float(network) => json!({"arithmetic": "float", "nodes": network.describe()}),
        }
    }

    /// The numbers of its nodes.
    pub fn store(&self) -> Stored {
        match self {
            Analysis::Integer(network) => network.store(),
            Analysis::Float(network) => network.store(),
        }
    }

    /// As [`Network::read`].
    ///
    /// # Errors
    /// As there.
    pub fn read(inputs: usize, value: &Value, stored: &Stored, limits: &Limits) -> Result<Analysis> {
        match value["arithmetic"].as_str() {
            Some("integer") => Network::read(inputs, &value["nodes"], stored, limits).map(Analysis::Integer),
            Some("float") => Network::read(inputs, &value["nodes"], stored, limits).map(Analysis::Float),
            _ => Err(Error::Unsupported { what: "the arithmetic of a network" }),
        }
    }
}
