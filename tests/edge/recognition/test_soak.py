"""A long day, in short: minutes of speech, silence, noise and lost sound, as fast as they can be heard."""

from __future__ import annotations

import gc
import tracemalloc
from collections import Counter, deque
from collections.abc import Iterator

import numpy as np
import pytest

from edge.arrays import Array
from edge.audio.sound_file import read_clip
from edge.audio.sources import demo_clip
from edge.events import Overrun, Utterance, Window
from edge.model.bundle import Bundle
from edge.recognition.recognizer import Recognizer
from edge.recognition.settings import Settings

RATE = 16_000
MINUTES = 10


class Life:
    """Simulated minutes, the same each time: a third of each is heard, the rest is lost."""

    def __init__(self, recognizer: Recognizer) -> None:
        self.recognizer = recognizer
        self.counts: Counter[type] = Counter()
        self._clip = read_clip(demo_clip())
        self._random = np.random.default_rng(0)

    def minute(self) -> None:
        """Hear speech, silence and noise in blocks of random sizes, and lose some in between."""
        for sound in (self._speech(4.0), self._noise(2.0, 0.0), self._speech(4.0), self._noise(2.0, 0.05)):
            for block in self._blocks(sound):
                self.counts.update(map(type, self.recognizer.feed(block)))
        for longest in (RATE, 60 * RATE):
            lost = int(self._random.integers(3 * longest // 4, longest))
            self.counts.update(map(type, self.recognizer.report_gap(lost)))

    def _speech(self, seconds: float) -> Array:
        start = int(self._random.integers(len(self._clip)))
        return np.resize(np.roll(self._clip, -start), round(seconds * RATE))

    def _noise(self, seconds: float, amplitude: float) -> Array:
        noise = self._random.standard_normal(round(seconds * RATE))
        return np.clip(amplitude * noise, -1.0, 1.0).astype(np.float32)

    def _blocks(self, sound: Array) -> Iterator[Array]:
        done = 0
        while done < len(sound):
            size = int(self._random.integers(200, 4_000))
            yield sound[done : done + size]
            done += size


def footprint(thing: object, seen: set[int] | None = None) -> int:
    """Add up the bytes of all arrays and the items of all containers that an object of ours holds."""
    seen = set() if seen is None else seen
    if id(thing) in seen:
        return 0
    seen.add(id(thing))
    if isinstance(thing, np.ndarray):
        owner = thing if thing.base is None else thing.base
        return owner.nbytes if isinstance(owner, np.ndarray) else thing.nbytes
    if isinstance(thing, dict):
        return len(thing) + sum(footprint(item, seen) for item in thing.values())
    if isinstance(thing, list | tuple | deque | set):
        return len(thing) + sum(footprint(item, seen) for item in thing)
    if type(thing).__module__.startswith(("edge.", "tests.")):
        return footprint(vars(thing), seen) if hasattr(thing, "__dict__") else 0
    return 0


@pytest.fixture
def life(bundle: Bundle) -> Life:
    return Life(Recognizer(bundle, settings=Settings(step_ms=480), provider="cpu"))


def test_minutes_of_speech_silence_noise_and_loss_leave_nothing_behind(life: Life) -> None:
    sizes, traced = [], []
    for minute in range(MINUTES):
        if minute == MINUTES // 2:
            tracemalloc.start()
        life.minute()
        sizes.append(footprint(life.recognizer))
        if tracemalloc.is_tracing():
            gc.collect()
            traced.append(tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    assert life.recognizer.heard_s > 60.0 * MINUTES
    assert life.counts[Overrun] == 2 * MINUTES
    assert life.counts[Window] > 100
    assert life.counts[Utterance] > MINUTES
    assert max(sizes[3:]) <= 1.1 * max(sizes[:3])
    assert max(sizes) < 2_000_000
    assert max(traced[-2:]) - max(traced[:2]) < 100_000


def test_a_recognizer_that_keeps_its_events_would_be_found(life: Life) -> None:
    life.minute()
    before = footprint(life.recognizer)
    life.recognizer.kept = [np.zeros(RATE, np.float32) for _ in range(60)]  # type: ignore[attr-defined]
    assert footprint(life.recognizer) - before > 3_000_000
