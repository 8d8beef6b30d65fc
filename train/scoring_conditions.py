"""Recording conditions that a bundle is scored under, one at a time: noise, rooms, devices and codecs."""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, get_args

import numpy as np
import soundfile

from edge.arrays import SAMPLE_RATE, Array
from edge.audio.sound_file import read_clip
from edge.errors import UsageError
from edge.system.signals import interrupts_deferred
from train.corpora import Clip
from train.evaluation import CorpusScores
from train.recording_conditions import (
    Ambience,
    by_telephone,
    clipped,
    in_room,
    noise_stretch,
    read_ambience,
    with_noise,
)

ConditionName = Literal[
    "clean", "noise20", "noise10", "room", "telephone", "quiet", "clipped", "mp3", "opus", "offset"
]

CONDITIONS: Final[tuple[ConditionName, ...]] = get_args(ConditionName)

DESCRIBED: Final[Mapping[str, str]] = {
    "clean": "as recorded",
    "noise20": "noise of kinds kept out of training, at 20 dB",
    "noise10": "the same noise at 10 dB",
    "room": "rooms kept out of training",
    "telephone": "300 to 3400 Hz, companded to 8 bits",
    "quiet": "20 dB lower, in 16 bits",
    "clipped": "5 % of the samples clipped",
    "mp3": "MP3 of about 24 kbit/s",
    "opus": "Opus of about 8 kbit/s",
    "offset": "a constant offset of 0.02",
}

WITH_AMBIENCE: Final = ("noise20", "noise10", "room")
"""Conditions that need recordings of noise or rooms."""

CLIPPED_SHARE: Final = 0.05

QUIET_GAIN: Final = 0.1

OFFSET: Final = 0.02

FULL_SCALE: Final = 32768.0
"""Steps of 16-bit samples in 1.0."""

Condition = Callable[[Array, np.random.Generator], Array]
"""Maps (N,) samples at 16 kHz to those recorded under a condition."""


@dataclass(frozen=True)
class ConditionScores:
    """UAR of a bundle without adaptation under one condition, in percent, by corpus."""

    uar: dict[str, float]
    low: dict[str, float]
    """Lower end of the 95 % interval over speakers ..."""
    high: dict[str, float]
    """... and its upper end."""
    loss: dict[str, float]
    """Points of UAR against clean sound: positive is worse."""

    def mean(self, known: Collection[str]) -> tuple[float, float]:
        """Average UAR and loss over the corpora with training speakers; over all, if none is known."""
        chosen = [corpus for corpus in self.uar if corpus in known] or list(self.uar)
        uar, loss = ([values[corpus] for corpus in chosen] for values in (self.uar, self.loss))
        return float(np.mean(uar)), float(np.mean(loss))


def parse_conditions(listed: str, *, with_ambience: bool) -> tuple[ConditionName, ...]:
    """Parse names of conditions, such as "clean,noise20"; "clean" always comes first.

    Args:
        listed: names separated by commas.
        with_ambience: whether recordings of noise and rooms were given.

    Raises:
        UsageError: a name is unknown or repeated, or the condition needs recordings of noise.
    """
    names = [name.strip() for name in listed.split(",")]
    if unknown := [name for name in names if name not in CONDITIONS]:
        raise UsageError(
            f"--conditions names the unknown condition {unknown[0]!r}",
            remedy=f"choose from {', '.join(CONDITIONS)}",
        )
    if len(set(names)) != len(names):
        raise UsageError(f"--conditions {listed!r} names a condition twice", remedy="name each once")
    if not with_ambience and (needing := [name for name in names if name in WITH_AMBIENCE]):
        raise UsageError(
            f"the condition {needing[0]} needs recordings of noise and rooms",
            remedy="add --noise FOLDER, whose manifest.csv has the columns path and kind",
        )
    return tuple(name for name in CONDITIONS if name in names or name == "clean")


