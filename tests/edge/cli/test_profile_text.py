from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import pytest

from edge.cli.profile_text import as_json, as_text, listing
from edge.model.bundle import Bundle
from edge.model.profile import Profile, Reference, save_profile

REPORT = {
    "takes": {"neutral": 2, "happy": 3},
    "reason": "it lowers the log loss of held-out takes by 0.31",
    "before": {"uar": 0.5, "log_loss": 1.125},
    "candidates": {"generic": {"uar": 0.5}, "head": {"uar": 0.75}},
    "plain": [1, 2],
}


@pytest.fixture
def profile(bundle: Bundle) -> Profile:
    made = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc)
    levels, statistics = bundle.manifest.levels, bundle.statistics
    fingerprint, head = bundle.fingerprint, bundle.head
    return Profile("anna", fingerprint, head, levels, statistics, "adopted", REPORT, made=made)


def test_a_list_says_verdict_date_and_model(profile: Profile, bundle: Bundle, tmp_path: Path) -> None:
    paths = [tmp_path / f"{name}.safetensors" for name in ("anna", "bobby", "c")]
    save_profile(paths[0], profile)
    paths[1].write_bytes(b"damaged")
    save_profile(paths[2], replace(profile, bundle="0" * 64, verdict="rejected"))
    assert listing(paths, bundle).splitlines() == [
        "anna   adopted   2026-01-02 03:04 UTC  for this model",
        "bobby  damaged",
        "c      rejected  2026-01-02 03:04 UTC  for another model",
    ]


def test_columns_are_aligned_whatever_the_script(profile: Profile, bundle: Bundle, tmp_path: Path) -> None:
    paths = [tmp_path / f"{name}.safetensors" for name in ("Ju\u0308rgen", "\ubbfc\uc218")]
    for path in paths:
        save_profile(path, profile)
    first, second = listing(paths, bundle).splitlines()
    assert first.startswith("J\u00fcrgen  adopted")
    assert second.startswith("\ubbfc\uc218    adopted")


def test_a_person_can_read_all_that_is_known(profile: Profile, bundle: Bundle) -> None:
    assert as_text(profile, bundle).splitlines() == [
        "anna",
        "  verdict      adopted",
        "  fitted to    labelled takes",
        "  made         2026-01-02 03:04 UTC",
        "  model        this model",
        "  drift watch  off: the profile has no statistics of the session",
        "  takes        neutral 2, happy 3",
        "  reason       it lowers the log loss of held-out takes by 0.31",
        "  before       uar 0.5, log loss 1.125",
        "  candidates",
        "    generic  uar 0.5",
        "    head     uar 0.75",
        "  plain        1, 2",
    ]


def test_how_it_was_judged_is_readable_too(profile: Profile, bundle: Bundle) -> None:
    judged = {
        "one_sentence": True,
        "gain": {"uar": {"mean": 0.25, "low": 0.125, "high": 0.5}},
        "confusion": {"before": {"sad": {"neutral": 1, "sad": 3}}},
    }
    assert as_text(replace(profile, report=judged), bundle).splitlines()[6:] == [
        "  one sentence  yes",
        "  gain",
        "    uar  mean 0.25, low 0.125, high 0.5",
        "  confusion",
        "    before",
        "      sad  neutral 1, sad 3",
    ]


def test_a_session_is_described_by_its_level(profile: Profile, bundle: Bundle) -> None:
    reference = Reference(np.array([-23.4, 0.5, 0.0]), np.array([4.2, 0.3, 1.0]))
    shown = as_text(replace(profile, reference=reference, made=None), bundle)
    assert "on: the session's level was -23 dBFS, with a standard deviation of 4 dB" in shown
    assert "made         unknown" in shown


def test_json_holds_the_report_which_cannot_pretend_to_be_another(profile: Profile) -> None:
    described = as_json(replace(profile, report={"clips": 8, "verdict": "rejected", "name": "eve"}))
    assert described == {
        "name": "anna",
        "verdict": "adopted",
        "made": "2026-01-02T03:04:05+00:00",
        "bundle": profile.bundle,
        "drift_watch": False,
        "clips": 8,
    }


def test_a_report_can_neither_steer_the_terminal_nor_add_a_line(profile: Profile, bundle: Bundle) -> None:
    evil = {"re\x1bason": "a\nb\x1b[2J", "\nmore": {"x\n": {"y\r": "\x07"}}}
    shown = as_text(replace(profile, report=evil), bundle)
    assert len(shown.splitlines()) == 9
    assert all(line.isprintable() for line in shown.split("\n"))


def test_a_report_of_nothing_is_no_trouble(profile: Profile, bundle: Bundle) -> None:
    assert "empty" in as_text(replace(profile, report={"empty": {}, "table": {"a": {}}}), bundle)


def test_a_list_of_nothing_is_said_to_be_none(profile: Profile, bundle: Bundle) -> None:
    report = {"doubtful_takes": [], "others": [{"take": 5, "emotion": "angry"}]}
    lines = as_text(replace(profile, report=report), bundle).splitlines()
    assert [line.split() for line in lines[-2:]] == [
        ["doubtful", "takes", "none"],
        ["others", "take", "5,", "emotion", "angry"],
    ]
