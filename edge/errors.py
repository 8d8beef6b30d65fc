"""The exception tree. Each message says what arrived, what was expected and what to do next.

Only the command line turns an exception into a line on stderr and an exit code.
"""

from __future__ import annotations


class MmtlError(Exception):
    """An error that the project can explain to its user.

    Attributes:
        problem: what arrived, and what was expected.
        remedy: what to do next; empty if the problem says it, or if only the caller knows.
    """

    exit_code = 1

    def __init__(self, problem: str = "", *, remedy: str = "") -> None:
        super().__init__(f"{problem}: {remedy}" if remedy else problem)
        self.problem = problem
        self.remedy = remedy


class UsageError(MmtlError):
    """The options, or the files that they name, are invalid."""

    exit_code = 2


class SourceError(MmtlError):
    """A device, a file or a pipe delivers no audio."""

    exit_code = 3


class SoundWarning(UserWarning):
    """A part of a sound file is missing, or its channels cancel each other; the rest is used."""


class DeviceError(SourceError):
    """The sound device is missing, busy or unknown."""


class ModelError(MmtlError):
    """A checkpoint, bundle or profile is invalid or does not fit."""

    exit_code = 4


class BundleError(ModelError):
    """A bundle is incomplete, changed or of an unknown version."""


class ProfileError(ModelError):
    """A speaker's profile is missing, damaged or made for another bundle."""


class EngineError(MmtlError):
    """An inference engine cannot be built, loaded or run."""

    exit_code = 5


class RealTimeError(MmtlError):
    """The machine cannot keep up with the sound (raised only with --strict)."""

    exit_code = 6


class VerificationError(MmtlError):
    """Two computations that must agree do not."""

    exit_code = 7
