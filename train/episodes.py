"""Episodes of cached features: windows of one speaker, and other clips of that speaker as the baseline."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from edge.labels import DIMENSION_CLASSES, DIMENSIONS, EMOTIONS, dimension_class
from edge.recognition.speaker_baseline import window_weights
from train.corpora import Clip
from train.feature_cache import Features
from train.mmtl import UNKNOWN, Samples
from train.speaker_head import LEARNED_INPUTS, EmbeddingStatistics, SpeakerInputs

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class EpisodeConfig:
    """How the episodes of a step are drawn."""

    speakers: int = 8
    """m: speakers in a step."""
    samples: int = 32
    """Windows of each, drawn evenly over the emotions."""
    without: float = 0.35
    """Share of episodes without a baseline."""
    neutral: float = 0.4
    """Share of the remaining episodes whose baseline is neutral speech; the rest have any emotion,
    unlabelled."""
    one_emotion: float = 0.1
    """Share of the episodes with a baseline whose baseline clips are all of one emotion, drawn evenly: a
    stream may begin in an outburst."""
    most_clips: int = 10
    """Largest number of clips in a baseline."""
    corpus_power: float = 0.5
    """A corpus is drawn in proportion to (number of speakers) ** corpus_power: 0 draws all corpora
    equally."""


@dataclass(frozen=True)
class _SpeakerWindows:
    """One speaker in one copy."""

    by_emotion: tuple[Indices, ...]
    """Windows of each emotion that the speaker shows."""
    clips: Indices
    neutral: Indices
    clips_of: tuple[Indices, ...]
    """Clips of each emotion that the speaker shows."""


class Episodes:
    """Draws episodes of the training speakers; a seed determines them."""

    def __init__(
        self,
        clips: Sequence[Clip],
        copies: Sequence[Features],
        statistics: EmbeddingStatistics,
        config: EpisodeConfig,
        seed: int,
        inputs: SpeakerInputs = LEARNED_INPUTS["mean"],
    ) -> None:
        self._config = config
        self._inputs = inputs
        self._seed = seed
        self._emotion = np.array(
            [EMOTIONS.index(clip.emotion) if clip.emotion in EMOTIONS else UNKNOWN for clip in clips]
        )
        self._ratings = np.array([[_rating_class(clip, name) for clip in clips] for name in DIMENSIONS])
        self._values = [statistics.standardised(np.asarray(copy.values, np.float32)) for copy in copies]
        self._clip = [copy.clip for copy in copies]
        self._windows = [windows_by_clip(numbers, len(clips)) for numbers in self._clip]
        names = sorted({clip.speaker for clip in clips if clip.emotion in EMOTIONS})
        speakers = np.array([clip.speaker for clip in clips])
        self._speakers = [
            [self._speaker_windows(numbers, speakers[numbers] == name) for numbers in self._clip]
            for name in names
        ]
        corpora = [next(clip.corpus for clip in clips if clip.speaker == name) for name in names]
        shares = np.array([corpora.count(corpus) ** (config.corpus_power - 1.0) for corpus in corpora])
        self._shares = shares / shares.sum()

    def steps(self, count: int) -> Iterator[list[Samples]]:
        """Yield `count` batches of m speakers, the tasks T_i of Cai et al. 2020, section 2.1."""
        rng = np.random.default_rng(self._seed)
        for _ in range(count):
            picked = rng.choice(len(self._speakers), self._config.speakers, p=self._shares)
            yield [self._episode(int(number), rng) for number in picked]

    def _speaker_windows(self, numbers: Indices, own: NDArray[np.bool_]) -> _SpeakerWindows:
        emotion = self._emotion[numbers]
        windows = [np.flatnonzero(own & (emotion == label)) for label in range(len(EMOTIONS))]
        return _SpeakerWindows(
            by_emotion=tuple(some for some in windows if len(some)),
            clips=np.unique(numbers[own & (emotion != UNKNOWN)]),
            neutral=np.unique(numbers[windows[EMOTIONS.index("neutral")]]),
            clips_of=tuple(np.unique(numbers[some]) for some in windows if len(some)),
        )

    def _episode(self, number: int, rng: np.random.Generator) -> Samples:
        copy = int(rng.integers(len(self._values)))
        voice = self._speakers[number][copy]
        emotions = rng.integers(len(voice.by_emotion), size=self._config.samples)
        windows = np.array([rng.choice(voice.by_emotion[emotion]) for emotion in emotions])
        values, clips = self._values[copy][windows], self._clip[copy][windows]
        heard = [self._windows[copy][clip] for clip in self._heard(voice, rng)]
        weights = window_weights([1.0] * len(heard), list(map(len, heard)))
        inputs = self._inputs(values, self._values[copy][joined(heard)], weights)
        return Samples(
            frames=torch.from_numpy(inputs),
            lengths=torch.ones(len(windows), dtype=torch.int64),
            emotion=torch.from_numpy(self._emotion[clips]),
            ratings=torch.from_numpy(self._ratings[:, clips]),
            emotion_weights=torch.ones(len(EMOTIONS)),
            rating_weights=torch.ones(len(DIMENSIONS), DIMENSION_CLASSES),
        )

    def _heard(self, voice: _SpeakerWindows, rng: np.random.Generator) -> Indices:
        """Draw the clips that the baseline rests on."""
        if rng.random() < self._config.without:
            return np.array([], np.int64)
        pool = self._pool(voice, rng)
        count = min(int(rng.integers(1, self._config.most_clips + 1)), len(pool))
        return rng.choice(pool, count, replace=False)

    def _pool(self, voice: _SpeakerWindows, rng: np.random.Generator) -> Indices:
        """Choose the clips that a baseline is drawn from."""
        if rng.random() < self._config.one_emotion:
            return voice.clips_of[int(rng.integers(len(voice.clips_of)))]
        ordinary = rng.random() < self._config.neutral and len(voice.neutral) > 0
        return voice.neutral if ordinary else voice.clips


def windows_by_clip(clip: Indices, clips: int) -> list[Indices]:
    """Return the places of the windows of each clip, from the (N,) clips of the windows."""
    order = np.argsort(clip, kind="stable")
    return np.split(order, np.searchsorted(clip[order], np.arange(1, clips)))


def joined(places: Sequence[Indices]) -> Indices:
    """Concatenate places of windows; there may be none."""
    return np.concatenate([np.array([], np.int64), *places])


def _rating_class(clip: Clip, name: str) -> int:
    rating = getattr(clip, name)
    return UNKNOWN if rating is None else dimension_class(rating)
