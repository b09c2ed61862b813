//! Fitting a policy that knows what answers are worth.

use crate::conditions::Conditions;
use crate::error::{Error, Result};
use crate::exit::bound::{Tally, Target};
use crate::exit::costs::{Route, Weights};
use crate::exit::curves::{Curve, Worth, answers, fit_curves, going_on};
use crate::exit::policy::{Evidence, Policy, Rule};
use crate::exit::samples::Samples;
use crate::exit::softmax::Reading;
use crate::exit::temperature::fit_temperature;

/// Prices are tried from 2^-14 of accuracy for the cost of going on, 16 an octave, up to 2^6.
const OCTAVES: (i32, i32) = (-14, 6);
const PER_OCTAVE: i32 = 16;

impl Policy {
    /// Fits a policy that meets the target with the least expected cost under the conditions; see the
    /// [module](crate::exit) for how.
    ///
    /// One half of the images, by a hash of their numbers, fits temperatures and curves, the other chooses the price: prices
    /// are tried from 0 upward, and the last before the first at which the target does not hold is taken. Testing in a fixed
    /// order, and stopping at the first failure, keeps the certainty of a single test (Angelopoulos et al., *Learn then
    /// test*, 2021). If the target does not hold at price 0, the policy has price 0 (an exit answers where it is right as
    /// often as what comes after it), or never answers at an exit if even that clearly lost answers; [`Evidence::met`] says so.
    ///
    /// The certainty is that of independent images. Where some are nearly equal, as frames of a video are, it does not hold.
    ///
    /// # Errors
    /// `InvalidInput` if the samples, the route, the weights, the conditions or the target are not what they should be, or
    /// if going on is not possible under the conditions.
    pub fn fit(
        samples: &Samples<'_>,
        route: Route,
        weights: Weights,
        conditions: &Conditions,
        target: Target,
    ) -> Result<Policy> {
        check(samples, &route, &weights, conditions)?;
        target.check()?;
        let cost = weights.cost(&route.at_rest(conditions, &weights.power));
        if !(cost.is_finite() && cost > 0.0) {
            return Err(Error::invalid(format!("going on costs {cost} under the conditions of the fit")));
        }
        let sharpness = sharpness(samples)?;
        let readings = samples.readings(&sharpness);
        let rows = Rows::of(samples, &readings);
        let curves = {
            let fitted: Vec<usize> = samples.half(0).collect();
            let pick = |image: &usize| readings[*image].clone();
            let right: Vec<Vec<bool>> = fitted.iter().map(|&image| rows.right[image].clone()).collect();
            let rest: Vec<bool> = fitted.iter().map(|&image| rows.rest_right[image]).collect();
            fit_curves(&fitted.iter().map(pick).collect::<Vec<_>>(), &right, &rest)
        };
        let others: Vec<usize> = samples.half(1).collect();
        let worth = |price: f64| Worth::new(&route, &weights, conditions, price, 0.0);
        let tally = |price: f64| rows.tally(&others, &curves, &worth(price));
        let prices = (OCTAVES.0 * PER_OCTAVE..=OCTAVES.1 * PER_OCTAVE)
            .map(|step| (f64::from(step) / f64::from(PER_OCTAVE)).exp2() / cost);
        let mut chosen = (0.0, tally(0.0));
        let met = target.holds(&chosen.1);
        if met {
            for price in prices {
                let seen = tally(price);
                if !target.holds(&seen) {
                    break;
                }
                chosen = (price, seen);
            }
        }
        let (price, mut seen) = chosen;
        let mut rule = Rule::Priced { price, curves };
        if !met && seen.is_clear_loss() {
            // What looked as good as going on was not: the curves do not hold for these images.
            rule = Rule::Never;
            seen = Tally::default();
            others.iter().for_each(|&image| rows.add(&mut seen, image, None));
        }
        let evidence = evidence(&seen, met);
        Ok(Policy { classes: samples.classes(), route, weights, sharpness, rule, evidence })
    }
}

/// Checks all that every fit needs.
pub(super) fn check(samples: &Samples<'_>, route: &Route, weights: &Weights, conditions: &Conditions) -> Result<()> {
    samples.check()?;
    route.check()?;
    weights.check()?;
    conditions.checked()?;
    if route.exits.len() != samples.exits.len() {
        let (times, exits) = (route.exits.len(), samples.exits.len());
        return Err(Error::invalid(format!("times of {times} exits, logits of {exits}")));
    }
    Ok(())
}

pub(super) fn evidence(seen: &Tally, met: bool) -> Evidence {
    let rest = (seen.right + seen.lost - seen.won) as f64 / seen.images.max(1) as f64;
    Evidence { images: seen.images, accuracy: seen.accuracy(), rest_accuracy: rest, met }
}

/// One over the temperature of each exit, from the images that fit.
fn sharpness(samples: &Samples<'_>) -> Result<Vec<f64>> {
    let labels: Vec<u32> = samples.half(0).map(|image| samples.labels[image]).collect();
    let fit = |rows: &&[Vec<f32>]| {
        let logits: Vec<Vec<f32>> = samples.half(0).map(|image| rows[image].clone()).collect();
        Ok(1.0 / fit_temperature(&logits, &labels)?)
    };
    samples.exits.iter().map(fit).collect()
}

/// What exits and rest say of each image, and whether that is right.
pub(super) struct Rows<'a> {
    readings: &'a [Vec<Reading>],
    /// [image][exit]
    right: Vec<Vec<bool>>,
    rest_right: Vec<bool>,
}

impl<'a> Rows<'a> {
    pub fn of(samples: &Samples<'_>, readings: &'a [Vec<Reading>]) -> Rows<'a> {
        let row = |(row, &label): (&Vec<Reading>, &u32)| {
            row.iter().map(|reading| reading.class == label as usize).collect::<Vec<bool>>()
        };
        Rows {
            readings,
            right: readings.iter().zip(samples.labels).map(row).collect(),
            rest_right: (0..samples.labels.len()).map(|image| samples.rest_right(image)).collect(),
        }
    }

    /// Answers of the priced rule on some images, each of which has all the time up to `worth.due`.
    fn tally(&self, images: &[usize], curves: &[Curve], worth: &Worth<'_>) -> Tally {
        let onward: Vec<_> = (0..curves.len()).map(|exit| going_on(curves, exit, worth)).collect();
        let mut tally = Tally::default();
        for &image in images {
            let answer = (0..curves.len()).find(|&exit| {
                answers(&curves[exit], exit, self.readings[image][exit].confidence, &onward[exit], worth)
            });
            self.add(&mut tally, image, answer);
        }
        tally
    }

    /// Counts an answer at an exit, or of the rest.
    pub fn add(&self, tally: &mut Tally, image: usize, exit: Option<usize>) {
        let rest = self.rest_right[image];
        tally.add(exit.map_or(rest, |exit| self.right[image][exit]), rest);
    }
}
