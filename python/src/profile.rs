//! `narrows.Profile`.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;
use std::sync::Arc;

use numpy::{PyArray, PyArrayDyn};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyTuple, PyType};

use crate::error::{OrRaise, hex, invalid};
use crate::input::Input;
use crate::{input, limits};

/// What both ends share before the first feature: transform, steps, tables and contexts, fitted once to sample features of
/// one cut of one network.
///
/// Made by :func:`fit`, kept as one ``.safetensors`` file, named by a 64-bit hash of its content that every stream carries.
/// Profiles are immutable, compare by content, can be dictionary keys and can be pickled.
#[pyclass(module = "narrows", frozen)]
#[derive(Clone)]
pub struct Profile(pub Arc<narrows::Profile>);

/// What a network costs, for Python.
fn network<'py>(py: Python<'py>, cost: narrows::Cost, arithmetic: &str) -> PyResult<Bound<'py, PyDict>> {
    let entries = PyDict::new(py);
    entries.set_item("macs", cost.macs)?;
    entries.set_item("parameters", cost.parameters)?;
    entries.set_item("arithmetic", arithmetic)?;
    Ok(entries)
}

#[pymethods]
impl Profile {
    /// Reads a profile from a file.
    ///
    /// :raises InvalidInput: the file cannot be read
    /// :raises Corrupt, Truncated, Unsupported, LimitExceeded: as :meth:`from_bytes`
    #[staticmethod]
    #[pyo3(signature = (path, *, limits=None))]
    fn load(py: Python<'_>, path: PathBuf, limits: Option<limits::Limits>) -> PyResult<Profile> {
        let limits = limits::of(limits);
        let profile = py.detach(|| narrows::Profile::load_with(path, &limits)).or_raise(py)?;
        Ok(Profile(Arc::new(profile)))
    }

    /// Reads a profile from the bytes of a file.
    ///
    /// :raises Corrupt, Truncated: the bytes are no profile
    /// :raises Unsupported: a later version wrote it
    /// :raises LimitExceeded: it is larger than the limits allow
    #[staticmethod]
    #[pyo3(signature = (data, *, limits=None))]
    fn from_bytes(py: Python<'_>, data: &Bound<'_, PyAny>, limits: Option<limits::Limits>) -> PyResult<Profile> {
        let (data, limits) = (input::bytes(data)?, limits::of(limits));
        let data = data.as_bytes();
        let profile = py.detach(|| narrows::Profile::from_bytes_with(data, &limits)).or_raise(py)?;
        Ok(Profile(Arc::new(profile)))
    }

    /// Makes a profile of a file that another program wrote, such as one that trained its networks, steps or matrices:
    /// without a hash, and if need be without the tables that :meth:`refit` fits.
    ///
    /// :param draft: the bytes of the file, or its path
    /// :raises InvalidInput: the file cannot be read
    /// :raises Corrupt, Truncated, Unsupported, LimitExceeded: as :meth:`from_bytes`
    #[staticmethod]
    fn assemble(py: Python<'_>, draft: &Bound<'_, PyAny>) -> PyResult<Profile> {
        let profile = if let Ok(path) = draft.extract::<PathBuf>() {
            let file = py.detach(|| std::fs::read(&path));
            let unreadable = |error| invalid(py, format!("cannot read profile {}: {error}", path.display()));
            let file = file.map_err(unreadable)?;
            py.detach(|| narrows::Profile::assemble(&file))
        } else {
            let data = input::bytes(draft)?;
            let data = data.as_bytes();
            py.detach(|| narrows::Profile::assemble(data))
        };
        Ok(Profile(Arc::new(profile.or_raise(py)?)))
    }

    /// This profile with tables fitted anew to sample features; transform, steps and networks stay.
    ///
    /// :param samples: features of the profile's shape, as for :func:`fit`
    /// :param progress: as for :func:`fit`
    /// :raises InvalidInput: there are no samples, or they are not of the profile's shape
    ///
    /// What ``samples`` or ``progress`` raise ends the fit and is raised from it.
    #[pyo3(signature = (samples, progress=None))]
    fn refit(&self, py: Python<'_>, samples: &Bound<'_, PyAny>, progress: Option<Py<PyAny>>) -> PyResult<Profile> {
        crate::fit::refit(py, &self.0, samples, progress.as_ref())
    }

