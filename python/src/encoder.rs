//! `narrows.Encoder`.

use narrows::{Axes, Clip, FeatureView, Packed, Quality};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::axes::{BatchAxis, axes};
use crate::backend;
use crate::error::{OrRaise, invalid};
use crate::input::Input;
use crate::pool::Pool;
use crate::profile::Profile;

/// Turns features into streams.
///
/// Which mode? ``"profile"`` whenever samples of the feature can be had; ``"plain"`` before there are any; ``"packed"`` where
/// the size must not vary; ``"lossless"`` where the tail must see every bit.
///
/// An encoder keeps its buffers, so keep the encoder. Threads may share one: each call takes a worker of its own, and the
/// GIL is released while it encodes.
///
/// :param profile: the profile to encode with
/// :param mode: ``"profile"`` (the default if there is a profile), ``"plain"`` (the default if there is none), ``"packed"``
///     or ``"lossless"``
/// :param bits: mode ``"packed"``: bits of an element, 1 to 8
/// :param clip: mode ``"packed"``: ``"aciq"`` (where clipping and rounding errors together are least; the default) or
///     ``"minmax"``
/// :param chunks: chunks of a stream, which decode side by side; the default is one for every batch item
/// :param lanes: interleaved states of a chunk: 1, 2, 4, 8, 16 or 32; the default costs about 1 % of the payload
/// :param rdo: whether to use rate-distortion optimised quantisation, as the profile fitted it
/// :param checksums: whether each chunk ends in a 32-bit checksum, which also covers the header
/// :param backend: one of :func:`backends`; the bytes are the same everywhere
/// :raises InvalidInput: the arguments do not go together
/// :raises BackendError: this machine does not have the backend
#[pyclass(module = "narrows", frozen)]
pub struct Encoder {
    pool: Pool<narrows::Encoder>,
    profile: Option<Profile>,
    mode: &'static str,
}

/// The one quality among three arguments.
fn quality(py: Python<'_>, scale: Option<f32>, bytes: Option<usize>, sqnr: Option<f32>) -> PyResult<Quality> {
    match (scale, bytes, sqnr) {
        (None, None, None) => Ok(Quality::default()),
        (Some(scale), None, None) => Ok(Quality::Scale(scale)),
        (None, Some(bytes), None) => Ok(Quality::Bytes(bytes)),
        (None, None, Some(sqnr)) => Ok(Quality::Sqnr(sqnr)),
        _ => Err(invalid(py, "give one of scale, bytes and sqnr, not several")),
    }
}

fn packed(py: Python<'_>, bits: Option<u8>, clip: Option<&str>) -> PyResult<Packed> {
    let bits = bits.ok_or_else(|| invalid(py, "mode \"packed\" wants bits, 1 to 8"))?;
    if !(1..=8).contains(&bits) {
        return Err(invalid(py, format!("packed elements have 1 to 8 bits, not {bits}")));
    }
    let clip = match clip {
        None | Some("aciq") => Clip::Aciq,
        Some("minmax") => Clip::MinMax,
        Some(other) => return Err(invalid(py, format!("clip is \"aciq\" or \"minmax\", not \"{other}\""))),
    };
    Ok(Packed { bits, clip })
}

