//! A simulation as a table, CSV, JSON and one HTML page.

use narrows::simulate::{Arrivals, Outcome, Scenario};
use narrows::split::Power;
use serde_json::{Value, json};

use crate::output::thousands;
use crate::report::csv_field;
use crate::report::html::{document, table};
use crate::report::lines::{ACROSS, Line, UP, lines};
use crate::report::plot::{Axis, CUT_COLOURS, GRAY, INPUT_COLOURS, escape};
use crate::report::table::{align, wrap};
use crate::units::{bandwidth_text, seconds_text};

/// Head of the table.
const COLUMNS: [&str; 15] = [
    "strategy",
    "in time",
    "right",
    "right in time",
    "mean",
    "50 %",
    "90 %",
    "99 %",
    "99.9 %",
    "on device",
    "bytes",
    "mJ",
    "servers",
    "cost, used",
    "cost, all",
];
/// Colours of strategies that plan, in their order, and what tells those apart that have the same.
const PLANNED: [&str; 4] = [CUT_COLOURS[1], CUT_COLOURS[0], CUT_COLOURS[4], CUT_COLOURS[2]];
const PLANNED_DASHES: [&str; 4] = ["", "10 3", "3 2", "12 3 3 3"];
/// Colours and dashes of what has no colour of its own.
const OTHERS: [&str; 2] = [CUT_COLOURS[3], CUT_COLOURS[5]];
const DASHES: [&str; 3] = ["7 4", "2 3", "9 3 2 3"];

/// What came of several strategies in one scenario.
pub struct FleetReport {
    /// The network.
    pub model: String,
    /// What was simulated, a sentence each.
    pub about: Vec<String>,
    /// Kind of the link.
    pub link: String,
    /// What was simulated.
    pub scenario: Scenario,
    /// Name and outcome of each strategy.
    pub outcomes: Vec<(String, Outcome)>,
}

impl FleetReport {
    fn title(&self) -> String {
        format!("narrows simulate: {}", self.model)
    }

    /// The sentences that explain the columns.
    fn notes(&self) -> String {
        let deadline = match self.scenario.deadline {
            deadline if deadline.is_finite() => format!("within {}", seconds_text(deadline)),
            _ => "at any time, for there is no deadline".into(),
        };
        let adaptive = self.outcomes.iter().any(|(name, _)| name.starts_with("adaptive"));
        let probes = if adaptive { "; probes of adaptive devices counted" } else { "" };
        let Power { compute, send, receive, idle } = self.scenario.power;
        format!(
            "In time: answered {deadline}. Right: of all requests, one without an answer being wrong. Delays: mean of those \
             answered, and quantiles of all (never: fewer than that are ever answered). Bytes and millijoules of the \
             device, mean of all{probes}. Energy: {compute} W computing, {send} W sending, {receive} W over the round trip, {idle} W \
             while the request is at the server or its answer waits for the link; what a radio draws after a transfer while it \
             stays connected is left out. Servers: share of their workers' time. Cost of a million requests, a server for an hour \
             {}, a gigabyte {}: used, with the time that workers worked for them; all, with all servers, idle or not.",
            self.scenario.prices.server_hour, self.scenario.prices.gigabyte
        )
    }

    fn rows(&self) -> Vec<Vec<String>> {
        let share = |share: f64| format!("{:.1} %", 100.0 * share);
        let row = |(name, outcome): &(String, Outcome)| {
            let mut cells = vec![name.clone()];
            cells.extend([outcome.in_time, outcome.accuracy, outcome.right_in_time].map(share));
            cells.push(seconds_text(outcome.mean_delay));
            cells.extend(outcome.delays.map(seconds_text));
            cells.push(share(outcome.on_device));
            cells.push(thousands(outcome.bytes.round() as u64));
            cells.extend([format!("{:.1}", 1e3 * outcome.energy), share(outcome.utilisation)]);
            cells.extend([outcome.million_used, outcome.million].map(|cost| format!("{cost:.2}")));
            cells
        };
        let head = COLUMNS.map(str::to_string).to_vec();
        std::iter::once(head).chain(self.outcomes.iter().map(row)).collect()
    }

    /// The report as text for a terminal.
    pub fn text(&self) -> String {
        let about = wrap(&self.about.join(" "));
        let text = format!("{}\n{about}\n\n{}\n{}", self.title(), align(&self.rows(), 1), wrap(&self.notes()));
        text.trim_end().to_string()
    }

