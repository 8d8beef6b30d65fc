"""Results as they come: a file of JSON Lines from which an interrupted report goes on.

Each line holds the result of one recording, and what it depends on. A line counts only for the same model,
settings and sound; lines of others stay for the time when those are asked for again.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from edge.errors import MmtlError
from edge.model.bundle import find_bundle, load_bundle
from edge.reports.file_recognition import RecognitionJob
from edge.reports.recordings import Recording
from edge.reports.results import FileResult
from edge.system.outputs import OutputFile

JOURNAL: Final = "results.jsonl"
JOURNAL_VERSION: Final = 1


class Journal:
    """The results in a folder. Remembers those of its job, and keeps the file locked until it is closed."""

    def __init__(self, folder: Path, job: RecognitionJob, *, replace: bool = False) -> None:
        """Read what is there.

        Args:
            folder: of the report; it exists.
            job: whose results count.
            replace: whether the results that are there are discarded.

        Raises:
            UsageError: another program writes to the folder.
        """
        self._path = folder / JOURNAL
        self._job = fingerprint_of(job)
        self._file = OutputFile(str(self._path), "replace" if replace else "append")
        self._kept: dict[str, dict[str, Any]] = {} if replace else self._read()

    def find(self, recording: Recording) -> FileResult | None:
        """Return the result of a recording that was recognised to its end and has not changed since."""
        line = self._kept.get(recording.key)
        if line is None or line["sound"] != _sound(recording):
            return None
        try:
            result = FileResult.from_dict(line["result"])
        except (KeyError, TypeError, ValueError, AttributeError):
            return None
        return None if result.problem else result

    def add(self, recording: Recording, result: FileResult) -> None:
        """Write a result.

        Raises:
            MmtlError: the file cannot be written to.
        """
        line = {
            "v": JOURNAL_VERSION,
            "job": self._job,
            "path": recording.key,
            "sound": _sound(recording),
            "result": result.to_dict(),
        }
        try:
            self._file.begin()
            self._file.stream.write(json.dumps(line, separators=(",", ":")) + "\n")
            self._file.stream.flush()
        except OSError as error:
            raise MmtlError(
                f"cannot write to {self._path} ({error.strerror or error})",
                remedy="free some space and run the same command again: it goes on where it ended",
            ) from error

    def close(self) -> None:
        """Close the file."""
        self._file.stream.close()

    def _read(self) -> dict[str, dict[str, Any]]:
        """Return this job's newest line of each recording; a line that was cut off is left out."""
        with self._path.open(encoding="utf-8", errors="replace") as file:
            lines = filter(None, map(_line, file))
            return {line["path"]: line for line in lines if line["job"] == self._job}


def fingerprint_of(job: RecognitionJob) -> str:
    """Return what tells jobs apart: model, profile, settings and provider, not the names of their files.

    Raises:
        BundleError: the bundle cannot be used.
    """
    profile = hashlib.sha256(Path(job.profile).read_bytes()).hexdigest() if job.profile else ""
    bundle = load_bundle(find_bundle(job.bundle)).fingerprint
    deciding = [JOURNAL_VERSION, bundle, profile, asdict(job.settings), job.provider]
    return hashlib.sha256(json.dumps(deciding).encode()).hexdigest()


def _line(text: str) -> dict[str, Any] | None:
    """Read a line; None if it was cut off or is of another version."""
    try:
        line = json.loads(text)
        if line["v"] == JOURNAL_VERSION:
            return {name: line[name] for name in ("job", "path", "sound", "result")}
    except (ValueError, KeyError, TypeError, RecursionError):
        pass
    return None


def _sound(recording: Recording) -> list[int]:
    """Return the size and time of change of the file: another sound under the same name has others."""
    try:
        found = recording.path.stat()
    except OSError:
        return [0, 0]
    return [found.st_size, found.st_mtime_ns]
