"""Random and damaged bytes: each input is recognised or refused with a reason; nothing hangs or grows.

The examples are the same in every run.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import struct
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge.arrays import Array
from edge.audio.sound_file import read_clip
from edge.audio.sources import FileSource, StdinSource
from edge.errors import MmtlError
from edge.model.bundle import Bundle
from edge.recognition.recognizer import Recognizer
from edge.server.client_session import Service
from edge.server.client_stream import ClientStream, shared_engines
from edge.server.rate_limits import Limits
from edge.server.server import Server
from edge.server.transport import TcpChannel
from tests.edge.schema import checked, checked_event

EXAMPLES = settings(
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

LIMIT_S = 60.0
"""For one example."""

LARGEST = 100_000
"""Samples at 16 kHz, more than the few thousand bytes of an example can hold."""


def in_time(work: Callable[[], None]) -> None:
    """Run something that may raise `MmtlError`, and nothing else, and must end."""
    failures: list[BaseException] = []

    def guarded() -> None:
        try:
            with contextlib.suppress(MmtlError):
                work()
        except BaseException as error:  # noqa: BLE001 - it is raised again, in the test's own thread
            failures.append(error)

    thread = threading.Thread(target=guarded, daemon=True)
    thread.start()
    thread.join(LIMIT_S)
    assert not thread.is_alive(), "it hangs"
    if failures:
        raise failures[0]


# Headers of WAV files

numbers_16 = st.one_of(st.sampled_from([0, 1, 2, 3, 8, 16, 24, 32, 0x7FFF, 0xFFFF]), st.integers(0, 0xFFFF))
numbers_32 = st.one_of(
    st.sampled_from([0, 1, 8_000, 16_000, 192_000, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF]),
    st.integers(0, 0xFFFF_FFFF),
)
names = st.sampled_from([b"data", b"fmt ", b"LIST", b"fact", b"ds64", b"\0\xff\r\n"])


@st.composite
def headers(draw: st.DrawFn) -> bytes:
    """A WAV file, any field of which may lie."""
    form = struct.pack(
        "<HHIIHH",
        draw(st.one_of(st.just(1), st.just(3), st.just(0xFFFE), numbers_16)),
        draw(st.one_of(st.just(1), numbers_16)),
        draw(st.one_of(st.just(16_000), numbers_32)),
        draw(numbers_32),
        draw(st.one_of(st.just(2), numbers_16)),
        draw(st.one_of(st.just(16), numbers_16)),
    )
    sound = draw(st.binary(max_size=2_000))
    parts = b"fmt " + struct.pack("<I", draw(st.one_of(st.just(16), numbers_32))) + form
    for _ in range(draw(st.integers(0, 2))):
        body = draw(st.binary(max_size=20))
        parts += draw(names) + struct.pack("<I", draw(st.one_of(st.just(len(body)), numbers_32))) + body
    parts += b"data" + struct.pack("<I", draw(st.one_of(st.just(len(sound)), numbers_32))) + sound
    return b"RIFF" + struct.pack("<I", draw(st.one_of(st.just(len(parts)), numbers_32))) + b"WAVE" + parts


def hear_file(path: Path) -> None:
    with FileSource(path) as source:
        total = sum(check(block.samples) for block in source)
    assert total < LARGEST


def check(samples: Array) -> int:
    """Return how many samples there are, all of which a recogniser can take."""
    assert samples.dtype == np.float32
    assert samples.ndim == 1
    assert np.isfinite(samples).all()
    assert np.abs(samples).max(initial=0.0) <= 1.0
    return len(samples)


@EXAMPLES
@given(content=headers())
def test_a_wav_header_that_lies_is_heard_or_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "clip.wav"
    path.write_bytes(content)
    in_time(lambda: hear_file(path))


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The same good sound as files of several formats."""
    folder = tmp_path_factory.mktemp("recordings")
    sound = np.random.default_rng(0).uniform(-0.5, 0.5, 4_000)
    found = {}
    for form in ("wav", "flac", "ogg", "aiff"):
        path = folder / f"clip.{form}"
        soundfile.write(path, sound, 16_000)
        assert len(read_clip(path)) == 4_000
        found[form] = path.read_bytes()
    return found


changes = st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), max_size=8)