#[pymethods]
impl Encoder {
    #[new]
    #[pyo3(signature = (profile=None, mode=None, *, bits=None, clip=None, chunks=None, lanes=None, rdo=true,
                        checksums=false, backend=None))]
    #[allow(clippy::too_many_arguments)]
    fn new(
        py: Python<'_>,
        profile: Option<&Bound<'_, Profile>>,
        mode: Option<&str>,
        bits: Option<u8>,
        clip: Option<&str>,
        chunks: Option<usize>,
        lanes: Option<usize>,
        rdo: bool,
        checksums: bool,
        backend: Option<&str>,
    ) -> PyResult<Encoder> {
        let profile = profile.map(|profile| profile.get().clone());
        let (mode, mut encoder) = match (mode, &profile) {
            (None | Some("profile"), Some(profile)) => ("profile", narrows::Encoder::with_profile(profile.0.clone())),
            (Some("profile"), None) => return Err(invalid(py, "mode \"profile\" wants a profile")),
            (None | Some("plain"), None) => ("plain", narrows::Encoder::plain()),
            (Some("packed"), None) => ("packed", narrows::Encoder::packed(packed(py, bits, clip)?)),
            (Some("lossless"), None) => ("lossless", narrows::Encoder::lossless()),
            (Some(mode @ ("plain" | "packed" | "lossless")), Some(_)) => {
                return Err(invalid(py, format!("mode \"{mode}\" takes no profile")));
            }
            (Some(mode), _) => {
                let modes = "\"profile\", \"plain\", \"packed\" or \"lossless\"";
                return Err(invalid(py, format!("mode is {modes}, not \"{mode}\"")));
            }
        };
        if mode != "packed" && (bits.is_some() || clip.is_some()) {
            return Err(invalid(py, format!("bits and clip are for mode \"packed\", not \"{mode}\"")));
        }
        encoder = encoder.rdo(rdo).checksums(checksums).backend(backend::of(py, backend)?);
        if let Some(chunks) = chunks {
            encoder = encoder.chunks(chunks);
        }
        if let Some(lanes) = lanes {
            if !lanes.is_power_of_two() || lanes > 32 {
                return Err(invalid(py, "lanes must be 1, 2, 4, 8, 16 or 32"));
            }
            encoder = encoder.lanes(lanes);
        }
        Ok(Encoder { pool: Pool::new(encoder), profile, mode })
    }

    /// Encodes one feature.
    ///
    /// :param feature: 1 to 8 axes of float32, float16, bfloat16, int8 or uint8, in any memory order: a NumPy array, a
    ///     PyTorch tensor, or anything else with ``__dlpack__``, ``__array__`` or the buffer protocol, in the memory of the
    ///     processor. It is read in place, so nothing may write to it meanwhile.
    /// :param scale: quantiser step relative to the profile's own: 1 (the default) is the fitted operating point, 2 is
    ///     coarser by a factor of two, 0.5 finer
    /// :param bytes: the whole stream is at most this many bytes, and as good as that allows
    /// :param sqnr: target ratio of signal to quantisation noise, in dB
    /// :param channel_axis: the axis of channels; ``None``: the profile's, if the feature has as many axes as its samples
    ///     had, else the usual one of the rank (``[C]``, ``[T, C]``, ``[C, H, W]``, ``[N, C, ...]``). Negative ones count
    ///     from the end.
    /// :param batch_axis: the axis of batch items, ``None`` for none, or ``"auto"`` (the default) as for channels
    /// :returns: the stream
    /// :raises TypeError: no array, another element type, or memory of another device
    /// :raises InvalidInput: the feature does not fit the profile, or an option is out of range
    /// :raises LimitExceeded: ``bytes`` is below what the feature needs; ``needed`` says how much that is
    #[pyo3(signature = (feature, *, scale=None, bytes=None, sqnr=None, channel_axis=None, batch_axis=BatchAxis::Auto),
           text_signature = "(self, feature, *, scale=None, bytes=None, sqnr=None, channel_axis=None, batch_axis='auto')")]
    #[allow(clippy::too_many_arguments)]
    pub fn encode<'py>(
        &self,
        py: Python<'py>,
        feature: &Bound<'py, PyAny>,
        scale: Option<f32>,
        bytes: Option<usize>,
        sqnr: Option<f32>,
        channel_axis: Option<isize>,
        batch_axis: BatchAxis,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let quality = quality(py, scale, bytes, sqnr)?;
        let input = Input::of(feature)?;
        let stream = input.with_view(|view| {
            let axes = self.axes(py, &view, channel_axis, batch_axis)?;
            let view = view.with_axes(axes);
            py.detach(|| self.pool.with(|encoder| encoder.encode(view, quality))).or_raise(py)
        })?;
        Ok(PyBytes::new(py, &stream))
    }

    /// How it encodes: ``"profile"``, ``"plain"``, ``"packed"`` or ``"lossless"``.
    #[getter]
    fn mode(&self) -> &'static str {
        self.mode
    }

    /// The profile, or ``None``.
    #[getter]
    fn profile(&self) -> Option<Profile> {
        self.profile.clone()
    }

    fn __repr__(&self) -> String {
        match &self.profile {
            Some(profile) => format!("<narrows.Encoder profile {}>", crate::error::hex(profile.0.hash())),
            None => format!("<narrows.Encoder {}>", self.mode),
        }
    }
}

impl Encoder {
    fn axes(
        &self,
        py: Python<'_>,
        view: &FeatureView<'_>,
        channel_axis: Option<isize>,
        batch_axis: BatchAxis,
    ) -> PyResult<Axes> {
        let rank = view.shape().len();
        let fitted = self.profile.as_ref().map(|profile| profile.0.layout());
        let usual = fitted.filter(|layout| layout.dims().len() == rank).map(|layout| layout.axes);
        axes(py, rank, usual, channel_axis, batch_axis)
    }
}
