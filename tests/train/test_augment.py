from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pytest
import torch

from tests.tolerances import float32_tolerance, largest
from train.augment import Augmentation, masked, microphone, warped, with_noise


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def frames_of(batch: int = 3, time: int = 120, bins: int = 200) -> torch.Tensor:
    return torch.randn(batch, time, bins, generator=generator(5))


def test_strength_0_switches_everything_off_and_1_changes_nothing() -> None:
    none, all_of_it = Augmentation().scaled(0.0), Augmentation().scaled(1.0)
    strengths = ("level_db", "settled", "tilt_db", "noise", "warp", "mask_size")
    assert [asdict(none)[name] for name in strengths] == [0] * len(strengths)
    assert all_of_it == Augmentation()


def test_half_the_strength_is_half_of_each() -> None:
    half = Augmentation().scaled(0.5)
    assert (half.tilt_db, half.warp, half.mask_size) == (0.75, 0.04, 10)


def test_a_microphone_colours_every_frame_alike_and_smoothly() -> None:
    power = np.random.default_rng(0).uniform(0.1, 1.0, (50, 200)).astype(np.float32)
    gains = np.log(microphone(power, 3.0, np.random.default_rng(1)) / power)
    assert np.ptp(gains, axis=0).max() < float32_tolerance(3, 1.0)  # product, quotient, logarithm
    assert 0 < np.abs(np.diff(gains[0])).max() < 0.1 < np.ptp(gains[0])


def test_a_microphone_of_0_db_changes_nothing() -> None:
    power = np.random.default_rng(0).uniform(0.1, 1.0, (50, 200)).astype(np.float32)
    assert np.array_equal(microphone(power, 0.0, np.random.default_rng(1)), power)


def test_noise_has_the_ratio_asked_for() -> None:
    silence = np.zeros((4000, 200), np.float32)
    noise = with_noise(silence, 2.0, (10.0, 10.0), np.random.default_rng(0))
    assert noise.mean() == pytest.approx(2.0 / 10.0, rel=0.05)
    assert noise.dtype == np.float32
    assert noise.min() >= 0


def test_noise_is_added_to_the_speech() -> None:
    power = np.ones((50, 200), np.float32)
    assert (with_noise(power, 1.0, (10.0, 35.0), np.random.default_rng(0)) >= power).all()


def test_warping_moves_a_line_by_at_most_its_reach() -> None:
    frames = torch.zeros(16, 100, 200)
    frames[:, :, 100] = 1.0
    places = warped(frames, 0.08, generator())[:, 50].argmax(1)
    assert len(set(places.tolist())) > 4
    assert places.min() >= 100 / 1.08 - 1
    assert places.max() <= 100 / 0.92 + 1


def test_warping_keeps_the_start_and_the_length() -> None:
    frames = torch.zeros(16, 100, 200)
    frames[:, 0] = 1.0
    bent = warped(frames, 0.08, generator())
    assert bent.shape == frames.shape
    assert (bent[:, 0] > 0.9).all()
    assert (bent[:, 2:] == 0).all()


def test_warping_by_nothing_changes_nothing() -> None:
    frames = frames_of()
    place = float32_tolerance(4, max(frames.shape))  # of a frame or bin, in frames or bins
    tolerance = 2.0 * place * largest(frames.diff(dim=1), frames.diff(dim=2))
    torch.testing.assert_close(warped(frames, 0.0, generator()), frames, rtol=0, atol=tolerance)


def test_masks_blank_one_run_of_frames_and_of_bins_each_and_leave_the_rest() -> None:
    frames = frames_of(batch=40)
    blanked = masked(frames, 1, 20, generator())
    for before, after in zip(frames, blanked, strict=True):
        gone = after == 0
        times, bins = gone.all(dim=1), gone.all(dim=0)
        assert times.sum() <= 20
        assert bins.sum() <= 20
        for run in (times, bins):
            assert run.int().diff().abs().sum() <= 2
        kept = ~(times[:, None] | bins[None, :])
        assert torch.equal(after[kept], before[kept])
    assert len({int(item.sum()) for item in (blanked == 0)}) > 20


def test_masks_never_take_more_than_a_quarter() -> None:
    blanked = masked(torch.ones(200, 12, 200), 1, 20, generator())
    assert (blanked == 0).all(dim=2).sum(dim=1).max() <= 3


@pytest.mark.parametrize(("masks", "size"), [(0, 20), (1, 0)])
def test_no_masks_change_nothing(masks: int, size: int) -> None:
    assert torch.equal(masked(frames_of(), masks, size, generator()), frames_of())


def test_the_generator_alone_decides_the_masks() -> None:
    torch.manual_seed(1)
    first = masked(frames_of(), 2, 20, generator(9))
    torch.manual_seed(2)
    assert torch.equal(masked(frames_of(), 2, 20, generator(9)), first)
    assert not torch.equal(masked(frames_of(), 2, 20, generator(8)), first)
