"""Draw batches of segments: mixed over speakers for ERM and MTL, by speaker for MMTL."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edge.arrays import Array
from edge.features.normaliser import (
    DECIBEL,
    frame_levels,
    initial_state,
    log_power,
    track_gain,
)
from edge.labels import DIMENSION_CLASSES, DIMENSIONS, EMOTIONS, Dimension, dimension_class
from train.augment import Augmentation, masked, microphone, warped, with_noise
from train.corpora import Clip
from train.mmtl import UNKNOWN, Samples, class_weights
from train.segments import Normalisation, Spectra, standardised

Batch = TypeVar("Batch")
Indices = NDArray[np.int64]


@dataclass(frozen=True)
class SamplingConfig:
    """How the batches of an epoch are drawn."""

    window: int
    """Longest segment, in frames."""
    batch_size: int = 8
    """Segments in a mixed batch."""
    speakers: int = 4
    """m: speakers in a step of meta-learning."""
    samples: int = 16
    """Segments of each."""
    auxiliary: tuple[Dimension, ...] = DIMENSIONS


class Batches:
    """Draws augmented batches of the training speakers' clips; seed and epoch determine them."""

    def __init__(
        self,
        spectra: Sequence[Spectra],
        normalisation: Normalisation,
        augmentation: Augmentation,
        sampling: SamplingConfig,
        seed: int,
    ) -> None:
        self._spectra = list(spectra)
        self._normalisation = normalisation
        self._augmentation = augmentation
        self._sampling = sampling
        self._seed = seed
        self._settled = [_settled_level(item, normalisation) for item in self._spectra]
        self._clips = sum(item.speed == 1.0 for item in self._spectra)
        clips = [item.clip for item in self._spectra]
        self._emotion = torch.tensor([_emotion_class(clip.emotion) for clip in clips])
        self._ratings = torch.tensor(
            [[_rating_class(getattr(clip, name)) for clip in clips] for name in sampling.auxiliary]
        )
        self._balanced = _balanced([clip.corpus for clip in clips], self._emotion)
        self._speakers = _groups([clip.speaker for clip in clips])

    @property
    def mixed_steps(self) -> int:
        """Mixed batches in an epoch: about one draw of each clip."""
        return max(1, self._clips // self._sampling.batch_size)

    @property
    def meta_steps(self) -> int:
        """Batches of speakers in an epoch: about as many segments as there are clips."""
        return max(1, self._clips // (self._sampling.speakers * self._sampling.samples))

    def mixed(self, epoch: int) -> Iterator[Samples]:
        """Yield `mixed_steps` batches, balanced over emotions and partly over corpora."""
        rng = np.random.default_rng((self._seed, epoch))
        size = self._sampling.batch_size
        picked = rng.choice(len(self._spectra), self.mixed_steps * size, p=self._balanced)
        batches = _alike(picked, np.array([item.frames for item in self._spectra]), size, rng)
        yield from _ahead(self._mixture(batch, rng) for batch in batches)

    def by_speaker(self, epoch: int) -> Iterator[list[Samples]]:
        """Yield `meta_steps` batches of m speakers, the tasks T_i of Cai et al. 2020, section 2.1."""
        rng = np.random.default_rng((self._seed, epoch))
        names = sorted(self._speakers)
        m = min(self._sampling.speakers, len(names))
        yield from _ahead(
            [self._task(names[index], rng) for index in rng.choice(len(names), m, replace=False)]
            for _ in range(self.meta_steps)
        )

    def _mixture(self, indices: Indices, rng: np.random.Generator) -> Samples:
        """Build a batch with equal class weights: the draw has balanced the classes."""
        return self._samples(
            indices, torch.ones(len(EMOTIONS)), torch.ones(len(self._ratings), DIMENSION_CLASSES), rng
        )

    def _task(self, speaker: str, rng: np.random.Generator) -> Samples:
        own = self._speakers[speaker]
        picked = rng.choice(own, min(self._sampling.samples, len(own)), replace=False)
        ratings = [class_weights(labels[own], DIMENSION_CLASSES) for labels in self._ratings]
        return self._samples(
            picked, class_weights(self._emotion[own], len(EMOTIONS)), torch.stack(ratings), rng
        )

    def _samples(
        self, indices: Indices, emotion_weights: Tensor, rating_weights: Tensor, rng: np.random.Generator
    ) -> Samples:
        segments = [self._segment(int(index), rng) for index in indices]
        frames, lengths = padded(segments)
        return Samples(
            frames=self._varied(frames, lengths, rng),
            lengths=lengths,
            emotion=self._emotion[indices],
            ratings=self._ratings[:, indices],
            emotion_weights=emotion_weights,
            rating_weights=rating_weights,
        )

    def _segment(self, index: int, rng: np.random.Generator) -> Array:
        """Cut and augment one segment: (T, F) normalised, T at most the window, or padded with zeros."""
        spectra, how, window = self._spectra[index], self._augmentation, self._sampling.window
        start = int(rng.integers(0, max(0, spectra.frames - window) + 1))
        settled = self._settled[index]
        power = microphone(spectra.power(0, start + window), how.tilt_db, rng)
        if rng.random() < how.noise:
            power = with_noise(power, float(np.exp(settled)), how.noise_snr_db, rng)
        if self._normalisation.scope == "window":
            return self._normalisation.padded(standardised(power[start:]))
        levels, statistics = self._normalisation.levels, self._normalisation.statistics
        if rng.random() < how.settled:
            level = np.full(len(power), settled, np.float32)
        else:
            level, _ = track_gain(frame_levels(power), initial_state(levels), levels)
        error = np.float32(rng.normal(0.0, how.level_db) * DECIBEL)
        logs = log_power(power[start:], level[start:] + error, levels.eps)
        return self._normalisation.padded((logs - statistics.mean) / statistics.std)

    def _varied(self, frames: Tensor, lengths: Tensor, rng: np.random.Generator) -> Tensor:
        how = self._augmentation
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        if how.warp > 0:
            frames = warped(frames, how.warp, generator)
        frames = masked(frames, how.masks, how.mask_size, generator)
        beyond = torch.arange(frames.shape[1])[None, :] >= lengths[:, None]
        return frames.masked_fill(beyond[:, :, None], 0.0)


def clip_samples(frames: Tensor, lengths: Tensor, clip: Clip, auxiliary: Sequence[Dimension]) -> Samples:
    """Label the segments of one clip, (B, T, F) frames of (B,) lengths, without class weights."""
    count = len(frames)
    ratings = [_rating_class(getattr(clip, name)) for name in auxiliary]
    return Samples(
        frames=frames,
        lengths=lengths,
        emotion=torch.full((count,), _emotion_class(clip.emotion)),
        ratings=torch.tensor(ratings).repeat(count, 1).T,
        emotion_weights=torch.ones(len(EMOTIONS)),
        rating_weights=torch.ones(len(auxiliary), DIMENSION_CLASSES),
    )


def padded(segments: Sequence[Array]) -> tuple[Tensor, Tensor]:
    """Stack (T_i, F) segments as (B, T, F), padded with zeros, and return the (B,) lengths too."""
    lengths = torch.tensor([len(segment) for segment in segments])
    frames = torch.zeros(len(segments), int(lengths.max()), segments[0].shape[1])
    for row, segment in zip(frames, segments, strict=True):
        row[: len(segment)] = torch.from_numpy(segment)
    return frames, lengths


def _settled_level(spectra: Spectra, normalisation: Normalisation) -> float:
    """Return the level in nats at which a long stream of this clip settles."""
    levels = frame_levels(spectra.power())
    return float(levels[levels > levels.max() - normalisation.levels.gate_db * DECIBEL].mean())


def _emotion_class(emotion: str) -> int:
    return EMOTIONS.index(emotion) if emotion in EMOTIONS else UNKNOWN


def _rating_class(rating: float | None) -> int:
    return UNKNOWN if rating is None else dimension_class(rating)


def _balanced(corpora: list[str], emotion: Tensor) -> NDArray[np.float64]:
    """Probability of each clip: equal over emotions within a corpus, corpora by the root of their size."""
    cells = list(zip(corpora, emotion.tolist(), strict=True))
    share = np.array([corpora.count(corpus) ** 0.5 / cells.count((corpus, label)) for corpus, label in cells])
    known = share * (emotion.numpy() != UNKNOWN)
    probabilities: NDArray[np.float64] = known / known.sum()
    return probabilities


def _groups(names: list[str]) -> dict[str, Indices]:
    return {name: np.flatnonzero(np.array(names) == name) for name in set(names)}


def _alike(picked: Indices, lengths: Indices, size: int, rng: np.random.Generator) -> list[Indices]:
    """Group draws of similar length into batches, in random order, so that batches have little padding."""
    stretch = 8 * size
    batches: list[Indices] = []
    for first in range(0, len(picked), stretch):
        ordered = sorted(picked[first : first + stretch], key=lambda index: int(lengths[index]))
        batches += [np.array(ordered[at : at + size]) for at in range(0, len(ordered), size)]
    return [batches[at] for at in rng.permutation(len(batches))]


def _ahead(batches: Iterator[Batch]) -> Iterator[Batch]:
    """Prepare the next batch in a thread while one is used."""
    with ThreadPoolExecutor(max_workers=1) as worker:
        coming = worker.submit(next, batches, None)
        while (batch := coming.result()) is not None:
            coming = worker.submit(next, batches, None)
            yield batch
