//! What holds for policies as a whole, on validation sets that are drawn here.

use proptest::prelude::*;

use crate::Conditions;
use crate::exit::isotonic::interpolate;
use crate::exit::{Decision, Policy, Rest, Route, Samples, Stage, Target, Weights};

/// Draws from a fixed seed.
pub(crate) struct Draws(u64);

impl Draws {
    pub fn new(seed: u64) -> Draws {
        Draws(seed)
    }

    /// 0 to 1 (splitmix64).
    pub fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Standard normal, of 12 uniform ones.
    pub fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.uniform()).sum::<f64>() - 6.0
    }

    /// A class by the softmax of logits.
    pub fn category(&mut self, logits: &[f64]) -> u32 {
        let weights: Vec<f64> = logits.iter().map(|z| z.exp()).collect();
        let mut left = self.uniform() * weights.iter().sum::<f64>();
        for (class, weight) in weights.iter().enumerate() {
            left -= weight;
            if left < 0.0 {
                return class as u32;
            }
        }
        weights.len() as u32 - 1
    }
}

/// Images with a hardness of their own, that exits see better and better, and the rest best.
pub(crate) struct Set {
    pub labels: Vec<u32>,
    pub exits: Vec<Vec<Vec<f32>>>,
    pub answers: Vec<u32>,
    pub bytes: Vec<u32>,
}

impl Set {
    pub fn new(seed: u64, images: usize, signals: &[f64]) -> Set {
        const CLASSES: usize = 6;
        let mut draws = Draws::new(seed);
        let mut set = Set {
            labels: Vec::new(),
            exits: vec![Vec::new(); signals.len() - 1],
            answers: Vec::new(),
            bytes: Vec::new(),
        };
        for image in 0..images {
            let label = image % CLASSES;
            let ease = 3.0 * draws.uniform();
            let mut noise = [0.0; CLASSES];
            for (depth, signal) in signals.iter().enumerate() {
                noise.iter_mut().for_each(|x| *x = 0.6 * *x + 0.8 * draws.normal());
                let logits: Vec<f32> = (0..CLASSES)
                    .map(|c| (2.5 * (noise[c] + if c == label { signal * ease } else { 0.0 })) as f32)
                    .collect();
                if depth + 1 < signals.len() {
                    set.exits[depth].push(logits);
                } else {
                    let best = (0..CLASSES).max_by(|&a, &b| logits[a].total_cmp(&logits[b])).unwrap();
                    set.answers.push(best as u32);
                }
            }
            set.labels.push(label as u32);
            set.bytes.push(100 + (200.0 * draws.uniform()) as u32);
        }
        set
    }

    fn samples(&self) -> Samples<'_> {
        let exits = self.exits.iter().map(Vec::as_slice).collect();
        Samples { labels: &self.labels, exits, answers: &self.answers, bytes: &self.bytes }
    }

    fn route(&self) -> Route {
        let stage = |exit: usize| Stage { seconds: 0.004 * (exit + 1) as f64, extra: 0.0005 };
        Route {
            exits: (0..self.exits.len()).map(stage).collect(),
            rest: Rest::server(0.010, 0.001, &self.bytes, 0.006),
        }
    }

    fn fit(&self, target: Target) -> Policy {
        Policy::fit(&self.samples(), self.route(), Weights::default(), &Conditions::default(), target).unwrap()
    }
}

#[test]
fn the_target_is_met_on_the_images_that_chose_and_on_unseen_ones() {
    let unseen = Set::new(100, 20_000, &[1.2, 1.8, 3.0]);
    let never = Policy::never(6, unseen.route()).unwrap().evaluate(&unseen.samples(), &Conditions::default()).unwrap();
    let (mut missed, mut missed_without) = (0, 0);
    for seed in 0..30 {
        let loss = [0.01, 0.02, 0.05][seed as usize % 3];
        let set = Set::new(seed, 3000, &[1.2, 1.8, 3.0]);
        let policy = set.fit(Target::loss(loss));
        let evidence = policy.evidence();
        assert!(evidence.met && (1400..1600).contains(&evidence.images));
        assert!(evidence.rest_accuracy - evidence.accuracy <= loss);
        let outcome = policy.evaluate(&unseen.samples(), &Conditions::default()).unwrap();
        missed += usize::from(never.accuracy - outcome.accuracy > loss);
        let bold =
            set.fit(Target::loss(loss).certainty(0.5)).evaluate(&unseen.samples(), &Conditions::default()).unwrap();
        missed_without += usize::from(never.accuracy - bold.accuracy > loss);
        // The loss that is allowed is used, and pays.
        assert!(outcome.local() > 0.15 && outcome.mean.delay < never.mean.delay, "{outcome:?}");
    }
    // One in ten may miss, by the certainty of 0.9: more than six of 30 would be a rare chance (0.03). Without a margin many do.
    assert!(missed <= 6 && missed_without > 6, "{missed} {missed_without}");
}

