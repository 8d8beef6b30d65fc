from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from safetensors.numpy import load_file

from edge.arrays import Array
from edge.diagnostics import verification
from edge.diagnostics.verification import TOLERANCE, verify
from edge.errors import UsageError
from edge.events import Event
from edge.features.normaliser import Normaliser
from edge.inference import offline
from edge.model.bundle import Bundle, load_bundle
from edge.model.manifest import ENCODER, WEIGHTS, WINDOW, read_manifest, write_manifest
from edge.recognition.recognizer import Recognizer
from edge.recognition.window_classifier import EmbeddedWindow
from tests.command_line import exit_code_of
from tests.edge.conftest import with_front_end

Talk = Callable[..., Array]


@pytest.fixture(scope="module")
def sound(talk: Talk) -> Array:
    return talk((1.0, 0.3), (1.2, 0.0), (2.4, 0.1))


@pytest.fixture
def doctored(bundle_folder: Path) -> Callable[[str], Path]:
    """A function that changes weights inside a graph, and its hash to match."""

    def change(name: str) -> Path:
        path = bundle_folder / name
        bias = load_file(bundle_folder / WEIGHTS)["meta.projection.bias"]
        graph = path.read_bytes()
        assert bias.tobytes() in graph, "the graph does not hold this bias as it is"
        path.write_bytes(graph.replace(bias.tobytes(), (bias + np.float32(0.5)).tobytes()))
        write_manifest(bundle_folder, read_manifest(bundle_folder))
        return bundle_folder

    return change


@pytest.mark.parametrize("step_ms", [80, 240])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_stream_keeps_its_word(bundle: Bundle, sound: Array, step_ms: int, seed: int) -> None:
    report = verify(bundle, sound, step_ms=step_ms, seed=seed)
    assert report.passed
    assert report.largest_difference <= TOLERANCE
    assert report.spread > 100 * TOLERANCE
    assert 0.0 < report.at_s <= len(sound) / 16_000


def test_every_window_of_the_steps_and_the_tail_is_compared(bundle: Bundle, talk: Talk) -> None:
    silence = talk((5.0, 0.0))
    assert verify(bundle, silence, step_ms=240).windows == 10
    assert verify(bundle, silence, step_ms=80).windows == 26


def test_less_than_a_window_is_compared_too(bundle: Bundle, talk: Talk) -> None:
    report = verify(bundle, talk((0.9, 0.2)))
    assert (report.windows, report.passed) == (1, True)


def test_sound_too_short_to_be_judged_is_a_usage_error(bundle: Bundle, talk: Talk) -> None:
    with pytest.raises(UsageError, match=r"0\.30 s of sound arrived, expected at least 0\.52 s"):
        verify(bundle, talk((0.3, 0.2)))


def test_the_same_seed_gives_the_same_report(bundle: Bundle, sound: Array) -> None:
    assert verify(bundle, sound, seed=5) == verify(bundle, sound, seed=5)


def test_a_long_sound_is_normalised_in_pieces_without_a_seam(
    bundle: Bundle, sound: Array, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(offline, "PIECE_FRAMES", 37)
    assert verify(bundle, sound).passed


@pytest.mark.parametrize("name", [WINDOW, ENCODER])
def test_graphs_of_different_weights_are_found(
    doctored: Callable[[str], Path], sound: Array, name: str
) -> None:
    report = verify(load_bundle(doctored(name)), sound)
    assert not report.equal
    assert not report.passed
    assert (report.causal, report.reset, report.flushed) == (True, True, True)


@pytest.mark.parametrize("hop_ms", [5, 20])
def test_a_bundle_of_another_hop_streams_as_its_whole_windows(
    bundle: Bundle, sound: Array, hop_ms: int
) -> None:
    report = verify(with_front_end(bundle, hop_length_ms=hop_ms), sound, step_ms=480)
    assert report.passed
    assert report.windows > 2


class Leaky(Recognizer):
    """Keeps the level of the stream before."""

    def reset(self) -> None:
        normaliser = self._stream._normaliser
        assert isinstance(normaliser, Normaliser)
        state = normaliser.state
        super().reset()
        normaliser.state = state


class Endless(Recognizer):
    """Never emits its tail."""

    def flush(self) -> list[Event]:
        return []


class Foresighted(Recognizer):
    """Says nothing of a stream before it has heard the end of it."""

    kept: list[Event]

    def reset(self) -> None:
        super().reset()
        self.kept = []

    def feed(self, samples: Array) -> list[Event]:
        self.kept += super().feed(samples)
        return []

    def flush(self) -> list[Event]:
        return [*self.kept, *super().flush()]


class Unsteady(Recognizer):
    """Emits no number in one window."""

    def reset(self) -> None:
        super().reset()
        classify = self._events._classifier.probs

        def probs(window: EmbeddedWindow, *, speech: bool) -> Array:
            found = classify(window, speech=speech)
            return np.full_like(found, np.nan) if window.end == 35 else found

        self._events._classifier.probs = probs  # type: ignore[method-assign]


@pytest.mark.parametrize(
    ("kind", "failed"),
    [
        (Leaky, {"reset", "causal"}),
        (Endless, {"equal", "flushed"}),
        (Foresighted, {"causal"}),
        (Unsteady, {"equal", "reset"}),
    ],
)
def test_a_recognizer_with_a_fault_is_found(
    bundle: Bundle, sound: Array, monkeypatch: pytest.MonkeyPatch, kind: type[Recognizer], failed: set[str]
) -> None:
    monkeypatch.setattr(verification, "Recognizer", kind)
    report = verify(bundle, sound, step_ms=240)
    found = {name for name in ("equal", "causal", "reset", "flushed") if not getattr(report, name)}
    assert found == failed
    assert not report.passed
    if "equal" in failed:
        assert math.isinf(report.largest_difference)


@pytest.fixture
def recording(sound: Array, tmp_path: Path) -> Path:
    path = tmp_path / "speech.wav"
    soundfile.write(path, sound, 16_000, subtype="FLOAT")
    return path


def test_the_command_prints_a_line_for_each_check(recording: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert exit_code_of("verify", "default", str(recording), "--step-ms", "80", "--seed", "3") == 0
    out, err = capfd.readouterr()
    assert err == ""
    assert re.match(r"\d+ windows", out)
    assert "largest difference" in out
    assert len(re.findall(r"^ok ", out, re.MULTILINE)) == 4


def test_the_demo_needs_no_file() -> None:
    assert exit_code_of("verify", "default", "demo") == 0


def test_a_failure_is_said_and_leaves_with_code_7(
    doctored: Callable[[str], Path],
    recording: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    assert exit_code_of("verify", str(doctored(WINDOW)), str(recording)) == 7
    out, err = capfd.readouterr()
    assert "FAILED  streaming equals offline" in out
    assert len(re.findall(r"^ok ", out, re.MULTILINE)) == 3
    assert err.count("\n") == 1
    assert "streaming equals offline" in err
