//! What the planner chooses, and when it changes.

use super::*;
use crate::conditions::Deviation;
use crate::split::tests::example;
use proptest::prelude::*;

fn planner(goal: Goal) -> Planner {
    Planner::new(Arc::new(example()), Power::default(), goal)
}

fn conditions() -> impl Strategy<Value = Conditions> {
    let exponent = |low: f64, high: f64| (low..high).prop_map(|x| 10f64.powf(x));
    let bandwidth = prop_oneof![9 => exponent(2.0, 10.0), 1 => Just(0.0), 1 => Just(f64::INFINITY)];
    let deadline = prop_oneof![exponent(-3.0, 2.0), Just(f64::INFINITY), Just(0.0)];
    (bandwidth, 0.0..2.0, 0.0..2.0, deadline, exponent(-3.0, 2.0), exponent(-3.0, 2.0)).prop_map(
        |(bandwidth, round_trip, wait, deadline, device_speed, server_speed)| Conditions {
            bandwidth,
            round_trip,
            wait,
            deadline,
            device_speed,
            server_speed,
            ..Conditions::default()
        },
    )
}

fn goals() -> impl Strategy<Value = Goal> {
    let floor = 0.0..1.1;
    prop_oneof![
        floor.clone().prop_map(|accuracy| Goal::Delay { accuracy }),
        floor.prop_map(|accuracy| Goal::Energy { accuracy }),
        Just(Goal::Accuracy)
    ]
}

proptest! {
    #[test]
    fn delay_grows_with_all_that_gets_worse(base in conditions(), factor in 1.0..10.0) {
        let planner = planner(Goal::Accuracy);
        let worse = [
            Conditions { bandwidth: base.bandwidth / factor, ..base },
            Conditions { round_trip: base.round_trip * factor, ..base },
            Conditions { wait: base.wait * factor, ..base },
            Conditions { device_speed: base.device_speed / factor, ..base },
            Conditions { server_speed: base.server_speed / factor, ..base },
        ];
        for worse in worse {
            for (good, bad) in planner.candidates(&base).iter().zip(planner.candidates(&worse)) {
                prop_assert!(bad.delay >= good.delay && bad.late >= good.late && bad.energy >= good.energy);
                prop_assert!(bad.late >= bad.delay || bad.bytes == 0.0);
            }
        }
    }

    #[test]
    fn the_first_choice_is_the_least_of_all(base in conditions(), goal in goals()) {
        let mut planner = planner(goal);
        let chosen = planner.choose(&base);
        let rank = |estimate: &Estimate| goal.rank(estimate, base.deadline);
        for other in planner.candidates(&base) {
            prop_assert!(rank(&chosen) <= rank(&other), "{chosen:?} {other:?}");
            prop_assert!(!other.delay.is_nan() && !other.late.is_nan() && !other.energy.is_nan());
        }
        prop_assert!(chosen.delay.is_finite());
    }

    #[test]
    fn without_hysteresis_every_choice_is_the_best(all in prop::collection::vec(conditions(), 2..20), goal in goals()) {
        let mut planner = planner(goal).hysteresis(Hysteresis { margin: 0.0, patience: 0, step: 0.0 });
        for conditions in all {
            let (chosen, best) = (planner.choose(&conditions), planner.best(&conditions));
            let rank = |estimate: &Estimate| goal.rank(estimate, conditions.deadline);
            prop_assert_eq!(rank(&chosen), rank(&best));
        }
    }
}

#[test]
fn what_may_be_in_time_is_tried_where_nothing_surely_is() {
    // Local is late, for certain; a stream would be in time if the link kept to what is expected of it.
    let whole = example().whole;
    let deviation = Deviation { link: 5.0, ..Deviation::default() };
    let conditions = Conditions { deadline: 9.0 * whole, device_speed: 0.1, deviation, ..Conditions::default() };
    for goal in [Goal::Accuracy, Goal::Energy { accuracy: 0.95 }] {
        let chosen = planner(goal).choose(&conditions);
        assert!(chosen.late > conditions.deadline && chosen.delay < conditions.deadline, "{goal:?} {chosen:?}");
        assert!(0.5 < chosen.in_time && chosen.in_time < 1.0, "{goal:?} {chosen:?}");
        // With more time the device is sure.
        let more = Conditions { deadline: 11.0 * whole, ..conditions };
        assert_eq!(planner(goal).choose(&more).action, Action::Local);
    }
    // Where the deadline does not count, the mean does.
    let chosen = planner(Goal::Delay { accuracy: 0.0 }).choose(&conditions);
    let sure = Conditions { deviation: Deviation::default(), ..conditions };
    assert_eq!(chosen.action, planner(Goal::Delay { accuracy: 0.0 }).choose(&sure).action);
}