#[test]
fn a_certainty_is_one_with_few_images_too() {
    // Some 600 images choose, of which 12 to 30 may be lost.
    let unseen = Set::new(100, 5000, &[1.2, 1.8, 3.0]);
    let never = Policy::never(6, unseen.route()).unwrap().evaluate(&unseen.samples(), &Conditions::default()).unwrap();
    let (certainties, mut missed, mut met) = ([0.9, 0.99, 0.5], [0; 3], [0; 3]);
    for seed in 0..60 {
        let loss = [0.02, 0.03, 0.05][seed as usize % 3];
        let set = Set::new(1000 + seed, 1200, &[1.2, 1.8, 3.0]);
        for (i, certainty) in certainties.into_iter().enumerate() {
            let policy = set.fit(Target::loss(loss).certainty(certainty));
            if policy.evidence().met {
                met[i] += 1;
                let outcome = policy.evaluate(&unseen.samples(), &Conditions::default()).unwrap();
                missed[i] += usize::from(never.accuracy - outcome.accuracy > loss);
            }
        }
    }
    // Six of 60 may miss by a certainty of 0.9. The walk from price to price stops at the first that fails, so that fewer do.
    assert!(missed[0] <= 3 && missed[1] == 0, "{missed:?} of {met:?}");
    // Without a margin they are many.
    assert!(missed[2] > 6, "{missed:?} of {met:?}");
    assert!(met[0] > 50 && met[1] > 30, "{met:?}");
}

#[test]
fn labels_that_alternate_are_no_trap() {
    // Right on every image of class 0 and on half of class 1, while going on is always right.
    let labels: Vec<u32> = (0..2000).map(|i| i % 2).collect();
    let mut draws = Draws::new(5);
    let one = |&label: &u32| {
        let right = label == 0 || draws.uniform() < 0.5;
        let sure = 1.0 + 0.1 * draws.uniform() as f32;
        if right == (label == 0) { vec![sure, 0.0] } else { vec![0.0, sure] }
    };
    let exit: Vec<Vec<f32>> = labels.iter().map(one).collect();
    let samples = Samples { labels: &labels, exits: vec![&exit], answers: &labels, bytes: &[] };
    let route =
        Route { exits: vec![Stage { seconds: 0.002, extra: 0.0002 }], rest: Rest::server(0.004, 0.0, &[200], 0.003) };
    let conditions = Conditions::default();
    let policy = Policy::fit(&samples, route, Weights::default(), &conditions, Target::loss(0.005)).unwrap();
    let outcome = policy.evaluate(&samples, &conditions).unwrap();
    assert!(policy.evidence().met && outcome.accuracy > 0.995, "{outcome:?} {:?}", policy.evidence());
}

#[test]
fn an_exit_that_does_not_keep_its_word_is_not_asked() {
    // On the half that fits, the exit is right; on the half that chooses, it is wrong where the rest is right.
    let labels = vec![0u32; 400];
    let mut samples = Samples { labels: &labels, exits: Vec::new(), answers: &labels, bytes: &[] };
    let mut exit = vec![vec![3.0f32, 0.0]; 400];
    samples.half(1).for_each(|image| exit[image] = vec![0.0, 3.0]);
    samples.exits = vec![&exit];
    let route =
        Route { exits: vec![Stage { seconds: 0.002, extra: 0.0002 }], rest: Rest::server(0.004, 0.0, &[200], 0.003) };
    let conditions = Conditions::default();
    let policy = Policy::fit(&samples, route, Weights::default(), &conditions, Target::loss(0.01)).unwrap();
    assert_eq!(policy.decide(0, &[9.0, 0.0], &conditions), Decision::Continue);
    let evidence = policy.evidence();
    assert!(!evidence.met && evidence.accuracy == 1.0 && evidence.rest_accuracy == 1.0, "{evidence:?}");
}

