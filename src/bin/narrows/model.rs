//! Running a network in two halves with `rten`.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, bail};
use ndarray::{ArrayD, ArrayViewD, Axis, IxDyn};
use rten::{Model, ModelOptions, NodeId, RunOptions, ThreadPool, Value, ValueView};

use crate::files;
use crate::graph::{Graph, nearest};
use crate::output::{shape_text, thousands};

/// A network that can be cut.
pub struct Network {
    model: Model,
    /// Names and possible cuts.
    pub graph: Graph,
    input: NodeId,
    output: NodeId,
    /// Height and width of the input, where the model fixes them.
    pub input_size: Option<(usize, usize)>,
    /// Items that one run may hold; `None` if any number.
    fixed_batch: Option<usize>,
}

/// A place where the network is cut.
#[derive(Debug, Clone)]
pub struct Cut {
    /// Name of the value in the network.
    pub name: String,
    /// Shape of the feature of one image, batch axis included.
    pub shape: Vec<usize>,
    id: NodeId,
}

impl Cut {
    /// Number of elements of the feature of one image.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }
}

/// The answer of a network to one input: a score for each class.
pub type Logits = Vec<f32>;

/// Threads for one worker; `None` shares the pool of the process.
pub type Pool = Option<Arc<ThreadPool>>;

impl Network {
    /// Loads an ONNX file; `output` chooses among several outputs.
    pub fn load(path: &Path, output: Option<&str>) -> Result<Network> {
        let bytes = files::read_bytes(path)?;
        Network::from_bytes(bytes, output).with_context(|| files::display(path))
    }

    /// Loads an ONNX model from memory.
    pub fn from_bytes(bytes: Vec<u8>, output: Option<&str>) -> Result<Network> {
        let graph = Graph::read(&bytes, output)?;
        let load = |bytes: Vec<u8>, optimize: bool| {
            let mut options = ModelOptions::with_all_ops();
            options.enable_optimization(optimize).prepack_weights(true);
            options.load(bytes).map_err(|error| anyhow!("the model can not be run: {error}"))
        };
        let mut model = load(bytes.clone(), true)?;
        if graph.cuts.iter().any(|cut| model.find_node(cut).is_none()) {
            // Optimisation has merged a possible cut into its neighbours.
            model = load(bytes, false)?;
        }
        let shape = graph.input_shape.as_slice();
        if shape.len() != 4 || shape[1].is_some_and(|channels| channels != 3) {
            let shape: Vec<_> = shape.iter().map(|n| n.map_or("?".into(), |n| n.to_string())).collect();
            bail!("input {} has shape [{}], [n, 3, height, width] is wanted", graph.input, shape.join(", "));
        }
        let input_size = shape[2].zip(shape[3]);
        let fixed_batch = shape[0];
        let input = model.node_id(&graph.input)?;
        let output = model.node_id(&graph.output)?;
        Ok(Network { model, graph, input, output, input_size, fixed_batch })
    }

    /// All cuts at which a feature map of floats can be taken out, for an input of this size.
    pub fn cuts(&self, (height, width): (usize, usize)) -> Result<Vec<Cut>> {
        let ids = self.graph.cuts.iter().map(|name| Ok((name, self.model.node_id(name)?)));
        let ids: Vec<(&String, NodeId)> = ids.collect::<Result<_>>()?;
        let image = ArrayD::zeros(IxDyn(&[self.fixed_batch.unwrap_or(1), 3, height, width]));
        let outputs: Vec<NodeId> = ids.iter().map(|&(_, id)| id).collect();
        let values = self.model.run(vec![(self.input, view(&image)?.into())], &outputs, None)?;
        let mut cuts = Vec::new();
        for ((name, id), value) in ids.into_iter().zip(values) {
            if let Value::FloatTensor(tensor) = value {
                let mut shape: Vec<usize> = rten_tensor::Layout::shape(&tensor).to_vec();
                if let Some(batch) = shape.first_mut() {
                    *batch = 1;
                }
                cuts.push(Cut { name: name.clone(), shape, id });
            }
        }
        Ok(cuts)
    }

