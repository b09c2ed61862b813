//! A measurement as a table, CSV, JSON and one HTML page.

mod delays;
mod fleet;
mod html;
mod lines;
mod picture;
mod plan;
mod plot;
mod table;

use serde_json::{Value, json};

use crate::bd::{BdRate, BytesAt, bd_rate, bytes_at};
use crate::metrics::Point;
use crate::output::thousands;

pub use delays::delay_csv;
pub use fleet::FleetReport;
pub use picture::FeaturePicture;
pub use plan::PlanReport;
pub use table::{align, wrap};

/// Agreements with the uncut network at which bytes are compared.
const TARGETS: [f64; 4] = [0.90, 0.94, 0.97, 0.98];
/// Codecs of the input that cuts are compared with.
const REFERENCES: [&str; 2] = ["JPEG", "WebP"];

/// Everything that is reported of one run.
pub struct Report {
    /// What was measured, in a few words.
    pub title: String,
    /// What a reader should know about it, a sentence each.
    pub about: Vec<String>,
    /// Number of images.
    pub images: usize,
    /// Top-1 of the uncut network.
    pub top1: f64,
    /// All points.
    pub points: Vec<Point>,
    /// A feature before and after, for each cut.
    pub pictures: Vec<FeaturePicture>,
}

/// How good a point is: what is on the accuracy axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Measure {
    /// Share of right answers.
    Top1,
    /// Share of answers that the uncut network gives too.
    Agreement,
}

impl Measure {
    /// Both, in the order of the reports.
    pub const ALL: [Measure; 2] = [Measure::Top1, Measure::Agreement];

    /// Name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Measure::Top1 => "top-1",
            Measure::Agreement => "agreement",
        }
    }

    /// Its value at a point.
    pub fn of(self, point: &Point) -> f64 {
        match self {
            Measure::Top1 => point.top1,
            Measure::Agreement => point.agreement,
        }
    }
}

/// The points of one codec at one cut, in the order of measurement.
pub struct Series<'a> {
    /// The cut; `None` if the input itself is sent.
    pub cut: Option<&'a str>,
    /// The codec.
    pub codec: &'a str,
    /// Its points.
    pub points: Vec<&'a Point>,
}

impl Series<'_> {
    /// Codec and cut.
    pub fn name(&self) -> String {
        self.cut.map_or(self.codec.to_string(), |cut| format!("{} @ {cut}", self.codec))
    }

    /// (bytes, accuracy) pairs.
    pub fn curve(&self, measure: Measure) -> Vec<(f64, f64)> {
        self.points.iter().map(|point| (point.bytes.mean, measure.of(point))).collect()
    }
}

/// One BD-rate.
pub struct Comparison {
    /// The codec and cut that is judged.
    pub test: String,
    /// The cut alone.
    pub cut: Option<String>,
    /// What it is compared with.
    pub reference: &'static str,
    /// By what.
    pub measure: Measure,
    /// The result, where the curves meet.
    pub bd: Option<BdRate>,
}

impl Report {
    /// The points by codec and cut.
    pub fn series(&self) -> Vec<Series<'_>> {
        let mut all: Vec<Series<'_>> = Vec::new();
        for point in &self.points {
            let (cut, codec) = (point.cut.as_deref(), point.codec.as_str());
            match all.iter_mut().find(|series| series.cut == cut && series.codec == codec) {
                Some(series) => series.points.push(point),
                None => all.push(Series { cut, codec, points: vec![point] }),
            }
        }
        all
    }

    /// BD-rates of `narrows` at every cut against the codecs of the input.
    pub fn comparisons(&self) -> Vec<Comparison> {
        let series = self.series();
        let mut comparisons = Vec::new();
        let judged = |series: &&Series<'_>| ["narrows", "narrows trained", "narrows plain"].contains(&series.codec);
        for test in series.iter().filter(judged) {
            for reference in REFERENCES {
                let Some(other) = series.iter().find(|other| other.codec == reference) else { continue };
                for measure in Measure::ALL {
                    comparisons.push(Comparison {
                        test: test.name(),
                        cut: test.cut.map(str::to_string),
                        reference,
                        measure,
                        bd: bd_rate(&test.curve(measure), &other.curve(measure)),
                    });
                }
            }
        }
        comparisons
    }

    /// Bytes of every series with several points at the target agreements.
    pub fn targets(&self) -> Vec<(String, Vec<BytesAt>)> {
        let series = self.series();
        let several = series.iter().filter(|series| series.points.len() > 1);
        let bytes = |series: &Series<'_>| TARGETS.map(|target| bytes_at(&series.curve(Measure::Agreement), target));
        several.map(|series| (series.name(), bytes(series).to_vec())).collect()
    }

    /// The report as text for a terminal.
    pub fn text(&self) -> String {
        table::text(self)
    }

    /// The report as one HTML page that needs nothing else.
    pub fn html(&self) -> String {
        html::page(self)
    }

    /// The points as CSV.
    pub fn csv(&self) -> String {
        let mut text = String::from(
            "cut,codec,setting,images,bytes_mean,bytes_std,bytes_p99,bytes_max,bits_per_element,\
             top1,agreement,kl_nats,encode_us_median,decode_us_median\n",
        );
        for point in &self.points {
            let names = [point.cut.as_deref().unwrap_or(""), &point.codec, &point.setting].map(csv_field);
            text += &format!(
                "{},{},{:.3},{:.3},{},{},{:.6},{:.6},{:.6},{:.6},{:.1},{:.1}\n",
                names.join(","),
                self.images,
                point.bytes.mean,
                point.bytes.std,
                point.bytes.p99,
                point.bytes.max,
                point.bits_per_element,
                point.top1,
                point.agreement,
                point.divergence,
                point.encode,
                point.decode,
            );
        }
        text
    }

    /// The report as JSON.
    pub fn json(&self) -> Value {
        let comparisons: Vec<Value> = self
            .comparisons()
            .iter()
            .map(|comparison| {
                json!({
                    "test": comparison.test,
                    "cut": comparison.cut,
                    "reference": comparison.reference,
                    "measure": comparison.measure.name(),
                    "bd_rate_percent": comparison.bd.and_then(|bd| bd.percent),
                    "range": comparison.bd.map(|bd| [bd.low, bd.high]),
                })
            })
            .collect();
        let targets: Vec<Value> = self
            .targets()
            .iter()
            .flat_map(|(name, bytes)| {
                TARGETS.iter().zip(bytes).map(move |(target, bytes)| {
                    let (relation, bytes) = match *bytes {
                        BytesAt::About(bytes) => ("about", Some(bytes)),
                        BytesAt::AtMost(bytes) => ("at_most", Some(bytes)),
                        BytesAt::OutOfReach => ("out_of_reach", None),
                    };
                    json!({ "series": name, "agreement": target, "relation": relation, "bytes": bytes })
                })
            })
            .collect();
        json!({
            "title": self.title,
            "about": self.about,
            "images": self.images,
            "top1_uncut": self.top1,
            "points": self.points.iter().map(Point::json).collect::<Vec<_>>(),
            "bd_rate": comparisons,
            "bytes_at_agreement": targets,
        })
    }
}

