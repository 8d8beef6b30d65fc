"""The live terminal monitor: draws a `MonitorState` as a frame of text.

`frame` is a pure function for any size; only `LiveMonitor` writes to the terminal. Colour only
repeats what a letter, a word or a length already shows.
"""

from __future__ import annotations

import functools
import math
import textwrap
import time
from collections.abc import Callable, Iterable
from typing import Final

from rich.console import Console
from rich.text import Text

from edge.events import Device, Drift, Event, Session, StreamWarning
from edge.labels import EMOTIONS, UNSURE
from edge.output.console import plain_console
from edge.output.frame_layout import BAD, GOOD, WARN, Row, bar, ends, flow, meter, most_important, placed
from edge.output.monitor_state import CLIP_DBFS, MINUTE_S, MonitorState, timeline_cells
from edge.output.screen import Screen
from edge.output.sinks import Sink
from edge.output.text import clock_time, describe_drift, describe_summary, printable

REDRAW_S: Final = 0.125
"""Shortest time between two frames: 8 frames per second."""

ROOMY: Final = 32
"""Height, in lines, from which the large layout is used."""

CLIP_SHOWN_S: Final = 2.0
"""Time that the clipping warning stays."""

COLOURS: Final = {"neutral": "#93a4b8", "happy": "#ecb91f", "sad": "#5aa2f0", "angry": "#f0604d"}
INK: Final = "#101418"
"""Colour of the letters on coloured cells."""

_PIXELS: Final = "69F99 78887 E999E F8E8F 78B97 99F99 E444E 8888F 9DB99 E9E88 E9EA9 78617 E4444 99996 AA444"
GLYPHS: Final = dict(zip("ACDEGHILNPRSTUY", _PIXELS.split(" "), strict=True))
"""Five rows of four pixels for each letter, one hexadecimal digit per row."""


def frame(state: MonitorState, width: int, height: int) -> Text:
    """Draw the state.

    Args:
        state: what to show.
        width: columns, >= 1.
        height: lines, >= 1. In few lines the least important rows are dropped.

    Returns:
        At most `height` lines, none wider than `width` cells.
    """
    inner = max(1, width - 4)
    rows = [
        (0, _header(state, inner)),
        (30, Text("")),
        *_headline(state, inner, height),
        (24, Text("")),
        *_emotion_rows(state, inner, roomy=height >= ROOMY),
        *_warning(state),
        (21, Text("")),
        (6, _rule("last minute", inner)),
        *((3, row) for row in _timeline(state, inner)),
        (22, Text("")),
        (13, _rule("input", inner)),
        (2, _level(state, inner)),
        (4, _speech(state)),
        (23, Text("")),
        (14, _rule("engine", inner)),
        *((5, row) for row in flow(_engine_items(state), inner)),
        *((8, row) for row in flow(_name_items(state), inner)),
    ]
    if state.advice:
        rows.append((0, Text(printable(describe_drift(state.advice)), WARN)))
    if state.recent_warning:
        lines = textwrap.wrap(printable(f"warning: {state.recent_warning.message}"), inner)
        rows += [(0, Text(line, WARN)) for line in lines]
    if state.notice:
        lines = textwrap.wrap(printable(state.notice), inner)
        rows += [(0, Text(line, f"bold {BAD}")) for line in lines]
    return Text("\n").join(placed(row, inner, width) for row in most_important(rows, height))


def _header(state: MonitorState, width: int) -> Text:
    right = Text.assemble(("Ctrl-C ends", "dim"), "   ", (clock_time(state.heard_s)[:-2], "bold"))
    return ends(Text.assemble(("mmtl", "bold"), ("   how the speaker sounds", "dim")), right, width)


def _headline(state: MonitorState, width: int, height: int) -> list[Row]:
    if state.window is None:
        return [(1, row) for row in _listening(state, width)]
    word, style = _shown_label(state)
    scale = 2 if height >= ROOMY else 1
    big = big_rows(word, scale)
    if height < 19 or not big or len(big[0]) > width:
        return [(1, Text(word.upper(), style))]
    return [(1, Text(row, style)) for row in big]


def _shown_label(state: MonitorState) -> tuple[str, str]:
    if state.window is None or not state.speaking:
        return "silence", "dim"
    if state.window.label == UNSURE:
        return UNSURE, "dim"
    return state.window.label, f"bold {_colour(state.window.label)}"


def _listening(state: MonitorState, width: int) -> list[Text]:
    if state.session is None:
        return [Text("starting", "bold"), Text(""), Text("")]
    full_s = state.session.window_s
    text = f"listening {min(state.heard_s, full_s):.1f} / {full_s:.1f} s"
    return [Text(text, "bold"), bar(state.heard_s / full_s if full_s > 0 else 1.0, width, GOOD), Text("")]


def _emotion_rows(state: MonitorState, width: int, *, roomy: bool) -> Iterable[Row]:
    shares = state.window.smoothed if state.window and state.speaking else {}
    shown_label, _ = _shown_label(state)
    for emotion in state.session.emotions if state.session else EMOTIONS:
        emphasis = "bold" if emotion == shown_label else ""
        letter = (f"{emotion[:1].upper()} ", f"bold {_colour(emotion)}")
        name = Text.assemble(letter, (f"{printable(emotion)[:8]:<9}", emphasis))
        share = shares.get(emotion, 0.0)
        number = Text(f"{share:5.0%}" if shares and _percentages(state) else "", emphasis)
        drawn = bar(share, width - name.cell_len - number.cell_len, _colour(emotion))
        yield 1, name + drawn + number
        if roomy:
            yield 31, Text("")


def _percentages(state: MonitorState) -> bool:
    return state.session is not None and state.session.temperature_fitted