def recording_conditions(
    noise: Path | None, names: Sequence[ConditionName]
) -> dict[ConditionName, Condition]:
    """Return the conditions by name.

    Args:
        noise: manifest of noises and rooms, or its folder; needed for `WITH_AMBIENCE` only.
        names: of the conditions.

    Raises:
        UsageError: the manifest cannot be read, or has no noise or room that is kept for scoring.
    """
    ambience = Ambience((), ())
    if noise and set(names) & set(WITH_AMBIENCE):
        ambience = read_ambience(noise, scoring=True)
    if "room" in names and not ambience.rooms:
        raise UsageError(
            f"{noise} has no room that is kept for scoring", remedy="leave room out of --conditions"
        )
    every: dict[ConditionName, Condition] = {
        "clean": lambda sound, rng: sound,
        "noise20": lambda sound, rng: _noisy(sound, ambience, 20.0, rng),
        "noise10": lambda sound, rng: _noisy(sound, ambience, 10.0, rng),
        "room": lambda sound, rng: in_room(sound, ambience.rooms[int(rng.integers(len(ambience.rooms)))]),
        "telephone": lambda sound, rng: by_telephone(sound),
        "quiet": lambda sound, rng: quiet(sound),
        "clipped": lambda sound, rng: clipped(sound, CLIPPED_SHARE),
        "mp3": lambda sound, rng: coded(sound, "mp3"),
        "opus": lambda sound, rng: coded(sound, "opus"),
        "offset": lambda sound, rng: sound + np.float32(OFFSET),
    }
    return {name: every[name] for name in names}


def sounds_under(condition: Condition, clips: Sequence[Clip]) -> Iterator[Array]:
    """Yield the (N,) samples of each clip under a condition; a clip has the same noise at every level."""
    for clip in clips:
        rng = np.random.default_rng(zlib.crc32(f"{clip.corpus}/{clip.path.name}".encode()))
        yield np.asarray(condition(read_clip(clip.path), rng), np.float32)


def quiet(waveform: Array) -> Array:
    """Return (N,) samples at a tenth of their level, rounded to 16 bits."""
    steps: Array = np.round(waveform * np.float32(QUIET_GAIN * FULL_SCALE))
    return steps / np.float32(FULL_SCALE)


def coded(waveform: Array, codec: Literal["mp3", "opus"]) -> Array:
    """Encode (N,) samples at 16 kHz at a low bit rate, and decode them: N samples without delay."""
    file = io.BytesIO()
    sound = np.clip(waveform, -1.0, 1.0)
    with interrupts_deferred():
        if codec == "mp3":
            form = {"format": "MP3", "subtype": "MPEG_LAYER_III", "bitrate_mode": "AVERAGE"}
            soundfile.write(file, sound, SAMPLE_RATE, compression_level=0.9, **form)
        else:
            soundfile.write(file, sound, SAMPLE_RATE, format="OGG", subtype="OPUS", compression_level=1.0)
        file.seek(0)
        decoded, _ = soundfile.read(file, dtype="float32")
    heard: Array = np.pad(decoded, (0, max(0, len(waveform) - len(decoded))))[: len(waveform)]
    return heard


def condition_scores(clean: dict[str, CorpusScores], changed: dict[str, CorpusScores]) -> ConditionScores:
    """Compare the scores of the same clips under a condition with those of clean sound."""
    return ConditionScores(
        uar={corpus: item.uar for corpus, item in changed.items()},
        low={corpus: item.low for corpus, item in changed.items()},
        high={corpus: item.high for corpus, item in changed.items()},
        loss={corpus: clean[corpus].uar - item.uar for corpus, item in changed.items()},
    )


def _noisy(sound: Array, ambience: Ambience, snr_db: float, rng: np.random.Generator) -> Array:
    noise = ambience.noises[int(rng.integers(len(ambience.noises)))]
    return with_noise(sound, noise_stretch(noise, len(sound), rng), snr_db)
