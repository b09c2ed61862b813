//! Layered streams that the server answers before all of their layers have come.

use crate::split::{Action, Coding, Measurements};

/// When the server may answer a layered stream from the layers that have come, and what that brings.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Stop {
    /// Least probability of the best class.
    pub threshold: f64,
    /// Share of the images that are answered early.
    pub share: f64,
    /// Mean bytes up to the end of the layer that those are answered from.
    pub bytes: f64,
    /// Share of right answers, of all images.
    pub accuracy: f64,
}

impl Measurements {
    /// The least threshold at which a layered stream still has this accuracy, and at every higher one too. `None` if the
    /// action sends no layers above the base, the layers below were not measured on the same images, or no threshold is as
    /// accurate.
    ///
    /// Of many thresholds the one is taken whose measured accuracy just reaches what is asked, so part of that accuracy is luck.
    /// It counts as accurate enough if it still is with a standard error less: as many right answers less as the square root
    /// of the number of images on which the early answer is right and the whole stream's is not, or the other way round.
    pub fn stop(&self, action: Action, accuracy: f64) -> Option<Stop> {
        let Action::Split { cut, .. } = action else { return None };
        let full = self.coding(action)?;
        let (top, of) = full.layer?;
        let below = |layer: u32| {
            let same = |one: &&Coding| {
                (&one.codec, &one.setting, &one.profile) == (&full.codec, &full.setting, &full.profile)
                    && one.layer == Some((layer, of))
            };
            self.cuts[cut].codings.iter().find(same)
        };
        let layers = (1..top).map(below).collect::<Option<Vec<&Coding>>>()?;
        let images = self.images();
        let whole = |one: &Coding| [one.answers.len(), one.confidence.len(), one.bytes.len()] == [images; 3];
        if !(whole(full) && layers.iter().all(|one| whole(one))) {
            return None;
        }
        // From the surest answers on down, each is taken if it comes before the one that its image has so far.
        let mut early: Vec<(f32, usize, usize)> = layers
            .iter()
            .enumerate()
            .flat_map(|(layer, coding)| {
                coding.confidence.iter().enumerate().map(move |(image, &sure)| (sure, layer, image))
            })
            .collect();
        early.sort_by(|a, b| b.0.total_cmp(&a.0));
        let right = |coding: &Coding, image: usize| usize::from(coding.answers[image] == self.labels[image]);
        let mut taken = vec![layers.len(); images];
        let mut hits = (0..images).map(|image| right(full, image)).sum::<usize>();
        // Images of which the answers so far and those of the whole stream are not both right or both wrong.
        let mut differing = 0;
        let wanted = (accuracy * images as f64 - 1e-6).ceil();
        let mut best = None;
        for (place, &(sure, layer, image)) in early.iter().enumerate() {
            if layer < taken[image] {
                let before = layers.get(taken[image]).copied().unwrap_or(full);
                let (old, new, whole) = (right(before, image), right(layers[layer], image), right(full, image));
                hits = hits - old + new;
                differing = differing + usize::from(new != whole) - usize::from(old != whole);
                taken[image] = layer;
            }
            // Equal ones come together.
            if early.get(place + 1).is_some_and(|next| next.0 == sure) {
                continue;
            }
            if (hits as f64) - f64::from(differing as u32).sqrt() < wanted {
                break;
            }
            best = Some((place, sure, hits));
        }
        let (last, threshold, hits) = best?;
        taken.fill(layers.len());
        for &(_, layer, image) in &early[..=last] {
            taken[image] = layer.min(taken[image]);
        }
        let answered: Vec<u32> =
            taken.iter().enumerate().filter_map(|(image, &layer)| Some(layers.get(layer)?.bytes[image])).collect();
        Some(Stop {
            threshold: f64::from(threshold),
            share: answered.len() as f64 / images as f64,
            bytes: answered.iter().map(|&bytes| f64::from(bytes)).sum::<f64>() / answered.len() as f64,
            accuracy: hits as f64 / images as f64,
        })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::split::tests::example;

    /// Three layers; image `i` is surer than `i + 1`, and the base is right for the first eight.
    pub(crate) fn layered() -> Measurements {
        let mut measured = example();
        let codings = (1..=3u32).map(|layer| Coding {
            layer: Some((layer, 3)),
            bytes: vec![100 * layer; 20],
            answers: (0..20).map(|i| u32::from(i >= [8, 14, 18][layer as usize - 1])).collect(),
            confidence: (0..20).map(|i| 1.0 - 0.04 * i as f32 / layer as f32).collect(),
            ..measured.cuts[0].codings[0].clone()
        });
        measured.cuts[0].codings = codings.collect();
        measured
    }

    #[test]
    fn the_least_threshold_that_is_accurate_is_found() {
        let measured = layered();
        let action = |coding| Action::Split { cut: 0, coding };
        // Of two layers: where the second is right and the base is not, the base may not answer.
        let stop = measured.stop(action(1), 14.0 / 20.0).unwrap();
        assert_eq!((stop.share, stop.bytes, stop.accuracy), (0.4, 100.0, 0.7));
        assert!((stop.threshold - (1.0 - 0.04 * 7.0)).abs() < 1e-6);
        // Two more may be lost, for which 1.4 are kept back: 12 right answers. With three more it would be 11 less 1.7.
        let stop = measured.stop(action(1), 10.0 / 20.0).unwrap();
        assert_eq!((stop.share, stop.accuracy), (0.5, 0.6));
        // Every image may be answered by the base: 8 less 2.4 for the 6 that are lost.
        assert_eq!(measured.stop(action(1), 0.25).unwrap().share, 1.0);
        assert!(measured.stop(action(1), 0.4).unwrap().share < 1.0);
        // The accuracy of the whole stream bounds all.
        assert_eq!(measured.stop(action(1), 15.0 / 20.0), None);
        assert_eq!(measured.stop(action(0), 0.1), None);
        assert_eq!(measured.stop(Action::Local, 0.1), None);
    }

    #[test]
    fn what_a_threshold_promises_is_what_a_server_would_do() {
        let measured = layered();
        for wanted in 0..=18 {
            let action = Action::Split { cut: 0, coding: 2 };
            let stop = measured.stop(action, f64::from(wanted) / 20.0).unwrap();
            let codings = &measured.cuts[0].codings;
            let answers = |image: usize| {
                let sure = |coding: &&Coding| f64::from(coding.confidence[image]) >= stop.threshold;
                codings[..2].iter().find(sure).unwrap_or(&codings[2])
            };
            let right = (0..20).filter(|&image| answers(image).answers[image] == 0).count();
            let early = (0..20).filter(|&image| answers(image).layer != Some((3, 3))).count();
            assert_eq!((stop.accuracy, stop.share), (right as f64 / 20.0, early as f64 / 20.0));
            assert!(right >= wanted as usize);
        }
    }

    #[test]
    fn a_threshold_that_was_lucky_is_not_chosen() {
        // The base is right where the second layer is not and the other way round, as often: by chance as accurate.
        let mut measured = layered();
        measured.cuts[0].codings[0].answers = (0..20).map(|i| u32::from(i % 4 == 3)).collect();
        measured.cuts[0].codings[1].answers = (0..20).map(|i| u32::from(i % 4 == 1)).collect();
        let stop = measured.stop(Action::Split { cut: 0, coding: 1 }, 0.75).unwrap();
        // The second image is won; with the fourth as many are lost, and two that differ have a standard error of 1.4.
        assert_eq!((stop.share, stop.accuracy), (0.15, 0.8));
        // Ten that differ have a standard error of 3.2.
        let stop = measured.stop(Action::Split { cut: 0, coding: 1 }, 0.55).unwrap();
        assert_eq!((stop.share, stop.accuracy), (1.0, 0.75));
    }

    #[test]
    fn layers_that_were_not_measured_are_not_answered_from() {
        let mut measured = layered();
        measured.cuts[0].codings.remove(0);
        assert_eq!(measured.stop(Action::Split { cut: 0, coding: 1 }, 0.1), None);
    }
}
