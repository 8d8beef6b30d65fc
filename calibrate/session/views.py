"""Frames of text of any size that show the state of a `SessionController`."""

from __future__ import annotations

import math
from typing import Final

from rich.cells import cell_len
from rich.text import Text

from calibrate.quality import setup_advice
from calibrate.session.controller import SessionController, Stage
from calibrate.session.recording import ORDINARY_TARGET_S, OrdinaryRecorder, Recorder, RecorderState
from calibrate.session.sam_scale import SCALES, draw_scale
from calibrate.take_limits import LEAST_SPEECH_DBFS, SOME_VOICE_S
from edge.labels import EMOTIONS, derived_ratings
from edge.output.frame_layout import BAD, GOOD, WARN, Row, bar, ends, flow, meter, most_important, placed
from edge.output.monitor_state import CLIP_DBFS
from edge.output.text import printable

MANNERS: Final = {
    "neutral": "plainly, as you would read out a timetable",
    "happy": "happily, as if it were the best news of the week",
    "sad": "sadly, as if you had just said goodbye to a friend",
    "angry": "angrily, as if you had to say it for the third time",
}

ORDINARY_SPEECH: Final = "ORDINARY SPEECH: talk as you usually do, in any language, about anything"
TOPICS: Final = (
    "What you did today, the way to work, what you see from the window, a film, what you will eat ..."
)

SILENCE_DBFS: Final = -99.0
"""Lowest level shown."""


def frame(controller: SessionController, device: str, width: int, height: int) -> Text:
    """Draw the session.

    Args:
        controller: of the session.
        device: the microphone's name.
        width: columns, >= 1.
        height: lines, >= 1. If they are few, the least important ones are left out.

    Returns:
        At most `height` lines, none wider than `width` cells.
    """
    inner = max(1, width - 4)
    rows: list[Row] = [
        *_header(controller, inner),
        (8, _progress(controller, inner)),
        (20, Text("")),
        *_body(controller, inner),
        (21, Text("")),
        *(
            (1, Text(row, "bold"))
            for row in wrapped(printable(controller.notice), inner)
            if controller.notice
        ),
        (22, Text("")),
        (3, _level(controller, inner)),
        (9, Text(f"microphone {printable(device)}", "dim")),
        (23, Text("")),
        *((0, row) for row in flow(_keys(controller), inner)),
    ]
    return Text("\n").join(placed(row, inner, width) for row in most_important(rows, height))


def wrapped(text: str, width: int) -> list[str]:
    """Wrap a text at words into lines of at most `width` cells; a longer word has its own line."""
    lines: list[str] = []
    for word in text.split():
        if lines and cell_len(lines[-1]) + 1 + cell_len(word) <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


def time_left(seconds: float) -> str:
    """Say the remaining time, in whole minutes."""
    if seconds < 45.0:
        return "less than a minute left"
    minutes = math.ceil(seconds / 60.0)
    return f"about {minutes} minute{'s' if minutes > 1 else ''} left"


def _header(controller: SessionController, width: int) -> list[Row]:
    session = controller.session
    left = Text.assemble(("mmtl", "bold"), (f"   calibrating {printable(session.name)}", "dim"))
    skipped = f", {len(session.skipped)} skipped" if session.skipped else ""
    done, steps = session.steps
    right = f"{done} of {steps} done{skipped}, "
    right += time_left(session.seconds_left(controller.spent_s))
    if left.cell_len + 3 + cell_len(right) <= width:
        return [(2, ends(left, Text(right), width))]
    return [(19, left), *_lines(right, width, 2)]


def _progress(controller: SessionController, width: int) -> Text:
    done, steps = controller.session.steps
    return bar(done / steps, width, GOOD)


def _body(controller: SessionController, width: int) -> list[Row]:
    match controller.stage:
        case Stage.MICROPHONE_CHECK:
            return _check(controller, width)
        case Stage.RATING:
            return [*_manner(controller, width), *_question(controller, width)]
        case Stage.SKIPPED:
            return _skipped(controller, width)
        case _ if controller.asks_ordinary:
            return _ordinary(controller, width)
        case _:
            return [
                *_manner(controller, width),
                *_sentence(controller, width),
                (11, Text("")),
                *_take(controller, width),
            ]


def _check(controller: SessionController, width: int) -> list[Row]:
    asked = "Microphone check: say a few words, as loudly and as close as in the rest of the session."
    advice, style = _advice(controller)
    return [*_lines(asked, width, 4), (11, Text("")), *_lines(advice, width, 1, style)]


def _advice(controller: SessionController) -> tuple[str, str]:
    quality = controller.quality
    if quality is None or quality.voice_s < SOME_VOICE_S:
        return "○ Waiting for your voice ...", ""
    if reason := setup_advice(quality):
        return f"! {reason}", f"bold {WARN}"
    above = f"{quality.level_dbfs:.0f} dBFS, {quality.snr_db:.0f} dB above the noise"
    return f"● Good: your voice is at {above}.", f"bold {GOOD}"


