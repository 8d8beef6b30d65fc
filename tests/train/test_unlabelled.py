"""Speech without labels: half of the speakers are learned from, and only claims are held back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from edge.errors import UsageError
from edge.labels import EMOTIONS
from train.corpora import Clip
from train.episodes import EpisodeConfig, Episodes
from train.feature_cache import Features
from train.head_training import HeadOptions, train_head
from train.speaker_head import LEARNED_PRIOR, EmbeddingStatistics, HeadArchitecture, head_inputs
from train.speech_claims import SpeechRecording, of_other_speakers
from train.unlabelled import WINDOWS, UnlabelledSpeech, claim_loss, learned_recordings

SIZE = 8
PLAIN = EmbeddingStatistics(np.zeros(SIZE, np.float32), np.ones(SIZE, np.float32))


def recordings() -> list[SpeechRecording]:
    named = [SpeechRecording(Path(f"{n}-{take}.wav"), "read", f"r{n}") for n in range(5) for take in range(2)]
    return [*named, SpeechRecording(Path("nobody.wav"), "read")]


def test_every_second_speaker_is_learned_from_and_the_others_are_scored() -> None:
    learned = learned_recordings(recordings())
    assert {clip.speaker for clip in learned} == {"r0", "r2", "r4"}
    assert len(learned) == 6
    training = {"speakers": {"train": ["s"], "unlabelled": ["r0", "r2", "r4"]}}
    assert {item.speaker for item in of_other_speakers(recordings(), training)} == {"r1", "r3", ""}


def test_speech_of_nobody_named_or_of_nobody_else_is_refused() -> None:
    with pytest.raises(UsageError, match="names its speaker"):
        learned_recordings([SpeechRecording(Path("a.wav"), "read")])
    with pytest.raises(UsageError, match="trained on all of these speakers"):
        of_other_speakers(recordings()[:2], {"speakers": {"unlabelled": ["r0"]}})


def test_only_a_claimed_emotion_is_drawn_towards_undecided() -> None:
    logits = torch.zeros(3, len(EMOTIONS))
    logits[0, EMOTIONS.index("neutral")] = 2.0
    logits[1, EMOTIONS.index("sad")] = 2.0
    logits[2, EMOTIONS.index("angry")] = 1e-4
    logits.requires_grad_()
    (gradient,) = torch.autograd.grad(claim_loss(logits), logits)
    assert not gradient[0].any()
    assert gradient[1].argmax() == EMOTIONS.index("sad")
    torch.testing.assert_close(gradient[2], torch.zeros(len(EMOTIONS)), rtol=0, atol=1e-4)


def test_windows_are_relative_to_their_own_speakers_shrunken_mean() -> None:
    clips = [Clip(Path(f"{n}.wav"), "read", f"r{n // 2}", "") for n in range(4)]
    values = np.repeat(np.arange(1.0, 5.0)[:, None], SIZE, axis=1).astype(np.float16)
    copy = Features(values, np.arange(4), np.full(4, 250))
    inputs = UnlabelledSpeech(clips, [copy], PLAIN, seed=0).inputs().numpy()
    assert inputs.shape == (WINDOWS, 2 * SIZE)
    means = {1.0: 1.5, 2.0: 1.5, 3.0: 3.5, 4.0: 3.5}
    seen = set()
    for absolute, relative in inputs[:, [0, SIZE]].tolist():
        share = (absolute - relative) / means[absolute]
        weight = share * LEARNED_PRIOR / (1.0 - share)
        assert round(weight) == pytest.approx(weight, abs=1e-3)
        seen.add(round(weight))
    assert seen == set(range(EpisodeConfig.most_clips + 1))


def test_a_deviation_is_that_of_their_own_speakers_windows_at_the_weight_of_the_mean() -> None:
    rng, prior = np.random.default_rng(1), LEARNED_PRIOR
    clips = [Clip(Path(f"{n}.wav"), "read", f"r{n // 2}", "") for n in range(4)]
    values = rng.normal(np.repeat([1.0, -2.0], 6)[:, None], 2.0, (12, SIZE)).astype(np.float16)
    copy = Features(values, np.repeat(np.arange(4), 3), np.full(12, 250))
    inputs, plain = (
        UnlabelledSpeech(clips, [copy], PLAIN, 0, kind).inputs().numpy() for kind in ("deviation", "mean")
    )
    np.testing.assert_array_equal(inputs[:, :SIZE], plain[:, :SIZE])
    own = {window[0]: group for group in np.split(values.astype(np.float64), 2) for window in group}
    for scaled, unscaled in zip(inputs, plain, strict=True):
        baseline, group = unscaled[:SIZE] - unscaled[SIZE:], own[scaled[0]]
        share = (baseline / group.mean(axis=0)).mean()
        weight = round(share * prior / (1.0 - share))
        variance = (prior + weight * ((group - baseline) ** 2).mean(axis=0)) / (prior + weight)
        np.testing.assert_allclose(scaled[SIZE:], unscaled[SIZE:] / np.sqrt(variance), rtol=1e-3, atol=1e-5)


def labelled(rng: np.random.Generator) -> tuple[list[Clip], NDArray[np.float16]]:
    """Emotions that the first values tell apart."""
    clips, values = [], []
    for speaker in range(3):
        for number in range(40):
            emotion = EMOTIONS[number % len(EMOTIONS)]
            clips.append(Clip(Path(f"{speaker}-{number}.wav"), "toy", f"s{speaker}", emotion, derived=True))
            values.append(4.0 * np.eye(SIZE)[number % len(EMOTIONS)] + 0.3 * rng.standard_normal(SIZE))
    return clips, np.array(values, np.float16)


def test_a_head_claims_less_of_such_speech_and_still_knows_the_emotions() -> None:
    rng = np.random.default_rng(0)
    clips, values = labelled(rng)
    features = Features(values, np.arange(len(clips)), np.full(len(clips), 250))
    beyond = np.zeros((60, SIZE), np.float16)  # sad by its first values, and of another kind by the others
    beyond[:, EMOTIONS.index("sad")] = 4.0
    beyond[:, 6:] = 5.0
    speech = [Clip(Path(f"{n}.wav"), "read", f"r{n}", "") for n in range(60)]
    other = Features(beyond, np.arange(60), np.full(60, 250))
    claimed = []
    for unlabelled in (None, UnlabelledSpeech(speech, [other], PLAIN, seed=0)):
        episodes = Episodes(clips, [features], PLAIN, EpisodeConfig(speakers=2, samples=16), 0)
        options = HeadOptions("erm", steps=150, learning_rate=0.01, unlabelled_weight=1.0)
        arch = HeadArchitecture(SIZE, 16, dropout=0.0)
        head = train_head(episodes, arch, options, unlabelled=unlabelled)
        with torch.inference_mode():
            nothing = np.zeros(SIZE, np.float32)
            own = head(torch.from_numpy(head_inputs(values.astype(np.float32), nothing))).argmax(dim=1)
            probs = head(torch.from_numpy(head_inputs(beyond.astype(np.float32), nothing))).softmax(dim=1)
        right = [EMOTIONS[place] == clip.emotion for place, clip in zip(own.tolist(), clips, strict=True)]
        assert np.mean(right) > 0.95
        claimed.append(float(probs[:, 1:].amax(dim=1).mean()))
    without, with_it = claimed
    assert without > 0.5
    assert with_it < 0.4
