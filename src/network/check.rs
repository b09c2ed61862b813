//! What a network must be before it runs: shapes that fit, sums that cannot overflow, work that is bounded.

use super::{Arithmetic, Float, Integer, MAX_NODES, MAX_QUALITY, MAX_SIDE, Network, Node, Op};
use crate::error::{Error, Result};
use crate::kernels::portable::Convolution;
use crate::limits::Limits;

/// What differs between the kinds of arithmetic.
pub(crate) trait Checked: Arithmetic {
    /// Checks what is particular to a convolution of so many output channels.
    fn check(convolution: &Convolution<Self>, outputs: usize) -> Result<()>;
    /// Whether there is normalisation.
    const FLOAT: bool;
}

fn fail<T>(what: &'static str) -> Result<T> {
    Err(Error::corrupt(what, 0))
}

impl Checked for Integer {
    const FLOAT: bool = false;

    fn check(convolution: &Convolution<Integer>, outputs: usize) -> Result<()> {
        let constants = &convolution.constants;
        let optional = |length: usize| length == 0 || length == outputs;
        if constants.bias.len() != outputs
            || constants.multiplier.len() != outputs
            || !optional(constants.quality.len())
            || !optional(constants.slope.len())
        {
            return fail("the constants of a network have the wrong size");
        }
        if constants.shifts[0] > 30 || constants.shifts[1] > 30 || constants.low > constants.high {
            return fail("the bounds or shifts of a network");
        }
        if constants.multiplier.iter().any(|&multiplier| multiplier < 0) {
            return fail("a multiplier of a network is negative");
        }
        let window = convolution.weights.len() / outputs.max(1);
        for output in 0..outputs {
            let weights = &convolution.weights[output * window..][..window];
            let sum: i64 = weights.iter().map(|&weight| i64::from(weight).abs()).sum();
            let quality = constants.quality.get(output).map_or(0, |&by| i64::from(by).abs());
            let most =
                sum.saturating_mul(32_768) + i64::from(constants.bias[output]).abs() + quality * i64::from(MAX_QUALITY);
            if most > i64::from(i32::MAX) {
                return fail("a sum of a network could overflow");
            }
        }
        Ok(())
    }
}

impl Checked for Float {
    const FLOAT: bool = true;

    fn check(convolution: &Convolution<Float>, outputs: usize) -> Result<()> {
        let constants = &convolution.constants;
        let optional = |length: usize| length == 0 || length == outputs;
        if constants.bias.len() != outputs || !optional(constants.quality.len()) || !optional(constants.slope.len()) {
            return fail("the constants of a network have the wrong size");
        }
        if constants.low.is_nan() || constants.high.is_nan() || constants.low > constants.high {
            return fail("the bounds of a network");
        }
        let constants = constants.bias.iter().chain(&constants.quality).chain(&constants.slope);
        if convolution.weights.iter().chain(constants).any(|weight| !weight.is_finite()) {
            return fail("a number of a network is not finite");
        }
        Ok(())
    }
}

impl<A: Checked> Network<A> {
    /// A network of these nodes, if it is one.
    ///
    /// # Errors
    /// `Corrupt` for what does not fit, `LimitExceeded` for too many channels.
    pub fn new(inputs: usize, nodes: Vec<Node<A>>, limits: &Limits) -> Result<Network<A>> {
        if nodes.is_empty() || nodes.len() > MAX_NODES {
            return fail("a network has no nodes, or more than 256");
        }
        let mut channels = vec![inputs];
        for node in &nodes {
            if node.input >= channels.len() || node.add.is_some_and(|add| add >= channels.len()) {
                return fail("a node of a network reads a value that is made later");
            }
            if node.channels == 0 {
                return fail("a node of a network has no channels");
            }
            Limits::check("channels of a network", node.channels as u64, limits.channels)?;
            if node.add.is_some_and(|add| channels[add] != node.channels) {
                return fail("a node of a network adds a value of another number of channels");
            }
            check_node(node, channels[node.input])?;
            channels.push(node.channels);
        }
        let mut last_use = vec![0; channels.len()];
        for (number, node) in nodes.iter().enumerate() {
            for value in [Some(node.input), node.add].into_iter().flatten() {
                last_use[value] = number;
            }
            // A value that is never read is gone after it was made.
            last_use[number + 1] = number;
        }
        last_use[nodes.len()] = usize::MAX;
        Ok(Network { inputs, nodes, last_use })
    }
}

fn check_node<A: Checked>(node: &Node<A>, inputs: usize) -> Result<()> {
    match &node.op {
        Op::Convolution(convolution) => {
            let [rows, columns] = convolution.kernel;
            let sides = [rows, columns, convolution.stride];
            if sides.iter().any(|&side| side == 0 || side > MAX_SIDE)
                || convolution.padding[0] >= rows
                || convolution.padding[1] >= columns
                || convolution.transposed.is_some_and(|extra| !A::FLOAT || extra >= convolution.stride)
            {
                return fail("the window of a convolution");
            }
            if convolution.depthwise && node.channels != inputs {
                return fail("a depthwise convolution changes the number of channels");
            }
            let each = if convolution.depthwise { 1 } else { inputs };
            if convolution.weights.len() as u64 != (rows * columns) as u64 * each as u64 * node.channels as u64 {
                return fail("the weights of a convolution");
            }
            A::check(convolution, node.channels)
        }
        Op::Shuffle(factor) | Op::Unshuffle(factor) if *factor == 0 || *factor > MAX_SIDE || node.add.is_some() => {
            fail("the factor of a shuffle")
        }
        Op::Shuffle(factor) if node.channels.saturating_mul(factor * factor) != inputs => {
            fail("the channels of a shuffle")
        }
        Op::Unshuffle(factor) if inputs.saturating_mul(factor * factor) != node.channels => {
            fail("the channels of a shuffle")
        }
        Op::Shuffle(_) | Op::Unshuffle(_) => Ok(()),
        Op::Normalisation(normalisation) => {
            let channels = node.channels;
            let numbers = normalisation.beta.iter().chain(&normalisation.gamma);
            if !A::FLOAT || node.add.is_some() || channels != inputs || normalisation.beta.len() != channels {
                return fail("a normalisation");
            }
            if normalisation.gamma.len() != channels.saturating_mul(channels)
                || normalisation.beta.iter().any(|&beta| beta <= 0.0)
                || numbers.copied().any(|number| !(number >= 0.0 && number.is_finite()))
            {
                return fail("the numbers of a normalisation");
            }
            Ok(())
        }
    }
}
