//! Delay over bandwidth as a table, as CSV, and as an SVG: a line for each way, numbers where a cut crosses local or the
//! compressed input, a band that names the fastest way, or the best one, and the deadline.

use narrows::split::Goal;

use crate::report::csv_field;
use crate::report::plot::{Axis, CUT_COLOURS, GRAY, INPUT_COLOURS, escape};
use crate::study::{BANDWIDTHS, Study, Way};
use crate::units::{bandwidth_text, seconds_text};

const WIDTH: f64 = 940.0;
const HEIGHT: f64 = 560.0;
const LEFT: f64 = 84.0;
const RIGHT: f64 = 46.0;
const TOP: f64 = 74.0;
const BOTTOM: f64 = 52.0;
/// Upper edge and height of the band of the fastest.
const BAND: (f64, f64) = (42.0, 22.0);
/// Radius of a numbered mark.
const MARK: f64 = 8.5;
/// Bandwidths of the table.
const SHOWN: [f64; 5] = [37_500.0, 1e5, 1e6, 1e7, 1e8];
/// Width of a letter, about.
const LETTER: f64 = 6.3;

/// The plot with its legend; empty if no way is as accurate as wanted.
pub fn delay_plot(study: &Study) -> String {
    let drawn: Vec<usize> = study.drawn().collect();
    let delays = drawn.iter().flat_map(|&way| Study::grid().map(move |bandwidth| study.delay(way, bandwidth)));
    let (low, high) = delays.fold((f64::INFINITY, 0.0f64), |(low, high), x| (low.min(x), high.max(x)));
    // A deadline far off is left out: the lines would lie flat beside it.
    let deadline = Some(study.conditions.deadline).filter(|at| (low / 10.0..=high * 10.0).contains(at));
    let (low, high) = deadline.map_or((low, high), |at| (low.min(at), high.max(at)));
    if !(low > 0.0 && high.is_finite()) {
        return String::new();
    }
    let mut x = Axis::logarithmic(BANDWIDTHS, (LEFT, WIDTH - RIGHT), bandwidth_text);
    x.ticks.insert(0, (BANDWIDTHS.0, bandwidth_text(BANDWIDTHS.0)));
    let y = Axis::logarithmic((low / 1.3, high * 1.3), (HEIGHT - BOTTOM, TOP), seconds_text);
    let mut svg = format!("<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"delay over bandwidth\">\n");
    svg += &frame(&x, &y);
    svg += &band(study, &x);
    svg += &now(study, &x);
    svg += &deadline.map_or(String::new(), |seconds| across(seconds, &y));
    let mut legend = String::new();
    for &way in &drawn {
        let (colour, dashes, width) = look(&study.ways[way]);
        let points: Vec<String> = Study::grid()
            .map(|bandwidth| format!("{:.1},{:.1}", x.at(bandwidth), y.at(study.delay(way, bandwidth))))
            .collect();
        let stroke = format!("style=\"stroke:{colour};stroke-width:{width}\" stroke-dasharray=\"{dashes}\"");
        let name = escape(&study.ways[way].name);
        svg += &format!("<polyline points=\"{}\" {stroke}><title>{name}</title></polyline>\n", points.join(" "));
        legend += &format!(
            "<span><svg class=\"line\" viewBox=\"0 0 34 10\" width=\"34\" height=\"10\"><polyline points=\"0,5 34,5\" \
             {stroke}/></svg>{name}</span>\n"
        );
    }
    svg += &marks(study, &x, &y);
    format!("<figure>\n{svg}</svg>\n<figcaption class=\"legend\">{legend}</figcaption>\n</figure>\n")
}

/// The delay of each way that is drawn at some bandwidths, head first.
pub fn delay_rows(study: &Study) -> Vec<Vec<String>> {
    let row = |way: usize| {
        let delays = SHOWN.iter().map(|&bandwidth| seconds_text(study.delay(way, bandwidth)));
        std::iter::once(study.ways[way].name.clone()).chain(delays).collect()
    };
    let head = std::iter::once(String::new()).chain(SHOWN.map(bandwidth_text)).collect();
    std::iter::once(head).chain(study.drawn().map(row)).collect()
}

