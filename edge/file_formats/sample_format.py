"""Sample format check: detects that a stream declared as raw 16-bit samples has another format.

Bytes decoded in the wrong format are noise: neighbouring values are unrelated. So each format that is
often sent by mistake is tried, and the roughness of its samples is compared with that of the declared
format:

    roughness = 1 - r(1) = E[(x[n+1] - x[n])^2] / (2 E[x^2])      0 smooth, 1 white noise, 2 alternating

Speech recorded at 8 kHz or more has 0.02 to 0.6. `benchmarks/sample_formats.py` measures how many
wrong formats are found, and how many recordings of speech and noise are called wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edge.arrays import Array

WINDOW_BYTES: Final = 4_800
"""Window length; whole samples of every format, from the start of the stream."""
ACTIVE_RMS: Final = 0.01
"""Relative to full scale; a quieter window is not used."""
DECIDED_AFTER: Final = (8, 16, 32, 64)
"""Numbers of active windows after which the formats are compared. The check ends with the last, or with the
first at which the declared format explains the sound better than any other."""
ROUGH: Final = 0.5
"""A format of this roughness or more is wrong."""
SMOOTHER: Final = 0.6
"""Another format is the better explanation below this share of the declared format's roughness."""
ALTERNATING: Final = 1.7
"""Roughness above which the declared format carries a tone near half the sample rate, or two channels."""
EQUAL_BYTES: Final = 0.2
"""Even and odd bytes have the same distribution below this total variation distance. Samples that are 0 do
not count."""
ASYMMETRY: Final = 1.5
"""Ratio of two sums over pairs of neighbours, which are equal in a mono stream up to random variation."""
SAME_PAIRS: Final = 0.3
"""Both channels are the same where the difference within pairs is below this share of that between pairs."""
FLATTEST_KURTOSIS: Final = 2.2
"""Compressed data is uniformly distributed, with a kurtosis of 1.8; recorded noise has 3 or more."""
LOUD_RMS: Final = 0.3
"""Relative to full scale; compressed data has 0.58."""

PAIRS: Final = "two channels or 32-bit samples"
NOISE: Final = "noise at full scale, as from compressed or encrypted data"


def _companded(law: Callable[[NDArray[np.int64]], NDArray[np.int64]]) -> Callable[[bytes], Array]:
    table = (law(np.arange(256)) / 32_768.0).astype(np.float32)
    return lambda data: table[np.frombuffer(data, np.uint8)]


def _mu_law(code: NDArray[np.int64]) -> NDArray[np.int64]:
    """Expand ITU-T G.711 mu-law codes to 16 bits."""
    code = code ^ 0xFF
    size = (((code & 15) << 3) + 132 << (code >> 4 & 7)) - 132
    return np.where(code & 0x80, -size, size)


def _a_law(code: NDArray[np.int64]) -> NDArray[np.int64]:
    """Expand ITU-T G.711 A-law codes to 16 bits."""
    code = code ^ 0x55
    exponent, mantissa = code >> 4 & 7, (code & 15) << 4
    size = np.where(exponent == 0, mantissa + 8, mantissa + 264 << np.maximum(exponent - 1, 0))
    return np.where(code & 0x80, size, -size)


def _integers(dtype: str, middle: float = 0.0) -> Callable[[bytes], Array]:
    full_scale = 2.0 ** (8 * np.dtype(dtype).itemsize - 1)
    return lambda data: ((np.frombuffer(data, dtype) - middle) / full_scale).astype(np.float32)


def _floats(dtype: str) -> Callable[[bytes], Array]:
    """Return a decoder of floats, which returns no samples where one is implausible for audio in [-1, 1]."""

    def decode(data: bytes) -> Array:
        values = np.frombuffer(data, dtype).astype(dtype[1:])
        with np.errstate(invalid="ignore"):  # signalling NaNs
            size = np.abs(values)
            plausible = (size <= 8.0) & ((size > 1e-9) | (size == 0.0))
        return values.astype(np.float32) if plausible.all() else np.zeros(0, np.float32)

    return decode


