"""The recogniser: samples in, events out, with everything between them carried as state.

    samples -> InputFilter -> FeatureStream -> WindowBuffer -> WindowEvents: network, head, Decision -> events

Streaming is exact: the windows are those of the whole recording, and neither they nor the order of
the events depend on how the samples are divided into blocks.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edge.arrays import Array
from edge.audio.waveform_adapter import WaveformAdapter, clean_samples
from edge.events import EngineChange, Event, Overrun, StreamWarning
from edge.features.vad import SpeechDetector
from edge.inference.encoder_stream import FeatureStream
from edge.inference.engine import EngineLike
from edge.inference.provider import open_engine
from edge.inference.window_grid import feature_ms, step_in_features
from edge.model.bundle import Bundle, find_bundle, load_bundle
from edge.model.profile import Profile, load_profile, require_applicable
from edge.recognition.drift import DriftWatch, WindowObserver
from edge.recognition.latency import StageTimes
from edge.recognition.settings import Settings
from edge.recognition.window_buffer import WindowBuffer
from edge.recognition.window_classifier import WindowClassifier
from edge.recognition.window_events import QUIETEST_DBFS, WindowEvents

MOST_AT_ONCE_S: Final = 10.0
"""Longer blocks are divided: the encoder's maps of an hour would not fit into memory."""