/// The delay of every way over bandwidth as CSV, of those that are not as accurate as wanted too.
pub fn delay_csv(study: &Study) -> String {
    let mut text = String::from("way,as_accurate_as_wanted,bandwidth,delay_s\n");
    for (number, way) in study.ways.iter().enumerate() {
        let (name, reaches) = (csv_field(&way.name), u8::from(way.reaches));
        for bandwidth in Study::grid() {
            text += &format!("{name},{reaches},{bandwidth:.1},{:.6}\n", study.delay(number, bandwidth));
        }
    }
    text
}

/// Colour by cut or codec of the input, dashes by codec at the cut; local in the colour of the text.
fn look(way: &Way) -> (&'static str, &'static str, f64) {
    let Some(cut) = way.cut else {
        let known = INPUT_COLOURS.iter().find(|(codec, _)| *codec == way.codec);
        return match known {
            Some((_, colour)) => (colour, "", 1.8),
            None if way.codec.is_empty() => ("var(--ink)", "", 2.4),
            None => (GRAY, "", 1.8),
        };
    };
    let dashes = match way.codec.as_str() {
        "narrows trained" => "",
        "narrows" => "9 4",
        "narrows plain" => "3 3",
        codec if codec.contains("layered") => "12 3 3 3",
        _ => "1 4",
    };
    (CUT_COLOURS[cut % CUT_COLOURS.len()], dashes, 2.2)
}