def _packed_24(data: bytes) -> Array:
    values = np.zeros((len(data) // 3, 4), np.uint8)
    values[:, 1:] = np.frombuffer(data, np.uint8).reshape(-1, 3)
    return (values.view("<i4")[:, 0] / 2.0**31).astype(np.float32)


DECLARED: Final = "s16le"
BYTES: Final = {
    "unsigned 8-bit samples": _integers("u1", 128.0),
    "signed 8-bit samples": _integers("i1"),
    "mu-law": _companded(_mu_law),
    "A-law": _companded(_a_law),
}
"""Formats of one byte a sample, whose even and odd bytes have the same distribution."""
FLOATS: Final = {
    "64-bit floats": _floats("<f8"),
    "32-bit floats": _floats("<f4"),
    "big-endian 32-bit floats": _floats(">f4"),
}
"""Random bytes are rarely plausible floats: if all are, and the declared format is rough, this is the format.
Half of a 64-bit float may look like a 32-bit one, but not the reverse."""
FORMATS: Final = {
    DECLARED: _integers("<i2"),
    "big-endian 16-bit samples": _integers(">i2"),
    "packed 24-bit samples": _packed_24,
    PAIRS: _integers("<i4"),
    **FLOATS,
    **BYTES,
}


@dataclass
class _Roughness:
    """Sums over windows; `failed` where a window cannot be of the format."""

    steps: float = 0.0
    power: float = 0.0
    failed: bool = False

    def add(self, samples: Array) -> None:
        self.failed = self.failed or not len(samples)
        if self.failed:
            return
        centred = samples.astype(np.float64) - samples.mean(axis=0)
        self.steps += float(np.square(np.diff(centred, axis=0)).sum()) / 2.0
        self.power += float(np.square(centred).sum())

    @property
    def value(self) -> float:
        return self.steps / self.power if self.power and not self.failed else np.inf


@dataclass
class _Pairs:
    """Sums over (even, odd) neighbours and over (odd, even) neighbours: equal in a stationary mono stream."""

    within: NDArray[np.float64] = field(default_factory=lambda: np.zeros(3))
    """Squared difference, squared sum, and the power of the even samples."""
    between: NDArray[np.float64] = field(default_factory=lambda: np.zeros(3))
    """The same; the power is that of the odd samples."""

    def add(self, samples: NDArray[np.float64]) -> None:
        even, odd = samples[::2], samples[1::2]
        self.within += [_power(even - odd), _power(even + odd), _power(even)]
        self.between += [_power(odd[:-1] - even[1:]), _power(odd[:-1] + even[1:]), _power(odd)]

    @property
    def asymmetry(self) -> float:
        """The largest ratio of two sums that should be equal, >= 1."""
        least, most = np.minimum(self.within, self.between), np.maximum(self.within, self.between)
        return float(np.max(most / np.maximum(least, 1e-12)))

    @property
    def same(self) -> bool:
        return bool(self.within[0] < SAME_PAIRS * self.between[0])


class SampleFormatCheck:
    """Examines the first sound of a stream of raw s16le, and names a format that explains it better.

    Remembers sums over at most 64 active windows of 0.15 s (mono at 16 kHz), and less than one window of
    bytes.
    """

    def __init__(self) -> None:
        self._rest = b""
        self._active = 0
        self._settled = self._ended = False
        self._roughness = {name: _Roughness() for name in FORMATS}
        self._channels = _Roughness()
        self._pairs = _Pairs()
        self._byte_values = np.zeros((2, 256))
        self._moments = np.zeros(3)

    def feed(self, data: bytes) -> str | None:
        """Examine the next bytes; return the probable format once, when it is found, and None otherwise."""
        if self._ended:
            return None
        self._rest += data
        found = None
        while len(self._rest) >= WINDOW_BYTES and not self._ended:
            window, self._rest = self._rest[:WINDOW_BYTES], self._rest[WINDOW_BYTES:]
            if self._examined(window) and self._active in DECIDED_AFTER:
                found = self._verdict()
                self._ended = found is not None or self._settled or self._active == DECIDED_AFTER[-1]
        return found

    def _examined(self, window: bytes) -> bool:
        """Add a window to the sums, unless it is quiet."""
        samples = FORMATS[DECLARED](window)
        centred = samples.astype(np.float64) - samples.mean()
        if _power(centred) < ACTIVE_RMS**2 * len(centred):
            return False
        self._active += 1
        for name, decode in FORMATS.items():
            self._roughness[name].add(decode(window))
        self._channels.add(samples.reshape(-1, 2))
        self._pairs.add(centred)
        # Digital silence looks the same in all formats.
        values = np.frombuffer(window, np.uint8).reshape(-1, 2)[samples != 0.0]
        self._byte_values += [np.bincount(column, minlength=256) for column in values.T]
        self._moments += [len(centred), _power(centred), _power(np.square(centred))]
        return True

    def _verdict(self) -> str | None:
        tried = {name: sums.value for name, sums in self._roughness.items()}
        tried[PAIRS] = min(tried[PAIRS], self._channels.value)
        declared = tried.pop(DECLARED)
        if declared > ROUGH and (plausible := [name for name in FLOATS if np.isfinite(tried[name])]):
            return plausible[0]
        shares = self._byte_values / self._byte_values.sum(axis=1, keepdims=True)
        distance = float(np.abs(shares[0] - shares[1]).sum()) / 2.0
        paired = self._pairs.asymmetry >= ASYMMETRY
        candidates = {
            name: value
            for name, value in tried.items()
            if (distance < EQUAL_BYTES or name not in BYTES)
            and (paired if name == PAIRS else declared < ALTERNATING)
        }
        best = min(candidates, key=lambda name: candidates[name], default=PAIRS)
        if candidates and candidates[best] < min(ROUGH, SMOOTHER * declared):
            return best
        if self._pairs.same:
            return PAIRS
        self._settled = declared < min(ROUGH, SMOOTHER * min(tried.values()))
        return NOISE if distance < EQUAL_BYTES and self._is_flat(declared) else None

    def _is_flat(self, declared: float) -> bool:
        """Tell whether the samples are white and uniformly distributed over full scale."""
        count, squares, fourth_powers = self._moments
        kurtosis, rms = fourth_powers * count / squares**2, np.sqrt(squares / count)
        return bool(kurtosis < FLATTEST_KURTOSIS and rms > LOUD_RMS and 0.8 < declared < 1.2)


def _power(samples: NDArray[np.floating]) -> float:
    return float(np.square(samples).sum())
