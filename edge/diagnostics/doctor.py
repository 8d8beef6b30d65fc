"""All checks of a machine in order, as lines for people or one JSON object for programs."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Final

from edge.diagnostics import checks, gpu_checks
from edge.diagnostics.checks import Check, DiagnosticContext, failed
from edge.diagnostics.probes import explained, shortened
from edge.errors import EngineError, MmtlError, ModelError, SourceError
from edge.output.text import printable

SCHEMA_VERSION: Final = 1
"""Version of the JSON: incremented when a key is renamed or removed."""
_MARKS: Final = {"ok": "ok", "note": "note", "problem": "PROBLEM"}
_WIDEST: Final = 100
_TEXT_COLUMN: Final = 26


@dataclass(frozen=True)
class Area:
    """Checks of one subject, and the error class of a problem among them."""

    name: str
    error: type[MmtlError]
    """Gives the doctor's exit code if the first problem is in this area."""
    checks: tuple[Callable[[DiagnosticContext], Check], ...]


AREAS: Final = (
    Area("machine", MmtlError, (checks.python, checks.jetpack, checks.power_mode)),
    Area("sound", SourceError, (checks.portaudio, checks.microphones, checks.recording, checks.sound_group)),
    Area(
        "model",
        ModelError,
        (checks.bundle, checks.voice, checks.profiles, checks.profile, checks.profile_folder),
    ),
    Area(
        "engine",
        EngineError,
        (
            gpu_checks.onnxruntime,
            gpu_checks.gpu,
            gpu_checks.tensorrt,
            gpu_checks.pycuda,
            gpu_checks.engine,
            checks.engine_folder,
            gpu_checks.provider,
        ),
    ),
)


@dataclass(frozen=True)
class Examined:
    """The result of a check, and its area."""

    area: Area
    check: Check


def examine(context: DiagnosticContext) -> Iterator[Examined]:
    """Run the checks lazily, one after the other.

    Raises:
        KeyboardInterrupt: a check was stopped; the message names it.
    """
    for area in AREAS:
        for check in area.checks:
            yield Examined(area, _made(check, context))


def exit_code(examined: Iterable[Examined]) -> int:
    """Return the exit code of the first problem, 0 without problems."""
    codes = (item.area.error.exit_code for item in examined if item.check.verdict == "problem")
    return next(codes, 0)


def described(examined: Iterable[Examined]) -> dict[str, Any]:
    """Return the JSON object: `checks` is a list of objects that all have the same keys."""
    listed = list(examined)
    return {
        "v": SCHEMA_VERSION,
        "exit_code": exit_code(listed),
        "checks": [{"area": item.area.name, **asdict(item.check)} for item in listed],
    }


def lines(examined: Iterable[Examined], width: int | None = None) -> Iterator[str]:
    """Yield the checks as text: a heading before each area, and a conclusion at the end.

    Args:
        examined: the checks.
        width: columns of a line; by default the terminal's, or 80 without a terminal.
    """
    width = width or min(_WIDEST, shutil.get_terminal_size().columns)
    made: list[Examined] = []
    for item in examined:
        if not made or item.area is not made[-1].area:
            yield item.area.name
        made.append(item)
        yield from _check_lines(item.check, width)
    yield from _wrapped("", _conclusion([item.check.verdict for item in made]), width)


def _check_lines(check: Check, width: int) -> Iterator[str]:
    yield from _wrapped(f"  {_MARKS[check.verdict]:<8}{check.name:<16}", check.found, width)
    for detail in check.details:
        yield from _wrapped(" " * _TEXT_COLUMN + "- ", detail, width)
    if check.remedy:
        yield from _wrapped(" " * _TEXT_COLUMN + "-> ", check.remedy, width)


def _wrapped(begin: str, text: str, width: int) -> list[str]:
    broken = textwrap.wrap(
        printable(text),
        max(width, 2 * _TEXT_COLUMN),
        initial_indent=begin,
        subsequent_indent=" " * len(begin),
        break_long_words=False,  # paths are copied
        break_on_hyphens=False,
    )
    return broken or [begin.rstrip()]


def _conclusion(verdicts: list[str]) -> str:
    counts = " and ".join(_counted(verdicts.count(kind), kind) for kind in ("problem", "note"))
    return f"{counts}: the lines after -> say what to do" if set(verdicts) != {"ok"} else "no problems found"


def _counted(count: int, noun: str) -> str:
    return f"{count or 'no'} {noun}{'s' if count != 1 else ''}"


def _made(check: Callable[[DiagnosticContext], Check], context: DiagnosticContext) -> Check:
    """Run a check; an exception in it is a problem, and does not stop the others."""
    name = check.__name__.replace("_", " ")
    try:
        return check(context)
    except MmtlError as error:
        return failed(name, "problem", explained(error))
    except Exception as error:  # noqa: BLE001 - an unforeseen error is reported, too
        found = f"the check failed: {shortened(f'{type(error).__name__}: {error}')}"
        return Check(name, "problem", found, "report this line as a bug")
    except KeyboardInterrupt as interrupt:
        interrupt.args = (f"stopped during the check of {name}",)
        raise
