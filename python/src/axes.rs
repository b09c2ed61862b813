//! Axes as Python names them: negative ones count from the end, and `"auto"` is the usual batch axis.

use narrows::Axes;
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;

use crate::error::invalid;

/// The argument `batch_axis`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BatchAxis {
    Auto,
    None,
    Axis(isize),
}

impl<'py> FromPyObject<'_, 'py> for BatchAxis {
    type Error = PyErr;

    fn extract(object: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        if object.is_none() {
            Ok(BatchAxis::None)
        } else if let Ok(axis) = object.extract::<isize>() {
            Ok(BatchAxis::Axis(axis))
        } else if object.extract::<String>().is_ok_and(|word| word == "auto") {
            Ok(BatchAxis::Auto)
        } else {
            Err(PyTypeError::new_err("an axis is an int, None or \"auto\""))
        }
    }
}

/// The axes of a feature with `rank` axes; `usual` are those of a profile that fits the rank.
pub fn axes(
    py: Python<'_>,
    rank: usize,
    usual: Option<Axes>,
    channels: Option<isize>,
    batch: BatchAxis,
) -> PyResult<Axes> {
    let place = |axis: isize, what: &str| {
        let found = if axis < 0 { rank.checked_add_signed(axis) } else { Some(axis as usize) };
        let message = || invalid(py, format!("the {what} axis {axis} is out of place in a feature with {rank} axes"));
        found.filter(|&axis| axis < rank).ok_or_else(message)
    };
    let usual = usual.unwrap_or(Axes::default_for(rank));
    let channels = channels.map_or(Ok(usual.channels), |axis| place(axis, "channel"))?;
    let batch = match batch {
        BatchAxis::Auto => usual.batch.filter(|&axis| axis != channels),
        BatchAxis::None => None,
        BatchAxis::Axis(axis) => Some(place(axis, "batch")?),
    };
    Ok(Axes { channels, batch })
}
