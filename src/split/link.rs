//! Bandwidth, round trip, server wait and speeds from what was seen.

use crate::conditions::{Conditions, Deviation};

/// Relative standard deviation by which the bandwidth is taken to move between two transfers: links change fast.
const BANDWIDTH_DRIFT: f64 = 0.5;
/// The same of the round trip: routes change slowly.
const ROUND_TRIP_DRIFT: f64 = 0.05;
/// Relative standard deviation of a transfer's time when both are known.
const NOISE: f64 = 0.1;
/// Relative standard deviation of what is assumed before the first transfer.
const FIRST: f64 = 1.0;
/// Least round trip, in seconds, and least seconds a bit.
const LEAST: (f64, f64) = (1e-5, 1e-12);
/// Longest round trip and longest wait, in seconds.
const LONGEST: f64 = 1e3;
/// So many transfers may move the round trip as far as they like: what was assumed at first is a guess.
const FIRST_FEW: u32 = 5;
/// One transfer after them moves it by at most this share of it.
const ROUND_TRIP_STEP: f64 = 0.25;
/// One transfer divides the seconds a bit by at most this.
const BANDWIDTH_STEP: f64 = 8.0;
/// Share of a new deviation in their running mean.
const DEVIATION_GAIN: f64 = 0.25;
/// No transfer counts for more than this in their mean, or one long stall would make all later choices timid.
const WORST: f64 = 3.0;
/// Share of a new observation in a speed, and how far one may be from what was expected.
const SPEED_GAIN: f64 = 0.2;
const SPEED_FACTOR: f64 = 10.0;
/// Speeds lie within this of 1.
const SPEED_MOST: f64 = 1e6;

/// What a device knows of its link, its server and itself, from its own transfers: no probes are needed.
///
/// A transfer takes a round trip and its bits at the bandwidth. A Kalman filter of these two follows both: small transfers
/// tell the round trip, large ones the bandwidth, and what sizes cannot tell is put down to the bandwidth, which moves
/// more. A tenfold drop is known after two transfers.
///
/// One departure from the filter: a transfer, but for the first five, moves the round trip by at most a quarter, makes it no longer than the transfer
/// itself took, and makes the bandwidth at most eight times as high. The filter divides what a transfer took too long between
/// the two, and takes what the next ones take less from the bandwidth: without these bounds one stall leaves a long round
/// trip and a bandwidth without limit, and transfers of one size never correct them.
#[derive(Debug, Clone, PartialEq)]
pub struct LinkEstimate {
    first: Conditions,
    filter: Filter,
    /// What [`LinkEstimate::stalled`] was told of last: bytes, seconds, and the filter as it was before.
    hanging: Option<(usize, f64, Filter)>,
    /// Seconds.
    wait: f64,
    /// Mean of |waited - expected| in seconds.
    wait_deviation: f64,
    device: Speed,
    server: Speed,
}

impl LinkEstimate {
    /// Begins with what is assumed before anything is seen; its deadline is kept as it is.
    pub fn new(first: Conditions) -> LinkEstimate {
        let [device, server] = [first.device_speed, first.server_speed].map(Speed::new);
        let wait = first.wait.clamp(0.0, LONGEST);
        LinkEstimate { first, filter: Filter::new(&first), hanging: None, wait, wait_deviation: 0.0, device, server }
    }

    /// Takes note of a transfer: bytes sent, and seconds from the first of them to the answer, less what the server said
    /// that it waited and worked. What is no time is passed over.
    ///
    /// If [`stalled`](Self::stalled) was told of a transfer of as many bytes just before, and not of more seconds, this is taken
    /// to be the end of that transfer and counts in place of the stall.
    pub fn observe(&mut self, bytes: usize, seconds: f64) {
        if seconds.is_finite() && seconds >= 0.0 {
            self.filter = self.before(bytes, seconds);
            self.hanging = None;
            self.filter.observe(8.0 * bytes as f64, seconds);
        }
    }

    /// Takes note of a transfer that is not over after `seconds`: it tells something only if it should have been.
    ///
    /// It may be told of the same transfer again, and of its end by [`observe`](Self::observe): with as many bytes and no fewer
    /// seconds than at the last call, that call is taken back, so that one transfer counts once.
    pub fn stalled(&mut self, bytes: usize, seconds: f64) {
        let before = self.before(bytes, seconds);
        if seconds.is_finite() && seconds > before.expected(8.0 * bytes as f64) {
            self.hanging = Some((bytes, seconds, before));
            self.filter = before;
            self.filter.observe(8.0 * bytes as f64, seconds);
        }
    }

    /// The filter before it was told of this transfer.
    fn before(&self, bytes: usize, seconds: f64) -> Filter {
        let same = self.hanging.filter(|&(hanging, lasted, _)| hanging == bytes && lasted <= seconds);
        same.map_or(self.filter, |(_, _, before)| before)
    }

