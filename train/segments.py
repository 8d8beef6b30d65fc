"""Power spectra of clips in memory, and the normalisation fitted to the training set."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, Protocol

import numpy as np
import torch
import torchaudio
from numpy.typing import NDArray

from edge.arrays import Array
from edge.audio.sound_file import read_clip
from edge.features.frontend import FrontEnd, filtered, power_spectrogram
from edge.features.normaliser import (
    DECIBEL,
    BinStatistics,
    GainConfig,
    frame_levels,
    initial_state,
    log_power,
    track_gain,
)
from train.corpora import Clip

EPS: Final = np.float32(1e-6)
"""Added to the power of a segment that is standardised by itself."""

_TINY = np.float32(1e-12)


@dataclass(frozen=True)
class Spectra:
    """One clip's power spectra, stored as float16 logarithms (error at most 0.8 % of the power)."""

    clip: Clip
    logs: NDArray[np.float16]
    """(T, F)."""
    speed: float = 1.0
    """Playback speed relative to the recording; the pitch rises with it."""

    @property
    def frames(self) -> int:
        """T."""
        return len(self.logs)

    def power(self, start: int = 0, stop: int | None = None) -> Array:
        """Return the (stop - start, F) power spectra of some frames."""
        power: Array = np.exp(self.logs[start:stop].astype(np.float32))
        return power


def read_spectra(
    clips: Sequence[Clip],
    front_end: FrontEnd,
    shortest: int,
    progress: Callable[[Sequence[Clip], str], Iterable[Clip]] | None = None,
    speeds: Sequence[float] = (),
) -> list[Spectra]:
    """Read clips and compute their spectra.

    Args:
        clips: what to read.
        front_end: the constants.
        shortest: frames that the network needs; a shorter clip is padded with silence.
        progress: wraps the clips to show the progress.
        speeds: further playback speeds at which each clip is added.

    Raises:
        SourceError: a clip cannot be read.
    """
    spectra: list[Spectra] = []
    for clip in progress(clips, "reading clips") if progress else clips:
        waveform = read_clip(clip.path)
        spectra += [
            Spectra(clip, log_spectra(waveform, front_end, shortest, speed), speed)
            for speed in (1.0, *speeds)
        ]
    return spectra


def log_spectra(
    waveform: Array, front_end: FrontEnd, shortest: int, speed: float = 1.0
) -> NDArray[np.float16]:
    """Compute the (T, F) logarithms of the power spectra of (N,) samples; T is at least `shortest`."""
    samples = filtered(_at_speed(waveform, speed, front_end.sample_rate), front_end)
    samples = np.pad(samples, (0, max(0, front_end.samples_in(shortest) - len(samples))))
    logs: NDArray[np.float16] = np.log(power_spectrogram(samples, front_end) + _TINY).astype(np.float16)
    return logs


class SpectraReader(Protocol):
    """Reads clips and computes their spectra, as `read_spectra` does."""

    def __call__(
        self,
        clips: Sequence[Clip],
        front_end: FrontEnd,
        shortest: int,
        progress: Callable[[Sequence[Clip], str], Iterable[Clip]] | None = None,
        speeds: Sequence[float] = (),
    ) -> list[Spectra]:
        """Return the spectra of each clip at each speed, in the order of the clips."""


class SpectraMemory:
    """Reads clips as `read_spectra` does, each once, for runs that read the same clips in turn."""

    def __init__(self, read: SpectraReader = read_spectra) -> None:
        self._read = read
        self._kept: dict[tuple[Path, float, FrontEnd, int], Spectra] = {}

    def __call__(
        self,
        clips: Sequence[Clip],
        front_end: FrontEnd,
        shortest: int,
        speeds: Sequence[float] = (),
    ) -> list[Spectra]:
        """Return the spectra of clips, computing those that are not kept."""
        every = (1.0, *speeds)

        def key(clip: Clip, speed: float) -> tuple[Path, float, FrontEnd, int]:
            return clip.path, speed, front_end, shortest

        unread = [clip for clip in clips if any(key(clip, speed) not in self._kept for speed in every)]
        for item in self._read(unread, front_end, shortest, speeds=speeds):
            self._kept[key(item.clip, item.speed)] = item
        return [self._kept[key(clip, speed)] for clip in clips for speed in every]