def _warning(state: MonitorState) -> list[Row]:
    if state.window is None or _percentages(state):
        return []
    return [(15, Text("           no percentages: this bundle's temperature was not fitted", "dim"))]


def _timeline(state: MonitorState, width: int) -> list[Text]:
    """Draw the last minute, newest at the right, and its ticks."""
    ribbon = Text()
    for label in timeline_cells(state, width):
        if label == UNSURE:
            ribbon.append("·", "dim")
        else:
            ribbon.append(label[:1].upper() or " ", f"bold {INK} on {_colour(label)}" if label else "")
    ticks = [" "] * width
    for ago_s in (60, 45, 30, 15):
        column = round(width * (1 - ago_s / MINUTE_S))
        text = f"╵{ago_s} s"
        ticks[column : column + len(text)] = text
    return [ribbon, ends(Text("".join(ticks).rstrip(), "dim"), Text("now╵", "dim"), width)]


def _level(state: MonitorState, width: int) -> Text:
    level = max(-99.0, -99.0 if math.isnan(state.level_dbfs) else state.level_dbfs)
    clipped = state.heard_s - state.clipped_s < CLIP_SHOWN_S
    name = ("CLIPPING   ", f"bold {BAD}") if clipped else "level      "
    return Text.assemble(name, meter(level, width - 20, CLIP_DBFS), f"{level:4.0f} dBFS")


def _speech(state: MonitorState) -> Text:
    answer = Text("● yes", f"bold {GOOD}") if state.speaking else Text("○ no ", "dim")
    row = Text.assemble("speech     ", answer)
    if state.utterance:
        label, duration_s = state.utterance.label, state.utterance.end_s - state.utterance.start_s
        row += Text.assemble(
            ("     last utterance ", "dim"), (label, f"bold {_colour(label)}"), f", {duration_s:.1f} s"
        )
    return row


def _engine_items(state: MonitorState) -> list[Text]:
    factor, window = state.real_time_factor, state.window
    overruns = f"{state.overruns} ({state.lost_s:.1f} s lost)" if state.overruns else "0"
    return [
        _item("step", f"{state.step_ms:.1f} ms" if window else "-"),
        _item("real-time factor", f"{factor:.3f}" if window else "-", BAD if factor >= 1.0 else ""),
        _item("lag", f"{window.lag_ms:.0f} ms" if window else "-"),
        _item("overruns", overruns, BAD if state.overruns else ""),
    ]


def _name_items(state: MonitorState) -> list[Text]:
    if state.session is None:
        return []
    session = state.session
    names = {"source": session.source, "bundle": session.bundle}
    names |= {"profile": session.profile or "none", "provider": session.provider}
    return [_item(key, printable(name)) for key, name in names.items()]


def _item(key: str, value: str, style: str = "") -> Text:
    return Text.assemble((f"{key} ", "dim"), (value, f"bold {style}" if style else ""))


def _rule(title: str, width: int) -> Text:
    return Text.assemble((f"{title} ", "bold dim"), ("─" * max(0, width - len(title) - 1), "dim"))


def _colour(label: str) -> str:
    return COLOURS.get(label, "default")


def big_rows(word: str, scale: int) -> list[str]:
    """Draw a word in large letters; return no rows if a letter has no glyph.

    Args:
        word: the text.
        scale: 1 for three lines of half blocks, 2 for five lines of double width.
    """
    glyphs = [GLYPHS.get(letter) for letter in word.upper()]
    rows = [" ".join(f"{int(glyph[row], 16):04b}" for glyph in glyphs if glyph) for row in range(5)]
    if not all(glyphs):
        return []
    if scale == 2:
        return ["".join("██" if pixel == "1" else "  " for pixel in row) for row in rows]
    rows.append(" " * len(rows[0]))
    blocks = {"11": "█", "10": "▀", "1 ": "▀", "01": "▄"}
    pairs = [zip(rows[row], rows[row + 1], strict=True) for row in (0, 2, 4)]
    return ["".join(blocks.get(upper + lower, " ") for upper, lower in pair) for pair in pairs]


class LiveMonitor(Sink):
    """Shows the state on the alternate screen; `close` restores the terminal and prints a short summary.

    Nothing is drawn before the first event. Redraws at most 8 times a second, in the calling thread;
    there is no thread of its own.

    Args:
        console: where to draw; stderr unless given.
        clock: monotonic seconds; for tests.
    """

    def __init__(
        self, console: Console | None = None, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.state = MonitorState()
        self._console = console or plain_console(stderr=True)
        self._clock = clock
        self._drawn_s = -math.inf
        self._screen = Screen(self._console)

    def emit(self, event: Event) -> None:
        """Take an event; draw at once if the next one may be long in coming."""
        self.state = self.state.after(event)
        self._draw(at_once=isinstance(event, Session | Device | Drift | StreamWarning))

    def progress(self, heard_s: float, level_dbfs: float) -> None:
        """Show the duration heard and the level."""
        self.state = self.state.hearing(heard_s, level_dbfs)
        self._draw(at_once=False)

    def close(self) -> None:
        """Restore the terminal and print a summary."""
        if not self._screen.shown:
            return
        self._screen.close()
        for line in farewell(self.state):
            self._console.print(line)

    def _draw(self, *, at_once: bool) -> None:
        now = self._clock()
        if not at_once and now - self._drawn_s < REDRAW_S:
            return
        self._drawn_s = now
        self._screen.draw(functools.partial(frame, self.state))


def farewell(state: MonitorState) -> list[Text]:
    """Return the summary: one or two lines."""
    source = printable(state.session.source) if state.session else "nothing"
    lines = [Text.assemble(("mmtl", "bold"), f" heard {clock_time(state.heard_s)[:-2]} of {source}")]
    if state.summary:
        lines.append(Text(describe_summary(state.summary)))
    return lines
