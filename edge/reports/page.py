"""The report as one HTML page that loads nothing but the recordings beside it.

The page is a frame, a style sheet and a script, which are files here, and the results as JSON. Its
Content-Security-Policy names the style sheet and the script by their hashes, so that no text of a file's or a
speaker's name can become code; names reach the page as text only.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from importlib import resources
from pathlib import Path
from typing import Any, Final

from edge.errors import UsageError
from edge.labels import EMOTIONS
from edge.output.text import printable
from edge.reports.file_recognition import shown_path
from edge.reports.results import Curve, FileResult
from edge.reports.summaries import LABELS, Finished, by_speaker, summarize

REPORT: Final = "report.html"
MOST_POINTS: Final = 1_200
"""Points of a recording's curve."""
ALL_POINTS: Final = 1_500_000
"""Points of all curves together: of thousands of recordings each has fewer, so that the page opens."""
FEWEST_POINTS: Final = 60
MOST_EMBEDDED: Final = 256 * 2**20
"""Bytes of the recordings that can be put into the page: browsers give up beyond."""
LEVELS: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
"""Probabilities of a curve, one letter each from 0 (A) to 1 (_)."""
NO_SPEECH: Final = "."
_UNRESERVED: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~/")
_MEDIA_TYPES: Final = {
    **dict.fromkeys((".wav", ".wave"), "audio/wav"),
    **dict.fromkeys((".ogg", ".oga", ".opus"), "audio/ogg"),
    ".flac": "audio/flac",
    ".mp3": "audio/mpeg",
}


def require_embeddable(finished: Sequence[int]) -> None:
    """Check that recordings of these sizes in bytes can be put into a page.

    Raises:
        UsageError: they are too large together.
    """
    if sum(finished) > MOST_EMBEDDED:
        raise UsageError(
            f"the recordings have {sum(finished) / 2**20:.0f} MiB, --embed puts up to "
            f"{MOST_EMBEDDED / 2**20:.0f} MiB into a page",
            remedy="leave --embed out: the page then plays the files where they are",
        )


def report_page(
    finished: Sequence[Finished], folder: Path, *, version: str, made: datetime, embed: bool = False
) -> str:
    """Return the page.

    Args:
        finished: the recordings with their results, in the order of the page.
        folder: where the page will be; links to the recordings are relative to it.
        version: of the program.
        made: when.
        embed: put the recordings into the page.
    """
    data = _data(finished, folder, embed=embed) | {
        "version": version,
        "made": made.isoformat(timespec="minutes"),
    }
    style, script = _part("page.css"), _part("page.js")
    policy = (
        f"default-src 'none'; style-src {_digest(style)}; script-src {_digest(script)}; "
        f"media-src 'self' file:{' data:' if embed else ''}; base-uri 'none'; form-action 'none'"
    )
    parts = {"policy": policy, "style": style, "script": script, "data": _as_script_text(data)}
    page = _part("page.html")
    pieces = page.split("@@")  # text, name, text, name, ...: one pass, so that no value is searched for names
    return "".join(parts[piece] if number % 2 else piece for number, piece in enumerate(pieces))


def _data(finished: Sequence[Finished], folder: Path, *, embed: bool) -> dict[str, Any]:
    points = max(FEWEST_POINTS, min(MOST_POINTS, ALL_POINTS // max(1, len(finished))))
    results = [result for _, result in finished]
    return {
        "emotions": EMOTIONS,
        "models": sorted({_model(result) for result in results if result.engine}),
        "total": asdict(summarize(results)),
        "speakers": [{"name": name, **asdict(summary)} for name, summary in by_speaker(finished).items()],
        "files": [
            {
                **_file(result, points),
                "name": name,
                "speaker": printable(recording.speaker),
                "url": _embedded(recording.path) if embed else _url(recording.path, folder),
            }
            for name, (recording, result) in zip(_names(finished), finished, strict=True)
        ],
    }


def _names(finished: Sequence[Finished]) -> list[str]:
    """Return the paths of the recordings from the folder that they share."""
    paths = [recording.path.absolute() for recording, _ in finished]
    shared = os.path.commonpath([path.parent for path in paths]) if paths else ""
    return [printable(shown_path(path.relative_to(shared))) for path in paths]


def _file(result: FileResult, points: int) -> dict[str, Any]:
    summary = summarize([result])
    return {
        "duration_s": result.duration_s,
        "speech_s": summary.speech_s,
        "seconds": summary.seconds,
        "probs": summary.probs,
        "ratings": summary.ratings,
        "problem": result.problem,
        "warnings": result.warnings,
        "utterances": [
            [span.start_s, span.end_s, LABELS.index(span.label), *span.probs.values()]
            for span in result.utterances
        ],
        "curve": thinned(result.curve, result.duration_s, points),
    }


def thinned(curve: Curve, duration_s: float, points: int) -> str:
    """Write a curve as text: for each of equally long parts of the recording a letter of `LEVELS` an emotion.

    A part has the mean of the windows with speech that end in it, or the one before where windows are further
    apart than parts; `NO_SPEECH` once where there is none.

    Args:
        curve: the windows.
        duration_s: of the recording.
        points: most parts, >= 1.
    """
    count = min(points, len(curve.end_s))
    if not count or duration_s <= 0:
        return ""
    parts: list[list[tuple[float, ...]]] = [[] for _ in range(count)]
    first = curve.end_s[0]
    step_s = max(1e-9, (max(duration_s, curve.end_s[-1]) - first) / max(1, count - 1))
    silent = [False] * count
    for end_s, probs, speech in zip(curve.end_s, curve.smoothed, curve.speech, strict=True):
        number = min(count - 1, round((end_s - first) / step_s))
        if speech:
            parts[number].append(probs)
        else:
            silent[number] = True
    letters = []
    before: list[tuple[float, ...]] = []
    for part, quiet in zip(parts, silent, strict=True):
        before = part or ([] if quiet else before)
        letters.append(_letters(before))
    return f"{first:.2f} {step_s:.4f} {''.join(letters)}"


def _letters(probs: Sequence[Sequence[float]]) -> str:
    if not probs:
        return NO_SPEECH
    means = [sum(column) / len(probs) for column in zip(*probs, strict=True)]
    return "".join(LEVELS[min(63, max(0, round(63 * mean)))] for mean in means)


def _model(result: FileResult) -> str:
    return " · ".join(
        filter(None, (result.bundle, result.profile and f"profile {result.profile}", result.engine))
    )


def _url(path: Path, folder: Path) -> str:
    """Return the relative link from the page to a file."""
    relative = os.path.relpath(os.path.realpath(path), os.path.realpath(folder))
    quoted = "".join(
        chr(byte) if byte in _UNRESERVED else f"%{byte:02X}"
        for byte in os.fsencode(relative.replace(os.sep, "/"))
    )
    return quoted if quoted.startswith(("/", ".")) else f"./{quoted}"


def _embedded(path: Path) -> str:
    """Return a file as a data URI; empty if it cannot be read."""
    try:
        content = base64.b64encode(path.read_bytes()).decode()
    except OSError:
        return ""
    return f"data:{_MEDIA_TYPES.get(path.suffix.lower(), 'application/octet-stream')};base64,{content}"


def _part(name: str) -> str:
    return resources.files("edge.reports").joinpath(name).read_text("utf-8")


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _as_script_text(data: Any) -> str:
    """Write JSON that no HTML parser can take for the end of its element."""
    text = json.dumps(data, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text