    /// One cut by name; if there is none, the error lists those that there are, nearest names first.
    pub fn cut(&self, name: &str, size: (usize, usize)) -> Result<Cut> {
        let cuts = self.cuts(size)?;
        if let Some(cut) = cuts.iter().find(|cut| cut.name == name) {
            return Ok(cut.clone());
        }
        let reason = if self.graph.others.iter().any(|other| other == name) {
            format!(
                "{name} does not separate {} from {} on its own: another path leads around it",
                self.graph.input, self.graph.output
            )
        } else {
            format!("the model has no value named {name}")
        };
        let mut text = format!("{reason}; it can be cut at:");
        let width = cuts.iter().map(|cut| cut.name.chars().count()).max().unwrap_or(0);
        for near in nearest(name, cuts.iter().map(|cut| cut.name.as_str())) {
            if let Some(cut) = cuts.iter().find(|cut| cut.name == near) {
                let elements = thousands(cut.elements() as u64);
                text += &format!("\n  {near:<width$}  {:>12}  {elements:>9} elements", shape_text(&cut.shape[1..]));
            }
        }
        bail!(text)
    }

    /// Images to run at once.
    pub fn batch(&self, wanted: usize) -> usize {
        self.fixed_batch.unwrap_or(wanted).max(1)
    }

    /// Runs a batch of inputs [n, 3, h, w]: the logits of each, and the features at the cuts, one batch each.
    pub fn run(&self, batch: &ArrayD<f32>, cuts: &[&Cut], pool: &Pool) -> Result<(Vec<Logits>, Vec<ArrayD<f32>>)> {
        let outputs: Vec<NodeId> = std::iter::once(self.output).chain(cuts.iter().map(|cut| cut.id)).collect();
        let mut arrays = self.run_from(self.input, batch, &outputs, pool)?.into_iter();
        let logits = rows(&arrays.next().context("the model gave no output")?);
        Ok((logits, arrays.collect()))
    }

    /// Runs the head alone on a batch of inputs: the features at one cut.
    pub fn head(&self, batch: &ArrayD<f32>, cut: &Cut, pool: &Pool) -> Result<ArrayD<f32>> {
        let arrays = self.run_from(self.input, batch, &[cut.id], pool)?;
        arrays.into_iter().next().context("the model gave no output")
    }

    /// Runs the tail on a batch of features: the logits of each.
    pub fn tail(&self, features: &ArrayD<f32>, cut: &Cut, pool: &Pool) -> Result<Vec<Logits>> {
        let arrays = self.run_from(cut.id, features, &[self.output], pool)?;
        Ok(rows(arrays.first().context("the model gave no output")?))
    }

    /// Runs from one value to others; a batch that the model wants full is filled up with zeros.
    fn run_from(&self, from: NodeId, batch: &ArrayD<f32>, to: &[NodeId], pool: &Pool) -> Result<Vec<ArrayD<f32>>> {
        let items = batch.shape()[0];
        let padded = match self.fixed_batch {
            Some(fixed) if fixed > items => {
                let mut shape = batch.shape().to_vec();
                shape[0] = fixed - items;
                let zeros = ArrayD::zeros(IxDyn(&shape));
                Some(ndarray::concatenate(Axis(0), &[batch.view(), zeros.view()])?)
            }
            _ => None,
        };
        let batch = padded.as_ref().unwrap_or(batch);
        let options = RunOptions::default().with_thread_pool(pool.clone());
        let values = self.model.run(vec![(from, view(batch)?.into())], to, Some(options))?;
        let arrays = values.into_iter().map(|value| {
            let Value::FloatTensor(tensor) = value else { bail!("a value of the network is not f32") };
            let shape = IxDyn(rten_tensor::Layout::shape(&tensor));
            let array = ArrayD::from_shape_vec(shape, tensor.into_data())?;
            Ok(if padded.is_some() { array.slice_axis(Axis(0), (0..items).into()).to_owned() } else { array })
        });
        arrays.collect()
    }
}

fn view(array: &ArrayD<f32>) -> Result<ValueView<'_>> {
    let data = array.as_slice().context("an array that is not contiguous")?;
    ValueView::from_shape(array.shape(), data).map_err(|error| anyhow!("{error}"))
}

/// The items of a batch as flat rows.
fn rows(batch: &ArrayD<f32>) -> Vec<Logits> {
    batch.outer_iter().map(|item| item.iter().copied().collect()).collect()
}

/// Joins items of shape [1, ...] to a batch [n, ...].
pub fn stack<'a>(items: impl IntoIterator<Item = &'a ArrayD<f32>>) -> Result<ArrayD<f32>> {
    let views: Vec<ArrayViewD<'a, f32>> = items.into_iter().map(|item| item.view()).collect();
    Ok(ndarray::concatenate(Axis(0), &views)?)
}

/// Item `i` of a batch, its batch axis kept: [1, ...].
pub fn item(batch: &ArrayD<f32>, i: usize) -> ArrayD<f32> {
    batch.slice_axis(Axis(0), (i..i + 1).into()).as_standard_layout().into_owned()
}
