//! Rate against accuracy as an SVG.

use crate::output::thousands;
use crate::report::{Measure, Report, Series};

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 440.0;
const LEFT: f64 = 62.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 16.0;
const BOTTOM: f64 = 52.0;
/// Colours that are told apart on light and on dark ground.
const COLOURS: [&str; 10] = [
    "#d1495b", "#2a7de1", "#2a9d55", "#e08a1e", "#8a5cd6", "#0f9fb5", "#c2549d", "#8f8f2a", "#9a6a4f", "#6b7a8f",
];

/// One plot with its legend; empty if there is nothing to draw.
pub fn rate_accuracy(report: &Report, measure: Measure) -> String {
    let series = report.series();
    let points = || series.iter().flat_map(|series| series.curve(measure));
    let bytes = || points().map(|point| point.0.max(1.0));
    let (low, high) = (bytes().fold(f64::INFINITY, f64::min), bytes().fold(0.0, f64::max));
    if high == 0.0 {
        return String::new();
    }
    let x = Log { low: low / 1.15, high: high * 1.15 };
    let y = accuracy_axis(points().map(|point| point.1));
    let mut svg = format!(
        "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{} against bytes\">\n",
        measure.name()
    );
    svg += &axes(&x, &y, measure, report.top1);
    let mut legend = String::new();
    for (i, series) in ordered(&series).into_iter().enumerate() {
        let colour = COLOURS[i % COLOURS.len()];
        svg += &line(series, measure, colour, &x, &y);
        legend += &format!(
            "<span><i class=\"{}\" style=\"--c:{colour}\"></i>{}</span>\n",
            if series.cut.is_some() { "square" } else { "round" },
            escape(&series.name())
        );
    }
    format!("<figure>\n{svg}</svg>\n<figcaption class=\"legend\">{legend}</figcaption>\n</figure>\n")
}

/// `narrows` first, so that it has the same strong colours everywhere.
fn ordered<'a, 'b>(series: &'b [Series<'a>]) -> Vec<&'b Series<'a>> {
    let mut all: Vec<_> = series.iter().collect();
    all.sort_by_key(|series| (series.points.len() < 2, series.codec != "narrows"));
    all
}

/// A logarithmic axis.
struct Log {
    low: f64,
    high: f64,
}

impl Log {
    fn at(&self, bytes: f64) -> f64 {
        let t = (bytes.max(1.0) / self.low).ln() / (self.high / self.low).ln();
        LEFT + t * (WIDTH - LEFT - RIGHT)
    }

    /// 1, 2, 5 of every decade, or only 1 if there are many decades.
    fn ticks(&self) -> Vec<f64> {
        let decades = (self.high / self.low).log10();
        let steps: &[f64] = if decades > 3.5 { &[1.0, 3.0] } else { &[1.0, 2.0, 5.0] };
        let all = (0..12).flat_map(|decade| steps.iter().map(move |step| step * 10f64.powi(decade)));
        all.filter(|tick| (self.low..=self.high).contains(tick)).collect()
    }
}

/// A linear axis.
struct Linear {
    low: f64,
    high: f64,
    step: f64,
}

impl Linear {
    fn at(&self, value: f64) -> f64 {
        let t = (value - self.low) / (self.high - self.low);
        HEIGHT - BOTTOM - t * (HEIGHT - TOP - BOTTOM)
    }
}

/// An axis for shares from 0 to 1 that holds all the values at round ends.
fn accuracy_axis(values: impl Iterator<Item = f64>) -> Linear {
    let (low, high) = values.fold((1.0f64, 0.0f64), |(low, high), value| (low.min(value), high.max(value)));
    let range = (high - low).max(0.02);
    let step = [0.005, 0.01, 0.02, 0.05, 0.1, 0.2].into_iter().find(|step| range / step <= 9.0).unwrap_or(0.2);
    let low = ((low / step).floor() * step).max(0.0);
    let high = (((high + 0.2 * step) / step).ceil() * step).min(1.0 + 0.3 * step);
    Linear { low, high, step }
}

