//! Links that are drawn: models of the literature, from a seed.

use rand::Rng;
use rand_distr::{Distribution, Exp1, StandardNormal};
use rand_pcg::Pcg64Mcg;

use crate::error::{Error, Result};
use crate::simulate::steps::Steps;
use crate::simulate::trace::Trace;

/// Seconds of a step of the LTE model. What comes out does not depend on it.
const TICK: f64 = 0.1;
/// LTE: standard deviation of the rate after a second, and the highest rate, as shares of the middle of all rates. Winstein et
/// al. have 200 packets a second for each root of a second, and rates of 0 to 1,000 packets a second, whose middle is 500.
const LTE_NOISE: f64 = 0.4;
const LTE_MOST: f64 = 2.0;
/// LTE: mean seconds of an outage.
const LTE_OUTAGE: f64 = 1.0;
/// WiFi: mean seconds between outages, and shortest and longest outage in seconds.
const WIFI_BETWEEN: f64 = 10.0;
const WIFI_OUTAGE: (f64, f64) = (0.06, 0.4);
/// WiFi: mean seconds in a good and in a bad state, and what remains of the bandwidth in the bad one.
const WIFI_GOOD: f64 = 2.0;
const WIFI_BAD: f64 = 0.5;
const WIFI_LEFT: f64 = 0.3;
/// LoRa: spreading factors, bandwidth of the channel in hertz, and share of the bits that are not for the code.
const LORA_FACTORS: std::ops::RangeInclusive<u32> = 6..=12;
const LORA_HERTZ: f64 = 500_000.0;
const LORA_CODE: f64 = 0.8;
/// LoRa: mean seconds until the spreading factor changes by one.
const LORA_STAY: f64 = 30.0;

/// A model of a kind of link.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Generator {
    /// A cellular link, by the model of Winstein, Sivaraman and Balakrishnan, *Stochastic forecasts achieve high throughput and
    /// low delay over cellular networks* (Sprout, 2013), with their parameters, scaled to a mean: the rate is a Brownian
    /// motion between 0 and twice its middle. Where it reaches 0 there is an outage, of 1 s on average, exponentially
    /// distributed, after which the rate is what a second of the motion makes of 0. It follows that the link is down for 12.5 % of
    /// the time, in 451 outages an hour, and that the highest rate is 2.05 times the mean.
    Lte {
        /// Mean bits a second, outages counted.
        bandwidth: f64,
    },
    /// A wireless LAN: a good and a bad state in turns (Gilbert 1960, Elliott 1963), 2 s and 0.5 s on average, the bad one with
    /// 0.3 of the bandwidth; and handovers every 10 s on average, with nothing for 60 to 400 ms, the range that Mishra,
    /// Shin and Arbaugh, *An empirical analysis of the IEEE 802.11 MAC layer handoff process* (2003), measured.
    Wifi {
        /// Bits a second in the good state.
        bandwidth: f64,
    },
    /// A long-range radio: the spreading factor goes up and down between 6 and 12, by one every 30 s on average. The bit rates
    /// are those of a 500 kHz channel with code rate 4/5 (Semtech, *LoRa modulation basics*, AN1200.22): 37.5 kbit/s down
    /// to 1.2 kbit/s.
    ///
    /// It is the best that such a radio could do. Each device has the channel for itself; packets have no preamble and no header
    /// (some 20 symbols, the time of 12 to 25 bytes, for each of at most 255 bytes); answers come after the round trip of the
    /// other links and not in receive windows; duty cycles that regions prescribe do not bind.
    Lora,
}

impl Generator {
    /// Draws a trace of this many seconds.
    ///
    /// # Errors
    /// `InvalidInput` if the bandwidth is not a number above 0, or the time is not 10 seconds to a week.
    pub fn trace(&self, seconds: f64, round_trip: f64, random: &mut Pcg64Mcg) -> Result<Trace> {
        if let Generator::Lte { bandwidth } | Generator::Wifi { bandwidth } = *self
            && !(bandwidth.is_finite() && bandwidth > 0.0)
        {
            return Err(Error::invalid(format!("a bandwidth of {bandwidth} bits a second")));
        }
        if !(10.0..=604_800.0).contains(&seconds) {
            return Err(Error::invalid(format!("a trace of {seconds} seconds; 10 to 604,800 can be drawn")));
        }
        let mut points = match *self {
            Generator::Lte { bandwidth } => lte(bandwidth, seconds, TICK, random),
            Generator::Wifi { bandwidth } => wifi(bandwidth, seconds, random),
            Generator::Lora => lora(seconds, random),
        };
        points.retain(|&(start, _)| start < seconds);
        Ok(Trace { bandwidth: Steps::new(&points, seconds)?, round_trip: Steps::constant(round_trip) })
    }
}

