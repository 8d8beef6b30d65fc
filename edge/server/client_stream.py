"""One client's stream: raw bytes in, events out, with a recogniser of its own."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from edge.arrays import SAMPLE_RATE
from edge.audio.block import NO_SAMPLES, Block, InputWarning
from edge.audio.dead_input import DeadInput
from edge.audio.downmix import Downmix
from edge.audio.pcm_decoder import PcmDecoder
from edge.audio.resampler import AudioConverter
from edge.errors import ProfileError
from edge.events import Event, to_json
from edge.output.anonymous import anonymous_session, without_paths
from edge.recognition.stream_session import StreamSession

if TYPE_CHECKING:
    from edge.arrays import Array
    from edge.model.bundle import Bundle
    from edge.model.profile import Profile
    from edge.recognition.recognizer import Recognizer
    from edge.recognition.settings import Settings


class ClientStream:
    """One client's stream: bytes in, events out. Used by one thread at a time."""

    def __init__(self, recognizer: Recognizer, name: str) -> None:
        """Begin a stream. The recogniser's settings choose one of several channels."""
        self._recognizer = recognizer
        self._session = StreamSession(recognizer, name, live=True)
        self._decoder = PcmDecoder()
        self._converter: AudioConverter | None = None
        self._dead_input = DeadInput(name)
        self._requested_profile: str | None = None

    def begin(self) -> list[Event]:
        """Describe the session, without the names and paths of the server's own choice."""
        session = self._session.begin()
        tuned = "speaker" in self._recognizer.bundle.manifest.training
        unnamed = anonymous_session(session, speaker_bundle=tuned)
        return [replace(unnamed, source=session.source, profile=self._requested_profile or unnamed.profile)]

    def switch_profile(self, profile: Profile) -> list[Event]:
        """Go on with the profile that the client named: the last events without it, and the session again."""
        self._requested_profile = profile.name
        return [*self._recognizer.switch_profile(profile), *self.begin()]

    def set_channels(self, channels: int) -> None:
        """Expect sound of this many interleaved channels, before any has come."""
        self._decoder = PcmDecoder(channels=channels)

    def feed(self, data: bytes, rate: int, arrived_s: float) -> list[Event]:
        """Take raw sound.

        Args:
            data: any number of bytes.
            rate: Hz, the same each time.
            arrived_s: `time.perf_counter()` when it arrived.

        Raises:
            SourceError: the stream began as a file or a protocol does: decoded as samples it would be noise.
            UsageError: the sound does not have the channel that the settings ask for.
        """
        if self._converter is None:
            self._converter = AudioConverter(rate, Downmix(rate, self._recognizer.settings.channel))
        samples = self._converter.feed(self._decoder.feed(data), arrived_s)
        warning = self._decoder.take_warning() or self._converter.take_warning()
        return self._recognised(samples, self._converter.arrived_s, warning)

    def report_gap(self, lost_s: float, arrived_s: float) -> list[Event]:
        """Count sound that was dropped before it could be fed; it advances the stream as silence.

        Args:
            lost_s: its duration in seconds.
            arrived_s: `time.perf_counter()` when the sound after it arrived.
        """
        lost = Block(NO_SAMPLES, arrived_s, lost=round(lost_s * SAMPLE_RATE))
        return [without_paths(event) for event in self._session.feed(lost)]

    def finish(self) -> list[Event]:
        """End the stream: the last events, and the summary."""
        converter = self._converter
        events = self._recognised(converter.flush(), converter.arrived_s) if converter else []
        last, summary = self._session.finish()
        return [*events, *map(without_paths, last), summary]

    def _recognised(
        self, samples: Array, arrived_s: float, warning: InputWarning | None = None
    ) -> list[Event]:
        events = self._session.feed(Block(samples, arrived_s)) if len(samples) else []
        change = self._dead_input.feed(samples, arrived_s)
        if change or warning:
            events += self._session.feed(Block(NO_SAMPLES, arrived_s, device_change=change, warning=warning))
        return [without_paths(event) for event in events]


def shared_engines(
    bundle: Bundle,
    *,
    profile: Profile | None = None,
    settings: Settings | None = None,
    provider: str = "auto",
) -> Callable[[], Recognizer]:
    """Return a factory of recognisers that share one engine in each thread, or in all of them.

    TensorRT has one engine for all threads, which batches the windows of all streams that wait.

    Raises:
        UsageError, EngineError, ModelError: no recogniser can be made with these arguments; raised here, not
            by the factory.
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
    """Load what a client needs in this thread, and run all of it once on silence, with resampling.

    Raises:
        MmtlError: no recogniser can be made or run.
    """
    recognizer = make()
    rate, channel = 3 * SAMPLE_RATE, recognizer.settings.channel
    channels = channel + 1 if isinstance(channel, int) else 1
    stream = ClientStream(recognizer, "warm-up")
    stream.set_channels(channels)
    silence = bytes(channels * (2 * round(rate * recognizer.window_s) + rate))
    for event in [*stream.begin(), *stream.feed(silence, rate, time.perf_counter()), *stream.finish()]:
        to_json(event)


def kept_for_clients(bundle: Bundle) -> Callable[[str], Profile]:
    """Return a function that loads the profile that a client names: by its name only, never by a path.

    A client learns nothing about other profiles, nor why this one is refused.
    """
    from edge.model.profile import load_profile, profile_path

    def find(name: str) -> Profile:
        try:
            return load_profile(profile_path(name), bundle)
        except ProfileError as error:
            raise ProfileError(
                f"no profile {name[:80]!r} is available here",
                remedy="name another, or ask the operator of the server",
            ) from error

    return find
