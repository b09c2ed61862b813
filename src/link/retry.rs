//! When to try again: backoff with jitter, and the server's own word.

use std::time::Duration;

use rand_pcg::Pcg32;
use rand_pcg::rand_core::RngCore;
use tonic::{Code, Status};

/// Metadata with the milliseconds after which a call may be tried again: the pushback of gRPC's retry design (gRFC A6).
const PUSHBACK: &str = "grpc-retry-pushback-ms";

/// How often a call is tried, and how long to wait in between: exponential backoff with full jitter.
#[derive(Debug, Clone, PartialEq)]
pub struct Retry {
    /// Attempts in all, at least 1. Default 8.
    pub attempts: u32,
    /// Longest wait before the second attempt, twice as long before each later one. Default 20 ms.
    pub first: Duration,
    /// Longest wait of all. Default 1 s.
    pub most: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Retry { attempts: 8, first: Duration::from_millis(20), most: Duration::from_secs(1) }
    }
}

impl Retry {
    /// The wait before attempt `attempt` (the first is 0), or `None` if there should be none after this status.
    ///
    /// What a server has understood and refused is final. What says that it is overloaded or late, or was lost on the way, is
    /// tried again: inference changes nothing, so that it may run twice. Whether there is time is not asked here.
    pub(crate) fn wait(&self, attempt: u32, status: &Status, random: &mut Pcg32) -> Option<Duration> {
        let again = [Code::Unavailable, Code::ResourceExhausted, Code::DeadlineExceeded, Code::Aborted];
        if !again.contains(&status.code()) || attempt >= self.attempts {
            return None;
        }
        if let Some(text) = status.metadata().get(PUSHBACK) {
            // A negative number, or none, means: do not try again.
            let wait: u64 = text.to_str().ok()?.parse().ok()?;
            let wait = Duration::from_millis(wait).min(self.most);
            return Some(wait + jitter(wait / 2, random));
        }
        let doublings = attempt.saturating_sub(1).min(20);
        Some(jitter((self.first * (1 << doublings)).min(self.most), random))
    }
}

/// The status of a call, `UNAVAILABLE` if its connection broke or was never made.
pub(crate) fn lost(status: Status) -> Status {
    // A status with a source was made on this side; one from the server has none.
    let Some(source) = std::error::Error::source(&status) else { return status };
    match status.code() {
        Code::Unavailable | Code::Unknown | Code::Internal | Code::Cancelled => {
            let mut last = source.to_string();
            let mut text = format!("the server is not reached: {last}");
            let mut cause = source.source();
            while let Some(error) = cause {
                let own = error.to_string();
                // Some causes are in the text of what they led to.
                if !last.contains(&own) {
                    text += &format!(": {own}");
                    last = own;
                }
                cause = error.source();
            }
            Status::unavailable(text)
        }
        _ => status,
    }
}

/// A random part of a duration.
fn jitter(most: Duration, random: &mut Pcg32) -> Duration {
    most.mul_f64(f64::from(random.next_u32()) / f64::from(u32::MAX))
}

/// A status that says when to try again.
pub(crate) fn with_hint(mut status: Status, wait: Duration) -> Status {
    let milliseconds = wait.as_millis().clamp(1, 60_000) as u64;
    status.metadata_mut().insert(PUSHBACK, milliseconds.into());
    status
}

#[cfg(test)]
mod tests {
    use super::*;

    fn random() -> Pcg32 {
        Pcg32::new(1, 1)
    }

    #[test]
    fn waits_double_up_to_the_longest() {
        let retry = Retry { attempts: 100, first: Duration::from_millis(10), most: Duration::from_millis(100) };
        let status = Status::unavailable("");
        let mut random = random();
        let mut longest = |attempt| {
            let wait = |_| retry.wait(attempt, &status, &mut random).unwrap().as_secs_f64() * 1e3;
            (0..200).map(wait).fold(0.0, f64::max)
        };
        for (attempt, most) in [(1, 10.0), (2, 20.0), (3, 40.0), (5, 100.0), (90, 100.0)] {
            let longest = longest(attempt);
            assert!(longest <= most && longest > 0.9 * most, "{attempt}: {longest}");
        }
    }

    #[test]
    fn what_was_refused_is_final() {
        let retry = Retry::default();
        for (status, again) in [
            (Status::unavailable(""), true),
            (Status::resource_exhausted(""), true),
            (Status::invalid_argument(""), false),
            (Status::not_found(""), false),
            (Status::failed_precondition(""), false),
            (Status::internal("said by the server"), false),
            (Status::deadline_exceeded(""), true),
        ] {
            assert_eq!(retry.wait(1, &status, &mut random()).is_some(), again, "{status:?}");
            assert_eq!(retry.wait(retry.attempts, &status, &mut random()), None);
        }
    }

    #[test]
    fn a_cause_is_said_once() {
        #[derive(Debug)]
        struct Link(&'static str, Option<Box<Link>>);
        impl std::fmt::Display for Link {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.0)
            }
        }
        impl std::error::Error for Link {
            fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
                self.1.as_deref().map(|link| link as &(dyn std::error::Error + 'static))
            }
        }
        let refused = || Link("refused (111)", None);
        let chain = Link("transport error", Some(Box::new(Link("connect: refused (111)", Some(Box::new(refused()))))));
        let status = lost(Status::from_error(Box::new(chain)));
        assert_eq!(status.message(), "the server is not reached: transport error: connect: refused (111)");
    }

    #[test]
    fn the_server_says_when() {
        let status = with_hint(Status::resource_exhausted(""), Duration::from_millis(300));
        let wait = Retry::default().wait(1, &status, &mut random()).unwrap();
        assert!((300..=450).contains(&wait.as_millis()), "{wait:?}");
        let mut never = Status::resource_exhausted("");
        never.metadata_mut().insert(PUSHBACK, tonic::metadata::MetadataValue::from_static("-1"));
        assert_eq!(Retry::default().wait(1, &never, &mut random()), None);
    }
}
