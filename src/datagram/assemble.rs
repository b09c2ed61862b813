//! Datagrams to features.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::backend::Backend;
use crate::bottleneck::{Bottleneck, Planes};
use crate::codec::{Desk, restore};
use crate::container::{Layout, Reader};
use crate::datagram::conceal::Cells;
use crate::datagram::header::Header;
use crate::datagram::{Concealment, Request, Spread};
use crate::entropy::bank::COST_ONE_BIT;
use crate::error::{Error, Result};
use crate::geometry::Grid;
use crate::kernels::Kernels;
use crate::kernels::portable::{CheckSums, LOWEST, MAX_LANES, Strip, Words, decode_group};
use crate::limits::Limits;
use crate::plan::{self, Plan};
use crate::profile::Profile;
use crate::stream::{Frame, Source};
use crate::tensor::Feature;
use crate::transform::Blocks;

/// Features that are put together at the same time.
const FEATURES: usize = 8;
/// So far from a new feature's number one that is not taken is not waited for any more: numbers come again after 65,536.
const APART: u16 = 256;

/// Puts features together from datagrams in any order, each any number of times.
///
/// It holds up to eight features, four bytes for each of their coefficients; a datagram of a ninth drops the one whose
/// first datagram came before the others'. Features whose numbers are more than 256 away from a new one are dropped, too. What
/// comes of a feature after it was taken begins it anew: nobody can tell that from a device that counts from 0 again.
#[derive(Debug)]
pub struct Assembler {
    profile: Arc<Profile>,
    limits: Limits,
    backend: Backend,
    features: VecDeque<Assembly>,
    desk: Desk,
    bottleneck: Bottleneck,
}

/// What a datagram was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Received {
    /// Number of its feature.
    pub feature: u16,
    /// Whether it was there already.
    pub repeated: bool,
    /// Parts of the feature that are still missing.
    pub missing: usize,
}

/// A feature of which datagrams have arrived.
#[derive(Debug)]
struct Assembly {
    header: Header,
    layout: Layout,
    planes: Planes,
    blocks: Blocks,
    plan: Plan,
    here: Vec<bool>,
    /// Of the active channels of each block; 0 where nothing has arrived.
    symbols: Vec<i32>,
}

impl Assembler {
    /// For features of one profile, with the default limits.
    pub fn new(profile: Arc<Profile>) -> Assembler {
        Assembler {
            profile,
            limits: Limits::default(),
            backend: Backend::detect(),
            features: VecDeque::new(),
            desk: Desk::default(),
            bottleneck: Bottleneck::default(),
        }
    }

    /// Sets the limits.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Chooses where the kernels run; on a GPU's best processor for [`Backend::Gpu`](crate::Backend).
    pub fn backend(mut self, backend: Backend) -> Self {
        self.backend = backend;
        self
    }

    /// Takes a datagram.
    ///
    /// # Errors
    /// `Corrupt` or `Truncated` for bytes that no encoder makes, or that do not fit the datagrams of their feature before them;
    /// `ProfileMismatch`, `LimitExceeded`, `Unsupported`. What has arrived before stays. Never panics, whatever the bytes.
    pub fn push(&mut self, datagram: &[u8]) -> Result<Received> {
        let mut reader = Reader::new(datagram);
        let header = Header::read(&mut reader, &self.limits)?;
        if header.profile != self.profile.hash as u16 {
            let stream = u64::from(header.profile);
            return Err(Error::ProfileMismatch { stream, given: Some(self.profile.hash) });
        }
        if let Some(assembly) = self.features.iter_mut().find(|assembly| assembly.header.feature == header.feature) {
            assembly.check(&header)?;
            return assembly.take(&self.profile, &header, reader);
        }
        let mut assembly = Assembly::begin(&self.profile, header, &self.limits)?;
        let received = assembly.take(&self.profile, &header, reader)?;
        let new = assembly.header.feature;
        self.features.retain(|held| {
            let ahead = new.wrapping_sub(held.header.feature);
            ahead.min(ahead.wrapping_neg()) <= APART
        });
        if self.features.len() == FEATURES {
            self.features.pop_front();
        }
        self.features.push_back(assembly);
        Ok(received)
    }

    /// The parts of a feature that have not arrived; `None` for a feature of which nothing has.
    pub fn missing(&self, feature: u16) -> Option<Vec<u8>> {
        let assembly = self.features.iter().find(|assembly| assembly.header.feature == feature)?;
        let lost = assembly.here.iter().zip(0..).filter(|&(&here, _)| !here);
        Some(lost.map(|(_, part)| part).collect())
    }

    /// The message that asks for them once more; `None` if none is missing or nothing has arrived.
    pub fn request(&self, feature: u16) -> Option<Request> {
        let parts = self.missing(feature).filter(|parts| !parts.is_empty())?;
        Some(Request { feature, parts })
    }

