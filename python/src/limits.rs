//! `narrows.Limits`.

use pyo3::prelude::*;

/// Bounds on what a stream or a profile may ask for, checked before anything is allocated.
///
/// What is not given keeps its default. What the format itself bounds (rank 8, 32 lanes, 104 tables) can be lowered here,
/// not raised.
///
/// :param output_bytes: largest decoded feature, in bytes of its own dtype (256 MiB)
/// :param header_bytes: most bytes before the chunks of a stream, and of the header of a profile's file (1 MiB)
/// :param rank: most axes (8)
/// :param chunks: most chunks in one stream (65,536)
/// :param channels: most channels, and most (component, band) pairs of a profile (65,536)
/// :param lanes: most interleaved states of a chunk (32)
/// :param tables: most tables, and most channel matrices, of a profile (256)
/// :param profile_bytes: largest profile file (256 MiB)
/// :param network_bytes: most bytes of a network's values that live at the same time (1 GiB)
/// :param network_macs: most multiply-accumulates of a network for one feature (2^38)
#[pyclass(module = "narrows", frozen, eq, hash, from_py_object)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Limits {
    /// Largest decoded feature, in bytes of its own dtype.
    #[pyo3(get)]
    output_bytes: u64,
    /// Most bytes before the chunks of a stream, and of the header of a profile's file.
    #[pyo3(get)]
    header_bytes: u64,
    /// Most axes.
    #[pyo3(get)]
    rank: u64,
    /// Most chunks in one stream.
    #[pyo3(get)]
    chunks: u64,
    /// Most channels, and most (component, band) pairs of a profile.
    #[pyo3(get)]
    channels: u64,
    /// Most interleaved states of a chunk.
    #[pyo3(get)]
    lanes: u64,
    /// Most tables, and most channel matrices, of a profile.
    #[pyo3(get)]
    tables: u64,
    /// Largest profile file, in bytes.
    #[pyo3(get)]
    profile_bytes: u64,
    /// Most bytes of a network's values that live at the same time.
    #[pyo3(get)]
    network_bytes: u64,
    /// Most multiply-accumulates of a network for one feature.
    #[pyo3(get)]
    network_macs: u64,
}

#[pymethods]
impl Limits {
    #[new]
    #[pyo3(signature = (*, output_bytes=None, header_bytes=None, rank=None, chunks=None, channels=None, lanes=None,
                        tables=None, profile_bytes=None, network_bytes=None, network_macs=None))]
    #[allow(clippy::too_many_arguments)]
    fn new(
        output_bytes: Option<u64>,
        header_bytes: Option<u64>,
        rank: Option<u64>,
        chunks: Option<u64>,
        channels: Option<u64>,
        lanes: Option<u64>,
        tables: Option<u64>,
        profile_bytes: Option<u64>,
        network_bytes: Option<u64>,
        network_macs: Option<u64>,
    ) -> Self {
        let usual = narrows::Limits::default();
        Limits {
            output_bytes: output_bytes.unwrap_or(usual.output_bytes),
            header_bytes: header_bytes.unwrap_or(usual.header_bytes),
            rank: rank.unwrap_or(usual.rank),
            chunks: chunks.unwrap_or(usual.chunks),
            channels: channels.unwrap_or(usual.channels),
            lanes: lanes.unwrap_or(usual.lanes),
            tables: tables.unwrap_or(usual.tables),
            profile_bytes: profile_bytes.unwrap_or(usual.profile_bytes),
            network_bytes: network_bytes.unwrap_or(usual.network_bytes),
            network_macs: network_macs.unwrap_or(usual.network_macs),
        }
    }

    fn __repr__(&self) -> String {
        let Limits { output_bytes, header_bytes, rank, chunks, channels, lanes, tables, .. } = self;
        let Limits { profile_bytes, network_bytes, network_macs, .. } = self;
        format!(
            "Limits(output_bytes={output_bytes}, header_bytes={header_bytes}, rank={rank}, chunks={chunks}, \
             channels={channels}, lanes={lanes}, tables={tables}, profile_bytes={profile_bytes}, \
             network_bytes={network_bytes}, network_macs={network_macs})"
        )
    }
}

/// The library's limits; its defaults if there are none.
pub fn of(limits: Option<Limits>) -> narrows::Limits {
    limits.map_or_else(narrows::Limits::default, |limits| narrows::Limits {
        output_bytes: limits.output_bytes,
        header_bytes: limits.header_bytes,
        rank: limits.rank,
        chunks: limits.chunks,
        channels: limits.channels,
        lanes: limits.lanes,
        tables: limits.tables,
        profile_bytes: limits.profile_bytes,
        network_bytes: limits.network_bytes,
        network_macs: limits.network_macs,
    })
}
