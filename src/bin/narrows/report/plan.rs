//! A plan as a table, CSV, JSON and one HTML page.

use narrows::split::{Action, Estimate, Goal};
use serde_json::{Value, json};

use crate::output::thousands;
use crate::report::csv_field;
use crate::report::delays::{delay_plot, delay_rows};
use crate::report::html::{document, table};
use crate::report::plot::escape;
use crate::report::table::{align, wrap};
use crate::study::{Crossing, Study, Way};
use crate::units::{bandwidth_text, seconds_text};

/// Head of the table of ways.
const COLUMNS: [&str; 9] = ["", "sent", "setting", "bytes", "device", "link", "server", "delay", "95 %"];
/// Head of the table of crossings.
const CROSSINGS: [&str; 6] = ["", "bandwidth", "delay", "cut", "and", "the cut is faster"];

/// A study and what its readers should know of it.
pub struct PlanReport {
    /// What was studied.
    pub study: Study,
    /// True if accuracy is agreement with the uncut network.
    pub agreement: bool,
    /// What was measured, a sentence each.
    pub about: Vec<String>,
}

impl PlanReport {
    /// The report as text for a terminal.
    pub fn text(&self) -> String {
        let study = &self.study;
        let mut text = format!("{}\n{}\n", self.title(), wrap(&self.sentences().join(" ")));
        text += &format!("\nbest: {}\n\n{}", self.best_text(), align(&self.rows(), 3));
        text += &format!("\n{}\n", wrap(&self.notes().join(" ")));
        let best = if self.by_accuracy() { "best" } else { "fastest" };
        text += &format!("\n{best} by bandwidth, {}\n", self.wanted_text());
        let reigns = study.reigns.iter().map(|reign| {
            let ends = [reign.from, reign.to].map(bandwidth_text);
            vec![ends[0].clone(), "to".into(), ends[1].clone(), study.ways[reign.way].name.clone()]
        });
        text += &align(&reigns.collect::<Vec<_>>(), 4);
        text += &format!("\nmean delay by bandwidth, {}\n{}", self.setting_text(), align(&delay_rows(study), 1));
        if let Some(left_out) = self.left_out() {
            text += &format!("{}\n", wrap(&left_out));
        }
        if !study.crossings.is_empty() {
            text += &format!("\ncrossovers\n{}", align(&self.crossing_rows(), 6));
        }
        text.trim_end().to_string()
    }

    /// The report as one HTML page that needs nothing else.
    pub fn html(&self) -> String {
        let paragraph = |text: &str| format!("<p>{}</p>\n", escape(text));
        let mut body = format!("<h1>{}</h1>\n", escape(&self.title()));
        body += &paragraph(&self.sentences().join(" "));
        body += &format!("<p class=\"best\">Best: {}.</p>\n", escape(&self.best_text()));
        if let Some(warning) = self.warning() {
            body += &paragraph(&format!("Mind that {warning}."));
        }
        body += &format!("<h2>Delay over bandwidth</h2>\n{}", delay_plot(&self.study));
        let best = if self.by_accuracy() { "best" } else { "fastest" };
        let mut about = format!("Each line is {}. Above it, the {best} of all.", self.setting_text());
        if self.study.conditions.deadline.is_finite() {
            about += " The line across is the deadline.";
        }
        if !self.study.crossings.is_empty() {
            about += " Numbers are the crossovers below.";
        }
        if let Some(left_out) = self.left_out() {
            about += &format!(" {left_out}");
        }
        body += &paragraph(&about);
        if !self.study.crossings.is_empty() {
            let rows = self.crossing_rows();
            body += &format!("<h2>Crossovers</h2>\n{}", table(&rows[0], &rows[1..], 6));
        }
        let rows = delay_rows(&self.study);
        body += &format!("<h2>Mean delay by bandwidth</h2>\n{}", table(&rows[0], &rows[1..], 1));
        let rows = self.rows();
        body += &format!("<h2>Ways under these conditions</h2>\n{}", table(&rows[0], &rows[1..], 3));
        body += &paragraph(&self.notes().join(" "));
        document(&escape(&self.title()), &body)
    }

