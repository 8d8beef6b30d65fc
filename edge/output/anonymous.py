"""Events without the names of people, files and devices."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import replace
from typing import Final

from edge.events import Device, EngineChange, Event, Session, StreamWarning
from edge.output.sinks import Sink

UNNAMED: Final = "unnamed"
"""Replaces the name of a file, microphone, profile or speaker's bundle."""
_PATH: Final = re.compile(r"\S*[/\\]\S*")


def anonymous_session(
    session: Session, names: Collection[str] = (), *, speaker_bundle: bool = False
) -> Session:
    """Return a session without the names of source and profile, and without paths.

    Args:
        session: the session.
        names: further names to remove from its reason.
        speaker_bundle: whether the bundle was fine-tuned to a speaker, and named after them.
    """
    return replace(
        session,
        source=UNNAMED,
        profile=UNNAMED if session.profile else None,
        bundle=UNNAMED if speaker_bundle else session.bundle,
        provider_reason=without_names(session.provider_reason, names),
    )


def anonymous(event: Event, names: Collection[str] = ()) -> Event:
    """Return an event, other than a session, without device names, the given names and paths."""
    match event:
        case Device():
            return replace(event, name=UNNAMED)
        case EngineChange():
            return replace(event, reason=without_names(event.reason, names))
        case StreamWarning():
            return replace(event, message=without_names(event.message, names))
    return event


def without_paths(event: Event) -> Event:
    """Return an event without the paths that the reason for an engine may name; other names stay."""
    match event:
        case Session():
            return replace(event, provider_reason=without_names(event.provider_reason))
        case EngineChange():
            return replace(event, reason=without_names(event.reason))
    return event


def without_names(text: str, names: Collection[str] = ()) -> str:
    """Replace names that occur as whole words, and everything that looks like a path."""
    for name in sorted(filter(None, names), key=len, reverse=True):
        text = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", UNNAMED, text)
    return _PATH.sub(UNNAMED, text)


class AnonymousSink(Sink):
    """Forwards events to another sink without names. Remembers the names, which later messages may repeat."""

    def __init__(self, sink: Sink, *, speaker_bundle: bool = False) -> None:
        self._sink = sink
        self._speaker_bundle = speaker_bundle
        self._names: set[str] = set()

    def emit(self, event: Event) -> None:
        """Forward the event without names."""
        if isinstance(event, Session):
            self._names |= {event.source, event.profile or ""}
            self._sink.emit(anonymous_session(event, self._names, speaker_bundle=self._speaker_bundle))
            return
        if isinstance(event, Device):
            self._names.add(event.name)
        self._sink.emit(anonymous(event, self._names))

    def progress(self, heard_s: float, level_dbfs: float) -> None:
        """Forward the progress."""
        self._sink.progress(heard_s, level_dbfs)

    def close(self) -> None:
        """Close the other sink."""
        self._sink.close()
