//! Links that are drawn: models of the literature, from a seed.

use rand::Rng;
use rand_distr::{Distribution, Exp1, StandardNormal};
use rand_pcg::Pcg64Mcg;

use crate::error::{Error, Result};
use crate::simulate::steps::Steps;
use crate::simulate::trace::Trace;

/// Seconds of a step of the LTE model.
const TICK: f64 = 0.1;
/// LTE: standard deviation of the rate after a second, and the highest rate, as shares of the mean. Winstein et al. have 200
/// packets a second for each root of a second, and rates of 0 to 1,000 packets a second, whose middle is 500.
const LTE_NOISE: f64 = 0.4;
const LTE_MOST: f64 = 2.0;
/// LTE: outages end with this rate a second.
const LTE_ESCAPE: f64 = 1.0;
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
    /// low delay over cellular networks* (Sprout, 2013): the rate is a Brownian motion between 0 and a highest rate, with
    /// outages that it falls into at 0 and leaves at a rate of 1 a second. Their parameters, scaled to a mean.
    Lte {
        /// Bits a second in the middle of the range of rates.
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
    /// to 1.2 kbit/s. Duty cycles that regions prescribe are not modelled.
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
        let points = match *self {
            Generator::Lte { bandwidth } => lte(bandwidth, seconds, random),
            Generator::Wifi { bandwidth } => wifi(bandwidth, seconds, random),
            Generator::Lora => lora(seconds, random),
        };
        Ok(Trace { bandwidth: Steps::new(&points)?, round_trip: Steps::constant(round_trip) })
    }
}

fn lte(mean: f64, seconds: f64, random: &mut Pcg64Mcg) -> Vec<(f64, f64)> {
    let mut rate = mean * LTE_MOST * random.random::<f64>();
    let stays_out = (-LTE_ESCAPE * TICK).exp();
    let tick = |i: usize| {
        let out = rate == 0.0;
        if !out || random.random::<f64>() > stays_out {
            let noise: f64 = StandardNormal.sample(random);
            // An outage ends with a rate above 0.
            let step = mean * LTE_NOISE * TICK.sqrt() * if out { noise.abs() } else { noise };
            rate = (rate + step).max(0.0);
            // The highest rate turns it back.
            let most = mean * LTE_MOST;
            rate = if rate > most { (2.0 * most - rate).max(0.0) } else { rate };
        }
        (i as f64 * TICK, rate)
    };
    (0..(seconds / TICK) as usize).map(tick).collect()
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
    // One step alone would be a constant: it is cut in two, so that the trace has its length.
    if points.len() == 1 {
        points.push((0.5 * seconds, points[0].1));
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
        // The mean is in the middle but for the outages, which are a share of the time.
        assert!((0.6e6..1.2e6).contains(&lte.bandwidth.mean()), "{}", lte.bandwidth.mean());
        assert!((0.02..0.35).contains(&shares(&lte, &|rate| rate == 0.0)));
        assert_eq!(shares(&lte, &|rate| rate > 2e6), 0.0);
        let wifi = draw(Generator::Wifi { bandwidth: 1e7 }, 3);
        // 0.23 s of 10.23 s, and 2 s of 2.5 s.
        assert!((0.012..0.035).contains(&shares(&wifi, &|rate| rate == 0.0)));
        assert!((0.70..0.86).contains(&shares(&wifi, &|rate| rate == 1e7)));
        let lora = draw(Generator::Lora, 3);
        assert_eq!(shares(&lora, &|rate| !(1171.0..=37_500.0).contains(&rate)), 0.0);
        assert!(shares(&lora, &|rate| rate == 37_500.0) > 0.0);
    }

    #[test]
    fn what_can_not_be_drawn_is_refused() {
        let mut random = Pcg64Mcg::seed_from_u64(0);
        assert!(Generator::Lte { bandwidth: 0.0 }.trace(100.0, 0.0, &mut random).is_err());
        assert!(Generator::Lora.trace(1.0, 0.0, &mut random).is_err());
        assert!(Generator::Lora.trace(f64::NAN, 0.0, &mut random).is_err());
    }
}