    /// The report as one HTML page that needs nothing else.
    pub fn html(&self) -> String {
        let paragraph = |text: &str| format!("<p>{}</p>\n", escape(text));
        let mut body = format!("<h1>{}</h1>\n{}", escape(&self.title()), paragraph(&self.about.join(" ")));
        body += &format!("<h2>Delays</h2>\n{}", self.delays());
        body += &paragraph(
            "The share of requests that have an answer within a delay. A line that ends below 1 belongs to a strategy that leaves requests without an answer.",
        );
        body += &format!("<h2>Answers in time, over time</h2>\n{}", self.over_time());
        if self.scenario.link.is_same() && self.scenario.link.first().bandwidth.period().is_finite() {
            body += &format!("<h2>The link</h2>\n{}", self.link());
        }
        let rows = self.rows();
        body += &format!("<h2>All figures</h2>\n{}{}", table(&rows[0], &rows[1..], 1), paragraph(&self.notes()));
        document(&escape(&self.title()), &body)
    }

    /// A line for each strategy.
    fn each(&self, points: impl Fn(&Outcome) -> Vec<(f64, f64)>) -> Vec<Line> {
        let looks = looks(self.outcomes.iter().map(|(name, _)| name.as_str()));
        let line = |((name, outcome), (colour, dashes)): (&(String, Outcome), _)| Line {
            name: name.clone(),
            colour,
            dashes,
            points: points(outcome),
        };
        self.outcomes.iter().zip(looks).map(line).collect()
    }

    fn delays(&self) -> String {
        let all = self.outcomes.iter().flat_map(|(_, outcome)| outcome.distribution.iter().copied());
        let finite = all.filter(|delay| delay.is_finite() && *delay > 0.0);
        let (low, high) = finite.fold((f64::INFINITY, 0.0f64), |(low, high), x| (low.min(x), high.max(x)));
        if high <= 0.0 {
            return String::new();
        }
        let x = Axis::logarithmic((low / 1.2, high * 1.2), ACROSS, seconds_text);
        let y = Axis::linear((0.0, 1.0), UP, |share| format!("{share:.1}"));
        let curve = |outcome: &Outcome| {
            let last = (outcome.distribution.len() - 1).max(1) as f64;
            outcome.distribution.iter().enumerate().map(|(i, &delay)| (delay, i as f64 / last)).collect()
        };
        lines("delays", &self.each(curve), (&x, "delay (logarithmic)"), (&y, "share of requests"))
    }

    fn over_time(&self) -> String {
        let x = Axis::linear((0.0, self.scenario.seconds), ACROSS, |x| format!("{x} s"));
        let y = Axis::linear((0.0, 1.0), UP, |share| format!("{share:.1}"));
        let width = self.scenario.seconds / 120.0;
        let curve =
            |outcome: &Outcome| outcome.slices.iter().map(|slice| (slice.start + 0.5 * width, slice.in_time)).collect();
        lines("time", &self.each(curve), (&x, "time of the request"), (&y, "share answered in time"))
    }

    fn link(&self) -> String {
        let bandwidth = &self.scenario.link.first().bandwidth;
        let points: Vec<(f64, f64)> = (0..=1200)
            .map(|i| self.scenario.seconds * f64::from(i) / 1200.0)
            .map(|time| (time, bandwidth.at(time)))
            .collect();
        let high = points.iter().map(|point| point.1).fold(0.0, f64::max);
        let x = Axis::linear((0.0, self.scenario.seconds), ACROSS, |x| format!("{x} s"));
        let y = Axis::linear((0.0, 1.05 * high.max(1.0)), UP, bandwidth_text);
        let line = Line { name: "bandwidth".into(), colour: GRAY, dashes: "", points };
        lines("link", &[line], (&x, "time"), (&y, "bandwidth"))
    }

    /// The outcomes as CSV.
    pub fn csv(&self) -> String {
        let mut text = String::from(
            "strategy,requests,answered,in_time,accuracy,accuracy_in_time,right_in_time,delay_mean_s,delay_p50_s,delay_p90_s,\
             delay_p99_s,delay_p999_s,on_device,fell_back,bytes,energy_j,utilisation,cost_per_million,cost_per_million_used\n",
        );
        for (name, outcome) in &self.outcomes {
            let Outcome { requests, answered, in_time, accuracy, accuracy_in_time, right_in_time, .. } = outcome;
            let [p50, p90, p99, p999] = outcome.delays;
            text += &format!(
                "{},{requests},{answered:.6},{in_time:.6},{accuracy:.6},{accuracy_in_time:.6},{right_in_time:.6},{:.6},{p50:.6},\
                 {p90:.6},{p99:.6},{p999:.6},{:.6},{:.6},{:.3},{:.6},{:.6},{:.4},{:.4}\n",
                csv_field(name),
                outcome.mean_delay,
                outcome.on_device,
                outcome.fell_back,
                outcome.bytes,
                outcome.energy,
                outcome.utilisation,
                outcome.million,
                outcome.million_used
            );
        }
        text
    }