fn frame(x: &Axis, y: &Axis) -> String {
    let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
    let mut svg = String::new();
    for (value, text) in &y.ticks {
        let at = y.at(*value);
        svg += &format!(
            "<line class=\"grid\" x1=\"{LEFT}\" y1=\"{at:.1}\" x2=\"{right}\" y2=\"{at:.1}\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{text}</text>\n",
            LEFT - 8.0,
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
    svg + &format!(
        "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">bandwidth (logarithmic)</text>\n\
         <text transform=\"translate(14 {:.1}) rotate(-90)\" text-anchor=\"middle\">mean delay (logarithmic)</text>\n",
        (LEFT + right) / 2.0,
        HEIGHT - 10.0,
        (TOP + bottom) / 2.0
    )
}

/// The best way at each bandwidth, and the bandwidths at which it changes.
fn band(study: &Study, x: &Axis) -> String {
    let (top, height) = BAND;
    let mut svg = format!(
        "<text class=\"small\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\n",
        LEFT - 8.0,
        top + 15.0,
        if study.goal == Goal::Accuracy { "best" } else { "fastest" }
    );
    // Two rows of labels: one that would run into the last of its row goes to the other, or is left to its tooltip.
    let mut free = [f64::NEG_INFINITY; 2];
    for (i, reign) in study.reigns.iter().enumerate() {
        let way = &study.ways[reign.way];
        let (from, to) = (x.at(reign.from), x.at(reign.to));
        svg += &format!(
            "<rect x=\"{from:.1}\" y=\"{top}\" width=\"{:.1}\" height=\"{height}\" style=\"fill:{}\" class=\"reign\"><title>{}: \
             {} to {}</title></rect>\n",
            (to - from).max(0.5),
            look(way).0,
            escape(&way.name),
            bandwidth_text(reign.from),
            bandwidth_text(reign.to)
        );
        let name = shortened(&way.name, ((to - from - 10.0) / LETTER).max(0.0) as usize);
        svg += &format!(
            "<text class=\"on\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>\n",
            (from + to) / 2.0,
            top + 15.0,
            escape(&name)
        );
        if i == 0 {
            continue;
        }
        let text = bandwidth_text(reign.from);
        let half = text.chars().count() as f64 * LETTER / 2.0;
        let Some(row) = (0..2).find(|&row| free[row] < from - half) else { continue };
        free[row] = from + half + 6.0;
        let at = top - 6.0 - 14.0 * row as f64;
        svg += &format!("<text class=\"small\" x=\"{from:.1}\" y=\"{at:.1}\" text-anchor=\"middle\">{text}</text>\n");
    }
    svg
}

/// A name of at most `letters`, with its end kept: that tells cuts apart. Empty where too little would be left.
fn shortened(name: &str, letters: usize) -> String {
    let own = name.chars().count();
    match letters {
        _ if own <= letters => name.to_string(),
        ..8 => String::new(),
        _ => format!("…{}", name.chars().skip(own - letters + 1).collect::<String>()),
    }
}

/// The bandwidth of the conditions.
fn now(study: &Study, x: &Axis) -> String {
    let bandwidth = study.conditions.bandwidth;
    if !(BANDWIDTHS.0..=BANDWIDTHS.1).contains(&bandwidth) {
        return String::new();
    }
    let (at, bottom) = (x.at(bandwidth), HEIGHT - BOTTOM);
    let (anchor, beside) = if at > WIDTH / 2.0 { ("end", at - 5.0) } else { ("start", at + 5.0) };
    format!(
        "<line class=\"uncut\" x1=\"{at:.1}\" y1=\"{TOP}\" x2=\"{at:.1}\" y2=\"{bottom}\"/>\
         <text class=\"small\" x=\"{beside:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\">asked for</text>\n",
        bottom - 6.0
    )
}

/// The deadline.
fn across(seconds: f64, y: &Axis) -> String {
    let (at, right) = (y.at(seconds), WIDTH - RIGHT);
    format!(
        "<line class=\"uncut deadline\" x1=\"{LEFT}\" y1=\"{at:.1}\" x2=\"{right}\" y2=\"{at:.1}\"/>\
         <text class=\"small\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">deadline {}</text>\n",
        right - 4.0,
        at - 5.0,
        seconds_text(seconds)
    )
}

/// The crossings by number. A mark that would cover another is moved aside and tied to its place by a line.
fn marks(study: &Study, x: &Axis, y: &Axis) -> String {
    let mut taken: Vec<(f64, f64)> = Vec::new();
    let (mut ties, mut svg) = (String::new(), String::new());
    for (i, crossing) in study.crossings.iter().enumerate() {
        let at = (x.at(crossing.bandwidth), y.at(crossing.delay));
        let place = free_place(at, &taken);
        taken.push(place);
        if place != at {
            ties += &format!(
                "<line class=\"tie\" x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\"/>\n",
                at.0, at.1, place.0, place.1
            );
        }
        let title = format!(
            "{} and {}: {}, {}",
            study.ways[crossing.cut].name,
            study.ways[crossing.other].name,
            bandwidth_text(crossing.bandwidth),
            seconds_text(crossing.delay)
        );
        svg += &format!(
            "<g class=\"mark\" transform=\"translate({:.1} {:.1})\"><circle r=\"{MARK}\"/><text y=\"4\" \
             text-anchor=\"middle\">{}</text><title>{}</title></g>\n",
            place.0,
            place.1,
            i + 1,
            escape(&title)
        );
    }
    ties + &svg
}

/// The nearest place around a point that no mark covers, inside the frame.
fn free_place(at: (f64, f64), taken: &[(f64, f64)]) -> (f64, f64) {
    let inside = |(x, y): (f64, f64)| {
        (LEFT + MARK..=WIDTH - RIGHT - MARK).contains(&x) && (TOP + MARK..=HEIGHT - BOTTOM - MARK).contains(&y)
    };
    let is_free = |place: (f64, f64)| {
        inside(place) && taken.iter().all(|other| (other.0 - place.0).hypot(other.1 - place.1) > 2.0 * MARK + 2.0)
    };
    let rings = (1..12).flat_map(|ring| (0..16).map(move |turn| (f64::from(ring) * 12.0, f64::from(turn))));
    let around = rings.map(|(distance, turn)| {
        let angle = std::f64::consts::TAU * turn / 16.0 - std::f64::consts::FRAC_PI_2;
        (at.0 + distance * angle.cos(), at.1 + distance * angle.sin())
    });
    std::iter::once(at).chain(around).find(|&place| is_free(place)).unwrap_or(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_do_not_cover_each_other() {
        let mut taken = Vec::new();
        for _ in 0..20 {
            let place = free_place((300.0, 300.0), &taken);
            assert!(taken.iter().all(|other: &(f64, f64)| (other.0 - place.0).hypot(other.1 - place.1) > 2.0 * MARK));
            taken.push(place);
        }
        assert_eq!(taken[0], (300.0, 300.0));
    }

    #[test]
    fn names_keep_their_end() {
        assert_eq!(shortened("narrows @ block7", 40), "narrows @ block7");
        assert_eq!(
            shortened("narrows @ block7", 8),
            "…@ block7".chars().take(1).chain(" block7".chars()).collect::<String>()
        );
        assert_eq!(shortened("narrows @ block7", 7), "");
    }
}
