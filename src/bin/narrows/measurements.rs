//! From a measuring run to the file that plans, policies and simulations read.

use narrows::split::{Coding, Cut, Exit, Measurements};

use crate::measure::{Job, Measured, Row};
use crate::timing::{CodecTimes, Times};

/// What a run saw and how long its parts took, as one file. `machine` is what the times are of.
pub fn measurements(job: &Job<'_>, measured: &Measured, times: &Times, model: &str, machine: String) -> Measurements {
    let rows = &measured.rows;
    let mut point = 0;
    let mut next = |coding: Coding| {
        point += 1;
        with_samples(coding, rows, point - 1)
    };
    let inputs = job.image_codecs.iter().zip(&times.inputs);
    let inputs = inputs.map(|(codec, times)| next(coding(codec.name(), codec.setting(), *times))).collect();
    let mut cuts: Vec<Cut> = Vec::new();
    for ((cut, codecs), times) in job.cuts.iter().zip(&times.cuts) {
        let codings = codecs.iter().zip(&times.codecs).map(|(codec, times)| {
            next(Coding {
                scale: codec.scale,
                layer: codec.layer,
                profile: codec.profile.map(|hash| format!("{hash:016x}")),
                ..coding(codec.name, codec.setting.clone(), *times)
            })
        });
        let codings = codings.collect();
        let (name, shape) = (cut.name.clone(), cut.shape.clone());
        join(&mut cuts, Cut { name, shape, head: times.head, tail: times.tail, codings });
    }
    let order = |cut: &Cut| job.network.graph.cuts.iter().position(|name| *name == cut.name);
    cuts.sort_by_key(order);
    let exits = job.exits.iter().enumerate().zip(&times.exits);
    let mut exits: Vec<Exit> = exits
        .map(|((i, exit), &(seconds, extra))| Exit {
            name: exit.name.clone(),
            seconds,
            extra,
            logits: rows.iter().map(|row| row.exits[i].clone()).collect(),
        })
        .collect();
    let order = |exit: &Exit| job.network.graph.branches.iter().position(|branch| branch.output == exit.name);
    exits.sort_by_key(order);
    settle(&mut exits);
    Measurements {
        version: 1,
        model: model.to_string(),
        output: job.network.graph.output.clone(),
        machine,
        classes: rows.first().map_or(0, |row| row.classes),
        labels: rows.iter().map(|row| row.label as u32).collect(),
        answers: rows.iter().map(|row| row.answer as u32).collect(),
        confidence: rows.iter().map(|row| row.confidence).collect(),
        whole: times.whole,
        inputs,
        cuts,
        exits,
    }
}

/// Makes the times of exits agree with their order. The way to a later exit holds that to an earlier one: where it seems the
/// shorter one, the earlier exit was disturbed while it was timed.
fn settle(exits: &mut [Exit]) {
    let mut way = f64::INFINITY;
    for exit in exits.iter_mut().rev() {
        way = way.min((exit.seconds - exit.extra).max(0.0));
        exit.seconds = exit.seconds.min(way + exit.extra);
    }
}

/// A coding without its images.
fn coding(codec: &str, setting: String, times: CodecTimes) -> Coding {
    Coding {
        codec: codec.to_string(),
        setting,
        scale: None,
        profile: None,
        layer: None,
        encode: times.encode,
        decode: times.decode,
        bytes: Vec::new(),
        answers: Vec::new(),
        confidence: Vec::new(),
    }
}

/// Adds the samples of one point.
fn with_samples(coding: Coding, rows: &[Row], point: usize) -> Coding {
    let samples = || rows.iter().map(|row| &row.samples[point]);
    Coding {
        bytes: samples().map(|sample| u32::try_from(sample.bytes).unwrap_or(u32::MAX)).collect(),
        answers: samples().map(|sample| sample.answer as u32).collect(),
        confidence: samples().map(|sample| sample.confidence).collect(),
        ..coding
    }
}

