//! What measurements say about one wish under given conditions, and over all bandwidths.

use std::sync::Arc;

use narrows::Conditions;
use narrows::split::{Action, Estimate, Goal, Measurements, Planner, Power};

/// The bandwidths that are looked at, in bits a second: from the slowest usual setting of LoRa to fast WiFi.
pub const BANDWIDTHS: (f64, f64) = (37_500.0, 100e6);
/// Bandwidths on a logarithmic grid between them.
const GRID: usize = 480;
/// A way to run the network: on the device, by one codec of the input, or by one codec at one cut. It has settings.
pub struct Way {
    /// In words, for example `JPEG` or `narrows @ block7`.
    pub name: String,
    /// Its codec; empty for local.
    pub codec: String,
    /// Which cut, if it has one.
    pub cut: Option<usize>,
    /// Its settings.
    actions: Vec<Action>,
    /// True if one of its settings is as accurate as wanted, or nothing is asked of it.
    pub reaches: bool,
    /// What is best of it under the conditions; the most accurate if none is as accurate as wanted.
    pub best: Estimate,
    /// Finds its setting at other bandwidths.
    planner: Planner,
}

/// A bandwidth at which a cut and another way take equally long.
pub struct Crossing {
    /// Bits a second.
    pub bandwidth: f64,
    /// Seconds of both.
    pub delay: f64,
    /// The cut, a number of a way.
    pub cut: usize,
    /// The other way.
    pub other: usize,
    /// True if the cut is the faster one below this bandwidth.
    pub below: bool,
}

/// A range of bandwidths in which one way is the best.
pub struct Reign {
    /// Bits a second.
    pub from: f64,
    /// Bits a second.
    pub to: f64,
    /// The way.
    pub way: usize,
}

/// All that follows from measurements for one wish.
pub struct Study {
    /// What it stands on.
    pub measurements: Arc<Measurements>,
    /// Link, device, server.
    pub conditions: Conditions,
    /// What was looked for.
    pub goal: Goal,
    /// Watts of the device.
    pub power: Power,
    /// Accuracy that is wanted.
    pub wanted: f64,
    /// The best of all.
    pub best: Estimate,
    /// Every action.
    pub candidates: Vec<Estimate>,
    /// The ways, local first.
    pub ways: Vec<Way>,
    /// Where cuts cross local and the codecs of the input, by bandwidth: there the mean delays of both are equal.
    pub crossings: Vec<Crossing>,
    /// The best way at each bandwidth: the fastest of those that are accurate enough, or for the goal accuracy the one with
    /// the most answers that are right and in time.
    pub reigns: Vec<Reign>,
}

impl Study {
    /// Looks at everything that was measured. `wanted` is the share of right answers that delays over bandwidth are for; the
    /// goal accuracy asks for none.
    pub fn new(measured: Arc<Measurements>, conditions: Conditions, goal: Goal, power: Power, wanted: f64) -> Study {
        let planner = Planner::new(measured.clone(), power, goal);
        // Over all bandwidths a goal of energy is about delay too.
        let over = match goal {
            Goal::Accuracy => goal,
            _ => Goal::Delay { accuracy: wanted },
        };
        let over = Planner::new(measured.clone(), power, over);
        let ways = ways(&measured, &planner, &over, &conditions, wanted);
        let mut study = Study {
            best: planner.best(&conditions),
            candidates: planner.candidates(&conditions),
            measurements: measured,
            conditions,
            goal,
            power,
            wanted,
            ways,
            crossings: Vec::new(),
            reigns: Vec::new(),
        };
        study.crossings = study.find_crossings();
        study.reigns = study.find_reigns(&over);
        study
    }

    /// What answers soonest, if nothing that was measured answers by the deadline.
    pub fn too_late(&self) -> Option<&Estimate> {
        let late = self.conditions.deadline.is_finite() && self.candidates.iter().all(|one| one.in_time <= 0.0);
        self.candidates.iter().filter(|_| late).min_by(|a, b| a.delay.total_cmp(&b.delay))
    }

