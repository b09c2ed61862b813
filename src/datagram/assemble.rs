//! Datagrams to features.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::backend::Backend;
use crate::bottleneck::{Bottleneck, Planes};
use crate::chunk::STRIP;
use crate::codec::{Desk, restore};
use crate::container::{Layout, Reader};
use crate::datagram::conceal::{Cells, Known};
use crate::datagram::contents::Contents;
use crate::datagram::header::Header;
use crate::datagram::{Concealment, Request};
use crate::entropy::bank::COST_ONE_BIT;
use crate::error::{Error, Result};
use crate::geometry::Grid;
use crate::kernels::Kernels;
use crate::kernels::portable::{CheckSums, LOWEST, MAX_LANES, Strips, Words, decode_group};
use crate::limits::Limits;
use crate::plan::Plan;
use crate::profile::Profile;
use crate::quality::STEPS_PER_OCTAVE;
use crate::stream::{Frame, Source};
use crate::tensor::Feature;
use crate::transform::Blocks;

/// Features that are put together at the same time.
const FEATURES: usize = 8;
/// Incomplete features whose number differs from a new one by more than this are dropped, and taken ones forgotten, because
/// numbers wrap at 65,536.
const APART: u16 = 256;
/// The exponent of the share that is known in the factor of [`Concealment::Restored`]: 1 would restore the mean response of a
/// linear layer, 1/2 the energy. 0.6 to 0.8 do equally well.
const RESTORED: f32 = 0.75;

/// Puts features together from datagrams in any order, each any number of times.
///
/// It holds up to eight features, four bytes for each of their coefficients, and no more than [`Limits::output_bytes`] in all;
/// beyond that, the one whose first datagram came before the others' is dropped. Features whose numbers are more than 256
/// away from a new one are dropped, too. Datagrams of a feature that was taken are late, and count as repeated; a device that
/// restarts should therefore begin with a random number, as RTP does. Datagrams with the same number and another quality,
/// shape or number of parts are another feature; of two with one number, the one with more parts here is taken.
#[derive(Debug)]
pub struct Assembler {
    profile: Arc<Profile>,
    limits: Limits,
    backend: Backend,
    features: VecDeque<Assembly>,
    /// Numbers of features that were taken.
    taken: VecDeque<u16>,
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
    contents: Contents,
    /// What is known of each part.
    known: Vec<Known>,
    /// Of the active channels of each block; 0 where nothing has arrived, the middle of what it may be where a copy has.
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
            taken: VecDeque::new(),
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
    /// `Corrupt` or `Truncated` for bytes that no encoder makes; `ProfileMismatch`, `LimitExceeded`, `Unsupported`. What has arrived before stays. Never panics, whatever the bytes.
    pub fn push(&mut self, datagram: &[u8]) -> Result<Received> {
        let mut reader = Reader::new(datagram);
        let header = Header::read(&mut reader, &self.limits)?;
        if header.profile != self.profile.hash as u16 {
            let stream = u64::from(header.profile);
            return Err(Error::ProfileMismatch { stream, given: Some(self.profile.hash) });
        }
        if self.taken.contains(&header.feature) {
            return Ok(Received { feature: header.feature, repeated: true, missing: 0 });
        }
        if let Some(assembly) = self.features.iter_mut().find(|assembly| assembly.header.is_with(&header)) {
            return assembly.take(&self.profile, &header, reader);
        }
        let mut assembly = Assembly::begin(&self.profile, header, &self.limits)?;
        let received = assembly.take(&self.profile, &header, reader)?;
        let is_near = |number: u16| {
            let ahead = header.feature.wrapping_sub(number);
            ahead.min(ahead.wrapping_neg()) <= APART
        };
        self.features.retain(|held| is_near(held.header.feature));
        self.taken.retain(|&number| is_near(number));
        self.features.push_back(assembly);
        let held = |features: &VecDeque<Assembly>| features.iter().map(Assembly::bytes).sum::<u64>();
        while self.features.len() > FEATURES
            || (self.features.len() > 1 && held(&self.features) > self.limits.output_bytes)
        {
            self.features.pop_front();
        }
        Ok(received)
    }

    /// The place of what is there of a feature; of two that claim its number, the one of which more has arrived.
    fn place(&self, feature: u16) -> Option<usize> {
        let own = self.features.iter().enumerate().filter(|(_, assembly)| assembly.header.feature == feature);
        own.max_by_key(|(_, assembly)| assembly.header.parts - assembly.missing()).map(|(place, _)| place)
    }

