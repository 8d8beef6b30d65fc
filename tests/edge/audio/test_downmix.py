from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.arrays import Array
from edge.audio.downmix import (
    AUTO,
    MIX,
    SEGMENT_S,
    Channel,
    Downmix,
    parse_channel,
    require_channels,
)
from edge.audio.resampler import AudioConverter
from edge.errors import UsageError
from tests.tolerances import float32_tolerance, largest

RATE = 8_000
SEGMENT = round(SEGMENT_S * RATE)


def voice(seconds: float, seed: int = 0, level: float = 0.1) -> Array:
    return np.random.default_rng(seed).normal(0.0, level, round(seconds * RATE)).astype(np.float32)


def pair(first: Array, second: Array) -> Array:
    return np.stack([first, second], axis=1)


def heard(sound: Array, channel: Channel = AUTO, sizes: tuple[int, ...] = (700,)) -> tuple[Array, list[str]]:
    """Downmix in blocks of some sizes in turn; return what comes out, and the warnings."""
    downmix, pieces, said, at, turn = Downmix(RATE, channel), [], [], 0, 0
    while at < len(sound):
        size = sizes[turn % len(sizes)]
        pieces.append(downmix.feed(sound[at : at + size]))
        said.append(downmix.take_warning())
        at, turn = at + size, turn + 1
    pieces.append(downmix.flush())
    said.append(downmix.take_warning())
    return np.concatenate(pieces), [warning.message for warning in said if warning]


SPEECH = voice(3.0)
OTHER = voice(3.0, seed=1)
SILENCE = np.zeros_like(SPEECH)


# What a user may ask for


@pytest.mark.parametrize(("text", "channel"), [("auto", AUTO), ("mix", MIX), ("0", 0), ("17", 17)])
def test_a_channel_is_a_number_mix_or_auto(text: str, channel: Channel) -> None:
    assert parse_channel(text) == channel


@pytest.mark.parametrize("text", ["", "-1", "left", "0.5", "AUTO", "1000", "٣"])
def test_anything_else_is_no_channel(text: str) -> None:
    with pytest.raises(UsageError, match=r"is no channel: give a number from 0, mix or auto"):
        parse_channel(text)
    with pytest.raises(UsageError, match="is no channel"):
        Downmix(RATE, text)


@pytest.mark.parametrize("channel", [0, 1, 2])
def test_a_number_is_one_channel_as_it_is(channel: int) -> None:
    sound = np.stack([SPEECH, OTHER, -SPEECH], axis=1)
    np.testing.assert_array_equal(heard(sound, channel)[0], sound[:, channel])


def test_mix_is_the_mean_of_all_channels() -> None:
    sound = np.stack([SPEECH, OTHER, SILENCE, SILENCE], axis=1)
    np.testing.assert_array_equal(heard(sound, MIX)[0], sound.mean(axis=1))
    assert not np.any(heard(pair(SPEECH, -SPEECH), MIX)[0])


@pytest.mark.parametrize(("channel", "channels"), [(1, 1), (2, 2), (7, 6), (-1, 2)])
def test_a_channel_that_is_not_there_is_refused(channel: int, channels: int) -> None:
    with pytest.raises(UsageError, match=rf"channel {channel} was asked for, the sound has"):
        Downmix(RATE, channel).feed(np.zeros((10, channels), np.float32))


@pytest.mark.parametrize("channels", [0, -1, 65])
def test_a_number_of_channels_that_nobody_sends_is_refused(channels: int) -> None:
    with pytest.raises(UsageError, match=r"expected 1 to 64"):
        require_channels(channels)


# One and two channels


@pytest.mark.parametrize("channel", [AUTO, MIX, 0])
def test_one_channel_is_heard_at_once_and_as_it_is(channel: Channel) -> None:
    downmix = Downmix(RATE, channel)
    np.testing.assert_array_equal(downmix.feed(SPEECH[:100]), SPEECH[:100])
    np.testing.assert_array_equal(downmix.feed(SPEECH[:100, None]), SPEECH[:100])


def test_two_channels_are_averaged() -> None:
    sound = pair(SPEECH, OTHER)
    mixed, said = heard(sound)
    np.testing.assert_array_equal(mixed, sound.mean(axis=1))
    assert said == []