#[test]
fn caution_is_for_deadlines_and_not_for_costs() {
    use crate::conditions::Deviation;
    let set = Set::new(13, 2000, &[1.0, 2.0, 4.0]);
    let policy = set.fit(Target::loss(0.02));
    let local = |conditions: &Conditions| policy.evaluate(&set.samples(), conditions).unwrap().local();
    let sure = Conditions::default();
    // However far off the link usually is, costs are means: exits answer as often as they were certified for.
    let doubtful = Conditions { deviation: Deviation { link: 1.0, ..Deviation::default() }, ..sure };
    assert_eq!(local(&doubtful), local(&sure));
    assert!(local(&sure.cautious()) == local(&sure) && local(&doubtful.cautious()) > local(&sure));
    // A deadline that is met on average and missed with caution is missed.
    let due = |conditions: Conditions| Conditions { deadline: 0.09, ..conditions };
    assert_eq!(local(&due(sure)), local(&sure));
    assert_eq!(local(&due(doubtful)), 1.0);
}

#[test]
fn the_first_answer_is_what_deciding_exit_by_exit_gives() {
    let set = Set::new(14, 1000, &[1.2, 1.8, 3.0]);
    let policy = set.fit(Target::loss(0.05));
    for deadline in [0.004, 0.02, 0.06, f64::INFINITY] {
        let conditions = Conditions { deadline, device_speed: 0.5, ..Conditions::default() };
        for image in 0..200 {
            let each = set.exits.iter().enumerate().find_map(|(exit, rows)| {
                let passed = conditions.on_device(policy.route().until(exit)?);
                let now = Conditions { deadline: (deadline - passed).max(0.0), ..conditions };
                match policy.decide(exit, &rows[image], &now) {
                    Decision::Answer(class) => Some((exit, class)),
                    Decision::Continue => None,
                }
            });
            let read = |exit: usize| policy.read(exit, &set.exits[exit][image]);
            assert_eq!(policy.first_answer(&conditions, policy.route(), read), each, "{deadline} {image}");
        }
    }
    // What says nothing is passed over, and what has no exits answers nothing.
    let always = Policy::always(1, 6, set.route()).unwrap();
    let read = |exit: usize| policy.read(exit, &set.exits[exit][0]);
    let class = read(1).unwrap().class;
    assert_eq!(always.first_answer(&Conditions::default(), &set.route(), read), Some((1, class)));
    assert_eq!(always.first_answer(&Conditions::default(), &set.route(), |_| None), None);
    let other = Route { exits: Vec::new(), ..set.route() };
    assert_eq!(always.first_answer(&Conditions::default(), &other, read), None);
}

#[test]
fn few_images_are_enough_to_be_measured() {
    let (set, few) = (Set::new(15, 1000, &[1.2, 1.8, 3.0]), Set::new(16, 10, &[1.2, 1.8, 3.0]));
    let policy = set.fit(Target::loss(0.05));
    assert!(policy.evaluate(&few.samples(), &Conditions::default()).is_ok());
    let fit = |samples: &Samples<'_>| {
        Policy::fit(samples, few.route(), Weights::default(), &Conditions::default(), Target::loss(0.1))
    };
    assert!(fit(&few.samples()).unwrap_err().to_string().contains("64 or more"));
    let none = Set::new(17, 0, &[1.2, 1.8, 3.0]);
    assert!(policy.evaluate(&none.samples(), &Conditions::default()).is_err());
}

