"""Cache of an encoder's features, or of the states in front of its last block, on disk.

A copy holds every clip once: as recorded, or through a channel drawn for its speaker. A recurrent encoder
hears the clips of copy 0 one by one, from an empty state, and those of the other copies in streams of one
speaker, whose state and gain it carries over; every second copy has streams as recorded, with pauses alone.
Each copy is a memory-mapped .npy file and a .json file that states what it was computed from. A run that was
interrupted finds the copies that were complete.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edge.arrays import Array
from edge.audio.sound_file import read_clip
from edge.features.frontend import filtered, power_spectrogram
from edge.features.log_mel import LOG_MEL, log_mel
from edge.features.normaliser import GainConfig
from train.cache_files import digest, identity, read_index, write_index, write_values
from train.corpora import Clip
from train.pretrained_net import PretrainedNet
from train.recording_conditions import PAUSE_DB, Ambience, ChannelConfig, draw_channel, with_pauses
from train.recurrent_net import POOLING, RecurrentNet
from train.segments import segment_starts
from train.stream_features import STREAM_CLIPS, streamed_features, streams_of
from train.threads import single_threaded

WINDOW_FRAMES: Final = LOG_MEL.window_frames
"""Longest window, in frames of 10 ms: 2.96 s."""

SHORTEST_FRAMES: Final = 100
"""Shortest window of a training copy, unless the clip is shorter: 1 s."""

PAUSED: Final = 0.5
"""Share of a training copy's clips with a pause before and after, as windows of a stream have them."""

LONGEST_PAUSE_S: Final = 1.5
"""Longest pause: a full window then holds as much of the clip, or all of it."""

BATCH: Final = 16

CACHE_VERSION: Final = 3

EncoderNet = PretrainedNet | RecurrentNet

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
    seconds: tuple[float, ...] = ()
    """Duration of each clip."""
    digests: tuple[str, ...] = ()
    """Hash of each clip's samples; clips of the same samples have the same."""

    def of(self, chosen: NDArray[np.int64]) -> Features:
        """Return the windows of some clips, in memory; their indices then count the chosen clips.

        Args:
            chosen: indices of clips, ascending.
        """
        places = np.full(int(max(self.clip.max(initial=-1), chosen.max(initial=-1))) + 1, -1)
        places[chosen] = np.arange(len(chosen))
        numbers = places[self.clip]
        own = numbers >= 0
        return Features(
            values=self.values[own],
            clip=numbers[own],
            frames=self.frames[own],
            seconds=tuple(self.seconds[place] for place in chosen) if self.seconds else (),
            digests=tuple(self.digests[place] for place in chosen) if self.digests else (),
        )


@dataclass(frozen=True)
class Copy:
    """One copy of the clips. Number 0: as recorded, evenly cut. Others: random conditions and cuts."""

    number: int
    seed: int = 0
    plain: bool = False
    """Through no channel, with pauses around all clips."""

    @property
    def name(self) -> str:
        """File name without suffix."""
        return f"copy-{self.number}-{self.seed}"

    def waveform(self, clip: Clip, ambience: Ambience, config: ChannelConfig) -> Array:
        """Read a clip through its speaker's channel, one for all clips of the speaker in this copy."""
        waveform = read_clip(clip.path)
        if self.number == 0:
            return waveform
        if self._is_paused(clip):
            waveform = with_pauses(waveform, LONGEST_PAUSE_S, self._generator(f"pause {clip.path.name}"))
        if self.plain:
            return waveform
        channel = draw_channel(config, ambience, self._generator(f"{clip.corpus}/{clip.speaker}"))
        return channel(waveform, self._generator(str(clip.path.name)))

    def windows(self, clip: Clip, frames: int) -> list[tuple[int, int]]:
        """Return the (start, length) of the clip's windows, in frames."""
        if self.number == 0:
            return [(start, min(frames, WINDOW_FRAMES)) for start in segment_starts(frames, WINDOW_FRAMES)]
        rng = self._generator(f"window {clip.path.name}")
        shortest = WINDOW_FRAMES if self._is_paused(clip) else SHORTEST_FRAMES
        return [_random_window(frames, shortest, rng) for _ in segment_starts(frames, WINDOW_FRAMES)[:2]]

    def _is_paused(self, clip: Clip) -> bool:
        return self.plain or bool(self._generator(f"paused {clip.path.name}").random() < PAUSED)

    def _generator(self, text: str) -> np.random.Generator:
        return np.random.default_rng((self.seed, self.number, zlib.crc32(text.encode())))


