"""The controller of a guided session: its reactions to keys and sound."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibrate.quality import setup_advice
from calibrate.session.controller import Ending, Stage
from calibrate.session.session import Session
from edge.arrays import Array
from edge.audio.block import Block
from edge.audio.dead_input import ZEROS
from tests.calibrate.session.conversation import Talk
from tests.calibrate.session.synthetic_voices import room, tone


@pytest.fixture
def talk() -> Talk:
    """A session at its first prompt."""
    made = Talk()
    made.press("enter")
    return made


def test_it_begins_with_the_microphone(talk: Talk) -> None:
    beginning = Talk()
    assert beginning.controller.stage is Stage.MICROPHONE_CHECK
    beginning.hear(np.concatenate([room(1.0), tone(2.0, 0.0005)]))
    assert beginning.controller.quality
    beginning.hear(np.concatenate([room(2.0), tone(2.0, 0.1)]))
    assert setup_advice(beginning.controller.quality) == ""
    assert beginning.controller.level_dbfs == pytest.approx(-20.0, abs=0.5)
    assert talk.controller.stage is Stage.READY


def test_an_offset_does_not_raise_the_level() -> None:
    talk = Talk()
    talk.hear(room(2.0) + np.float32(0.3))
    assert talk.controller.level_dbfs == pytest.approx(-80.0, abs=2.0)


def test_another_microphone_can_be_asked_for() -> None:
    talk = Talk()
    talk.press("d")
    assert talk.controller.ending is Ending.OTHER_DEVICE


def test_a_take_is_recorded_rated_and_kept(talk: Talk) -> None:
    prompt = talk.controller.prompt
    talk.say()
    assert (talk.controller.stage, talk.controller.refusal) == (Stage.REVIEW, "")
    talk.press("enter", "1", "2", "5")
    assert talk.controller.session.done[prompt.index].ratings == (1.0, 2.0, 5.0)
    assert talk.controller.session.done[prompt.index].text == prompt.sentence
    assert talk.memory.saved == talk.controller.session
    assert len(talk.memory.sounds[prompt.index]) > 16_000
    assert (talk.controller.stage, talk.controller.prompt.index) == (Stage.READY, 1)


def test_a_skipped_question_is_left_open(talk: Talk) -> None:
    talk.take("4", "s", "2")
    assert talk.controller.session.done[0].ratings == (4.0, None, 2.0)


def test_an_answer_can_be_taken_back(talk: Talk) -> None:
    talk.say()
    talk.press("enter", "1", "backspace", "2", "s", "backspace", "backspace", "5", "5", "5")
    assert talk.controller.session.done[0].ratings == (5.0, 5.0, 5.0)
    talk.say()
    talk.press("enter", "backspace")
    assert talk.controller.stage is Stage.REVIEW


def test_silence_is_refused_and_cannot_be_kept(talk: Talk) -> None:
    talk.press("space")
    talk.hear(room(9.0))
    assert talk.controller.stage is Stage.REVIEW
    assert talk.controller.refusal.startswith("Nothing was heard")
    talk.press("enter")
    assert talk.controller.stage is Stage.REVIEW
    talk.take()
    assert 0 in talk.controller.session.done


def test_the_space_bar_ends_a_take_early(talk: Talk) -> None:
    talk.press("space")
    talk.hear(np.concatenate([room(0.6), tone(1.2)]))
    assert talk.controller.stage is Stage.RECORDING
    talk.press("space")
    assert (talk.controller.stage, talk.controller.refusal) == (Stage.REVIEW, "")


def test_a_take_can_be_played_and_recorded_again(talk: Talk) -> None:
    talk.say(0.05)
    talk.press("p")
    assert talk.controller.notice == "Playing ..."
    talk.press("r")
    assert talk.player.stopped > 0
    talk.hear(np.concatenate([room(0.6), tone(1.2, 0.2), room(1.5)]))
    talk.press("enter", "s", "s", "s")
    assert np.abs(talk.memory.sounds[0]).max() > 2.0 * np.abs(talk.player.played[0]).max()


def test_a_loudspeaker_that_fails_is_a_notice(talk: Talk) -> None:
    talk.player.reason = "It cannot be played: no loudspeaker."
    talk.say()
    talk.press("p")
    assert talk.controller.notice == "It cannot be played: no loudspeaker."
    assert talk.controller.stage is Stage.REVIEW


def test_a_take_that_cannot_be_written_is_not_lost(talk: Talk) -> None:
    talk.memory.refusal = "the disk is full"
    talk.take("4", "s", "2")
    assert talk.controller.session.done == {}
    assert "The take was not saved: the disk is full" in talk.controller.notice
    assert (talk.controller.stage, talk.controller.ratings) == (Stage.RATING, [4.0, None])
    talk.memory.refusal = ""
    talk.press("2")
    assert talk.controller.session.done[0].ratings == (4.0, None, 2.0)
    assert talk.controller.notice == "Kept."


def test_a_skip_that_cannot_be_saved_does_not_end_the_session(talk: Talk) -> None:
    talk.memory.refusal = "the disk is full"
    talk.press("s")
    assert "the disk is full" in talk.controller.notice
    assert (talk.controller.stage, talk.controller.prompt.index) == (Stage.READY, 1)


def test_lost_samples_discard_only_the_take_being_recorded(talk: Talk) -> None:
    talk.press("space")
    talk.hear(np.concatenate([room(0.6), tone(0.5)]))
    talk.controller.feed(Block(tone(0.02), 0.0, lost=100))
    assert talk.controller.stage is Stage.READY
    assert "lost" in talk.controller.notice
    talk.take()
    assert 0 in talk.controller.session.done


def test_an_unplugged_microphone_is_reported_until_it_is_back(talk: Talk) -> None:
    talk.press("space")
    talk.hear_of("lost")
    assert talk.controller.stage is Stage.READY
    assert "plug it in again" in talk.controller.notice
    talk.hear_of("back")
    assert talk.controller.notice == ""


def test_a_silent_microphone_is_reported_and_costs_no_take(talk: Talk) -> None:
    talk.press("space")
    talk.hear_of("silent", ZEROS)
    assert ZEROS in talk.controller.notice
    assert talk.controller.stage is Stage.RECORDING
    talk.hear_of("active")
    assert (talk.controller.notice, talk.controller.stage) == ("", Stage.RECORDING)


def test_a_whole_session_ends_by_itself(talk: Talk) -> None:
    for _ in range(8):
        assert talk.controller.ending is None
        talk.take()
    assert talk.controller.ending is Ending.COMPLETE
    assert sorted(talk.memory.sounds) == list(range(8))
    assert len(talk.controller.spent_s) == 8
    assert all(3.0 < seconds < 4.0 for seconds in talk.controller.spent_s)


def test_skipped_prompts_are_offered_again_at_the_end(talk: Talk) -> None:
    talk.press("s")
    for _ in range(7):
        talk.take()
    assert (talk.controller.stage, talk.controller.ending) == (Stage.SKIPPED, None)
    talk.press("r")
    assert talk.controller.prompt.index == 0
    talk.take()
    assert talk.controller.ending is Ending.COMPLETE


def test_a_session_with_enough_takes_may_finish_without_the_skipped_prompts(talk: Talk) -> None:
    talk.press("s")
    for _ in range(7):
        talk.take()
    talk.press("enter")
    assert talk.controller.ending is Ending.COMPLETE


def test_a_session_with_too_few_takes_may_not_finish(talk: Talk) -> None:
    talk.press(*["s"] * 8)
    assert talk.controller.stage is Stage.SKIPPED
    talk.press("enter")
    assert talk.controller.ending is None
    talk.press("r")
    assert talk.controller.prompt.index == 0


def test_a_resumed_session_goes_on_where_it_was(talk: Talk) -> None:
    talk.take()
    resumed = Talk(talk.memory.saved)
    resumed.press("enter")
    assert resumed.controller.prompt.index == 1


def test_every_key_that_does_something_is_shown_and_no_key_twice(talk: Talk) -> None:
    for stage in Stage:
        talk.controller.stage = stage
        keys = [action.key for action in talk.controller.actions]
        assert keys
        assert len(keys) == len(set(keys))


def speaks_freely(session: Session | None = None) -> Talk:
    """A session that asks for ordinary speech, past the microphone check."""
    talk = Talk(session or Session("anna", "en", 2, ordinary="open"))
    talk.press("enter")
    return talk


def test_ordinary_speech_is_recorded_before_the_first_take_and_ends_by_itself() -> None:
    talk = speaks_freely()
    assert (talk.controller.stage, talk.controller.asks_ordinary) == (Stage.READY, True)
    talk.press("space")
    talk.hear(np.concatenate([tone(20.0), room(3.0), tone(4.0)]))
    assert talk.controller.stage is Stage.RECORDING
    talk.hear(tone(1.5))
    assert (talk.controller.stage, talk.controller.refusal) == (Stage.REVIEW, "")
    talk.press("enter")
    assert talk.memory.ordinary is not None
    assert len(talk.memory.ordinary) == pytest.approx(28.0 * 16_000, rel=0.02)
    assert talk.controller.session.ordinary == "done"
    assert (talk.controller.stage, talk.controller.prompt.index) == (Stage.READY, 0)
    talk.take()
    assert 0 in talk.controller.session.done


def test_too_little_ordinary_speech_cannot_be_kept() -> None:
    talk = speaks_freely()
    talk.press("space")
    talk.hear(np.concatenate([tone(5.0), room(1.0)]))
    talk.press("space")
    assert talk.controller.refusal.startswith("Only 5 s of speech was heard, at least 8 s are needed")
    talk.press("enter")
    assert talk.memory.ordinary is None
    talk.press("space")
    talk.hear(np.concatenate([room(1.0), tone(9.0)]))
    talk.press("space", "enter")
    assert talk.controller.session.ordinary == "done"


@pytest.mark.parametrize(
    ("sound", "said"),
    [
        (room(12.0, 1e-5), "Nothing was heard"),
        (room(12.0, 3e-3), "No speech was heard"),
        (np.clip(tone(12.0, 3.0), -1.0, 1.0), "Too loud"),
        (np.concatenate([room(3.0, 8e-3), tone(12.0, 0.015)]), "Too much noise"),
    ],
)
def test_ordinary_speech_passes_the_same_checks_as_a_take(sound: Array, said: str) -> None:
    talk = speaks_freely()
    talk.press("space")
    talk.hear(sound)
    talk.press("space")
    assert talk.controller.refusal.startswith(said)


def test_ordinary_speech_may_be_skipped_before_takes() -> None:
    talk = speaks_freely()
    talk.press("s")
    assert (talk.controller.session.ordinary, talk.controller.prompt.index) == ("skipped", 0)


def test_ordinary_speech_alone_ends_the_session_and_cannot_be_skipped() -> None:
    talk = speaks_freely(Session("anna", "en", 0, ordinary="open"))
    talk.press("s")
    assert talk.controller.session.ordinary == "open"
    talk.press("space")
    talk.hear(np.concatenate([room(1.0), tone(26.0)]))
    talk.press("enter")
    assert talk.controller.ending is Ending.COMPLETE
    assert talk.memory.ordinary is not None


def test_ordinary_speech_that_cannot_be_written_is_not_lost() -> None:
    talk = speaks_freely()
    talk.press("space")
    talk.hear(np.concatenate([room(1.0), tone(26.0)]))
    talk.memory.refusal = "the disk is full"
    talk.press("enter")
    assert "The recording was not saved: the disk is full" in talk.controller.notice
    talk.memory.refusal = ""
    talk.press("enter")
    assert talk.controller.session.ordinary == "done"


KEYS = ["space", "enter", "backspace", "escape", *"12345srpdx"]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from([*KEYS, "voice", "room", "lost", "gone", "back"]), max_size=40))
def test_no_event_loses_a_kept_take(happenings: list[str]) -> None:
    talk, kept = Talk(Session("anna", "en", 2)), 0
    for what in happenings:
        if talk.controller.ending:
            break
        match what:
            case "voice":
                talk.hear(np.concatenate([tone(1.2), room(1.5)]))
            case "room":
                talk.hear(room(0.1))
            case "lost":
                talk.controller.feed(Block(room(0.02), 0.0, lost=5))
            case "gone" | "back":
                talk.hear_of("lost" if what == "gone" else "back")
            case key:
                talk.press(key)
        assert len(talk.controller.session.done) >= kept
        kept = len(talk.controller.session.done)
        assert set(talk.memory.sounds) == set(talk.controller.session.done)
        assert all(len(sound) for sound in talk.memory.sounds.values())
