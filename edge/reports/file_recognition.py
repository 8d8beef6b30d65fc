"""One recording to its result, as a pure function that any engine for distributed work can map."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from edge.audio.block import Block
from edge.audio.sources import FileSource
from edge.errors import SourceError, UsageError
from edge.events import Event, Speech, StreamWarning, Utterance, Window
from edge.model.bundle import find_bundle
from edge.model.manifest import MANIFEST
from edge.output.text import printable
from edge.recognition.recognizer import Recognizer
from edge.recognition.settings import Settings
from edge.recognition.stream_session import StreamSession
from edge.reports.results import SECONDS_DIGITS, Curve, FileResult, Span, UtteranceRow


@dataclass(frozen=True)
class RecognitionJob:
    """How every recording of a job is recognised."""

    bundle: str = ""
    """Name or folder of the model; empty: the default."""
    profile: str = ""
    """File of a speaker's profile; empty: none."""
    settings: Settings = field(default_factory=Settings)
    provider: str = "cpu"

    def recognizer(self) -> Recognizer:
        """Load the model.

        Raises:
            MmtlError: the bundle, profile, provider or step cannot be used.
        """
        return Recognizer.load(
            self.bundle or None,
            profile=self.profile or None,
            settings=self.settings,
            provider=self.provider,
        )


def recognize_file(
    path: str | Path,
    bundle: str | Path | None = None,
    *,
    profile: str | Path | None = None,
    settings: Settings | None = None,
    provider: str = "cpu",
    speaker: str = "",
) -> list[UtteranceRow]:
    """Recognise a sound file and return a row an utterance.

    Pure: the rows depend on the arguments and the files that they name, on nothing else. Each thread keeps
    the model of its last call, so that mapping the function over many files loads it once. Arguments and rows
    can be pickled: Dask, Ray and Spark can send them to other processes and machines.

    Args:
        path: the sound file.
        bundle: a model that ships, by its name, or the folder of a bundle; None: the default.
        profile: file of a speaker's profile.
        settings: how to run.
        provider: where the graphs run: "cpu", "cuda", "tensorrt" or "auto". Providers round differently:
            name one to get the same rows on every machine.
        speaker: copied into the rows.

    Returns:
        At least one row. A file that cannot be read gives a row whose `problem` says why.

    Raises:
        ModelError: the bundle or profile cannot be used.
        EngineError: the provider is not available here.
        UsageError: the step or the provider is invalid.
    """
    job = RecognitionJob(str(bundle or ""), str(profile or ""), settings or Settings(), provider)
    return recognized(path, job).rows(shown_path(path), speaker)


def recognized(
    path: str | Path, job: RecognitionJob, progress: Callable[[float], None] = lambda heard_s: None
) -> FileResult:
    """Recognise a sound file; a file that cannot be read gives a result with the problem.

    Args:
        path: the sound file.
        job: how.
        progress: takes the seconds heard so far, after each block.

    Raises:
        MmtlError: the job cannot be done with any file.
    """
    recognizer = _kept_recognizer(job)
    recognizer.reset()
    session = StreamSession(recognizer, printable(str(path)), live=False)
    described = session.begin()
    events: list[Event] = []
    problem = ""
    try:
        for block in _blocks(path, job):
            events += session.feed(block)
            progress(recognizer.heard_s)
    except (SourceError, UsageError) as error:
        problem = printable(str(error))
    last, summary = session.finish()
    events += last
    warnings = [printable(event.message) for event in events if isinstance(event, StreamWarning)]
    return FileResult(
        duration_s=round(summary.duration_s, SECONDS_DIGITS),
        speech_s=round(_speech_s(events), SECONDS_DIGITS),
        utterances=tuple(Span.of(event) for event in events if isinstance(event, Utterance)),
        curve=Curve.of([event for event in events if isinstance(event, Window)]),
        engine=recognizer.engine.provider if summary.duration_s else "",
        bundle=described.bundle,
        profile=described.profile or "",
        warnings=tuple(dict.fromkeys(warnings)),
        problem=problem,
    )


def shown_path(path: str | Path) -> str:
    """Return a path as text that can be written anywhere: undecodable bytes are replaced."""
    return os.fsencode(path).decode("utf-8", "replace")


def _blocks(path: str | Path, job: RecognitionJob) -> Iterator[Block]:
    with FileSource(path, channel=job.settings.channel) as source:
        yield from source


def _speech_s(events: list[Event]) -> float:
    """Return the time between the beginnings and the ends of speech; the stream's last event ends it."""
    total_s = began_s = 0.0
    for event in events:
        if isinstance(event, Speech):
            began_s, total_s = (
                (event.time_s, total_s) if event.active else (0.0, total_s + event.time_s - began_s)
            )
    return total_s


_LOCAL = threading.local()
"""The recogniser of each thread, and what it was loaded from."""


def _kept_recognizer(job: RecognitionJob) -> Recognizer:
    """Return the recogniser of this thread's last call, or load another one if job or files have changed."""
    files = [find_bundle(job.bundle) / MANIFEST, *([Path(job.profile)] if job.profile else [])]
    loaded_from = (job, *map(_stamp, files))
    if getattr(_LOCAL, "loaded_from", None) != loaded_from:
        _LOCAL.loaded_from = None
        _LOCAL.recognizer = job.recognizer()
        _LOCAL.loaded_from = loaded_from
    kept: Recognizer = _LOCAL.recognizer
    return kept


def _stamp(path: Path) -> tuple[int, int]:
    """Tell versions of a file apart; zeros for one that is missing, which loading it reports."""
    try:
        found = path.stat()
    except OSError:
        return 0, 0
    return found.st_mtime_ns, found.st_size
