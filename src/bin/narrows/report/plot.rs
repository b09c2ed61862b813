//! Rate against accuracy as an SVG.

use crate::metrics::Point;
use crate::output::thousands;
use crate::report::{Report, Series};

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 440.0;
const LEFT: f64 = 62.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 16.0;
const BOTTOM: f64 = 52.0;
/// Colours of the cuts, told apart on light and on dark ground.
pub(super) const CUT_COLOURS: [&str; 6] = ["#d1495b", "#8a5cd6", "#0f9fb5", "#9a7b1e", "#c2549d", "#5f8f3e"];
/// Colours of the codecs of the input.
pub(super) const INPUT_COLOURS: [(&str, &str); 3] = [("JPEG", "#2a7de1"), ("WebP", "#2a9d55"), ("PNG", "#e08a1e")];
/// Colour of what has none of its own.
pub(super) const GRAY: &str = "#7b8794";
/// Nothing is drawn further than this below the best accuracy: nobody would use it.
const ACCURACY_SPAN: f64 = 0.6;

/// What is on the vertical axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quantity {
    /// Share of right answers.
    Top1,
    /// Share of answers that the uncut network gives too.
    Agreement,
    /// Divergence from the uncut network's answer, on a logarithmic axis.
    Divergence,
}

impl Quantity {
    fn of(self, point: &Point) -> f64 {
        match self {
            Quantity::Top1 => point.top1,
            Quantity::Agreement => point.agreement,
            Quantity::Divergence => point.divergence,
        }
    }

    fn label(self) -> &'static str {
        match self {
            Quantity::Top1 => "top-1 accuracy",
            Quantity::Agreement => "agreement with the uncut network",
            Quantity::Divergence => "KL divergence in nats (less is better)",
        }
    }
}

/// One plot with its legend; empty if there is nothing to draw.
pub fn rate_plot(report: &Report, quantity: Quantity) -> String {
    let series: Vec<Series<'_>> =
        report.series().into_iter().filter(|series| !series.codec.starts_with("raw ")).collect();
    let points = || series.iter().flat_map(|series| series.points.iter().copied());
    let y = match quantity {
        Quantity::Divergence => Axis::divergence(points().map(|point| point.divergence)),
        _ => Axis::accuracy(points().map(|point| quantity.of(point))),
    };
    let shown = points().filter(|point| y.holds(quantity.of(point))).map(|point| point.bytes.mean);
    let Some(x) = Axis::bytes(shown) else { return String::new() };
    let cuts: Vec<&str> = series.iter().filter_map(|series| series.cut).fold(Vec::new(), |mut cuts, cut| {
        if !cuts.contains(&cut) {
            cuts.push(cut);
        }
        cuts
    });
    let mut svg = format!(
        "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{} against bytes\">\n\
         <clipPath id=\"frame-{quantity:?}\"><rect x=\"{LEFT}\" y=\"{TOP}\" width=\"{}\" height=\"{}\"/></clipPath>\n",
        quantity.label(),
        WIDTH - LEFT - RIGHT,
        HEIGHT - TOP - BOTTOM
    );
    svg += &frame(&x, &y, quantity, report.top1);
    let mut legend = String::new();
    for series in ordered(&series) {
        let cut = series.cut.and_then(|cut| cuts.iter().position(|&other| other == cut));
        let style = Style::of(series, cut);
        svg += &draw(series, quantity, &style, &x, &y);
        legend += &format!(
            "<span><svg viewBox=\"-7 -7 14 14\" width=\"14\" height=\"14\">{}</svg>{}</span>\n",
            style.marker(0.0, 0.0, ""),
            escape(&series.name())
        );
    }
    format!("<figure>\n{svg}</svg>\n<figcaption class=\"legend\">{legend}</figcaption>\n</figure>\n")
}

/// `narrows` first in the legend, single points last.
fn ordered<'a, 'b>(series: &'b [Series<'a>]) -> Vec<&'b Series<'a>> {
    let mut all: Vec<_> = series.iter().collect();
    all.sort_by_key(|series| {
        (series.points.len() < 2, !["narrows", "narrows trained"].contains(&series.codec), series.cut.is_some())
    });
    all
}