/// Adds a cut, or its codings where the cut is there already. What is there already as it is stays once; what has the
/// name of another, as two profiles of one kind give, is numbered.
pub fn join(cuts: &mut Vec<Cut>, cut: Cut) {
    let Some(known) = cuts.iter_mut().find(|known| known.name == cut.name) else {
        cuts.push(cut);
        return;
    };
    // Both times are of the same work: the lesser one was disturbed less.
    (known.head, known.tail) = (known.head.min(cut.head), known.tail.min(cut.tail));
    for mut coding in cut.codings {
        if known.codings.iter().any(|other| is_same(other, &coding)) {
            continue;
        }
        let name = coding.codec.clone();
        let mut number = 1;
        let taken = |codec: &str, coding: &Coding| {
            known
                .codings
                .iter()
                .any(|other| (&*other.codec, &other.setting, other.layer) == (codec, &coding.setting, coding.layer))
        };
        while taken(&coding.codec, &coding) {
            number += 1;
            coding.codec = format!("{name} {number}");
        }
        known.codings.push(coding);
    }
}

/// True for codings that differ in nothing but their times.
fn is_same(a: &Coding, b: &Coding) -> bool {
    a.setting == b.setting
        && a.layer == b.layer
        && a.profile == b.profile
        && a.bytes == b.bytes
        && a.answers == b.answers
}

/// The processor in words, where the system says it.
pub fn processor() -> String {
    let named = std::fs::read_to_string("/proc/cpuinfo").ok().and_then(|text| {
        let line = text.lines().find(|line| line.starts_with("model name"))?;
        Some(line.split_once(':')?.1.trim().to_string())
    });
    named.unwrap_or_else(|| std::env::consts::ARCH.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(head: f64, codec: &str, profile: Option<&str>, bytes: u32) -> Cut {
        let times = CodecTimes { encode: 0.1, decode: 0.1 };
        let own =
            Coding { profile: profile.map(str::to_string), bytes: vec![bytes], ..coding(codec, "x1".into(), times) };
        Cut { name: "cut".into(), shape: vec![1], head, tail: 1.0, codings: vec![own] }
    }

    #[test]
    fn times_of_exits_agree_with_their_order() {
        let exit = |seconds, extra| Exit { name: String::new(), seconds, extra, logits: Vec::new() };
        let seconds = |exits: &[Exit]| exits.iter().map(|exit| exit.seconds).collect::<Vec<_>>();
        // In order as they are, though the first has the longer branch.
        let mut exits = [exit(3.0, 2.0), exit(2.5, 0.5), exit(4.0, 0.5)];
        settle(&mut exits);
        assert_eq!(seconds(&exits), [3.0, 2.5, 4.0]);
        // The second was disturbed; the first was not.
        let mut exits = [exit(2.0, 1.0), exit(9.0, 1.0), exit(4.0, 1.0)];
        settle(&mut exits);
        assert_eq!(seconds(&exits), [2.0, 4.0, 4.0]);
        // A branch that took longer than all of the way and itself.
        let mut exits = [exit(1.0, 0.5), exit(1.0, 1.5)];
        settle(&mut exits);
        assert_eq!(seconds(&exits), [0.5, 1.0]);
    }

    #[test]
    fn codings_of_one_cut_are_joined_and_told_apart() {
        let mut cuts = Vec::new();
        join(&mut cuts, cut(2.0, "narrows", Some("a"), 10));
        join(&mut cuts, cut(1.0, "narrows trained", Some("b"), 11));
        join(&mut cuts, cut(3.0, "narrows", Some("a"), 10));
        join(&mut cuts, cut(3.0, "narrows", Some("c"), 12));
        assert_eq!((cuts.len(), cuts[0].head), (1, 1.0));
        let names: Vec<&str> = cuts[0].codings.iter().map(|coding| coding.codec.as_str()).collect();
        assert_eq!(names, ["narrows", "narrows trained", "narrows 2"]);
    }
}