    /// The feature, what is missing concealed; its parts are forgotten.
    ///
    /// # Errors
    /// `InvalidInput` for a feature of which nothing has arrived.
    pub fn take(&mut self, feature: u16, concealment: Concealment) -> Result<Feature> {
        let place = self.features.iter().position(|assembly| assembly.header.feature == feature);
        let assembly = place.and_then(|place| self.features.remove(place));
        let Some(mut assembly) = assembly else {
            return Err(Error::invalid(format!("no datagram of feature {feature} has arrived")));
        };
        let Assembly { header, layout, planes, blocks, plan, here, symbols } = &mut assembly;
        let spread = Spread::new(header.parts, blocks);
        let components = planes.latent.channels;
        Cells { plan, blocks, components, spread, here }.conceal(symbols, concealment);
        let source = Source::Profile(self.profile.clone(), header.quality);
        let frame = Frame { source, layout: *layout, planes: *planes, blocks: *blocks };
        let (mut feature, kernels) = (Feature::zeros(layout.dtype, &[0]), Kernels::of(&self.backend)?);
        let width = blocks.columns * plan.active.len();
        let Assembler { desk, bottleneck, .. } = self;
        restore(&frame, plan, (&mut feature, bottleneck), kernels, |sink| {
            for row in 0..blocks.rows {
                let strip = Strip { rows: row..row + 1, columns: 0..blocks.columns };
                sink(&strip, &symbols[row * width..(row + 1) * width], desk);
            }
            Ok(())
        })?;
        Ok(feature)
    }
}

impl Assembly {
    /// For the feature of a first datagram, before any memory is taken for it.
    fn begin(profile: &Profile, header: Header, limits: &Limits) -> Result<Assembly> {
        let layout = header.layout.unwrap_or(profile.layout);
        layout.check(limits)?;
        if layout.channels() != profile.layout.channels() {
            return Err(Error::corrupt("the number of channels is not the profile's", 0));
        }
        let feature = Grid::new(&layout);
        let latent = profile.latent(&feature, limits).map_err(|error| match error {
            Error::InvalidInput { .. } => Error::corrupt("the profile's networks make nothing of this shape", 0),
            error => error,
        })?;
        let blocks = Blocks::new(&latent, profile.block());
        let sizes =
            [blocks.rows, blocks.columns, profile.coder_channels(), layout.dtype.size()].map(|size| size as u64);
        let limit = if profile.has_networks() { limits.network_bytes } else { limits.output_bytes };
        Limits::check_product("decoded bytes with padding", sizes, limit)?;
        let mut plan = Plan::default();
        plan.set(profile, header.quality);
        let here = vec![false; header.parts];
        Ok(Assembly { header, layout, planes: Planes { feature, latent }, blocks, plan, here, symbols: Vec::new() })
    }

    /// Checks that a datagram is of this feature.
    fn check(&self, header: &Header) -> Result<()> {
        let own = Header { lanes: header.lanes, part: header.part, ..self.header };
        if own != *header {
            return Err(Error::corrupt("a datagram that does not fit the others of its feature", 0));
        }
        Ok(())
    }

    /// Decodes a part, whose bytes the reader is at.
    fn take(&mut self, profile: &Profile, header: &Header, mut reader: Reader<'_>) -> Result<Received> {
        let Assembly { blocks, plan, here, symbols, .. } = self;
        let received = |here: &[bool], repeated| Received {
            feature: header.feature,
            repeated,
            missing: here.iter().filter(|&&here| !here).count(),
        };
        if here[header.part] {
            return Ok(received(here, true));
        }
        let spread = Spread::new(header.parts, blocks);
        let channels = plan.active.len();
        let levels: Vec<u8> = plan::levels(profile, header.quality).collect();
        let cells = || {
            (0..blocks.count())
                .flat_map(|block| spread.channels(header.part, block, channels).map(move |channel| (block, channel)))
        };
        let offset = reader.offset();
        let length = reader.rest().len();
        let bytes = reader.take(length, "a datagram")?;
        // The symbols that it cannot be without are worth so many bits, less a sixteenth of what rounding may save.
        let least: u64 = (0..channels).map(|channel| u64::from(profile.bank.least_cost(levels[channel]))).sum();
        let needed =
            least.saturating_mul(blocks.count() as u64) / header.parts as u64 / u64::from(2 * 8 * COST_ONE_BIT);
        if (bytes.len() as u64) < needed / 2 {
            return Err(Error::truncated("a datagram", offset + bytes.len()));
        }
        let mut decoded = Vec::new();
        if cells().next().is_some() {
            decode(profile, header, (bytes, offset), cells().map(|(_, channel)| levels[channel]), &mut decoded)?;
        } else if !bytes.is_empty() {
            return Err(Error::corrupt("bytes in a datagram without symbols", offset));
        }
        // Every symbol of the feature has a place from the first good datagram on.
        symbols.resize(blocks.count() * channels, 0);
        for ((block, channel), symbol) in cells().zip(decoded) {
            symbols[block * channels + channel] = symbol;
        }
        here[header.part] = true;
        Ok(received(here, false))
    }
}

/// Decodes the symbols of a part, of which these are the tables.
fn decode(
    profile: &Profile,
    header: &Header,
    (bytes, offset): (&[u8], usize),
    mut tables: impl Iterator<Item = u8>,
    symbols: &mut Vec<i32>,
) -> Result<()> {
    let lanes = header.lanes;
    let mut states = [LOWEST; MAX_LANES];
    let mut words = Words::open(bytes, offset, &mut states[..lanes])?;
    let mut group_tables = [0; MAX_LANES];
    loop {
        let mut count = 0;
        for (own, table) in group_tables[..lanes].iter_mut().zip(&mut tables) {
            *own = table;
            count += 1;
        }
        let mut group = [0; MAX_LANES];
        decode_group(&mut group[..count], &group_tables[..count], &profile.bank, &mut states, &mut words)?;
        symbols.extend_from_slice(&group[..count]);
        if count < lanes {
            break;
        }
    }
    let mut sums = CheckSums::default();
    sums.add_all(symbols, symbols.len());
    words.close(&states[..lanes], &sums.end_states(lanes, Some(header.seed(profile.hash)))[..lanes])
}