@dataclass(frozen=True)
class Normalisation:
    """Gain control and bin statistics of the network's input, fitted to the training speakers.

    With `window` and zero padding it is the paper's input, which cannot be streamed.
    """

    levels: GainConfig
    statistics: BinStatistics
    scope: Literal["training", "window"] = "training"
    """`window`: each segment has mean 0 and deviation 1 over all of its frames and bins; no gain control, and
    no statistics."""
    padded_to: int = 0
    """Frames to which a segment is padded with zeros, which the network then reads."""

    def padded(self, segment: Array) -> Array:
        """Pad a normalised (T, F) segment with zeros."""
        missing = max(0, self.padded_to - len(segment))
        longer: Array = np.pad(segment, ((0, missing), (0, 0))) if missing else segment
        return longer


def fit_normalisation(training: Sequence[Spectra], **constants: float) -> Normalisation:
    """Fit the reference level and each bin's mean and standard deviation.

    Args:
        training: spectra of training speakers only.
        constants: fields of `GainConfig` to override.
    """
    gate = GainConfig(**constants).gate_db * DECIBEL
    speech = [levels[levels > levels.max() - gate].mean() for levels in map(_levels, training)]
    levels = GainConfig(reference=float(np.mean(speech)), **constants)
    total, squares, count = 0.0, 0.0, 0
    for spectra in training:
        frames = normal_logs(spectra, levels).astype(np.float64)
        total, squares, count = total + frames.sum(0), squares + (frames**2).sum(0), count + len(frames)
    mean = np.asarray(total / count)
    std = np.sqrt(np.maximum(squares / count - mean**2, 1e-4))
    return Normalisation(levels, BinStatistics(mean.astype(np.float32), std.astype(np.float32)))


def normal_logs(spectra: Spectra, levels: GainConfig) -> Array:
    """Return the (T, F) gain-controlled log power of a clip, which starts a new stream."""
    power = spectra.power()
    estimates, _ = track_gain(frame_levels(power), initial_state(levels), levels)
    return log_power(power, estimates, levels.eps)


def normalised(spectra: Spectra, normalisation: Normalisation) -> Array:
    """Return the (T, F) network input of a clip, which starts a new stream."""
    statistics = normalisation.statistics
    frames: Array = (normal_logs(spectra, normalisation.levels) - statistics.mean) / statistics.std
    return frames


def network_input(spectra: Spectra, normalisation: Normalisation, start: int, window: int) -> Array:
    """Return one segment of a clip as the network reads it: at most `window` frames, or `padded_to`."""
    if normalisation.scope == "window":
        return normalisation.padded(standardised(spectra.power(start, start + window)))
    return normalisation.padded(normalised(spectra, normalisation)[start : start + window])


def standardised(power: Array) -> Array:
    """Map (T, F) power spectra to logarithms of mean 0 and deviation 1 over all frames and bins."""
    logs = np.log(power + EPS)
    values: Array = (logs - logs.mean()) / np.maximum(logs.std(), EPS)
    return values


def segment_starts(frames: int, window: int) -> list[int]:
    """Cut a clip into the fewest segments of at most `window` frames, evenly spread.

    Cai et al. 2020, section 3.1.1: segments of equal length, at most 3 s.
    """
    count = max(1, math.ceil(frames / window))
    return [round(start) for start in np.linspace(0, max(0, frames - window), count)]


def _at_speed(waveform: Array, speed: float, sample_rate: int) -> Array:
    if speed == 1.0:
        return waveform
    faster, _ = torchaudio.functional.speed(torch.from_numpy(waveform), sample_rate, speed)
    samples: Array = faster.numpy()
    return samples


def _levels(spectra: Spectra) -> Array:
    return frame_levels(spectra.power())