#[test]
fn what_no_file_could_hold_is_no_policy() {
    let stages = vec![Stage { seconds: 0.001, extra: 0.0 }; 33];
    let route = Route { exits: stages, rest: Rest::Device { seconds: 0.05 } };
    assert!(Policy::never(6, route.clone()).is_err() && Policy::always(0, 6, route.clone()).is_err());
    let route = Route { exits: route.exits[..32].to_vec(), ..route };
    let policy = Policy::always(31, 6, route.clone()).unwrap();
    assert_eq!(Policy::from_json(policy.to_json().as_bytes()).unwrap(), policy);
    assert!(Policy::never(1, route).is_err());
}

#[test]
fn an_accuracy_is_met_as_well() {
    let (fit, unseen) = (Set::new(1, 6000, &[1.2, 1.8, 3.0]), Set::new(2, 20_000, &[1.2, 1.8, 3.0]));
    let policy = fit.fit(Target::accuracy(0.80));
    assert!(policy.evidence().met);
    let outcome = policy.evaluate(&unseen.samples(), &Conditions::default()).unwrap();
    assert!((0.80..0.83).contains(&outcome.accuracy), "{outcome:?}");
}

#[test]
fn a_looser_target_costs_less() {
    let set = Set::new(3, 4000, &[1.2, 1.8, 3.0]);
    let cost = |loss: f64| set.fit(Target::loss(loss)).evaluate(&set.samples(), &Conditions::default()).unwrap().cost;
    let costs = [0.002, 0.01, 0.03, 0.1, 0.5].map(cost);
    assert!(costs.windows(2).all(|pair| pair[1] <= pair[0]) && costs[4] < 0.5 * costs[0], "{costs:?}");
}

#[test]
fn a_target_out_of_reach_gives_the_most_accurate_policy_and_says_so() {
    let set = Set::new(4, 2000, &[1.0, 2.0, 2.5]);
    let policy = set.fit(Target::accuracy(0.999));
    assert!(!policy.evidence().met && policy.price() == Some(0.0));
    let never = Policy::never(6, set.route()).unwrap().evaluate(&set.samples(), &Conditions::default()).unwrap();
    let outcome = policy.evaluate(&set.samples(), &Conditions::default()).unwrap();
    assert!(outcome.accuracy > never.accuracy - 0.01, "{outcome:?}");
}

#[test]
fn at_equal_accuracy_it_costs_no_more_than_the_rules_of_the_literature() {
    let (fit, unseen) = (Set::new(5, 8000, &[1.2, 1.8, 3.0]), Set::new(6, 40_000, &[1.2, 1.8, 3.0]));
    let (samples, conditions) = (fit.samples(), Conditions::default());
    let seen = |policy: &Policy| {
        let outcome = policy.evaluate(&unseen.samples(), &conditions).unwrap();
        (outcome.accuracy, outcome.cost)
    };
    // What it costs at each accuracy, on unseen images.
    let losses = [0.002, 0.005, 0.01, 0.015, 0.02, 0.03, 0.04];
    let mut own: Vec<_> = losses.iter().map(|&loss| seen(&fit.fit(Target::loss(loss).certainty(0.5)))).collect();
    own.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (xs, ys): (Vec<f64>, Vec<f64>) = own.into_iter().unzip();
    let target = Target::loss(0.015).certainty(0.5);
    for (name, policy) in [
        ("single", Policy::single_threshold(&samples, fit.route(), Weights::default(), &conditions, target)),
        ("probability", Policy::max_probability(&samples, fit.route(), Weights::default(), &conditions, target)),
        ("entropy", Policy::entropy(&samples, fit.route(), Weights::default(), &conditions, target)),
    ] {
        let policy = policy.unwrap();
        assert!(policy.evidence().met, "{name}");
        let (accuracy, cost) = seen(&policy);
        assert!(xs[0] < accuracy && accuracy < xs[xs.len() - 1], "{name}: {accuracy} of {xs:?}");
        let own = interpolate(&xs, &ys, accuracy);
        assert!(own < 1.01 * cost, "{name}: {own} against {cost} at {accuracy}");
    }
}

