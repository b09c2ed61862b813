//! What holds for simulations as a whole: closed forms, queueing theory, and that adapting pays.

use std::sync::Arc;

use proptest::prelude::*;

use crate::Conditions;
use crate::exit::Target;
use crate::exit::tests::Set;
use crate::power::Power;
use crate::simulate::{Adaptive, Arrivals, Link, Outcome, Prices, Scenario, Steps, Strategy, Trace, simulate};
use crate::split::{Action, Coding, Cut, Exit, Goal, Measurements};

/// A network of 40 ms with two exits, cut after 12 ms; JPEG of the input, and three codings of the feature, finer ones being
/// more often right.
fn measured(seed: u64) -> Measurements {
    let set = Set::new(seed, 2000, &[1.2, 1.8, 3.0]);
    let coding = |codec: &str, setting: &str, factor: u32, flaws: usize| Coding {
        codec: codec.into(),
        setting: setting.into(),
        scale: None,
        profile: None,
        layer: None,
        encode: 0.001,
        decode: 0.001,
        bytes: set.bytes.iter().map(|&bytes| factor * bytes).collect(),
        // Some right answers become wrong ones.
        answers: (0..2000).map(|i| if i % 100 < flaws { (set.labels[i] + 1) % 6 } else { set.answers[i] }).collect(),
        confidence: vec![0.9; 2000],
    };
    let codings = vec![coding("narrows", "x0.5", 15, 0), coding("narrows", "x1", 5, 2), coding("narrows", "x2", 2, 8)];
    let exit = |i: usize, seconds: f64| Exit {
        name: format!("exit{}", i + 1),
        seconds,
        extra: 0.0005,
        logits: set.exits[i].clone(),
    };
    Measurements {
        version: 1,
        model: "net.onnx".into(),
        output: "logits".into(),
        machine: "a machine".into(),
        classes: 6,
        labels: set.labels.clone(),
        answers: set.answers.clone(),
        confidence: vec![0.9; 2000],
        whole: 0.040,
        inputs: vec![coding("JPEG", "q75", 40, 1)],
        cuts: vec![Cut { name: "cut".into(), shape: vec![1, 8, 4, 4], head: 0.012, tail: 0.028, codings }],
        exits: vec![exit(0, 0.004), exit(1, 0.008)],
    }
}

mod servers;

fn scenario() -> Scenario {
    Scenario {
        devices: 20,
        servers: 2,
        workers: 2,
        seconds: 300.0,
        warm_up: 10.0,
        rate: 0.5,
        arrivals: Arrivals::Poisson,
        link: Link::same(Trace::constant(1e6, 0.04)),
        load: Steps::constant(0.0),
        deadline: f64::INFINITY,
        device_speed: 1.0,
        server_speed: 1.0,
        power: Power::default(),
        prices: Prices { server_hour: 1.0, gigabyte: 1.0 },
        seed: 1,
    }
}

fn fixed(action: Action) -> Strategy {
    Strategy::Fixed { action, exits: None }
}

fn split(coding: usize) -> Strategy {
    fixed(Action::Split { cut: 0, coding })
}

/// Plans from other images than those that are simulated.
fn adaptive(scenario: &Scenario, falls_back: bool) -> Strategy {
    let first = Conditions { deadline: scenario.deadline, ..Conditions::default() };
    let fit = Arc::new(measured(100));
    let adaptive = Adaptive::fit(&fit, scenario.power, Goal::Accuracy, Target::loss(0.01), first).unwrap();
    Strategy::Adaptive(Box::new(adaptive.falling_back(falls_back)))
}

fn run(scenario: &Scenario, strategy: &Strategy) -> Outcome {
    simulate(&measured(1), scenario, strategy).unwrap()
}