#[test]
fn what_was_lucky_on_few_images_is_not_chosen() {
    let mut measured = example();
    // Right on all images, two of which the network itself answers wrongly, and of one more.
    measured.answers = (0..20).map(|i| u32::from(i >= 18)).collect();
    measured.inputs[0].answers = (0..20).map(|i| u32::from(i == 0)).collect();
    assert!(measured.accuracy(Action::Input { coding: 0 }) > measured.accuracy(Action::Local));
    let planner = Planner::new(Arc::new(measured), Power::default(), Goal::Accuracy);
    let best = planner.best(&Conditions::default());
    // 19 of 20 with a standard error of sqrt((3 - 1 / 20) / 20) / sqrt(20) against 18 of 20 with none.
    let lucky = planner.estimate(Action::Input { coding: 0 }, &Conditions::default()).unwrap();
    assert!((lucky.right_in_time - (0.95 - (0.15f64 - 0.0025).sqrt() / 20f64.sqrt())).abs() < 1e-12, "{lucky:?}");
    assert!(best.right_in_time > lucky.right_in_time && best.accuracy <= lucky.accuracy, "{best:?}");
}

#[test]
fn what_is_late_anyway_is_not_made_later() {
    // The input is sent while that is in time, then the link drops, and nothing is.
    for goal in [Goal::Energy { accuracy: 0.85 }, Goal::Accuracy] {
        let mut planner = planner(goal);
        let good = Conditions { bandwidth: 1e7, deadline: 0.3, device_speed: 0.01, ..Conditions::default() };
        let first = planner.choose(&good).action;
        assert!(matches!(first, Action::Input { .. }), "{goal:?}");
        // Something else takes less time, though more than half.
        let bad = Conditions { bandwidth: 1e5, deadline: 0.01, device_speed: 0.1, ..good };
        let (chosen, late) = (planner.choose(&bad), planner.estimate(first, &bad).unwrap());
        assert!(chosen.action != first && chosen.action == planner.best(&bad).action, "{goal:?} {chosen:?}");
        assert!(0.5 * late.delay < chosen.delay && chosen.delay < late.delay || goal == Goal::Accuracy);
    }
}

#[test]
fn exits_answer_what_would_be_late() {
    use crate::split::Exit;
    let mut measured = example();
    // Right on half of the images; on the others it says nothing.
    let logits = (0..20).map(|i| if i < 10 { vec![9.0, 0.0] } else { vec![f32::NAN; 2] }).collect();
    measured.exits.push(Exit { name: "exit".into(), seconds: 0.02, extra: 0.003, logits });
    let action = Action::Split { cut: 0, coding: 0 };
    let sure = Conditions::default();
    let policy = Policy::always(0, 2, measured.exit_route(action).unwrap()).unwrap();
    let alone = Planner::new(Arc::new(measured), Power::default(), Goal::Accuracy);
    let exiting = alone.clone().exiting(|of| (of == action).then_some(&policy), &sure);
    let of = |planner: &Planner, conditions: &Conditions| planner.estimate(action, conditions).unwrap();
    let share = of(&exiting, &sure).bytes / of(&alone, &sure).bytes;
    assert!((share - 0.5).abs() < 1e-9, "{share}");
    // Half after 20 ms; the others take 3 ms more than without the exit.
    let (with, without) = (of(&exiting, &sure), of(&alone, &sure));
    assert!((with.delay - (0.01 + 0.5 * (without.delay + 0.003))).abs() < 1e-9, "{with:?} {without:?}");
    assert!((with.late - without.late - 0.003).abs() < 1e-9);
    // The exit is right on the half that it answers, what is sent on 9 of the other 10: nothing is lost. An exit that is
    // wrong on all that it answers leaves those 9.
    assert!((with.accuracy - 0.95).abs() < 1e-12 && (without.accuracy - 0.95).abs() < 1e-12, "{with:?} {without:?}");
    let mut misled = alone.measurements().as_ref().clone();
    misled.exits[0].logits.iter_mut().for_each(|logits| logits.reverse());
    let misled = Planner::new(Arc::new(misled), Power::default(), Goal::Accuracy);
    let misled = of(&misled.exiting(|of| (of == action).then_some(&policy), &sure), &sure);
    assert!((misled.accuracy - 0.45).abs() < 1e-12 && (misled.right_in_time - 0.45).abs() < 1e-12, "{misled:?}");
    // A link that is too slow loses the half that is sent, 9 of 10 of which are right.
    let slow = Conditions { bandwidth: 1e3, deadline: 0.5, ..sure };
    assert_eq!(
        [of(&exiting, &slow), of(&alone, &slow)].map(|one| (one.in_time, one.right_in_time)),
        [(0.5, 0.5), (0.0, 0.0)]
    );
    // Other actions have no exits.
    assert_eq!(exiting.estimate(Action::Local, &sure), alone.estimate(Action::Local, &sure));
}

