"""Adaptation of a network to one test speaker."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest
import torch

from edge.labels import DIMENSIONS
from tests.train.synthetic import TINY, make_spectra
from train.adaptation_curve import PAPER_TUNING
from train.metrics import ClassificationScores
from train.mmtl import Samples
from train.model import EmotionNet
from train.run import architecture_of
from train.segments import fit_normalisation
from train.speaker_protocols import (
    HEAD_TUNING,
    HeadTuning,
    SpeakerProtocols,
    divided,
    speaker_clips,
    speaker_protocols,
)
from train.systems.angular_softmax import AngularCnnLstm
from train.systems.self_attention import SelfAttention
from train.training import Algorithm


@pytest.fixture(scope="module")
def clips() -> list[Samples]:
    spectra = make_spectra(speakers=1, takes=4, frames=(56,))
    return speaker_clips(spectra, fit_normalisation(spectra), 297, DIMENSIONS)


@pytest.fixture(autouse=True)
def brief_paper_tuning() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("train.speaker_protocols.PAPER_TUNING", replace(PAPER_TUNING, inner_steps=1))
        yield


def emotions_of(clips: Sequence[Samples], indices: Sequence[int]) -> list[int]:
    return [int(clips[index].emotion[0]) for index in indices]


def weights_of(net: torch.nn.Module) -> torch.Tensor:
    return torch.cat([value.flatten().float() for value in net.state_dict().values()])


def test_a_draw_takes_two_clips_of_each_emotion_and_scores_the_others(clips: list[Samples]) -> None:
    draws = [divided(clips, number) for number in range(5)]
    for support, query in draws:
        assert emotions_of(clips, support) == [0, 0, 1, 1, 2, 2, 3, 3]
        assert not set(support) & set(query)
        assert len(support) + len(query) == len(clips)
    assert len({tuple(support) for support, _ in draws}) > 1
    assert draws[0] == divided(clips, 0)


def test_one_clip_of_each_emotion_is_left_to_score(clips: list[Samples]) -> None:
    few = [*clips[:4], *clips[4:6], clips[8]]  # 4 neutral, 2 happy, 1 sad, none angry
    support, query = divided(few, 0)
    assert emotions_of(few, support) == [0, 0, 1]
    assert set(emotions_of(few, query)) == {0, 1, 2}


def test_labelled_clips_help_a_network_that_knows_nothing(clips: list[Samples]) -> None:
    net = EmotionNet(replace(TINY, channels=(8, 8, 8), projection=32, hidden=32, fully_connected=32))
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(4.0 if parameter.ndim > 1 else 1.0)  # as sensitive to its input as a trained one
    before = weights_of(net)
    strong = HeadTuning(steps=100, rate=0.1)
    found = speaker_protocols(net, clips, "s0", auxiliary=False, tuning=strong)
    assert found.paper is None
    gains = [draw.after.uar - draw.before.uar for draw in found.calibrated]
    assert len(gains) == strong.draws
    assert sum(gains) / len(gains) > 0.1
    assert torch.equal(weights_of(net), before)


@pytest.mark.parametrize("algorithm", ["erm", "mtl", "mmtl"])
def test_every_algorithm_of_the_cnn_lstm_is_calibrated_by_the_same_rule(
    algorithm: Algorithm, clips: list[Samples]
) -> None:
    variant = architecture_of(algorithm, len(DIMENSIONS))
    net = EmotionNet(replace(TINY, heads=variant.heads, emotions=variant.emotions))
    found = speaker_protocols(net, clips, "s0", auxiliary=algorithm != "erm")
    assert [draw.shots for draw in found.calibrated] == [8] * HEAD_TUNING.draws
    assert [draw.after.clips for draw in found.calibrated] == [8] * HEAD_TUNING.draws
    assert (found.paper is not None) == (algorithm != "erm")


def test_the_ratings_do_not_change_what_is_calibrated(clips: list[Samples]) -> None:
    net = AngularCnnLstm(TINY)
    other = [
        Samples(
            clip.frames,
            clip.lengths,
            clip.emotion,
            torch.zeros_like(clip.ratings),
            clip.emotion_weights,
            clip.rating_weights,
        )
        for clip in clips
    ]
    assert speaker_protocols(net, clips, "s0", auxiliary=False) == speaker_protocols(
        net, other, "s0", auxiliary=False
    )


def test_a_network_of_another_kind_is_not_calibrated(clips: list[Samples]) -> None:
    assert speaker_protocols(SelfAttention(), clips, "s0", auxiliary=False) == SpeakerProtocols()


def test_what_is_kept_is_read_again_unless_the_rules_have_changed(clips: list[Samples]) -> None:
    found = speaker_protocols(EmotionNet(TINY), clips[::2], "s0", auxiliary=True)
    content = found.to_dict()
    again = SpeakerProtocols.from_dict(content)
    assert again is not None
    assert isinstance(again.paper, ClassificationScores)
    assert again.to_dict() == content
    content["rules"]["calibrated"]["steps"] += 1
    assert SpeakerProtocols.from_dict(content) is None
