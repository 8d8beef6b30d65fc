"""The front-end that training and deployment share, against torchaudio's."""

from __future__ import annotations

import numpy as np
import pytest

from edge.arrays import Array
from edge.features.frontend import FrontEnd, power_spectrogram
from tests.tolerances import float32_tolerance, largest

torch = pytest.importorskip("torch")
transforms = pytest.importorskip("torchaudio.transforms")


def reference(waveform: Array, front_end: FrontEnd) -> Array:
    """The spectra by torchaudio, whose frames are as long as its DFT, the window in their middle.

    A window longer than the DFT needs one as long as itself, of which every so many bins are ours.
    """
    every = max(1, front_end.win_length // front_end.n_fft)
    n_fft = every * front_end.n_fft
    spectrogram = transforms.Spectrogram(
        n_fft=n_fft,
        win_length=front_end.win_length,
        hop_length=front_end.hop_length,
        window_fn=torch.hamming_window,
        power=2,
        center=False,
    )
    margin = (n_fft - front_end.win_length) // 2
    power = spectrogram(torch.from_numpy(np.pad(waveform, margin)))
    bins: Array = power.numpy().T[:, ::every][:, : front_end.bins]
    return bins


@pytest.mark.parametrize("win_length_ms", [20, 40, 50, 100, 200])
def test_the_front_end_equals_torchaudio(win_length_ms: int) -> None:
    front_end = FrontEnd(win_length_ms=win_length_ms)
    waveform = (0.1 * np.random.default_rng(1).standard_normal(16_000)).astype(np.float32)
    expected = reference(waveform, front_end)
    computed = power_spectrogram(waveform, front_end)
    assert computed.shape == expected.shape
    tolerance = 2.0 * float32_tolerance(front_end.win_length, largest(expected))  # of a square
    np.testing.assert_allclose(computed, expected, rtol=0, atol=tolerance)


def test_another_window_would_be_noticed() -> None:
    waveform = (0.1 * np.random.default_rng(1).standard_normal(16_000)).astype(np.float32)
    other = reference(waveform, FrontEnd(win_length_ms=20))[:97]
    assert not np.allclose(power_spectrogram(waveform, FrontEnd())[:97], other, rtol=1e-1)