#[test]
fn a_deadline_that_going_on_would_miss_is_answered() {
    let set = Set::new(7, 2000, &[1.0, 2.0, 4.0]);
    let policy = set.fit(Target::loss(0.005));
    let unsure = vec![0.01, 0.0, 0.0, 0.0, 0.0, 0.0];
    let decide = |exit, deadline| policy.decide(exit, &unsure, &Conditions { deadline, ..Conditions::default() });
    assert_eq!([decide(0, 1.0), decide(1, 1.0)], [Decision::Continue; 2]);
    // 12 ms more on the device, 40 ms there and back, 6 ms at the server.
    assert_eq!(decide(1, 0.045), Decision::Answer(0));
    // The second exit is still in time, though the server is not.
    assert_eq!([decide(0, 0.02), decide(0, 0.004)], [Decision::Continue, Decision::Answer(0)]);
}

#[test]
fn a_policy_along_another_route_counts_its_costs() {
    let set = Set::new(12, 2000, &[1.0, 2.0, 4.0]);
    let policy = set.fit(Target::loss(0.02));
    let outcome = |policy: &Policy| policy.evaluate(&set.samples(), &Conditions::default()).unwrap();
    assert_eq!(outcome(&policy.clone().along(set.route()).unwrap()), outcome(&policy));
    let far = Route { rest: Rest::server(0.010, 0.001, &set.bytes, 0.600), ..set.route() };
    let along = policy.clone().along(far.clone()).unwrap();
    assert_eq!(along.route(), &far);
    assert!(outcome(&along).local() > outcome(&policy).local());
    assert!(policy.along(Route { exits: Vec::new(), ..set.route() }).is_err());
}

#[test]
fn logits_that_say_nothing_are_no_answer() {
    let set = Set::new(8, 1000, &[1.0, 2.0, 3.0]);
    let policy = set.fit(Target::loss(0.5));
    let down = Conditions { bandwidth: 0.0, ..Conditions::default() };
    let bad: [&[f32]; 6] = [
        &[],
        &[1.0],
        &[9.0, 0.0, 0.0, 0.0, 0.0, f32::NAN],
        &[f32::INFINITY, 0.0, 0.0, 0.0, 0.0, 0.0],
        &[f32::NEG_INFINITY, 0.0, 0.0, 0.0, 0.0, 0.0],
        &[0.0; 7],
    ];
    for logits in bad {
        assert_eq!(policy.decide(0, logits, &down), Decision::Continue, "{logits:?}");
    }
    let good = [9.0, 0.0, 0.0, 0.0, 0.0, 0.0];
    assert_eq!(policy.decide(0, &good, &down), Decision::Answer(0));
    assert_eq!(policy.decide(2, &good, &down), Decision::Continue);
    assert_eq!(policy.decide(0, &good, &Conditions { bandwidth: f64::NAN, ..down }), Decision::Continue);
    let mut samples = set.samples();
    samples.answers = &samples.answers[1..];
    let fit = |samples: &Samples<'_>| {
        Policy::fit(samples, set.route(), Weights::default(), &Conditions::default(), Target::loss(0.1))
    };
    assert!(fit(&samples).unwrap_err().to_string().contains("999 answers"));
    let mut broken = Set::new(8, 100, &[1.0, 2.0]);
    broken.exits[0][7][2] = f32::NAN;
    assert!(fit(&broken.samples()).unwrap_err().to_string().contains("exit 0, image 7"));
}

#[test]
fn a_link_that_is_down_is_no_place_to_fit() {
    let set = Set::new(9, 200, &[1.0, 2.0]);
    let down = Conditions { bandwidth: 0.0, ..Conditions::default() };
    let error = Policy::fit(&set.samples(), set.route(), Weights::default(), &down, Target::loss(0.1)).unwrap_err();
    assert!(error.to_string().contains("inf"), "{error}");
}

#[test]
fn every_policy_comes_back_from_its_file() {
    let set = Set::new(10, 1000, &[1.0, 2.0, 3.0]);
    let (samples, conditions, target) = (set.samples(), Conditions::default(), Target::loss(0.02));
    let rest = Rest::Device { seconds: 0.05 };
    for policy in [
        set.fit(target),
        Policy::never(6, Route { rest, ..set.route() }).unwrap(),
        Policy::always(1, 6, set.route()).unwrap(),
        Policy::max_probability(&samples, set.route(), Weights::default(), &conditions, target).unwrap(),
        // Nothing is sure enough: thresholds that nothing reaches.
        Policy::entropy(&samples, set.route(), Weights::default(), &conditions, Target::accuracy(1.0)).unwrap(),
    ] {
        let text = policy.to_json();
        assert_eq!(Policy::from_json(text.as_bytes()).unwrap(), policy, "{text}");
    }
}