fn lte(bandwidth: f64, seconds: f64, tick: f64, random: &mut Pcg64Mcg) -> Vec<(f64, f64)> {
    // In units of the middle of all rates.
    let unit = bandwidth / lte_mean();
    let reflected = |rate: f64| if rate > LTE_MOST { (2.0 * LTE_MOST - rate).max(0.0) } else { rate };
    let normal = |random: &mut Pcg64Mcg| -> f64 { StandardNormal.sample(random) };
    let variance = LTE_NOISE * LTE_NOISE * tick;
    let (mut now, mut rate) = (0.0, LTE_MOST * random.random::<f64>());
    let mut points = Vec::new();
    while now < seconds {
        points.push((now, unit * rate));
        let next = reflected(rate + variance.sqrt() * normal(random));
        // A motion that is above 0 at both ends of a tick has been at 0 within it with this probability (Brownian bridge).
        let touched = if next > 0.0 { (-2.0 * rate * next / variance).exp() } else { 1.0 };
        if random.random::<f64>() < touched {
            let outage: f64 = Exp1.sample(random);
            points.push((now + 0.5 * tick, 0.0));
            now += 0.5 * tick + (LTE_OUTAGE * outage).max(1e-3);
            rate = reflected(LTE_NOISE * normal(random).abs());
        } else {
            now += tick;
            rate = next;
        }
    }
    points
}

/// The mean rate of the LTE model in units of the middle of all rates, outages counted.
///
/// A Brownian motion of variance v a second that begins at x and is reflected at m comes to 0 after (2 m x - x²) / v seconds
/// on average, and its integral until then is (m² x - x³ / 3) / v; x is the absolute value of a normal deviate.
fn lte_mean() -> f64 {
    let (seconds, integral) = lte_cycle();
    integral / (seconds + LTE_OUTAGE)
}

/// Mean seconds from one outage to the next, and the integral of the rate over them.
fn lte_cycle() -> (f64, f64) {
    let half = (2.0 / std::f64::consts::PI).sqrt();
    let (first, second, third) = (half * LTE_NOISE, LTE_NOISE.powi(2), 2.0 * half * LTE_NOISE.powi(3));
    let variance = LTE_NOISE.powi(2);
    let seconds = (2.0 * LTE_MOST * first - second) / variance;
    (seconds, (LTE_MOST.powi(2) * first - third / 3.0) / variance)
}

fn wifi(best: f64, seconds: f64, random: &mut Pcg64Mcg) -> Vec<(f64, f64)> {
    let exponential = |mean: f64, random: &mut Pcg64Mcg| -> f64 {
        let one: f64 = Exp1.sample(random);
        (mean * one).max(1e-3)
    };
    let mut points = Vec::new();
    let (mut now, mut good) = (0.0, true);
    let mut change = exponential(WIFI_GOOD, random);
    let mut outage = exponential(WIFI_BETWEEN, random);
    points.push((0.0, best));
    while now < seconds {
        if outage < change {
            let length = random.random_range(WIFI_OUTAGE.0..WIFI_OUTAGE.1);
            points.push((outage, 0.0));
            now = outage + length;
            // The handover ends with the state that the link would have by then.
            while change <= now {
                good = !good;
                change += exponential(if good { WIFI_GOOD } else { WIFI_BAD }, random);
            }
            outage = now + exponential(WIFI_BETWEEN, random);
        } else {
            now = change;
            good = !good;
            change = now + exponential(if good { WIFI_GOOD } else { WIFI_BAD }, random);
        }
        points.push((now, if good { best } else { WIFI_LEFT * best }));
    }
    points
}

