from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from edge.labels import EMOTIONS
from tests.train.synthetic import make_spectra, speaker_bin
from train.augment import Augmentation
from train.batches import Batches, SamplingConfig, padded
from train.mmtl import UNKNOWN, Samples, class_weights, support_and_query
from train.segments import Spectra, fit_normalisation, normalised

NONE = Augmentation().scaled(0.0)
SPEAKERS = 5


def batches_of(
    spectra: list[Spectra] | None = None,
    augmentation: Augmentation = NONE,
    sampling: SamplingConfig | None = None,
    seed: int = 0,
) -> Batches:
    spectra = spectra or make_spectra(SPEAKERS, takes=4)
    sampling = sampling or SamplingConfig(window=80, batch_size=6, speakers=3, samples=6)
    return Batches(spectra, fit_normalisation(spectra), augmentation, sampling, seed)


def same(first: list[Samples], second: list[Samples]) -> bool:
    fields = ("frames", "lengths", "emotion", "ratings", "emotion_weights", "rating_weights")
    return len(first) == len(second) and all(
        torch.equal(getattr(a, name), getattr(b, name))
        for a, b in zip(first, second, strict=True)
        for name in fields
    )


def drawn(batches: Batches, epoch: int = 0, *, by_speaker: bool = False) -> list[Samples]:
    if by_speaker:
        return [samples for tasks in batches.by_speaker(epoch) for samples in tasks]
    return list(batches.mixed(epoch))


def segments_of(samples: Samples) -> Iterator[Tensor]:
    for frames, length in zip(samples.frames, samples.lengths.tolist(), strict=True):
        yield frames[:length]


def speaker_in(segment: Tensor) -> int:
    """Tell the speaker of a segment by the bin in which all of their clips are loud."""
    return int(segment.mean(0)[[speaker_bin(speaker) for speaker in range(SPEAKERS)]].argmax())


@pytest.mark.parametrize("by_speaker", [False, True])
def test_a_seed_and_an_epoch_determine_the_batches(*, by_speaker: bool) -> None:
    draws = []
    for torch_seed in (1, 2):
        torch.manual_seed(torch_seed)  # what dropout has drawn must not matter
        draws.append(drawn(batches_of(augmentation=Augmentation()), 3, by_speaker=by_speaker))
    assert same(*draws)
    other_epoch = drawn(batches_of(augmentation=Augmentation()), 4, by_speaker=by_speaker)
    other_seed = drawn(batches_of(augmentation=Augmentation(), seed=1), 3, by_speaker=by_speaker)
    assert not same(draws[0], other_epoch)
    assert not same(draws[0], other_seed)


def test_the_batches_do_not_draw_from_the_generator_of_dropout() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    drawn(batches_of(augmentation=Augmentation()))
    assert torch.equal(torch.get_rng_state(), before)


def test_all_segments_of_a_task_are_of_one_speaker_and_the_speakers_differ() -> None:
    for tasks in batches_of().by_speaker(0):
        speakers = [{speaker_in(segment) for segment in segments_of(samples)} for samples in tasks]
        assert all(len(found) == 1 for found in speakers)
        assert len(set.union(*speakers)) == len(tasks) == 3


def test_mixed_batches_hold_several_speakers() -> None:
    """The twin of the test above."""
    found = [{speaker_in(segment) for segment in segments_of(batch)} for batch in batches_of().mixed(0)]
    assert max(map(len, found)) > 1


def test_a_task_takes_no_clip_twice_so_support_and_query_share_none() -> None:
    for samples in drawn(batches_of(), by_speaker=True):
        support, query = support_and_query(samples, "disjoint")
        assert len(support.frames) == len(query.frames) == 3
        for one in segments_of(support):
            assert not any(one.shape == other.shape and one.equal(other) for other in segments_of(query))


def test_a_task_weighs_the_classes_of_all_clips_of_its_speaker() -> None:
    spectra = [item for item in make_spectra(1, takes=4) if item.clip.emotion != "sad"]
    spectra = spectra[:3] + spectra[4:]  # three neutral, four happy, four angry
    (samples,) = next(iter(batches_of(spectra).by_speaker(0)))
    counts = torch.tensor([0] * 3 + [1] * 4 + [3] * 4)
    assert torch.equal(samples.emotion_weights, class_weights(counts, 4))
    assert samples.emotion_weights.tolist() == pytest.approx([1.0, 0.75, 0.0, 0.75])


def test_labels_stay_with_their_segments() -> None:
    for batch in drawn(batches_of()):
        for segment, emotion, ratings in zip(
            segments_of(batch), batch.emotion.tolist(), batch.ratings.T.tolist(), strict=True
        ):
            loud = [segment[:, 100 + 20 * index : 110 + 20 * index].mean() for index in range(4)]
            assert int(np.argmax(loud)) == emotion
            assert ratings == [emotion, 3 - emotion, 2]


def test_only_the_auxiliary_tasks_asked_for_are_drawn() -> None:
    sampling = SamplingConfig(window=80, batch_size=6, auxiliary=("dominance", "valence"))
    for batch in drawn(batches_of(sampling=sampling)):
        assert torch.equal(batch.ratings, torch.stack([torch.full((6,), 2), batch.emotion]))
        assert batch.rating_weights.shape == (2, 4)