    /// The symbols of a feature at a step scale, for checking another implementation: an int32 array of planes, block
    /// rows, block columns and coder channels (``band * components + component``), 0 where a coder channel is silent.
    /// An encoder codes these, but for what its rate decisions lower.
    ///
    /// :param scale: as for :meth:`Encoder.encode`
    /// :raises InvalidInput: the feature does not fit the profile, or the scale is no positive number
    #[pyo3(signature = (feature, scale=1.0))]
    fn symbols<'py>(
        &self,
        py: Python<'py>,
        feature: &Bound<'py, PyAny>,
        scale: f32,
    ) -> PyResult<Bound<'py, PyArrayDyn<i32>>> {
        let symbols = Input::of(feature)?.with_view(|view| {
            let own = self.0.layout();
            let view = if own.dims().len() == view.shape().len() { view.with_axes(own.axes) } else { view };
            py.detach(|| self.0.symbols(view, scale)).or_raise(py)
        })?;
        Ok(PyArray::from_owned_array(py, symbols))
    }

    /// Writes the profile to a file.
    ///
    /// :raises InvalidInput: the file cannot be written
    fn save(&self, py: Python<'_>, path: PathBuf) -> PyResult<()> {
        py.detach(|| self.0.save(path)).or_raise(py)
    }

    /// The bytes of the profile's file.
    fn to_bytes<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &py.detach(|| self.0.to_bytes()))
    }

    /// The content hash that streams carry: 16 hexadecimal digits.
    #[getter]
    fn hash(&self) -> String {
        hex(self.0.hash())
    }

    /// Shape of the features that it was fitted to. Others may be coded if they have as many channels.
    #[getter]
    fn shape<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, self.0.layout().dims())
    }

    /// Element type of the features that it was fitted to: ``"f32"``, ``"f16"``, ``"bf16"``, ``"i8"`` or ``"u8"``.
    #[getter]
    fn dtype(&self) -> &'static str {
        self.0.layout().dtype.name()
    }

    /// The axis of channels.
    #[getter]
    fn channel_axis(&self) -> usize {
        self.0.layout().axes.channels
    }

    /// The axis of batch items, or ``None``.
    #[getter]
    fn batch_axis(&self) -> Option<usize> {
        self.0.layout().axes.batch
    }

    /// Rows and columns of a DCT block; ``(1, 1)`` is no DCT.
    #[getter]
    fn block(&self) -> (usize, usize) {
        self.0.block()
    }

    /// Number of channel matrices; 0 if channels are coded as they are.
    #[getter]
    fn matrices(&self) -> usize {
        self.0.matrices()
    }

    /// What its network on the device costs for a feature of the profile's shape: a dictionary with ``macs``,
    /// ``parameters`` and ``arithmetic`` (``"integer"``, or ``"float"`` for imported ones); ``None`` without a network.
    #[getter]
    fn analysis<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyDict>>> {
        let [analysis, _] = self.0.cost(self.0.layout());
        analysis.map(|cost| network(py, cost, if self.0.is_exact() { "integer" } else { "float" })).transpose()
    }

    /// What its network on the server costs, as :attr:`analysis`.
    #[getter]
    fn synthesis<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyDict>>> {
        let [_, synthesis] = self.0.cost(self.0.layout());
        synthesis.map(|cost| network(py, cost, "float")).transpose()
    }

    /// Whether every backend makes the same stream of a feature: not if its network on the device runs in floating
    /// point.
    #[getter]
    fn is_exact(&self) -> bool {
        self.0.is_exact()
    }

    /// How it was fitted, as text.
    #[getter]
    fn notes(&self) -> &str {
        self.0.notes()
    }

    fn __repr__(&self) -> String {
        let layout = self.0.layout();
        let (rows, columns) = self.0.block();
        format!(
            "<narrows.Profile {} {} {:?} block {rows}x{columns} matrices {}>",
            self.hash(),
            layout.dtype.name(),
            layout.dims(),
            self.0.matrices()
        )
    }

    fn __eq__(&self, other: &Bound<'_, PyAny>) -> bool {
        other.cast::<Profile>().is_ok_and(|other| *self.0 == *other.get().0)
    }

    fn __hash__(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.0.hash().hash(&mut hasher);
        hasher.finish()
    }

    fn __reduce__<'py>(&self, py: Python<'py>) -> PyResult<(Bound<'py, PyAny>, (Bound<'py, PyBytes>,))> {
        Ok((PyType::new::<Profile>(py).getattr("from_bytes")?, (self.to_bytes(py),)))
    }
}
