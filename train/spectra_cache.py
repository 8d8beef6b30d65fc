"""Cache of the CNN-LSTM's spectra on disk: computed once, then memory-mapped by each run that reads them.

Each speaker's clips are a pair of files, whose name is the digest of what the spectra depend on: the
recordings (path, size and time of change), the constants of the front-end, the playback speeds, and the
spectra of a fixed sound, which change with the code and libraries that compute them. Runs with other splits
share the files. Processes that map a file share its memory, which the system may free and read again.
"""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edge.features.frontend import FrontEnd
from edge.system.files import require_writable
from train.cache_files import digest, identity, read_index, write_index, write_values
from train.corpora import Clip
from train.segments import Spectra, log_spectra, read_spectra

MOST_MAPPED: Final = 400
"""Files that are mapped at one time, since each takes a file descriptor; further ones are read whole."""

Logs = NDArray[np.float16]


class SpectraCache:
    """Reads clips as `read_spectra` does, computing what its folder does not hold.

    Remembers how many files it has mapped.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._mapped = 0

    def __call__(
        self,
        clips: Sequence[Clip],
        front_end: FrontEnd,
        shortest: int,
        progress: Callable[[Sequence[Clip], str], Iterable[Clip]] | None = None,
        speeds: Sequence[float] = (),
    ) -> list[Spectra]:
        """Return the spectra of clips, memory-mapped.

        Args:
            clips: as of `read_spectra`, like all that follow.
            front_end: the constants.
            shortest: frames that the network needs.
            progress: wraps the clips to show the progress.
            speeds: further playback speeds.

        Raises:
            SourceError: a clip cannot be read.
            UsageError: the folder cannot be written.
        """
        how = _Reading(front_end, shortest, tuple(speeds))
        made_by = how.made_by()
        places_of: dict[tuple[str, str], list[int]] = {}
        for place, clip in enumerate(clips):
            places_of.setdefault((clip.corpus, clip.speaker), []).append(place)
        ordered = [clips[place] for places in places_of.values() for place in places]
        shown = iter(progress(ordered, "reading clips") if progress else ordered)
        found: dict[int, list[Spectra]] = {}
        for places in places_of.values():
            own = [clips[place] for place in places]
            logs = self._logs_of(own, how, made_by, itertools.islice(shown, len(own)))
            for place, of_clip in zip(places, _dealt(logs, len(own)), strict=True):
                spectra = zip(of_clip, how.every_speed, strict=True)
                found[place] = [Spectra(clips[place], item, speed) for item, speed in spectra]
        next(shown, None)  # the progress ends after its last item
        return [item for place in range(len(clips)) for item in found[place]]

    def _logs_of(
        self, clips: Sequence[Clip], how: _Reading, made_by: str, shown: Iterator[Clip]
    ) -> list[Logs]:
        """Return one speaker's (T, F) logarithms: each clip at each speed."""
        name = digest([made_by.encode(), *(identity(clip).encode() for clip in clips)])
        values, index = self._folder / f"{name}.npy", self._folder / f"{name}.json"
        parts = len(clips) * len(how.every_speed)
        kept = self._kept(values, index, parts)
        if kept is not None:
            list(shown)
            return kept
        require_writable(self._folder)
        computed = [item.logs for item in how.spectra(clips, shown)]
        joined = np.concatenate(computed)
        write_values(values, joined)
        write_index(index, {"frames": [len(logs) for logs in computed], "crc32": _checksum(joined)})
        return (
            self._kept(values, index, parts) or computed
        )  # another program may have removed what was written

    def _kept(self, values: Path, index: Path, parts: int) -> list[Logs] | None:
        """Map a pair of files; None if one is missing, damaged, or does not belong to the other."""
        described = read_index(index)
        if described is None:
            return None
        mapped = self._mapped < MOST_MAPPED
        try:
            logs = np.asarray(np.load(values, mmap_mode="r" if mapped else None, allow_pickle=False))
            frames = described["frames"]
            whole = len(frames) == parts and sum(frames) == len(logs) and min(frames) > 0
            if (
                not whole
                or logs.dtype != np.float16
                or logs.ndim != 2
                or _checksum(logs) != described["crc32"]
            ):
                return None
        except (OSError, EOFError, ValueError, KeyError, TypeError):
            return None
        self._mapped += mapped
        return np.split(logs, np.cumsum(frames)[:-1])


@dataclass(frozen=True)
class _Reading:
    """How clips are read: arguments of `read_spectra`."""

    front_end: FrontEnd
    shortest: int
    speeds: tuple[float, ...]

    @property
    def every_speed(self) -> tuple[float, ...]:
        return (1.0, *self.speeds)

    def spectra(self, clips: Sequence[Clip], shown: Iterator[Clip]) -> list[Spectra]:
        return read_spectra(clips, self.front_end, self.shortest, lambda *_: shown, self.speeds)

    def made_by(self) -> str:
        """Describe the computation: its constants, and the digest of what it makes of a fixed sound."""
        sound = np.random.default_rng(0).standard_normal(self.front_end.sample_rate // 2, np.float32)
        parts = [log_spectra(0.1 * sound, self.front_end, self.shortest, speed) for speed in self.every_speed]
        result = digest(np.ascontiguousarray(part).tobytes() for part in parts)
        return f"{astuple(self.front_end)} {self.shortest} {self.speeds} {result}"


def _checksum(logs: Logs) -> int:
    return zlib.crc32(np.ascontiguousarray(logs).view(np.uint8).data)


def _dealt(logs: Sequence[Logs], clips: int) -> Iterator[Sequence[Logs]]:
    """Yield each clip's share of the logarithms of a speaker: one for each speed."""
    share = len(logs) // clips
    return (logs[first : first + share] for first in range(0, len(logs), share))
