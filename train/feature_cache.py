"""Cache of the frozen encoder's features on disk.

A copy holds every clip once: as recorded, or through a channel drawn for its speaker. Each copy is a
memory-mapped .npy file and a .json file that states what it was computed from.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from edge.arrays import Array
from edge.audio.sound_file import read_clip
from edge.features.frontend import filtered, power_spectrogram
from edge.features.log_mel import LOG_MEL, log_mel
from edge.system.files import atomic_write
from train.corpora import Clip
from train.pretrained_net import PretrainedNet
from train.recording_conditions import Ambience, ChannelConfig, draw_channel
from train.segments import segment_starts

WINDOW_FRAMES: Final = LOG_MEL.window_frames
"""Longest window, in frames of 10 ms: 2.96 s."""

SHORTEST_FRAMES: Final = 100
"""Shortest window of a training copy, unless the clip is shorter: 1 s."""

BATCH: Final = 16

CACHE_VERSION: Final = 2

ClipProgress = Callable[[Sequence[Clip], str], Iterable[Clip]]


@dataclass(frozen=True)
class Features:
    """The pooled windows of some clips."""

    values: NDArray[np.float16]
    """(N, D), memory-mapped."""
    clip: NDArray[np.int64]
    """(N,) index of each window's clip."""
    frames: NDArray[np.int64]
    """(N,) length of each window."""


@dataclass(frozen=True)
class Copy:
    """One copy of the clips. Number 0: as recorded, evenly cut. Others: random conditions and cuts."""

    number: int
    seed: int = 0

    @property
    def name(self) -> str:
        """File name without suffix."""
        return f"copy-{self.number}-{self.seed}"

    def waveform(self, clip: Clip, ambience: Ambience, config: ChannelConfig) -> Array:
        """Read a clip through its speaker's channel, one for all clips of the speaker in this copy."""
        waveform = read_clip(clip.path)
        if self.number == 0:
            return waveform
        channel = draw_channel(config, ambience, self._generator(f"{clip.corpus}/{clip.speaker}"))
        return channel(waveform, self._generator(str(clip.path.name)))

    def windows(self, clip: Clip, frames: int) -> list[tuple[int, int]]:
        """Return the (start, length) of the clip's windows, in frames."""
        if self.number == 0:
            return [(start, min(frames, WINDOW_FRAMES)) for start in segment_starts(frames, WINDOW_FRAMES)]
        rng = self._generator(f"window {clip.path.name}")
        return [_random_window(frames, rng) for _ in segment_starts(frames, WINDOW_FRAMES)[:2]]

    def _generator(self, text: str) -> np.random.Generator:
        return np.random.default_rng((self.seed, self.number, zlib.crc32(text.encode())))


def cached_features(
    folder: Path,
    clips: Sequence[Clip],
    net: PretrainedNet,
    copy: Copy,
    conditions: tuple[Ambience, ChannelConfig],
    progress: ClipProgress,
) -> Features:
    """Return the features of a copy, computing them only if the folder does not hold them.

    Args:
        folder: where the copies are kept.
        clips: the clips that the indices in `Features.clip` refer to.
        net: its encoder is frozen.
        copy: the copy to compute.
        conditions: noises and rooms, and how often each is used.
        progress: wraps the clips to show the progress.
    """
    values, index = folder / f"{copy.name}.npy", folder / f"{copy.name}.json"
    described = _described(clips, net, copy, conditions[1])
    if not index.is_file() or json.loads(index.read_text("utf-8"))["made_from"] != described:
        computed = list(_computed(clips, net, copy, conditions, progress))
        with atomic_write(values) as partial, partial.open("wb") as file:
            np.save(file, np.array([item for item, _, _ in computed], np.float16))
        numbers = {"clip": [clip for _, clip, _ in computed], "frames": [frames for _, _, frames in computed]}
        with atomic_write(index) as partial:
            partial.write_text(json.dumps({"made_from": described, **numbers}), "utf-8")
    kept = json.loads(index.read_text("utf-8"))
    return Features(np.load(values, mmap_mode="r"), np.array(kept["clip"]), np.array(kept["frames"]))


def network_frames(waveform: Array) -> Array:
    """Compute the (T, 80) log mel frames that the recogniser computes of (N,) samples; T is at least 1."""
    heard = np.pad(waveform, (0, max(0, LOG_MEL.win_length - len(waveform))))
    return log_mel(power_spectrogram(filtered(heard, LOG_MEL), LOG_MEL))


@torch.inference_mode()
def encoded(windows: Sequence[Array], net: PretrainedNet) -> Array:
    """Encode and pool (T, 80) log mel windows of any lengths: (N, D) float32, in their order."""
    order = sorted(
        range(len(windows)), key=lambda place: len(windows[place])
    )  # batches then have little padding
    values = np.zeros((len(windows), net.arch.embedding_size), np.float32)
    for first in range(0, len(order), BATCH):
        places = order[first : first + BATCH]
        lengths = torch.tensor([len(windows[place]) for place in places])
        frames = torch.zeros(len(places), int(lengths.max()), windows[0].shape[1])
        for row, place in zip(frames, places, strict=True):
            row[: len(windows[place])] = torch.from_numpy(windows[place])
        values[places] = net.pooled(frames, lengths).numpy()
    return values


def _computed(
    clips: Sequence[Clip],
    net: PretrainedNet,
    copy: Copy,
    conditions: tuple[Ambience, ChannelConfig],
    progress: ClipProgress,
) -> Iterator[tuple[Array, int, int]]:
    """Yield each window's features, the index of its clip and its length."""
    waiting: list[tuple[int, Array]] = []
    for number, clip in enumerate(progress(clips, f"encoding {copy.name}")):
        frames = network_frames(copy.waveform(clip, *conditions))
        for start, length in copy.windows(clip, len(frames)):
            waiting.append((number, frames[start : start + length]))
        if len(waiting) >= 32 * BATCH or number == len(clips) - 1:
            values = encoded([window for _, window in waiting], net)
            yield from ((row, item[0], len(item[1])) for row, item in zip(values, waiting, strict=True))
            waiting = []


def _random_window(frames: int, rng: np.random.Generator) -> tuple[int, int]:
    """Draw a window: the longest possible half of the time, else 1 to 3 s, often from the start."""
    most = min(frames, WINDOW_FRAMES)
    whole = rng.random() < 0.5
    length = most if whole else int(rng.integers(min(most, SHORTEST_FRAMES), most + 1))
    start = 0 if rng.random() < 0.2 else int(rng.integers(0, frames - length + 1))
    return start, length


def _described(
    clips: Sequence[Clip], net: PretrainedNet, copy: Copy, config: ChannelConfig
) -> dict[str, Any]:
    """Return what the features depend on, to recognise an outdated cache."""
    weights = hashlib.sha256()
    for name, tensor in sorted(net.encoder.state_dict().items()):
        weights.update(name.encode() + tensor.contiguous().numpy().tobytes())
    recordings = hashlib.sha256("\n".join(str(clip.path) for clip in clips).encode())
    return {
        "version": CACHE_VERSION,
        "encoder": weights.hexdigest(),
        "clips": recordings.hexdigest(),
        "conditions": repr(config) if copy.number else "as recorded",
    }