/// Bandwidths around `middle` by a factor of at most `1 + spread`, always the same.
fn jitter(middle: f64, spread: f64, count: usize) -> impl Iterator<Item = Conditions> {
    let mut state = 1u32;
    (0..count).map(move |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let share = f64::from(state >> 8) / f64::from(1 << 24) * 2.0 - 1.0;
        Conditions { bandwidth: middle * (1.0 + spread * share), ..Conditions::default() }
    })
}

fn switches(planner: &mut Planner, all: impl Iterator<Item = Conditions>) -> usize {
    let actions: Vec<Action> = all.map(|conditions| planner.choose(&conditions).action).collect();
    actions.windows(2).filter(|pair| pair[0] != pair[1]).count()
}

#[test]
fn jitter_around_a_crossover_makes_no_flapping() {
    let goal = Goal::Delay { accuracy: 0.9 };
    let with = |c: Conditions| Conditions { device_speed: 0.4, ..c };
    let middle = crossover(goal, with);
    let mut free = planner(goal).hysteresis(Hysteresis { margin: 0.0, patience: 0, step: 0.0 });
    let flapping = switches(&mut free, jitter(middle, 0.3, 500).map(with));
    let settled = switches(&mut planner(goal), jitter(middle, 0.3, 500).map(with));
    assert!(flapping > 100, "{flapping}");
    assert!(settled <= 2, "{settled}");
}

/// A bandwidth at which the best action changes.
fn crossover(goal: Goal, with: impl Fn(Conditions) -> Conditions) -> f64 {
    let planner = planner(goal);
    let action = |bandwidth: f64| planner.best(&with(Conditions { bandwidth, ..Conditions::default() })).action;
    let all: Vec<f64> = (0..400).map(|i| 10f64.powf(3.0 + f64::from(i) / 100.0)).collect();
    let at = all.windows(2).find(|pair| action(pair[0]) != action(pair[1])).expect("no crossover");
    (at[0] * at[1]).sqrt()
}

/// Conditions under which two codecs of the input meet the deadline for most images, and how the better one is found.
fn near_a_deadline() -> (Conditions, f64) {
    let base = Conditions { deadline: 0.16, device_speed: 0.5, ..Conditions::default() };
    let planner = planner(Goal::Accuracy);
    let best = |bandwidth: f64| planner.best(&Conditions { bandwidth, ..base });
    let all: Vec<f64> = (0..200).map(|i| 10f64.powf(6.8 + 0.005 * f64::from(i))).collect();
    let at = all.windows(2).find(|pair| best(pair[0]).action != best(pair[1]).action).expect("no crossover");
    for bandwidth in at {
        assert!(best(*bandwidth).in_time > 0.8, "{:?}", best(*bandwidth));
    }
    (base, (at[0] * at[1]).sqrt())
}

#[test]
fn jitter_around_a_deadline_makes_no_flapping() {
    let (base, middle) = near_a_deadline();
    let with = |c: Conditions| Conditions { bandwidth: c.bandwidth, ..base };
    let free = || planner(Goal::Accuracy).hysteresis(Hysteresis { margin: 0.0, patience: 0, step: 0.0 });
    let flapping = switches(&mut free(), jitter(middle, 0.08, 500).map(with));
    // Each jump of the link is taken for certain here: some leave the better codec for one that most likely is in time.
    let settled = switches(&mut planner(Goal::Accuracy), jitter(middle, 0.08, 500).map(with));
    assert!(flapping > 200 && settled * 8 < flapping, "{settled} {flapping}");
    // A device knows how far off its link is.
    let known = || {
        let mut link = crate::split::LinkEstimate::new(Conditions { bandwidth: middle, ..base });
        jitter(middle, 0.2, 500).map(move |conditions| {
            link.observe(20_000, Conditions { round_trip: base.round_trip, ..conditions }.transfer(20_000.0));
            Conditions { bandwidth: link.conditions().bandwidth, deviation: link.conditions().deviation, ..base }
        })
    };
    let (settled, flapping) = (switches(&mut planner(Goal::Accuracy), known()), switches(&mut free(), known()));
    assert!(flapping > 50 && settled * 8 < flapping, "{settled} {flapping}");
}

