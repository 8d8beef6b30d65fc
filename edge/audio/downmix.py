"""Downmix: one channel from the channels of the input.

`auto`, the default, depends on the number of channels:

    1           that channel
    2           their mean; one alone while the other has been digital silence from the start, and the
                louder one once they cancel each other (opposite phase: a miswired connector, a karaoke
                filter)
    3 and more  channel 0: in a microphone array it is the processed voice (ReSpeaker), and the last
                channels may be the loudspeaker's playback

`mix` is the mean of all channels, and a number is one channel, counted from 0.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from edge.arrays import Array
from edge.audio.block import InputWarning
from edge.errors import UsageError

Channel = int | str
"""A number from 0, "mix" or "auto"."""
AUTO: Final = "auto"
MIX: Final = "mix"
SEGMENT_S: Final = 0.5
"""Duration of the segments in which cancellation is measured; the first one is held back."""
MOST_CHANNELS: Final = 64
"""A larger number is a mistake in the request."""
CANCELLED_RATIO: Final = 0.1
"""Two channels cancel each other where the power of their mean is below this share of the louder's."""
SILENT_POWER: Final = 1e-6
"""Power relative to full scale; quieter segments are not measured."""
SEGMENTS_IN_A_ROW: Final = 2
"""Cancelled segments needed once the first was not cancelled."""
SILENT_S: Final = 3.0
"""Digital silence of channel 0 before a warning, if another channel carries sound."""


def parse_channel(text: str) -> Channel:
    """Parse a --channel option.

    Raises:
        UsageError: the text is not a number from 0, "mix" or "auto".
    """
    if text in (AUTO, MIX):
        return text
    if text.isascii() and text.isdigit() and len(text) < 4:
        return int(text)
    raise UsageError(f"{text!r} is no channel", remedy="give a number from 0, mix or auto")


def require_channel(channel: Channel, channels: int) -> None:
    """Check that the sound has a channel.

    Raises:
        UsageError: it has fewer channels.
    """
    if isinstance(channel, int) and not 0 <= channel < channels:
        there = "channel 0 only" if channels == 1 else f"channels 0 to {channels - 1}"
        raise UsageError(
            f"channel {channel} was asked for, the sound has {there}", remedy="give one of these, mix or auto"
        )


def require_channels(channels: int) -> None:
    """Check a stated number of channels.

    Raises:
        UsageError: it is below 1 or above `MOST_CHANNELS`.
    """
    if not 1 <= channels <= MOST_CHANNELS:
        raise UsageError(f"{channels} channels were stated, expected 1 to {MOST_CHANNELS}")


class Downmix:
    """Mixes several channels down to one, as a stream.

    The output does not depend on how the input is divided into blocks. Remembers the decision about two
    channels, and at most one segment of sound. `flush` emits the samples held back and keeps the decision.
    """

    def __init__(self, rate: float, channel: Channel = AUTO) -> None:
        """Prepare for a stream.

        Args:
            rate: Hz.
            channel: number from 0, "mix" or "auto".

        Raises:
            UsageError: the channel is neither.
        """
        self._channel = channel if isinstance(channel, int) else parse_channel(channel)
        self._stereo = _StereoDownmix(rate)
        self._multichannel = _MultichannelDownmix(rate)

    def feed(self, sound: Array) -> Array:
        """Take the next sound.

        Args:
            sound: (N,) or (N, channels).

        Returns:
            (M,) samples; M differs from N only at the beginning of stereo sound.

        Raises:
            UsageError: the sound lacks the requested channel.
        """
        sound = sound[:, None] if sound.ndim == 1 else sound
        require_channel(self._channel, sound.shape[1])
        if isinstance(self._channel, int):
            return sound[:, self._channel]
        if self._channel == MIX or sound.shape[1] == 1:
            return mean(sound)
        return self._stereo.feed(sound) if sound.shape[1] == 2 else self._multichannel.feed(sound)

    def flush(self) -> Array:
        """Return the samples still held back."""
        return self._stereo.flush()

    def take_warning(self) -> InputWarning | None:
        """Return a new warning about the channels, once."""
        for channels in (self._stereo, self._multichannel):
            if warning := channels.warning:
                channels.warning = None
                return warning
        return None


