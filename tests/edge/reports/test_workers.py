from __future__ import annotations

import multiprocessing
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from edge import demo_clip
from edge.reports.file_recognition import RecognitionJob, recognized
from edge.reports.workers import MOST_DEATHS, recognize_side_by_side

JOB = RecognitionJob(bundle="small")


@pytest.fixture
def clips(tmp_path: Path) -> list[str]:
    return [str(shutil.copy(demo_clip(), tmp_path / f"{number}.flac")) for number in range(3)]


def killer(times: int) -> Callable[[], bool]:
    """Return what kills a process each time it is asked, up to a number of times."""
    left = [times]

    def kill() -> bool:
        for child in multiprocessing.active_children()[:1]:
            if left[0]:
                left[0] -= 1
                child.kill()
        return False

    return kill


def test_a_killed_process_loses_nothing(clips: list[str]) -> None:
    results = dict(recognize_side_by_side(clips, JOB, 2, stopped=killer(1)))
    alone = recognized(clips[0], JOB)
    assert results == dict.fromkeys(clips, alone)
    assert multiprocessing.active_children() == []


def test_a_recording_that_kills_its_process_is_given_up(clips: list[str]) -> None:
    results = list(recognize_side_by_side(clips[:1], JOB, 1, stopped=killer(MOST_DEATHS)))
    assert [(path, result.utterances) for path, result in results] == [(clips[0], ())]
    assert "killed by signal 9" in results[0][1].problem


def test_stopping_ends_the_processes(clips: list[str]) -> None:
    assert (
        list(recognize_side_by_side(clips, JOB, 2, stopped=lambda: bool(multiprocessing.active_children())))
        == []
    )
    assert multiprocessing.active_children() == []
