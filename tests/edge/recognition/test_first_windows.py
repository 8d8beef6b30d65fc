"""A bundle may answer at the start of a stream before a window is full."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edge.arrays import Array
from edge.diagnostics.verification import verify
from edge.errors import BundleError
from edge.events import Event, Utterance, Window
from edge.model.bundle import Bundle, load_bundle
from edge.model.manifest import write_manifest
from edge.recognition.recognizer import Recognizer
from edge.recognition.settings import Settings

FIRST = 12
"""Features: 1.37 s of sound."""


@pytest.fixture(scope="module")
def early(bundle: Bundle) -> Bundle:
    graphs = replace(bundle.manifest.graphs, first_window_features=FIRST)
    return replace(bundle, manifest=replace(bundle.manifest, graphs=graphs))


@pytest.fixture(scope="module")
def speech(talk: Callable[..., Array]) -> Array:
    return talk((4.0, 0.3), (1.5, 0.0), (2.0, 0.2))


def heard(bundle: Bundle, sound: Array, step_ms: int = 240, size: int = 1_280) -> list[Event]:
    recognizer = Recognizer(bundle, provider="cpu", settings=Settings(step_ms=step_ms))
    blocks = [sound[start : start + size] for start in range(0, len(sound), size)]
    return [event for block in blocks for event in recognizer.feed(block)] + recognizer.flush()


def ends(events: list[Event]) -> list[float]:
    return [round(event.end_s, 3) for event in events if isinstance(event, Window)]


@pytest.mark.parametrize("step_ms", [80, 240, 480])
def test_windows_start_early_on_the_same_grid(
    early: Bundle, bundle: Bundle, speech: Array, step_ms: int
) -> None:
    late, all_of_them = ends(heard(bundle, speech, step_ms)), ends(heard(early, speech, step_ms))
    before = [end for end in all_of_them if end < late[0]]
    assert all_of_them[len(before) :] == late
    assert before[0] < 1.37 + step_ms / 1000.0
    np.testing.assert_allclose(np.diff([*before, late[0]]), step_ms / 1000.0, atol=2e-3)
    assert verify(early, speech, step_ms=step_ms).passed


def test_they_do_not_depend_on_blocks(early: Bundle, speech: Array) -> None:
    at_once, bit_by_bit = heard(early, speech, size=len(speech)), heard(early, speech, size=997)
    assert ends(at_once) == ends(bit_by_bit)


def test_the_average_of_an_utterance_is_of_full_windows(early: Bundle, bundle: Bundle, speech: Array) -> None:
    first = next(event for event in heard(early, speech) if isinstance(event, Utterance))
    usual = next(event for event in heard(bundle, speech) if isinstance(event, Utterance))
    assert first.windows == usual.windows
    assert first.probs == pytest.approx(usual.probs, abs=1e-5)


def test_a_first_window_longer_than_the_others_is_refused(bundle_folder: Path) -> None:
    manifest = load_bundle(bundle_folder).manifest
    graphs = replace(manifest.graphs, first_window_features=manifest.graphs.window_features + 1)
    write_manifest(bundle_folder, replace(manifest, graphs=graphs))
    with pytest.raises(BundleError, match="first window"):
        load_bundle(bundle_folder)