    /// Takes note of the seconds that a request waited at the server, from its reply. A longer wait is believed by half at
    /// once, a shorter one by a quarter.
    pub fn observe_wait(&mut self, seconds: f64) {
        if seconds.is_finite() && seconds >= 0.0 {
            let error = seconds.min(LONGEST) - self.wait;
            self.wait_deviation += DEVIATION_GAIN * (error.abs() - self.wait_deviation);
            self.wait += if error > 0.0 { 0.5 } else { 0.25 } * error;
        }
    }

    /// Takes note of work on the device that took `measured` seconds on the measured machine and `seconds` now: a device
    /// gets slower when it gets hot.
    pub fn observe_device(&mut self, measured: f64, seconds: f64) {
        self.device.follow(measured, seconds);
    }

    /// The same of work at the server, its queue not counted.
    pub fn observe_server(&mut self, measured: f64, seconds: f64) {
        self.server.follow(measured, seconds);
    }

    /// The conditions as they are expected, with how far off expectations have been.
    pub fn conditions(&self) -> Conditions {
        let [link, device, server] = [self.filter.deviation, self.device.deviation, self.server.deviation];
        Conditions {
            bandwidth: 1.0 / self.filter.bit,
            round_trip: self.filter.round_trip,
            wait: self.wait,
            device_speed: self.device.value,
            server_speed: self.server.value,
            deviation: Deviation { link, device, server, wait: self.wait_deviation },
            ..self.first
        }
    }
}

/// Round trip and seconds a bit, by a Kalman filter with bounded steps.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Filter {
    /// Seconds.
    round_trip: f64,
    /// Seconds a bit.
    bit: f64,
    /// Variances of both and their covariance.
    variance: (f64, f64),
    covariance: f64,
    /// Mean of |observed - expected| over the expected, at most [`WORST`] each.
    deviation: f64,
    /// Transfers so far.
    seen: u32,
}

impl Filter {
    fn new(first: &Conditions) -> Filter {
        let round_trip = first.round_trip.clamp(LEAST.0, LONGEST);
        let bit = (1.0 / first.bandwidth).clamp(LEAST.1, 1.0);
        let variance = ((FIRST * round_trip).powi(2), (FIRST * bit).powi(2));
        Filter { round_trip, bit, variance, covariance: 0.0, deviation: 0.25, seen: 0 }
    }

    fn expected(&self, bits: f64) -> f64 {
        self.round_trip + bits * self.bit
    }

    fn observe(&mut self, bits: f64, seconds: f64) {
        let before = *self;
        let expected = self.expected(bits);
        let error = seconds - expected;
        self.deviation += DEVIATION_GAIN * ((error.abs() / expected).min(WORST) - self.deviation);
        let round = self.variance.0 + (ROUND_TRIP_DRIFT * self.round_trip).powi(2);
        let bit = self.variance.1 + (BANDWIDTH_DRIFT * self.bit).powi(2);
        // How the two move with the expected time, its variance, and the gains.
        let (with_round, with_bit) = (round + bits * self.covariance, self.covariance + bits * bit);
        let spread = with_round + bits * with_bit + (NOISE * expected).powi(2);
        let gains = (with_round / spread, with_bit / spread);
        let mut round_trip = before.round_trip + gains.0 * error;
        if self.seen >= FIRST_FEW {
            let step = ROUND_TRIP_STEP * before.round_trip;
            round_trip = round_trip.clamp(before.round_trip - step, before.round_trip + step);
        }
        self.seen = self.seen.saturating_add(1);
        self.round_trip = round_trip.min(seconds).clamp(LEAST.0, LONGEST);
        self.bit = (before.bit + gains.1 * error).max(before.bit / BANDWIDTH_STEP).clamp(LEAST.1, 1.0);
        self.variance = ((round - gains.0 * with_round).max(0.0), (bit - gains.1 * with_bit).max(0.0));
        let most = (self.variance.0 * self.variance.1).sqrt();
        self.covariance = (self.covariance - gains.0 * with_bit).clamp(-most, most);
    }
}

/// A speed that is followed.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Speed {
    value: f64,
    /// Mean of |observed - expected| over the expected time, at most [`WORST`] each.
    deviation: f64,
}

impl Speed {
    fn new(value: f64) -> Speed {
        Speed { value: value.clamp(1.0 / SPEED_MOST, SPEED_MOST), deviation: 0.0 }
    }