    /// The outcomes as JSON; a delay that is never reached is null.
    pub fn json(&self) -> Value {
        let delay = |seconds: f64| seconds.is_finite().then_some(seconds);
        let outcome = |(name, outcome): &(String, Outcome)| {
            let slices = outcome.slices.iter().map(|slice| {
                json!({ "start_s": slice.start, "requests": slice.requests, "in_time": slice.in_time, "accuracy": slice.accuracy })
            });
            json!({
                "strategy": name,
                "requests": outcome.requests,
                "answered": outcome.answered,
                "in_time": outcome.in_time,
                "accuracy": outcome.accuracy,
                "accuracy_in_time": outcome.accuracy_in_time,
                "right_in_time": outcome.right_in_time,
                "delay_s": {
                    "mean": delay(outcome.mean_delay),
                    "p50": delay(outcome.delays[0]),
                    "p90": delay(outcome.delays[1]),
                    "p99": delay(outcome.delays[2]),
                    "p999": delay(outcome.delays[3]),
                },
                "on_device": outcome.on_device,
                "fell_back": outcome.fell_back,
                "bytes": outcome.bytes,
                "energy_j": outcome.energy,
                "utilisation": outcome.utilisation,
                "cost_per_million": outcome.million,
                "cost_per_million_used": outcome.million_used,
                "slices": slices.collect::<Vec<_>>(),
            })
        };
        let Scenario { link, load, power, prices, .. } = &self.scenario;
        json!({
            "title": self.title(),
            "about": self.about,
            "deadline_s": delay(self.scenario.deadline),
            "seed": self.scenario.seed,
            "scenario": {
                "devices": self.scenario.devices,
                "servers": self.scenario.servers,
                "workers": self.scenario.workers,
                "seconds": self.scenario.seconds,
                "warm_up_s": self.scenario.warm_up,
                "requests_per_second": self.scenario.rate,
                "arrivals": match self.scenario.arrivals {
                    Arrivals::Poisson => "poisson",
                    Arrivals::Periodic => "periodic",
                },
                "device_speed": self.scenario.device_speed,
                "server_speed": self.scenario.server_speed,
                "link": {
                    "kind": self.link,
                    "bandwidth_mean": link.mean_bandwidth(),
                    "down": link.down(),
                    "round_trip_mean_s": link.mean_round_trip(),
                    "period_s": delay(link.first().bandwidth.period()),
                },
                "load": { "mean": load.mean(), "period_s": delay(load.period()) },
            },
            "power": { "compute": power.compute, "send": power.send, "receive": power.receive, "idle": power.idle },
            "prices": { "server_hour": prices.server_hour, "gigabyte": prices.gigabyte },
            "strategies": self.outcomes.iter().map(outcome).collect::<Vec<_>>(),
        })
    }
}

/// Colour and dashes of the line of each strategy: strategies of one sort take colours in turn, then other dashes.
fn looks<'a>(names: impl Iterator<Item = &'a str>) -> Vec<(&'static str, &'static str)> {
    let (mut planned, mut others, mut inputs) = (0, 0, [0; INPUT_COLOURS.len()]);
    fn next(count: &mut usize) -> usize {
        *count += 1;
        *count - 1
    }
    let look = |name: &str| {
        let codec = INPUT_COLOURS.iter().position(|(codec, _)| name.starts_with(codec));
        if name.starts_with("adaptive") {
            let number = next(&mut planned);
            // Colours in turn; the dashes move on with each turn, too.
            let round = number / PLANNED.len();
            (PLANNED[number % PLANNED.len()], PLANNED_DASHES[(number + round) % PLANNED_DASHES.len()])
        } else if name == "local" {
            (GRAY, "3 3")
        } else if let Some(codec) = codec {
            (INPUT_COLOURS[codec].1, DASHES[next(&mut inputs[codec]) % DASHES.len()])
        } else {
            let number = next(&mut others);
            (OTHERS[number % OTHERS.len()], DASHES[number / OTHERS.len() % DASHES.len()])
        }
    };
    names.map(look).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_can_be_told_apart() {
        let names = [
            "local",
            "adaptive",
            "adaptive-delay",
            "adaptive-energy",
            "adaptive-accuracy",
            "adaptive+fallback",
            "adaptive-delay+fallback",
            "JPEG q75",
            "JPEG q90",
            "WebP q70",
            "narrows x1 @ a",
            "narrows x2 @ a",
            "narrows x1 @ b",
        ];
        let looks = looks(names.into_iter());
        for (i, look) in looks.iter().enumerate() {
            assert!(!looks[..i].contains(look), "{}: {look:?}", names[i]);
        }
        let colours: std::collections::HashSet<&str> = looks[1..5].iter().map(|look| look.0).collect();
        assert_eq!(colours.len(), 4);
    }
}
