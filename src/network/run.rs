//! Running a network on a plane.

use super::{Arithmetic, Network, Node, Op};
use crate::error::{Error, Result};
use crate::kernels::Kernels;
use crate::kernels::portable::{Output, Plane, convolve, shuffle, unshuffle};
use crate::kernels::simd::{POSITIONS, dispatch};

/// The buffers of a run, kept between runs.
#[derive(Debug, Clone)]
pub(crate) struct Runner<A: Arithmetic> {
    /// By value; the input has none.
    values: Vec<Vec<A::Value>>,
    /// Buffers of values that are not read again.
    free: Vec<Vec<A::Value>>,
    bias: Vec<A::Sum>,
    columns: Vec<[A::Packed; POSITIONS]>,
}

impl<A: Arithmetic> Default for Runner<A> {
    fn default() -> Self {
        Runner { values: Vec::new(), free: Vec::new(), bias: Vec::new(), columns: Vec::new() }
    }
}

impl<A: Arithmetic> Runner<A> {
    /// Runs a network on one plane (channels last) into `output`.
    ///
    /// # Errors
    /// `InvalidInput` if the network makes nothing of planes of this size.
    pub fn run(
        &mut self,
        network: &Network<A>,
        (input, size): (&[A::Value], (usize, usize)),
        quality: i16,
        output: &mut [A::Value],
        kernels: Kernels,
    ) -> Result<()> {
        let sizes = network.sizes(size).ok_or(too_small(size))?;
        self.values.resize_with(network.nodes.len() + 1, Vec::new);
        for (number, node) in network.nodes.iter().enumerate() {
            let made = number + 1;
            let mut own = std::mem::take(&mut self.values[made]);
            if made < network.nodes.len() {
                if own.capacity() == 0 {
                    own = self.free.pop().unwrap_or_default();
                }
                // Every value is written.
                own.resize(sizes[made].0 * sizes[made].1 * node.channels, A::Value::default());
            }
            let value = |value: usize| if value == 0 { input } else { &self.values[value][..] };
            let plane = Plane {
                height: sizes[node.input].0,
                width: sizes[node.input].1,
                channels: network.channels(node.input),
                values: value(node.input),
            };
            let out = Output {
                height: sizes[made].0,
                width: sizes[made].1,
                channels: node.channels,
                add: node.add.map(value),
                values: if made < network.nodes.len() { &mut own } else { &mut *output },
            };
            run_node(node, plane, quality, out, (&mut self.bias, &mut self.columns), kernels);
            self.values[made] = own;
            for value in 1..=made {
                if network.last_use[value] == number && self.values[value].capacity() > 0 {
                    self.free.push(std::mem::take(&mut self.values[value]));
                }
            }
        }
        if network.nodes.is_empty() {
            output.copy_from_slice(input);
        }
        Ok(())
    }
}

/// The error of a plane that a network makes nothing of.
pub(crate) fn too_small((height, width): (usize, usize)) -> Error {
    Error::invalid(format!("the profile's network makes nothing of {height}x{width} positions"))
}

fn run_node<A: Arithmetic>(
    node: &Node<A>,
    input: Plane<'_, A::Value>,
    quality: i16,
    output: Output<'_, A::Value>,
    (bias, columns): (&mut Vec<A::Sum>, &mut Vec<[A::Packed; POSITIONS]>),
    kernels: Kernels,
) {
    match &node.op {
        Op::Convolution(convolution) => {
            A::bias(&convolution.constants, quality, bias);
            match kernels {
                Kernels::Portable => convolve(convolution, input, bias, output),
                Kernels::Simd { level, .. } => {
                    dispatch!(level, simd => A::on_vectors(simd, convolution, input, bias, output, columns));
                }
            }
        }
        Op::Shuffle(factor) => shuffle(input, *factor, output),
        Op::Unshuffle(factor) => unshuffle(input, *factor, output),
        Op::Normalisation(normalisation) => match kernels {
            Kernels::Portable => A::normalise(normalisation, input.values, output.values),
            Kernels::Simd { level, .. } => {
                dispatch!(level, _simd => A::normalise(normalisation, input.values, output.values));
            }
        },
    }
}