#[test]
fn a_link_that_does_not_change_has_a_closed_form() {
    let mut measured = measured(1);
    measured.cuts[0].codings[0].bytes.fill(5000);
    let one = Scenario { devices: 1, arrivals: Arrivals::Periodic, device_speed: 0.5, server_speed: 2.0, ..scenario() };
    let power = Power { compute: 2.0, send: 3.0, receive: 0.5, idle: 1.0 };
    let one = Scenario { power, load: Steps::constant(0.5), ..one };
    let outcome = simulate(&measured, &one, &split(0)).unwrap();
    // Head and encoder at half speed, 5,000 bytes, there and back, decoder and tail at twice half of the speed.
    let (device, sending, served) = (0.013 / 0.5, 0.04, 0.029);
    let delay = device + sending + 0.04 + served;
    assert_eq!(outcome.requests, 145);
    assert!((outcome.mean_delay - delay).abs() < 1e-6, "{}", outcome.mean_delay);
    assert!(outcome.delays.iter().all(|quantile| (quantile - delay).abs() < 1e-6), "{:?}", outcome.delays);
    assert_eq!((outcome.bytes, outcome.in_time, outcome.answered), (5000.0, 1.0, 1.0));
    assert!((outcome.energy - (2.0 * device + 3.0 * sending + 0.5 * 0.04 + served)).abs() < 1e-9);
    // Two servers for 290 s, and 145 times 5,000 bytes, for 145 requests.
    let price = (2.0 * 290.0 / 3600.0 + 145.0 * 5000.0 / 1e9) / 145.0 * 1e6;
    assert!((outcome.million / price - 1.0).abs() < 1e-9, "{} {price}", outcome.million);
    // One of two workers for 14.5 ms each: that others slow it down is theirs to pay.
    let price = (0.0145 / 2.0 / 3600.0 + 5000.0 / 1e9) * 1e6;
    assert!((outcome.million_used / price - 1.0).abs() < 1e-9, "{} {price}", outcome.million_used);
    let local = simulate(&measured, &one, &fixed(Action::Local)).unwrap();
    assert!((local.mean_delay - 0.08).abs() < 1e-6 && local.bytes == 0.0 && local.on_device == 1.0);
    assert!(local.million > 0.0 && local.million_used == 0.0);
}

/// Pollaczek and Khinchine: with requests at random and a constant time s of service, the mean wait is
/// u s / (2 (1 - u)) at a utilisation u.
#[test]
fn a_server_with_random_requests_is_an_m_d_1_queue() {
    for utilisation in [0.3, 0.7, 0.9] {
        let service = 0.029;
        let rate = utilisation / service / 500.0;
        // Fast devices and links, so that nothing else makes requests wait.
        let queue = Scenario {
            devices: 500,
            servers: 1,
            workers: 1,
            seconds: 8000.0,
            warm_up: 100.0,
            rate,
            device_speed: 1e6,
            link: Link::same(Trace::constant(1e12, 0.04)),
            ..scenario()
        };
        let outcome = run(&queue, &split(1));
        let wait = outcome.mean_delay - 0.04 - service;
        let theory = utilisation * service / (2.0 * (1.0 - utilisation));
        assert!((outcome.utilisation / utilisation - 1.0).abs() < 0.02, "{utilisation}: {}", outcome.utilisation);
        assert!((wait / theory - 1.0).abs() < 0.05, "{utilisation}: {wait} is not {theory}");
    }
}

#[test]
fn servers_that_are_asked_for_more_than_they_can_do_work_all_the_time() {
    let full = Scenario { devices: 500, servers: 1, workers: 1, seconds: 50.0, ..scenario() };
    let outcome = run(&full, &split(1));
    assert!((0.99..=1.0).contains(&outcome.utilisation), "{}", outcome.utilisation);
}

