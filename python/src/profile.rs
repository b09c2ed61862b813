//! `narrows.Profile`.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;
use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyTuple, PyType};

use crate::error::{OrRaise, hex};
use crate::{input, limits};

/// What both ends share before the first feature: transform, steps, tables and contexts, fitted once to sample features of
/// one cut of one network.
///
/// Made by :func:`fit`, kept as one ``.safetensors`` file, named by a 64-bit hash of its content that every stream carries.
/// Profiles are immutable, compare by content, can be dictionary keys and can be pickled.
#[pyclass(module = "narrows", frozen)]
#[derive(Clone)]
pub struct Profile(pub Arc<narrows::Profile>);

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
