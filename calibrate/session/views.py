"""What a guided session shows: a `Guide` becomes a frame of text of any size."""

from __future__ import annotations

import math
from typing import Final

from rich.cells import cell_len
from rich.text import Text

from calibrate.session.controller import Guide, Stage
from calibrate.session.quality import QUIETEST_DBFS, SOME_VOICE_S, setting
from calibrate.session.recording import Progress
from calibrate.session.sam_scale import SCALES, drawn
from edge.labels import EMOTIONS, derived_ratings
from edge.output.monitor_state import CLIP_DBFS
from edge.output.terminal import BAD, GOOD, WARN, Row, bar, ends, flow, meter, most_important, placed
from edge.output.text import printable

MANNERS: Final = {
    "neutral": "plainly, as you would read out a timetable",
    "happy": "happily, as if it were the best news of the week",
    "sad": "sadly, as if you had just said goodbye to somebody",
    "angry": "angrily, as if you had to say it for the third time",
}

SILENCE_DBFS: Final = -99.0
"""Shown for anything quieter."""


def frame(guide: Guide, device: str, width: int, height: int) -> Text:
    """Draw the conversation.

    Args:
        guide: what to show.
        device: the microphone's name.
        width: columns, >= 1.
        height: lines, >= 1. Where they are few, what matters least is left out.

    Returns:
        At most `height` lines, none wider than `width` cells.
    """
    inner = max(1, width - 4)
    rows: list[Row] = [
        *_header(guide, inner),
        (8, _progress(guide, inner)),
        (20, Text("")),
        *_body(guide, inner),
        (21, Text("")),
        *((1, Text(row, "bold")) for row in wrapped(printable(guide.notice), inner) if guide.notice),
        (22, Text("")),
        (3, _level(guide, inner)),
        (9, Text(f"microphone {printable(device)}", "dim")),
        (23, Text("")),
        *((0, row) for row in flow(_keys(guide), inner)),
    ]
    return Text("\n").join(placed(row, inner, width) for row in most_important(rows, height))


def wrapped(text: str, width: int) -> list[str]:
    """Break a text between words into lines of at most so many cells; a longer word has a line alone."""
    lines: list[str] = []
    for word in text.split():
        if lines and cell_len(lines[-1]) + 1 + cell_len(word) <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


def time_left(seconds: float) -> str:
    """Say how long the rest takes, as roughly as it is known."""
    if seconds < 45.0:
        return "less than a minute left"
    minutes = math.ceil(seconds / 60.0)
    return f"about {minutes} minute{'s' if minutes > 1 else ''} left"


def _header(guide: Guide, width: int) -> list[Row]:
    session = guide.session
    left = Text.assemble(("mmtl", "bold"), (f"   calibrating {printable(session.name)}", "dim"))
    skipped = f", {len(session.skipped)} skipped" if session.skipped else ""
    right = f"{_done(guide)} of {len(session.prompts)} done{skipped}, "
    right += time_left(session.seconds_left(guide.spent_s))
    if left.cell_len + 3 + cell_len(right) <= width:
        return [(2, ends(left, Text(right), width))]
    return [(19, left), *_lines(right, width, 2)]


def _progress(guide: Guide, width: int) -> Text:
    return bar(_done(guide) / len(guide.session.prompts), width, GOOD)


def _done(guide: Guide) -> int:
    return sum(prompt.index in guide.session.done for prompt in guide.session.prompts)


def _body(guide: Guide, width: int) -> list[Row]:
    match guide.stage:
        case Stage.LEVEL:
            return _check(guide, width)
        case Stage.RATING:
            return [*_manner(guide, width), *_question(guide, width)]
        case Stage.REST:
            return _rest(guide, width)
        case _:
            return [*_manner(guide, width), *_sentence(guide, width), (11, Text("")), *_take(guide, width)]


def _check(guide: Guide, width: int) -> list[Row]:
    asked = "First the microphone: say a few words, as loud and as near as you will speak all the time."
    advice, style = _advice(guide)
    return [*_lines(asked, width, 4), (11, Text("")), *_lines(advice, width, 1, style)]


