"""Sound to short-time power spectra: framing, windowing and the DFT, of a recording or a stream.

Units: samples are float32 in [-1, 1] at `FrontEnd.sample_rate`; power is |X|^2 of the windowed
frame, without normalisation.
"""

from __future__ import annotations

import functools
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal

import numpy as np

from edge.arrays import SAMPLE_RATE, Array
from edge.bounds import within
from edge.features.input_filter import InputFilter
from edge.stream_buffer import StreamBuffer

Spectrum = Literal["linear", "log_mel", "mel_power"]

MEL_BANDS: Final = 80
"""Values of a frame of the log mel spectrogram."""

MEL_POWER_BANDS: Final = 40
"""Values of a frame of the mel power spectrum."""


@dataclass(frozen=True)
class FrontEnd:
    """The constants of framing and spectra, which training and deployment must share.

    Differs: Cai et al. 2020 (section 3.1.1) state a window of 200 ms with a DFT of 800 points,
    which cannot both hold at 16 kHz. Here `win_length_ms` is 40, as in Satt et al. 2017; a longer
    one is time-folded onto the `n_fft` points, which samples the long window's spectrum exactly.
    """

    sample_rate: int = field(default=SAMPLE_RATE, metadata=within(8_000, 48_000))
    """Hz."""
    win_length_ms: int = field(default=40, metadata=within(1, 500))
    hop_length_ms: int = field(default=10, metadata=within(1, 100))
    n_fft: int = field(default=800, metadata=within(16, 8_192))
    """Points of the DFT: bins of 20 Hz at 16 kHz."""
    bins: int = field(default=200, metadata=within(1, 4_097))
    """DFT bins kept, from 0 Hz up: 0 to 4 kHz."""
    window_ms: int = field(default=3000, metadata=within(100, 30_000))
    """Duration of the window that the model classifies."""
    high_pass_hz: float = field(default=30.0, metadata=within(0.0, 300.0))
    """Cut-off of the input filter's high-pass; 0 for none."""
    hum_notch_q: float = field(default=5.0, metadata=within(0.0, 1_000.0))
    """Quality factor of the input filter's notches at 50 and 60 Hz; 0 for none."""
    spectrum: Spectrum = "linear"
    """What the network reads: the bins under an automatic gain (`normaliser`), the logarithms of mel bands
    (`log_mel`), or mel bands under an automatic gain (`mel_power`)."""

    @property
    def frame_size(self) -> int:
        """Values of a frame of the network's input."""
        return {"linear": self.bins, "log_mel": MEL_BANDS, "mel_power": MEL_POWER_BANDS}[self.spectrum]

    @property
    def win_length(self) -> int:
        """Samples in one analysis frame."""
        return self.sample_rate * self.win_length_ms // 1000

    @property
    def hop_length(self) -> int:
        """Samples from one frame to the next."""
        return self.sample_rate * self.hop_length_ms // 1000

    @property
    def window_frames(self) -> int:
        """Whole frames in `window_ms` of sound: 297 for the defaults.

        Differs: the paper pads with zeros to N = 300; here a frame never reaches outside its window.
        """
        return self.frames_in(self.sample_rate * self.window_ms // 1000)

    @functools.cached_property
    def full_scale_power(self) -> float:
        """Mean bin power of a signal in the kept band whose root mean square is 1 (0 dBFS).

        Parseval: sum_k |X_k|^2 = n_fft sum_n (w_n x_n)^2, half of it in the bins kept.
        """
        energy = float((_analysis_window(self) ** 2).sum())
        return self.n_fft * energy / (2.0 * self.bins)

    def deciding(self) -> dict[str, Any]:
        """Return the constants by name, as a bundle's fingerprint has them.

        Newer constants at their defaults are left out: a bundle that does not record any is used with
        them, and its fingerprint, which profiles name, stays what it was.
        """
        named, usual = asdict(self), FrontEnd()
        for name in ("high_pass_hz", "hum_notch_q", "spectrum"):
            if named[name] == getattr(usual, name):
                del named[name]
        return named

    def input_filter(self) -> InputFilter:
        """Make the filter that a stream passes first."""
        return InputFilter(self.sample_rate, self.high_pass_hz, self.hum_notch_q)

    def frames_in(self, samples: int) -> int:
        """Return the number of whole frames in a number of samples."""
        return max(0, (samples - self.win_length) // self.hop_length + 1)

    def samples_in(self, frames: int) -> int:
        """Return the number of samples that a number of consecutive frames covers."""
        return (frames - 1) * self.hop_length + self.win_length if frames > 0 else 0


def filtered(waveform: Array, front_end: FrontEnd) -> Array:
    """Pass a whole recording, (N,) float32 samples, through the input filter, as a stream of its own."""
    return front_end.input_filter().feed(waveform)


def power_spectrogram(waveform: Array, front_end: FrontEnd) -> Array:
    """Compute the power spectra of all whole frames.

    Args:
        waveform: (N,) float32 samples after the input filter.
        front_end: the constants.

    Returns:
        (T, F) float32, T = `front_end.frames_in(N)`, F = `front_end.bins`; T is 0 for short input.
    """
    frames = front_end.frames_in(len(waveform))
    if frames == 0:
        return np.zeros((0, front_end.bins), np.float32)
    windowed = _overlapping(waveform, frames, front_end) * _analysis_window(front_end)
    spectrum = np.fft.rfft(_fold(windowed, front_end.n_fft), n=front_end.n_fft)[:, : front_end.bins]
    return (spectrum.real**2 + spectrum.imag**2).astype(np.float32, copy=False)


class PowerStream:
    """Computes the same spectra from samples that arrive in blocks of any size.

    Remembers the samples of incomplete frames: fewer than one frame. `reset` forgets them. There is nothing
    to flush: the samples after the last whole frame are dropped.
    """

    def __init__(self, front_end: FrontEnd) -> None:
        self._front_end = front_end
        self.reset()

    def reset(self) -> None:
        """Forget all samples."""
        self._samples = StreamBuffer(np.zeros(0, np.float32))
        self._next = 0

    def feed(self, block: Array) -> Array:
        """Take (N,) filtered samples and return the (T, F) spectra of the frames they complete."""
        self._samples.append(block)
        power = power_spectrogram(self._samples[self._next : self._samples.end], self._front_end)
        self._next += len(power) * self._front_end.hop_length
        self._samples.forget(self._next)
        return power


def _overlapping(waveform: Array, frames: int, front_end: FrontEnd) -> Array:
    """View (N,) samples as (frames, win_length), each frame a hop after the last."""
    samples = np.ascontiguousarray(waveform)
    size = samples.itemsize
    # sliding_window_view does the same, but takes as long as the transform of a few frames.
    return np.ndarray(
        (frames, front_end.win_length),
        samples.dtype,
        buffer=samples,
        strides=(front_end.hop_length * size, size),
    )


def _analysis_window(front_end: FrontEnd) -> Array:
    """Return the (win_length,) window of a frame: Hamming's, or Hann's before mel bands, as in Whisper."""
    return _raised_cosine(front_end.win_length, 0.54 if front_end.spectrum == "linear" else 0.5)


@functools.cache
def _raised_cosine(length: int, offset: float) -> Array:
    """Return a periodic window a - (1 - a) cos(phase), as torch and scipy (sym=False) do."""
    phase = 2.0 * np.pi * np.arange(length) / length
    window: Array = (offset - (1.0 - offset) * np.cos(phase)).astype(np.float32)
    window.setflags(write=False)
    return window


def _fold(frames: Array, n_fft: int) -> Array:
    """Time-fold frames longer than the DFT: add their segments of n_fft samples."""
    frame_count, length = frames.shape
    if length <= n_fft:
        return frames
    pieces = -(-length // n_fft)
    padded = np.pad(frames, ((0, 0), (0, pieces * n_fft - length)))
    folded: Array = padded.reshape(frame_count, pieces, n_fft).sum(axis=1)
    return folded
