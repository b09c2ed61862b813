//! A stream read up to its chunks: all that CPU and GPU must know, and check, before anything is allocated on its word.

use std::sync::Arc;

use crate::bottleneck::Planes;
use crate::chunk::{Coding, LayerParts, Parts};
use crate::container::{Head, Header, Layers, Layout, MAX_LAYERS, Mode, Reader};
use crate::entropy::bank::Bank;
use crate::error::{Error, Result};
use crate::geometry::Grid;
use crate::kernels::Kernels;
use crate::kernels::portable::ContextRule;
use crate::limits::Limits;
use crate::plain::{Description, Kind};
use crate::plan::{self, Plan};
use crate::profile::Profile;
use crate::quality;
use crate::transform::Blocks;

/// How the coefficients of a stream were made.
#[derive(Debug, Clone)]
pub(crate) enum Source<'s> {
    /// With a profile, at a quality index: of a stream with layers that of the finest that is there.
    Profile(Arc<Profile>, i16),
    Plain(Description<'s>),
}

/// The feature that symbols stand for, and how they were made of it.
#[derive(Debug, Clone)]
pub(crate) struct Frame<'s> {
    pub source: Source<'s>,
    pub layout: Layout,
    /// The feature's planes, and those that are transformed: the feature's, or those of its latent.
    pub planes: Planes,
    pub blocks: Blocks,
}

/// A stream of mode `Profile` or `Plain` whose chunks can be what they claim.
#[derive(Debug, Clone)]
pub(crate) struct Stream<'s> {
    pub frame: Frame<'s>,
    pub lanes: usize,
    pub parts: Parts<'s>,
    /// What the header says of layers: quality index of the finest, and how many there are, those that were cut off included.
    pub layers: Option<(i16, usize)>,
    /// The chunks of the layers above the base layer that are there.
    pub finer: [Option<LayerParts<'s>>; MAX_LAYERS - 1],
    /// What the check sums of the first chunk start from; none in version 1.
    pub seed: Option<u32>,
}

impl<'s> Stream<'s> {
    /// Reads what follows a header of mode `Profile` or `Plain` in `bytes`. Allocates nothing.
    ///
    /// # Errors
    /// `ProfileMismatch`, `LimitExceeded`, `Unsupported`, and `Truncated` or `Corrupt` for whatever can be seen without
    /// decoding a symbol.
    pub fn read(
        bytes: &'s [u8],
        header: &Header,
        mut reader: Reader<'s>,
        profiles: &[Arc<Profile>],
        limits: &Limits,
    ) -> Result<Stream<'s>> {
        let head_end = reader.offset();
        let profile = match header.mode {
            Mode::Profile => Some(profile_of(header, profiles)?),
            _ => None,
        };
        let layout = header.layout.or(profile.map(|profile| profile.layout));
        let layout = layout.ok_or(Error::corrupt("a stream without a profile has no shape", 1))?;
        if profile.is_some_and(|profile| profile.layout.channels() != layout.channels()) {
            return Err(Error::corrupt("the number of channels is not the profile's", 0));
        }
        layout.check(limits)?;
        let grid = Grid::new(&layout);
        let latent = match profile {
            Some(profile) => profile.latent(&grid, limits).map_err(|error| match error {
                Error::InvalidInput { .. } => Error::corrupt("the profile's networks make nothing of this shape", 0),
                error => error,
            })?,
            None => grid,
        };
        let blocks = Blocks::new(&latent, profile.map_or((1, 1), |profile| profile.block()));
        let mut layers = match header.layers {
            1 => None,
            _ => Some(Layers::read(header, &mut reader)?),
        };
        let present = layers.as_mut().map_or(Ok(&[][..]), |layers| layers.present(bytes.len()))?;
        let mut layer_parts = present.iter().map(|layer| LayerParts::read(header, layer, bytes, limits));
        let (mut parts, lanes) = match layer_parts.next() {
            Some(base) => base.map(|base| (base.parts, base.lanes))?,
            None => (Parts::read(header, &mut reader)?, header.lanes),
        };
        let mut finer: [Option<LayerParts<'_>>; MAX_LAYERS - 1] = Default::default();
        for (finer, parts) in finer.iter_mut().zip(layer_parts) {
            *finer = Some(parts?);
        }
        let params_start = reader.offset();
        let (source, outlook) = match profile {
            Some(profile) => {
                // Small maps in large blocks are mostly padding, which is decoded too.
                let width = profile.coder_channels();
                let sizes = [blocks.rows, blocks.columns, width, layout.dtype.size()].map(|size| size as u64);
                // What a latent may take was checked with its network.
                let limit = if profile.has_networks() { limits.network_bytes } else { limits.output_bytes };
                Limits::check_product("decoded bytes with padding", sizes, limit)?;
                let finest = header.profile.map_or(0, |(_, quality)| quality);
                // Where nothing is coded nothing is missing either.
                let missing = match header.layers - present.len().max(1) {
                    missing if missing > 0 && plan::outlook(profile, finest, 0, false).active > 0 => missing,
                    _ => 0,
                };
                let source = Source::Profile(profile.clone(), quality::of_layer(finest, missing));
                (source, plan::outlook(profile, finest, header.layers - 1, false))
            }
            None => {
                let description = Description::read(&mut reader, grid.channels)?;
                parts.begin_at(&reader);
                (Source::Plain(description), description.outlook(grid.channels))
            }
        };
        Limits::check("bytes before the chunks", reader.offset() as u64, limits.header_bytes)?;
        let head = Head::new(&bytes[..head_end], &bytes[params_start..reader.offset()]);
        let size = (blocks.rows, blocks.columns);
        parts.prove(size, outlook, lanes, (&head, 0))?;
        let mut active = outlook.active;
        if let Some((profile, (_, finest))) = profile.zip(header.profile) {
            for (layer, LayerParts { parts, lanes }) in (1..).zip(finer.iter().flatten()) {
                let outlook = plan::outlook(profile, finest, header.layers - 1 - layer, true);
                parts.prove(size, outlook, *lanes, (&head, layer))?;
                active += outlook.active;
            }
        }
        let stream = Stream {
            frame: Frame { source, layout, planes: Planes { feature: grid, latent }, blocks },
            lanes,
            parts,
            layers: header.profile.filter(|_| header.layers > 1).map(|(_, finest)| (finest, header.layers)),
            finer,
            seed: (header.version > 1).then(|| head.seed()),
        };
        stream.check_memory(active)?;
        Ok(stream)
    }

