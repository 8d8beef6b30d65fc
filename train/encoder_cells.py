"""Cells of the tables whose network is a head on a pretrained encoder (`train.speaker_head`).

The encoder stays as it is, and its features of the clips as recorded are computed once for all cells. The
head is trained as by `mmtl train --encoder`, with a fixed number of steps, without copies and without a
speaker's baseline: the protocol `none` has none. The validation speaker is not trained on, as in the other
rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from edge.arrays import Array
from edge.labels import DIMENSIONS
from edge.system.files import atomic_write
from train.adaptation_curve import posterior
from train.batches import clip_samples
from train.corpora import Clip
from train.episodes import EpisodeConfig, Episodes
from train.feature_cache import Copy, Features, cached_features
from train.head_training import RATES, HeadOptions, train_head
from train.mmtl import Samples
from train.pretrained_run import untrained
from train.recording_conditions import Ambience, ChannelConfig
from train.run import scored_clips
from train.run_folder import RunFolder
from train.speaker_head import EmbeddingStatistics, HeadArchitecture, SpeakerHead, fit_statistics, head_inputs
from train.splits import Split
from train.table_rows import HeadVariant, Row

Shown = Callable[[Sequence[Clip], str], Iterable[Clip]]


def clip_features(
    variant: HeadVariant, clips: Iterable[Clip], shown: Shown = lambda clips, _: clips
) -> Features:
    """Return the features of clips as recorded, in the order of their paths, computing them once."""
    ordered = sorted(clips, key=lambda clip: clip.path)
    conditions = Ambience((), ()), ChannelConfig()
    return cached_features(variant.cache, ordered, untrained(variant.encoder), Copy(0), conditions, shown)


class EncoderCell:
    """A head on one fold with one seed."""

    def __init__(self, row: Row, variant: HeadVariant, split: Split, seed: int, folder: RunFolder) -> None:
        self._row, self._variant, self._split, self._seed = row, variant, split, seed
        self._folder = folder

    @cached_property
    def _features(self) -> Features:
        sides = (self._split.train, self._split.validation, self._split.test)
        return clip_features(self._variant, (clip for side in sides for clip in side))

    def fit(self) -> float:
        """Train, keep the head and the statistics, and return the validation speaker's UAR in percent."""
        train, features = self._side(self._split.train)
        statistics = fit_statistics(np.asarray(features.values, np.float32))
        head = HeadOptions()
        options = replace(
            head,
            algorithm=self._row.algorithm,
            seed=self._seed,
            rates=replace(RATES, query=self._variant.query),
        )
        episodes = Episodes(train, [features], statistics, EpisodeConfig(without=1.0), self._seed)
        made = train_head(episodes, self._arch, options)
        tensors = {name: value.contiguous() for name, value in made.state_dict().items()}
        tensors |= {
            f"statistics.{name}": torch.from_numpy(getattr(statistics, name)) for name in ("mean", "std")
        }
        with atomic_write(self._folder.best) as partial:
            save_file(tensors, partial)
        return 100 * scored_clips(self._split.validation, self._probs(self._split.validation)).uar

    def network(self) -> SpeakerHead:
        """Return the head that was kept."""
        tensors = load_file(self._folder.best)
        head = SpeakerHead(self._arch)
        head.load_state_dict(
            {name: value for name, value in tensors.items() if not name.startswith("statistics.")}
        )
        return head.eval()

    def probs(self) -> Array:
        """Return the (N, C) posteriors of the test speaker's clips."""
        return self._probs(self._split.test)

    def scored_samples(self) -> list[Samples]:
        """Return the windows of each of the test speaker's clips."""
        return self._samples(self._split.test)

    @property
    def _arch(self) -> HeadArchitecture:
        return HeadArchitecture(self._features.values.shape[1], heads=self._variant.heads)

    def _probs(self, clips: Sequence[Clip]) -> Array:
        net = self.network()
        return np.stack([posterior(net, clip) for clip in self._samples(clips)])

    def _samples(self, clips: Sequence[Clip]) -> list[Samples]:
        ordered, features = self._side(clips)
        tensors = load_file(self._folder.best)
        statistics = EmbeddingStatistics(
            tensors["statistics.mean"].numpy(), tensors["statistics.std"].numpy()
        )
        values = statistics.standardised(np.asarray(features.values, np.float32))
        inputs = torch.from_numpy(head_inputs(values, np.zeros(values.shape[1], np.float32)))
        by_path = {}
        for number, clip in enumerate(ordered):
            windows = inputs[torch.from_numpy(features.clip == number)]
            lengths = torch.ones(len(windows), dtype=torch.int64)
            by_path[clip.path] = clip_samples(windows, lengths, clip, DIMENSIONS)
        return [by_path[clip.path] for clip in clips]

    def _side(self, clips: Sequence[Clip]) -> tuple[list[Clip], Features]:
        """Return the clips in the order of their features, and these."""
        every = (*self._split.train, *self._split.validation, *self._split.test)
        place = {path: number for number, path in enumerate(sorted(clip.path for clip in every))}
        ordered = sorted(clips, key=lambda clip: clip.path)
        return ordered, self._features.of(np.array([place[clip.path] for clip in ordered]))
