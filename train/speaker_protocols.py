"""A trained network adapted to one test speaker: the protocols `calibrated` and `paper` of the tables.

`calibrated` tunes the layers after the embedding on the emotions of a few clips (`HeadTuning`) and scores the
speaker's other clips. `paper` is section 2.4 of Cai et al. 2020: the meta learner is tuned on the ratings of
the very clips that are then scored, so it uses test labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from edge.arrays import Array
from edge.labels import EMOTIONS, Dimension
from train.adaptation_curve import PAPER_TUNING, joined, posterior
from train.batches import clip_samples, padded
from train.metrics import ClassificationScores, score
from train.mmtl import Loss, Samples, Weights, emotion_loss, gradient_of, inner_step
from train.model import EmotionNet, MetaLearner
from train.run_folder import described
from train.segments import Normalisation, Spectra, network_input, segment_starts
from train.speaker_finetune import tune
from train.speaker_head import SpeakerHead
from train.systems.angular_softmax import AngularCnnLstm
from train.systems.base import System


@dataclass(frozen=True)
class HeadTuning:
    """Gradient descent on the emotion loss of a few labelled clips, in the layers after the embedding.

    FC 1, FC 2 and the last layer are tuned; convolutions and LSTM stay as they are. One rule for every
    network with a CNN-LSTM, whatever it was trained by: no rating is read. The figures were set before any
    table was computed, after the experiments on a frozen encoder; none was chosen on test speakers.
    """

    clips_per_emotion: int = 2
    """Fewer where a speaker has too few: one clip of each emotion is left to score."""
    draws: int = 5
    """Random choices of these clips; every network of a speaker has the same ones."""
    steps: int = 20
    rate: float = 0.05


HEAD_TUNING: Final = HeadTuning()


@dataclass(frozen=True)
class CalibrationDraw:
    """Scores of the clips that are left out of one draw."""

    shots: int
    """K: number of clips tuned on."""
    before: ClassificationScores
    """Without adaptation."""
    after: ClassificationScores


@dataclass(frozen=True)
class SpeakerProtocols:
    """Scores of one network on one test speaker, after adaptation."""

    calibrated: tuple[CalibrationDraw, ...] = ()
    """Empty for a network without a CNN-LSTM, and for a speaker with too few clips."""
    paper: ClassificationScores | None = None
    """Uses test labels. None for a network without auxiliary tasks."""

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain JSON values, with the rules by which they were computed."""
        return {"rules": rules(), **described(self)}

    @staticmethod
    def from_dict(content: dict[str, Any]) -> SpeakerProtocols | None:
        """Read what `to_dict` wrote; None if the rules were others."""
        if content.get("rules") != rules():
            return None
        draws = [
            CalibrationDraw(draw["shots"], _scores(draw["before"]), _scores(draw["after"]))
            for draw in content["calibrated"]
        ]
        paper = content["paper"]
        return SpeakerProtocols(tuple(draws), _scores(paper) if paper else None)


def rules() -> dict[str, Any]:
    """Describe how the protocols are computed; scores of other rules are computed again."""
    return {"calibrated": described(HEAD_TUNING), "paper": described(PAPER_TUNING)}


def speaker_clips(
    spectra: Sequence[Spectra], normalisation: Normalisation, window: int, auxiliary: Sequence[Dimension]
) -> list[Samples]:
    """Cut each clip of a speaker into its segments, with the labels of the clip, as `predict` cuts them."""
    cut = []
    for item in spectra:
        starts = segment_starts(item.frames, window)
        segments = [network_input(item, normalisation, start, window) for start in starts]
        cut.append(clip_samples(*padded(segments), item.clip, auxiliary))
    return cut


def speaker_protocols(
    net: EmotionNet | System | SpeakerHead,
    clips: Sequence[Samples],
    speaker: str,
    *,
    auxiliary: bool,
    tuning: HeadTuning = HEAD_TUNING,
) -> SpeakerProtocols:
    """Score a network after adaptation to a speaker.

    Args:
        net: trained without the speaker; it is not changed.
        clips: the segments of each of the speaker's clips.
        speaker: name.
        auxiliary: whether the network was trained on auxiliary tasks.
        tuning: the rule of `calibrated`.
    """
    net = deepcopy(net).eval()
    paper = None
    if auxiliary and isinstance(net, EmotionNet | SpeakerHead):
        paper = _score(clips, _tuned_on_ratings(net, clips), speaker)
    if not isinstance(net, EmotionNet | AngularCnnLstm | SpeakerHead):
        return SpeakerProtocols((), paper)
    layers = LayersAfterEmbedding(net)
    embeddings = [layers.embedding(clip) for clip in clips]
    draws = []
    for number in range(tuning.draws):
        support, query = divided(clips, number, tuning.clips_per_emotion)
        if not support:
            break
        scored = [clips[index] for index in query]
        inputs = [embeddings[index] for index in query]
        learned = [clips[index] for index in support]
        tuned = layers.tuned([embeddings[index] for index in support], learned, tuning)
        before, after = (layers.posteriors(inputs, weights) for weights in ({}, tuned))
        draws.append(
            CalibrationDraw(len(support), _score(scored, before, speaker), _score(scored, after, speaker))
        )
    return SpeakerProtocols(tuple(draws), paper)


