from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from calibrate.quality import measure, refusal
from calibrate.take_limits import SILENT_DBFS, loudest_dbfs
from calibrate.takes import Take, read_sounds
from edge.arrays import Array
from edge.errors import UsageError
from edge.features.frontend import FrontEnd, filtered
from edge.model.bundle import load_bundle
from tests.cnn_lstm import CNN_LSTM


def noise(loudest: float) -> Array:
    """Two seconds of noise whose loudest block has this level in dBFS."""
    samples = np.random.default_rng(0).standard_normal(32_000).astype(np.float32) * np.float32(0.01)
    gain_db = loudest - loudest_dbfs(filtered(samples, FrontEnd()))
    return samples * np.float32(10.0 ** (gain_db / 20.0))


@pytest.mark.parametrize(("above_db", "silent"), [(-0.1, True), (0.1, False)])
def test_a_recording_is_silent_for_the_session_if_and_only_if_it_is_as_a_clip(
    tmp_path: Path, above_db: float, silent: bool
) -> None:
    sound = noise(SILENT_DBFS + above_db)
    assert ("Nothing was heard" in refusal(measure(sound))) == silent
    soundfile.write(tmp_path / "a.wav", sound, 16_000, subtype="FLOAT")
    takes, bundle = [Take(tmp_path / "a.wav", 0)], load_bundle(CNN_LSTM)
    if silent:
        with pytest.raises(UsageError, match=r"is silent \(never above -65 dBFS\)"):
            read_sounds(takes, bundle)
    else:
        np.testing.assert_array_equal(read_sounds(takes, bundle)[0], sound)
