"""The life of a guided session: refusals, and takes that are kept, resumed and deleted."""

from __future__ import annotations

import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import typer

import calibrate.session.workflow
from calibrate.session.session import Session
from calibrate.session.session_folder import SessionFolder
from calibrate.session.terminal import require_terminal
from calibrate.session.workflow import GuidedSession, SessionOptions
from calibrate.takes import read_ordinary, read_takes
from edge.errors import DeviceError, ProfileError, UsageError
from tests.calibrate.ordinary_speech import ordinary
from tests.calibrate.session.synthetic_voices import speech

Held = Callable[[Session, SessionFolder, str | None], tuple[Session, bool]]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Store sessions in a folder of the test, at a terminal where every question is answered with no."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    monkeypatch.setattr(calibrate.session.workflow, "require_terminal", lambda *_: None)
    answer(monkeypatch, yes=False)
    return tmp_path / "home"


def answer(monkeypatch: pytest.MonkeyPatch, *, yes: bool) -> None:
    monkeypatch.setattr(typer, "confirm", lambda *_, **__: yes)


def records(monkeypatch: pytest.MonkeyPatch, count: int, *, complete: bool) -> None:
    """Let the session record `count` takes before it ends."""

    def run_session(session: Session, folder: SessionFolder, *_: object) -> tuple[Session, bool]:
        for prompt in session.open[:count]:
            session = folder.keep(session, prompt, speech(), (3.0, None, None))
        return session, complete

    monkeypatch.setattr(calibrate.session.workflow, "run_session", run_session)


def unfinished(monkeypatch: pytest.MonkeyPatch, count: int, language: str = "pl") -> SessionFolder:
    records(monkeypatch, count, complete=False)
    assert GuidedSession(SessionOptions(name="anna", language=language, agreed=True)).record_takes() == []
    return SessionFolder("anna")


def test_without_consent_nothing_is_recorded_and_nothing_lost(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], home: Path
) -> None:
    records(monkeypatch, 8, complete=True)
    assert GuidedSession(SessionOptions(name="anna")).record_takes() == []
    assert "Nothing was recorded" in capsys.readouterr().err
    assert not home.exists()
    folder = unfinished(monkeypatch, 3)
    assert GuidedSession(SessionOptions(name="anna", replace=True)).record_takes() == []
    assert len(folder.load().done) == 3


def test_the_notice_names_what_is_stored_where_and_how_it_is_deleted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], home: Path, tmp_path: Path
) -> None:
    GuidedSession(SessionOptions(name="anna")).record_takes()
    said = " ".join(capsys.readouterr().err.split())
    assert "Nothing leaves this device." in said
    assert f"{home}/mmtl/sessions/anna" in said
    assert f"{home}/mmtl/profiles/anna.safetensors" in said
    assert "mmtl profile delete anna" in said
    assert "then they are deleted" in said
    GuidedSession(SessionOptions(name="anna", keep_recordings=tmp_path / "kept")).record_takes()
    assert f"then they are moved to {tmp_path}/kept" in " ".join(capsys.readouterr().err.split())


def test_the_language_is_the_locale_s_unless_named(monkeypatch: pytest.MonkeyPatch) -> None:
    records(monkeypatch, 1, complete=False)
    GuidedSession(SessionOptions(name="anna", agreed=True)).record_takes()
    assert SessionFolder("anna").load().language == "de"


def test_a_session_that_is_cut_short_says_how_to_go_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    records(monkeypatch, 3, complete=False)
    options = SessionOptions(
        name="anna",
        device="mic:USB Headset",
        replace=True,
        agreed=True,
        keep_recordings=tmp_path / "k",
        bundle=Path("b"),
        picture=Path("p.png"),
    )
    assert GuidedSession(options).record_takes() == []
    said = capsys.readouterr().err
    assert "3 takes are kept in" in said
    assert (
        "mmtl calibrate anna --resume --replace --device 'mic:USB Headset' --bundle b "
        f"--keep-recordings {tmp_path}/k --picture p.png\n"
    ) in said


