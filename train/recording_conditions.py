"""How a recording would sound elsewhere: another microphone, room, noise, telephone. Waveforms, NumPy only.

A `RecordingChannel` holds what stays the same while one person speaks into one device, so that a baseline
taken from some of the clips meets the same conditions in the others.
"""

from __future__ import annotations

import csv
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import soxr

from edge.arrays import SAMPLE_RATE, Array
from edge.audio.sound_file import read_clip
from edge.errors import UsageError

SCORING_KINDS: Final = frozenset({"Rain", "Rooster", "Chainsaw", "washing_machine"})
"""Kinds of noise that are kept out of training, for scores in unknown noise."""

SCORING_ROOMS: Final = frozenset({"kitchen-true-stereo", "omni-35-10", "spatialized8"})
"""File names, without suffix, of impulse responses that are kept for scoring."""

SPEECH_DB: Final = 25.0
"""A frame of 25 ms counts as speech if its level is within this of the loudest frame's."""

PAUSE_DB: Final = (30.0, 90.0)
"""Level of the noise in a pause, below that of the speech."""

TELEPHONE_HZ: Final = (300.0, 3400.0)

TELEPHONE_RATE: Final = 8000
"""Sample rate of the telephone, Hz."""

MU: Final = 255.0
"""Parameter of the mu-law companding."""


@dataclass(frozen=True)
class Ambience:
    """Recordings of noise and of rooms."""

    noises: tuple[Array, ...]
    rooms: tuple[Array, ...]
    """Impulse responses of unit energy that start at the direct sound."""


@dataclass(frozen=True)
class ChannelConfig:
    """Probability and strength of each condition in training."""

    speed: float = 0.4
    """Share of channels played faster or slower by up to `speed_range`."""
    speed_range: float = 0.08
    tilt: float = 0.5
    tilt_db: float = 4.0
    """Standard deviation of a random microphone response at seven frequencies."""
    room: float = 0.35
    noise: float = 0.5
    snr_db: tuple[float, float] = (5.0, 25.0)
    telephone: float = 0.15
    clipping: float = 0.1
    clipped_share: float = 0.08
    """Largest share of samples that are clipped."""


@dataclass(frozen=True)
class RecordingChannel:
    """One speaker's conditions; None, or a speed of 1, leaves the sound unchanged."""

    speed: float = 1.0
    response_db: Array | None = None
    room: Array | None = None
    noise: Array | None = None
    snr_db: float = 0.0
    telephone: bool = False
    clipped_share: float = 0.0

    def __call__(self, waveform: Array, rng: np.random.Generator) -> Array:
        """Return (N / speed,) samples as recorded through this channel; `rng` picks the stretch of noise."""
        if self.speed != 1.0:
            waveform = soxr.resample(waveform, SAMPLE_RATE * self.speed, SAMPLE_RATE)
        if self.response_db is not None:
            waveform = with_response(waveform, self.response_db)
        if self.room is not None:
            waveform = in_room(waveform, self.room)
        if self.noise is not None:
            waveform = with_noise(waveform, noise_stretch(self.noise, len(waveform), rng), self.snr_db)
        if self.telephone:
            waveform = by_telephone(waveform)
        if self.clipped_share > 0.0:
            waveform = clipped(waveform, self.clipped_share)
        return np.asarray(waveform, np.float32)


def draw_channel(config: ChannelConfig, ambience: Ambience, rng: np.random.Generator) -> RecordingChannel:
    """Draw one speaker's conditions."""
    speed, tilt, room, noise, telephone, clipping = rng.random(6)
    return RecordingChannel(
        speed=1.0 + rng.uniform(-1.0, 1.0) * config.speed_range if speed < config.speed else 1.0,
        response_db=_random_response(config.tilt_db, rng) if tilt < config.tilt else None,
        room=_draw_room(ambience.rooms, rng) if room < config.room else None,
        noise=_draw_noise(ambience.noises, rng) if noise < config.noise else None,
        snr_db=float(rng.uniform(*config.snr_db)),
        telephone=bool(telephone < config.telephone),
        clipped_share=float(rng.uniform(0.0, config.clipped_share)) if clipping < config.clipping else 0.0,
    )


