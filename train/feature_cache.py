"""What the frozen encoder makes of each clip, computed once and kept on disk.

A copy is every clip once in some conditions: as recorded, or through a channel drawn for its speaker.
Each copy is one .npy file that is memory-mapped, and one .json file that says what it was made from.
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
from edge.audio.ingest import read_clip
from edge.features.log_mel import log_mel_spectrogram, normalised_window
from edge.system.files import atomic_write
from train.corpora import Clip
from train.recording_conditions import Ambience, ChannelConfig, draw_channel
from train.segments import segment_starts
from train.whisper_encoder import WhisperEncoder

WINDOW_FRAMES: Final = 300
"""Longest window, frames of 10 ms: 3 s."""

SHORTEST_FRAMES: Final = 100
"""Shortest window of a training copy, where the clip is not shorter itself: 1 s."""

BATCH: Final = 16

CACHE_VERSION: Final = 1

Progress = Callable[[Sequence[Clip], str], Iterable[Clip]]


@dataclass(frozen=True)
class Features:
    """The pooled windows of some clips."""

    values: NDArray[np.float16]
    """(N, D), memory-mapped."""
    clip: NDArray[np.int64]
    """(N,) number of the clip that each window is of."""
    frames: NDArray[np.int64]
    """(N,) length of each window."""


@dataclass(frozen=True)
class Copy:
    """One copy of the clips: number 0 is as recorded, evenly cut; in the others conditions and cuts vary."""

    number: int
    seed: int = 0

    @property
    def name(self) -> str:
        """File name without its ending."""
        return f"copy-{self.number}-{self.seed}"

    def waveform(self, clip: Clip, ambience: Ambience, config: ChannelConfig) -> Array:
        """Read a clip through its speaker's channel, the same for all clips of the speaker in this copy."""
        waveform = read_clip(clip.path)
        if self.number == 0:
            return waveform
        channel = draw_channel(config, ambience, self._generator(f"{clip.corpus}/{clip.speaker}"))
        return channel(waveform, self._generator(str(clip.path.name)))

    def windows(self, clip: Clip, frames: int) -> list[tuple[int, int]]:
        """Choose the (start, length) of the clip's windows."""
        if self.number == 0:
            return [(start, min(frames, WINDOW_FRAMES)) for start in segment_starts(frames, WINDOW_FRAMES)]
        rng = self._generator(f"window {clip.path.name}")
        return [_random_window(frames, rng) for _ in segment_starts(frames, WINDOW_FRAMES)[:2]]

    def _generator(self, text: str) -> np.random.Generator:
        return np.random.default_rng((self.seed, self.number, zlib.crc32(text.encode())))


def cached_features(
    folder: Path,
    clips: Sequence[Clip],
    encoder: WhisperEncoder,
    copy: Copy,
    conditions: tuple[Ambience, ChannelConfig],
    progress: Progress,
) -> Features:
    """Return the features of a copy, computed only where the folder does not hold them yet.

    Args:
        folder: where the copies are kept.
        clips: what to compute; the numbers in `Features.clip` count them.
        encoder: frozen.
        copy: which copy.
        conditions: noises and rooms, and how often each is met.
        progress: wraps the clips to show how far it is.
    """
    values, index = folder / f"{copy.name}.npy", folder / f"{copy.name}.json"
    described = _described(clips, encoder, copy, conditions[1])
    if not index.is_file() or json.loads(index.read_text("utf-8"))["made_from"] != described:
        computed = list(_computed(clips, encoder, copy, conditions, progress))
        with atomic_write(values) as partial, partial.open("wb") as file:
            np.save(file, np.array([item for item, _, _ in computed], np.float16))
        numbers = {"clip": [clip for _, clip, _ in computed], "frames": [frames for _, _, frames in computed]}
        with atomic_write(index) as partial:
            partial.write_text(json.dumps({"made_from": described, **numbers}), "utf-8")
    kept = json.loads(index.read_text("utf-8"))
    return Features(np.load(values, mmap_mode="r"), np.array(kept["clip"]), np.array(kept["frames"]))


def pooled(states: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """Summarise (B, S, W) hidden states by their mean and standard deviation over time: (B, 2 W).

    Args:
        states: padded hidden states.
        lengths: (B,) states that count.
    """
    within = (torch.arange(states.shape[1])[None, :] < lengths[:, None]).unsqueeze(2)  # (B, S, 1)
    count = lengths[:, None].to(states.dtype)
    mean = (states * within).sum(dim=1) / count  # (B, W)
    variance = (((states - mean.unsqueeze(1)) * within) ** 2).sum(dim=1) / count
    return torch.cat([mean, variance.sqrt()], dim=1)


@torch.inference_mode()
def encoded(windows: Sequence[Array], encoder: WhisperEncoder) -> Array:
    """Encode and pool normalised windows of any lengths: (N, 2 W) float32, in their order."""
    order = sorted(range(len(windows)), key=lambda place: len(windows[place]))  # little of a batch is padding
    values = np.zeros((len(windows), 2 * encoder.conv1.out_channels), np.float32)
    for first in range(0, len(order), BATCH):
        places = order[first : first + BATCH]
        lengths = torch.tensor([len(windows[place]) for place in places])
        frames = torch.zeros(len(places), int(lengths.max()), windows[0].shape[1])
        for row, place in zip(frames, places, strict=True):
            row[: len(windows[place])] = torch.from_numpy(windows[place])
        values[places] = pooled(encoder(frames, lengths), encoder.states_in(lengths)).numpy()
    return values


def _computed(
    clips: Sequence[Clip],
    encoder: WhisperEncoder,
    copy: Copy,
    conditions: tuple[Ambience, ChannelConfig],
    progress: Progress,
) -> Iterator[tuple[Array, int, int]]:
    """Yield each window's features, the number of its clip and its length."""
    waiting: list[tuple[int, Array]] = []
    for number, clip in enumerate(progress(clips, f"encoding {copy.name}")):
        log_mel = log_mel_spectrogram(copy.waveform(clip, *conditions))
        for start, length in copy.windows(clip, len(log_mel)):
            waiting.append((number, normalised_window(log_mel[start : start + length])))
        if len(waiting) >= 32 * BATCH or number == len(clips) - 1:
            values = encoded([window for _, window in waiting], encoder)
            yield from ((row, item[0], len(item[1])) for row, item in zip(values, waiting, strict=True))
            waiting = []


def _random_window(frames: int, rng: np.random.Generator) -> tuple[int, int]:
    """Take the whole clip half of the time where it fits, else a piece of 1 to 3 s, often from the start."""
    most = min(frames, WINDOW_FRAMES)
    whole = rng.random() < 0.5
    length = most if whole else int(rng.integers(min(most, SHORTEST_FRAMES), most + 1))
    start = 0 if rng.random() < 0.2 else int(rng.integers(0, frames - length + 1))
    return start, length


def _described(
    clips: Sequence[Clip], encoder: WhisperEncoder, copy: Copy, config: ChannelConfig
) -> dict[str, Any]:
    """Say what the features depend on, so that others are never taken for them."""
    weights = hashlib.sha256()
    for name, tensor in sorted(encoder.state_dict().items()):
        weights.update(name.encode() + tensor.contiguous().numpy().tobytes())
    recordings = hashlib.sha256("\n".join(str(clip.path) for clip in clips).encode())
    return {
        "version": CACHE_VERSION,
        "encoder": weights.hexdigest(),
        "clips": recordings.hexdigest(),
        "conditions": repr(config) if copy.number else "as recorded",
    }
