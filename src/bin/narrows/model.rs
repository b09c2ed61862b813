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

/// An early exit: an output of the network beside its answer.
#[derive(Debug, Clone)]
pub struct Exit {
    /// Name of the output.
    pub name: String,
    id: NodeId,
    /// The values that it shares with the way to the answer.
    from: Vec<NodeId>,
}

/// How far a run has come: the input and the values that are known.
#[derive(Clone)]
pub struct Stages(Vec<(NodeId, ArrayD<f32>)>);

impl Stages {
    fn get(&self, wanted: NodeId) -> Option<&ArrayD<f32>> {
        self.0.iter().find(|(id, _)| *id == wanted).map(|(_, array)| array)
    }

    fn all(&self) -> Vec<(NodeId, &ArrayD<f32>)> {
        self.0.iter().map(|(id, array)| (*id, array)).collect()
    }
}

/// The answer of a network to one input: a score for each class.
pub type Logits = Vec<f32>;

/// What a run of the whole network gives for a batch.
pub struct Answers {
    /// The logits of each item.
    pub logits: Vec<Logits>,
    /// The features at each cut, one batch a cut.
    pub features: Vec<ArrayD<f32>>,
    /// The logits of each exit, one list an exit.
    pub exits: Vec<Vec<Logits>>,
}

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

    /// One exit by the name of its output; if there is none, the error lists those that there are.
    pub fn exit(&self, name: &str) -> Result<Exit> {
        let Some(branch) = self.graph.branches.iter().find(|branch| branch.output == name) else {
            if name == self.graph.output {
                bail!("{name} is the answer, not an exit before it; --model-output chooses the answer");
            }
            let names: Vec<&str> = self.graph.branches.iter().map(|branch| branch.output.as_str()).collect();
            match names.as_slice() {
                [] => bail!("the model has one output, {}, and no exit {name}", self.graph.output),
                names => bail!("the model has no exit {name}; its outputs beside the answer: {}", names.join(", ")),
            }
        };
        let from = branch.from.iter().map(|value| Ok(self.model.node_id(value)?)).collect::<Result<_>>()?;
        Ok(Exit { name: name.to_string(), id: self.model.node_id(name)?, from })
    }

    /// Number of scores that the answer to an image of this size has.
    pub fn classes(&self, (height, width): (usize, usize)) -> Result<usize> {
        let answers = self.run(&ArrayD::zeros(IxDyn(&[1, 3, height, width])), &[], &[], &None)?;
        Ok(answers.logits.first().context("the model gave no output")?.len())
    }

    /// Images to run at once.
    pub fn batch(&self, wanted: usize) -> usize {
        self.fixed_batch.unwrap_or(wanted).max(1)
    }

    /// Most items of one run.
    pub fn most(&self) -> usize {
        self.fixed_batch.map_or(usize::MAX, |fixed| fixed.max(1))
    }

    /// Runs a batch of inputs [n, 3, h, w]: the logits of each, the features at the cuts, the logits of the exits.
    pub fn run(&self, batch: &ArrayD<f32>, cuts: &[&Cut], exits: &[&Exit], pool: &Pool) -> Result<Answers> {
        let mut outputs = vec![self.output];
        outputs.extend(cuts.iter().map(|cut| cut.id));
        outputs.extend(exits.iter().map(|exit| exit.id));
        let mut arrays = self.run_from(&[(self.input, batch)], &outputs, pool)?;
        let exits = arrays.split_off(1 + cuts.len()).iter().map(rows).collect();
        let features = arrays.split_off(1);
        Ok(Answers { logits: rows(arrays.first().context("the model gave no output")?), features, exits })
    }

    /// Runs all that leads from a batch of inputs to one exit: its logits.
    pub fn run_to_exit(&self, batch: &ArrayD<f32>, exit: &Exit, pool: &Pool) -> Result<Vec<Logits>> {
        let arrays = self.run_from(&[(self.input, batch)], &[exit.id], pool)?;
        Ok(rows(arrays.first().context("the model gave no output")?))
    }

    /// The values from which an exit alone goes on, for [`Network::branch`].
    pub fn branching(&self, batch: &ArrayD<f32>, exit: &Exit, pool: &Pool) -> Result<Vec<ArrayD<f32>>> {
        self.run_from(&[(self.input, batch)], &exit.from, pool)
    }

    /// Runs the part of an exit that the answer does not need.
    pub fn branch(&self, from: &[ArrayD<f32>], exit: &Exit, pool: &Pool) -> Result<Vec<Logits>> {
        let from: Vec<_> = exit.from.iter().copied().zip(from).collect();
        let arrays = self.run_from(&from, &[exit.id], pool)?;
        Ok(rows(arrays.first().context("the model gave no output")?))
    }

    /// A run that begins with a batch of inputs and may stop at exits.
    pub fn begin(&self, batch: ArrayD<f32>) -> Stages {
        Stages(vec![(self.input, batch)])
    }

    /// Goes on from where a run is to an exit: its logits.
    pub fn to_exit(&self, stages: &mut Stages, exit: &Exit, pool: &Pool) -> Result<Vec<Logits>> {
        let missing = exit.from.iter().copied().filter(|&id| stages.get(id).is_none());
        let wanted: Vec<NodeId> = missing.chain([exit.id]).collect();
        let mut arrays = self.run_from(&stages.all(), &wanted, pool)?;
        let logits = arrays.pop().context("the model gave no output")?;
        stages.0.extend(wanted.into_iter().zip(arrays));
        Ok(rows(&logits))
    }

    /// Goes on from where a run is to a cut: the features there.
    pub fn to_cut(&self, stages: &mut Stages, cut: &Cut, pool: &Pool) -> Result<ArrayD<f32>> {
        if let Some(features) = stages.get(cut.id) {
            return Ok(features.clone());
        }
        let features = self.run_from(&stages.all(), &[cut.id], pool)?.into_iter().next();
        let features = features.context("the model gave no output")?;
        stages.0.push((cut.id, features.clone()));
        Ok(features)
    }

    /// Goes on from where a run is to the answer: the logits of each input.
    pub fn to_end(&self, stages: &Stages, pool: &Pool) -> Result<Vec<Logits>> {
        let arrays = self.run_from(&stages.all(), &[self.output], pool)?;
        Ok(rows(arrays.first().context("the model gave no output")?))
    }

    /// Runs the head alone on a batch of inputs: the features at one cut.
    pub fn head(&self, batch: &ArrayD<f32>, cut: &Cut, pool: &Pool) -> Result<ArrayD<f32>> {
        let arrays = self.run_from(&[(self.input, batch)], &[cut.id], pool)?;
        arrays.into_iter().next().context("the model gave no output")
    }

    /// Runs the tail on a batch of features: the logits of each.
    pub fn tail(&self, features: &ArrayD<f32>, cut: &Cut, pool: &Pool) -> Result<Vec<Logits>> {
        let arrays = self.run_from(&[(cut.id, features)], &[self.output], pool)?;
        Ok(rows(arrays.first().context("the model gave no output")?))
    }

    /// Runs from some values to others; batches that the model wants full are filled up with zeros.
    fn run_from(&self, from: &[(NodeId, &ArrayD<f32>)], to: &[NodeId], pool: &Pool) -> Result<Vec<ArrayD<f32>>> {
        let items = from.first().context("a run without inputs")?.1.shape()[0];
        let fill = self.fixed_batch.map_or(0, |fixed| fixed.saturating_sub(items));
        let filled = |batch: &ArrayD<f32>| {
            let mut shape = batch.shape().to_vec();
            shape[0] = fill;
            ndarray::concatenate(Axis(0), &[batch.view(), ArrayD::zeros(IxDyn(&shape)).view()])
        };
        let padded: Vec<ArrayD<f32>> = match fill {
            0 => Vec::new(),
            _ => from.iter().map(|(_, batch)| filled(batch)).collect::<Result<_, _>>()?,
        };
        let batch = |i: usize| padded.get(i).unwrap_or(from[i].1);
        let inputs = (0..from.len()).map(|i| Ok((from[i].0, view(batch(i))?.into())));
        let options = RunOptions::default().with_thread_pool(pool.clone());
        // A value can be asked of the network once only.
        let mut unique: Vec<NodeId> = Vec::new();
        unique.extend(to.iter().enumerate().filter(|&(i, id)| !to[..i].contains(id)).map(|(_, id)| id));
        let values = self.model.run(inputs.collect::<Result<_>>()?, &unique, Some(options))?;
        let arrays = values.into_iter().map(|value| {
            let Value::FloatTensor(tensor) = value else { bail!("a value of the network is not f32") };
            let shape = IxDyn(rten_tensor::Layout::shape(&tensor));
            let array = ArrayD::from_shape_vec(shape, tensor.into_data())?;
            Ok(if fill > 0 { array.slice_axis(Axis(0), (0..items).into()).to_owned() } else { array })
        });
        let arrays = arrays.collect::<Result<Vec<_>>>()?;
        let place = |id: &NodeId| unique.iter().position(|other| other == id).and_then(|i| arrays.get(i).cloned());
        if unique.len() == to.len() { Ok(arrays) } else { to.iter().map(|id| place(id).context("no output")).collect() }
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
