from __future__ import annotations

import io
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.arrays import SAMPLE_RATE, Array
from edge.audio.block import Block, Source
from edge.audio.microphone import Microphone
from edge.audio.sound_file import BLOCK_S, read_clip
from edge.audio.sources import DemoSource, FileSource, StdinSource, open_source
from edge.errors import SourceError, UsageError

ROOT = Path(__file__).parents[3]


def noise(samples: int) -> Array:
    return np.random.default_rng(0).uniform(-0.5, 0.5, samples).astype(np.float32)


def sound_file(folder: Path, rate: int = SAMPLE_RATE, duration_s: float = 1.0) -> Path:
    path = folder / "clip.wav"
    soundfile.write(path, noise(round(rate * duration_s)), rate)
    return path


def drain(source: Source) -> list[Block]:
    with source:
        return list(source)


def sound_of(blocks: list[Block]) -> Array:
    return np.concatenate([block.samples for block in blocks])


class Trickle(io.BytesIO):
    """A pipe that has a limited number of bytes ready each time."""

    def __init__(self, data: bytes, sizes: list[int]) -> None:
        super().__init__(data)
        self._sizes = sizes
        self._reads = 0

    def read1(self, size: int | None = -1, /) -> bytes:
        ready = self._sizes[self._reads % len(self._sizes)]
        self._reads += 1
        return super().read1(min(ready, size) if size and size > 0 else ready)


# Which source is meant


def test_each_word_means_its_source(tmp_path: Path) -> None:
    path = sound_file(tmp_path)
    expected = {"mic": Microphone, "mic:3": Microphone, "demo": DemoSource, "-": StdinSource}
    assert {spec: type(open_source(spec)) for spec in expected} == expected
    source = open_source(str(path))
    assert isinstance(source, FileSource)
    assert (source.name, source.live) == ("clip.wav", False)
    assert (open_source("-").name, open_source("demo").name) == ("stdin", "demo")


def test_all_but_files_read_as_fast_as_possible_are_live(tmp_path: Path) -> None:
    path = str(sound_file(tmp_path))
    live = {spec: open_source(spec, paced=True).live for spec in ("mic", path, "demo", "-")}
    assert live == {"mic": True, path: True, "demo": True, "-": True}
    assert not open_source("demo").live
    assert not open_source(path).live


def test_a_file_called_demo_is_reached_by_its_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sound_file(tmp_path).rename(tmp_path / "demo")
    monkeypatch.chdir(tmp_path)
    assert len(sound_of(drain(open_source("./demo")))) == SAMPLE_RATE


@pytest.mark.parametrize("spec", ["", "mic:", "mic: "])
def test_a_word_that_names_nothing_is_a_usage_error(spec: str) -> None:
    with pytest.raises(UsageError, match=r"\w: "):
        open_source(spec)


# Files


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100])
def test_a_file_streams_the_samples_that_read_clip_reads(tmp_path: Path, rate: int) -> None:
    path = sound_file(tmp_path, rate, duration_s=1.234)
    np.testing.assert_array_equal(sound_of(drain(open_source(str(path)))), read_clip(path))


def test_blocks_are_float32_mono_without_loss_and_never_empty(tmp_path: Path) -> None:
    blocks = drain(open_source(str(sound_file(tmp_path, 48_000))))
    assert {block.samples.dtype for block in blocks} == {np.dtype(np.float32)}
    assert {block.samples.ndim for block in blocks} == {1}
    assert min(len(block.samples) for block in blocks) > 0
    assert {block.lost for block in blocks} == {0}


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has names that are not UTF-8")
def test_a_file_whose_name_is_not_utf_8_is_heard_and_has_a_name_that_can_be_written(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"clip\xff.wav")
    sound_file(tmp_path).rename(path)
    source = FileSource(path)
    assert len(sound_of(drain(source))) == SAMPLE_RATE
    assert source.name == "clip\ufffd.wav"