class Recognizer:
    """Recognises one stream of sound.

    Remembers the states of the input filter and of the feature stream; the features, levels, bands and
    speech flags of one window; the newest samples; the current utterance and the speaker's baseline.
    `flush` ends the stream: it emits the window that ends with the last feature, and the utterance under
    way. `reset` returns to the initial state exactly. `switch_profile` changes the speaker without a
    reload.
    """

    observer: WindowObserver | None
    """Sees full windows of speech: the one given, else a `DriftWatch` where the profile has a reference."""

    def __init__(
        self,
        bundle: Bundle,
        *,
        profile: Profile | None = None,
        settings: Settings | None = None,
        provider: str = "auto",
        engine: EngineLike | None = None,
        observer: WindowObserver | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Prepare a stream.

        Args:
            bundle: the model.
            profile: a speaker's own head, level and statistics.
            settings: how to run.
            provider: where the graphs run: "auto", "cpu", "cuda" or "tensorrt".
            engine: the loaded graphs of this bundle, which several streams may share; the caller closes it.
                If None, one is loaded, and closed at the latest when the program ends.
            observer: sees full windows of speech instead of the profile's `DriftWatch`.
            clock: seconds, for the compute times of events; `time.process_time` counts CPU time.

        Raises:
            UsageError: the step is not a multiple of `feature_ms`, or the provider is unknown.
            EngineError: the provider is not available here.
            ModelError: the bundle's graphs, or the profile with this bundle, cannot be used.
        """
        if profile:
            require_applicable(profile, bundle)
        self.bundle = bundle
        self.settings = settings or Settings()
        self._times = StageTimes(clock)
        self.engine = engine or open_engine(bundle, provider)
        self.front_end = bundle.manifest.front_end
        self.step_features = step_in_features(self.settings.step_ms, self.engine.graphs, self.front_end)
        self._detector = SpeechDetector(self.settings.gate, self.front_end)
        self._filter = self.front_end.input_filter()
        self._adapter = WaveformAdapter(self.settings.channel)
        self._given_observer = observer
        self._apply_profile(profile)
        self.reset()

    @classmethod
    def load(
        cls,
        bundle: str | Path | None = None,
        *,
        profile: str | Path | None = None,
        settings: Settings | None = None,
        provider: str = "auto",
    ) -> Recognizer:
        """Load a bundle that ships, by its name, or one from its folder, and a profile from its file."""
        loaded = load_bundle(find_bundle(bundle))
        speaker = load_profile(Path(profile), loaded) if profile else None
        return cls(loaded, profile=speaker, settings=settings, provider=provider)

    @property
    def feature_ms(self) -> int:
        """Time from one feature to the next: 80 with the bundles that ship."""
        return feature_ms(self.engine.graphs, self.front_end)

    @property
    def window_s(self) -> float:
        """Duration of a full window."""
        return self.front_end.window_ms / 1000.0

    @property
    def heard_s(self) -> float:
        """Stream time so far, including lost sound."""
        return self._events.time_s(self._samples)

    @property
    def level_dbfs(self) -> float:
        """Root mean square of the newest block after the input filter; 0 dB is full scale."""
        power = float(np.mean(np.square(self._newest, dtype=np.float64))) if len(self._newest) else 0.0
        return max(QUIETEST_DBFS, 10.0 * math.log10(power)) if power > 0 else QUIETEST_DBFS

    def reset(self) -> None:
        """Forget the stream."""
        self._filter.reset()
        self._adapter.reset()
        self._stream.reset()
        self._detector.reset()
        self._events.reset()
        self._recent = WindowBuffer(
            self.engine.graphs,
            self.front_end,
            step_features=self.step_features,
            with_spectra=self._with_spectra,
        )
        self._newest = np.zeros(0, np.float32)
        self._samples = 0
        self._provider = self.engine.provider
        self._times.reset()

    def warm_up(self) -> None:
        """Run all graphs once, on a window of silence, and reset, so that the first block does not wait."""
        self.feed(np.zeros(self.front_end.samples_in(self.front_end.window_frames), np.float32))
        self.reset()

    def switch_profile(self, profile: Profile | None) -> list[Event]:
        """Flush the stream and begin a new one with another speaker's profile, or with none.

        Only the time goes on: the events are those of a new recogniser with that profile. The engine stays.

        Args:
            profile: of this bundle; None for the generic model.

        Returns:
            The last events of the stream so far.

        Raises:
            ProfileError: the profile is of another bundle or was rejected; the stream goes on as it was.
        """
        if profile:
            require_applicable(profile, self.bundle)
        events = self.flush()
        heard = self._samples + self._events.skipped
        self._apply_profile(profile)
        self.reset()
        self._events.skipped = heard
        return events

    def _apply_profile(self, profile: Profile | None) -> None:
        """Use the head, level, statistics and reference of a speaker, or the bundle's."""
        self.profile = profile
        manifest, head = self.bundle.manifest, profile.head if profile else self.bundle.head
        classifier = WindowClassifier(self.engine, head, manifest.baseline, step_features=self.step_features)
        levels = profile.levels if profile else manifest.levels
        statistics = profile.statistics if profile else self.bundle.statistics
        self._stream = FeatureStream(self.engine, self.front_end, levels, statistics, clock=self._times.clock)
        reference = profile.reference if profile else None
        step_s = self.settings.step_ms / 1000.0
        self._with_spectra = classifier.spectrum_size > 0
        watch = DriftWatch(reference, step_s, spectrum=classifier.spectrum_size) if reference else None
        self.observer = self._given_observer or watch
        self._events = WindowEvents(
            self.engine.graphs, self.front_end, self.settings, classifier, self.observer, self._times
        )

    def __enter__(self) -> Recognizer:
        """Begin a stream; leaving the context forgets it."""
        self.reset()
        return self

    def __exit__(self, *exc: object) -> None:
        """Forget the stream."""
        self.reset()

    def accept_waveform(self, sample_rate: int, waveform: NDArray[Any]) -> list[Event]:
        """Take sound of any rate, in blocks of any size, and return the events it completes.

        Args:
            sample_rate: Hz, the same for the whole stream, 4000 to 192000.
            waveform: (N,) mono or (N, channels), floats in [-1, 1] or signed integers of 8 to 32 bits.

        Raises:
            UsageError: the rate is out of range or has changed since the stream began; or the waveform has
                another shape or type, or lacks the channel that the settings ask for.
        """
        events = self.feed(self._adapter.feed(sample_rate, waveform))
        if warning := self._adapter.take_warning():
            events.append(StreamWarning(self.heard_s, warning.what, warning.message))
        return events

    def feed(self, samples: Array) -> list[Event]:
        """Take samples and return the events they complete.

        Args:
            samples: (N,) floats in [-1, 1], mono at 16 kHz; N may be 0. Values beyond are clipped, and
                values that are not finite count as 0, as in the sources.

        Raises:
            UsageError: the array has another shape, or does not hold floats.
        """
        clean, most = clean_samples(samples), round(MOST_AT_ONCE_S * self.front_end.sample_rate)
        self._newest = np.zeros(0, np.float32)
        pieces = [clean[start : start + most] for start in range(0, len(clean), most)]
        return [event for piece in pieces for event in self._feed(piece)]

    def _feed(self, samples: Array) -> list[Event]:
        began = self._times.clock()
        with self._times.measured("front_end"):
            self._newest = self._filter.feed(samples)
        return self._feed_filtered(self._newest, began)

    def _feed_filtered(self, samples: Array, began: float) -> list[Event]:
        block = self._stream.feed(samples)
        self._samples += len(samples)
        self._times.add("front_end", block.front_end_s)
        self._times.add("encoder", block.encoder_s)
        first_frame = self._recent.frames
        with self._times.measured("speech"):
            flags = self._detector.feed(samples)
        self._recent.append(block, flags)
        changes = [first_frame + count for count in self._events.utterance.changes(flags.speech)]
        events = self._events.in_order(self._recent, changes, self._recent.take_due(), began)
        self._recent.forget()
        return events + self._engine_news()

    def report_gap(self, count: int) -> list[Event]:
        """Note that samples were lost: time goes on, and they count as silence.

        The silence does not pass the input filter, which starts again after it: next to an offset, zeros
        would be a step. Two windows of silence are computed; whatever is lost beyond only advances the time.

        Args:
            count: samples at 16 kHz, >= 0.
        """
        event = Overrun(start_s=self.heard_s, lost_s=count / self.front_end.sample_rate)
        silence = min(count, 2 * self.front_end.samples_in(self.front_end.window_frames))
        self._filter.reset()
        events = self._feed_filtered(np.zeros(silence, np.float32), self._times.clock())
        self._events.skipped += count - silence
        return [event, *events]

    def flush(self) -> list[Event]:
        """End the stream: emit the window that ends with its last feature, and the utterance."""
        held = self._adapter.flush()
        rest = self.feed(held) if len(held) else []
        began = self._times.clock()
        last = [self._recent.end] if self._recent.end > self._events.last_window else []
        windows = self._events.in_order(self._recent, [], last, began)
        events = [*rest, *windows, *self._events.utterance.flush(self.heard_s)]
        self._detector.end()
        return events + self._engine_news()

    def _engine_news(self) -> list[Event]:
        """Report once that the engine has changed its provider."""
        if self.engine.provider == self._provider:
            return []
        self._provider = self.engine.provider
        return [EngineChange(self.heard_s, self._provider, self.engine.reason)]