/// Bytes at a target for people: `1,150`, `<= 900` or a dash.
fn bytes_at_text(bytes: BytesAt) -> String {
    match bytes {
        BytesAt::About(bytes) => thousands(bytes.round() as u64),
        BytesAt::AtMost(bytes) => format!("≤ {}", thousands(bytes.round() as u64)),
        BytesAt::OutOfReach => "–".into(),
    }
}

/// A BD-rate for people: `-91.2 %` and its range.
fn bd_text(bd: Option<BdRate>) -> (String, String) {
    match bd {
        Some(bd) => {
            let percent = bd.percent.map_or("–".into(), |percent| format!("{percent:+.1} %"));
            (percent, format!("{:.3} to {:.3}", bd.low, bd.high))
        }
        None => ("–".into(), "no common range".into()),
    }
}

/// What a dash in place of a BD-rate means, if there is one over a range.
fn bd_note(comparisons: &[Comparison]) -> Option<&'static str> {
    let narrow = |comparison: &Comparison| comparison.bd.is_some_and(|bd| bd.percent.is_none());
    comparisons
        .iter()
        .any(narrow)
        .then_some("–: the accuracies that both reach span less than a point: too few images to tell.")
}

fn csv_field(text: &str) -> String {
    if text.contains([',', '"', '\n']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text.to_string() }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::metrics::Sample;

    /// A report with three series and little in it.
    pub fn example() -> Report {
        let point = |cut, codec, setting, bytes, share: f64| {
            let sample = |i: usize| Sample {
                bytes,
                answer: 0,
                confidence: 1.0,
                correct: (i as f64) < share * 100.0,
                agrees: (i as f64) < share * 100.0,
                divergence: 1.0 - share,
                encode: 10.0,
                decode: 20.0,
            };
            Point::new(cut, codec, setting, 1000, &(0..100).map(sample).collect::<Vec<_>>())
        };
        Report {
            title: "a <test>".into(),
            about: vec!["Made up.".into()],
            images: 100,
            top1: 0.95,
            points: vec![
                point(None, "PNG", "", 9000, 1.0),
                point(None, "JPEG", "q10", 1000, 0.5),
                point(None, "JPEG", "q50", 4000, 0.9),
                point(Some("a,b"), "narrows", "x1", 1000, 0.9),
                point(Some("a,b"), "narrows", "x2", 250, 0.5),
            ],
            pictures: Vec::new(),
        }
    }

    #[test]
    fn all_forms_hold_the_same_points() {
        let report = example();
        assert_eq!(report.csv().lines().count(), 6);
        assert!(report.csv().contains("\n\"a,b\",narrows,x1,100,1000.000,"));
        let json = report.json();
        assert_eq!(json["points"].as_array().map(Vec::len), Some(5));
        assert!((json["bd_rate"][0]["bd_rate_percent"].as_f64().unwrap() + 75.0).abs() < 1e-9);
        assert!(report.text().contains("-75.0 %") && !report.text().contains("less than a point"));
        let html = report.html();
        let mut narrow = example();
        (narrow.points[3].top1, narrow.points[4].top1) = (0.503, 0.5);
        let text = narrow.text();
        assert!(text.contains("0.500 to 0.503"), "{text}");
        assert!(text.contains("less than a point") && narrow.html().contains("less than a point"), "{text}");
        assert!(narrow.json()["bd_rate"][0]["bd_rate_percent"].is_null());
        assert!(html.contains("a &lt;test&gt;") && html.contains("<svg") && !html.contains("http://"));
    }
}