@pytest.mark.parametrize("silent", [0, 1])
def test_the_only_channel_with_sound_keeps_its_level(silent: int) -> None:
    sound = pair(SPEECH, SILENCE) if silent else pair(SILENCE, SPEECH)
    mixed, said = heard(sound)
    np.testing.assert_array_equal(mixed, SPEECH)
    assert said == []


def test_a_channel_that_begins_late_is_averaged_from_its_first_sample_on() -> None:
    late = OTHER.copy()
    late[:10_001] = 0.0
    mixed, _ = heard(pair(SPEECH, late))
    np.testing.assert_array_equal(mixed[:10_001], SPEECH[:10_001])
    tolerance = float32_tolerance(2, largest(SPEECH, late))
    np.testing.assert_allclose(mixed[10_001:], (SPEECH + late)[10_001:] / 2.0, rtol=0, atol=tolerance)


@pytest.mark.parametrize("gain", [-1.0, -0.7, -1.4])
def test_opposite_phase_is_noticed_before_anything_is_lost(gain: float) -> None:
    sound = pair(SPEECH, (gain * SPEECH).astype(np.float32))
    mixed, said = heard(sound)
    louder = 0 if gain >= -1.0 else 1
    np.testing.assert_array_equal(mixed, sound[:, louder])
    assert said == [
        f"the two channels cancel each other (opposite phase): only channel {louder} is used; "
        f"choose the other with --channel {1 - louder}"
    ]


def test_opposite_phase_is_noticed_under_hum_offset_and_the_noise_of_two_amplifiers() -> None:
    phases = 2 * np.pi * 50 * np.arange(len(SPEECH)) / RATE
    hum: Array = (0.01 * np.sin(phases)).astype(np.float32)
    first, second = SPEECH + hum + 0.2, hum - SPEECH + 0.2
    sound = pair(first + voice(3.0, 2, 0.005), second + voice(3.0, 3, 0.005))
    mixed, said = heard(sound)
    assert np.array_equal(mixed, sound[:, 0]) or np.array_equal(mixed, sound[:, 1])
    assert len(said) == 1


def test_opposite_phase_after_a_quiet_beginning_is_noticed_at_once() -> None:
    quiet = voice(2.0, 4, 0.0005)
    first, second = np.concatenate([quiet, SPEECH]), np.concatenate([voice(2.0, 5, 0.0005), -SPEECH])
    mixed, said = heard(pair(first, second))
    np.testing.assert_array_equal(mixed[len(quiet) :], SPEECH)
    assert len(said) == 1
    assert "is used from 2.0 s on;" in said[0]


def test_opposite_phase_that_begins_later_is_noticed_within_two_segments() -> None:
    first = np.concatenate([SPEECH, SPEECH])
    second = np.concatenate([OTHER, -SPEECH])
    mixed, said = heard(pair(first, second))
    changed = len(SPEECH) + 2 * SEGMENT
    np.testing.assert_array_equal(mixed[changed:], first[changed:])
    np.testing.assert_array_equal(mixed[:changed], pair(first, second).mean(axis=1)[:changed])
    assert ["is used from 4.0 s on;" in message for message in said] == [True]


@pytest.mark.parametrize("share", [0.0, 0.3, 0.5])
def test_channels_that_only_differ_are_not_said_to_cancel(share: float) -> None:
    """Two microphones; voices left and right; a voice that is partly in opposite phase."""
    sound = pair(SPEECH, OTHER - share * SPEECH).astype(np.float32)
    mixed, said = heard(sound)
    np.testing.assert_array_equal(mixed, sound.mean(axis=1))
    assert said == []


def test_equal_channels_and_silence_are_not_held_back() -> None:
    downmix = Downmix(RATE)
    assert len(downmix.feed(pair(SPEECH, SPEECH)[:100])) == 100
    assert len(downmix.feed(np.zeros((100, 2), np.float32))) == 100
    assert len(downmix.feed(pair(SPEECH, OTHER)[:100])) == 0
    assert len(downmix.feed(pair(SPEECH, OTHER)[100:SEGMENT])) == SEGMENT
    assert len(downmix.feed(pair(SPEECH, OTHER)[:100])) == 100


