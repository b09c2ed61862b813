//! Errors, sorted by what the caller can do about them.

use std::borrow::Cow;
use std::fmt;

/// Everything that can go wrong, by what to do about it.
///
/// The decode path never allocates to make an error: its variants carry static words and numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// The caller passed something the codec cannot take: fix the call.
    InvalidInput(Cow<'static, str>),
    /// The bytes are not a valid stream or profile: ask for them again.
    Corrupt {
        /// What is wrong.
        what: &'static str,
        /// Byte offset at which it was noticed.
        offset: usize,
    },
    /// The bytes end early: more of them may help.
    Truncated {
        /// What was being read.
        what: &'static str,
        /// Byte offset at which the bytes ended.
        offset: usize,
    },
    /// A valid stream or profile of a kind that this version does not read: update.
    Unsupported {
        /// The feature that is not supported.
        what: &'static str,
    },
    /// A limit would be exceeded: raise it in [`Limits`](crate::Limits) or in the [`Quality`](crate::Quality), or refuse.
    LimitExceeded {
        /// The limit, by name.
        what: &'static str,
        /// What would have been needed.
        needed: u64,
        /// What the limit allows.
        limit: u64,
    },
    /// The stream was made with another profile: fetch the right one.
    ProfileMismatch {
        /// Hash of the profile that the stream names.
        stream: u64,
        /// Hash of the profile that was given, if one was.
        given: Option<u64>,
    },
    /// The compute backend failed or is missing: choose another.
    Backend(Cow<'static, str>),
}

/// `Result` with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub(crate) fn invalid(message: impl Into<Cow<'static, str>>) -> Self {
        Error::InvalidInput(message.into())
    }

    pub(crate) fn corrupt(what: &'static str, offset: usize) -> Self {
        Error::Corrupt { what, offset }
    }

    pub(crate) fn truncated(what: &'static str, offset: usize) -> Self {
        Error::Truncated { what, offset }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::InvalidInput(message) => write!(f, "invalid input: {message}"),
            Error::Corrupt { what, offset } => write!(f, "corrupt: {what} (at byte {offset})"),
            Error::Truncated { what, offset } => {
                write!(f, "truncated: the bytes end at {offset}, within {what}")
            }
            Error::Unsupported { what } => write!(f, "not supported by this version: {what}"),
            Error::LimitExceeded { what, needed, limit } => {
                write!(f, "{what}: needs {needed}, the limit is {limit}")
            }
            Error::ProfileMismatch { stream, given: Some(given) } => {
                write!(f, "the stream was made with profile {stream:016x}, but profile {given:016x} was given")
            }
            Error::ProfileMismatch { stream, given: None } => {
                write!(f, "the stream was made with profile {stream:016x}, but no profile was given")
            }
            Error::Backend(message) => write!(f, "backend: {message}"),
        }
    }
}

impl std::error::Error for Error {}
