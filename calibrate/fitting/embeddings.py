"""The inputs of the head for each take: embeddings and long-term spectra of the recogniser's windows.

Also which of these windows are speech, and how much sound they cover.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from calibrate.takes import InputNormalisation
from edge.arrays import Array
from edge.features.frontend import FrontEnd, filtered
from edge.features.long_term_spectrum import band_powers, long_term_spectrum
from edge.features.normaliser import DECIBEL
from edge.features.vad import SpeechDetector, SpeechFlags
from edge.inference.encoder_stream import EncodedBlock, FeatureStream
from edge.inference.window_grid import step_in_features, window_ends
from edge.model.manifest import Graphs
from edge.recognition.settings import Settings
from edge.recognition.window_buffer import is_speech

if TYPE_CHECKING:
    from edge.inference.engine import EngineLike


def extract_embeddings(
    engine: EngineLike, front_end: FrontEnd, normalisation: InputNormalisation, sounds: Sequence[Array]
) -> list[Array]:
    """Run each take as a new stream, as the recogniser does.

    Args:
        engine: runs the bundle's graphs.
        front_end: the bundle's constants.
        normalisation: of the bundle or of the speaker.
        sounds: (N,) samples of each take, enough for one feature.

    Returns:
        (W, D + SPECTRUM_SIZE) of each take: the embeddings of its W windows, followed by their long-term
        spectra.
    """
    stream = FeatureStream(engine, front_end, normalisation.levels, normalisation.statistics)
    step = step_in_features(Settings.step_ms, engine.graphs, front_end)
    extracted = []
    for sound in sounds:
        stream.reset()
        block = stream.feed(filtered(sound, front_end))
        ends = window_ends(len(block.features), engine.graphs, step)
        embeddings = _embed(engine, block.features, ends)
        spectra = _spectra(block, front_end, ends, engine.graphs)
        extracted.append(np.concatenate([embeddings, spectra], axis=1))
    return extracted


def speech_windows(graphs: Graphs, front_end: FrontEnd, sound: Array) -> NDArray[np.bool_]:
    """Tell which of the windows that `extract_embeddings` makes of a recording are speech.

    Args:
        graphs: of the bundle.
        front_end: the bundle's constants.
        sound: (N,) samples at 16 kHz, enough for one feature.

    Returns:
        (W,).
    """
    settings = Settings()
    flags = SpeechDetector(settings.gate, front_end).feed(filtered(sound, front_end))
    step = step_in_features(settings.step_ms, graphs, front_end)
    ends = window_ends(graphs.features_in(len(flags.speech)), graphs, step)
    frames = [slice(*graphs.frames_of(end)) for end in ends]
    parts = [SpeechFlags(flags.speech[span], flags.voice[span]) for span in frames]
    return np.array([is_speech(part, front_end, settings.speech_needed_s) for part in parts], bool)


def windows_worth(count: int, graphs: Graphs, front_end: FrontEnd) -> float:
    """Return how many full windows without overlap cover as much sound as consecutive ones at the step.

    1 + (W - 1) * step / window: a recording shorter than a window counts as one

    Args:
        count: W, > 0.
        graphs: of the bundle.
        front_end: the bundle's constants.
    """
    step = step_in_features(Settings.step_ms, graphs, front_end)
    return 1.0 + (count - 1) * step / graphs.window_features


def _embed(engine: EngineLike, features: Array, ends: Sequence[int]) -> Array:
    """Embed the windows of one take's (n, P) features: (W, D)."""
    full = engine.graphs.window_features
    return engine.classify(np.stack([features[max(0, end - full) : end] for end in ends]))


def _spectra(block: EncodedBlock, front_end: FrontEnd, ends: Sequence[int], graphs: Graphs) -> Array:
    """Return the long-term spectra of the same windows: (W, SPECTRUM_SIZE)."""
    bands, levels_db = band_powers(block.power, front_end), block.levels / np.float32(DECIBEL)
    frames = [slice(*graphs.frames_of(end)) for end in ends]
    return np.stack([long_term_spectrum(bands[span], levels_db[span]) for span in frames])
