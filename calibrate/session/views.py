"""Frames of text of any size that show the state of a `SessionController`."""

from __future__ import annotations

from typing import Final

from rich.cells import cell_len
from rich.text import Text

from calibrate.session.controller import SessionController, Stage
from calibrate.session.sam_scale import SCALES, draw_scale
from calibrate.session.stage_text import (
    CHECK,
    ORDINARY_SPEECH,
    TOPICS,
    Tone,
    end_of_prompts,
    if_skipped,
    level_word,
    manner,
    progress,
    recorded_share,
    status,
)
from edge.output.frame_layout import BAD, GOOD, WARN, Row, bar, ends, flow, meter, most_important, placed
from edge.output.monitor_state import CLIP_DBFS
from edge.output.text import printable

SIGNS: Final[dict[Tone, tuple[str, str]]] = {
    "plain": ("", ""),
    "waiting": ("○ ", ""),
    "speak": ("○ ", f"bold {WARN}"),
    "recording": ("● ", f"bold {BAD}"),
    "warning": ("! ", f"bold {WARN}"),
    "good": ("● ", f"bold {GOOD}"),
    "refused": ("", f"bold {BAD}"),
}
"""Sign and style of each tone."""

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


def _header(controller: SessionController, width: int) -> list[Row]:
    session = controller.session
    left = Text.assemble(("mmtl", "bold"), (f"   calibrating {printable(session.name)}", "dim"))
    right = progress(controller)
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
            return [row for text in end_of_prompts(controller) for row in _lines(text, width, 2)]
        case _ if controller.asks_ordinary:
            return _ordinary(controller, width)
        case _:
            return [
                *_manner(controller, width),
                *_sentence(controller, width),
                (11, Text("")),
                *_status(controller, width),
            ]


def _check(controller: SessionController, width: int) -> list[Row]:
    return [*_lines(CHECK, width, 4), (11, Text("")), *_status(controller, width, 1)]


def _ordinary(controller: SessionController, width: int) -> list[Row]:
    asked = [(5, Text(line, "bold")) for line in wrapped(ORDINARY_SPEECH, width)]
    topics = [(12, Text("")), *_lines(TOPICS, width, 10)]
    share = recorded_share(controller)
    bars: list[Row] = [] if share is None else [(4, bar(share, width, GOOD))]
    return [*asked, *topics, (11, Text("")), *_status(controller, width), *bars]


def _manner(controller: SessionController, width: int) -> list[Row]:
    lines = wrapped(manner(controller), width)
    return [(5, Text(line, "bold" if index == 0 else "")) for index, line in enumerate(lines)]


def _sentence(controller: SessionController, width: int) -> list[Row]:
    lines = wrapped(f'"{controller.prompt.sentence}"', max(1, width - 2))
    return [(12, Text("")), *((1, Text(f"  {line}", "bold")) for line in lines)]


def _status(controller: SessionController, width: int, dispensable: int | None = None) -> list[Row]:
    said = status(controller, "Space")
    sign, style = SIGNS[said.tone]
    if said.tone == "good" and controller.stage is Stage.REVIEW:
        sign = ""
    usual = 7 if controller.stage is Stage.READY else 2
    return _lines(sign + said.text, width, usual if dispensable is None else dispensable, style)


def _question(controller: SessionController, width: int) -> list[Row]:
    scale = SCALES[len(controller.ratings)]
    asked = f"{len(controller.ratings) + 1} of {len(SCALES)}   {scale.question} Press 1 to 5."
    pictures: list[Row] = [(2, Text(line)) for line in draw_scale(scale, width)]
    return [
        (11, Text("")),
        *_lines(asked, width, 1, "bold"),
        (12, Text("")),
        *pictures,
        (13, Text("")),
        *_lines(if_skipped(controller), width, 10, "dim"),
    ]


def _level(controller: SessionController, width: int) -> Text:
    level = max(SILENCE_DBFS, controller.level_dbfs)
    shown = Text.assemble(meter(level, width - 26, CLIP_DBFS), f"{level:4.0f} dBFS  {level_word(level):<8}")
    return Text("level  ") + shown


def _keys(controller: SessionController) -> list[Text]:
    actions = [(action.shown, action.does) for action in controller.actions]
    stop = ("Ctrl-C", "stop and keep what is done" if controller.session.takes else "stop")
    answer = [("1-5", "answer")] if controller.stage is Stage.RATING else []
    return [Text.assemble((key, "bold reverse"), f" {does}") for key, does in (*answer, *actions, stop)]


def _lines(text: str, width: int, dispensable: int, style: str = "") -> list[Row]:
    return [(dispensable, Text(line, style)) for line in wrapped(text, width)]
