"""The one exception tree. Each message says what arrived, what was expected and what to do next.

Only the command line turns these into a line on stderr and an exit code.
"""

from __future__ import annotations


class MmtlError(Exception):
    """Anything this project can explain to a person."""

    exit_code = 1


class UsageError(MmtlError):
    """The options, or the files they name, cannot be used as asked."""

    exit_code = 2


class SourceError(MmtlError):
    """Sound cannot be had from a device, a file or a pipe."""

    exit_code = 3


class SoundWarning(UserWarning):
    """Some of a sound file is missing, or its channels are doubtful; the rest is used."""


class DeviceError(SourceError):
    """The sound device is missing, busy or unknown."""


class ModelError(MmtlError):
    """A checkpoint, bundle or profile cannot be trusted or does not fit."""

    exit_code = 4


class BundleError(ModelError):
    """A bundle is incomplete, changed or of an unknown version."""


class ProfileError(ModelError):
    """A speaker's profile is missing, damaged or made for another bundle."""


class EngineError(MmtlError):
    """An inference engine cannot be built, loaded or run."""

    exit_code = 5


class RealTimeError(MmtlError):
    """The machine cannot keep up with the sound (raised only when asked to be strict)."""

    exit_code = 6


class VerificationError(MmtlError):
    """Two computations that must agree do not."""

    exit_code = 7
