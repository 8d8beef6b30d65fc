"""The folder of one training run: configuration, scores and models."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edge.errors import UsageError
from edge.system.files import atomic_write, is_writable, require_writable, try_lock
from edge.system.outputs import require_free
from train.plots import plot_curves

MAY_DIFFER = ("git_revision", "command")
"""Keys of the configuration that may differ when a run is resumed; the command then has --resume."""


class FolderInUseError(UsageError):
    """Another run holds the folder's lock."""


@dataclass(frozen=True)
class RunFolder:
    """The files of a run, each written atomically."""

    path: Path

    @property
    def best(self) -> Path:
        """The checkpoint of the best epoch by the validation speakers."""
        return self.path / "best.safetensors"

    @property
    def state(self) -> Path:
        """The state for `--resume`."""
        return self.path / "state.safetensors"

    @property
    def config(self) -> Path:
        """Options, seed, git revision, speakers."""
        return self.path / "config.json"

    @property
    def metrics(self) -> Path:
        """One line of JSON for each epoch."""
        return self.path / "metrics.jsonl"

    @property
    def scores(self) -> Path:
        """Scores of the best epoch on the validation and test speakers."""
        return self.path / "scores.json"

    @property
    def label_check(self) -> Path:
        """Result of `train.label_check`."""
        return self.path / "label_check.json"

    @property
    def curves(self) -> Path:
        """Plot of the metrics by epoch."""
        return self.path / "curves.png"

    @property
    def confusion(self) -> Path:
        """Plot of the confusion matrix on the test speakers."""
        return self.path / "confusion.png"

    @property
    def files(self) -> list[Path]:
        """All files that a run writes."""
        documents = [self.config, self.metrics, self.scores, self.label_check]
        return [*documents, self.best, self.state, self.curves, self.confusion]

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Create the folder and lock it against other runs.

        Raises:
            FolderInUseError: another run is using it.
            UsageError: it cannot be written to.
        """
        require_writable(self.path)
        descriptor = os.open(self.path, os.O_RDONLY)
        try:
            if try_lock(descriptor) is False:
                raise FolderInUseError(
                    f"another run is using {self.path}", remedy="wait until it ends, or name another folder"
                )
            yield
        finally:
            os.close(descriptor)

    def require_usable(self, config: dict[str, Any], *, resume: bool) -> None:
        """Check that the folder holds no run, or one of the same configuration to resume.

        Raises:
            UsageError: it holds a run and `resume` is off, another run, or files that are not a run's, or it
                cannot be written to.
        """
        if not is_writable(self.path):
            raise UsageError(f"cannot write to {self.path}", remedy="name a folder you may write to")
        if not self.config.exists():
            for file in self.files:
                require_free(file, replace=False)
            return
        if not resume:
            raise UsageError(
                f"{self.path} already holds a run",
                remedy="add --resume to continue it, or name another folder",
            )
        found = json.loads(self.config.read_text("utf-8"))
        asked = json.loads(json.dumps(config))
        differing = [key for key in asked if key not in MAY_DIFFER and found.get(key) != asked[key]]
        if differing:
            raise UsageError(
                f"the run in {self.path} has a different {', '.join(differing)}",
                remedy="resume with the options it was started with, or name another folder",
            )

    def begin(self, config: dict[str, Any]) -> dict[str, Any]:
        """Write the configuration and return it; of a resumed run, return the first one."""
        if not self.config.exists():
            write_json(self.config, config)
        kept: dict[str, Any] = json.loads(self.config.read_text("utf-8"))
        return kept

    def records(self) -> list[dict[str, Any]]:
        """Return the epochs recorded so far."""
        if not self.metrics.exists():
            return []
        return [json.loads(line) for line in self.metrics.read_text("utf-8").splitlines()]

    def keep(self, epochs: int) -> list[dict[str, Any]]:
        """Return the first `epochs` records and delete later ones: those epochs are run again."""
        records = self.records()
        if len(records) > epochs:
            self._write(records[:epochs])
        return records[:epochs]

    def record(self, epoch: dict[str, Any]) -> None:
        """Append an epoch and update the plot."""
        records = [*self.records(), epoch]
        self._write(records)
        plot_curves(records, self.curves)

    def _write(self, records: list[dict[str, Any]]) -> None:
        with atomic_write(self.metrics) as partial:
            partial.write_text("".join(json.dumps(item) + "\n" for item in records), "utf-8")


def write_json(path: Path, content: Any) -> None:
    """Write JSON atomically."""
    with atomic_write(path) as partial:
        partial.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", "utf-8")


def described(options: Any) -> dict[str, Any]:
    """Convert a dataclass to plain JSON values."""
    plain: dict[str, Any] = json.loads(json.dumps(asdict(options)))
    return plain


def git_revision() -> str | None:
    """Return the git revision, with "+changes" if files differ from it; None outside a checkout."""
    here = Path(__file__).parent
    try:
        revision = _git(here, "rev-parse", "HEAD")
        return revision + ("+changes" if _git(here, "status", "--porcelain", "--", "*.py") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "--no-optional-locks", *arguments]  # read only: does not refresh the index
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()
