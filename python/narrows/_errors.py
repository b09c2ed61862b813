"""The exceptions, sorted by what the caller can do about them."""

from __future__ import annotations

from typing import Optional


class Error(Exception):
    """Anything that narrows refuses. Each subclass says what to do about it."""


class InvalidInput(Error, ValueError):
    """The caller passed something the codec cannot take: fix the call."""


class Corrupt(Error, ValueError):
    """The bytes are not a valid stream or profile: ask for them again.

    ``what`` is wrong, noticed at byte ``offset``.
    """

    def __init__(self, message: str, *, what: Optional[str] = None, offset: Optional[int] = None) -> None:
        super().__init__(message)
        self.what = what
        self.offset = offset


class Truncated(Error):
    """The bytes end early: more of them may help.

    ``what`` was being read when they ended at byte ``offset``.
    """

    def __init__(self, message: str, *, what: Optional[str] = None, offset: Optional[int] = None) -> None:
        super().__init__(message)
        self.what = what
        self.offset = offset


class Unsupported(Error):
    """A valid stream or profile of a kind that this version does not read: update.

    ``what`` is the feature that is not supported.
    """

    def __init__(self, message: str, *, what: Optional[str] = None) -> None:
        super().__init__(message)
        self.what = what


class LimitExceeded(Error):
    """A limit would be exceeded: raise it in :class:`Limits` or in the quality, or refuse.

    ``what`` names the limit, ``needed`` is what would have been needed, ``limit`` what is allowed.
    """

    def __init__(
        self,
        message: str,
        *,
        what: Optional[str] = None,
        needed: Optional[int] = None,
        limit: Optional[int] = None,
    ) -> None:
        super().__init__(message)
        self.what = what
        self.needed = needed
        self.limit = limit


class ProfileMismatch(Error):
    """The stream was made with another profile: fetch the right one.

    ``stream`` is the hash of the profile that the stream names, ``given`` that of the profile that was given, or
    ``None``: both as 16 hexadecimal digits, as :attr:`Profile.hash`.
    """

    def __init__(self, message: str, *, stream: Optional[str] = None, given: Optional[str] = None) -> None:
        super().__init__(message)
        self.stream = stream
        self.given = given


class BackendError(Error):
    """The compute backend failed or is missing: choose another."""


for _class in (Error, InvalidInput, Corrupt, Truncated, Unsupported, LimitExceeded, ProfileMismatch, BackendError):
    _class.__module__ = "narrows"
del _class
