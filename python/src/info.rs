//! `narrows.info`.

use narrows::Info;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use crate::error::{OrRaise, hex};
use crate::input;
use crate::profile::Profile;

/// What a stream says of itself, read without decoding it.
///
/// The keys: ``mode``; ``version`` of the format; ``profile``, the hash of the profile that it needs, or ``None``;
/// ``quality``, the index in 1/32 octave of the quantiser step, and ``scale``, the same as a factor (both ``None`` without
/// a profile); ``shape``, ``dtype``, ``channel_axis`` and ``batch_axis`` (``None`` if the stream leaves them to its profile
/// and that is not given); ``chunks``; ``lanes``; ``checksums``; ``header_bytes``, ``payload_bytes`` and ``bytes``.
///
/// :param stream: bytes, or anything else with the buffer protocol
/// :param profile: the stream's profile, to fill in the shape
/// :raises Corrupt, Truncated, Unsupported, LimitExceeded: the header is damaged, or of a later version
/// :raises ProfileMismatch: the stream was made with another profile than the one given
#[pyfunction]
#[pyo3(signature = (stream, profile=None))]
pub fn info<'py>(
    py: Python<'py>,
    stream: &Bound<'py, PyAny>,
    profile: Option<&Bound<'py, Profile>>,
) -> PyResult<Bound<'py, PyDict>> {
    let stream = input::bytes(stream)?;
    let info = Info::read(stream.as_bytes()).or_raise(py)?;
    let layout = match (info.profile, profile.map(|profile| &profile.get().0)) {
        (Some(hash), Some(given)) if hash != given.hash() => {
            let mismatch = narrows::Error::ProfileMismatch { stream: hash, given: Some(given.hash()) };
            return Err(crate::error::exception(py, &mismatch));
        }
        (Some(_), Some(given)) => Some(info.layout_with(given)),
        _ => info.layout,
    };
    let dict = PyDict::new(py);
    dict.set_item("mode", info.mode.name())?;
    dict.set_item("version", info.version)?;
    dict.set_item("profile", info.profile.map(hex))?;
    dict.set_item("quality", info.quality)?;
    dict.set_item("scale", info.quality.map(|index| f64::exp2(f64::from(index) / 32.0)))?;
    dict.set_item("shape", layout.map(|layout| PyTuple::new(py, layout.dims())).transpose()?)?;
    dict.set_item("dtype", layout.map(|layout| layout.dtype.name()))?;
    dict.set_item("channel_axis", layout.map(|layout| layout.axes.channels))?;
    dict.set_item("batch_axis", layout.and_then(|layout| layout.axes.batch))?;
    dict.set_item("chunks", info.chunks)?;
    dict.set_item("lanes", info.lanes)?;
    dict.set_item("checksums", info.checksums)?;
    dict.set_item("header_bytes", info.header_bytes)?;
    dict.set_item("payload_bytes", info.payload_bytes)?;
    dict.set_item("bytes", info.header_bytes + info.payload_bytes)?;
    Ok(dict)
}
