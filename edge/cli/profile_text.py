"""Profiles as text: one line each in a list, or all figures of one.

Text from a file may contain control characters, so it is made printable.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.cells import cell_len, set_cell_size

from edge.errors import ProfileError
from edge.model.bundle import Bundle
from edge.model.profile import LABELLED, ORDINARY, Profile, read_profile
from edge.model.profile_names import name_of
from edge.output.text import printable


def listing(paths: Sequence[Path], bundle: Bundle) -> str:
    """Return one line for each file: name, verdict and what it was fitted to, date and model."""
    rows = [_row(path, bundle) for path in paths]
    widths = [max(cell_len(row[column]) for row in rows) for column in range(4)]
    lines = ("  ".join(map(set_cell_size, row, widths)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)


def as_json(profile: Profile) -> dict[str, Any]:
    """Return a profile's figures as a JSON object."""
    known = {
        "name": profile.name,
        "verdict": profile.verdict,
        "made": profile.made.isoformat() if profile.made else None,
        "bundle": profile.bundle,
        "drift_watch": profile.reference is not None,
    }
    return known | {key: value for key, value in profile.report.items() if key not in known}


def as_text(profile: Profile, bundle: Bundle) -> str:
    """Return a profile's figures as text, one line each."""
    known = {
        "verdict": profile.verdict,
        "fitted to": _fitted_to(profile),
        "made": _made(profile) or "unknown",
        "model": _model(profile, bundle),
        "drift watch": _session(profile),
    }
    rest = {key: value for key, value in profile.report.items() if key not in (*known, "kind")}
    return "\n".join(printable(line) for line in (profile.name, *_lines(known | rest, "  ")))


def _row(path: Path, bundle: Bundle) -> tuple[str, str, str, str]:
    try:
        profile = read_profile(path)
    except ProfileError:
        return name_of(path), "damaged", "", ""
    verdict = profile.verdict if _is_labelled(profile) else f"{profile.verdict}, from ordinary speech"
    return name_of(path), verdict, _made(profile), f"for {_model(profile, bundle)}"


def _is_labelled(profile: Profile) -> bool:
    return bool(profile.report.get("kind", LABELLED) != ORDINARY)


def _fitted_to(profile: Profile) -> str:
    if _is_labelled(profile):
        return "labelled takes"
    return f"{_words(profile.report.get('speech_s', 0.0))} s of ordinary speech, without labels"


def _made(profile: Profile) -> str:
    return f"{profile.made:%Y-%m-%d %H:%M} UTC" if profile.made else ""


def _model(profile: Profile, bundle: Bundle) -> str:
    return "this model" if profile.bundle == bundle.fingerprint else "another model"


def _session(profile: Profile) -> str:
    if profile.reference is None:
        return "off: the profile has no statistics of the session"
    level, spread = profile.reference.mean[0], profile.reference.spread[0]
    return f"on: the session's level was {level:.0f} dBFS, with a standard deviation of {spread:.0f} dB"


def _lines(described: Mapping[str, Any], indent: str) -> Iterator[str]:
    """Yield one line for each item; nested tables go below their name."""
    width = max((len(key) for key in described), default=0)
    for key, value in described.items():
        name = key.replace("_", " ").ljust(width)
        if isinstance(value, dict) and any(isinstance(item, dict) for item in value.values()):
            yield f"{indent}{name.rstrip()}"
            yield from _lines(value, indent + "  ")
        else:
            yield f"{indent}{name}  {_words(value)}"


def _words(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key.replace('_', ' ')} {_words(item)}" for key, item in value.items())
    if isinstance(value, list):
        return ", ".join(_words(item) for item in value) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)