def read_ambience(manifest: Path, *, scoring: bool) -> Ambience:
    """Read the noises and rooms of a manifest with the columns path and kind.

    Args:
        manifest: a CSV file, or the folder that holds it as manifest.csv.
        scoring: read the kinds that are kept for scoring, or all others.

    Raises:
        UsageError: the manifest is missing or lists no such noise.
    """
    path = manifest / "manifest.csv" if manifest.is_dir() else manifest
    if not path.is_file():
        raise UsageError(
            f"there is no list of noises {path}", remedy="give a CSV file with the columns path and kind"
        )
    with path.open(encoding="utf-8", newline="") as file:
        table = csv.DictReader(file)
        if missing := {"path", "kind"} - set(table.fieldnames or ()):
            raise UsageError(
                f"{path} has no column {min(missing)}",
                remedy="give a CSV file with the columns path and kind",
            )
        rows = [(path.parent / row["path"], row["kind"]) for row in table]
    rooms = [
        _direct(read_clip(name))
        for name, kind in rows
        if _is_room(kind) and _of(name.stem, SCORING_ROOMS, scoring)
    ]
    noises = [
        read_clip(name)
        for name, kind in rows
        if not kind.startswith("impulse response") and _of(kind, SCORING_KINDS, scoring)
    ]
    if not noises:
        raise UsageError(
            f"{path} has no noise to {'score' if scoring else 'train'} with", remedy="add other kinds"
        )
    return Ambience(tuple(noises), tuple(rooms))


