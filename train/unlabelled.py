"""Ordinary speech without labels beside the training of a head: where it claims an emotion, it is held back.

Outlier exposure, Hendrycks et al. 2019 ("Deep anomaly detection with outlier exposure"): on recordings of
another kind the posterior is drawn towards the uniform one. Differs: only where the head answers with an
emotion other than neutral. Nothing says that the speech is neutral.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edge.arrays import Array
from edge.errors import UsageError
from edge.labels import EMOTIONS
from train.corpora import Clip
from train.episodes import EpisodeConfig, windows_by_clip
from train.feature_cache import Features
from train.speaker_head import LEARNED_PRIOR, BaselineKind, EmbeddingStatistics, head_inputs
from train.speech_claims import SpeechRecording

WINDOWS: Final = 128
"""In a step."""


def learned_recordings(recordings: Sequence[SpeechRecording]) -> list[Clip]:
    """Return the recordings of every second speaker; the others, and those without a name, stay for scoring.

    Raises:
        UsageError: no recording names its speaker.
    """
    names = sorted({(item.corpus, item.speaker) for item in recordings if item.speaker})
    learned = set(names[::2])
    if not learned:
        raise UsageError(
            "no recording without labels names its speaker, and half of the speakers stay for scoring",
            remedy="add the column speaker to the manifest",
        )
    return [
        Clip(item.path, item.corpus, item.speaker, emotion="")
        for item in recordings
        if (item.corpus, item.speaker) in learned
    ]


@dataclass(frozen=True)
class _Windows:
    """One copy."""

    values: Array
    """(N, D), standardised."""
    speaker: NDArray[np.int64]
    """(N,) index of each window's speaker."""
    means: Array
    """(S, D): of all windows of each speaker."""
    variances: Array
    """(S, D): of the same."""


class UnlabelledSpeech:
    """Draws windows of speech without labels, some relative to their speaker's baseline as in an episode."""

    def __init__(
        self,
        clips: Sequence[Clip],
        copies: Sequence[Features],
        statistics: EmbeddingStatistics,
        seed: int,
        baseline: BaselineKind = "mean",
    ) -> None:
        speakers = np.unique([clip.speaker for clip in clips], return_inverse=True)[1]
        self._scaled = baseline == "deviation"
        self._copies = [_windows(copy, speakers, statistics) for copy in copies]
        self._config = EpisodeConfig()
        self._rng = np.random.default_rng((seed, len(clips)))

    def inputs(self) -> Tensor:
        """Return the head's inputs for `WINDOWS` random windows of a random copy.

        A baseline is that of a random weight of windows with mean and variance of all of the speaker's.
        """
        rng, config = self._rng, self._config
        copy = self._copies[rng.integers(len(self._copies))]
        picked = rng.integers(len(copy.values), size=WINDOWS)
        weights = np.where(
            rng.random(WINDOWS) < config.without, 0, rng.integers(1, config.most_clips + 1, size=WINDOWS)
        )
        shares = (weights / (weights + LEARNED_PRIOR)).astype(np.float32)[:, None]
        means, variances = (values[copy.speaker[picked]] for values in (copy.means, copy.variances))
        baselines = shares * means
        spread = variances + (means - baselines) ** 2
        deviations = np.sqrt(1.0 - shares + shares * spread) if self._scaled else None
        return torch.from_numpy(head_inputs(copy.values[picked], baselines, deviations))


def claim_loss(logits: Tensor) -> Tensor:
    """Return the mean over (B, C) logits of the cross entropy to uniform; 0 where the answer is neutral."""
    claimed = (logits.argmax(dim=1) != EMOTIONS.index("neutral")).to(logits.dtype)
    loss: Tensor = -(torch.log_softmax(logits, dim=1).mean(dim=1) * claimed).mean()
    return loss


def _windows(copy: Features, speakers: NDArray[np.int64], statistics: EmbeddingStatistics) -> _Windows:
    values = statistics.standardised(np.asarray(copy.values, np.float32))
    own = speakers[copy.clip]
    groups = [values[places] for places in windows_by_clip(own, int(speakers.max()) + 1)]
    means, variances = (np.stack([moment(group, axis=0) for group in groups]) for moment in (np.mean, np.var))
    return _Windows(values, own, means, variances)
