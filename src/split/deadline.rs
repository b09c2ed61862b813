//! How much of a layered stream can still be sent.

use crate::conditions::Conditions;

/// The number of layers that arrive and are answered before the deadline of `conditions`, 0 if not even the base layer.
///
/// `ends` are the bytes up to the end of each layer, as [`Info`](crate::Info) has them; `tail_seconds` is what decoder
/// and tail take on the measured machine. The deadline counts from the first byte sent.
///
/// The conditions are taken as they are, their deviation does not count: give [`Conditions::cautious`] where most streams must
/// be in time, not half of them.
///
/// ```
/// use narrows::{Conditions, split::layers_by_deadline};
///
/// // 100 bytes take 8 ms at 100 kbit/s.
/// let conditions = Conditions { bandwidth: 1e5, round_trip: 0.04, deadline: 0.1, ..Conditions::default() };
/// assert_eq!(layers_by_deadline(&[100, 400, 1000], &conditions, 0.01), 2);
/// ```
pub fn layers_by_deadline(ends: &[usize], conditions: &Conditions, tail_seconds: f64) -> usize {
    let server = conditions.on_server(tail_seconds);
    ends.iter().take_while(|&&end| conditions.transfer(end as f64) + server <= conditions.deadline).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_deadline_is_held_to_the_bit() {
        let ends = [125, 250, 500];
        // A bit a millisecond: the layers end after 1, 2 and 4 seconds, and a second each for round trip and tail.
        let conditions = Conditions { bandwidth: 1000.0, round_trip: 1.0, ..Conditions::default() };
        let layers = |deadline| layers_by_deadline(&ends, &Conditions { deadline, ..conditions }, 1.0);
        assert_eq!([0.0, 2.9, 3.0, 3.9, 4.0, 5.9, 6.0].map(layers), [0, 0, 1, 1, 2, 2, 3]);
        assert_eq!(layers(f64::INFINITY), 3);
        assert_eq!(layers_by_deadline(&[], &conditions, 1.0), 0);
        let down = Conditions { bandwidth: 0.0, deadline: 1e9, ..conditions };
        assert_eq!(layers_by_deadline(&ends, &down, 1.0), 0);
    }

    proptest! {
        #[test]
        fn what_is_sent_is_in_time_and_one_more_would_not_be(
            steps in prop::collection::vec(1usize..5000, 0..6),
            bandwidth in 1e3..1e7, round_trip in 0.0..0.5, wait in 0.0..0.5, deadline in 0.0..2.0, tail in 0.0..0.2,
        ) {
            let ends: Vec<usize> = steps.iter().scan(0, |end, step| { *end += step; Some(*end) }).collect();
            let conditions = Conditions { bandwidth, round_trip, wait, deadline, ..Conditions::default() };
            let seconds = |layers: usize| conditions.transfer(ends[layers - 1] as f64) + conditions.on_server(tail);
            let layers = layers_by_deadline(&ends, &conditions, tail);
            prop_assert!(layers == 0 || seconds(layers) <= deadline);
            prop_assert!(layers == ends.len() || seconds(layers + 1) > deadline);
        }
    }
}
