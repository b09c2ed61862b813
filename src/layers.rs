//! Layers: one stream whose prefixes are streams too, each of a finer feature.
//!
//! The base layer holds the symbols of a coarse quality; each layer after it refines them by a factor of three in the
//! step. All layers together hold the symbols that a stream of one layer at the finest quality would, bit for bit: the
//! encoder quantises at that quality and takes the coarser symbols from the finer ones. (Embedded quantisation: Taubman
//! and Zakhor 1994, Equitz and Cover 1991 on when it loses nothing.)

use crate::kernels::portable::{Digits, NEW, coarsen};
use crate::plan::Plan;
use crate::profile::Profile;

/// What the layers of a stream are coded with.
#[derive(Debug, Default, Clone)]
pub(crate) struct LayerPlans {
    /// Plans, of the base layer first. A channel is active in a layer only if it is in all finer ones.
    pub plans: Vec<Plan>,
    /// For each layer, and each of its active channels, the number of the channel in the layer below, or [`NEW`].
    pub below: Vec<Vec<u32>>,
    pub digits: Digits,
    /// Profile, finest quality index and layers that these are for.
    made_for: Option<(u64, i16, usize)>,
}

impl LayerPlans {
    /// Makes these the plans of a profile.
    pub fn set(&mut self, profile: &Profile, finest: i16, layers: usize) {
        if self.made_for == Some((profile.hash, finest, layers)) {
            return;
        }
        if self.made_for.is_none_or(|(hash, ..)| hash != profile.hash) {
            self.digits = Digits::of(&profile.bank);
        }
        self.plans.resize_with(layers, Plan::default);
        self.below.resize_with(layers, Vec::new);
        for (above, plan) in self.plans.iter_mut().rev().enumerate() {
            plan.set_layer(profile, finest, above);
        }
        self.below[0].clear();
        for layer in 1..layers {
            let mut coarse = self.plans[layer - 1].active.iter().zip(0..).peekable();
            self.below[layer].clear();
            self.below[layer].extend(
                self.plans[layer]
                    .active
                    .iter()
                    .map(|channel| coarse.next_if(|&(own, _)| own == channel).map_or(NEW, |(_, number)| number)),
            );
        }
        self.made_for = Some((profile.hash, finest, layers));
    }

    /// The symbols of the layer below `layer`, from its own.
    pub fn coarsen(&self, layer: usize, fine: &[i32], coarse: &mut Vec<i32>) {
        coarse.clear();
        let below = &self.below[layer];
        for row in fine.chunks_exact(below.len().max(1)) {
            coarse
                .extend(below.iter().zip(row).filter(|&(&below, _)| below != NEW).map(|(_, &symbol)| coarsen(symbol)));
        }
    }
}