#[test]
fn exits_cost_nothing_on_a_way_that_does_not_pass_them() {
    // Sending the image is in time, by less than the exits would take. What is sooner is often wrong.
    let scenario = Scenario { deadline: 0.185, device_speed: 0.2, ..scenario() };
    let with = |seed: u64, extra: f64| {
        let mut measured = measured(seed);
        let wrong = |(i, answer): (usize, &mut u32)| *answer = (*answer + i as u32 % 2) % 6;
        measured.cuts[0].codings.iter_mut().for_each(|coding| coding.answers.iter_mut().enumerate().for_each(wrong));
        measured.exits.iter_mut().for_each(|exit| (exit.seconds, exit.extra) = (exit.seconds + extra, extra));
        measured
    };
    let right_in_time = |extra: f64| {
        let first = Conditions { deadline: scenario.deadline, device_speed: 0.2, ..Conditions::default() };
        let fit = Arc::new(with(100, extra));
        let adaptive = Adaptive::fit(&fit, scenario.power, Goal::Accuracy, Target::loss(0.01), first).unwrap();
        let strategy = Strategy::Adaptive(Box::new(adaptive));
        simulate(&with(1, extra), &scenario, &strategy).unwrap().right_in_time
    };
    let image = run(&scenario, &fixed(Action::Input { coding: 0 })).right_in_time;
    assert!(image > 0.8, "{image}");
    let slow_exits = right_in_time(0.010);
    assert!(slow_exits > image - 0.02, "{slow_exits}, sending the image {image}");
}

#[test]
fn all_strategies_meet_the_same_requests_and_a_seed_is_an_outcome() {
    let scenario = Scenario { deadline: 0.15, ..scenario() };
    let strategies = [fixed(Action::Local), split(0), split(2), adaptive(&scenario, true)];
    let outcomes = strategies.each_ref().map(|strategy| run(&scenario, strategy));
    for (outcome, strategy) in outcomes.iter().zip(&strategies) {
        assert_eq!(outcome.requests, outcomes[0].requests);
        assert_eq!(*outcome, run(&scenario, strategy));
        let starts: Vec<usize> = outcome.slices.iter().map(|slice| slice.requests).collect();
        assert_eq!(starts, outcomes[0].slices.iter().map(|slice| slice.requests).collect::<Vec<_>>());
    }
    let other = Scenario { seed: 2, ..scenario };
    assert_ne!(run(&other, &strategies[1]), outcomes[1]);
}

#[test]
fn late_requests_are_given_up_and_do_not_pile_up() {
    // 3 kB take 2.4 s; the devices ask twice a second.
    let slow = Link::same(Trace::constant(1e4, 0.04));
    let jam = Scenario { link: slow.clone(), deadline: 0.5, rate: 2.0, ..scenario() };
    let outcome = run(&jam, &split(0));
    assert!(outcome.answered < 0.2 && outcome.in_time < 0.05 && outcome.accuracy < 0.2, "{outcome:?}");
    assert_eq!(outcome.delays[3], f64::INFINITY);
    // Each that is sent takes the radio for 2.4 s on average, and those that are late by then are not sent.
    assert!(outcome.bytes < 1000.0, "{}", outcome.bytes);
    // Without a deadline they wait for ever longer.
    let patient = run(&Scenario { link: slow, rate: 2.0, ..scenario() }, &split(0));
    assert!(patient.answered == 1.0 && patient.delays[2] > 100.0, "{:?}", patient.delays);
    // Nothing ever comes over a dead link, and devices that fall back answer all the same.
    let dead = Scenario { link: Link::same(Trace::constant(0.0, 0.04)), deadline: 0.2, ..scenario() };
    let silent = run(&dead, &split(0));
    assert!(silent.answered == 0.0 && silent.mean_delay == f64::INFINITY && silent.requests > 0);
    let alone = run(&dead, &adaptive(&dead, true));
    assert!(alone.in_time == 1.0 && alone.on_device == 1.0 && alone.accuracy > 0.6, "{alone:?}");
}