fn axes(x: &Log, y: &Linear, measure: Measure, top1: f64) -> String {
    let mut svg = String::new();
    let (left, right, bottom) = (LEFT, WIDTH - RIGHT, HEIGHT - BOTTOM);
    let mut value = y.low;
    while value <= y.high + 1e-9 && value <= 1.0 + 1e-9 {
        let at = y.at(value);
        let digits = if y.step < 0.01 { 3 } else { 2 };
        svg += &format!(
            "<line class=\"grid\" x1=\"{left}\" y1=\"{at:.1}\" x2=\"{right}\" y2=\"{at:.1}\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{value:.digits$}</text>\n",
            left - 8.0,
            at + 4.0
        );
        value += y.step;
    }
    for tick in x.ticks() {
        let at = x.at(tick);
        svg += &format!(
            "<line class=\"grid\" x1=\"{at:.1}\" y1=\"{TOP}\" x2=\"{at:.1}\" y2=\"{bottom}\"/>\
             <text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>\n",
            bottom + 18.0,
            thousands(tick as u64)
        );
    }
    if measure == Measure::Top1 && (y.low..=y.high).contains(&top1) {
        let at = y.at(top1);
        svg += &format!(
            "<line class=\"uncut\" x1=\"{left}\" y1=\"{at:.1}\" x2=\"{right}\" y2=\"{at:.1}\">\
             <title>uncut network: {top1:.4}</title></line>\n\
             <text class=\"small\" x=\"{:.1}\" y=\"{:.1}\">uncut network</text>\n",
            left + 6.0,
            at - 5.0
        );
    }
    svg += &format!(
        "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">bytes per image (mean, logarithmic)</text>\n\
         <text transform=\"translate(14 {:.1}) rotate(-90)\" text-anchor=\"middle\">{}</text>\n",
        (left + right) / 2.0,
        HEIGHT - 10.0,
        (TOP + bottom) / 2.0,
        match measure {
            Measure::Top1 => "top-1 accuracy",
            Measure::Agreement => "agreement with the uncut network",
        }
    );
    svg
}

/// The points of a series, joined in the order of bytes.
fn line(series: &Series<'_>, measure: Measure, colour: &str, x: &Log, y: &Linear) -> String {
    let mut points = series.points.clone();
    points.sort_by(|a, b| a.bytes.mean.total_cmp(&b.bytes.mean));
    let at: Vec<(f64, f64)> = points.iter().map(|point| (x.at(point.bytes.mean), y.at(measure.of(point)))).collect();
    let mut svg = String::new();
    if at.len() > 1 {
        let path: Vec<String> = at.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let dashes = if series.cut.is_none() { " stroke-dasharray=\"6 4\"" } else { "" };
        svg += &format!("<polyline points=\"{}\" stroke=\"{colour}\"{dashes}/>\n", path.join(" "));
    }
    for (point, (x, y)) in points.iter().zip(at) {
        let title = format!(
            "{}{}: {} bytes, top-1 {:.4}, agreement {:.4}, KL {:.4}",
            point.name(),
            point.cut.as_ref().map_or(String::new(), |cut| format!(" @ {cut}")),
            thousands(point.bytes.mean.round() as u64),
            point.top1,
            point.agreement,
            point.divergence
        );
        let title = format!("<title>{}</title>", escape(&title));
        svg += &if series.cut.is_some() {
            format!(
                "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"9\" height=\"9\" fill=\"{colour}\">{title}</rect>\n",
                x - 4.5,
                y - 4.5
            )
        } else {
            format!("<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4.5\" fill=\"{colour}\">{title}</circle>\n")
        };
    }
    svg
}

/// Text made safe for HTML.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::example;

    #[test]
    fn every_point_is_drawn_inside_the_frame() {
        for measure in Measure::ALL {
            let svg = rate_accuracy(&example(), measure);
            assert_eq!(svg.matches("<circle").count() + svg.matches("<rect").count(), 5);
            assert_eq!(svg.matches("<polyline").count(), 2);
            assert!(!svg.contains("NaN") && !svg.contains("inf"));
        }
    }

    #[test]
    fn axes_end_at_round_values() {
        let axis = accuracy_axis([0.33, 0.95].into_iter());
        assert!((axis.low - 0.3).abs() < 1e-9 && (axis.high - 1.0).abs() < 1e-9 && axis.step == 0.1);
        let flat = accuracy_axis([1.0].into_iter());
        assert!(flat.high > flat.low);
    }
}