    /// Moves by what one piece of work says; what took no time says nothing.
    fn follow(&mut self, measured: f64, seconds: f64) {
        let seen = measured / seconds;
        if seen.is_finite() && seen > 0.0 {
            let longer = (self.value / seen - 1.0).abs().min(WORST);
            let factor = (seen / self.value).clamp(1.0 / SPEED_FACTOR, SPEED_FACTOR);
            let value = Speed::new(self.value * factor.powf(SPEED_GAIN)).value;
            *self = Speed { value, deviation: self.deviation + DEVIATION_GAIN * (longer - self.deviation) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn seconds(bytes: usize, bandwidth: f64, round_trip: f64) -> f64 {
        Conditions { bandwidth, round_trip, ..Conditions::default() }.transfer(bytes as f64)
    }

    fn near(value: f64, expected: f64, share: f64) {
        assert!((value / expected - 1.0).abs() < share, "{value} is not {expected}");
    }

    #[test]
    fn small_transfers_tell_the_round_trip_and_large_ones_the_bandwidth() {
        let mut link = LinkEstimate::new(Conditions::default());
        for i in 0..20 {
            let bytes = if i % 2 == 0 { 50 } else { 40_000 };
            link.observe(bytes, seconds(bytes, 3e6, 0.11));
        }
        near(link.conditions().bandwidth, 3e6, 0.05);
        near(link.conditions().round_trip, 0.11, 0.05);
    }

    #[test]
    fn a_tenfold_drop_is_known_after_two_transfers_and_a_rise_too() {
        let mut link = LinkEstimate::new(Conditions::default());
        for (bandwidth, count) in [(1e6, 20), (1e5, 2), (1e6, 2)] {
            (0..count).for_each(|_| link.observe(2000, seconds(2000, bandwidth, 0.04)));
            near(link.conditions().transfer(2000.0), seconds(2000, bandwidth, 0.04), 0.1);
            // What the sizes cannot tell goes to the bandwidth, most of it.
            near(link.conditions().transfer(500.0), seconds(500, bandwidth, 0.04), 0.25);
        }
    }

    #[test]
    fn caution_covers_most_transfers() {
        let mut link = LinkEstimate::new(Conditions::default());
        let mut state = 7u32;
        let mut random = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            f64::from(state >> 8) / f64::from(1 << 24)
        };
        let (mut within, count) = (0, 1000);
        for i in 0..count + 50 {
            let bytes = (200.0 + 3000.0 * random()) as usize;
            let time = seconds(bytes, 1e6 * (0.6 + 0.8 * random()), 0.04 * (0.9 + 0.2 * random()));
            within += usize::from(i >= 50 && time <= link.conditions().cautious().transfer(bytes as f64));
            link.observe(bytes, time);
        }
        assert!((930..1000).contains(&within), "{within}");
    }

    #[test]
    fn a_transfer_that_hangs_counts_once_it_is_late() {
        let mut link = LinkEstimate::new(Conditions::default());
        (0..10).for_each(|_| link.observe(2000, seconds(2000, 1e6, 0.04)));
        let before = link.clone();
        link.stalled(2000, 0.01);
        assert_eq!(link, before);
        link.stalled(2000, 1.0);
        assert!(link.conditions().bandwidth < 1e5);
    }

    #[test]
    fn one_transfer_counts_once_however_often_it_is_told_of() {
        let mut link = LinkEstimate::new(Conditions::default());
        (0..10).for_each(|_| link.observe(2000, seconds(2000, 1e6, 0.04)));
        let (mut often, mut once, mut ended) = (link.clone(), link.clone(), link);
        (1..=10).for_each(|tenths| often.stalled(2000, 0.1 * f64::from(tenths)));
        once.stalled(2000, 1.0);
        assert_eq!(often, once);
        // Its end counts in its place.
        often.observe(2000, 1.2);
        ended.observe(2000, 1.2);
        assert_eq!(often, ended);
        // Another transfer does not.
        let mut both = once.clone();
        both.observe(2000, 0.5);
        once.hanging = None;
        once.observe(2000, 0.5);
        assert_eq!(both, once);
    }

    #[test]
    fn a_stall_is_over_when_it_is_over() {
        // A stall of a minute is 4,000 times as long as the bits take, four times a factor of eight.
        for (stall, forgotten) in [(0.3, 3), (1.0, 3), (10.0, 5), (60.0, 6)] {
            let mut link = LinkEstimate::new(Conditions::default());
            (0..20).for_each(|_| link.observe(2000, seconds(2000, 1e6, 0.04)));
            link.stalled(2000, stall);
            for transfers in 1..=100 {
                link.observe(2000, seconds(2000, 1e6, 0.04));
                let round_trip = link.conditions().round_trip;
                assert!((0.02..0.06).contains(&round_trip), "{stall} s, {transfers}: {round_trip}");
                if transfers >= forgotten {
                    near(link.conditions().transfer(2000.0), 0.056, 0.1);
                    // Another size than all that were seen.
                    near(link.conditions().transfer(20_000.0), 0.2, 0.6);
                }
            }
        }
    }

    #[test]
    fn stalls_among_noisy_transfers_leave_no_bandwidth_without_limit() {
        let mut draws = crate::exit::tests::Draws::new(3);
        let mut link = LinkEstimate::new(Conditions::default());
        let (mut unlimited, mut right, count) = (0, 0, 10_000);
        for _ in 0..count {
            let bytes = [600, 900, 1300, 2000][(4.0 * draws.uniform()) as usize];
            let mut time = seconds(bytes, 1e6, 0.04) * (0.3 * draws.normal()).exp();
            if draws.uniform() < 0.02 {
                time += 0.3 + 1.2 * draws.uniform();
            }
            link.observe(bytes, time);
            unlimited += usize::from(link.filter.bit <= 1.001 * LEAST.1);
            // 1.05 times the usual, by the mean of the noise.
            right += usize::from((0.5..2.0).contains(&(link.conditions().transfer(1200.0) / 0.052)));
        }
        assert!(unlimited < count / 500 && right > count * 9 / 10, "{unlimited} {right}");
    }

    #[test]
    fn waits_rise_faster_than_they_fall() {
        let mut link = LinkEstimate::new(Conditions::default());
        link.observe_wait(0.4);
        assert_eq!(link.conditions().wait, 0.2);
        link.observe_wait(0.0);
        assert!((link.conditions().wait - 0.15).abs() < 1e-12);
        let mut endless = LinkEstimate::new(Conditions { wait: f64::INFINITY, ..Conditions::default() });
        (0..100).for_each(|_| endless.observe_wait(0.1));
        near(endless.conditions().wait, 0.1, 0.01);
    }

    #[test]
    fn waits_that_vary_are_no_certainty() {
        use crate::split::Work;
        // The server answers after 90 ms, or 190 ms one time in four.
        let mut draws = crate::exit::tests::Draws::new(1);
        let mut link = LinkEstimate::new(Conditions { bandwidth: f64::INFINITY, ..Conditions::default() });
        let work = Work { device: 0.0, server: Some(0.05) };
        let (mut expected, mut missed, mut within, count) = (0.0, 0.0, 0, 4000);
        for _ in 0..count {
            let conditions = Conditions {
                deadline: 0.15,
                bandwidth: f64::INFINITY,
                round_trip: 0.04,
                deviation: Deviation { wait: link.conditions().deviation.wait, ..Deviation::default() },
                ..link.conditions()
            };
            let wait = if draws.uniform() < 0.25 { 0.1 } else { 0.0 };
            expected += 1.0 - work.in_time(0.0, &conditions);
            missed += f64::from(u8::from(wait > 0.0));
            within += usize::from(wait <= conditions.cautious().wait);
            link.observe_wait(wait);
        }
        assert!(expected > 0.1 * f64::from(count) && expected < 2.0 * missed, "{expected} {missed}");
        assert!(within > count as usize * 9 / 10, "{within}");
    }

    #[test]
    fn speeds_follow_what_work_takes() {
        let mut link = LinkEstimate::new(Conditions { device_speed: 0.5, ..Conditions::default() });
        assert_eq!((link.conditions().device_speed, link.conditions().server_speed), (0.5, 1.0));
        for _ in 0..30 {
            link.observe_device(0.02, 0.08);
            link.observe_server(0.02, 0.01);
        }
        near(link.conditions().device_speed, 0.25, 0.01);
        near(link.conditions().server_speed, 2.0, 0.01);
        // One hiccup is no slow device.
        link.observe_device(0.02, 8.0);
        assert!(link.conditions().device_speed > 0.15);
        // But one more is reckoned with.
        assert!(link.conditions().cautious().device_speed < 0.8 * link.conditions().device_speed);
        assert!(link.conditions().cautious().server_speed > 0.95 * link.conditions().server_speed);
        let before = link.clone();
        link.observe_device(0.0, 0.0);
        link.observe_server(0.02, 0.0);
        assert_eq!(link, before);
    }

    proptest! {
        #[test]
        fn whatever_is_seen_leaves_usable_conditions(
            seen in prop::collection::vec((0usize..1 << 40, prop::num::f64::ANY), 0..100),
        ) {
            let mut link = LinkEstimate::new(Conditions { bandwidth: 0.0, round_trip: f64::INFINITY, ..Conditions::default() });
            for (bytes, seconds) in seen {
                link.observe(bytes, seconds);
                link.stalled(bytes, seconds);
                link.observe_wait(seconds);
                link.observe_device(bytes as f64, seconds);
                link.observe_server(seconds, bytes as f64);
                for conditions in [link.conditions(), link.conditions().cautious()] {
                    prop_assert!(conditions.checked().is_ok(), "{conditions:?}");
                    prop_assert!(conditions.bandwidth > 0.0 && conditions.round_trip.is_finite());
                }
            }
        }
    }
}