#[test]
fn exits_bytes_and_answers_belong_to_their_images() {
    let scenario = Scenario { seconds: 3000.0, ..scenario() };
    let measured = measured(1);
    for action in measured.actions() {
        let outcome = run(&scenario, &fixed(action));
        assert!((outcome.accuracy - measured.accuracy(action)).abs() < 0.01, "{action:?}: {}", outcome.accuracy);
        let bytes = measured.coding(action).map_or(0.0, Coding::mean_bytes);
        assert!((outcome.bytes - bytes).abs() <= 0.01 * bytes, "{action:?}: {}", outcome.bytes);
    }
    // A policy under conditions that do not change does what it does outside of simulations.
    let action = Action::Split { cut: 0, coding: 1 };
    let conditions = Conditions::default();
    let (samples, route) = (measured.exit_samples(action).unwrap(), measured.exit_route(action).unwrap());
    let policy =
        crate::exit::Policy::fit(&samples, route, Default::default(), &conditions, Target::loss(0.02)).unwrap();
    let expected = policy.evaluate(&samples, &conditions).unwrap();
    let outcome = run(&scenario, &Strategy::Fixed { action, exits: Some(Box::new((policy, conditions))) });
    assert!((outcome.accuracy - expected.accuracy).abs() < 0.01 && expected.local() > 0.2);
    assert!((outcome.on_device - expected.local()).abs() < 0.01, "{} {}", outcome.on_device, expected.local());
}

/// 20 s at 1 Mbit/s, 10 s at a tenth of it, 10 s at 1 Mbit/s, and so on, for all devices at the same time.
#[test]
fn adapting_is_no_worse_than_the_best_fixed_choice_when_the_bandwidth_drops_tenfold() {
    let trace = Trace::from_csv("seconds,bits_per_second\n0,1e6\n20,1e5\n30,1e6\n40,1e6\n", 0.04).unwrap();
    let scenario =
        Scenario { link: Link::same(trace), deadline: 0.15, device_speed: 0.25, rate: 2.0, servers: 4, ..scenario() };
    let measured = measured(1);
    let fixed: Vec<(Action, Outcome)> =
        measured.actions().map(|action| (action, run(&scenario, &fixed(action)))).collect();
    let best = fixed.iter().map(|(_, outcome)| outcome.in_time).fold(0.0, f64::max);
    let best_right = fixed.iter().map(|(_, outcome)| outcome.right_in_time).fold(0.0, f64::max);
    let plain = run(&scenario, &adaptive(&scenario, false));
    // Two percent of requests, which meet the first seconds of a drop.
    assert!(plain.in_time > best - 0.02, "{} of {best}", plain.in_time);
    assert!(plain.right_in_time > best_right - 0.02, "{} of {best_right}", plain.right_in_time);
    let falling = run(&scenario, &adaptive(&scenario, true));
    assert!(falling.in_time > 0.995 && falling.fell_back < 0.1, "{falling:?}");
    assert!(falling.right_in_time >= plain.right_in_time, "{} {}", falling.right_in_time, plain.right_in_time);
    // What a fixed rate loses, adapting does not.
    let rate = &fixed.iter().find(|(action, _)| *action == Action::Split { cut: 0, coding: 0 }).unwrap().1;
    assert!(rate.in_time < 0.75, "{}", rate.in_time);
}

#[test]
fn devices_learn_what_their_link_is_like() {
    // They assume 1 Mbit/s; it is a thirtieth of that. The finest coding takes 0.9 s, the coarsest 0.12 s.
    let scenario = Scenario {
        link: Link::same(Trace::constant(33_000.0, 0.04)),
        deadline: 0.6,
        device_speed: 0.06,
        rate: 0.5,
        ..scenario()
    };
    let outcome = run(&scenario, &adaptive(&scenario, false));
    assert!(outcome.in_time > 0.98 && outcome.accuracy_in_time > 0.75, "{outcome:?}");
    let fixed = run(&scenario, &split(0));
    assert!(fixed.in_time < 0.05, "{}", fixed.in_time);
}

#[test]
fn an_outage_that_nobody_foresees_is_answered_by_the_last_exit() {
    // Too slow to compute all of it; and for a second of every ten the link is down.
    let trace = Trace::from_csv("seconds,bits_per_second\n0,1e6\n9,0\n10,1e6\n", 0.04).unwrap();
    let scenario = Scenario {
        link: Link::shifted(trace),
        deadline: 0.25,
        device_speed: 0.15,
        rate: 1.0,
        servers: 4,
        // Requests that meet an outage are one in a thousand.
        seconds: 3000.0,
        ..scenario()
    };
    let [plain, falling] = [false, true].map(|falls_back| run(&scenario, &adaptive(&scenario, falls_back)));
    assert!(plain.in_time < 0.999 && falling.in_time > 0.9995, "{} {}", plain.in_time, falling.in_time);
    assert!(falling.fell_back > 0.001 && falling.right_in_time > plain.right_in_time, "{falling:?}");
    // It is only the late ones that are answered otherwise.
    assert!((falling.bytes / plain.bytes - 1.0).abs() < 0.05, "{} {}", falling.bytes, plain.bytes);
}

