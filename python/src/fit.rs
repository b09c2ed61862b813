//! `narrows.fit`: samples, tail and progress as Python callables.

use std::cell::RefCell;
use std::sync::Arc;

use narrows::fit::{FitEvent, FitOptions, Samples, Tail, Transforms, Weights};
use narrows::{Axes, Error, Feature};
use ndarray::{ArrayD, ArrayViewD, Axis};
use numpy::{PyArray, PyArrayDyn, PyArrayMethods};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyTuple};

use crate::axes::{BatchAxis, axes};
use crate::error::{exception, invalid};
use crate::input::{Input, on_processor};
use crate::profile::Profile;

/// Fits a profile to sample features: transform, block size, weights, steps, contexts and tables, chosen by bytes at equal
/// task distortion.
///
/// Samples are asked for several times, in order, and not kept, so that a sequence that loads them from files needs little
/// memory. The same samples give the same profile to the byte. The GIL is released but for the callbacks; a signal such as
/// Ctrl-C ends the fit when the next sample is asked for.
///
/// :param samples: at least 8 features, better some hundreds, of one shape and element type: a sequence, an array whose
///     first axis counts them, or any iterable (which is made a list)
/// :param gradients: gradient samples, one entry for each feature: an array of the feature's shape, an array with one more
///     axis in front, or a list of arrays: vectors g such that the mean of g g' is the curvature of the task loss
/// :param tail: the tail of the network, a callable. It gets a float32 array of several features, joined along their batch
///     axis or, if they have none, stacked along a new first axis; and gives logits, one row for each feature. Features
///     should hold one batch item each.
/// :param weights: where the task weights come from: ``"auto"`` (gradients if there are any, else probing if there is a
///     tail, else none), ``"unweighted"``, ``"gradients"`` or ``"probe"``
/// :param transforms: ``"all"``, or ``"identity"`` for channels as they are and no DCT
/// :param blocks: sides of the DCT blocks that are tried; ``None``: chosen from the feature's size
/// :param target: task distortion at quality scale 1 (KL divergence in nats, where there is a tail)
/// :param selection: most samples that selection looks at
/// :param channel_axis: the axis of channels; ``None``: the usual one of the rank (``[C]``, ``[T, C]``, ``[C, H, W]``,
///     ``[N, C, ...]``)
/// :param batch_axis: the axis of batch items, ``None`` for none, or ``"auto"`` (the default) as for channels
/// :param progress: called with the name of the stage, how much of it is done, and how much there is to do
/// :raises InvalidInput: fewer than 8 samples, or they differ in shape, hold no finite value but zero, or lack what the
///     options ask for
///
/// What ``samples``, ``gradients``, ``tail`` or ``progress`` raise ends the fit and is raised from it.
#[pyfunction]
#[pyo3(signature = (samples, *, gradients=None, tail=None, weights="auto", transforms="all", blocks=None, target=0.05,
                    selection=96, channel_axis=None, batch_axis=BatchAxis::Auto, progress=None),
       text_signature = "(samples, *, gradients=None, tail=None, weights='auto', transforms='all', blocks=None, \
                         target=0.05, selection=96, channel_axis=None, batch_axis='auto', progress=None)")]