def _advice(guide: Guide) -> tuple[str, str]:
    quality = guide.quality
    if quality is None or quality.voice_s < SOME_VOICE_S:
        return "○ Waiting for your voice ...", ""
    if reason := setting(quality):
        return f"! {reason}", f"bold {WARN}"
    above = f"{quality.level_dbfs:.0f} dBFS, {quality.snr_db:.0f} dB above the room"
    return f"● Good: your voice is at {above}.", f"bold {GOOD}"


def _manner(guide: Guide, width: int) -> list[Row]:
    emotion = EMOTIONS[guide.prompt.emotion]
    lines = wrapped(f"{emotion.upper()}: {MANNERS[emotion]}", width)
    return [(5, Text(line, "bold" if index == 0 else "")) for index, line in enumerate(lines)]


def _sentence(guide: Guide, width: int) -> list[Row]:
    lines = wrapped(f'"{guide.prompt.sentence}"', max(1, width - 2))
    return [(12, Text("")), *((1, Text(f"  {line}", "bold")) for line in lines)]


def _take(guide: Guide, width: int) -> list[Row]:
    if guide.stage is Stage.READY:
        told = "Press Space, then say it in that manner. A pause ends the recording."
        return _lines(told, width, 7)
    if guide.stage is Stage.RECORDING:
        assert guide.recorder
        waiting = guide.recorder.progress is Progress.WAITING
        told = "○ Speak now ..." if waiting else f"● Recording {guide.recorder.seconds:.1f} s"
        return _lines(told, width, 2, f"bold {WARN if waiting else BAD}")
    if guide.refusal:
        return _lines(f"Not usable. {guide.refusal}", width, 2, f"bold {BAD}")
    assert guide.quality
    good = f"Good: {guide.quality.voice_s:.1f} s of speech, {guide.quality.snr_db:.0f} dB above the room."
    return _lines(good, width, 2, f"bold {GOOD}")


def _question(guide: Guide, width: int) -> list[Row]:
    scale = SCALES[len(guide.ratings)]
    asked = f"{len(guide.ratings) + 1} of {len(SCALES)}   {scale.question} Press 1 to 5."
    derived = derived_ratings(EMOTIONS[guide.prompt.emotion])
    assert derived
    skipped = f"Skipped, it is derived from the emotion: {derived[len(guide.ratings)]:.1f}."
    pictures: list[Row] = [(2, Text(line)) for line in drawn(scale, width)]
    return [
        (11, Text("")),
        *_lines(asked, width, 1, "bold"),
        (12, Text("")),
        *pictures,
        (13, Text("")),
        *_lines(skipped, width, 10, "dim"),
    ]


def _rest(guide: Guide, width: int) -> list[Row]:
    session = guide.session
    counted = [f"{name} {session.counts.get(index, 0)}" for index, name in enumerate(EMOTIONS)]
    told = [
        "That was the last sentence. Takes so far: " + ", ".join(counted) + ".",
        f"{len(session.skipped)} skipped.",
    ]
    if not session.enough:
        told.append("That is not enough: two takes of at least two emotions are needed.")
    elif len(session.usable) < len(session.done):
        told.append("An emotion with a single take is left out.")
    return [row for text in told for row in _lines(text, width, 2)]


def _level(guide: Guide, width: int) -> Text:
    level = max(SILENCE_DBFS, guide.level_dbfs)
    word = "too loud" if level >= CLIP_DBFS else "quiet" if level < QUIETEST_DBFS else "ok"
    shown = Text.assemble(meter(level, width - 26, CLIP_DBFS), f"{level:4.0f} dBFS  {word:<8}")
    return Text("level  ") + shown


def _keys(guide: Guide) -> list[Text]:
    actions = [(action.shown, action.does) for action in guide.actions]
    stop = ("Ctrl-C", "stop and keep what is done")
    answer = [("1-5", "answer")] if guide.stage is Stage.RATING else []
    return [Text.assemble((key, "bold reverse"), f" {does}") for key, does in (*answer, *actions, stop)]


def _lines(text: str, width: int, dispensable: int, style: str = "") -> list[Row]:
    return [(dispensable, Text(line, style)) for line in wrapped(text, width)]
