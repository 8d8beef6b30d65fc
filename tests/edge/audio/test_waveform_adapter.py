from __future__ import annotations

import numpy as np
import pytest

from edge.arrays import Array
from edge.audio.downmix import AUTO
from edge.audio.resampler import AudioConverter
from edge.audio.waveform_adapter import WaveformAdapter, clean_samples
from edge.errors import UsageError


def noise(samples: int) -> Array:
    generator = np.random.default_rng(0)
    return (0.1 * generator.standard_normal(samples)).clip(-1, 1).astype(np.float32)


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100])
def test_a_waveform_is_converted_as_the_sources_convert_it(rate: int) -> None:
    sound, adapter, converter = noise(rate), WaveformAdapter(AUTO), AudioConverter(rate)
    found = np.concatenate(
        [adapter.feed(rate, sound[:777]), adapter.feed(rate, sound[777:]), adapter.flush()]
    )
    expected = np.concatenate([converter.feed(sound[:777]), converter.feed(sound[777:]), converter.flush()])
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(("kind", "scale"), [(np.int8, 2**7), (np.int16, 2**15), (np.int32, 2**31)])
def test_integers_are_scaled_by_their_width(kind: type[np.signedinteger], scale: int) -> None:
    integers = np.array([-scale, 0, scale // 2], kind)
    np.testing.assert_array_equal(WaveformAdapter(AUTO).feed(16_000, integers), [-1.0, 0.0, 0.5])


def test_a_channel_can_be_chosen() -> None:
    stereo = np.stack([noise(100), np.zeros(100, np.float32)], axis=1)
    np.testing.assert_array_equal(WaveformAdapter(1).feed(16_000, stereo), np.zeros(100))
    with pytest.raises(UsageError, match="channel 2"):
        WaveformAdapter(2).feed(16_000, stereo)


@pytest.mark.parametrize("rate", [0, 3_999, 192_001])
def test_a_rate_out_of_range_is_refused(rate: int) -> None:
    with pytest.raises(UsageError, match="expected 4000 to 192000 Hz"):
        WaveformAdapter(AUTO).feed(rate, noise(100))


@pytest.mark.parametrize("end", ["flush", "reset"])
def test_another_rate_is_for_the_next_stream(end: str) -> None:
    adapter = WaveformAdapter(AUTO)
    adapter.feed(48_000, noise(480))
    with pytest.raises(UsageError, match="the stream began at 48000 Hz"):
        adapter.feed(16_000, noise(160))
    getattr(adapter, end)()
    assert len(adapter.flush()) == 0
    np.testing.assert_array_equal(adapter.feed(16_000, noise(160)), noise(160))


def test_channels_that_cancel_each_other_are_reported_once() -> None:
    adapter, sound = WaveformAdapter(AUTO), noise(32_000)
    assert adapter.take_warning() is None
    adapter.feed(16_000, np.stack([sound, -sound], axis=1))
    warning = adapter.take_warning()
    assert warning is not None
    assert "cancel" in warning.message
    assert adapter.take_warning() is None


def test_clean_samples_are_passed_on_and_others_repaired() -> None:
    sound = noise(100)
    assert clean_samples(sound) is sound
    repaired = clean_samples(np.array([np.nan, np.inf, -np.inf, 2.0, -2.0, 0.5]))
    np.testing.assert_array_equal(repaired, np.array([0, 0, 0, 1, -1, 0.5], np.float32))
    assert repaired.dtype == np.float32
