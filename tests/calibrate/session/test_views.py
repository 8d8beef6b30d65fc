"""The frames of a guided session, in windows of any size."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from calibrate.session.controller import Stage
from calibrate.session.session import Session
from calibrate.session.stage_text import time_left
from calibrate.session.views import frame, wrapped
from edge.labels import EMOTIONS
from tests.calibrate.session.conversation import Talk
from tests.calibrate.session.synthetic_voices import room, tone


def text(talk: Talk, width: int = 80, height: int = 24) -> str:
    return frame(talk.controller, "USB Headset", width, height).plain


def squeezed(talk: Talk, width: int = 80, height: int = 24) -> str:
    return " ".join(text(talk, width, height).split())


def at(stage: Stage, language: str = "en") -> Talk:
    """A session that keys and sound have brought to a stage."""
    talk = Talk(Session("anna", language, 2))
    if stage is Stage.MICROPHONE_CHECK:
        return talk
    talk.press("enter")
    if stage is Stage.RECORDING:
        talk.press("space")
    elif stage in (Stage.REVIEW, Stage.RATING):
        talk.say()
        talk.press(*["enter"] * (stage is Stage.RATING))
    elif stage is Stage.SKIPPED:
        talk.press(*["s"] * 8)
    assert talk.controller.stage is stage
    return talk


@pytest.mark.parametrize("stage", Stage)
def test_keys_progress_and_time_left_are_always_shown_at_80_by_24(stage: Stage) -> None:
    talk = at(stage)
    shown = squeezed(talk)
    for action in talk.controller.actions:
        assert f"{action.shown} {action.does}" in shown
    assert "Ctrl-C stop and keep what is done" in shown
    assert "0 of 8 done" in shown
    assert "left" in shown
    assert "dBFS" in shown


@pytest.mark.parametrize("stage", Stage)
@pytest.mark.parametrize(("width", "height"), [(40, 24), (30, 14), (24, 12)])
def test_keys_and_time_left_stay_where_the_window_is_small(stage: Stage, width: int, height: int) -> None:
    talk = at(stage)
    shown = squeezed(talk, width, height)
    assert "left" in shown
    for action in talk.controller.actions:
        assert f"{action.shown} " in shown


@pytest.mark.parametrize("stage", [Stage.READY, Stage.RECORDING, Stage.REVIEW])
@pytest.mark.parametrize("language", ["en", "ko", "pl"])
def test_the_sentence_and_its_manner_are_shown(stage: Stage, language: str) -> None:
    talk = at(stage, language)
    for width, height in ((80, 24), (44, 16)):
        shown = squeezed(talk, width, height)
        assert f'"{talk.controller.prompt.sentence}"' in shown
        assert EMOTIONS[talk.controller.prompt.emotion].upper() in shown


@pytest.mark.parametrize("takes", [0, 2])
def test_ordinary_speech_is_explained_and_its_progress_shown(takes: int) -> None:
    talk = Talk(Session("anna", "en", takes, ordinary="open"))
    talk.press("enter")
    shown = squeezed(talk)
    assert "ORDINARY SPEECH: talk as you usually do, in any language, about anything" in shown
    assert f"0 of {1 + 4 * takes} done" in shown
    assert ("s skip this one" in shown) is (takes > 0)
    talk.press("space")
    assert "Speak now" in squeezed(talk)
    talk.hear(np.concatenate([room(1.0), tone(12.1)]))
    assert "12 s of speech heard, of 25 s" in squeezed(talk)
    talk.hear(tone(14.0))
    assert "Good: 25.0 s of speech" in squeezed(talk)
    for width, height in ((80, 24), (40, 16), (24, 12), (1, 1)):
        lines = text(talk, width, height).split("\n")
        assert len(lines) <= height
        assert max(map(cell_len, lines)) <= width


def test_the_advice_follows_the_voice() -> None:
    talk = Talk()
    assert "Waiting for your voice" in text(talk)
    talk.hear(np.concatenate([room(1.0), tone(2.0)]))
    assert "Good: your voice is at -20 dBFS" in text(talk)
    talk.hear(np.clip(tone(4.0, 3.0), -1.0, 1.0))
    assert "clipping" in text(talk)
    assert "too loud" in text(talk)


def test_a_refused_take_shows_why() -> None:
    talk = at(Stage.RECORDING)
    talk.hear(room(9.0))
    assert "Not usable. Nothing was heard" in squeezed(talk)
    assert "keep it" not in squeezed(talk)


def test_a_question_shows_its_pictures_and_what_skipping_means() -> None:
    talk = at(Stage.RATING)
    assert "negative or positive?" in text(talk)
    assert "If skipped, the usual value of the emotion is taken: 3.0." in text(talk)
    assert ".-----." in text(talk)
    assert "4 a bit positive" in text(talk, 50, 24)


def test_the_last_view_says_what_is_missing() -> None:
    talk = at(Stage.SKIPPED)
    assert "not enough" in squeezed(talk)
    assert "8 skipped" in squeezed(talk)
    assert "finish" not in squeezed(talk)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.0, "less than a minute left"),
        (50.0, "about 1 minute left"),
        (61.0, "about 2 minutes left"),
        (200.0, "about 4 minutes left"),
    ],
)
def test_the_time_left_is_said_in_minutes(seconds: float, said: str) -> None:
    assert time_left(seconds) == said


@pytest.mark.parametrize("notice", ["", "USB\x1b[31m\n is gone: plug it in again, or press Ctrl-C. " * 3])
@pytest.mark.parametrize("stage", Stage)
@settings(max_examples=40, deadline=None)
@given(st.integers(1, 200), st.integers(1, 60))
def test_no_window_is_too_small_and_no_line_too_wide(
    notice: str, stage: Stage, width: int, height: int
) -> None:
    talk = CONVERSATIONS[stage]
    talk.controller.notice = notice
    lines = text(talk, width, height).split("\n")
    assert len(lines) <= height
    assert max(map(cell_len, lines)) <= width
    assert not any("\x1b" in line for line in lines)


CONVERSATIONS = {stage: at(stage, "ko") for stage in Stage}


@given(st.text(max_size=80), st.integers(1, 40))
def test_wrapping_keeps_every_word(said: str, width: int) -> None:
    lines = wrapped(said, width)
    assert " ".join(lines).split() == said.split()
    assert all(cell_len(line) <= width or " " not in line for line in lines)