#[test]
fn files_that_no_fit_writes_are_refused() {
    let text = Set::new(11, 1000, &[1.0, 2.0, 3.0]).fit(Target::loss(0.02)).to_json();
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    let refused = |path: &str, new: serde_json::Value, word: &str| {
        let mut other = value.clone();
        *other.pointer_mut(path).unwrap() = new;
        let error = Policy::from_json(other.to_string().as_bytes()).unwrap_err().to_string();
        assert!(error.contains(word), "{path}: {error}");
    };
    refused("/kind", "another".into(), "narrows exit --out");
    refused("/version", 2.into(), "version");
    refused("/classes", 1.into(), "`classes`");
    refused("/exits", serde_json::json!([]), "`exits`");
    refused("/exits/1/seconds", (-1.0).into(), "`seconds`");
    refused("/exits/1/seconds", 0.into(), "order");
    refused("/rest/at", "moon".into(), "`at`");
    refused("/weights/delay", 0.into(), "weights");
    refused("/sharpness/0", 0.into(), "`sharpness`");
    refused("/sharpness", serde_json::json!([1.0]), "`sharpness`");
    refused("/rule/by", "luck".into(), "`by`");
    refused("/rule/price", serde_json::Value::Null, "`price`");
    refused("/rule/curves/0/confidence/1", 0.into(), "`confidence`");
    refused("/rule/curves/0/right/0", 2.into(), "`right`");
    refused("/rule/curves/0/next/0/0", 0.5.into(), "`next`");
    refused("/rule/curves/1/next", serde_json::json!([[1.0]]), "`next`");
    refused("/rule/curves/1/rest_right", serde_json::json!([0.5]), "`rest_right`");
    refused("/rule/curves/0/next_right/0", (-0.5).into(), "`next_right`");
    refused("/evidence/accuracy", 1.5.into(), "`accuracy`");
    assert!(Policy::from_json(b"").is_err() && Policy::from_json(b"[1]").is_err());
    assert!(Policy::from_json(&vec![b' '; 2 << 20]).is_err());
    for cut in 0..text.len() - 2 {
        assert!(Policy::from_json(&text.as_bytes()[..cut]).is_err());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// A worse link never turns an answer into going on, image by image and exit by exit.
    #[test]
    fn a_worse_link_never_lowers_the_share_answered_on_the_device(
        seed in 0u64..8,
        loss in 0.001f64..0.1,
        deadline in prop::option::of(0.02f64..0.5),
        energy in 0.0f64..2.0,
        bandwidth in 4.0f64..8.0,
    ) {
        let set = Set::new(seed, 600, &[1.2, 1.8, 3.0]);
        let weights = Weights { energy, bytes: 1e-5, ..Weights::default() };
        let conditions = Conditions::default();
        let policy = Policy::fit(&set.samples(), set.route(), weights, &conditions, Target::loss(loss)).unwrap();
        let deadline = deadline.unwrap_or(f64::INFINITY);
        let good = Conditions { bandwidth: 10f64.powf(bandwidth), deadline, ..conditions };
        let worse = [
            Conditions { bandwidth: 0.7 * good.bandwidth, ..good },
            Conditions { bandwidth: 0.0, ..good },
            Conditions { round_trip: 0.06, ..good },
            Conditions { wait: 0.02, ..good },
            Conditions { server_speed: 0.5, ..good },
            Conditions { deadline: 0.5 * good.deadline, ..good },
        ];
        for worse in worse {
            for (exit, rows) in set.exits.iter().enumerate() {
                for logits in rows.iter().take(100) {
                    let (before, after) = (policy.decide(exit, logits, &good), policy.decide(exit, logits, &worse));
                    prop_assert!(before == Decision::Continue || after == before, "{worse:?}");
                }
            }
        }
    }
}