/// How a series looks: colour by cut or codec of the input, marker by codec.
struct Style {
    colour: &'static str,
    /// Points of the marker around 0, 0; empty for a circle.
    outline: &'static str,
    filled: bool,
    dashes: &'static str,
}

impl Style {
    fn of(series: &Series<'_>, cut: Option<usize>) -> Style {
        let Some(cut) = cut else {
            let known = INPUT_COLOURS.iter().find(|(codec, _)| *codec == series.codec);
            return Style {
                colour: known.map_or(GRAY, |(_, colour)| colour),
                outline: "",
                filled: true,
                dashes: "6 4",
            };
        };
        let (outline, filled, dashes) = match series.codec {
            "narrows" => ("-4.5,-4.5 4.5,-4.5 4.5,4.5 -4.5,4.5", true, ""),
            "narrows plain" => ("-4.5,-4.5 4.5,-4.5 4.5,4.5 -4.5,4.5", false, ""),
            "narrows trained" => ("0,-6.5 1.9,-2 6.5,-2 2.8,1.2 4.2,6 0,3.2 -4.2,6 -2.8,1.2 -6.5,-2 -1.9,-2", true, ""),
            "narrows lossless" => ("0,-6 6,0 0,6 -6,0", true, ""),
            codec if codec.contains("packed") => ("-5.5,-4 5.5,-4 0,5.5", false, "2 4"),
            _ => ("-5.5,4 5.5,4 0,-5.5", false, "2 4"),
        };
        Style { colour: CUT_COLOURS[cut % CUT_COLOURS.len()], outline, filled, dashes }
    }

    fn marker(&self, x: f64, y: f64, title: &str) -> String {
        let class = if self.filled { "full" } else { "open" };
        let Style { colour, outline, .. } = self;
        let place = format!("class=\"{class}\" style=\"--c:{colour}\" transform=\"translate({x:.1} {y:.1})\"");
        if outline.is_empty() {
            format!("<circle {place} r=\"4.5\">{title}</circle>")
        } else {
            format!("<polygon {place} points=\"{outline}\">{title}</polygon>")
        }
    }
}

/// One axis: a range of values on a range of the picture.
pub(super) struct Axis {
    low: f64,
    high: f64,
    from: f64,
    to: f64,
    logarithmic: bool,
    pub(super) ticks: Vec<(f64, String)>,
}

impl Axis {
    fn bytes(values: impl Iterator<Item = f64>) -> Option<Axis> {
        let (low, high) = values.fold((f64::INFINITY, 0.0f64), |(low, high), x| (low.min(x), high.max(x)));
        let (low, high) = (low.max(1.0) / 1.15, high.max(1.0) * 1.15);
        if !low.is_finite() {
            return None;
        }
        Some(Axis::logarithmic((low, high), (LEFT, WIDTH - RIGHT), |bytes| thousands(bytes as u64)))
    }

    /// A range of positive values on a logarithmic axis from one place of the picture to another.
    pub(super) fn logarithmic((low, high): (f64, f64), (from, to): (f64, f64), text: impl Fn(f64) -> String) -> Axis {
        let mut values = round_values(low, high);
        if values.len() < 2 {
            // Between two round values: the ends, as they are.
            values = vec![low, high];
        }
        let ticks = values.into_iter().map(|x| (x, text(x))).collect();
        Axis { low, high, from, to, logarithmic: true, ticks }
    }

    /// A range on a linear axis from one place of the picture to another, with some five round ticks.
    pub(super) fn linear((low, high): (f64, f64), (from, to): (f64, f64), text: impl Fn(f64) -> String) -> Axis {
        let rough = (high - low) / 5.0;
        let power = 10f64.powi(rough.log10().floor() as i32);
        let step = [1.0, 2.0, 5.0, 10.0].map(|x| x * power).into_iter().find(|step| *step >= rough).unwrap_or(rough);
        // A product of whole numbers, divided where the step is below 1: 0.6 and not 0.6000000000000001.
        let parts = (1.0 / step).round();
        let tick = |number: f64| if step < 1.0 { number / parts } else { number * step };
        let ticks = (0..12).map(|i| tick((low / step).ceil() + f64::from(i))).filter(|x| *x <= high + 1e-9 * step);
        let ticks = ticks.map(|x| (x, text(x))).collect();
        Axis { low, high, from, to, logarithmic: false, ticks }
    }