def test_sound_that_the_resampler_held_back_is_as_old_as_it_is(tmp_path: Path) -> None:
    clock = Clock()
    path = sound_file(tmp_path, 8_000)
    blocks = drain(FileSource(path, paced=True, clock=clock, sleep=clock.sleep))
    heard = 0
    for block in blocks:
        heard += len(block.samples)
        assert heard / SAMPLE_RATE <= block.arrived_s - 100.0 + 1e-9 < heard / SAMPLE_RATE + BLOCK_S + 1e-3


def test_a_missing_file_is_an_error_on_entering(tmp_path: Path) -> None:
    source = open_source(str(tmp_path / "gone.wav"))
    with pytest.raises(SourceError, match="does not exist"):
        source.__enter__()


def test_a_damaged_file_gives_its_sound_and_then_the_error(tmp_path: Path) -> None:
    path = tmp_path / "half.flac"
    soundfile.write(path, noise(3 * SAMPLE_RATE), SAMPLE_RATE)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with open_source(str(path)) as source:
        blocks = iter(source)
        assert len(next(blocks).samples) > 0
        with pytest.raises(SourceError, match="damaged or cut off after"):
            list(blocks)


class Clock:
    """Time that passes only during sleeps, a little longer than asked."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now_s

    def sleep(self, duration_s: float) -> None:
        assert duration_s > 0
        self.slept.append(duration_s)
        self.now_s += duration_s + 0.005


@pytest.mark.parametrize("rate", [16_000, 44_100])
def test_a_paced_file_does_not_drift_though_each_sleep_is_too_long(tmp_path: Path, rate: int) -> None:
    clock = Clock()
    path = sound_file(tmp_path, rate, duration_s=8.0)
    with FileSource(path, paced=True, clock=clock, sleep=clock.sleep) as source:
        for index, block in enumerate(source):
            if index < 100:
                assert block.arrived_s == pytest.approx(100.0 + (index + 1) * BLOCK_S)
            assert clock.now_s - block.arrived_s < 0.01
    assert clock.now_s == pytest.approx(108.0, abs=0.01)


def test_a_listener_who_falls_behind_sees_how_long_the_sound_has_waited(tmp_path: Path) -> None:
    clock = Clock()
    lags_s = []
    with FileSource(sound_file(tmp_path), paced=True, clock=clock, sleep=clock.sleep) as source:
        for block in source:
            lags_s.append(clock.now_s - block.arrived_s)
            clock.now_s += 2 * BLOCK_S
    assert lags_s == sorted(lags_s)
    assert lags_s[-1] > 0.5


def test_the_pace_starts_with_listening_not_with_opening(tmp_path: Path) -> None:
    clock = Clock()
    with FileSource(sound_file(tmp_path), paced=True, clock=clock, sleep=clock.sleep) as source:
        clock.now_s += 5.0
        first = next(iter(source))
    assert first.arrived_s == pytest.approx(105.0 + BLOCK_S)


def test_an_unpaced_file_never_sleeps(tmp_path: Path) -> None:
    clock = Clock()
    with FileSource(sound_file(tmp_path), clock=clock, sleep=clock.sleep) as source:
        assert {block.arrived_s for block in source} == {100.0}
    assert clock.slept == []


def test_a_paced_file_keeps_the_real_clock(tmp_path: Path) -> None:
    start_s = time.perf_counter()
    drain(open_source(str(sound_file(tmp_path, duration_s=0.25)), paced=True))
    assert time.perf_counter() - start_s >= 0.25


# The demo


def test_the_demo_ships_in_the_package() -> None:
    samples = sound_of(drain(open_source("demo")))
    assert len(samples) > 3 * SAMPLE_RATE
    assert np.abs(samples).max() > 0.05


def test_a_missing_demo_is_explained(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("importlib.resources.files", lambda _: tmp_path)
    with pytest.raises(SourceError, match=r"demo clip is missing.*install mmtl again"):
        open_source("demo").__enter__()


# Standard input


def pcm(samples: Array) -> bytes:
    return (samples * 32_768).astype("<i2").tobytes()


@settings(deadline=None)
@given(st.lists(st.integers(1, 3_000), min_size=1, max_size=5))
def test_a_pipe_gives_the_same_sound_however_its_bytes_are_cut(sizes: list[int]) -> None:
    data = pcm(noise(5_000))
    samples = sound_of(drain(StdinSource(stream=Trickle(data, sizes))))
    np.testing.assert_array_equal(samples, np.frombuffer(data, "<i2") / np.float32(32_768))


def test_an_odd_byte_at_the_end_is_dropped() -> None:
    data = pcm(noise(501)) + b"\x7f"
    assert len(sound_of(drain(StdinSource(stream=io.BytesIO(data))))) == 501


@pytest.mark.parametrize("rate", [4_000, 8_000, 44_100, 192_000])
def test_a_pipe_at_another_rate_becomes_16_khz(rate: int) -> None:
    samples = sound_of(drain(StdinSource(rate, io.BytesIO(pcm(noise(rate))))))
    assert len(samples) == SAMPLE_RATE


@pytest.mark.parametrize("rate", [-1, 0, 3_999, 192_001])
def test_a_rate_nobody_records_at_is_a_usage_error(rate: int) -> None:
    with pytest.raises(UsageError, match=rf"{rate} Hz was given, expected 4000 to 192000: give"):
        open_source("-", rate=rate)


@pytest.mark.parametrize("data", [b"", b"\x01"])
def test_a_pipe_without_a_sample_is_an_error(data: bytes) -> None:
    with pytest.raises(SourceError, match="ended before any sound came"):
        drain(StdinSource(stream=io.BytesIO(data)))


def test_a_sound_file_on_a_pipe_is_recognised(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"a sound file arrived on standard input \(WAV\).*instead of -"):
        drain(StdinSource(stream=io.BytesIO(sound_file(tmp_path).read_bytes())))


def test_a_pipe_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    class Broken(io.BytesIO):
        def read1(self, _size: int | None = -1, /) -> bytes:
            raise IsADirectoryError(21, "Is a directory")

    with pytest.raises(SourceError, match=r"cannot be read \(Is a directory\)"):
        drain(StdinSource(stream=Broken()))


@pytest.fixture
def pipe() -> Iterator[tuple[io.BufferedReader, io.FileIO]]:
    reading, writing = os.pipe()
    with open(reading, "rb") as reader, open(writing, "wb", buffering=0) as writer:  # noqa: PTH123
        yield reader, writer


@contextmanager
def closing_in(seconds: float, writer: io.FileIO) -> Iterator[None]:
    """Turn waiting for a full block into a failure instead of a test that never ends."""
    timer = threading.Timer(seconds, writer.close)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()


def test_a_pipe_is_heard_before_a_block_is_full(pipe: tuple[io.BufferedReader, io.FileIO]) -> None:
    reader, writer = pipe
    with StdinSource(stream=reader) as source, closing_in(60.0, writer):
        blocks = iter(source)
        for samples in (10, 7):
            writer.write(pcm(noise(samples)))
            before_s = time.perf_counter()
            block = next(blocks)
            assert len(block.samples) == samples
            assert before_s < block.arrived_s <= time.perf_counter()
        writer.close()
        assert list(blocks) == []


def test_a_terminal_on_standard_input_is_refused_with_an_example(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stdin", Terminal())
    with pytest.raises(SourceError, match=r"is a terminal.*arecord .* -r 8000"):
        open_source("-", rate=8_000).__enter__()


def test_a_closed_standard_input_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(SourceError, match="standard input is closed"):
        open_source("-").__enter__()


def count_samples(*arguments: str, data: bytes = b"", before: str = "") -> int:
    """Count what a source delivers in a process of its own."""
    script = (
        f"import sys; {before}\n"
        "from edge.audio.sources import open_source\n"
        "with open_source(sys.argv[1]) as source: print(sum(len(block.samples) for block in source))"
    )
    command = [sys.executable, "-c", script, *arguments]
    return int(subprocess.run(command, input=data, cwd=ROOT, stdout=subprocess.PIPE, check=True).stdout)


def test_the_real_standard_input_is_read() -> None:
    assert count_samples("-", data=pcm(noise(12_345)) + b"\0") == 12_345


def test_a_file_is_heard_without_portaudio(tmp_path: Path) -> None:
    path = sound_file(tmp_path)
    assert count_samples(str(path), before="sys.modules['sounddevice'] = None") == SAMPLE_RATE
