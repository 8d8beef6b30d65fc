"""The guided session at a terminal: consent, the choice of a microphone, and the event loop."""

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

from calibrate.session.controller import Ending, SessionController
from calibrate.session.keys import END, Keys
from calibrate.session.playback import Loudspeaker
from calibrate.session.session import Session
from calibrate.session.session_folder import SessionFolder
from calibrate.session.stage_text import time_left
from calibrate.session.views import frame, wrapped
from edge.audio.block import Source
from edge.audio.devices import InputDevice, input_devices
from edge.audio.downmix import AUTO, Channel
from edge.audio.sources import open_source
from edge.errors import UsageError
from edge.model.profile import profile_path
from edge.output.console import can_redraw, plain_console
from edge.output.screen import Screen
from edge.output.text import printable
from edge.recognition.pipeline import Stopper
from edge.system.shell import quoted

REDRAW_S: Final = 0.1
"""Shortest time between two frames."""

INSTEAD: Final = "record the takes yourself and give --from MANIFEST.csv with the columns path and emotion"
INSTEAD_ORDINARY: Final = "record the speech yourself and give --ordinary --from FILE"


class DrawFrame(Protocol):
    """Draws the state of a session, at most once per `REDRAW_S`."""

    def __call__(self, controller: SessionController, device: str, *, at_once: bool) -> None:
        """Draw it; if `at_once`, whenever the last frame was drawn."""


def require_terminal(instead: str = INSTEAD) -> None:
    """Check that the program runs at a terminal.

    Args:
        instead: what to do without one.

    Raises:
        UsageError: standard input or error is not a terminal, or the terminal cannot be redrawn.
    """
    if not (sys.stdin and sys.stdin.isatty() and sys.stderr.isatty()):
        raise UsageError(
            "the guided session needs a terminal, but input or output is redirected", remedy=instead
        )
    if not can_redraw(plain_console(stderr=True)):
        term = os.environ.get("TERM") or "not set"
        raise UsageError(
            f"this terminal cannot be redrawn (TERM is {term})", remedy=f"use another one, or {instead}"
        )


def require_microphone(spec: str, instead: str = INSTEAD) -> None:
    """Check that a source is a microphone.

    Args:
        spec: the source, as `edge.audio.sources` names it.
        instead: what to do without a microphone.

    Raises:
        UsageError: it is a file, a pipe or the demo.
    """
    if spec != "mic" and not spec.startswith("mic:"):
        raise UsageError(
            f"--device {spec} is not a microphone", remedy=f"write mic, mic:INDEX or mic:NAME; {instead}"
        )
    open_source(spec)


def privacy_notice(
    session: Session, folder: SessionFolder, kept_in: str, width: int, *, discards: bool = False
) -> str:
    """Write the privacy notice: what the session does and what happens to the recordings.

    Args:
        session: the progress so far.
        folder: where the session is stored.
        kept_in: the folder of --keep-recordings; empty: none.
        width: available columns.
        discards: whether an unfinished session is deleted.
    """
    length = time_left(session.seconds_left([])).removesuffix(" left")
    afterwards = f"then they are moved to {kept_in}" if kept_in else "then they are deleted"
    delete = f"mmtl profile delete {quoted(session.name)}"
    freely = "you talk as you usually do for half a minute, about anything"
    sentences = f"you say {session.takes} short sentences, each in four manners, and rate how they sounded"
    parts = [freely] * (session.ordinary == "open") + [sentences] * (session.takes > 0)
    first = f"Calibrating {session.name}: {', then '.join(parts)}; {length}."
    stopped = "finished takes are kept for --resume" if session.takes else "nothing is kept then"
    items = (
        "Nothing leaves this device.",
        f"Recordings are stored in {folder.path}, readable only by your user, until the profile is written; "
        f"{afterwards}.",
        f"The profile contains numbers and no sound: {profile_path(session.name)}",
        f"To delete the profile and any stored recordings at any time: {delete}",
        f"Ctrl-C stops at any time; {stopped}.",
        *(["The recordings of the unfinished session are deleted first, because of --replace."] * discards),
    )
    lines = [*wrapped(first, width), ""]
    for item in items:
        head, *rest = wrapped(item, width - 4)
        lines += [f"  * {head}", *(f"    {line}" for line in rest)]
    return "\n".join(["", *lines, ""])


def ask_consent(
    session: Session, folder: SessionFolder, kept_in: str, *, agreed: bool, discards: bool = False
) -> bool:
    """Show the privacy notice, and ask for consent unless the speaker has `agreed` already."""
    typer.echo(
        privacy_notice(session, folder, kept_in, plain_console(stderr=True).width, discards=discards),
        err=True,
    )
    return agreed or typer.confirm("Does the person who will speak agree?", default=False, err=True)


def run_session(
    session: Session, folder: SessionFolder, spec: str | None, channel: Channel = AUTO
) -> tuple[Session, bool]:
    """Run the session until it is complete or the speaker stops it.

    Args:
        session: the progress so far.
        folder: stores takes.
        spec: the microphone, as `edge.audio.sources` names it; None: ask if there are several.
        channel: channel of the microphone to use.

    Returns:
        The session, and whether it is complete.

    Raises:
        DeviceError: there is no microphone, or it was disconnected and did not return.
        UsageError: the folder cannot be written to.
    """
    chosen = spec or choose_microphone()
    while True:
        controller = SessionController(session, folder, Loudspeaker())
        _run_loop(controller, open_source(chosen, channel=channel))
        session = controller.session
        if controller.ending is not Ending.OTHER_DEVICE:
            return session, controller.ending is Ending.COMPLETE
        chosen = choose_microphone(always=True)


def choose_microphone(*, always: bool = False) -> str:
    """Let the speaker choose a working input; a single one is chosen without a question unless `always`."""
    inputs = [item for item in input_devices() if item.rates]
    if not inputs:
        return "mic"  # opening it reports why there is none
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


def _run_loop(controller: SessionController, source: Source) -> None:
    """Feed keys and blocks to the controller until the session ends or the speaker stops it."""
    with source, Keys() as keys, Stopper().listening() as stopper, _screen() as draw:
        draw(controller, source.name, at_once=True)
        for block in stopper.blocks(source):
            controller.feed(block)
            for key in keys.pressed():
                if key == END:
                    return
                if controller.ending is None:
                    controller.press(key)
            if controller.ending:
                return
            # After the news that the microphone was disconnected no block arrives until it is back.
            draw(controller, source.name, at_once=block.device_change is not None)


@contextlib.contextmanager
def _screen() -> Iterator[DrawFrame]:
    """Draw on the terminal's alternate screen, and restore the terminal afterwards."""
    drawn_s = -math.inf

    def draw(controller: SessionController, device: str, *, at_once: bool) -> None:
        nonlocal drawn_s
        now_s = time.monotonic()
        if at_once or now_s - drawn_s >= REDRAW_S:
            drawn_s = now_s
            screen.draw(functools.partial(frame, controller, device))

    with contextlib.closing(Screen(plain_console(stderr=True))) as screen:
        yield draw
