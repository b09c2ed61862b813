//! Decoded features as arrays and tensors of Python, on the memory that they were decoded into.

use half::vec::HalfFloatVecExt as _;
use narrows::Feature;
use ndarray::ArrayD;
use numpy::{PyArray, PyArrayDyn, PyArrayMethods, PyUntypedArray, PyUntypedArrayMethods};
use pyo3::exceptions::{PyImportError, PyTypeError};
use pyo3::prelude::*;

use crate::error::invalid;
use crate::input::{is_in_order, on_processor};
use crate::tensor::Tensor;

/// What [`Decoder.decode`](crate::decoder::Decoder) gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Out {
    Numpy,
    Torch,
    Dlpack,
}

impl Out {
    pub fn of(py: Python<'_>, name: &str) -> PyResult<Out> {
        match name {
            "numpy" => Ok(Out::Numpy),
            "torch" => Ok(Out::Torch),
            "dlpack" => Ok(Out::Dlpack),
            _ => Err(invalid(py, format!("out is \"numpy\", \"torch\" or \"dlpack\", not \"{name}\""))),
        }
    }

    /// The feature, without a copy.
    pub fn give<'py>(self, py: Python<'py>, feature: Feature) -> PyResult<Bound<'py, PyAny>> {
        let bf16 = matches!(feature, Feature::Bf16(_));
        let array = match feature {
            Feature::F32(array) => PyArray::from_owned_array(py, array).as_untyped().clone(),
            Feature::F16(array) => PyArray::from_owned_array(py, array).as_untyped().clone(),
            Feature::Bf16(array) => PyArray::from_owned_array(py, words(py, array)?).as_untyped().clone(),
            Feature::I8(array) => PyArray::from_owned_array(py, array).as_untyped().clone(),
            Feature::U8(array) => PyArray::from_owned_array(py, array).as_untyped().clone(),
            other => return Err(invalid(py, format!("no array holds {}", other.dtype().name()))),
        };
        match self {
            Out::Numpy if bf16 => array.call_method1("view", (numpy_bf16(py)?,)),
            Out::Numpy => Ok(array.into_any()),
            Out::Dlpack => Ok(Bound::new(py, Tensor::of_array(array, bf16))?.into_any()),
            Out::Torch => py.import("torch")?.call_method1("from_dlpack", (Tensor::of_array(array, bf16),)),
        }
    }
}

/// The same memory as words of 16 bits.
fn words(py: Python<'_>, array: ArrayD<half::bf16>) -> PyResult<ArrayD<u16>> {
    let shape = array.raw_dim();
    let (values, _) = array.into_raw_vec_and_offset();
    ArrayD::from_shape_vec(shape, values.reinterpret_into()).map_err(|error| invalid(py, error.to_string()))
}

fn numpy_bf16(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    let module = py.import("ml_dtypes").map_err(|_| {
        PyImportError::new_err(
            "the feature is bfloat16, which NumPy has only with the package ml_dtypes: install it, or pass out=\"torch\" \
             or out=\"dlpack\"",
        )
    })?;
    module.getattr("bfloat16")
}

/// Memory of Python that a feature is copied into.
pub struct Target<'py> {
    array: Bound<'py, PyUntypedArray>,
    name: String,
}

impl<'py> Target<'py> {
    /// Takes a NumPy array or a PyTorch tensor.
    pub fn of(object: &Bound<'py, PyAny>) -> PyResult<Target<'py>> {
        let py = object.py();
        let (array, is_torch_bf16) = if let Ok(array) = object.cast::<PyUntypedArray>() {
            (array.clone(), false)
        } else if object.hasattr("numpy")? && object.hasattr("__dlpack__")? {
            if object.getattr("requires_grad")?.is_truthy()? {
                return Err(invalid(py, "the tensor requires gradients: pass tensor.detach()"));
            }
            let tensor = on_processor(object)?;
            let bf16 = tensor.getattr("dtype")?.str()? == "torch.bfloat16";
            let tensor =
                if bf16 { tensor.call_method1("view", (py.import("torch")?.getattr("int16")?,))? } else { tensor };
            (tensor.call_method0("numpy")?.cast_into()?, bf16)
        } else {
            return Err(PyTypeError::new_err(format!(
                "out is a NumPy array or a PyTorch tensor, not {}",
                object.get_type().name()?
            )));
        };
        let name: String = array.getattr("dtype")?.getattr("name")?.extract()?;
        let name = if is_torch_bf16 { "bfloat16".to_owned() } else { name };
        let one_place_each = array.is_empty()
            || array.shape().iter().zip(array.strides()).all(|(&size, &stride)| size < 2 || stride != 0);
        if !is_in_order(&array)? || !one_place_each {
            return Err(invalid(py, "out must be aligned, in native byte order, with a place for each element"));
        }
        let array = if name == "bfloat16" {
            array.call_method1("view", (py.import("numpy")?.getattr("uint16")?,))?.cast_into()?
        } else {
            array
        };
        Ok(Target { array, name })
    }

    /// Copies the feature, if it has the shape and the element type of this memory.
    pub fn fill(&self, feature: &Feature) -> PyResult<()> {
        match feature {
            Feature::F32(values) => self.assign(values, |&x| x, "float32"),
            Feature::F16(values) => self.assign(values, |&x| x, "float16"),
            Feature::Bf16(values) => self.assign(values, |x| x.to_bits(), "bfloat16"),
            Feature::I8(values) => self.assign(values, |&x| x, "int8"),
            Feature::U8(values) => self.assign(values, |&x| x, "uint8"),
            other => Err(invalid(self.array.py(), format!("no array holds {}", other.dtype().name()))),
        }
    }

    fn assign<T: Sync, U: numpy::Element>(
        &self,
        values: &ArrayD<T>,
        convert: impl Fn(&T) -> U + Send + Sync,
        name: &str,
    ) -> PyResult<()> {
        let py = self.array.py();
        let mismatch = || {
            let (shape, own) = (values.shape(), self.array.shape());
            invalid(py, format!("the stream holds {name} of shape {shape:?}, out is {} of shape {own:?}", self.name))
        };
        if self.name != name || self.array.shape() != values.shape() {
            return Err(mismatch());
        }
        let array = self.array.cast::<PyArrayDyn<U>>().map_err(|_| mismatch())?;
        let mut array = array.try_readwrite().map_err(|error| invalid(py, format!("out: {error}")))?;
        let view = array.as_array_mut();
        py.detach(|| ndarray::Zip::from(view).and(values).for_each(|place, value| *place = convert(value)));
        Ok(())
    }
}
