"""High-pass and mains-hum notches: removes offset, rumble and hum before anything is measured.

They carry no speech, but raise the lowest bins, the level and, through the sidelobes of the analysis
window, every quiet bin. `docs/robust_input.md` has the measurements.
"""

from __future__ import annotations

import functools
import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

MAINS_HZ: Final = (50.0, 60.0)
"""Both have a notch: the mains frequency of a stream is unknown."""
BUTTERWORTH_Q: Final = (0.54119610, 1.30656296)
"""Of the two sections of a high-pass of fourth order: 1 / (2 cos(pi / 8)) and 1 / (2 cos(3 pi / 8))."""
BLOCK: Final = 128
"""Samples filtered by one matrix product."""
INAUDIBLE: Final = 1e-20
"""Smaller states are set to 0: in digital silence they would become subnormal numbers, which are slow."""
_SECTIONS: Final = len(BUTTERWORTH_Q) + len(MAINS_HZ)
_STATES: Final = 2 * _SECTIONS

Section = tuple[float, float, float, float, float]
"""Coefficients b0, b1, b2, a1, a2 of a second-order section; a0 is 1."""


class InputFilter:
    """Filters one stream: a Butterworth high-pass of fourth order and a notch at 50 and at 60 Hz.

    Starts in the steady state of the first sample, so that an offset makes no click. Remembers the states
    of its sections and fewer than `BLOCK` samples; `reset` forgets them. The output has no delay and does
    not depend, bit for bit, on how the input is divided: samples are filtered in blocks of `BLOCK` counted
    from the start of the stream, of which the newest may be incomplete.
    """

    def __init__(self, sample_rate: int, high_pass_hz: float, notch_q: float) -> None:
        """Prepare a stream.

        Args:
            sample_rate: Hz.
            high_pass_hz: where the high-pass is 3 dB down, Hz; 0 for none.
            notch_q: quality factor of the notches, centre frequency over bandwidth; 0 for none.
        """
        sections = _sections(sample_rate, high_pass_hz, notch_q)
        self._matrix, self._steady = _block_matrix(sections), _steady_state(sections)
        self.reset()

    def reset(self) -> None:
        """Forget the stream."""
        self._given = np.zeros(BLOCK + _STATES)
        self._filled = 0
        self._started = False

    def feed(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """Take the next (N,) samples and return the same (N,) filtered, float32."""
        filtered = np.empty(len(samples), np.float32)
        if len(samples) and not self._started:
            self._given[BLOCK:] = self._steady * float(samples[0])
            self._started = True
        done = 0
        while done < len(samples):
            count = min(BLOCK - self._filled, len(samples) - done)
            filtered[done : done + count] = self._filter(samples[done : done + count])
            done += count
        return filtered

    def _filter(self, samples: NDArray[np.float32]) -> NDArray[np.float64]:
        """Filter samples of one block; later samples are 0 and do not affect earlier ones."""
        first, last = self._filled, self._filled + len(samples)
        self._given[first:last] = samples
        product = self._matrix @ self._given
        if last < BLOCK:
            self._filled = last
        else:
            states = product[BLOCK:]
            self._given[BLOCK:] = np.where(np.abs(states) < INAUDIBLE, 0.0, states)
            self._given[:BLOCK], self._filled = 0.0, 0
        filtered: NDArray[np.float64] = product[first:last]
        return filtered


def _sections(sample_rate: int, high_pass_hz: float, notch_q: float) -> tuple[Section, ...]:
    """Design the filter by the bilinear transform (R. Bristow-Johnson, Audio EQ Cookbook)."""
    turn = 2.0 * math.pi / sample_rate
    high_pass = [_high_pass(turn * high_pass_hz, q) for q in BUTTERWORTH_Q] if high_pass_hz > 0 else []
    notches = [_notch(turn * hz, notch_q) for hz in MAINS_HZ] if notch_q > 0 else []
    unchanged: Section = (1.0, 0.0, 0.0, 0.0, 0.0)
    return (*high_pass, *notches, *[unchanged] * (_SECTIONS - len(high_pass) - len(notches)))


def _notch(angle: float, quality: float) -> Section:
    alpha, cosine = math.sin(angle) / (2.0 * quality), math.cos(angle)
    scale = 1.0 / (1.0 + alpha)
    return scale, -2.0 * cosine * scale, scale, -2.0 * cosine * scale, (1.0 - alpha) * scale


def _high_pass(angle: float, quality: float) -> Section:
    alpha, cosine = math.sin(angle) / (2.0 * quality), math.cos(angle)
    scale = 1.0 / (1.0 + alpha)
    gain = 0.5 * (1.0 + cosine) * scale
    return gain, -2.0 * gain, gain, -2.0 * cosine * scale, (1.0 - alpha) * scale


def _step(
    sections: tuple[Section, ...], value: NDArray[np.float64], states: list[NDArray[np.float64]]
) -> tuple[NDArray[np.float64], list[NDArray[np.float64]]]:
    """Filter one sample by the sections in turn (transposed direct form II); values of any shape."""
    after = []
    for index, (b0, b1, b2, a1, a2) in enumerate(sections):
        first, second = states[2 * index : 2 * index + 2]
        output = b0 * value + first
        after += [b1 * value - a1 * output + second, b2 * value - a2 * output]
        value = output
    return value, after


@functools.lru_cache(maxsize=8)
def _block_matrix(sections: tuple[Section, ...]) -> NDArray[np.float64]:
    """Return (BLOCK + S, BLOCK + S): a block's samples and the states before it to output and states after.

    The filter is linear, so running it on the unit vectors gives its matrix.
    """
    unit = np.eye(BLOCK + _STATES)
    outputs, states = [], list(unit[BLOCK:])
    for value in unit[:BLOCK]:
        output, states = _step(sections, value, states)
        outputs.append(output)
    matrix = np.array([*outputs, *states])
    matrix.setflags(write=False)
    return matrix


@functools.lru_cache(maxsize=8)
def _steady_state(sections: tuple[Section, ...]) -> NDArray[np.float64]:
    """Return the (S,) states after a constant input of 1 of infinite duration."""
    states, value = [], 1.0
    for b0, b1, b2, a1, a2 in sections:
        output = value * (b0 + b1 + b2) / (1.0 + a1 + a2)
        states += [output - b0 * value, b2 * value - a2 * output]
        value = output
    return np.array(states)