def speech_level(waveform: Array) -> float:
    """Return the root mean square of the speech in (N,) samples."""
    size = SAMPLE_RATE * 25 // 1000
    whole = waveform[: len(waveform) // size * size] if len(waveform) >= size else np.resize(waveform, size)
    power = (whole.reshape(-1, size) ** 2).mean(axis=1)
    return float(np.sqrt(power[power >= power.max() * 10.0 ** (-SPEECH_DB / 10.0)].mean()))


def with_noise(waveform: Array, noise: Array, snr_db: float) -> Array:
    """Add (N,) noise at a ratio of the speech's level to the noise's."""
    rms = float(np.sqrt(np.mean(noise**2)))
    gain = speech_level(waveform) / max(rms, 1e-9) * 10.0 ** (-snr_db / 20.0)
    noisy: Array = waveform + np.float32(gain) * noise
    return noisy


def with_pauses(waveform: Array, longest_s: float, rng: np.random.Generator) -> Array:
    """Put a pause of faint noise before and after (N,) samples, each up to a duration."""
    before, after = (rng.uniform(0.0, longest_s, 2) * SAMPLE_RATE).astype(int)
    level = speech_level(waveform) * 10.0 ** (-rng.uniform(*PAUSE_DB) / 20.0)
    noise = (level * rng.standard_normal(before + after)).astype(np.float32)
    return np.concatenate([noise[:before], waveform, noise[before:]])


def in_room(waveform: Array, response: Array) -> Array:
    """Convolve with an impulse response, the speech's level kept."""
    size = len(waveform) + len(response) - 1
    spectrum = np.fft.rfft(waveform, size) * np.fft.rfft(response, size)
    heard: Array = np.fft.irfft(spectrum, size)[: len(waveform)].astype(np.float32)
    louder: Array = heard * np.float32(speech_level(waveform) / max(speech_level(heard), 1e-9))
    return louder


def by_telephone(waveform: Array) -> Array:
    """Keep the telephone's band, and compand to 8 bits at 8 kHz."""
    narrow = soxr.resample(_band(waveform, *TELEPHONE_HZ), SAMPLE_RATE, TELEPHONE_RATE)
    peak = max(float(np.abs(narrow).max(initial=0.0)), 1e-9)
    compressed = np.sign(narrow) * np.log1p(MU * np.abs(narrow) / peak) / np.log1p(MU)
    levels = np.round(compressed * 127.0) / 127.0
    expanded = np.sign(levels) * np.expm1(np.abs(levels) * np.log1p(MU)) / MU * peak
    wide = soxr.resample(expanded.astype(np.float32), TELEPHONE_RATE, SAMPLE_RATE)
    heard: Array = np.pad(wide, (0, max(0, len(waveform) - len(wide))))[: len(waveform)]
    return heard


def clipped(waveform: Array, share: float) -> Array:
    """Clip the samples so that a given share of them is at the limit."""
    limit = np.quantile(np.abs(waveform), 1.0 - share)
    flat: Array = np.clip(waveform, -limit, limit)
    return flat


def with_response(waveform: Array, response_db: Array) -> Array:
    """Apply a gain given in dB at evenly spaced points of the mel scale from 0 Hz to half the rate."""
    size = 2 * len(waveform)
    hz = np.fft.rfftfreq(size, 1.0 / SAMPLE_RATE)
    mel = np.log1p(hz / 700.0) / np.log1p(SAMPLE_RATE / 2 / 700.0)
    gain = 10.0 ** (np.interp(mel, np.linspace(0.0, 1.0, len(response_db)), response_db) / 20.0)
    shaped: Array = np.fft.irfft(np.fft.rfft(waveform, size) * gain, size)[: len(waveform)].astype(np.float32)
    return shaped


def _band(waveform: Array, low_hz: float, high_hz: float) -> Array:
    """Keep a band; beyond it the level falls by 24 dB an octave."""
    size = 2 * len(waveform)
    hz = np.maximum(np.fft.rfftfreq(size, 1.0 / SAMPLE_RATE), 1.0)
    gain = 1.0 / np.sqrt((1.0 + (low_hz / hz) ** 8) * (1.0 + (hz / high_hz) ** 8))
    narrow: Array = np.fft.irfft(np.fft.rfft(waveform, size) * gain, size)[: len(waveform)].astype(np.float32)
    return narrow


def _random_response(deviation_db: float, rng: np.random.Generator) -> Array:
    response: Array = np.clip(rng.normal(0.0, deviation_db, 7), -2.5 * deviation_db, 2.5 * deviation_db)
    return response.astype(np.float32)


def _draw_room(rooms: Sequence[Array], rng: np.random.Generator) -> Array:
    """Draw a recorded room, or simulate a small one: the direct sound and decaying noise."""
    if len(rooms) and rng.random() < 0.4:
        return rooms[int(rng.integers(len(rooms)))]
    time = np.arange(SAMPLE_RATE // 2) / SAMPLE_RATE
    tail = rng.standard_normal(len(time)) * 10.0 ** (-3.0 * time / rng.uniform(0.15, 0.6))
    response = tail / np.sqrt((tail**2).sum()) * 10.0 ** (-rng.uniform(0.0, 12.0) / 20.0)
    response[0] = 1.0
    unit: Array = (response / np.sqrt((response**2).sum())).astype(np.float32)
    return unit


def _draw_noise(noises: Sequence[Array], rng: np.random.Generator) -> Array:
    """Draw a recorded noise, or, one time in four or if there is none, 5 s of white or brownish noise."""
    if len(noises) and rng.random() >= 0.25:
        return noises[int(rng.integers(len(noises)))]
    white = rng.standard_normal(5 * SAMPLE_RATE).astype(np.float32)
    return with_response(white, np.linspace(0.0, -rng.uniform(0.0, 40.0), 7).astype(np.float32))


def noise_stretch(noise: Array, samples: int, rng: np.random.Generator) -> Array:
    """Return `samples` samples of the noise from a random start, repeated if it is too short."""
    stretch: Array = np.resize(np.roll(noise, -int(rng.integers(len(noise)))), samples)
    return stretch


def _direct(response: Array) -> Array:
    """Start an impulse response at its direct sound, cut it at 0.75 s, and give it unit energy."""
    tail = response[int(np.abs(response).argmax()) :][: SAMPLE_RATE * 3 // 4]
    unit: Array = (tail / np.sqrt((tail**2).sum())).astype(np.float32)
    return unit


def _is_room(kind: str) -> bool:
    return kind.startswith("impulse response: room")


def _of(name: str, kept: Collection[str], scoring: bool) -> bool:
    return (name in kept) == scoring
