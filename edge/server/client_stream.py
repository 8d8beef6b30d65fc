"""One client's stream: raw bytes in, events out, with a recogniser of its own."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from edge.arrays import SAMPLE_RATE
from edge.audio.dead_input import DeadInput
from edge.audio.downmix import Downmix
from edge.audio.ingest import AudioConverter
from edge.audio.pcm_decoder import PcmDecoder
from edge.errors import ProfileError
from edge.events import Device, EngineChange, Event, StreamWarning, to_json
from edge.output.anonymous import anonymous, anonymous_session
from edge.recognition.lag import LagMeter
from edge.recognition.pipeline import StreamStatistics, last_events, session_of, with_queue

if TYPE_CHECKING:
    from edge.arrays import Array
    from edge.model.bundle import Bundle
    from edge.model.profile import Profile
    from edge.recognition.recognizer import Recognizer, Settings


class ClientStream:
    """One client's stream: bytes in, events out. Used by one thread at a time."""

    def __init__(self, recognizer: Recognizer, name: str) -> None:
        """Begin a stream. The recogniser's settings say which of several channels is heard."""
        self._recognizer = recognizer
        self._name = name
        self._raw = PcmDecoder()
        self._intake: AudioConverter | None = None
        self._ledger = StreamStatistics()
        self._meter = LagMeter(live=True)
        self._dead_input = DeadInput(name)
        self._asked_for: str | None = None

    def begin(self) -> list[Event]:
        """Describe the session. Of the server's own choice it says nothing that names people or paths."""
        session = session_of(self._name, self._recognizer)
        tuned = "speaker" in self._recognizer.bundle.manifest.training
        unnamed = anonymous_session(session, speaker_bundle=tuned)
        return [replace(unnamed, source=session.source, profile=self._asked_for or unnamed.profile)]

    def use(self, profile: Profile) -> list[Event]:
        """Go on with the profile that the client named: the last events without it, and the session again."""
        self._asked_for = profile.name
        return [*self._recognizer.switch_profile(profile), *self.begin()]

    def interleave(self, channels: int) -> None:
        """Expect sound of so many channels, before any has come."""
        self._raw = PcmDecoder(channels=channels)

    def hear(self, data: bytes, rate: int, arrived_s: float) -> list[Event]:
        """Take raw sound.

        Args:
            data: any number of bytes.
            rate: Hz, the same each time.
            arrived_s: `time.perf_counter()` when it arrived.

        Raises:
            SourceError: the stream began as a file or a protocol does, which would be heard as noise.
            UsageError: the sound does not have the channel that the settings ask for.
        """
        if self._intake is None:
            self._intake = AudioConverter(rate, Downmix(rate, self._recognizer.settings.channel))
        samples = self._intake.feed(self._raw.feed(data), arrived_s)
        events = self._hear(samples, self._intake.arrived_s)
        if caution := self._raw.take_caution() or self._intake.take_caution():
            self._ledger.warned(caution)
            events.append(StreamWarning(self._recognizer.heard_s, caution.what, caution.message))
        return events

    def finish(self) -> list[Event]:
        """End the stream: the tail, and the summary."""
        events = self._hear(self._intake.flush(), self._intake.arrived_s) if self._intake else []
        last, summary = last_events(self._recognizer, self._ledger, self._meter)
        return [*events, *last, summary]

    def _hear(self, samples: Array, arrived_s: float) -> list[Event]:
        if not len(samples):
            return []
        began = time.perf_counter()
        self._meter.arrived(arrived_s, self._recognizer.heard_s)
        fed = [_without_paths(event) for event in self._recognizer.feed(samples)]
        compute_s = time.perf_counter() - began
        events = self._meter.stamped([with_queue(event, 1000.0 * (began - arrived_s)) for event in fed])
        self._ledger.spent(compute_s, events)
        if news := self._dead_input.feed(samples, arrived_s):
            events.append(Device(self._recognizer.heard_s, news.name, news.state, news.reason))
        return events


def _without_paths(event: Event) -> Event:
    """Leave out of the news of a lost engine where this machine keeps its files."""
    return anonymous(event) if isinstance(event, EngineChange) else event


def shared_engines(
    bundle: Bundle,
    *,
    profile: Profile | None = None,
    settings: Settings | None = None,
    provider: str = "auto",
) -> Callable[[], Recognizer]:
    """Return what makes recognisers that share one engine in each thread, or in all of them.

    TensorRT has one for all: it runs the windows of all streams that wait at a time together.

    Raises:
        UsageError, EngineError, ModelError: no recogniser can be had like this; now, not later.
    """
    from edge.inference.window_engine import WindowwiseEngine
    from edge.recognition.recognizer import Recognizer

    here = threading.local()
    everywhere: list[WindowwiseEngine] = []

    def make() -> Recognizer:
        engine = everywhere[0] if everywhere else getattr(here, "engine", None)
        made = Recognizer(bundle, profile=profile, settings=settings, provider=provider, engine=engine)
        here.engine = made.engine
        return made

    first = make().engine
    if isinstance(first, WindowwiseEngine):
        everywhere.append(first)
    return make


def warm_up(make: Callable[[], Recognizer]) -> None:
    """Load what a client needs in this thread, and run all of it once on silence, resampling included.

    Raises:
        MmtlError: no recogniser can be made or run.
    """
    recognizer = make()
    rate, channel = 3 * SAMPLE_RATE, recognizer.settings.channel
    channels = channel + 1 if isinstance(channel, int) else 1
    ear = ClientStream(recognizer, "warm-up")
    ear.interleave(channels)
    silence = bytes(channels * (2 * round(rate * recognizer.window_s) + rate))
    for event in [*ear.begin(), *ear.hear(silence, rate, time.perf_counter()), *ear.finish()]:
        to_json(event)


def kept_for_clients(bundle: Bundle) -> Callable[[str], Profile]:
    """Return what finds the profile that a client names: by its name only, never by a path.

    A client learns nothing of other profiles, nor why it cannot have this one.
    """
    from edge.model.profile import load_profile, profile_path

    def find(name: str) -> Profile:
        try:
            return load_profile(profile_path(name), bundle)
        except ProfileError as error:
            raise ProfileError(
                f"there is no profile {name[:80]!r} to be had here: ask whoever runs the server"
            ) from error

    return find