fn lora(seconds: f64, random: &mut Pcg64Mcg) -> Vec<(f64, f64)> {
    let rate = |factor: u32| LORA_HERTZ / f64::from(1 << factor) * f64::from(factor) * LORA_CODE;
    let mut factor = random.random_range(LORA_FACTORS);
    let mut now = 0.0;
    let mut points = Vec::new();
    while now < seconds {
        points.push((now, rate(factor)));
        let step = if random.random::<bool>() { factor + 1 } else { factor - 1 };
        factor = step.clamp(*LORA_FACTORS.start(), *LORA_FACTORS.end());
        let stay: f64 = Exp1.sample(random);
        now += (LORA_STAY * stay).max(0.1);
    }
    points
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    fn draw(generator: Generator, seed: u64) -> Trace {
        generator.trace(3600.0, 0.05, &mut Pcg64Mcg::seed_from_u64(seed)).unwrap()
    }

    #[test]
    fn a_seed_is_a_trace() {
        for generator in [Generator::Lte { bandwidth: 1e6 }, Generator::Wifi { bandwidth: 1e7 }, Generator::Lora] {
            assert_eq!(draw(generator, 1), draw(generator, 1));
            assert_ne!(draw(generator, 1), draw(generator, 2));
        }
    }

    #[test]
    fn links_are_of_their_kind() {
        let shares = |trace: &Trace, is: &dyn Fn(f64) -> bool| {
            (0..36_000).filter(|&i| is(trace.bandwidth.at(f64::from(i) * 0.1))).count() as f64 / 36_000.0
        };
        let lte = draw(Generator::Lte { bandwidth: 1e6 }, 3);
        assert_eq!(shares(&lte, &|rate| rate > 2.06e6), 0.0);
        assert!(shares(&lte, &|rate| rate > 1.9e6) > 0.0);
        let wifi = draw(Generator::Wifi { bandwidth: 1e7 }, 3);
        // 0.23 s of 10.23 s, and 2 s of 2.5 s.
        assert!((0.012..0.035).contains(&shares(&wifi, &|rate| rate == 0.0)));
        assert!((0.70..0.86).contains(&shares(&wifi, &|rate| rate == 1e7)));
        let lora = draw(Generator::Lora, 3);
        assert_eq!(shares(&lora, &|rate| !(1171.0..=37_500.0).contains(&rate)), 0.0);
        assert!(shares(&lora, &|rate| rate == 37_500.0) > 0.0);
    }

    /// What the documentation says, whatever the tick.
    #[test]
    fn lte_has_its_mean_and_its_outages_at_every_tick() {
        let (seconds, _) = lte_cycle();
        assert!((1.0 / (1.0 + seconds) - 0.1253).abs() < 5e-5 && (3600.0 / (1.0 + seconds) - 451.2).abs() < 0.1);
        assert!((LTE_MOST / lte_mean() - 2.055).abs() < 5e-4);
        let hours = 400.0;
        for (tick, seed) in [(0.5, 1), (0.1, 2), (0.02, 3)] {
            // Fewer hours of the finest tick take as long.
            let seconds = 3600.0 * if tick < 0.1 { hours / 4.0 } else { hours };
            let points = lte(2e6, seconds, tick, &mut Pcg64Mcg::seed_from_u64(seed));
            let outages = points.iter().filter(|(_, rate)| *rate == 0.0).count() as f64 / seconds * 3600.0;
            let points: Vec<(f64, f64)> = points.into_iter().filter(|(start, _)| *start < seconds).collect();
            let steps = Steps::new(&points, seconds).unwrap();
            assert!((steps.share_at_zero() / 0.1253 - 1.0).abs() < 0.02, "{tick} s: {}", steps.share_at_zero());
            assert!((steps.mean() / 2e6 - 1.0).abs() < 0.02, "{tick} s: {}", steps.mean());
            assert!((outages / 451.2 - 1.0).abs() < 0.02, "{tick} s: {outages}");
        }
    }

    #[test]
    fn what_can_not_be_drawn_is_refused() {
        let mut random = Pcg64Mcg::seed_from_u64(0);
        assert!(Generator::Lte { bandwidth: 0.0 }.trace(100.0, 0.0, &mut random).is_err());
        assert!(Generator::Lora.trace(1.0, 0.0, &mut random).is_err());
        assert!(Generator::Lora.trace(f64::NAN, 0.0, &mut random).is_err());
    }
}