#[test]
fn what_most_likely_misses_its_deadline_is_left_at_once_and_taken_up_again_with_time_to_spare() {
    let (base, middle) = near_a_deadline();
    let at = |factor: f64| Conditions { bandwidth: factor * middle, ..base };
    let mut planner = planner(Goal::Accuracy);
    let first = planner.choose(&at(1.5));
    assert_eq!((first.action, first.in_time), (Action::Input { coding: 0 }, 1.0));
    // In time for fewer than half of the images.
    assert!(planner.estimate(first.action, &at(0.8)).unwrap().in_time < 0.5);
    let second = planner.choose(&at(0.8)).action;
    assert_eq!(second, Action::Input { coding: 1 });
    // A little better than at the crossover is no reason to go back at once; with time to spare is.
    assert_eq!(planner.choose(&at(1.2)).action, second);
    assert_eq!(planner.best(&at(1.2)).action, first.action);
    assert_eq!(planner.choose(&at(100.0)).action, first.action);
    // What lasts is believed without time to spare.
    assert_eq!(planner.choose(&at(0.8)).action, second);
    let places = (1..100).find(|_| planner.choose(&at(1.2)).action == first.action);
    assert_eq!(places, Some(3));
}

#[test]
fn what_has_time_to_spare_is_found_behind_what_has_none() {
    let mut measured = example();
    measured.cuts.clear();
    measured.inputs.truncate(2);
    measured.whole = 0.05;
    for (coding, (encode, decode)) in measured.inputs.iter_mut().zip([(0.005, 0.035), (0.010, 0.010)]) {
        (coding.encode, coding.decode, coding.answers) = (encode, decode, measured.answers.clone());
    }
    let power = Power { compute: 10.0, send: 0.0, receive: 0.0, idle: 0.0 };
    let mut planner = Planner::new(Arc::new(measured), power, Goal::Energy { accuracy: 0.9 });
    let conditions = |bandwidth| Conditions {
        bandwidth,
        round_trip: 0.0,
        deadline: 0.1,
        device_speed: 0.5,
        ..Conditions::default()
    };
    // 1 J and 100 ms on the device; 0.1 J and 95 ms, or 0.2 J and 80 ms, at the server.
    assert_eq!(planner.choose(&conditions(0.0)).action, Action::Local);
    let link = conditions(f64::INFINITY);
    let costs: Vec<_> = planner.candidates(&link).iter().map(|one| (one.energy, one.late)).collect();
    for (cost, expected) in costs.iter().zip([(1.0, 0.1), (0.1, 0.095), (0.2, 0.08)]) {
        assert!((cost.0 - expected.0).abs() < 1e-9 && (cost.1 - expected.1).abs() < 1e-9, "{costs:?}");
    }
    assert_eq!(planner.choose(&link).action, Action::Input { coding: 1 });
}

#[test]
fn a_better_choice_is_taken_however_little_more_often_it_is_right() {
    // Right on three images of 500 more, of which one and a half are a standard error, and 30 times as fast.
    let mut measured = example();
    let answers = |wrong: usize| (0..500).map(|i| u32::from(i < wrong)).collect::<Vec<u32>>();
    measured.labels = vec![0; 500];
    measured.answers = answers(50);
    measured.cuts.clear();
    measured.inputs.truncate(1);
    let coding = &mut measured.inputs[0];
    (coding.answers, coding.bytes, coding.confidence) = (answers(47), vec![1; 500], vec![0.9; 500]);
    measured.confidence = vec![0.9; 500];
    let mut planner = Planner::new(Arc::new(measured), Power::default(), Goal::Accuracy);
    let slow = Conditions { device_speed: 0.02, bandwidth: 0.0, round_trip: 0.0, ..Conditions::default() };
    assert_eq!(planner.choose(&slow).action, Action::Local);
    let link = Conditions { bandwidth: 1e9, ..slow };
    let best = planner.best(&link);
    assert_eq!(best.action, Action::Input { coding: 0 });
    assert!(best.right_in_time > 0.902 && best.right_in_time < 0.903, "{best:?}");
    assert_eq!(planner.choose(&link).action, best.action);
}