def _ordinary(controller: SessionController, width: int) -> list[Row]:
    asked = [(5, Text(line, "bold")) for line in wrapped(ORDINARY_SPEECH, width)]
    topics = [(12, Text("")), *_lines(TOPICS, width, 10)]
    return [*asked, *topics, (11, Text("")), *_ordinary_recording(controller, width)]


def _ordinary_recording(controller: SessionController, width: int) -> list[Row]:
    if controller.stage is Stage.READY:
        told = "Press Space, then talk for about half a minute. The recording ends by itself."
        return _lines(told, width, 7)
    recorder = controller.recorder
    if controller.stage is Stage.RECORDING and isinstance(recorder, OrdinaryRecorder):
        waiting = recorder.state is RecorderState.WAITING
        heard = f"● {recorder.voice_s:.0f} s of speech heard, of {ORDINARY_TARGET_S:.0f} s"
        told = "○ Speak now ..." if waiting else heard
        shown = bar(recorder.voice_s / ORDINARY_TARGET_S, width, GOOD)
        return [*_lines(told, width, 2, f"bold {WARN if waiting else BAD}"), (4, shown)]
    return _reviewed(controller, width)


def _manner(controller: SessionController, width: int) -> list[Row]:
    emotion = EMOTIONS[controller.prompt.emotion]
    lines = wrapped(f"{emotion.upper()}: {MANNERS[emotion]}", width)
    return [(5, Text(line, "bold" if index == 0 else "")) for index, line in enumerate(lines)]


def _sentence(controller: SessionController, width: int) -> list[Row]:
    lines = wrapped(f'"{controller.prompt.sentence}"', max(1, width - 2))
    return [(12, Text("")), *((1, Text(f"  {line}", "bold")) for line in lines)]


def _take(controller: SessionController, width: int) -> list[Row]:
    if controller.stage is Stage.READY:
        told = "Press Space, then say it in that manner. A pause ends the recording."
        return _lines(told, width, 7)
    if controller.stage is Stage.RECORDING:
        assert isinstance(controller.recorder, Recorder)
        waiting = controller.recorder.state is RecorderState.WAITING
        told = "○ Speak now ..." if waiting else f"● Recording {controller.recorder.seconds:.1f} s"
        return _lines(told, width, 2, f"bold {WARN if waiting else BAD}")
    return _reviewed(controller, width)


def _reviewed(controller: SessionController, width: int) -> list[Row]:
    if controller.refusal:
        return _lines(f"Not usable. {controller.refusal}", width, 2, f"bold {BAD}")
    quality = controller.quality
    assert quality
    good = f"Good: {quality.voice_s:.1f} s of speech, {quality.snr_db:.0f} dB above the noise."
    return _lines(good, width, 2, f"bold {GOOD}")


def _question(controller: SessionController, width: int) -> list[Row]:
    scale = SCALES[len(controller.ratings)]
    asked = f"{len(controller.ratings) + 1} of {len(SCALES)}   {scale.question} Press 1 to 5."
    derived = derived_ratings(EMOTIONS[controller.prompt.emotion])
    assert derived
    skipped = f"If skipped, the usual value of the emotion is taken: {derived[len(controller.ratings)]:.1f}."
    pictures: list[Row] = [(2, Text(line)) for line in draw_scale(scale, width)]
    return [
        (11, Text("")),
        *_lines(asked, width, 1, "bold"),
        (12, Text("")),
        *pictures,
        (13, Text("")),
        *_lines(skipped, width, 10, "dim"),
    ]


def _skipped(controller: SessionController, width: int) -> list[Row]:
    session = controller.session
    counted = [f"{name} {session.counts.get(index, 0)}" for index, name in enumerate(EMOTIONS)]
    told = [
        "That was the last sentence. Takes so far: " + ", ".join(counted) + ".",
        f"{len(session.skipped)} skipped.",
    ]
    if not session.enough:
        told.append("That is not enough: at least two takes each of two emotions are needed.")
    elif len(session.usable) < len(session.done):
        told.append("Emotions with a single take are left out.")
    return [row for text in told for row in _lines(text, width, 2)]


def _level(controller: SessionController, width: int) -> Text:
    level = max(SILENCE_DBFS, controller.level_dbfs)
    word = "too loud" if level >= CLIP_DBFS else "quiet" if level < LEAST_SPEECH_DBFS else "ok"
    shown = Text.assemble(meter(level, width - 26, CLIP_DBFS), f"{level:4.0f} dBFS  {word:<8}")
    return Text("level  ") + shown


def _keys(controller: SessionController) -> list[Text]:
    actions = [(action.shown, action.does) for action in controller.actions]
    stop = ("Ctrl-C", "stop and keep what is done" if controller.session.takes else "stop")
    answer = [("1-5", "answer")] if controller.stage is Stage.RATING else []
    return [Text.assemble((key, "bold reverse"), f" {does}") for key, does in (*answer, *actions, stop)]


def _lines(text: str, width: int, dispensable: int, style: str = "") -> list[Row]:
    return [(dispensable, Text(line, style)) for line in wrapped(text, width)]