def test_what_is_fed_may_change_afterwards() -> None:
    buffer, downmix = pair(SPEECH, OTHER)[:1_000].copy(), Downmix(RATE)
    downmix.feed(buffer)
    expected = buffer.mean(axis=1)
    buffer[:] = 7.0
    np.testing.assert_array_equal(downmix.flush(), expected)


def test_a_short_clip_in_opposite_phase_is_decided_at_its_end_and_the_decision_stays() -> None:
    downmix = Downmix(RATE)
    assert len(downmix.feed(pair(SPEECH, -SPEECH)[:800])) == 0
    np.testing.assert_array_equal(downmix.flush(), SPEECH[:800])
    np.testing.assert_array_equal(downmix.feed(pair(SPEECH, OTHER)[:50]), SPEECH[:50])


# Arrays


def test_of_an_array_the_first_channel_is_heard_and_not_what_the_loudspeaker_plays() -> None:
    """ReSpeaker: processed voice, four microphones, playback."""
    playback = voice(3.0, 6, 0.3)
    sound = np.stack([SPEECH, *(SPEECH + voice(3.0, seed, 0.01) for seed in range(4)), playback], axis=1)
    mixed, said = heard(sound)
    np.testing.assert_array_equal(mixed, SPEECH)
    assert said == []


def test_an_array_with_a_silent_first_channel_is_a_caution() -> None:
    sound = np.stack([np.zeros(4 * RATE), voice(4.0), voice(4.0, 1)], axis=1).astype(np.float32)
    mixed, said = heard(sound)
    assert not mixed.any()
    assert said == ["channel 0 of 3 is silent and another is not: choose one with --channel N"]
    assert heard(np.zeros((4 * RATE, 3), np.float32))[1] == []


# Any blocks

MATERIAL = {
    "pair": pair(SPEECH, OTHER),
    "opposite": pair(SPEECH, -SPEECH),
    "quiet, then opposite": pair(
        np.concatenate([0.001 * OTHER, SPEECH]), np.concatenate([0.001 * SPEECH, -0.9 * SPEECH])
    ),
    "later opposite": pair(np.concatenate([SPEECH, SPEECH]), np.concatenate([OTHER, -SPEECH])),
    "one late": pair(SPEECH, np.concatenate([SILENCE[:9_999], OTHER[9_999:]])),
    "equal, then not": pair(SPEECH, np.concatenate([SPEECH[:5_555], OTHER[5_555:]])),
    "array": np.stack([SPEECH, OTHER, OTHER], axis=1),
}


@settings(max_examples=40, deadline=None)
@given(name=st.sampled_from(sorted(MATERIAL)), sizes=st.lists(st.integers(1, 9_000), min_size=1, max_size=5))
def test_what_comes_out_does_not_depend_on_the_blocks(name: str, sizes: list[int]) -> None:
    sound = MATERIAL[name]
    whole, said = heard(sound, sizes=(len(sound),))
    assert len(whole) == len(sound)
    in_blocks, said_in_blocks = heard(sound, sizes=tuple(sizes))
    np.testing.assert_array_equal(in_blocks, whole)
    assert said_in_blocks == said


def test_blocks_of_one_frame_give_the_same() -> None:
    sound = MATERIAL["opposite"][: 2 * SEGMENT]
    np.testing.assert_array_equal(heard(sound, sizes=(1,))[0], heard(sound)[0])


@pytest.mark.parametrize("rate", [16_000, 48_000])
def test_what_is_held_back_keeps_the_time_it_arrived(rate: int) -> None:
    converter, random, out = AudioConverter(rate), np.random.default_rng(0), 0
    for number in range(1, 76):
        samples = converter.feed(random.normal(0.0, 0.1, (rate // 50, 2)).astype(np.float32), number / 50)
        out += len(samples)
        assert number < 25 or (out and (out - 1) / 16_000 < converter.arrived_s)
        assert converter.arrived_s <= number / 50
    converter.flush()
    assert converter.arrived_s == pytest.approx(1.5)