#[allow(clippy::too_many_arguments)]
pub fn fit(
    py: Python<'_>,
    samples: &Bound<'_, PyAny>,
    gradients: Option<&Bound<'_, PyAny>>,
    tail: Option<Py<PyAny>>,
    weights: &str,
    transforms: &str,
    blocks: Option<Vec<usize>>,
    target: f64,
    selection: usize,
    channel_axis: Option<isize>,
    batch_axis: BatchAxis,
    progress: Option<Py<PyAny>>,
) -> PyResult<Profile> {
    let weights = match weights {
        "auto" => Weights::Auto,
        "unweighted" => Weights::Unweighted,
        "gradients" => Weights::Gradients,
        "probe" => Weights::Probe,
        other => {
            let known = "\"auto\", \"unweighted\", \"gradients\" or \"probe\"";
            return Err(invalid(py, format!("weights is {known}, not \"{other}\"")));
        }
    };
    let transforms = match transforms {
        "all" => Transforms::All,
        "identity" => Transforms::Identity,
        other => return Err(invalid(py, format!("transforms is \"all\" or \"identity\", not \"{other}\""))),
    };
    let samples = sequence(samples)?;
    let gradients = gradients.map(sequence).transpose()?;
    let count = samples.len()?;
    if let Some(gradients) = &gradients
        && gradients.len()? != count
    {
        let message = format!("{} gradients for {count} samples: one entry for each is wanted", gradients.len()?);
        return Err(invalid(py, message));
    }
    let mut options = FitOptions { weights, transforms, blocks, target, selection, ..FitOptions::default() };
    if count > 0 {
        let rank = Input::of(&samples.get_item(0)?)?.with_view(|view| view.shape().len());
        options.axes = Some(axes(py, rank, None, channel_axis, batch_axis)?);
    }
    let (samples, gradients) = (samples.unbind(), gradients.map(Bound::unbind));
    let result = py.detach(|| {
        let failure = RefCell::new(None);
        let calls = Calls { failure: &failure };
        let axes = options.axes.unwrap_or(Axes::default_for(1));
        let mut samples = PythonSamples { calls, samples, gradients, count };
        let mut tail = tail.map(|tail| PythonTail { calls, tail, batch: axes.batch });
        let mut report = |event: FitEvent<'_>| {
            if let (FitEvent::Progress { stage, done, total }, Some(progress)) = (event, &progress) {
                // The next sample that is asked for ends the fit.
                let _ = calls.call(|py| progress.call1(py, (stage, done, total)));
            }
        };
        let tail = tail.as_mut().map(|tail| tail as &mut dyn Tail);
        let result = narrows::Profile::fit(&mut samples, tail, &options, &mut report);
        failure.into_inner().map_or(Ok(result), Err)
    })?;
    match result {
        Ok(profile) => Ok(Profile(Arc::new(profile))),
        Err(error) => Err(exception(py, &error)),
    }
}

/// Fits the tables of a profile anew.
pub fn refit(
    py: Python<'_>,
    profile: &narrows::Profile,
    samples: &Bound<'_, PyAny>,
    progress: Option<&Py<PyAny>>,
) -> PyResult<Profile> {
    let samples = sequence(samples)?;
    let count = samples.len()?;
    let samples = samples.unbind();
    let result = py.detach(|| {
        let failure = RefCell::new(None);
        let calls = Calls { failure: &failure };
        let mut samples = PythonSamples { calls, samples, gradients: None, count };
        let mut report = |event: FitEvent<'_>| {
            if let (FitEvent::Progress { stage, done, total }, Some(progress)) = (event, progress) {
                // The next sample that is asked for ends the fit.
                let _ = calls.call(|py| progress.call1(py, (stage, done, total)));
            }
        };
        let result = profile.refit(&mut samples, &mut report);
        failure.into_inner().map_or(Ok(result), Err)
    })?;
    result.map(|profile| Profile(Arc::new(profile))).map_err(|error| exception(py, &error))
}

/// Something with a length and an index.
fn sequence<'py>(object: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    let py = object.py();
    if object.hasattr("__getitem__")? && object.hasattr("__len__")? && !object.is_instance_of::<PyDict>() {
        return Ok(object.clone());
    }
    Ok(py.get_type::<PyList>().call1((object,))?.into_any())
}

/// Calls into Python. The first exception is kept, and ends the fit.
#[derive(Clone, Copy)]
struct Calls<'a> {
    failure: &'a RefCell<Option<PyErr>>,
}

impl Calls<'_> {
    fn call<R>(self, f: impl FnOnce(Python<'_>) -> PyResult<R>) -> narrows::Result<R> {
        let ended = || Error::InvalidInput("an exception".into());
        if self.failure.borrow().is_some() {
            return Err(ended());
        }
        Python::attach(|py| py.check_signals().and_then(|()| f(py))).map_err(|error| {
            *self.failure.borrow_mut() = Some(error);
            ended()
        })
    }
}

