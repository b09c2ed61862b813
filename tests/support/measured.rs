//! Measurement files made here: a network of two exits whose confidence means something.

use narrows::split::{Coding, Cut, Exit, Measurements};

/// Measurements of `images` images; those of another seed are others.
pub fn measured(seed: u64, images: usize) -> Measurements {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) + 1;
    let mut random = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 24) as f32
    };
    const CLASSES: usize = 4;
    let labels: Vec<u32> = (0..images).map(|i| (i % CLASSES) as u32).collect();
    let ease: Vec<f32> = (0..images).map(|_| random()).collect();
    let mut logits = |signal: f32| -> Vec<Vec<f32>> {
        let row = |i: usize, random: &mut dyn FnMut() -> f32| {
            let own = |class: usize| if class == i % CLASSES { signal * ease[i] } else { 0.0 };
            (0..CLASSES).map(|class| 2.0 * (own(class) + random() + random() - 1.0)).collect()
        };
        (0..images).map(|i| row(i, &mut random)).collect()
    };
    let best = |row: &Vec<f32>| (0..CLASSES).max_by(|&a, &b| row[a].total_cmp(&row[b])).unwrap() as u32;
    let exits = [("exit1", 0.004, 3.0), ("exit2", 0.008, 5.0)];
    let exits =
        exits.map(|(name, seconds, signal)| Exit { name: name.into(), seconds, extra: 0.0005, logits: logits(signal) });
    let answers: Vec<u32> = logits(20.0).iter().map(best).collect();
    let coding = |codec: &str, setting: &str, bytes: u32, flaws: usize| Coding {
        codec: codec.into(),
        setting: setting.into(),
        scale: None,
        profile: None,
        layer: None,
        encode: 0.001,
        decode: 0.001,
        bytes: (0..images).map(|i| bytes + bytes / 50 * (i % 20) as u32).collect(),
        answers: (0..images).map(|i| if i % 50 < flaws { (labels[i] + 1) % 4 } else { answers[i] }).collect(),
        confidence: vec![0.9; images],
    };
    Measurements {
        version: 1,
        model: "net.onnx".into(),
        output: "logits".into(),
        machine: "a machine".into(),
        classes: CLASSES,
        whole: 0.040,
        inputs: vec![coding("JPEG", "q75", 6000, 1), coding("WebP", "q70", 4000, 1)],
        cuts: vec![Cut {
            name: "cut".into(),
            shape: vec![1, 8, 4, 4],
            head: 0.012,
            tail: 0.028,
            codings: vec![
                coding("u8 min-max + zstd", "", 9000, 0),
                coding("narrows", "x1", 1000, 0),
                coding("narrows", "x2", 400, 4),
            ],
        }],
        exits: exits.to_vec(),
        confidence: vec![0.9; images],
        labels,
        answers,
    }
}