    /// The parts of a feature that have not arrived; `None` for a feature of which nothing has.
    pub fn missing(&self, feature: u16) -> Option<Vec<u8>> {
        let assembly = &self.features[self.place(feature)?];
        let lost = assembly.known.iter().zip(0..).filter(|&(&known, _)| known != Known::Exactly);
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
        let Some(mut assembly) = self.place(feature).and_then(|place| self.features.remove(place)) else {
            return Err(Error::invalid(format!(
                "nothing of feature {feature} is here: none of its datagrams has arrived, or it was taken before"
            )));
        };
        self.features.retain(|other| other.header.feature != feature);
        self.taken.push_back(feature);
        let Assembly { header, layout, planes, blocks, plan, contents, known, symbols } = &mut assembly;
        let components = planes.latent.channels;
        let cells = Cells {
            blocks,
            channels: &plan.active,
            components,
            bands: plan.channels / components.max(1),
            contents,
            known,
        };
        cells.conceal(symbols, concealment);
        if concealment == Concealment::Restored {
            plan.amplify(&self.profile, header.quality, amplification(cells.share_known(symbols)));
        }
        let source = Source::Profile(self.profile.clone(), header.quality);
        let frame = Frame { source, layout: *layout, planes: *planes, blocks: *blocks };
        let (mut feature, kernels) = (Feature::zeros(layout.dtype, &[0]), Kernels::of(&self.backend)?);
        let channels = plan.active.len();
        let Assembler { desk, bottleneck, .. } = self;
        restore(&frame, plan, (&mut feature, bottleneck), kernels, |sink| {
            for strip in Strips::new(0..blocks.rows, blocks.columns, plan.channels, STRIP) {
                // Whole rows, or a part of one.
                let first = strip.rows.start * blocks.columns + strip.columns.start;
                let count = strip.rows.len() * strip.columns.len();
                sink(&strip, &symbols[first * channels..(first + count) * channels], desk);
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
        let contents = Contents::new(profile, header.quality, (header.parts, header.copies), &blocks);
        let sizes = [blocks.rows, blocks.columns, contents.channels(), size_of::<i32>()].map(|size| size as u64);
        Limits::check_product("bytes of a feature's symbols", sizes, limits.output_bytes)?;
        let mut plan = Plan::default();
        plan.set(profile, header.quality);
        let known = vec![Known::Nothing; header.parts];
        let planes = Planes { feature, latent };
        Ok(Assembly { header, layout, planes, blocks, plan, contents, known, symbols: Vec::new() })
    }

    /// Bytes of its symbols.
    fn bytes(&self) -> u64 {
        size_of_val(&self.symbols[..]) as u64
    }

    /// Parts that have not arrived.
    fn missing(&self) -> usize {
        self.known.iter().filter(|&&known| known != Known::Exactly).count()
    }

    /// Decodes a part, whose bytes the reader is at.
    fn take(&mut self, profile: &Profile, header: &Header, mut reader: Reader<'_>) -> Result<Received> {
        if self.known[header.part] == Known::Exactly {
            return Ok(Received { feature: header.feature, repeated: true, missing: self.missing() });
        }
        let Assembly { contents, known, symbols, .. } = self;
        let offset = reader.offset();
        let length = reader.rest().len();
        let bytes = reader.take(length, "a datagram")?;
        // Half of what the cheapest symbols would take: no encoder's rounding saves as much.
        let least = contents.least_cost(header.part, |table| profile.bank.least_cost(table));
        if (bytes.len() as u64) < least / u64::from(2 * 8 * COST_ONE_BIT) {
            return Err(Error::truncated("a datagram", offset + bytes.len()));
        }
        let places = || contents.own(header.part).chain(contents.copies(header.part));
        let mut decoded = Vec::new();
        if places().next().is_some() {
            decode(profile, header, (bytes, offset), places().map(|place| place.table), &mut decoded)?;
        } else if !bytes.is_empty() {
            return Err(Error::corrupt("bytes in a datagram without symbols", offset));
        }
        // Every symbol of the feature has a place from the first good datagram on.
        let channels = contents.channels();
        symbols.resize(self.blocks.count() * channels, 0);
        let mut decoded = decoded.into_iter();
        for (place, symbol) in contents.own(header.part).zip(&mut decoded) {
            symbols[place.block * channels + place.channel] = symbol;
        }
        known[header.part] = Known::Exactly;
        if let Some(copied) = contents.copied(header.part).filter(|&copied| known[copied] == Known::Nothing) {
            for (place, copy) in contents.copies(header.part).zip(decoded) {
                symbols[place.block * channels + place.channel] = contents.middle(copy).0;
            }
            known[copied] = Known::Coarsely;
        }
        Ok(Received { feature: header.feature, repeated: false, missing: self.missing() })
    }
}

/// Indices of the quantiser's step (32 an octave) that make up for what is not known of the energy.
fn amplification(known: f32) -> i32 {
    let octaves = -RESTORED * libm::log2f(known.clamp(1.0 / 256.0, 1.0));
    libm::roundf(octaves * STEPS_PER_OCTAVE as f32) as i32
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
