"""libsndfile calls Python to read and to write; an interrupt there must not look like damage."""

from __future__ import annotations

import io
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from calibrate.session import session_folder
from edge.arrays import SAMPLE_RATE
from edge.audio.sound_file import read_clip
from edge.file_formats.section_reader import SectionReader
from edge.system import signals

SOUND = np.random.default_rng(0).uniform(-0.5, 0.5, SAMPLE_RATE).astype(np.float32)

Interrupting = Callable[[type, str, int], None]


@pytest.fixture
def interrupted(monkeypatch: pytest.MonkeyPatch) -> Interrupting:
    """Send the program Ctrl-C at the N-th call of a method that libsndfile calls."""

    def at(owner: type, method: str, call: int) -> None:
        original, calls = getattr(owner, method), iter(range(1, 1_000_000))

        def sends_a_signal(*arguments: Any) -> Any:
            if next(calls) == call:
                signal.raise_signal(signal.SIGINT)
            return original(*arguments)

        monkeypatch.setattr(owner, method, sends_a_signal)

    monkeypatch.setattr(sys, "unraisablehook", lambda dropped: None)
    return at


def stopped(work: Callable[[], object]) -> None:
    with signals.signal_handlers(signals.interrupt_handler()):
        with pytest.raises(KeyboardInterrupt) as caught:
            work()
        signals.mark_caught(caught.value)


@pytest.mark.parametrize("call", [1, 2, 5])
def test_an_interrupt_while_a_file_is_read_is_no_damage(
    tmp_path: Path, interrupted: Interrupting, call: int
) -> None:
    soundfile.write(tmp_path / "a.flac", SOUND, SAMPLE_RATE)
    interrupted(SectionReader, "readinto", call)
    stopped(lambda: read_clip(tmp_path / "a.flac"))


class Written(io.BytesIO):
    """A file in memory whose methods can be replaced."""


def test_an_interrupt_while_a_take_is_encoded_leaves_no_part_of_it(
    interrupted: Interrupting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(io, "BytesIO", Written)
    interrupted(Written, "write", 2)
    stopped(lambda: session_folder._wav(SOUND))


def test_an_interrupt_while_a_condition_is_encoded_ends_it(
    interrupted: Interrupting, monkeypatch: pytest.MonkeyPatch
) -> None:
    scoring_conditions = pytest.importorskip("train.scoring_conditions")
    monkeypatch.setattr(io, "BytesIO", Written)
    interrupted(Written, "write", 2)
    stopped(lambda: scoring_conditions.coded(SOUND, "opus"))
