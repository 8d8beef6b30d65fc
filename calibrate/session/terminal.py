"""The guided session at a terminal: consent, the choice of a microphone, and the conversation itself."""

from __future__ import annotations

import contextlib
import functools
import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import Final, Protocol

import typer

from calibrate.session.controller import Ending, Guide
from calibrate.session.keys import END, Keys
from calibrate.session.playback import Loudspeaker
from calibrate.session.session import Session
from calibrate.session.session_folder import SessionFolder
from calibrate.session.views import frame, time_left, wrapped
from edge.audio.block import Source
from edge.audio.devices import InputDevice, input_devices
from edge.audio.downmix import AUTO, Channel
from edge.audio.sources import open_source
from edge.errors import UsageError
from edge.model.profile import profile_path
from edge.output.screen import Screen
from edge.output.terminal import can_redraw, plain_console
from edge.output.text import printable
from edge.recognition.pipeline import Stopper
from edge.system.shell import quoted

REDRAW_S: Final = 0.1
"""Shortest time between two frames."""

INSTEAD: Final = "record the takes yourself and give --from MANIFEST.csv with the columns path and emotion"


class Draw(Protocol):
    """Shows a conversation, unless it was shown just now."""

    def __call__(self, guide: Guide, device: str, *, at_once: bool) -> None:
        """Show it, now in any case if `at_once`."""


def require_terminal() -> None:
    """Check that there is somebody to talk to.

    Raises:
        UsageError: standard input or error is not a terminal, or one that cannot be drawn on.
    """
    if not (sys.stdin and sys.stdin.isatty() and sys.stderr.isatty()):
        raise UsageError(f"the guided session needs a terminal, and this is none: {INSTEAD}")
    if not can_redraw(plain_console(stderr=True)):
        term = os.environ.get("TERM") or "not set"
        raise UsageError(f"this terminal cannot be drawn on (TERM is {term}): use another one, or {INSTEAD}")


def require_microphone(spec: str) -> None:
    """Check that a source is a microphone.

    Raises:
        UsageError: it is a file, a pipe or the demo.
    """
    if spec != "mic" and not spec.startswith("mic:"):
        raise UsageError(f"--device {spec} is not a microphone: write mic, mic:INDEX or mic:NAME; {INSTEAD}")
    open_source(spec)


def notice(
    session: Session, folder: SessionFolder, kept_in: str, width: int, *, discards: bool = False
) -> str:
    """Say what is about to happen and what becomes of the recordings.

    Args:
        session: how far it has come.
        folder: where it waits.
        kept_in: where the recordings shall be kept afterwards; empty: nowhere.
        width: columns there are.
        discards: whether an unfinished session goes.
    """
    length = time_left(session.seconds_left([])).removesuffix(" left")
    afterwards = f"then they go to {kept_in}, as you asked" if kept_in else "then they are deleted"
    delete = f"mmtl profile delete {quoted(session.name)}"
    first = (
        f"Calibrating {session.name}: {session.takes} short sentences, each said in four manners and "
        f"judged by yourself; {length}."
    )
    items = (
        "Nothing leaves this device.",
        f"Recordings wait in {folder.path}, readable by your user only, until the profile is written; "
        f"{afterwards}.",
        f"The profile holds numbers and no sound: {profile_path(session.name)}",
        f"To delete the profile, and recordings that wait, at any time: {delete}",
        "Ctrl-C stops at any time. What is done then waits for --resume.",
        *(["What an unfinished session has recorded is deleted first, as --replace asks."] * discards),
    )
    lines = [*wrapped(first, width), ""]
    for item in items:
        head, *rest = wrapped(item, width - 4)
        lines += [f"  * {head}", *(f"    {line}" for line in rest)]
    return "\n".join(["", *lines, ""])


def consents(
    session: Session, folder: SessionFolder, kept_in: str, *, agreed: bool, discards: bool = False
) -> bool:
    """Show the notice, and ask unless the speaker has `agreed` already."""
    typer.echo(
        notice(session, folder, kept_in, plain_console(stderr=True).width, discards=discards), err=True
    )
    return agreed or typer.confirm("Does the person who will speak agree?", default=False, err=True)


def hold(
    session: Session, folder: SessionFolder, spec: str | None, channel: Channel = AUTO
) -> tuple[Session, bool]:
    """Hold the session, or what is left of it.

    Args:
        session: how far the speaker has come.
        folder: where takes go.
        spec: the microphone, as `edge.audio.sources` names it; None to ask where there are several.
        channel: which channel of it to hear.

    Returns:
        The session, and whether it is complete.

    Raises:
        DeviceError: there is no microphone, or it is gone for good.
        UsageError: the folder cannot be written to.
    """
    chosen = spec or choose_microphone()
    while True:
        guide = Guide(session, folder, Loudspeaker())
        _converse(guide, open_source(chosen, channel=channel))
        session = guide.session
        if guide.ending is not Ending.OTHER_DEVICE:
            return session, guide.ending is Ending.COMPLETE
        chosen = choose_microphone(always=True)


def choose_microphone(*, always: bool = False) -> str:
    """Let the speaker choose among the inputs that open; the only one is not asked about unless `always`."""
    inputs = [item for item in input_devices() if item.rates]
    if not inputs:
        return "mic"  # which says, on opening, why there is none
    if len(inputs) == 1 and not always:
        return f"mic:{inputs[0].index}"
    for item in inputs:
        typer.echo(f"{'*' if item.default else ' '} {item.index:>3}  {printable(item.name)}", err=True)
    usual = next((str(item.index) for item in inputs if item.default), str(inputs[0].index))
    number = typer.prompt("Number of the microphone", default=usual, value_proc=_one_of(inputs), err=True)
    return f"mic:{number}"


def _one_of(inputs: list[InputDevice]) -> Callable[[str], int]:
    numbers = {str(item.index) for item in inputs}

    def chosen(typed: str) -> int:
        if typed.strip() not in numbers:
            raise typer.BadParameter(f"choose one of {', '.join(sorted(numbers, key=int))}")
        return int(typed)

    return chosen


def _converse(guide: Guide, source: Source) -> None:
    """Let keys and sound come until the conversation ends or somebody stops it."""
    with source, Keys() as keys, Stopper().listening() as stopper, _screen() as draw:
        draw(guide, source.name, at_once=True)
        for block in stopper.blocks(source):
            guide.hear(block)
            for key in keys.pressed():
                if key == END:
                    return
                if guide.ending is None:
                    guide.press(key)
            if guide.ending:
                return
            # After the news that the microphone is gone nothing comes until it is back.
            draw(guide, source.name, at_once=block.device_change is not None)


@contextlib.contextmanager
def _screen() -> Iterator[Draw]:
    """Draw on the terminal's other screen, not too often; leave it as it was found."""
    drawn_s = -math.inf

    def draw(guide: Guide, device: str, *, at_once: bool) -> None:
        nonlocal drawn_s
        now_s = time.monotonic()
        if at_once or now_s - drawn_s >= REDRAW_S:
            drawn_s = now_s
            screen.draw(functools.partial(frame, guide, device))

    with contextlib.closing(Screen(plain_console(stderr=True))) as screen:
        yield draw
