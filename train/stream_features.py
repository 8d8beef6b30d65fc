"""Pooled features of a stream by a recurrent encoder, which carries its state and the gain from clip to clip.

A head that was trained only on clips heard from an empty state does worse in a stream: the state holds what
was said before. Shapes by letter: N samples, T frames of 10 ms, S features of 80 ms, D embedding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final

import numpy as np
import torch

from edge.arrays import Array
from edge.audio.sound_file import read_clip
from edge.features.frontend import filtered, power_spectrogram
from edge.features.mel_power import MEL_POWER, MelPower
from edge.features.normaliser import DECIBEL, BinStatistics, GainConfig, frame_levels
from train.corpora import Clip
from train.recurrent_net import FRAMES_PER_FEATURE, RecurrentNet

STREAM_CLIPS: Final = 12
"""Most clips in a stream."""

FEATURE_HOP: Final = FRAMES_PER_FEATURE * MEL_POWER.hop_length
"""Samples from one feature to the next."""

FEATURE_SAMPLES: Final = MEL_POWER.samples_in(FRAMES_PER_FEATURE)
"""Samples that a feature is computed of, besides the state."""

UNIT: Final = BinStatistics(
    np.zeros(MEL_POWER.frame_size, np.float32), np.ones(MEL_POWER.frame_size, np.float32)
)
"""Statistics that leave the frames as they are."""

WindowsOf = Callable[[int], list[tuple[int, int]]]
"""Map the frames of a clip to the (start, length) of its windows, in frames."""


def streams_of(clips: Sequence[Clip], seed: int, number: int) -> list[list[int]]:
    """Deal the clips of each speaker to streams in random order: lists of indices, each clip in one."""
    streams = []
    rng = np.random.default_rng((seed, number))
    for speaker in sorted({(clip.corpus, clip.speaker) for clip in clips}):
        own = [place for place, clip in enumerate(clips) if (clip.corpus, clip.speaker) == speaker]
        order = rng.permutation(own).tolist()
        streams += [order[first : first + STREAM_CLIPS] for first in range(0, len(order), STREAM_CLIPS)]
    return streams


@torch.inference_mode()
def streamed_features(
    waveforms: Sequence[Array], net: RecurrentNet, levels: GainConfig, windows_of: Sequence[WindowsOf]
) -> list[tuple[Array, tuple[int, ...]]]:
    """Hear clips one after the other in a new stream, and pool the windows of each.

    A feature belongs to the clip that holds all of its samples; a clip shorter than a feature has the one
    nearest to its start.

    Args:
        waveforms: (N,) samples of each clip.
        net: its encoder is frozen.
        levels: gain of the stream.
        windows_of: draws the windows of each clip; starts and lengths are rounded down to features.

    Returns:
        For each clip, its (windows, D) features, and the length of each window in frames.
    """
    samples = np.concatenate(waveforms)
    samples = np.pad(samples, (0, max(0, FEATURE_SAMPLES - len(samples))))
    frames = MelPower(levels, UNIT)(power_spectrogram(filtered(samples, MEL_POWER), MEL_POWER))
    count = len(frames) // FRAMES_PER_FEATURE
    features = net.encoder(torch.from_numpy(frames[: count * FRAMES_PER_FEATURE])[None])[0][0]  # (S, P)
    pooled, end = [], 0
    for waveform, windows in zip(waveforms, windows_of, strict=True):
        begin, end = end, end + len(waveform)
        first = min(-(-begin // FEATURE_HOP), count - 1)
        stop = min(max(first, (end - FEATURE_SAMPLES) // FEATURE_HOP) + 1, count)
        parts, lengths = [], []
        for start, length in windows((stop - first) * FRAMES_PER_FEATURE):
            place, size = first + start // FRAMES_PER_FEATURE, length // FRAMES_PER_FEATURE
            parts.append(net.pooled(features[None, place : place + size])[0].numpy())
            lengths.append(size * FRAMES_PER_FEATURE)
        pooled.append((np.array(parts), tuple(lengths)))
    return pooled


def reference_level(clips: Iterable[Clip]) -> float:
    """Return the mean level of speech, in nats, over clips: the prior of a new stream's gain."""
    gate, found = GainConfig().gate_db * DECIBEL, []
    for clip in clips:
        waveform = read_clip(clip.path)
        heard = np.pad(waveform, (0, max(0, MEL_POWER.win_length - len(waveform))))
        levels = frame_levels(power_spectrogram(filtered(heard, MEL_POWER), MEL_POWER))
        found.append(float(levels[levels > levels.max() - gate].mean()))
    return float(np.mean(found))
