//! What Python passes as a feature, as a view of its own memory.

use narrows::{Feature, FeatureView, MAX_RANK};
use ndarray::ArrayD;
use numpy::{Element, PyArrayDyn, PyArrayMethods, PyReadonlyArrayDyn, PyUntypedArray, PyUntypedArrayMethods};
use pyo3::exceptions::{PyBufferError, PyTypeError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyCapsule, PyMemoryView};

use crate::error::invalid;
use crate::reinterpret::{ElementType, retype, words_as_bf16};
use crate::tensor::Tensor;

/// A feature in memory that Python owns, borrowed for reading.
pub enum Input<'py> {
    F32(PyReadonlyArrayDyn<'py, f32>),
    F16(PyReadonlyArrayDyn<'py, half::f16>),
    Bf16(PyReadonlyArrayDyn<'py, u16>),
    I8(PyReadonlyArrayDyn<'py, i8>),
    U8(PyReadonlyArrayDyn<'py, u8>),
}

impl<'py> Input<'py> {
    /// Borrows the memory of an array or tensor. Only what Rust cannot look at in place is copied: elements in foreign
    /// byte order or out of alignment.
    pub fn of(object: &Bound<'py, PyAny>) -> PyResult<Input<'py>> {
        let py = object.py();
        let Shared { array, words_are_bf16 } = share(object)?;
        let rank = array.ndim();
        if rank > MAX_RANK {
            return Err(invalid(py, format!("a feature has 1 to {MAX_RANK} axes, this one has {rank}")));
        }
        let array = in_order(array)?;
        if words_are_bf16 {
            return Ok(Input::Bf16(read(array.cast::<PyArrayDyn<u16>>()?)?));
        }
        if let Ok(array) = array.cast::<PyArrayDyn<f32>>() {
            return Ok(Input::F32(read(array)?));
        }
        if let Ok(array) = array.cast::<PyArrayDyn<half::f16>>() {
            return Ok(Input::F16(read(array)?));
        }
        if let Ok(array) = array.cast::<PyArrayDyn<i8>>() {
            return Ok(Input::I8(read(array)?));
        }
        if let Ok(array) = array.cast::<PyArrayDyn<u8>>() {
            return Ok(Input::U8(read(array)?));
        }
        match name(&array)?.as_str() {
            "bfloat16" => {
                let words = py.import("numpy")?.getattr("uint16")?;
                let array = array.call_method1(intern!(py, "view"), (words,))?;
                Ok(Input::Bf16(read(array.cast::<PyArrayDyn<u16>>()?)?))
            }
            other => Err(wrong_type(other)),
        }
    }

    /// Runs `f` on a view of the memory.
    pub fn with_view<R>(&self, f: impl FnOnce(FeatureView<'_>) -> R) -> R {
        match self {
            Input::F32(array) => f(FeatureView::from(&array.as_array())),
            Input::F16(array) => f(FeatureView::from(&array.as_array())),
            Input::Bf16(array) => f(FeatureView::from(&words_as_bf16(&array.as_array()))),
            Input::I8(array) => f(FeatureView::from(&array.as_array())),
            Input::U8(array) => f(FeatureView::from(&array.as_array())),
        }
    }

    /// A copy that Rust owns.
    pub fn to_feature(&self) -> Feature {
        match self {
            Input::F32(array) => array.as_array().to_owned().into(),
            Input::F16(array) => array.as_array().to_owned().into(),
            Input::Bf16(array) => words_as_bf16(&array.as_array()).to_owned().into(),
            Input::I8(array) => array.as_array().to_owned().into(),
            Input::U8(array) => array.as_array().to_owned().into(),
        }
    }

    /// A copy as f32.
    pub fn to_f32(&self) -> ArrayD<f32> {
        self.to_feature().to_f32()
    }
}

/// The bytes of a stream or a file, without a copy if Python cannot change them.
pub fn bytes<'py>(object: &Bound<'py, PyAny>) -> PyResult<Bound<'py, pyo3::types::PyBytes>> {
    if let Ok(bytes) = object.cast::<pyo3::types::PyBytes>() {
        return Ok(bytes.clone());
    }
    Ok(PyMemoryView::from(object)?.call_method0("tobytes")?.cast_into()?)
}

struct Shared<'py> {
    array: Bound<'py, PyUntypedArray>,
    words_are_bf16: bool,
}

/// A NumPy array on the memory of whatever was given.
fn share<'py>(object: &Bound<'py, PyAny>) -> PyResult<Shared<'py>> {
    let py = object.py();
    if let Ok(array) = object.cast::<PyUntypedArray>() {
        return Ok(Shared { array: array.clone(), words_are_bf16: false });
    }
    let has = |name: &str| object.hasattr(name);
    let others = has("__array_interface__")? || has("__array_struct__")? || has("__array__")?;
    if has("__dlpack__")? {
        match share_capsule(object) {
            Err(error) if others && error.is_instance_of::<PyBufferError>(py) => {}
            result => return result,
        }
    }
    let source = if others {
        object.clone()
    } else {
        let Ok(memory) = PyMemoryView::from(object) else {
            return Err(PyTypeError::new_err(format!(
                "a feature is a NumPy array, a tensor in the memory of the processor, or anything else with __dlpack__, \
                 __array__ or the buffer protocol, not {}",
                object.get_type().name()?
            )));
        };
        memory.into_any()
    };
    let array = py.import("numpy")?.call_method1("asarray", (source,))?.cast_into()?;
    Ok(Shared { array, words_are_bf16: false })
}

/// As [`share`], through DLPack.
fn share_capsule<'py>(object: &Bound<'py, PyAny>) -> PyResult<Shared<'py>> {
    let py = object.py();
    let object = on_processor(object)?;
    let name = object.getattr("dtype").and_then(|dtype| dtype.str()).map(|name| name.to_string());
    let capsule = match object.call_method0(intern!(py, "__dlpack__")) {
        // Not every library has a capsule for each of its element types, nor one kind of error for it.
        Err(error) => match &name {
            Ok(name) if !NAMES.contains(&name.trim_start_matches("torch.")) => return Err(wrong_type(name)),
            _ => return Err(error),
        },
        Ok(capsule) => capsule.cast_into::<PyCapsule>()?,
    };
    // NumPy takes bf16 for words of 16 bits.
    let element = retype(&capsule, |element| match element {
        ElementType::BF16 => ElementType::U16,
        other => other,
    })?;
    let known = [ElementType::F32, ElementType::F16, ElementType::BF16, ElementType::I8, ElementType::U8];
    if !known.contains(&element) {
        return Err(wrong_type(&name.unwrap_or_else(|_| format!("{element:?}"))));
    }
    let array = py.import("numpy")?.call_method1("from_dlpack", (Bound::new(py, Tensor::of_capsule(capsule))?,))?;
    Ok(Shared { array: array.cast_into()?, words_are_bf16: element == ElementType::BF16 })
}