#[test]
fn what_can_not_be_simulated_is_refused() {
    let fails = |scenario: Scenario, word: &str| {
        let error = simulate(&measured(1), &scenario, &split(0)).unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
    };
    fails(Scenario { devices: 0, ..scenario() }, "0 devices");
    fails(Scenario { rate: f64::NAN, ..scenario() }, "rate");
    fails(Scenario { deadline: 0.0, ..scenario() }, "deadline");
    fails(Scenario { warm_up: 300.0, ..scenario() }, "warm up");
    fails(Scenario { rate: 1e9, ..scenario() }, "requests of a simulation");
    fails(Scenario { servers: 1 << 40, ..scenario() }, "all workers up to a million");
    fails(Scenario { servers: usize::MAX, workers: 2, ..scenario() }, "all workers up to a million");
    fails(Scenario { rate: 1e-9, ..scenario() }, "no request came in the 290 seconds that count");
    fails(Scenario { device_speed: 1e-300, ..scenario() }, "device speed of");
    for load in [1.0, 1.5, -0.5, f64::NAN] {
        fails(Scenario { load: Steps::constant(load), ..scenario() }, "a load of the servers");
    }
    for trace in [Trace::constant(-1.0, 0.0), Trace::constant(1e6, -0.04), Trace::constant(f64::NAN, 0.0)] {
        fails(Scenario { link: Link::same(trace), ..scenario() }, "a link with");
    }
    fails(Scenario { power: Power { send: -1.0, ..Power::default() }, ..scenario() }, "power");
    let error = simulate(&measured(1), &scenario(), &split(9)).unwrap_err().to_string();
    assert!(error.contains("other measurements"), "{error}");
    let wrong = |change: &dyn Fn(&mut Measurements), word: &str| {
        let mut measured = measured(1);
        change(&mut measured);
        let error = simulate(&measured, &scenario(), &split(0)).unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
    };
    wrong(&|measured| measured.labels.clear(), "without images");
    wrong(&|measured| measured.answers.truncate(1999), "1999 answers for 2000 images");
    wrong(&|measured| measured.cuts[0].codings[1].bytes.truncate(1999), "1999 sizes of narrows x1");
    wrong(&|measured| measured.inputs[0].encode = f64::NAN, "NaN seconds for JPEG q75");
    wrong(&|measured| measured.cuts[0].tail = -1.0, "-1 seconds for the tail of cut");
    wrong(&|measured| measured.exits[1].logits[7].clear(), "exit2 has not 6 classes");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// On one device, whatever the link does.
    #[test]
    fn more_bandwidth_never_makes_offloading_slower(
        rates in prop::collection::vec(1e4f64..2e6, 2..8),
        factor in 1.0f64..4.0,
        rate in 0.2f64..8.0,
        seed in 0u64..1000,
    ) {
        let link = |factor: f64| {
            let points: Vec<(f64, f64)> = rates.iter().enumerate().map(|(i, rate)| (7.0 * i as f64, factor * rate)).collect();
            let bandwidth = Steps::new(&points, 7.0 * rates.len() as f64).unwrap();
            Link::shifted(Trace { bandwidth, round_trip: Steps::constant(0.03) })
        };
        let one = Scenario { devices: 1, rate, seed, servers: 1, workers: 1, ..scenario() };
        let before = run(&Scenario { link: link(1.0), ..one.clone() }, &split(1));
        let after = run(&Scenario { link: link(factor), ..one }, &split(1));
        prop_assert!(after.mean_delay <= before.mean_delay + 1e-6);
        prop_assert!(after.distribution.iter().zip(&before.distribution).all(|(after, before)| *after <= before + 1e-5));
    }
}