@EXAMPLES
@given(form=st.sampled_from(["wav", "flac", "ogg", "aiff"]), changed=changes, kept=st.floats(0.0, 1.0))
def test_a_damaged_or_cut_file_is_heard_or_refused(
    tmp_path: Path,
    recordings: dict[str, bytes],
    form: str,
    changed: list[tuple[int, int]],
    kept: float,
) -> None:
    content = bytearray(recordings[form])
    for place, value in changed:
        content[place % len(content)] = value
    path = tmp_path / f"damaged.{form}"
    path.write_bytes(content[: round(kept * len(content))])
    in_time(lambda: hear_file(path))


# Standard input


class Pipe(io.BytesIO):
    """Has as much ready each time as it was told."""

    def __init__(self, pieces: list[bytes]) -> None:
        super().__init__()
        self._pieces = iter(pieces)

    def read1(self, size: int | None = -1, /) -> bytes:
        return next(self._pieces, b"")


pieces_of_sound = st.lists(
    st.one_of(st.binary(min_size=1, max_size=300), st.sampled_from([b"RIFF", b"\xff" * 999, bytes(2_001)])),
    max_size=12,
)


@EXAMPLES
@given(pieces=pieces_of_sound, rate=st.sampled_from([4_000, 11_025, 16_000, 44_100, 192_000]))
def test_whatever_comes_on_stdin_is_sound_of_its_length_or_refused(pieces: list[bytes], rate: int) -> None:
    def hear() -> None:
        with StdinSource(rate, Pipe(pieces)) as source:
            heard = sum(check(block.samples) for block in source)
        expected = sum(map(len, pieces)) // 2 * 16_000 / rate
        assert heard == pytest.approx(expected, abs=2)

    in_time(hear)


# What clients send


@pytest.fixture(scope="module")
def make(bundle: Bundle) -> Callable[[], Recognizer]:
    return shared_engines(bundle, provider="cpu")


class Written:
    """The end of a socket that the server writes to."""

    def __init__(self) -> None:
        self.text = bytearray()
        self.transport = self

    def get_extra_info(self, name: str) -> tuple[str, int]:
        return (name, 0)

    def write(self, data: bytes) -> None:
        self.text += data

    async def drain(self) -> None:
        pass

    def can_write_eof(self) -> bool:
        return False

    def close(self) -> None:
        pass

    async def wait_closed(self) -> None:
        pass

    def abort(self) -> None:
        pass


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["rate", "end", "x"]), inner),
    max_leaves=4,
)
beginnings = st.one_of(
    st.just(b""),
    st.binary(max_size=20),
    st.binary(max_size=50).map(lambda data: b'{"' + data),
    json_values.map(lambda value: json.dumps({"rate": value}).encode() + b"\n"),
    st.sampled_from([b'{"rate": 8000}\n', b'{"rate": 16000}', b"fLaC", b'{"' + b"a" * 2**17]),
)


@EXAMPLES
@given(beginning=beginnings, pieces=pieces_of_sound)
def test_whatever_a_client_sends_it_gets_a_session_and_a_summary(
    make: Callable[[], Recognizer], beginning: bytes, pieces: list[bytes]
) -> None:
    async def converse() -> tuple[bytes, list[str]]:
        said: list[str] = []
        service = Service(make, limits=Limits(speed=1e6, idle_s=10.0))
        server = Server(service, said.append)
        reader, written = asyncio.StreamReader(), Written()
        for piece in (beginning, *pieces):
            reader.feed_data(piece)
        reader.feed_eof()
        server_task = asyncio.create_task(server.run())
        await server._handle(TcpChannel(reader, written))  # type: ignore[arg-type]
        server.stop()
        await server_task
        return bytes(written.text), said

    def work() -> None:
        text, said = asyncio.run(converse())
        types = [checked(line)["type"] for line in text.decode().splitlines()]
        assert (types[0], types[-1]) == ("session", "summary")
        assert types.count("error") <= 1
        assert not any("unexpected" in line for line in said)

    in_time(work)


# Growth


def parts(seed: int) -> Iterator[bytes]:
    """A minute and a half of noise and silence, in odd pieces."""
    generator = np.random.default_rng(seed)
    for number in range(36):
        loud = number % 8 < 3
        yield generator.bytes(80_001) if loud else bytes(79_999)


@pytest.mark.slow
def test_a_long_stream_of_garbage_grows_nothing(make: Callable[[], Recognizer]) -> None:
    stream = ClientStream(make(), "garbage")
    sizes = []
    tracemalloc.start()
    try:
        for part in parts(0):
            for event in stream.feed(part, 16_000, 0.0):
                checked_event(event)
            sizes.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    assert max(sizes[24:]) < max(sizes[8:16]) + 100_000