/// The tensor, without its graph of gradients, if its memory is the processor's.
pub fn on_processor<'py>(object: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    let elsewhere = |place: String| {
        Err(PyTypeError::new_err(format!("the tensor is on {place}, not in the memory of the processor: pass .cpu()")))
    };
    // PyTorch's own word first: it has devices that DLPack does not know.
    if let Ok(device) = object.getattr("device")
        && let Ok(kind) = device.getattr("type").and_then(|kind| kind.extract::<String>())
        && kind != "cpu"
    {
        return elsewhere(device.str()?.to_string());
    }
    if object.hasattr("__dlpack_device__")? {
        let (kind, index): (i64, i64) = object.call_method0("__dlpack_device__")?.extract()?;
        // The processor's memory, and what CUDA and ROCm have pinned of it.
        if ![1, 3, 11].contains(&kind) {
            return elsewhere(format!("DLPack device ({kind}, {index})"));
        }
    }
    match object.getattr("requires_grad") {
        Ok(wanted) if wanted.is_truthy()? => object.call_method0("detach"),
        _ => Ok(object.clone()),
    }
}

fn name(array: &Bound<'_, PyUntypedArray>) -> PyResult<String> {
    array.getattr("dtype")?.getattr("name")?.extract()
}

/// Element types that a feature may have.
const NAMES: [&str; 5] = ["float32", "float16", "bfloat16", "int8", "uint8"];

fn wrong_type(name: &str) -> PyErr {
    PyTypeError::new_err(format!("features have elements of float32, float16, bfloat16, int8 or uint8, not {name}"))
}

/// True if the elements are in the byte order of the machine, aligned, and whole elements apart.
pub fn is_in_order(array: &Bound<'_, PyUntypedArray>) -> PyResult<bool> {
    let dtype = array.getattr("dtype")?;
    let size: isize = dtype.getattr("itemsize")?.extract()?;
    Ok(dtype.getattr("isnative")?.is_truthy()?
        && array.getattr("flags")?.getattr("aligned")?.is_truthy()?
        && array.strides().iter().all(|stride| size == 0 || stride % size == 0))
}

fn in_order(array: Bound<'_, PyUntypedArray>) -> PyResult<Bound<'_, PyUntypedArray>> {
    if is_in_order(&array)? {
        return Ok(array);
    }
    let native = array.getattr("dtype")?.call_method1("newbyteorder", ("=",))?;
    Ok(array.call_method1("astype", (native,))?.call_method0("copy")?.cast_into()?)
}

fn read<'py, T: Element>(array: &Bound<'py, PyArrayDyn<T>>) -> PyResult<PyReadonlyArrayDyn<'py, T>> {
    array.try_readonly().map_err(|error| invalid(array.py(), format!("the array is being written to: {error}")))
}