def cached_features(
    folder: Path,
    clips: Sequence[Clip],
    net: EncoderNet,
    copy: Copy,
    conditions: tuple[Ambience, ChannelConfig],
    progress: ClipProgress,
    levels: GainConfig | None = None,
) -> Features:
    """Return the features of a copy, computing them only if the folder does not hold them.

    Args:
        folder: where the copies are kept.
        clips: the clips that the indices in `Features.clip` refer to.
        net: its encoder stays as it is.
        copy: the copy to compute.
        conditions: noises and rooms, and how often each is used.
        progress: wraps the clips to show the progress.
        levels: gain in front of a recurrent encoder; that of an unknown training set if None.
    """
    levels = levels or GainConfig()
    encode = partial(encoded, net=cast("PretrainedNet", net))  # a recurrent encoder has its own way
    values, kept = cached_rows(
        folder / copy.name,
        made_from(clips, net, copy, conditions, levels),
        lambda: encoded_clips(clips, net, copy, conditions, progress, encode, levels),
    )
    return Features(values, **kept)


def cached_rows(
    file: Path,
    described: dict[str, Any],
    compute: Callable[[], Sequence[EncodedClip]],
    rows_of: Callable[[NDArray[np.int64]], NDArray[np.int64]] = np.ones_like,
) -> tuple[NDArray[np.float16], dict[str, Any]]:
    """Return the rows of all clips, memory-mapped, and the other fields of `Features`.

    Args:
        file: without its suffix, .npy or .json.
        described: what the rows are made from; they are computed again if it has changed.
        compute: called if the files are missing, damaged or outdated.
        rows_of: rows of the windows of given lengths.
    """
    values, index = file.with_suffix(".npy"), file.with_suffix(".json")
    kept = _kept(values, index, described, rows_of)
    if kept is None:
        computed = compute()
        kept = {
            "made_from": described,
            "clip": [number for number, clip in enumerate(computed) for _ in clip.frames],
            "frames": [frames for clip in computed for frames in clip.frames],
            "seconds": [clip.seconds for clip in computed],
            "digests": [clip.digest for clip in computed],
        }
        file.parent.mkdir(parents=True, exist_ok=True)
        index.unlink(missing_ok=True)  # never beside the values of another
        write_values(values, np.concatenate([clip.values for clip in computed]).astype(np.float16))
        write_index(index, kept)
    return np.load(values, mmap_mode="r"), {
        "clip": np.array(kept["clip"]),
        "frames": np.array(kept["frames"]),
        "seconds": tuple(kept["seconds"]),
        "digests": tuple(kept["digests"]),
    }


def network_frames(waveform: Array) -> Array:
    """Compute the (T, 80) log mel frames that the recogniser computes of (N,) samples; T is at least 1."""
    heard = np.pad(waveform, (0, max(0, LOG_MEL.win_length - len(waveform))))
    return log_mel(power_spectrogram(filtered(heard, LOG_MEL), LOG_MEL))


@torch.inference_mode()
def encoded(windows: Sequence[Array], net: PretrainedNet) -> Array:
    """Encode and pool (T, 80) log mel windows of any lengths: (N, D) float32, in their order."""
    values = np.zeros((len(windows), net.arch.embedding_size), np.float32)
    for places, frames, lengths in batches(windows):
        values[places] = net.pooled(frames, lengths).numpy()
    return values


def batches(windows: Sequence[Array]) -> Iterator[tuple[list[int], Tensor, Tensor]]:
    """Pad windows of like lengths, (T, 80) each: places, (B, T, 80) frames and (B,) lengths of each batch."""
    order = sorted(range(len(windows)), key=lambda place: len(windows[place]))
    for first in range(0, len(order), BATCH):
        places = order[first : first + BATCH]
        lengths = torch.tensor([len(windows[place]) for place in places])
        frames = torch.zeros(len(places), int(lengths.max()), windows[0].shape[1])
        for row, place in zip(frames, places, strict=True):
            row[: len(windows[place])] = torch.from_numpy(windows[place])
        yield places, frames, lengths


@dataclass(frozen=True)
class EncodedClip:
    """What an encoder makes of one clip."""

    values: Array
    """Rows of its windows, one after the other."""
    frames: tuple[int, ...]
    """Length of each window."""
    seconds: float
    digest: str


