//! When to try again: backoff with jitter, and the server's own word.

use std::time::Duration;

use rand_pcg::Pcg32;
use rand_pcg::rand_core::RngCore;
use tonic::{Code, Status};

/// Metadata with the milliseconds after which a call may be tried again: the pushback of gRPC's retry design (gRFC A6).
const PUSHBACK: &str = "grpc-retry-pushback-ms";
/// Longest hint of ours.
const LONGEST: Duration = Duration::from_secs(60);

/// How often a call is tried, and how long to wait in between: exponential backoff with full jitter.
#[derive(Debug, Clone, PartialEq)]
pub struct Retry {
    /// Attempts in all, at least 1. A server that is full and says when to come again is waited for until the time is over,
    /// unless this is 1. Default 8.
    pub attempts: u32,
    /// Longest wait before the second attempt, twice as long before each later one. Default 20 ms.
    pub first: Duration,
    /// Longest wait of all, unless a server asks for a longer one. Default 1 s.
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
        // Without a hint it may be the request that is too large.
        let full = status.code() == Code::ResourceExhausted && status.metadata().contains_key(PUSHBACK);
        let waits = full && self.attempts > 1;
        if !again.contains(&status.code()) || attempt >= self.attempts && !waits {
            return None;
        }
        if let Some(text) = status.metadata().get(PUSHBACK) {
            // A negative number, or none, means: do not try again.
            let wait: u32 = text.to_str().ok()?.parse().ok()?;
            let wait = Duration::from_millis(wait.into());
            return Some(wait + jitter(wait / 2, random));
        }
        let doublings = attempt.saturating_sub(1).min(20);
        Some(jitter((self.first * (1 << doublings)).min(self.most), random))
    }
}

/// Whether a connection was not made because of the server's certificate.
fn is_of_certificate(error: &(dyn std::error::Error + 'static)) -> bool {
    let error = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
    let error = error.and_then(|error| error.downcast_ref::<tokio_rustls::rustls::Error>());
    matches!(error, Some(tokio_rustls::rustls::Error::InvalidCertificate(_)))
}

/// The status of a call, `UNAVAILABLE` if its connection broke or was never made, and `UNAUTHENTICATED` if the server is not
/// who it should be.
pub(crate) fn lost(status: Status) -> Status {
    // A status with a source was made on this side; one from the server has none.
    let Some(source) = std::error::Error::source(&status) else { return status };
    match status.code() {
        Code::Unavailable | Code::Unknown | Code::Internal | Code::Cancelled => {
            let mut last = source.to_string();
            let mut text = format!("the server is not reached: {last}");
            let mut cause = source.source();
            let mut known = !is_of_certificate(source);
            while let Some(error) = cause {
                known &= !is_of_certificate(error);
                let own = error.to_string();
                // Some causes are in the text of what they led to.
                if !last.contains(&own) {
                    text += &format!(": {own}");
                    last = own;
                }
                cause = error.source();
            }
            // Another try would find the same certificate.
            if known { Status::unavailable(text) } else { Status::unauthenticated(text) }
        }
        _ => status,
    }
}

/// A random part of a duration.
fn jitter(most: Duration, random: &mut Pcg32) -> Duration {
    most.mul_f64(f64::from(random.next_u32()) / f64::from(u32::MAX))
}

/// A status that says when to try again.
pub(crate) fn with_hint(status: Status, wait: Duration) -> Status {
    hinted(status, wait.min(LONGEST).as_millis().max(1) as i64)
}

/// A status that says that it makes no sense to try again.
pub(crate) fn final_now(status: Status) -> Status {
    hinted(status, -1)
}

/// A status with a hint: milliseconds, or -1 for never.
pub(crate) fn hinted(mut status: Status, milliseconds: i64) -> Status {
    status.metadata_mut().insert(PUSHBACK, milliseconds.into());
    status
}

/// The hint in a status.
pub(crate) fn hint(status: &Status) -> Option<i64> {
    status.metadata().get(PUSHBACK)?.to_str().ok()?.parse().ok()
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
            // Who says when to come again is believed, unless there is to be one attempt.
            let full = status.code() == Code::ResourceExhausted;
            let hinted = with_hint(status, Duration::from_millis(5));
            assert_eq!(retry.wait(retry.attempts, &hinted, &mut random()).is_some(), full, "{hinted:?}");
            assert_eq!(Retry { attempts: 1, ..retry.clone() }.wait(1, &hinted, &mut random()), None);
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
        assert_eq!(Retry::default().wait(1, &final_now(Status::resource_exhausted("")), &mut random()), None);
        // Also if that is longer than the longest wait of its own.
        let status = with_hint(Status::resource_exhausted(""), Duration::from_secs(8));
        assert_eq!(hint(&status), Some(8000));
        assert!(Retry::default().wait(1, &status, &mut random()).unwrap() >= Duration::from_secs(8));
    }
}
