//! Lines over a common axis as an SVG with a legend.

use crate::report::plot::{Axis, escape};

const WIDTH: f64 = 940.0;
const HEIGHT: f64 = 420.0;
const LEFT: f64 = 96.0;
const RIGHT: f64 = 24.0;
const TOP: f64 = 16.0;
const BOTTOM: f64 = 52.0;

/// Where the picture's axes lie: from left to right, and from bottom to top.
pub const ACROSS: (f64, f64) = (LEFT, WIDTH - RIGHT);
pub const UP: (f64, f64) = (HEIGHT - BOTTOM, TOP);

/// One line.
pub struct Line {
    /// Its name in the legend.
    pub name: String,
    pub colour: &'static str,
    pub dashes: &'static str,
    /// Values on both axes, in the order in which they are joined.
    pub points: Vec<(f64, f64)>,
}

/// The lines with axes and legend; what is outside of the frame is cut off.
pub fn lines(id: &str, lines: &[Line], (x, x_label): (&Axis, &str), (y, y_label): (&Axis, &str)) -> String {
    let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
    let mut svg = format!(
        "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{y_label} over {x_label}\">\n<clipPath \
         id=\"{id}\"><rect x=\"{LEFT}\" y=\"{TOP}\" width=\"{}\" height=\"{}\"/></clipPath>\n",
        right - LEFT,
        bottom - TOP
    );
    for (value, text) in &y.ticks {
        let at = y.at(*value);
        svg += &format!(
            "<line class=\"grid\" x1=\"{LEFT}\" y1=\"{at:.1}\" x2=\"{right}\" y2=\"{at:.1}\"/><text x=\"{:.1}\" y=\"{:.1}\" \
             text-anchor=\"end\">{text}</text>\n",
            LEFT - 8.0,
            at + 4.0
        );
    }
    for (value, text) in &x.ticks {
        let at = x.at(*value);
        svg += &format!(
            "<line class=\"grid\" x1=\"{at:.1}\" y1=\"{TOP}\" x2=\"{at:.1}\" y2=\"{bottom}\"/><text x=\"{at:.1}\" y=\"{:.1}\" \
             text-anchor=\"middle\">{text}</text>\n",
            bottom + 18.0
        );
    }
    svg += &format!(
        "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{x_label}</text>\n<text transform=\"translate(14 {:.1}) \
         rotate(-90)\" text-anchor=\"middle\">{y_label}</text>\n",
        (LEFT + right) / 2.0,
        HEIGHT - 10.0,
        (TOP + bottom) / 2.0
    );
    let mut legend = String::new();
    for line in lines {
        let finite = line.points.iter().filter(|(x, y)| x.is_finite() && y.is_finite());
        let points: Vec<String> = finite.map(|&(a, b)| format!("{:.1},{:.1}", x.at(a), y.at(b))).collect();
        let stroke = format!("style=\"stroke:{};stroke-width:2.2\" stroke-dasharray=\"{}\"", line.colour, line.dashes);
        let name = escape(&line.name);
        svg += &format!(
            "<polyline clip-path=\"url(#{id})\" points=\"{}\" {stroke}><title>{name}</title></polyline>\n",
            points.join(" ")
        );
        legend += &format!(
            "<span><svg class=\"line\" viewBox=\"0 0 34 10\" width=\"34\" height=\"10\"><polyline points=\"0,5 34,5\" \
             {stroke}/></svg>{name}</span>\n"
        );
    }
    format!("<figure>\n{svg}</svg>\n<figcaption class=\"legend\">{legend}</figcaption>\n</figure>\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_lie_between_their_axes() {
        let x = Axis::linear((0.0, 10.0), ACROSS, |x| format!("{x}"));
        let y = Axis::linear((0.0, 1.0), UP, |y| format!("{y:.1}"));
        assert_eq!(x.ticks.iter().map(|tick| tick.1.as_str()).collect::<Vec<_>>(), ["0", "2", "4", "6", "8", "10"]);
        assert_eq!(y.ticks.len(), 6);
        let points = vec![(0.0, 0.0), (10.0, 1.0), (f64::INFINITY, 1.0)];
        let line = Line { name: "a <b>".into(), colour: "#000", dashes: "", points };
        let svg = lines("plot", &[line], (&x, "time"), (&y, "share"));
        assert!(svg.contains(&format!("points=\"{LEFT:.1},{:.1} {:.1},{TOP:.1}\"", HEIGHT - BOTTOM, WIDTH - RIGHT)));
        assert!(svg.contains("a &lt;b&gt;") && !svg.contains("inf") && !svg.contains("NaN"));
    }
}