#[test]
fn a_goal_without_a_deadline_is_patient_whatever_is_in_time() {
    let goal = Goal::Delay { accuracy: 0.9 };
    let with = |c: Conditions| Conditions { device_speed: 0.4, deadline: 0.001, ..c };
    let middle = crossover(goal, with);
    let at = |bandwidth| with(Conditions { bandwidth, ..Conditions::default() });
    let mut planner = planner(goal);
    let before = planner.choose(&at(middle / 2.0));
    assert_eq!(before.in_time, 0.0);
    for _ in 0..10 {
        assert_ne!(planner.best(&at(middle * 4.0)).action, before.action);
        assert_eq!(planner.choose(&at(middle * 4.0)).action, before.action);
        assert_eq!(planner.choose(&at(middle / 2.0)).action, before.action);
    }
}

#[test]
fn a_real_step_is_followed_at_once() {
    let slow = |bandwidth| Conditions { bandwidth, device_speed: 0.2, ..Conditions::default() };
    // JPEG is right on 18 of 20 images, with a standard error of one.
    let mut planner = planner(Goal::Delay { accuracy: 0.85 });
    assert_eq!(planner.choose(&slow(1e8)).action, Action::Input { coding: 1 });
    assert_eq!(planner.choose(&slow(0.0)).action, Action::Local);
    assert_eq!(planner.choose(&slow(1e8)).action, Action::Input { coding: 1 });
}

#[test]
fn a_small_gain_is_followed_when_it_has_lasted() {
    let goal = Goal::Delay { accuracy: 0.9 };
    let with = |c: Conditions| Conditions { device_speed: 0.4, ..c };
    let middle = crossover(goal, with);
    let mut planner = planner(goal);
    let at = |bandwidth| with(Conditions { bandwidth, ..Conditions::default() });
    let before = planner.choose(&at(middle / 2.0)).action;
    let actions: Vec<Action> = (0..4).map(|_| planner.choose(&at(middle * 4.0)).action).collect();
    assert_eq!(actions[..2], [before; 2]);
    assert_ne!(actions[2], before);
    assert_eq!(actions[2], actions[3]);
}

#[test]
fn early_answers_are_counted_where_they_come() {
    let measured = Arc::new(crate::split::stop::tests::layered());
    let goal = Goal::Delay { accuracy: 0.7 };
    let plain = Planner::new(measured.clone(), Power::default(), goal);
    let stopping = plain.clone().stopping();
    let slow = Conditions { bandwidth: 1e4, ..Conditions::default() };
    let action = |coding| Action::Split { cut: 0, coding };
    let (whole, early) = (plain.estimate(action(2), &slow).unwrap(), stopping.estimate(action(2), &slow).unwrap());
    let stop = stopping.stop(action(2)).unwrap();
    assert_eq!((early.accuracy, whole.accuracy), (stop.accuracy, 0.9));
    assert!(early.accuracy >= 0.7 && early.accuracy < 0.9, "{early:?}");
    // All is sent, so that bytes and energy are the same; those that are answered early have fewer bytes before it.
    assert_eq!((early.bytes, early.energy, early.late), (whole.bytes, whole.energy, whole.late));
    let sooner = stop.share * (whole.bytes - stop.bytes) * 8.0 / slow.bandwidth;
    assert!((whole.delay - early.delay - sooner).abs() < 1e-9 && sooner > 0.0, "{early:?} {whole:?}");
    // Nothing comes over a link that is down, and a base layer has nothing to stop.
    let down = Conditions { bandwidth: 0.0, ..slow };
    assert_eq!(stopping.estimate(action(2), &down).unwrap().delay, f64::INFINITY);
    assert_eq!((stopping.stop(action(0)), plain.stop(action(2))), (None, None));
    assert_eq!(stopping.estimate(action(0), &slow), plain.estimate(action(0), &slow));
}

#[test]
fn a_device_that_cannot_do_all_is_given_what_it_can() {
    let all = planner(Goal::Accuracy);
    assert_eq!(all.candidates(&Conditions::default()).len(), 6);
    let splits = all.clone().only(|action| matches!(action, Action::Split { .. }));
    assert_eq!(splits.candidates(&Conditions::default()).len(), 2);
    assert_eq!(splits.estimate(Action::Local, &Conditions::default()), None);
    assert_eq!(all.only(|_| false).best(&Conditions::default()).action, Action::Local);
}
