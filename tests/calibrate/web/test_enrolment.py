"""A browser's sessions, message by message."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from calibrate.session.session_folder import SessionFolder
from calibrate.session.session_lock import session_lock
from calibrate.speaker import OrdinaryCalibration
from calibrate.web.enrolment import MORE_HELPS
from edge.errors import UsageError
from edge.model.bundle import Bundle, load_bundle
from edge.model.profile import load_profile, profile_path
from edge.web.start import usable_profiles
from tests.calibrate.ordinary_speech import ordinary, with_baseline
from tests.calibrate.session.synthetic_voices import room, speech
from tests.calibrate.web.pages import Page
from tests.cnn_lstm import CNN_LSTM


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return with_baseline(load_bundle(CNN_LSTM))


@pytest.fixture(autouse=True)
def data_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def page(bundle: Bundle) -> Page:
    return Page(bundle)


def record_all(page: Page) -> None:
    """Record two emotions twice, and skip the others."""
    for peaks in ((0.3, 0.25), (0.28, 0.22)):
        for peak in peaks:
            take(page, peak)
        page.press("s", "s")


def recordings(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.suffix in (".wav", ".json", ".lock"))


def talk(page: Page, seconds: float = 11.0) -> None:
    """Pass the microphone check and record ordinary speech."""
    page.press("enter", "space")
    page.hear(ordinary(seconds))
    page.press("space")


def labelled(page: Page, **options: Any) -> None:
    """Begin a labelled session, and skip ordinary speech."""
    page.begin(kind="labelled", language="en", **options)
    page.press("enter", "s")


def say(page: Page, peak: float = 0.3) -> None:
    page.press("space")
    page.hear(speech(peak))
    page.press("space")


def take(page: Page, peak: float = 0.3) -> None:
    say(page, peak)
    page.press("enter", "3", "s", "4")


def test_ordinary_speech_becomes_a_profile_and_leaves_no_recording(
    page: Page, bundle: Bundle, data_home: Path
) -> None:
    page.begin()
    assert page.view["stage"] == "microphone_check"
    talk(page)
    assert page.view["stage"] == "review"
    assert page.view["status"]["tone"] == "good"
    page.press("enter")
    assert page.newest("fitting")
    result = page.newest("result")
    assert (result["name"], result["usable"], result["recordings"]) == ("anna", True, "deleted")
    assert "speech" in result["verdict"]
    assert page.told[-1] == {"page": "over"}
    assert page.saved == 1
    assert usable_profiles(bundle) == ["anna"]
    assert recordings(data_home) == []


def test_recordings_are_kept_on_request(page: Page, data_home: Path) -> None:
    page.begin()
    page.ask(do="keep", keep=True)
    talk(page)
    page.press("enter")
    assert page.newest("result")["recordings"] == "kept"
    assert recordings(data_home) == ["ordinary.wav"]


def test_a_labelled_session_is_judged_by_the_terminal_s_code(page: Page, data_home: Path) -> None:
    labelled(page, takes=2)
    assert page.view["heading"] == "Neutral"
    record_all(page)
    assert page.view["stage"] == "skipped"
    page.press("enter")
    result = page.newest("result")
    assert [row[0] for row in result["table"]["rows"]] == [
        "recognised (UAR)", "log loss (nats)", "calibration error",
    ]  # fmt: skip
    assert [side["title"] for side in result["confusions"]] == ["Answers before", "Answers after"]
    assert np.sum(result["confusions"][0]["rows"]) == 4
    assert result["verdict"].startswith("Rejected (generic)")
    assert (result["usable"], result["question"]) == (False, MORE_HELPS)
    assert not page.data or page.data[-1].startswith(b"\x89PNG")


def test_a_take_is_played_recorded_again_and_refused_if_silent(page: Page) -> None:
    labelled(page)
    page.press("space")
    page.hear(room(1.0))
    page.press("space")
    assert page.view["status"]["tone"] == "refused"
    say(page, 0.05)
    page.press("p")
    assert page.told[-1] == {"page": "sound"}
    quiet, rate = soundfile.read(io.BytesIO(page.data[-1]))
    assert rate == 16_000
    page.press("r")
    page.hear(speech(0.3))
    page.press("space", "p")
    loud, _ = soundfile.read(io.BytesIO(page.data[-1]))
    assert np.abs(loud).max() > 3.0 * np.abs(quiet).max()


def test_a_tab_that_closes_leaves_no_recording_unless_it_is_to_be_kept(
    page: Page, bundle: Bundle, data_home: Path
) -> None:
    labelled(page)
    take(page)
    assert "00-neutral.wav" in recordings(data_home)
    page.enrolment.close()
    assert recordings(data_home) == []
    other = Page(bundle)
    labelled(other, keep=True)
    take(other)
    other.enrolment.close()
    assert recordings(data_home) == ["00-neutral.wav", "session.json"]


def test_an_unfinished_session_is_continued_or_discarded_on_an_explicit_answer(
    page: Page, bundle: Bundle, data_home: Path
) -> None:
    labelled(page, keep=True)
    take(page)
    page.enrolment.close()
    other = Page(bundle)
    [asked] = other.begin(kind="labelled")
    assert (asked["page"], asked["takes"], asked["resumable"]) == ("unfinished", 1, True)
    [asked] = other.begin(kind="ordinary", unfinished="continue")
    assert (asked["page"], asked["resumable"]) == ("unfinished", False)
    other.begin(kind="labelled", unfinished="continue")
    other.enrolment.close()
    assert len(SessionFolder("anna").load().done) == 1
    other.begin(kind="labelled", unfinished="discard")
    assert recordings(data_home) == [".anna.lock"]
    assert other.ask(do="stop") == [{"page": "ended", "recordings": "none"}]


def test_an_existing_profile_is_replaced_only_on_an_explicit_yes(page: Page, bundle: Bundle) -> None:
    path = profile_path("anna")
    path.parent.mkdir(parents=True)
    path.write_text("a profile")
    assert page.begin() == [{"page": "exists", "name": "anna"}]
    page.begin(replace=True)
    talk(page)
    assert path.read_text() == "a profile"
    page.press("enter")
    assert load_profile(path, bundle).name == "anna"


def test_one_session_of_a_name_at_a_time(page: Page, bundle: Bundle) -> None:
    page.begin()
    [refused] = Page(bundle).begin()
    assert "already running" in refused["message"]
    with pytest.raises(UsageError, match="already running"), session_lock("anna"):
        pass
    page.enrolment.close()
    with session_lock("anna"):
        pass


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("../../etc/x", "cannot name a profile"),
        ("<img src=x onerror=alert(1)>", "cannot name a profile"),
        ("", "cannot name a profile"),
        ("a" * 65, "cannot name a profile"),
        ("anna.safetensors", "cannot name a profile"),
        ("nul", "other systems refuse"),
    ],
)
def test_a_bad_name_is_refused_and_another_can_be_tried(
    page: Page, data_home: Path, name: str, part: str
) -> None:
    [refused] = page.begin(name)
    assert (refused["page"], part in refused["message"]) == ("refused", True)
    assert recordings(data_home) == []
    assert page.begin("anna")[0]["page"] == "view"


@pytest.mark.parametrize(
    "change",
    [
        {"agreed": False},
        {"rate": 100},
        {"rate": True},
        {"rate": "16000"},
        {"kind": "full"},
        {"takes": 1},
        {"takes": 11},
        {"language": "xx"},
        {"language": "../../x"},
        {"unfinished": "no"},
        {"other": 1},
        {"name": None},
    ],
)
def test_a_beginning_that_is_not_as_expected_is_refused(
    page: Page, data_home: Path, change: dict[str, Any]
) -> None:
    usual = {"do": "begin", "name": "anna", "kind": "ordinary", "rate": 16_000, "agreed": True}
    [refused] = page.ask(**usual | change)
    assert refused["page"] == "refused"
    assert recordings(data_home) == []


@pytest.mark.parametrize(
    "message",
    [
        "",
        "[]",
        "{",
        '{"do": 1}',
        '{"do": "fly"}',
        '{"do": "press"}',
        '{"do": "lost", "seconds": "x"}',
        "[" * 900,
    ],
)
def test_a_message_that_is_no_request_is_refused_and_the_session_goes_on(page: Page, message: str) -> None:
    page.begin()
    replies = page._take(page.enrolment.take(message))
    assert [reply["page"] for reply in replies] == ["refused"]
    page.press("enter")
    assert page.view["stage"] == "ready"


def test_keys_without_a_meaning_and_sound_outside_a_session_are_ignored(page: Page) -> None:
    page.hear(room(0.5))
    assert page.told == []
    page.begin()
    page.press("d", "x", "", "enter" * 50)
    assert page.view["stage"] == "microphone_check"
    assert "d" not in [action["key"] for action in page.view["actions"]]


def test_sound_that_the_connection_lost_ends_the_take(page: Page) -> None:
    labelled(page)
    page.press("space")
    page.hear(speech()[:16_000])
    page.ask(do="lost", seconds=0.5)
    assert (page.view["stage"], "lost" in page.view["notice"]) == ("ready", True)


def test_a_fit_that_fails_says_why_and_deletes_ordinary_speech(
    page: Page, data_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> OrdinaryCalibration:
        raise UsageError(f"cannot read {data_home}/anna.wav")

    monkeypatch.setattr("calibrate.web.enrolment.calibrate_ordinary", fails)
    page.begin()
    talk(page)
    page.press("enter")
    failed = page.newest("failed")
    assert (failed["message"], failed["recordings"]) == ("cannot read unnamed", "deleted")
    assert recordings(data_home) == []
    assert page.saved == 0


@pytest.mark.parametrize("keep", [True, False])
def test_takes_of_a_fit_that_did_not_help_are_kept_if_the_person_says_so(
    page: Page, data_home: Path, *, keep: bool
) -> None:
    labelled(page)
    record_all(page)
    page.press("enter")
    page.ask(do="keep", keep=keep)
    assert page.ask(do="stop") == [{"page": "ended", "recordings": "kept" if keep else "deleted"}]
    assert ("session.json" in recordings(data_home)) is keep