def encoded_clips(
    clips: Sequence[Clip],
    net: EncoderNet,
    copy: Copy,
    conditions: tuple[Ambience, ChannelConfig],
    progress: ClipProgress,
    encode_windows: Callable[[Sequence[Array]], Array],
    levels: GainConfig,
) -> list[EncodedClip]:
    """Encode clips, as many at once as torch has threads; the answers are in the order of the clips.

    Args:
        clips: to encode.
        net: the network, which says how the clips are heard.
        copy: says what is heard of each clip.
        conditions: noises and rooms, and how often each is used.
        progress: wraps the clips to show the progress.
        encode_windows: maps a clip's log mel windows to their rows; not called for a recurrent encoder.
        levels: gain in front of a recurrent encoder.
    """
    alone = copy.number == 0 or isinstance(net, PretrainedNet)
    streams = [[place] for place in range(len(clips))] if alone else streams_of(clips, copy.seed, copy.number)

    def encode(stream: Sequence[int]) -> list[EncodedClip]:
        waveforms = [copy.waveform(clips[place], *conditions) for place in stream]
        if isinstance(net, RecurrentNet):
            windows_of = [lambda frames, clip=clips[place]: copy.windows(clip, frames) for place in stream]
            pooled = streamed_features(waveforms, net, levels, windows_of)
        else:
            frames = network_frames(waveforms[0])
            windows = copy.windows(clips[stream[0]], len(frames))
            values = encode_windows([frames[start : start + length] for start, length in windows])
            pooled = [(values, tuple(length for _, length in windows))]
        return [
            EncodedClip(
                values=values,
                frames=frames,
                seconds=len(waveform) / LOG_MEL.sample_rate,
                digest=hashlib.sha256(waveform.tobytes()).hexdigest(),
            )
            for (values, frames), waveform in zip(pooled, waveforms, strict=True)
        ]

    with single_threaded() as workers:
        pool = ThreadPoolExecutor(workers)
        try:
            found = (clip for stream in pool.map(encode, streams) for clip in stream)
            heard = [clip for _, clip in zip(progress(clips, f"encoding {copy.name}"), found, strict=True)]
        finally:
            pool.shutdown(cancel_futures=True)
    by_place = dict(zip((place for stream in streams for place in stream), heard, strict=True))
    return [by_place[place] for place in range(len(clips))]


def _kept(
    values: Path,
    index: Path,
    described: dict[str, Any],
    rows_of: Callable[[NDArray[np.int64]], NDArray[np.int64]],
) -> dict[str, Any] | None:
    """Read the index of a copy; None if it is missing, outdated, or does not fit its values."""
    kept = read_index(index)
    if kept is None:
        return None
    try:
        rows = rows_of(np.array(kept["frames"])).sum()
        fits = np.load(values, mmap_mode="r").shape[0] == rows and len(kept["clip"]) == len(kept["frames"])
        return kept if fits and kept["made_from"] == described else None
    except (OSError, EOFError, ValueError, KeyError, TypeError, IndexError):
        return None


def _random_window(frames: int, shortest: int, rng: np.random.Generator) -> tuple[int, int]:
    """Draw a window: the longest possible half of the time; often from the start."""
    most = min(frames, WINDOW_FRAMES)
    whole = rng.random() < 0.5
    length = most if whole else int(rng.integers(min(most, shortest), most + 1))
    start = 0 if rng.random() < 0.2 else int(rng.integers(0, frames - length + 1))
    return start, length


def made_from(
    clips: Sequence[Clip],
    net: EncoderNet,
    copy: Copy,
    conditions: tuple[Ambience, ChannelConfig],
    levels: GainConfig,
) -> dict[str, Any]:
    """Return what the features depend on, to recognise an outdated cache."""
    ambience, config = conditions
    pauses = (PAUSED, LONGEST_PAUSE_S, *PAUSE_DB)
    if copy.number == 0:
        heard = "as recorded"
    elif copy.plain:
        heard = f"as recorded {pauses}"
    else:
        heard = f"{config!r} {pauses} {digest(s.tobytes() for s in (*ambience.noises, *ambience.rooms))}"
    return {
        "version": CACHE_VERSION,
        "encoder": encoder_digest(net),
        "clips": digest(identity(clip).encode() for clip in clips),
        **({"stream": f"{levels!r} {STREAM_CLIPS} {POOLING}"} if isinstance(net, RecurrentNet) else {}),
        "conditions": heard,
    }


def encoder_digest(net: EncoderNet) -> str:
    """Return the SHA-256 of an encoder's weights in float32, in the order of their names."""
    weights = sorted(net.encoder.state_dict().items())
    return digest(name.encode() + tensor.contiguous().numpy().tobytes() for name, tensor in weights)
