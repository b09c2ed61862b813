//! Tensors on their way through DLPack.

use std::sync::{Mutex, PoisonError};

use numpy::PyUntypedArray;
use pyo3::exceptions::PyBufferError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyCapsule, PyDict, PyTuple};

use crate::reinterpret::{ElementType, retype};

/// Where the tensor of a [`Tensor`] is.
enum Source {
    /// In an array; 16-bit words are bf16 if the flag is set.
    Array(Py<PyUntypedArray>, bool),
    /// In a capsule that was not handed on yet.
    Capsule(Mutex<Option<Py<PyCapsule>>>),
}

/// A decoded feature for any library that reads DLPack: ``torch.from_dlpack(tensor)``,
/// ``jax.dlpack.from_dlpack(tensor)``, ``numpy.from_dlpack(tensor)`` (but for bfloat16, which NumPy does not take).
///
/// Made by ``Decoder.decode(stream, out="dlpack")``. What is made from it shares its memory. It can be handed on as often
/// as is wanted.
#[pyclass(module = "narrows", frozen)]
pub struct Tensor {
    source: Source,
}

impl Tensor {
    pub fn of_array(array: Bound<'_, PyUntypedArray>, words_are_bf16: bool) -> Self {
        Tensor { source: Source::Array(array.unbind(), words_are_bf16) }
    }

    pub fn of_capsule(capsule: Bound<'_, PyCapsule>) -> Self {
        Tensor { source: Source::Capsule(Mutex::new(Some(capsule.unbind()))) }
    }

    fn array<'py>(&self, py: Python<'py>) -> PyResult<(&Bound<'py, PyUntypedArray>, bool)> {
        match &self.source {
            Source::Array(array, words_are_bf16) => Ok((array.bind(py), *words_are_bf16)),
            Source::Capsule(_) => Err(PyBufferError::new_err("the tensor is in a capsule")),
        }
    }
}

#[pymethods]
impl Tensor {
    /// The tensor as a DLPack capsule (of the unversioned kind, which every consumer takes).
    #[pyo3(signature = (**_options))]
    fn __dlpack__<'py>(
        &self,
        py: Python<'py>,
        _options: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyCapsule>> {
        match &self.source {
            Source::Array(array, words_are_bf16) => {
                let capsule = array.bind(py).call_method0(intern!(py, "__dlpack__"))?.cast_into::<PyCapsule>()?;
                if *words_are_bf16 {
                    retype(&capsule, |_| ElementType::BF16)?;
                }
                Ok(capsule)
            }
            Source::Capsule(capsule) => {
                let capsule = capsule.lock().unwrap_or_else(PoisonError::into_inner).take();
                Ok(capsule.ok_or_else(|| PyBufferError::new_err("the capsule was handed on"))?.into_bound(py))
            }
        }
    }

    /// The device as DLPack numbers it: always ``(1, 0)``, the processor.
    fn __dlpack_device__(&self) -> (i32, i32) {
        (1, 0)
    }

    /// Length of each axis.
    #[getter]
    fn shape<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        Ok(self.array(py)?.0.getattr("shape")?.cast_into()?)
    }

    /// Element type: ``"float32"``, ``"float16"``, ``"bfloat16"``, ``"int8"`` or ``"uint8"``.
    #[getter]
    fn dtype(&self, py: Python<'_>) -> PyResult<String> {
        match self.array(py)? {
            (_, true) => Ok("bfloat16".into()),
            (array, false) => array.getattr("dtype")?.getattr("name")?.extract(),
        }
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        match self.source {
            Source::Array(..) => Ok(format!("<narrows.Tensor {} {}>", self.dtype(py)?, self.shape(py)?.repr()?)),
            Source::Capsule(_) => Ok("<narrows.Tensor>".into()),
        }
    }
}