def test_a_microphone_that_fails_costs_no_take(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run_session(session: Session, folder: SessionFolder, *_: object) -> tuple[Session, bool]:
        folder.keep(session, session.prompts[0], speech(), (None, None, None))
        raise DeviceError("it is gone")

    monkeypatch.setattr(calibrate.session.workflow, "run_session", run_session)
    with pytest.raises(DeviceError):
        GuidedSession(SessionOptions(name="anna", agreed=True)).record_takes()
    assert "1 take is kept" in capsys.readouterr().err


def test_an_unfinished_session_is_never_lost_by_accident(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = unfinished(monkeypatch, 3)
    with pytest.raises(UsageError, match="with 3 takes: give --resume to continue it, or --replace"):
        GuidedSession(SessionOptions(name="anna", agreed=True))
    assert len(folder.load().done) == 3
    records(monkeypatch, 1, complete=False)
    GuidedSession(SessionOptions(name="anna", agreed=True, replace=True)).record_takes()
    assert len(folder.load().done) == 1


def test_resuming_goes_on_and_may_make_the_plan_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    unfinished(monkeypatch, 3)
    records(monkeypatch, 12, complete=True)
    takes = GuidedSession(SessionOptions(name="anna", agreed=True, resume=True, takes=3)).record_takes()
    assert len(takes) == 12
    assert SessionFolder("anna").load().language == "pl"


def test_a_complete_session_is_fitted_without_a_question(monkeypatch: pytest.MonkeyPatch) -> None:
    unfinished(monkeypatch, 8)
    monkeypatch.setattr(calibrate.session.workflow, "run_session", None)
    assert len(GuidedSession(SessionOptions(name="anna", resume=True)).record_takes()) == 8


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        (SessionOptions(name="anna", resume=True), UsageError, "no unfinished session of anna"),
        (SessionOptions(name="../anna"), ProfileError, "cannot name a profile"),
        (SessionOptions(name="anna", language="xx"), UsageError, "there are no sentences in 'xx'"),
        (SessionOptions(name="anna", device="demo"), UsageError, "--device demo is not a microphone"),
        (SessionOptions(name="anna", device="take.wav"), UsageError, "is not a microphone"),
        (SessionOptions(name="anna", device="mic:"), UsageError, "names no device"),
    ],
)
def test_options_that_cannot_be_met_are_refused_before_the_first_take(
    options: SessionOptions, error: type[Exception], said: str, home: Path
) -> None:
    with pytest.raises(error, match=said):
        GuidedSession(options)
    assert not home.exists()


def test_a_session_stays_in_its_language(monkeypatch: pytest.MonkeyPatch) -> None:
    unfinished(monkeypatch, 1, "pl")
    with pytest.raises(UsageError, match="is in pl, not ko"):
        GuidedSession(SessionOptions(name="anna", resume=True, language="ko"))


def test_a_folder_with_recordings_is_refused_before_the_first_take(tmp_path: Path) -> None:
    (tmp_path / "manifest.csv").write_text("somebody else's")
    with pytest.raises(UsageError, match="holds recordings already"):
        GuidedSession(SessionOptions(name="anna", keep_recordings=tmp_path))


def test_a_failure_after_the_session_costs_no_take(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    records(monkeypatch, 8, complete=True)
    guided = GuidedSession(SessionOptions(name="anna", agreed=True))
    takes = guided.record_takes()
    with pytest.raises(UsageError), guided.takes_kept_on_error():
        raise UsageError("the disk is full")
    assert "8 takes are kept" in capsys.readouterr().err
    assert all(take.path.is_file() for take in takes)


def test_recordings_are_deleted_when_the_profile_is_adopted(monkeypatch: pytest.MonkeyPatch) -> None:
    records(monkeypatch, 8, complete=True)
    guided = GuidedSession(SessionOptions(name="anna", agreed=True))
    guided.record_takes()
    guided.finish(adopted=True)
    assert not SessionFolder("anna").path.exists()


@pytest.mark.parametrize("more", [False, True])
def test_after_a_rejection_more_takes_can_be_added(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], more: bool
) -> None:
    records(monkeypatch, 8, complete=True)
    guided = GuidedSession(SessionOptions(name="anna", agreed=True))
    guided.record_takes()
    answer(monkeypatch, yes=more)
    guided.finish(adopted=False)
    assert SessionFolder("anna").exists() is more
    assert ("mmtl calibrate anna --resume --replace --takes 4\n" in capsys.readouterr().err) is more