    /// The ways that are as accurate as wanted; raw pixels, and codecs of the feature that narrows is measured beside, are
    /// left to the table.
    pub fn drawn(&self) -> impl Iterator<Item = usize> + '_ {
        self.looked_at().filter(|&way| self.ways[way].reaches)
    }

    /// The ways that would be drawn if they were as accurate as wanted.
    pub fn left_out(&self) -> impl Iterator<Item = usize> + '_ {
        self.looked_at().filter(|&way| !self.ways[way].reaches)
    }

    fn looked_at(&self) -> impl Iterator<Item = usize> + '_ {
        let is_looked_at = |way: &Way| match way.cut {
            Some(_) => way.codec.starts_with("narrows"),
            None => way.codec != "raw RGB",
        };
        (0..self.ways.len()).filter(move |&way| is_looked_at(&self.ways[way]))
    }

    /// Mean delay of a way at a bandwidth, in seconds: the least with a setting as accurate as wanted, that of the most accurate
    /// setting if none is, or for the goal accuracy that of the setting with the most answers right and in time.
    pub fn delay(&self, way: usize, bandwidth: f64) -> f64 {
        self.ways[way].planner.best(&Conditions { bandwidth, ..self.conditions }).delay
    }

    /// The bandwidths of the grid.
    pub fn grid() -> impl Iterator<Item = f64> + Clone {
        let (low, high) = BANDWIDTHS;
        (0..=GRID).map(move |i| low * (high / low).powf(i as f64 / GRID as f64))
    }

    /// Seconds on the device, on the link and at the server of an estimate.
    pub fn parts(&self, estimate: &Estimate) -> [f64; 3] {
        let Some(work) = self.measurements.work(estimate.action) else { return [0.0; 3] };
        let device = self.conditions.on_device(work.device);
        match work.server {
            Some(server) => [device, self.conditions.transfer(estimate.bytes), self.conditions.on_server(server)],
            None => [device, 0.0, 0.0],
        }
    }

    fn find_crossings(&self) -> Vec<Crossing> {
        let drawn: Vec<usize> = self.drawn().collect();
        let mut found = Vec::new();
        for &cut in drawn.iter().filter(|&&way| self.ways[way].cut.is_some()) {
            for &other in drawn.iter().filter(|&&way| self.ways[way].cut.is_none()) {
                let lead = |bandwidth: f64| self.delay(cut, bandwidth) - self.delay(other, bandwidth);
                for (low, high) in Study::grid().zip(Study::grid().skip(1)) {
                    let below = lead(low) < 0.0;
                    if below == (lead(high) < 0.0) {
                        continue;
                    }
                    let bandwidth = bisect(low, high, |bandwidth| (lead(bandwidth) < 0.0) == below);
                    found.push(Crossing { bandwidth, delay: self.delay(cut, bandwidth), cut, other, below });
                }
            }
        }
        found.sort_by(|a, b| a.bandwidth.total_cmp(&b.bandwidth));
        found
    }

    fn find_reigns(&self, planner: &Planner) -> Vec<Reign> {
        let way_of = |action: Action| self.drawn().find(|&way| self.ways[way].actions.contains(&action));
        let planner = planner.clone().only(|action| way_of(action).is_some());
        let best = |bandwidth: f64| way_of(planner.best(&Conditions { bandwidth, ..self.conditions }).action);
        let mut reigns: Vec<Reign> = Vec::new();
        let mut before = BANDWIDTHS.0;
        for bandwidth in Study::grid() {
            let Some(way) = best(bandwidth) else { return Vec::new() };
            match reigns.last_mut() {
                Some(last) if last.way == way => last.to = bandwidth,
                Some(last) => {
                    let old = last.way;
                    last.to = bisect(before, bandwidth, |bandwidth| best(bandwidth) == Some(old));
                    let from = last.to;
                    reigns.push(Reign { from, to: bandwidth, way });
                }
                None => reigns.push(Reign { from: bandwidth, to: bandwidth, way }),
            }
            before = bandwidth;
        }
        reigns
    }
}

/// The place between `low` and `high` up to which `holds` holds.
fn bisect(mut low: f64, mut high: f64, holds: impl Fn(f64) -> bool) -> f64 {
    for _ in 0..40 {
        let middle = (low * high).sqrt();
        *(if holds(middle) { &mut low } else { &mut high }) = middle;
    }
    (low * high).sqrt()
}

/// The ways in the order of the candidates.
fn ways(measured: &Measurements, planner: &Planner, over: &Planner, now: &Conditions, wanted: f64) -> Vec<Way> {
    let way_of = |action: Action| {
        let cut = if let Action::Split { cut, .. } = action { Some(cut) } else { None };
        (measured.coding(action).map_or("", |coding| coding.codec.as_str()), cut)
    };
    let mut ways: Vec<Way> = Vec::new();
    for action in measured.actions() {
        let (codec, cut) = way_of(action);
        if ways.iter().any(|way| way.codec == codec && way.cut == cut) {
            continue;
        }
        let is_of = |action: Action| way_of(action) == (codec, cut);
        let over = over.clone().only(is_of);
        let name = match cut {
            Some(cut) => format!("{codec} @ {}", measured.cuts[cut].name),
            None if codec.is_empty() => "local".to_string(),
            None => codec.to_string(),
        };
        ways.push(Way {
            name,
            codec: codec.to_string(),
            cut,
            actions: measured.actions().filter(|&action| is_of(action)).collect(),
            reaches: planner.goal() == Goal::Accuracy || over.best(now).accuracy >= wanted - 1e-9,
            best: planner.clone().only(is_of).best(now),
            planner: over,
        });
    }
    ways
}
