//! Finding the quality at which a candidate reaches the target distortion, and its bytes there.

/// Most qualities at which a candidate is measured, and how near the two that bracket the target are.
pub(crate) const MOST_POINTS: usize = 12;
const BRACKET: i32 = 24;
/// Where around its operating point a candidate is measured, in quality indices.
pub(crate) const FAN: [i32; 5] = [0, -12, 12, -24, 24];

/// Bytes and task distortion of a candidate at one quality.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Point {
    pub bytes: f64,
    pub distortion: f64,
}

/// The points on either side of the target: the coarsest that meets it, the finest that misses it.
type Bracket = (Option<(i32, Point)>, Option<(i32, Point)>);

fn bracket(points: &[(i32, Point)], target: f64) -> Bracket {
    let meets = |p: &Point| libm::log(p.distortion.max(1e-9)) <= target;
    let below = points.iter().filter(|(_, p)| meets(p)).max_by_key(|(index, _)| *index);
    let above = points.iter().filter(|(_, p)| !meets(p)).min_by_key(|(index, _)| *index);
    (below.copied(), above.copied())
}

/// Where to measure next to close in on the target (a natural logarithm), or `None` when near enough.
pub(crate) fn next_index(points: &[(i32, Point)], target: f64) -> Option<i32> {
    // Distortion grows by a factor of about three per octave.
    const SLOPE: f64 = 1.6 * std::f64::consts::LN_2 / 32.0;
    let log = |point: Point| libm::log(point.distortion.max(1e-9));
    match bracket(points, target) {
        (Some((low, a)), Some((high, b))) => {
            let width = high - low;
            if width.abs() <= BRACKET {
                return None;
            }
            let share = ((target - log(a)) / (log(b) - log(a)).max(1e-9)).clamp(0.15, 0.85);
            Some(low + libm::rint(share * f64::from(width)) as i32)
        }
        (Some((index, point)), None) => {
            Some(index + libm::rint((target - log(point)) / SLOPE * 1.2).clamp(8.0, 96.0) as i32)
        }
        (None, Some((index, point))) => {
            Some(index - libm::rint((log(point) - target) / SLOPE * 1.2).clamp(8.0, 96.0) as i32)
        }
        (None, None) => None,
    }
}

/// Quality index at the target, on a line between the logarithms of the points on either side of it.
pub(crate) fn interpolate(points: &[(i32, Point)], target: f64) -> Option<i32> {
    let log = |point: Point| libm::log(point.distortion.max(1e-9));
    match bracket(points, target) {
        (Some((low, a)), Some((high, b))) => {
            let t = ((target - log(a)) / (log(b) - log(a)).max(1e-9)).clamp(0.0, 1.0);
            Some(low + libm::rint(t * f64::from(high - low)) as i32)
        }
        _ => None,
    }
}

/// Bytes and quality index at the target, on least-squares lines of log distortion and log bytes
/// through the points near `centre`.
pub(crate) fn at_line(points: &[(i32, Point)], centre: i32, target: f64) -> (f64, i32) {
    let near: Vec<(f64, Point)> = points
        .iter()
        .filter(|(index, _)| (index - centre).abs() <= 40)
        .map(|(index, point)| (f64::from(index - centre), *point))
        .collect();
    let line = |value: &dyn Fn(&Point) -> f64| {
        let count = near.len() as f64;
        let (x, y) = near.iter().fold((0.0, 0.0), |(x, y), (at, p)| (x + at / count, y + value(p) / count));
        let (xx, xy) = near
            .iter()
            .fold((0.0, 0.0), |(xx, xy), (at, p)| (xx + (at - x) * (at - x), xy + (at - x) * (value(p) - y)));
        let slope = if xx > 0.0 { xy / xx } else { 0.0 };
        (y - slope * x, slope)
    };
    if near.is_empty() {
        return (f64::INFINITY, centre);
    }
    let (distortion, growth) = line(&|p| libm::log(p.distortion.max(1e-9)));
    let (bytes, shrinkage) = line(&|p| libm::log(p.bytes));
    let at = if growth > 1e-4 { ((target - distortion) / growth).clamp(-64.0, 64.0) } else { 0.0 };
    (libm::exp(bytes + shrinkage * at), centre + libm::rint(at) as i32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_target_is_found_from_far_away() {
        // Distortion 0.001 * 2^(index / 20), bytes falling with it.
        let at = |index: i32| Point {
            bytes: 1000.0 * libm::exp2(-f64::from(index) / 32.0),
            distortion: 0.001 * libm::exp2(f64::from(index) / 20.0),
        };
        let target = libm::log(0.05);
        for start in [-300, -40, 0, 113, 400] {
            let mut points = vec![(start, at(start))];
            while let Some(next) = next_index(&points, target) {
                points.push((next, at(next)));
                assert!(points.len() <= MOST_POINTS, "{start}: {points:?}");
            }
            let index = interpolate(&points, target).unwrap();
            assert!((index - 113).abs() <= 1, "{index}");
            let fan: Vec<_> = FAN.map(|offset| (index + offset, at(index + offset))).to_vec();
            let (bytes, index) = at_line(&fan, index, target);
            assert!((index - 113).abs() <= 1 && (bytes / at(113).bytes - 1.0).abs() < 0.02, "{index} {bytes}");
        }
    }
}
