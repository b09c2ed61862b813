//! `narrows.Decoder`.

use narrows::Feature;
use ndarray::{ArrayD, IxDyn};
use pyo3::prelude::*;

use crate::error::OrRaise;
use crate::output::{Out, Target};
use crate::pool::Pool;
use crate::profile::Profile;
use crate::{backend, input, limits};

/// A decoder, and the feature that `decode_into` decodes to.
#[derive(Clone)]
struct Worker {
    decoder: narrows::Decoder,
    feature: Feature,
}

/// Turns streams of any mode back into features.
///
/// A decoder keeps its buffers, so keep the decoder. Threads may share one: each call takes a worker of its own, and the
/// GIL is released while it decodes.
///
/// :param profiles: one profile or several; streams find theirs by its hash
/// :param limits: bounds on what a stream may ask for; the defaults of :class:`Limits` if there are none
/// :param backend: one of :func:`backends`; the feature is the same everywhere
/// :raises BackendError: this machine does not have the backend
#[pyclass(module = "narrows", frozen)]
pub struct Decoder {
    pool: Pool<Worker>,
    profiles: Vec<Profile>,
}

/// One profile or several.
#[derive(FromPyObject)]
pub enum Profiles<'py> {
    One(Bound<'py, Profile>),
    Several(Vec<Bound<'py, Profile>>),
}

#[pymethods]
impl Decoder {
    #[new]
    #[pyo3(signature = (profiles=None, *, limits=None, backend=None))]
    fn new(
        py: Python<'_>,
        profiles: Option<Profiles<'_>>,
        limits: Option<limits::Limits>,
        backend: Option<&str>,
    ) -> PyResult<Decoder> {
        let profiles: Vec<Profile> = match profiles {
            None => Vec::new(),
            Some(Profiles::One(profile)) => vec![profile.get().clone()],
            Some(Profiles::Several(profiles)) => profiles.iter().map(|profile| profile.get().clone()).collect(),
        };
        let mut decoder = narrows::Decoder::new().limits(limits::of(limits)).backend(backend::of(py, backend)?);
        for profile in &profiles {
            decoder = decoder.profile(profile.0.clone());
        }
        let feature = Feature::F32(ArrayD::zeros(IxDyn(&[0])));
        Ok(Decoder { pool: Pool::new(Worker { decoder, feature }), profiles })
    }

    /// Decodes one stream to an array of the shape and element type that were encoded.
    ///
    /// :param stream: bytes, or anything else with the buffer protocol
    /// :param out: ``"numpy"`` (the default), ``"torch"``, or ``"dlpack"`` for a :class:`Tensor` that any library can take.
    ///     Each is on the memory that was decoded into. NumPy has bfloat16 only with the package ``ml_dtypes``.
    /// :raises Corrupt, Truncated: bytes that no encoder makes
    /// :raises ProfileMismatch: the stream's profile is not among those given
    /// :raises LimitExceeded: the feature is larger than the limits allow
    /// :raises Unsupported: a later version wrote it
    /// :raises ImportError: the package that ``out`` needs is not there
    #[pyo3(signature = (stream, *, out="numpy"))]
    pub fn decode<'py>(&self, py: Python<'py>, stream: &Bound<'py, PyAny>, out: &str) -> PyResult<Bound<'py, PyAny>> {
        let (stream, out) = (input::bytes(stream)?, Out::of(py, out)?);
        let stream = stream.as_bytes();
        let feature = py.detach(|| self.pool.with(|worker| worker.decoder.decode(stream))).or_raise(py)?;
        out.give(py, feature)
    }

    /// Decodes one stream into memory that is there.
    ///
    /// The decoder keeps a feature of the shape, decodes to that and copies it, so that a series of streams of one shape
    /// allocates nothing.
    ///
    /// :param stream: bytes, or anything else with the buffer protocol
    /// :param out: a NumPy array or a PyTorch tensor on the processor, of the stream's shape and element type, in any
    ///     memory order
    /// :raises InvalidInput: ``out`` has another shape or element type, or cannot be written to
    /// :raises Error: as :meth:`decode`; ``out`` then holds what it held before
    fn decode_into(&self, py: Python<'_>, stream: &Bound<'_, PyAny>, out: &Bound<'_, PyAny>) -> PyResult<()> {
        let (stream, target) = (input::bytes(stream)?, Target::of(out)?);
        let stream = stream.as_bytes();
        self.pool.with(|worker| {
            py.detach(|| worker.decoder.decode_into(stream, &mut worker.feature)).or_raise(py)?;
            target.fill(&worker.feature)
        })
    }

    /// The profiles.
    #[getter]
    fn profiles(&self) -> Vec<Profile> {
        self.profiles.clone()
    }

    fn __repr__(&self) -> String {
        let hashes: Vec<_> = self.profiles.iter().map(|profile| crate::error::hex(profile.0.hash())).collect();
        format!("<narrows.Decoder [{}]>", hashes.join(", "))
    }
}