    /// Every action as CSV.
    pub fn csv(&self) -> String {
        let measured = &self.study.measurements;
        let mut text = String::from(
            "action,cut,codec,setting,layer,bytes_mean,device_s,link_s,server_s,delay_s,delay_p95_s,energy_j,accuracy,right_in_time,chosen\n",
        );
        for estimate in &self.study.candidates {
            let coding = measured.coding(estimate.action);
            let names = [
                measured.name(estimate.action),
                self.cut_name(estimate.action).unwrap_or_default().to_string(),
                coding.map_or(String::new(), |coding| coding.codec.clone()),
                coding.map_or(String::new(), |coding| coding.setting.clone()),
                coding.and_then(|coding| coding.layer).map_or(String::new(), |(layer, of)| format!("{layer}/{of}")),
            ];
            let [device, link, server] = self.study.parts(estimate);
            text += &format!(
                "{},{:.1},{device:.6},{link:.6},{server:.6},{:.6},{:.6},{:.6},{:.6},{:.6},{}\n",
                names.map(|name| csv_field(&name)).join(","),
                estimate.bytes,
                estimate.delay,
                estimate.late,
                estimate.energy,
                estimate.accuracy,
                estimate.right_in_time,
                u8::from(estimate.action == self.study.best.action)
            );
        }
        text
    }

    /// The report as JSON.
    pub fn json(&self) -> Value {
        let Study { measurements: measured, conditions, power, .. } = &self.study;
        let way = |way: usize| &self.study.ways[way].name;
        let crossings = self.study.crossings.iter().map(|crossing| {
            json!({
                "bandwidth": crossing.bandwidth,
                "delay": crossing.delay,
                "cut": way(crossing.cut),
                "other": way(crossing.other),
                "cut_is_faster": if crossing.below { "below" } else { "above" },
            })
        });
        let reigns = self.study.reigns.iter();
        let reigns = reigns.map(|reign| json!({ "from": reign.from, "to": reign.to, "way": way(reign.way) }));
        let curves = self.study.drawn().map(|number| {
            let points = Study::grid().map(|bandwidth| json!([bandwidth, self.study.delay(number, bandwidth)]));
            json!({ "way": way(number), "points": points.collect::<Vec<_>>() })
        });
        json!({
            "title": self.title(),
            "about": self.about,
            "machine": measured.machine,
            "images": measured.images(),
            "conditions": {
                "bandwidth": conditions.bandwidth,
                "round_trip": conditions.round_trip,
                "server_wait": conditions.wait,
                "deadline": conditions.deadline.is_finite().then_some(conditions.deadline),
                "device_speed": conditions.device_speed,
                "server_speed": conditions.server_speed,
            },
            "power": { "compute": power.compute, "send": power.send, "receive": power.receive, "idle": power.idle },
            "goal": match self.study.goal {
                Goal::Delay { .. } => "delay",
                Goal::Energy { .. } => "energy",
                Goal::Accuracy => "accuracy",
            },
            "measure": self.measure(),
            "accuracy_uncut": measured.accuracy(Action::Local),
            "accuracy_wanted": (!self.by_accuracy()).then_some(self.study.wanted),
            "best": self.estimate_json(&self.study.best),
            "candidates": self.study.candidates.iter().map(|one| self.estimate_json(one)).collect::<Vec<_>>(),
            "fastest_by_bandwidth": reigns.collect::<Vec<_>>(),
            "crossovers": crossings.collect::<Vec<_>>(),
            "curves": curves.collect::<Vec<_>>(),
            "not_drawn": self.study.left_out().map(way).collect::<Vec<_>>(),
        })
    }

