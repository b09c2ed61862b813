//! What devices make of servers that are slow for a while, or for good, and of links that are down while a server works.

use super::*;
use crate::simulate::device::Device;
use crate::simulate::strategy::Ways;

/// The network without exits.
fn bare(seed: u64) -> Measurements {
    Measurements { exits: Vec::new(), ..measured(seed) }
}

/// What devices without exits make of a goal.
fn bare_run(scenario: &Scenario, goal: Goal) -> Outcome {
    let first = Conditions { deadline: scenario.deadline, ..Conditions::default() };
    let adaptive = Adaptive::fit(&Arc::new(bare(100)), scenario.power, goal, Target::loss(0.01), first).unwrap();
    simulate(&bare(1), scenario, &Strategy::Adaptive(Box::new(adaptive))).unwrap()
}

const SOONEST: Goal = Goal::Delay { accuracy: 0.0 };

#[test]
fn an_overload_is_forgotten_when_it_is_over() {
    // Alone they would be late; and the servers are others' for the first minute.
    let calm =
        Scenario { devices: 100, seconds: 600.0, warm_up: 120.0, deadline: 0.16, device_speed: 0.2, ..scenario() };
    let load = Steps::new(&[(0.0, 0.99), (60.0, 0.0)], 3600.0).unwrap();
    let before = bare_run(&calm, Goal::Accuracy);
    let after = bare_run(&Scenario { load, ..calm }, Goal::Accuracy);
    assert!(before.in_time > 0.9 && before.on_device < 0.01, "{} {}", before.in_time, before.on_device);
    assert!((after.in_time - before.in_time).abs() < 0.005, "{} {}", after.in_time, before.in_time);
    assert!((after.bytes / before.bytes - 1.0).abs() < 0.02, "{} {}", after.bytes, before.bytes);
}

#[test]
fn devices_learn_that_others_slow_the_server_down() {
    // A tenth of the server is left: its part takes 0.29 s, all of it on the device 0.16 s.
    let busy = Scenario { load: Steps::constant(0.9), device_speed: 0.25, servers: 20, ..scenario() };
    let delay = bare_run(&busy, SOONEST).mean_delay;
    let alone = run(&busy, &fixed(Action::Local)).mean_delay;
    assert!(delay < 1.03 * alone, "{delay} {alone}");
    // They offload while the server is theirs.
    let free = bare_run(&Scenario { load: Steps::constant(0.0), ..busy }, SOONEST);
    assert!(free.mean_delay < 0.9 * delay && free.on_device == 0.0, "{} {}", free.mean_delay, free.on_device);
}

#[test]
fn no_probe_is_sent_where_nothing_ever_would_be() {
    let fast = Scenario { device_speed: 10.0, ..scenario() };
    let outcome = bare_run(&fast, SOONEST);
    assert_eq!((outcome.bytes, outcome.on_device, outcome.utilisation), (0.0, 1.0, 0.0));
    // A better link would be used: probes are streams, come seldom while nothing changes, and are no requests.
    let far = Scenario { link: Link::same(Trace::constant(1e5, 2.0)), device_speed: 0.25, ..scenario() };
    let outcome = bare_run(&far, SOONEST);
    let requests = run(&far, &fixed(Action::Local)).requests;
    assert_eq!((outcome.requests, outcome.on_device), (requests, 1.0));
    let probes = outcome.bytes * outcome.requests as f64 / measured(1).cuts[0].codings[2].mean_bytes() / 20.0;
    assert!((3.0..10.0).contains(&probes), "{probes} for each device");
    assert!(outcome.utilisation > 0.0);
}

#[test]
fn an_answer_waits_until_the_link_is_up() {
    // Up for a second of ten, and the server works for two.
    let trace =
        Trace { bandwidth: Steps::new(&[(0.0, 1e6), (1.0, 0.0)], 10.0).unwrap(), round_trip: Steps::constant(0.04) };
    let one = Scenario {
        devices: 1,
        rate: 0.1,
        arrivals: Arrivals::Periodic,
        link: Link::same(trace),
        server_speed: 0.0145,
        power: Power { compute: 0.0, send: 0.0, receive: 0.0, idle: 1.0 },
        ..scenario()
    };
    let mut measured = measured(1);
    measured.cuts[0].codings[0].bytes.fill(1250);
    let ways = Ways::of(&split(0), &measured, &one).unwrap();
    let asked = Device::new(0, &one, &ways).gap(&one, true);
    assert!((1.0..9.9).contains(&asked), "{asked}");
    let outcome = simulate(&measured, &one, &split(0)).unwrap();
    // Sent when the link comes up, answered when it is up the next time.
    assert!((outcome.mean_delay - (20.0 + 0.02 - asked)).abs() < 1e-5, "{} {asked}", outcome.mean_delay);
    // From the last byte to the answer, a round trip on the way left out.
    assert!((outcome.energy - (20.02 - 10.01 - 0.04)).abs() < 1e-9, "{}", outcome.energy);
}

#[test]
fn load_counts_as_it_changes_while_a_server_works() {
    // Every hundredth of a second the server is nearly all others', then nobody's: half of it is left.
    let load = Steps::new(&[(0.0, 0.98), (0.01, 0.0)], 0.02).unwrap();
    let fast =
        Scenario { device_speed: 1e6, link: Link::same(Trace::constant(1e12, 0.0)), servers: 20, load, ..scenario() };
    let outcome = run(&fast, &split(0));
    let served = 0.029 / 0.51;
    assert!((outcome.mean_delay / served - 1.0).abs() < 0.05, "{} {served}", outcome.mean_delay);
    assert!(outcome.delays.iter().all(|delay| (delay - served).abs() < 0.011), "{:?} {served}", outcome.delays);
}
