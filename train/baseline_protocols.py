"""Score a head with and without a baseline of the speaker, from other speech than what is scored.

none: without a baseline. running: with the speech heard before, at least 20 s of any emotion, unlabelled.
ordinary: with about 20 s of neutral speech.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from edge.arrays import Array
from edge.recognition.speaker_baseline import window_weights
from train.corpora import Clip
from train.episodes import joined, windows_by_clip
from train.evaluation import CorpusScores, score_by_corpus
from train.feature_cache import Features
from train.speaker_head import (
    EmbeddingStatistics,
    SpeakerHead,
    SpeakerInputs,
    clip_weight,
    relative_inputs,
)
from train.temperature import averaged

Indices = NDArray[np.int64]

BaselineProtocol = Literal["none", "running", "ordinary"]

PROTOCOLS: Final[tuple[BaselineProtocol, ...]] = get_args(BaselineProtocol)

LEFT_TO_SCORE: Final = 2
"""Neutral clips of a speaker that are scored, not heard, in `ordinary`."""


@dataclass(frozen=True)
class ProtocolConfig:
    """How the speech for a baseline is drawn."""

    heard_s: float = 20.0
    """Seconds of speech in a baseline, or before the first clip that is scored."""
    draws: int = 2
    """Random orders of a speaker's clips. A clip is scored once in each, where it is not in the baseline."""
    seed: int = 3


@dataclass(frozen=True)
class FittedHead:
    """A head, and the statistics that standardise what it reads."""

    statistics: EmbeddingStatistics
    head: SpeakerHead
    inputs: SpeakerInputs = relative_inputs
    """As the recogniser makes them."""

    @torch.inference_mode()
    def logits(self, standardised: Array, heard: Array, weights: NDArray[np.float64]) -> Array:
        """Map (N, D) standardised embeddings, and what was heard (`SpeakerInputs`), to (N, C) logits."""
        logits: Array = self.head(torch.from_numpy(self.inputs(standardised, heard, weights))).numpy()
        return logits


@dataclass(frozen=True)
class ClipLogits:
    """The answers for the windows of one clip."""

    clip: Clip
    logits: Array
    """(S, C)."""


Answers = dict[BaselineProtocol, list[ClipLogits]]


def answers_by_protocol(
    fitted: FittedHead, clips: Sequence[Clip], recorded: Features, config: ProtocolConfig
) -> Answers:
    """Answer for the clips of speakers that the head was not trained on, under each protocol.

    Args:
        fitted: the head.
        clips: all clips of these speakers.
        recorded: their features as recorded.
        config: how the speech for a baseline is drawn.

    Returns:
        The answers for each clip and draw. A speaker with too little other speech has none in `running`, and
        one without neutral speech none in `ordinary`.
    """
    values = fitted.statistics.standardised(np.asarray(recorded.values, np.float32))
    windows = windows_by_clip(recorded.clip, len(clips))
    heard = _Heard(clips, values, windows, recorded.seconds)
    return {
        protocol: [
            ClipLogits(clips[number], fitted.logits(values[windows[number]], *heard.of(others)))
            for number, others in heard.baselines(protocol, config)
        ]
        for protocol in PROTOCOLS
    }


def merged(parts: Sequence[Answers]) -> Answers:
    """Join the answers of several heads for different speakers."""
    return {protocol: [item for part in parts for item in part[protocol]] for protocol in PROTOCOLS}


def scores_by_protocol(
    answers: Mapping[BaselineProtocol, Sequence[ClipLogits]], temperature: float
) -> dict[BaselineProtocol, dict[str, CorpusScores]]:
    """Score each corpus under each protocol that has answers; of several draws, the counts are summed."""
    return {
        protocol: score_by_corpus(
            [item.clip for item in items], averaged([item.logits for item in items], temperature)
        )
        for protocol, items in answers.items()
        if items
    }


@dataclass(frozen=True)
class _Heard:
    """What may be heard of some speakers."""

    clips: Sequence[Clip]
    values: Array
    """(N, D) standardised embeddings."""
    windows: Sequence[Indices]
    """Places of each clip's windows among them."""
    seconds: Sequence[float]

    def of(self, heard: Indices) -> tuple[Array, NDArray[np.float64]]:
        """Return the (W, D) windows of some clips, and their (W,) weights in a baseline."""
        windows = [self.windows[number] for number in heard]
        weights = [clip_weight(self.seconds[number]) for number in heard]
        return self.values[joined(windows)], window_weights(weights, list(map(len, windows)))

    def baselines(self, protocol: BaselineProtocol, config: ProtocolConfig) -> Iterator[tuple[int, Indices]]:
        """Yield the index of each clip to score, and those of the clips that its baseline rests on."""
        if protocol == "none":
            yield from ((number, np.array([], np.int64)) for number in range(len(self.clips)))
            return
        rng = np.random.default_rng(config.seed)
        names = np.array([clip.speaker for clip in self.clips])
        for _ in range(config.draws):
            for name in np.unique(names):
                own = rng.permutation(np.flatnonzero(names == name))
                part = self._running if protocol == "running" else self._ordinary
                yield from part(own, config.heard_s)

    def _running(self, own: Indices, heard_s: float) -> Iterator[tuple[int, Indices]]:
        heard = 0.0
        for place, number in enumerate(own):
            if heard >= heard_s:
                yield int(number), own[:place]
            heard += self.seconds[number]

    def _ordinary(self, own: Indices, heard_s: float) -> Iterator[tuple[int, Indices]]:
        neutral = [number for number in own if self.clips[number].emotion == "neutral"]
        chosen: list[int] = []
        for number in neutral[: max(1, len(neutral) - LEFT_TO_SCORE)]:
            if sum(self.seconds[item] for item in chosen) < heard_s:
                chosen.append(number)
        if chosen:
            yield from ((int(number), np.array(chosen)) for number in own if number not in chosen)