    /// Refuses a stream whose context rule needs more memory than the feature is worth: rows of tens of millions of
    /// elements. `active` counts the active channels of all layers.
    fn check_memory(&self, active: usize) -> Result<()> {
        let Frame { layout, planes, blocks, .. } = &self.frame;
        let output = planes.feature.len() as u64 * layout.dtype.size() as u64;
        let positions = blocks.columns as u64 + 2;
        let needed = match self.frame.rule() {
            ContextRule::None => 0,
            _ => positions * active.next_multiple_of(2) as u64,
        };
        Limits::check("bytes for the contexts of a row", needed, output / 8 + (4 << 20))
    }

    /// How its symbols are laid out and coded.
    pub fn coding(&self, kernels: Kernels) -> Coding<'_> {
        let blocks = &self.frame.blocks;
        Coding {
            bank: self.frame.bank(),
            context: self.frame.rule(),
            rows: blocks.rows,
            plane_rows: blocks.plane_rows,
            columns: blocks.columns,
            chunks: self.parts.len(),
            lanes: Some(self.lanes),
            lambda: 0,
            kernels,
        }
    }
}

impl Frame<'_> {
    /// The profile, if it has one.
    pub fn profile(&self) -> Option<&Arc<Profile>> {
        match &self.source {
            Source::Profile(profile, _) => Some(profile),
            Source::Plain(_) => None,
        }
    }

    /// Which of the built-in banks, if it has no profile.
    pub fn kind(&self) -> Kind {
        match &self.source {
            Source::Profile(..) => Kind::default(),
            Source::Plain(description) => description.kind,
        }
    }

    /// Whether what is transformed is a latent.
    #[cfg(feature = "gpu")]
    pub fn has_latent(&self) -> bool {
        self.profile().is_some_and(|profile| profile.has_networks())
    }

    /// The exponent of the integers that are transformed.
    pub fn exponent(&self) -> i32 {
        match &self.source {
            Source::Profile(profile, _) => profile.latent_exponent,
            Source::Plain(description) => description.exponent,
        }
    }

    /// The context rule.
    pub fn rule(&self) -> ContextRule {
        self.profile().map_or(self.kind().context, |profile| profile.context)
    }

    fn bank(&self) -> &Bank {
        self.profile().map_or(self.kind().bank(), |profile| &profile.bank)
    }

    /// Makes the plan of its symbols.
    pub fn make_plan(&self, plan: &mut Plan) {
        match &self.source {
            Source::Profile(profile, quality) => plan.set(profile, *quality),
            Source::Plain(description) => description.plan(plan, self.planes.feature.channels),
        }
    }
}

fn profile_of<'p>(header: &Header, profiles: &'p [Arc<Profile>]) -> Result<&'p Arc<Profile>> {
    let hash = header.profile.map_or(0, |(hash, _)| hash);
    let given = profiles.first().map(|profile| profile.hash);
    let found = profiles.iter().find(|profile| profile.hash == hash);
    found.ok_or(Error::ProfileMismatch { stream: hash, given })
}
