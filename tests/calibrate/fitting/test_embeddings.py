"""The inputs of the head for a take equal those of the recogniser."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from calibrate.fitting.embeddings import extract_embeddings
from calibrate.takes import InputNormalisation
from edge.arrays import Array
from edge.events import Window
from edge.features.long_term_spectrum import SPECTRUM_SIZE
from edge.inference.engine import Engine
from edge.model.bundle import load_bundle
from edge.recognition.recognizer import Recognizer
from tests.cnn_lstm import CNN_LSTM
from tests.edge.conftest import with_front_end


def noise(seconds: float, seed: int = 0) -> Array:
    samples = np.random.default_rng(seed).standard_normal(round(16_000 * seconds))
    return (0.1 * samples).clip(-1, 1).astype(np.float32)


@pytest.mark.parametrize(("seconds", "offset"), [(0.52, 0.0), (1.7, 0.0), (3.0, 0.3), (4.4, 0.0)])
def test_the_inputs_of_a_take_are_exactly_the_recognizer_s(seconds: float, offset: float) -> None:
    bundle = load_bundle(CNN_LSTM)
    embedding_size = bundle.head.input_size
    spectrum = np.random.default_rng(2).standard_normal((64, SPECTRUM_SIZE)).astype(np.float32)
    all_of_it = np.concatenate([bundle.head.fc1_weight, spectrum], axis=1)
    bundle = replace(bundle, head=replace(bundle.head, fc1_weight=all_of_it))
    recognizer = Recognizer(bundle, provider="cpu")
    sound = noise(seconds) + np.float32(offset)
    events = [*recognizer.feed(sound), *recognizer.flush()]
    shown = [list(event.probs.values()) for event in events if isinstance(event, Window)]
    generic = InputNormalisation(bundle.manifest.levels, bundle.statistics)
    # The take follows another one, whose state must be reset.
    sounds = [noise(1.0, seed=1), sound]
    _, inputs = extract_embeddings(recognizer.engine, bundle.manifest.front_end, generic, sounds)
    assert inputs.shape == (len(shown), embedding_size + SPECTRUM_SIZE)
    np.testing.assert_allclose(bundle.head.probs(inputs), shown, atol=1e-4)


def test_a_bundle_of_another_hop_has_as_many_windows_as_its_recognizer() -> None:
    bundle = with_front_end(load_bundle(CNN_LSTM), hop_length_ms=5)
    recognizer = Recognizer(bundle, provider="cpu")
    sound = noise(4.0)
    events = [*recognizer.feed(sound), *recognizer.flush()]
    generic = InputNormalisation(bundle.manifest.levels, bundle.statistics)
    (inputs,) = extract_embeddings(recognizer.engine, bundle.manifest.front_end, generic, [sound])
    assert len(inputs) == sum(isinstance(event, Window) for event in events)


def test_the_shortest_take_gives_one_window() -> None:
    bundle = load_bundle(CNN_LSTM)
    generic = InputNormalisation(bundle.manifest.levels, bundle.statistics)
    (inputs,) = extract_embeddings(Engine(bundle, "cpu"), bundle.manifest.front_end, generic, [noise(0.52)])
    assert len(inputs) == 1