def test_ctrl_c_at_the_last_question_keeps_the_takes_and_says_where(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_: object, **__: object) -> bool:
        raise typer.Abort

    records(monkeypatch, 8, complete=True)
    guided = GuidedSession(SessionOptions(name="anna", agreed=True))
    guided.record_takes()
    monkeypatch.setattr(typer, "confirm", interrupt)
    guided.finish(adopted=False)
    said = capsys.readouterr().err
    assert f"They are kept in {SessionFolder('anna').path}" in said
    assert "mmtl calibrate anna --resume --replace --takes 4\n" in said
    assert len(SessionFolder("anna").load().done) == 8


def test_the_command_that_adds_takes_can_keep_the_recordings_too(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    records(monkeypatch, 8, complete=True)
    options = SessionOptions(name="anna", agreed=True, keep_recordings=tmp_path / "kept")
    guided = GuidedSession(options)
    guided.record_takes()
    answer(monkeypatch, yes=True)
    guided.finish(adopted=False)
    again = GuidedSession(replace(options, resume=True, replace=True, takes=4))
    assert len(again.record_takes()) == 16
    again.finish(adopted=True)
    assert len(read_takes(tmp_path / "kept" / "manifest.csv")) == 16
    assert not SessionFolder("anna").path.exists()


def test_replacing_an_unfinished_session_announces_its_deletion(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    unfinished(monkeypatch, 3)
    for options, said in (
        (SessionOptions(name="anna", resume=True), False),
        (SessionOptions(name="anna", replace=True), True),
    ):
        capsys.readouterr()
        GuidedSession(options).record_takes()
        assert ("recordings of the unfinished session are deleted" in capsys.readouterr().err) is said


def test_recordings_are_kept_where_they_were_wanted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    records(monkeypatch, 8, complete=True)
    guided = GuidedSession(SessionOptions(name="anna", agreed=True, keep_recordings=tmp_path / "kept"))
    takes = guided.record_takes()
    guided.finish(adopted=True)
    again = read_takes(tmp_path / "kept" / "manifest.csv")
    assert [(take.emotion, take.text, take.ratings) for take in again] == [
        (take.emotion, take.text, take.ratings) for take in takes
    ]
    assert not SessionFolder("anna").path.exists()


def test_recordings_that_cannot_be_copied_are_not_deleted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    records(monkeypatch, 8, complete=True)
    guided = GuidedSession(SessionOptions(name="anna", agreed=True, keep_recordings=tmp_path / "kept"))
    guided.record_takes()
    (tmp_path / "kept").rmdir()
    (tmp_path / "kept").write_text("a file in the way")
    with pytest.raises(UsageError, match="they are still in"):
        guided.finish(adopted=True)
    assert len(SessionFolder("anna").load().done) == 8


def test_a_suspected_take_can_be_listened_to_and_recorded_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    records(monkeypatch, 8, complete=True)
    guided = GuidedSession(SessionOptions(name="anna", language="en", agreed=True))
    takes = guided.record_takes()
    answer(monkeypatch, yes=True)
    guided.finish(adopted=True, outliers=True)
    said = capsys.readouterr().err
    assert f"They are kept in {takes[4].path.parent}" in said
    assert "To record a take again, delete its file there first." in said
    assert "Continue: mmtl calibrate anna --resume --replace" in said
    takes[4].path.unlink()
    asked: list[int] = []

    def run_session(session: Session, *_: object) -> tuple[Session, bool]:
        asked.extend(prompt.index for prompt in session.open)
        return session, False

    monkeypatch.setattr(calibrate.session.workflow, "run_session", run_session)
    GuidedSession(SessionOptions(name="anna", resume=True, replace=True, agreed=True)).record_takes()
    assert asked == [4]


def test_the_recordings_of_a_suspected_take_are_deleted_unless_they_are_wanted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    records(monkeypatch, 8, complete=True)
    guided = GuidedSession(SessionOptions(name="anna", language="en", agreed=True))
    guided.record_takes()
    guided.finish(adopted=True, outliers=True)
    assert not SessionFolder("anna").path.exists()
    assert "recordings are deleted" in capsys.readouterr().err


def speaks(monkeypatch: pytest.MonkeyPatch, *, then: int = 0, complete: bool = True) -> None:
    """Let the session record ordinary speech, and takes after it."""

    def run_session(session: Session, folder: SessionFolder, *_: object) -> tuple[Session, bool]:
        assert session.ordinary == "open"
        session = folder.keep_ordinary(session, ordinary(12.0))
        for prompt in session.open[:then]:
            session = folder.keep(session, prompt, speech(), (3.0, None, None))
        return session, complete

    monkeypatch.setattr(calibrate.session.workflow, "run_session", run_session)


def test_ordinary_speech_alone_is_deleted_in_the_end(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    speaks(monkeypatch)
    guided = GuidedSession(SessionOptions(name="anna", agreed=True, ordinary="only"))
    recording = guided.record_ordinary()
    assert recording is not None
    np.testing.assert_array_equal(read_ordinary(recording), ordinary(12.0))
    assert stat.S_IMODE(recording.stat().st_mode) == 0o600
    said = " ".join(capsys.readouterr().err.split())
    assert "you talk as you usually do for half a minute, about anything; less than a minute." in said
    assert "Ctrl-C stops at any time; nothing is kept then." in said
    guided.finish(adopted=True)
    assert not SessionFolder("anna").path.exists()


@pytest.mark.parametrize("fails", [True, False])
def test_of_ordinary_speech_alone_nothing_is_kept_for_later(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], fails: bool
) -> None:
    speaks(monkeypatch, complete=fails)
    guided = GuidedSession(SessionOptions(name="anna", agreed=True, ordinary="only"))
    assert (guided.record_ordinary() is not None) is fails
    if fails:
        with pytest.raises(UsageError), guided.takes_kept_on_error():
            raise UsageError("two people")
    assert "Nothing is kept of the recording." in capsys.readouterr().err
    assert not SessionFolder("anna").path.exists()


def test_ordinary_speech_is_kept_where_it_was_wanted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    speaks(monkeypatch)
    options = SessionOptions(name="anna", agreed=True, ordinary="only", keep_recordings=tmp_path / "kept")
    guided = GuidedSession(options)
    guided.record_ordinary()
    guided.finish(adopted=True)
    assert [item.name for item in (tmp_path / "kept").iterdir()] == ["ordinary.wav"]
    with pytest.raises(UsageError, match="holds recordings already"):
        GuidedSession(options)


def test_takes_may_follow_ordinary_speech_and_be_resumed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    speaks(monkeypatch, then=0, complete=False)
    first = SessionOptions(name="anna", agreed=True, ordinary="first")
    assert GuidedSession(first).record_takes() == []
    assert "then you say 2 short sentences" in " ".join(capsys.readouterr().err.split())
    assert SessionFolder("anna").load().ordinary == "done"
    records(monkeypatch, 8, complete=True)
    guided = GuidedSession(replace(first, resume=True))
    assert len(guided.record_takes()) == 8
    assert guided.ordinary_recording is not None
    guided.finish(adopted=True)
    assert not SessionFolder("anna").path.exists()


def test_a_session_of_before_asks_for_ordinary_speech_where_the_model_uses_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    unfinished(monkeypatch, 3)
    speaks(monkeypatch, then=5)
    guided = GuidedSession(SessionOptions(name="anna", agreed=True, resume=True, ordinary="first"))
    assert len(guided.record_takes()) == 8
    guided = GuidedSession(SessionOptions(name="anna", agreed=True, resume=True))
    assert guided.ordinary_recording is None


def test_ordinary_speech_alone_does_not_discard_an_unfinished_session(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = unfinished(monkeypatch, 3)
    with pytest.raises(UsageError, match="with 3 takes"):
        GuidedSession(SessionOptions(name="anna", agreed=True, ordinary="only"))
    assert len(folder.load().done) == 3


def test_without_a_terminal_ordinary_speech_can_be_read_from_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibrate.session.workflow, "require_terminal", require_terminal)
    with pytest.raises(UsageError, match="give --ordinary --from FILE"):
        GuidedSession(SessionOptions(name="anna", ordinary="only"))