    /// Shares from 0 to 1, round ends.
    fn accuracy(values: impl Iterator<Item = f64>) -> Axis {
        let (low, high) = values.fold((1.0f64, 0.0f64), |(low, high), x| (low.min(x), high.max(x)));
        let low = low.max(high - ACCURACY_SPAN).max(0.0);
        let range = (high - low).max(0.02);
        let step = [0.005, 0.01, 0.02, 0.05, 0.1].into_iter().find(|step| range / step <= 9.0).unwrap_or(0.1);
        let first = (low / step + 1e-9).floor();
        let last = ((high + 0.2 * step) / step).ceil().min((1.0 / step).round());
        let digits = if step < 0.01 { 3 } else { 2 };
        let ticks = (first as usize..=last as usize).map(|i| i as f64 * step).map(|x| (x, format!("{x:.digits$}")));
        let high = (last * step).max(first * step + step) + 0.25 * step;
        Axis { low: first * step, high, from: HEIGHT - BOTTOM, to: TOP, logarithmic: false, ticks: ticks.collect() }
    }

    /// Positive divergences; what is as bad as guessing is cut off.
    fn divergence(values: impl Iterator<Item = f64>) -> Axis {
        let (low, high) =
            values.filter(|&x| x > 1e-4).fold((1.0f64, 0.01f64), |(low, high), x| (low.min(x), high.max(x)));
        let (low, high) = (low / 1.25, high.min(2.0) * 1.25);
        Axis::logarithmic((low, high), (HEIGHT - BOTTOM, TOP), |x| format!("{}", (x * 1e4).round() / 1e4))
    }

    pub(super) fn at(&self, value: f64) -> f64 {
        let t = if self.logarithmic {
            (value / self.low).ln() / (self.high / self.low).ln()
        } else {
            (value - self.low) / (self.high - self.low)
        };
        self.from + t * (self.to - self.from)
    }

    fn holds(&self, value: f64) -> bool {
        (self.low - 1e-9..=self.high).contains(&value)
    }
}

/// 1, 2, 5 of every decade, or 1, 3 if there are many decades.
fn round_values(low: f64, high: f64) -> Vec<f64> {
    let steps: &[i32] = if (high / low).log10() > 3.0 { &[1, 3] } else { &[1, 2, 5] };
    let scale = |step: i32, decade: i32| {
        let power = 10f64.powi(decade.abs());
        if decade < 0 { f64::from(step) / power } else { f64::from(step) * power }
    };
    let all = (-6..12).flat_map(|decade| steps.iter().map(move |&step| scale(step, decade)));
    all.filter(|value| (low..=high).contains(value)).collect()
}

fn frame(x: &Axis, y: &Axis, quantity: Quantity, top1: f64) -> String {
    let mut svg = String::new();
    let (left, right, bottom) = (LEFT, WIDTH - RIGHT, HEIGHT - BOTTOM);
    for (value, text) in &y.ticks {
        let at = y.at(*value);
        svg += &format!(
            "<line class=\"grid\" x1=\"{left}\" y1=\"{at:.1}\" x2=\"{right}\" y2=\"{at:.1}\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{text}</text>\n",
            left - 8.0,
            at + 4.0
        );
    }
    for (value, text) in &x.ticks {
        let at = x.at(*value);
        svg += &format!(
            "<line class=\"grid\" x1=\"{at:.1}\" y1=\"{TOP}\" x2=\"{at:.1}\" y2=\"{bottom}\"/>\
             <text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{text}</text>\n",
            bottom + 18.0
        );
    }
    if quantity == Quantity::Top1 && y.holds(top1) {
        let at = y.at(top1);
        svg += &format!(
            "<line class=\"uncut\" x1=\"{left}\" y1=\"{at:.1}\" x2=\"{right}\" y2=\"{at:.1}\">\
             <title>uncut network: {top1:.4}</title></line>\n\
             <text class=\"small\" x=\"{:.1}\" y=\"{:.1}\">uncut network</text>\n",
            left + 6.0,
            at - 5.0
        );
    }
    svg + &format!(
        "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">bytes per image (mean, logarithmic)</text>\n\
         <text transform=\"translate(14 {:.1}) rotate(-90)\" text-anchor=\"middle\">{}</text>\n",
        (left + right) / 2.0,
        HEIGHT - 10.0,
        (TOP + bottom) / 2.0,
        quantity.label()
    )
}