def divided(
    clips: Sequence[Samples], number: int, per_emotion: int = HEAD_TUNING.clips_per_emotion
) -> tuple[list[int], list[int]]:
    """Draw the clips to tune on: indices of these, and of the others, of which each emotion has one or more.

    Args:
        clips: of one speaker.
        number: of the draw; it determines the choice, together with the emotions of the clips.
        per_emotion: largest number of clips to tune on.
    """
    labels = np.array([int(clip.emotion[0]) for clip in clips])
    rng = np.random.default_rng(number)
    support: list[int] = []
    for emotion in range(len(EMOTIONS)):
        own = np.flatnonzero(labels == emotion)
        count = min(per_emotion, max(0, len(own) - 1))
        support += sorted(rng.choice(own, count, replace=False).tolist())
    return support, sorted(set(range(len(clips))) - set(support))


class LayersAfterEmbedding:
    """The fully connected layers: embeddings to emotion logits. A head on an encoder is nothing else."""

    def __init__(self, net: EmotionNet | AngularCnnLstm | SpeakerHead) -> None:
        self._meta = None if isinstance(net, SpeakerHead) else net.meta
        self._module: nn.Module = net
        self._weights: Weights = dict(net.named_parameters())
        if isinstance(net, SpeakerHead):
            return
        last = net.transfer if isinstance(net, EmotionNet) else net.angular
        layers = nn.ModuleList([net.meta.fc1, net.meta.fc2, last])
        self._module = _Classifier(net.meta, last)
        tuned = {id(parameter) for parameter in layers.parameters() if parameter.requires_grad}
        named = self._module.named_parameters()
        self._weights = {name: value for name, value in named if id(value) in tuned}

    @torch.no_grad()
    def embedding(self, clip: Samples) -> Tensor:
        """Return the (B, D) embeddings of a clip's segments."""
        if self._meta is None:
            return clip.frames
        lengths = torch.tensor([self._meta.arch.features_in(length) for length in clip.lengths.tolist()])
        return self._meta.embedding(self._meta.features(clip.frames), lengths)

    def tuned(self, embeddings: Sequence[Tensor], clips: Sequence[Samples], tuning: HeadTuning) -> Weights:
        """Return the weights after the steps on the emotions of some clips."""
        samples = joined([replace(clip, frames=clip.frames[:, :1]) for clip in clips])
        inputs, weights = torch.cat(list(embeddings)), self._weights
        for _ in range(tuning.steps):
            loss = emotion_loss(functional_call(self._module, weights, (inputs,)), samples, Loss())
            weights = inner_step(weights, gradient_of(loss, weights), tuning.rate)
        return weights

    @torch.no_grad()
    def posteriors(self, embeddings: Sequence[Tensor], weights: Weights) -> Array:
        """Return the (N, C) posteriors of clips, averaged over the segments of each."""
        rows = [
            functional_call(self._module, weights, (item,)).softmax(dim=1).mean(dim=0) for item in embeddings
        ]
        probs: Array = torch.stack(rows).numpy()
        return probs


class _Classifier(nn.Module):
    def __init__(self, meta: MetaLearner, last: nn.Module) -> None:
        super().__init__()
        self.meta, self.last = meta, last

    def forward(self, embedding: Tensor) -> Tensor:
        """Map (B, D) to (B, C) logits."""
        logits: Tensor = self.last(self.meta.classify(embedding))
        return logits


def _tuned_on_ratings(net: EmotionNet | SpeakerHead, clips: Sequence[Samples]) -> Array:
    """Tune a copy on the ratings of all clips, and return the (N, C) posteriors of the same clips."""
    tuned = deepcopy(net)
    for _ in tune(tuned, joined(clips), PAPER_TUNING):
        pass
    return np.stack([posterior(tuned, clip) for clip in clips])


def _score(clips: Sequence[Samples], probs: Array, speaker: str) -> ClassificationScores:
    return score([int(clip.emotion[0]) for clip in clips], probs, [speaker] * len(clips))


def _scores(content: dict[str, Any]) -> ClassificationScores:
    return ClassificationScores(**content)
