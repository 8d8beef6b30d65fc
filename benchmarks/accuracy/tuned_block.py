"""The last of two encoder blocks tuned on the emotions of some speakers, before a head is trained on it.

The block learns by plain supervision, through the shipped pooling and a small classifier that is then thrown
away; the stem and the first block stay frozen, so that their states are computed once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from copy import deepcopy
from dataclasses import replace
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from torch.nn.utils.rnn import pad_sequence

from edge.audio.sound_file import read_clip
from edge.labels import EMOTIONS
from train.console import ConsoleProgress
from train.corpora import Clip
from train.feature_cache import BATCH, Copy, Features, network_frames
from train.pretrained_net import normalised, pooled_states
from train.whisper_encoder import WhisperEncoder

STEPS: Final = 240
WINDOWS: Final = 24
"""In a step; each corpus and emotion is as likely as any other."""
BLOCK_RATE: Final = 1e-4
CLASSIFIER_RATE: Final = 1e-3
HIDDEN: Final = 64
DROPOUT: Final = 0.3


class TunedBlock:
    """Tunes copies of the second block, each on other speakers."""

    @torch.inference_mode()
    def __init__(
        self, clips: Sequence[Clip], frozen: Features, encoder: WhisperEncoder, progress: ConsoleProgress
    ) -> None:
        """Compute the states after the first block of all windows of the clips as recorded.

        Args:
            clips: of all speakers.
            frozen: their features by the published blocks.
            encoder: its stem and first two blocks are used; it is not changed.
            progress: shows how far the states are.
        """
        self._clips, self._frozen, self._published = clips, frozen, encoder.block[1]
        self._states: list[Tensor] = []
        for clip in progress(clips, "states of block 1", len(clips)):
            frames = network_frames(read_clip(clip.path))
            for start, length in Copy(0).windows(clip, len(frames)):
                window = torch.from_numpy(frames[start : start + length])[None]
                self._states.append(encoder.block[0](encoder.stem(normalised(window)))[0].half())

    def features(self, held_out: Collection[str]) -> Features:
        """Tune the block on the other speakers, and return the features of all clips with it."""
        block = deepcopy(self._published)
        learned = [
            place
            for place, number in enumerate(self._frozen.clip.tolist())
            if self._clips[number].speaker not in held_out
        ]
        self._tune(block, learned)
        with torch.inference_mode():
            rows = [
                _pooled(block, self._states[first : first + BATCH])
                for first in range(0, len(self._states), BATCH)
            ]
        return replace(self._frozen, values=torch.cat(rows).numpy().astype(np.float16))

    def _tune(self, block: nn.Module, learned: Sequence[int]) -> None:
        values = torch.from_numpy(np.asarray(self._frozen.values[learned], np.float32))
        mean, deviation = values.mean(dim=0), values.std(dim=0) + 1e-5
        clips = [self._clips[number] for number in self._frozen.clip[learned].tolist()]
        count = Counter((clip.corpus, clip.emotion) for clip in clips)
        chance = np.array([1.0 / count[clip.corpus, clip.emotion] for clip in clips])
        rng = np.random.default_rng(0)
        torch.manual_seed(0)
        classifier = nn.Sequential(
            nn.Linear(len(mean), HIDDEN), nn.ReLU(), nn.Dropout(DROPOUT), nn.Linear(HIDDEN, len(EMOTIONS))
        )
        groups = [
            {"params": list(block.parameters()), "lr": BLOCK_RATE},
            {"params": list(classifier.parameters()), "lr": CLASSIFIER_RATE},
        ]
        optimiser = torch.optim.AdamW(groups)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, STEPS)
        for _ in range(STEPS):
            drawn = rng.choice(len(learned), WINDOWS, p=chance / chance.sum())
            labels = torch.tensor([EMOTIONS.index(clips[number].emotion) for number in drawn])
            pooled = _pooled(block, [self._states[learned[number]] for number in drawn])
            loss = F.cross_entropy(classifier((pooled - mean) / deviation), labels)
            optimiser.zero_grad()
            torch.autograd.backward(loss)
            optimiser.step()
            schedule.step()


def _pooled(block: nn.Module, states: Sequence[Tensor]) -> Tensor:
    """Return the (B, 3 W) pooled states of windows before and after the block."""
    counts = torch.tensor([len(item) for item in states])
    padded = pad_sequence([item.float() for item in states], batch_first=True)
    within = torch.arange(padded.shape[1])[None] < counts[:, None]
    return pooled_states(padded, block(padded, within[:, None, None, :]), counts)