/// The points of a series, joined in the order of bytes.
fn draw(series: &Series<'_>, quantity: Quantity, style: &Style, x: &Axis, y: &Axis) -> String {
    let mut points = series.points.clone();
    points.sort_by(|a, b| a.bytes.mean.total_cmp(&b.bytes.mean));
    if quantity == Quantity::Divergence {
        points.retain(|point| point.divergence >= y.low);
    }
    let at = |point: &Point| (x.at(point.bytes.mean.max(1.0)), y.at(quantity.of(point)));
    let mut svg = String::new();
    if points.len() > 1 {
        let path: Vec<String> = points.iter().map(|point| at(point)).map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        svg += &format!(
            "<polyline points=\"{}\" stroke=\"{}\" stroke-dasharray=\"{}\" clip-path=\"url(#frame-{quantity:?})\"/>\n",
            path.join(" "),
            style.colour,
            style.dashes
        );
    }
    for point in points.into_iter().filter(|point| y.holds(quantity.of(point))) {
        let title = format!(
            "{}{}: {} bytes, top-1 {:.4}, agreement {:.4}, KL {:.4}",
            point.name(),
            point.cut.as_ref().map_or(String::new(), |cut| format!(" @ {cut}")),
            thousands(point.bytes.mean.round() as u64),
            point.top1,
            point.agreement,
            point.divergence
        );
        let (x, y) = at(point);
        svg += &style.marker(x, y, &format!("<title>{}</title>", escape(&title)));
        svg.push('\n');
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
        for quantity in [Quantity::Top1, Quantity::Agreement, Quantity::Divergence] {
            let svg = rate_plot(&example(), quantity);
            // The lossless point has no place on a logarithmic axis of divergence.
            let expected = if quantity == Quantity::Divergence { 4 } else { 5 };
            assert_eq!(svg.matches("<title>").count() - svg.matches("uncut network:").count(), expected);
            assert_eq!(svg.matches("<polyline").count(), 2);
            assert!(!svg.contains("NaN") && !svg.contains("inf"));
        }
    }

    #[test]
    fn axes_end_at_round_values() {
        let axis = Axis::accuracy([0.43, 0.95].into_iter());
        let texts: Vec<&str> = axis.ticks.iter().map(|(_, text)| text.as_str()).collect();
        assert_eq!(texts, ["0.40", "0.50", "0.60", "0.70", "0.80", "0.90", "1.00"]);
        assert!((Axis::accuracy([0.01, 0.9].into_iter()).low - 0.3).abs() < 1e-9);
        let flat = Axis::accuracy([1.0].into_iter());
        assert!(flat.high > flat.low);
        assert_eq!(round_values(0.008, 0.06), [0.01, 0.02, 0.05]);
    }

    #[test]
    fn axes_have_ticks_with_plain_numbers() {
        let texts = |axis: Axis| axis.ticks.into_iter().map(|(_, text)| text).collect::<Vec<_>>();
        let plain = |x: f64| format!("{x}");
        assert_eq!(texts(Axis::linear((0.0, 1.0), (0.0, 1.0), plain)), ["0", "0.2", "0.4", "0.6", "0.8", "1"]);
        assert_eq!(texts(Axis::linear((0.0, 600.0), (0.0, 1.0), plain)), ["0", "200", "400", "600"]);
        // All values between 20 and 50, and around 50 alone.
        assert_eq!(texts(Axis::logarithmic((25.0, 40.0), (0.0, 1.0), plain)), ["25", "40"]);
        assert_eq!(texts(Axis::logarithmic((40.0, 60.0), (0.0, 1.0), plain)), ["40", "60"]);
        assert_eq!(texts(Axis::logarithmic((8.0, 30.0), (0.0, 1.0), plain)), ["10", "20"]);
    }
}