def test_a_rating_nobody_gave_is_unknown() -> None:
    spectra = [Spectra(replace(item.clip, arousal=None), item.logs) for item in make_spectra(2)]
    for batch in drawn(batches_of(spectra)):
        assert (batch.ratings[1] == UNKNOWN).all()


def test_emotions_are_evened_out() -> None:
    spectra = [
        item
        for item in make_spectra(SPEAKERS, takes=6)
        if item.clip.emotion == "neutral" or item.clip.path.stem.endswith("-0")
    ]
    given = Counter(item.clip.emotion for item in spectra)
    assert given["neutral"] == 6 * given["sad"]
    batches = batches_of(spectra)
    found = torch.cat([batch.emotion for epoch in range(12) for batch in batches.mixed(epoch)])
    shares = torch.bincount(found, minlength=4) / len(found)
    assert shares.tolist() == pytest.approx([0.25] * 4, abs=0.06)


def test_larger_corpora_are_seen_more_but_by_the_root_of_their_size() -> None:
    large, small = make_spectra(4, takes=4), make_spectra(1, takes=1, frames=(70,), corpus="small")
    batches = batches_of([*large, *small])
    lengths = torch.cat([batch.lengths for epoch in range(20) for batch in batches.mixed(epoch)])
    ratio = (lengths != 70).sum() / (lengths == 70).sum()
    assert ratio.item() == pytest.approx(4.0, rel=0.35)  # 64 clips to 4


@pytest.mark.parametrize("by_speaker", [False, True])
def test_without_augmentation_a_segment_is_a_piece_of_the_normalised_clip(*, by_speaker: bool) -> None:
    spectra = make_spectra(3, takes=2)
    whole = [normalised(item, fit_normalisation(spectra)) for item in spectra]
    starts = set()
    for batch in drawn(batches_of(spectra), by_speaker=by_speaker):
        for segment in segments_of(batch):
            found = [
                start
                for clip in whole
                for start in range(len(clip) - len(segment) + 1)
                if np.array_equal(clip[start : start + len(segment)], segment.numpy())
            ]
            assert found
            starts.update(found)
    assert len(starts) > 1


def test_augmentation_changes_the_segments() -> None:
    """The twin of the test above."""
    plain, varied = drawn(batches_of()), drawn(batches_of(augmentation=Augmentation()))
    assert not torch.equal(plain[0].frames, varied[0].frames)


@pytest.mark.parametrize("by_speaker", [False, True])
def test_a_segment_is_never_longer_than_the_window_and_zero_past_its_end(*, by_speaker: bool) -> None:
    for batch in drawn(batches_of(augmentation=Augmentation()), by_speaker=by_speaker):
        assert batch.frames.shape[1] == batch.lengths.max() <= 80
        assert set(batch.lengths.tolist()) <= {60, 80}
        for frames, length in zip(batch.frames, batch.lengths.tolist(), strict=True):
            assert not frames[length:].any()


def test_the_papers_segments_are_standardised_and_padded_with_zeros_that_count() -> None:
    spectra = make_spectra(SPEAKERS, takes=4)
    normalisation = replace(fit_normalisation(spectra), scope="window", padded_to=100)
    sampling = SamplingConfig(window=80, batch_size=6, speakers=3, samples=6)
    for samples in Batches(spectra, normalisation, NONE, sampling, 0).mixed(0):
        assert samples.frames.shape[1:] == (100, 200)
        assert set(samples.lengths.tolist()) == {100}
        assert not samples.frames[:, 80:].any()
        assert samples.frames[0, :60].std() == pytest.approx(1.0, abs=0.05)


def test_an_epoch_has_the_steps_it_promises() -> None:
    batches = batches_of()  # 80 clips
    assert len(list(batches.mixed(0))) == batches.mixed_steps == 13
    assert len(list(batches.by_speaker(0))) == batches.meta_steps == 4


def test_fewer_speakers_or_clips_than_asked_for_are_all_taken() -> None:
    sampling = SamplingConfig(window=80, speakers=9, samples=50)
    (tasks,) = batches_of(make_spectra(2, takes=2), sampling=sampling).by_speaker(0)
    assert [len(samples.frames) for samples in tasks] == [8, 8]


def test_an_error_while_preparing_a_batch_is_not_swallowed() -> None:
    batches = batches_of()
    batches._settled.clear()
    with pytest.raises(IndexError):
        list(batches.mixed(0))


def test_segments_are_stacked_with_zeros_past_their_ends() -> None:
    frames, lengths = padded([np.ones((2, 3), np.float32), np.ones((4, 3), np.float32)])
    assert lengths.tolist() == [2, 4]
    assert frames.sum(dim=(1, 2)).tolist() == [6.0, 12.0]
    assert not frames[0, 2:].any()


def test_every_emotion_has_its_class() -> None:
    emotions = {int(label) for batch in drawn(batches_of()) for label in batch.emotion}
    assert emotions == set(range(len(EMOTIONS)))