struct PythonSamples<'a> {
    calls: Calls<'a>,
    samples: Py<PyAny>,
    gradients: Option<Py<PyAny>>,
    count: usize,
}

impl Samples for PythonSamples<'_> {
    fn len(&self) -> usize {
        self.count
    }

    fn feature(&mut self, index: usize) -> narrows::Result<Feature> {
        self.calls.call(|py| Ok(Input::of(&self.samples.bind(py).get_item(index)?)?.to_feature()))
    }

    fn gradients(&mut self, index: usize) -> narrows::Result<Vec<ArrayD<f32>>> {
        let Some(gradients) = &self.gradients else { return Ok(Vec::new()) };
        self.calls.call(|py| {
            let entry = gradients.bind(py).get_item(index)?;
            let sample = Input::of(&self.samples.bind(py).get_item(index)?)?;
            let shape = sample.with_view(|view| view.shape().to_vec());
            let all: Vec<ArrayD<f32>> = if entry.is_instance_of::<PyList>() || entry.is_instance_of::<PyTuple>() {
                entry.try_iter()?.map(|gradient| Ok(Input::of(&gradient?)?.to_f32())).collect::<PyResult<_>>()?
            } else {
                let gradient = Input::of(&entry)?.to_f32();
                if gradient.ndim() == shape.len() + 1 {
                    gradient.outer_iter().map(|gradient| gradient.to_owned()).collect()
                } else {
                    vec![gradient]
                }
            };
            if let Some(other) = all.iter().find(|gradient| gradient.shape() != shape) {
                let shapes = format!("{:?}, the sample has {shape:?}", other.shape());
                return Err(invalid(py, format!("a gradient of sample {index} has shape {shapes}")));
            }
            Ok(all)
        })
    }
}

struct PythonTail<'a> {
    calls: Calls<'a>,
    tail: Py<PyAny>,
    batch: Option<usize>,
}

impl Tail for PythonTail<'_> {
    fn logits(&mut self, features: &[ArrayD<f32>]) -> narrows::Result<Vec<Vec<f32>>> {
        self.calls.call(|py| {
            let views: Vec<ArrayViewD<'_, f32>> = features.iter().map(|feature| feature.view()).collect();
            let batch = match self.batch {
                Some(axis) => ndarray::concatenate(Axis(axis), &views),
                None => ndarray::stack(Axis(0), &views),
            };
            let batch = batch.map_err(|error| invalid(py, error.to_string()))?;
            let rows = match self.batch {
                Some(axis) => batch.shape()[axis],
                None => features.len(),
            };
            let answer = self.tail.bind(py).call1((PyArray::from_owned_array(py, batch),))?;
            let answer = logits(&answer)?;
            let view = answer.try_readonly().map_err(|error| invalid(py, error.to_string()))?;
            let view = view.as_array();
            if view.ndim() < 2 || view.shape()[0] != rows || view.is_empty() {
                let shape = view.shape();
                let message =
                    format!("the tail must give one row of logits for each of {rows} features, not {shape:?}");
                return Err(invalid(py, message));
            }
            let values: Vec<f32> = view.iter().copied().collect();
            Ok(values.chunks(values.len() / features.len()).map(<[f32]>::to_vec).collect())
        })
    }
}

/// What a tail gave, as f32.
fn logits<'py>(answer: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyArrayDyn<f32>>> {
    let py = answer.py();
    let mut answer = on_processor(answer)?;
    // A tensor of PyTorch: NumPy would not take all of its element types.
    if answer.hasattr("__dlpack__")? && answer.hasattr("float")? {
        answer = answer.call_method0("float")?;
    }
    let numpy = py.import("numpy")?;
    let options = PyDict::new(py);
    options.set_item("dtype", numpy.getattr("float32")?)?;
    Ok(numpy.getattr("ascontiguousarray")?.call((answer,), Some(&options))?.cast_into()?)
}
