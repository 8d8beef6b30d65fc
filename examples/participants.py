"""Recognise the participants of a conversation beside an asyncio program: used by the voice-agent examples.

    python examples/participants.py FILE [FILE ...]

Each file is a participant, and all speak at once. Prints their utterances.
"""

from __future__ import annotations

import asyncio
import functools
import sys
import time
from collections import deque
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from edge import Event, MmtlError, Recognizer, load_bundle
from edge.events import Utterance
from edge.model.bundle import find_bundle
from edge.server.client_session import checked_channels, checked_rate
from edge.server.client_stream import ClientStream, shared_engines, warm_up

MOST_WAITING_S = 10.0
"""Most sound of a participant that waits. The oldest is dropped, and is an `overrun` event."""


@dataclass(frozen=True)
class Piece:
    """Interleaved 16-bit samples (little-endian), as they arrived."""

    pcm: bytes
    rate: int
    channels: int
    arrived_s: float = field(default_factory=time.perf_counter)

    @property
    def duration_s(self) -> float:
        """Duration of the sound."""
        return len(self.pcm) / max(1, 2 * self.channels * self.rate)


class Participants:
    """One recogniser a participant. All are computed in one thread, and share the loaded model.

    The event loop only queues sound. Remembers the sound that waits, at most `MOST_WAITING_S` a participant.
    """

    def __init__(
        self,
        emit: Callable[[str, Event], Awaitable[None]],
        fail: Callable[[str, MmtlError], Awaitable[None]],
        make: Callable[[], Recognizer] | None = None,
    ) -> None:
        """Prepare; `open` loads the model.

        Args:
            emit: takes each event of a participant, in the event loop.
            fail: takes the error that ends the recognition of a participant.
            make: makes a recogniser, in the thread; by default one of the default model.
        """
        self.emit, self.fail = emit, fail
        self._make = make
        self._thread = ThreadPoolExecutor(1, "recogniser")
        self._streams: dict[str, _Stream] = {}

    async def open(self) -> None:
        """Load the model and run it once.

        Raises:
            MmtlError: it cannot be used.
        """
        await self.compute(lambda: warm_up(self.recognizer_maker()))

    def recognizer_maker(self) -> Callable[[], Recognizer]:
        """Return what makes recognisers; called in the thread."""
        if self._make is None:
            self._make = shared_engines(load_bundle(find_bundle(None)))
        return self._make

    async def compute(self, work: Callable[[], None]) -> None:
        """Run a function in the thread."""
        await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def hear(self, name: str, piece: Piece) -> None:
        """Queue sound of a participant; never waits."""
        if name not in self._streams:
            self._streams[name] = _Stream(name, self)
        self._streams[name].hear(piece)

    async def leave(self, name: str) -> None:
        """Recognise what is left of a participant, up to the summary, and forget them."""
        if stream := self._streams.pop(name, None):
            await stream.end()

    async def close(self) -> None:
        """Let all participants leave, and end the thread."""
        await asyncio.gather(*(self.leave(name) for name in list(self._streams)))
        self._thread.shutdown(wait=False)

    def abort(self) -> None:
        """End at once, without last events."""
        for stream in self._streams.values():
            stream.task.cancel()
        self._streams.clear()
        self._thread.shutdown(wait=False, cancel_futures=True)


class _Stream:
    """One participant's sound, and the task that has it recognised."""

    def __init__(self, name: str, all_of_them: Participants) -> None:
        self._name = name
        self._all = all_of_them
        self._waiting: deque[Piece] = deque()
        self._waiting_s = self._lost_s = 0.0
        self._changed = asyncio.Event()
        self._ending = self._failed = False
        self._recognised: ClientStream | None = None
        self._format = (0, 0)
        self.task = asyncio.create_task(self._run())

    def hear(self, piece: Piece) -> None:
        if self._failed:
            return
        self._waiting.append(piece)
        self._waiting_s += piece.duration_s
        while self._waiting_s > MOST_WAITING_S:
            dropped_s = self._waiting.popleft().duration_s
            self._waiting_s -= dropped_s
            self._lost_s += dropped_s
        self._changed.set()

    async def end(self) -> None:
        self._ending = True
        self._changed.set()
        await self.task

    async def _run(self) -> None:
        try:
            while self._waiting or not self._ending:
                await self._changed.wait()
                self._changed.clear()
                pieces, lost_s = list(self._waiting), self._lost_s
                self._waiting.clear()
                self._waiting_s = self._lost_s = 0.0
                await self._compute(functools.partial(self._recognise, pieces, lost_s))
            await self._compute(self._finish)
        except MmtlError as error:
            self._failed = True
            self._waiting.clear()
            await self._all.fail(self._name, error)

    async def _compute(self, work: Callable[[], list[Event]]) -> None:
        events: list[Event] = []
        try:
            await self._all.compute(lambda: events.extend(work()))
        finally:
            for event in events:
                await self._all.emit(self._name, event)

    def _recognise(self, pieces: list[Piece], lost_s: float) -> list[Event]:
        """Recognise the pieces, in the thread, before which sound was lost."""
        events: list[Event] = []
        for piece in pieces:
            if (piece.rate, piece.channels) != self._format:
                events += self._begin(piece)
            assert self._recognised
            if lost_s:
                events += self._recognised.report_gap(lost_s, piece.arrived_s)
                lost_s = 0.0
            events += self._recognised.feed(piece.pcm, piece.rate, piece.arrived_s)
        return events

    def _begin(self, piece: Piece) -> list[Event]:
        """Begin a stream; another rate is another stream."""
        checked_rate(piece.rate)
        checked_channels(piece.channels)
        events = self._finish()
        self._recognised = ClientStream(self._all.recognizer_maker()(), self._name)
        self._recognised.set_channels(piece.channels)
        self._format = (piece.rate, piece.channels)
        return [*events, *self._recognised.begin()]

    def _finish(self) -> list[Event]:
        return self._recognised.finish() if self._recognised else []


async def main(paths: list[str]) -> None:
    """Let each file speak, in real time."""
    import soundfile

    async def show(name: str, event: Event) -> None:
        if isinstance(event, Utterance):
            print(f"{name}  {event.start_s:.1f} to {event.end_s:.1f} s: {event.label}", flush=True)

    async def complain(name: str, error: MmtlError) -> None:
        print(f"{name}: {error}", file=sys.stderr)

    async def speak(path: str) -> None:
        samples, rate = soundfile.read(path, dtype="int16", always_2d=True)
        for start in range(0, len(samples), rate // 10):
            block = samples[start : start + rate // 10]
            participants.hear(Path(path).stem, Piece(block.tobytes(), rate, block.shape[1]))
            await asyncio.sleep(0.1)

    participants = Participants(show, complain)
    await participants.open()
    await asyncio.gather(*(speak(path) for path in paths))
    await participants.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