class _MultichannelDownmix:
    """Three channels or more: takes the first, and warns if it is digital silence."""

    def __init__(self, rate: float) -> None:
        self.warning: InputWarning | None = None
        self._silence_left = round(SILENT_S * rate)
        """Frames of silence until the warning; 0 once the channel carried sound or the warning was given."""
        self._others_active = False

    def feed(self, sound: Array) -> Array:
        if self._silence_left:
            self._check_silence(sound)
        return sound[:, 0]

    def _check_silence(self, sound: Array) -> None:
        if sound[:, 0].any():
            self._silence_left = 0
            return
        self._others_active = self._others_active or bool(sound.any())
        self._silence_left = max(0, self._silence_left - len(sound))
        if not self._silence_left and self._others_active:
            message = (
                f"channel 0 of {sound.shape[1]} is silent and another is not: choose one with --channel N"
            )
            self.warning = InputWarning("channels", message)


class _StereoDownmix:
    """Two channels: takes their mean, or one of them once they cancel each other."""

    def __init__(self, rate: float) -> None:
        self.warning: InputWarning | None = None
        self._rate = rate
        self._size = round(SEGMENT_S * rate)
        self._passed = 0
        """Frames before the segment."""
        self._segment: list[Array] = []
        self._count = 0
        """Frames in it."""
        self._active = np.zeros(2, bool)
        """Which channels have carried anything but digital silence."""
        self._decided = False
        self._cancelled = 0
        """Segments in a row."""
        self._chosen: int | None = None

    def feed(self, sound: Array) -> Array:
        mixed = [np.zeros(0, np.float32)]
        while len(sound) and self._chosen is None:
            if equal := self._equal_at_first(sound):
                mixed.append(self._mixed(sound[:equal]))
                self._passed += equal
                sound = sound[equal:]
                continue
            part = sound[: self._size - self._count].copy()
            mixed += self._take(part)
            sound = sound[len(part) :]
        if self._chosen is not None:
            mixed.append(sound[:, self._chosen])
        return np.concatenate(mixed)

    def flush(self) -> Array:
        held = self._decide() if self._count and not self._decided else []
        self._passed += self._count
        self._segment, self._count = [], 0
        return np.concatenate([np.zeros(0, np.float32), *held])

    def _equal_at_first(self, sound: Array) -> int:
        """Count the frames before the channels first differ: they need no decision and are not held back."""
        if self._decided or self._count:
            return 0
        different = np.flatnonzero(sound[:, 0] != sound[:, 1])
        return int(different[0]) if len(different) else len(sound)

    def _take(self, part: Array) -> list[Array]:
        """Add to the segment; return the output that is ready."""
        self._segment.append(part)
        self._count += len(part)
        mixed = [self._mixed(part)] if self._decided else []
        return mixed + self._decide() if self._count == self._size else mixed

    def _decide(self) -> list[Array]:
        """End the segment, measure cancellation, and return its samples if they were held back."""
        segment, began = np.concatenate(self._segment), self._passed
        self._passed += len(segment)
        self._segment, self._count = [], 0
        centred = segment - segment.mean(axis=0, dtype=np.float64)
        powers = np.square(centred).mean(axis=0)
        if powers.max() < SILENT_POWER:
            return [] if self._decided else [self._mixed(segment)]
        cancelled = np.square(centred.mean(axis=1)).mean() < CANCELLED_RATIO * powers.max()
        self._cancelled = self._cancelled + 1 if cancelled else 0
        if self._cancelled >= (SEGMENTS_IN_A_ROW if self._decided else 1):
            self._choose(int(powers.argmax()), self._passed if self._decided else began)
        held = (
            []
            if self._decided
            else [self._mixed(segment) if self._chosen is None else segment[:, self._chosen]]
        )
        self._decided = True
        return held

    def _choose(self, channel: int, since: int) -> None:
        self._chosen = channel
        when = f" from {since / self._rate:.1f} s on" if since else ""
        message = f"the two channels cancel each other (opposite phase): only channel {channel} is used{when}"
        self.warning = InputWarning("channels", f"{message}; choose the other with --channel {1 - channel}")

    def _mixed(self, part: Array) -> Array:
        """Average the channels that have carried sound so far."""
        if self._active.all():
            return mean(part)
        carried = np.logical_or.accumulate(part != 0.0, axis=0) | self._active
        self._active = carried[-1]
        shares = carried / np.maximum(1, carried.sum(axis=1, keepdims=True))
        mixed: Array = (part * shares).sum(axis=1, dtype=np.float32)
        return mixed


def mean(sound: Array) -> Array:
    """Average the channels of (N, channels) sound."""
    averaged: Array = sound.mean(axis=1, dtype=np.float32)
    return averaged