    fn estimate_json(&self, estimate: &Estimate) -> Value {
        let coding = self.study.measurements.coding(estimate.action);
        let [device, link, server] = self.study.parts(estimate);
        json!({
            "action": self.study.measurements.name(estimate.action),
            "cut": self.cut_name(estimate.action),
            "codec": coding.map(|coding| &coding.codec),
            "setting": coding.map(|coding| &coding.setting),
            "layer": coding.and_then(|coding| coding.layer),
            "bytes": estimate.bytes,
            "device": device,
            "link": link,
            "server": server,
            "delay": estimate.delay,
            "delay_p95": estimate.late,
            "in_time": estimate.in_time,
            "energy": estimate.energy,
            "accuracy": estimate.accuracy,
            "right_in_time": estimate.right_in_time,
        })
    }

    fn cut_name(&self, action: Action) -> Option<&str> {
        match action {
            Action::Split { cut, .. } => Some(&self.study.measurements.cuts[cut].name),
            _ => None,
        }
    }

    fn title(&self) -> String {
        let measured = &self.study.measurements;
        format!("narrows plan: {}, output {}", measured.model, measured.output)
    }

    fn measure(&self) -> &'static str {
        if self.agreement { "agreement" } else { "top-1" }
    }

    /// True if the most answers that are right and in time are wanted, and no accuracy in itself.
    fn by_accuracy(&self) -> bool {
        self.study.goal == Goal::Accuracy
    }

    fn wanted_text(&self) -> String {
        match self.study.goal {
            Goal::Accuracy => format!("most answers right{}", self.deadline_text()),
            _ => format!("{} of at least {:.4}", self.measure(), self.study.wanted),
        }
    }

    /// Which setting of a way its delay over bandwidth is of.
    fn setting_text(&self) -> String {
        let the = if self.by_accuracy() { "the setting with the" } else { "the fastest setting with" };
        format!("{the} {}", self.wanted_text())
    }

    /// Which ways have no setting that is as accurate as wanted, if there are some.
    fn left_out(&self) -> Option<String> {
        let names: Vec<&str> = self.study.left_out().map(|way| self.study.ways[way].name.as_str()).collect();
        let below = format!("below {} {:.4} at every setting", self.measure(), self.study.wanted);
        (!names.is_empty()).then(|| format!("Not drawn: {}, {below}.", names.join(", ")))
    }

    /// What makes the plan one of little use.
    pub fn warning(&self) -> Option<String> {
        let soonest = self.study.too_late()?;
        Some(format!(
            "no way answers{}; the soonest, {}, takes {}",
            self.deadline_text(),
            self.study.measurements.name(soonest.action),
            seconds_text(soonest.delay)
        ))
    }

    /// Conditions and wish in words.
    fn sentences(&self) -> Vec<String> {
        let Study { conditions, measurements: measured, .. } = &self.study;
        let times = |speed: f64| if speed == 1.0 { String::new() } else { format!(" {speed} times") };
        let wish = match self.study.goal {
            Goal::Delay { .. } if conditions.deadline.is_finite() => format!(
                "the least delay with {}; the deadline is {}",
                self.wanted_text(),
                seconds_text(conditions.deadline)
            ),
            Goal::Delay { .. } => format!("the least delay with {}", self.wanted_text()),
            Goal::Energy { .. } => format!("the least energy with {}{}", self.wanted_text(), self.deadline_text()),
            Goal::Accuracy => format!("the most answers that are right{}", self.deadline_text()),
        };
        let mut sentences = self.about.clone();
        sentences.push(format!(
            "{} images; {} of the uncut network {:.4}.",
            thousands(measured.images() as u64),
            self.measure(),
            measured.accuracy(Action::Local)
        ));
        sentences.push(format!(
            "Link {}, round trip {}, wait at the server {}; the device is{} as fast as what was measured ({}), the \
             server{} as fast.",
            bandwidth_text(conditions.bandwidth),
            seconds_text(conditions.round_trip),
            seconds_text(conditions.wait),
            times(conditions.device_speed),
            measured.machine,
            times(conditions.server_speed)
        ));
        sentences.push(format!("Wanted: {wish}."));
        sentences
    }

    fn deadline_text(&self) -> String {
        match self.study.conditions.deadline {
            f64::INFINITY => String::new(),
            deadline => format!(" within {}", seconds_text(deadline)),
        }
    }

    /// What the numbers of the table are.
    fn notes(&self) -> Vec<String> {
        let power = &self.study.power;
        let mut notes = vec![format!(
            "95 %: the delay of an image whose bytes are at the 95th percentile. Energy: of the \
             device, at {} W computing, {} W sending, {} W over the round trip, {} W while the server works; \
             what a radio draws after a transfer is left out.",
            power.compute, power.send, power.receive, power.idle
        )];
        if self.shows_in_time() {
            notes.push(
                "Right in time: share of answers; what is sent is taken to be right a standard error less often than was \
                 measured."
                    .into(),
            );
        }
        if self.study.ways.iter().any(|way| !way.reaches) {
            notes.push(format!("–: no setting has {}; its most accurate is shown.", self.wanted_text()));
        }
        notes
    }

    fn best_text(&self) -> String {
        let Study { best, measurements: measured, conditions, .. } = &self.study;
        let mut text = format!(
            "{}, {} ({} at the 95th percentile), {} bytes, {:.1} mJ, {} {:.4}",
            measured.name(best.action),
            seconds_text(best.delay),
            seconds_text(best.late),
            thousands(best.bytes.round() as u64),
            best.energy * 1e3,
            self.measure(),
            best.accuracy
        );
        if conditions.deadline.is_finite() {
            text += &format!(", {:.0} % within {}", 100.0 * best.in_time, seconds_text(conditions.deadline));
        }
        text
    }

    /// True if there is a column for what the goal is about.
    fn shows_in_time(&self) -> bool {
        self.by_accuracy() && self.study.conditions.deadline.is_finite()
    }

    /// The best of each way, head first.
    fn rows(&self) -> Vec<Vec<String>> {
        let mut head: Vec<String> = COLUMNS.map(str::to_string).to_vec();
        head.extend(["energy mJ".into(), self.measure().to_string()]);
        head.extend(self.shows_in_time().then(|| "right in time".into()));
        std::iter::once(head).chain(self.study.ways.iter().map(|way| self.row(way))).collect()
    }

    fn row(&self, way: &Way) -> Vec<String> {
        let best = &way.best;
        let mark = match way.reaches {
            _ if best.action == self.study.best.action => "*",
            true => "",
            false => "–",
        };
        let coding = self.study.measurements.coding(best.action);
        let layer = coding.and_then(|coding| coding.layer);
        let layer = layer.map_or(String::new(), |(layer, of)| format!(" layer {layer}/{of}"));
        let [device, link, server] = self.study.parts(best).map(milliseconds);
        let mut cells = vec![
            mark.into(),
            way.name.clone(),
            coding.map_or(String::new(), |coding| coding.setting.clone()) + &layer,
            thousands(best.bytes.round() as u64),
            device,
            link,
            server,
            milliseconds(best.delay),
            milliseconds(best.late),
            format!("{:.1}", best.energy * 1e3),
            format!("{:.4}", best.accuracy),
        ];
        cells.extend(self.shows_in_time().then(|| format!("{:.4}", best.right_in_time)));
        cells
    }

    fn crossing_rows(&self) -> Vec<Vec<String>> {
        let row = |(i, crossing): (usize, &Crossing)| {
            vec![
                (i + 1).to_string(),
                bandwidth_text(crossing.bandwidth),
                seconds_text(crossing.delay),
                self.study.ways[crossing.cut].name.clone(),
                self.study.ways[crossing.other].name.clone(),
                if crossing.below { "below it" } else { "above it" }.to_string(),
            ]
        };
        let head = CROSSINGS.map(str::to_string).to_vec();
        std::iter::once(head).chain(self.study.crossings.iter().enumerate().map(row)).collect()
    }
}

/// `12.3 ms`, so that columns line up.
fn milliseconds(seconds: f64) -> String {
    match seconds {
        _ if seconds == 0.0 => "–".into(),
        _ if seconds < 0.1 => format!("{:.1} ms", seconds * 1e3),
        _ if seconds < 10.0 => format!("{} ms", thousands((seconds * 1e3).round() as u64)),
        _ => format!("{} s", thousands(seconds.round() as u64)),
    }
}
