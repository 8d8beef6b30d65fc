"""The recogniser: samples in, events out, with everything between them carried as state.

    samples -> InputFilter -> FeatureStream -> windows of features -> classifier -> head -> Decision -> events

Streaming is exact: the windows are those of the whole recording, and neither they nor the order of
the events depend on how the samples are divided into blocks. A window is the 32 features inside 3 s.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edge.arrays import Array
from edge.audio.downmix import AUTO, Channel
from edge.audio.waveform_adapter import WaveformAdapter, clean_samples
from edge.events import EngineChange, Event, Overrun, StreamWarning, Window
from edge.features.vad import SpeechDetector, VadConfig
from edge.inference.encoder_stream import FeatureStream
from edge.inference.engine import EngineLike
from edge.inference.provider import open_engine
from edge.inference.window_grid import feature_ms, step_in_features
from edge.model.bundle import Bundle, default_bundle, load_bundle
from edge.model.profile import Profile, load_profile, require_applicable
from edge.recognition.decision import DecisionRule
from edge.recognition.drift import LEAST_SPEECH, DriftWatch, WindowObserver, observe, spoken_level
from edge.recognition.stage_times import StageTimes
from edge.recognition.utterance import UtteranceTracker, by_emotion
from edge.recognition.window_buffer import WindowBuffer
from edge.recognition.window_classifier import ClassifiedWindow, WindowClassifier

MOST_AT_ONCE_S: Final = 10.0
"""Longer blocks are divided: the encoder's maps of an hour would not fit into memory."""

QUIETEST_DBFS: Final = -120.0
"""Level reported for digital silence; levels are never lower."""


@dataclass(frozen=True)
class Settings:
    """How the recogniser runs."""

    step_ms: int = 240
    """Time from one window to the next: a multiple of 80 with the bundle that ships."""
    speech_needed_s: float = 1.0
    """Speech that a full window needs for an emotion; a shorter window needs a third of its length."""
    channel: Channel = AUTO
    """Channel of a waveform, as in `edge.audio.downmix`: a number from 0, "mix" or "auto"."""
    rule: DecisionRule = field(default_factory=DecisionRule)
    gate: VadConfig = field(default_factory=VadConfig)


class Recognizer:
    """Recognises one stream of sound.

    Remembers the states of the input filter and of the feature stream; the features, levels, bands and
    speech flags of one window; the newest samples; and the current utterance. `flush` ends the stream:
    it emits the window that ends with the last feature, and the utterance under way. `reset` returns to
    the initial state exactly. `switch_profile` changes the speaker without a reload.
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
        self._utterance = UtteranceTracker(
            self.settings.rule, self.settings.gate, self.settings.step_ms / 1000.0
        )
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
        """Load a bundle from its folder (by default the one that ships) and a profile from its file."""
        loaded = load_bundle(Path(bundle) if bundle else default_bundle())
        speaker = load_profile(Path(profile), loaded) if profile else None
        return cls(loaded, profile=speaker, settings=settings, provider=provider)

    @property
    def feature_ms(self) -> int:
        """Time from one feature to the next: 80 with the bundle that ships."""
        return feature_ms(self.engine.graphs, self.front_end)

    @property
    def window_s(self) -> float:
        """Duration of a full window."""
        return self.front_end.window_ms / 1000.0

    @property
    def heard_s(self) -> float:
        """Stream time so far, including lost sound."""
        return (self._samples + self._skipped) / self.front_end.sample_rate

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
        self._utterance.reset()
        self._recent = WindowBuffer(
            self.engine.graphs,
            self.front_end,
            step_features=self.step_features,
            with_spectra=self._classifier.spectrum_size > 0,
        )
        self._newest = np.zeros(0, np.float32)
        self._samples = 0
        self._skipped = 0
        self._last_window = 0
        self._provider = self.engine.provider
        self._times.reset()
        if self.observer:
            self.observer.reset()

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
        heard = self._samples + self._skipped
        self._apply_profile(profile)
        self.reset()
        self._skipped = heard
        return events

    def _apply_profile(self, profile: Profile | None) -> None:
        """Use the head, level, statistics and reference of a speaker, or the bundle's."""
        self.profile = profile
        self._classifier = WindowClassifier(self.engine, profile.head if profile else self.bundle.head)
        levels = profile.levels if profile else self.bundle.manifest.levels
        statistics = profile.statistics if profile else self.bundle.statistics
        self._stream = FeatureStream(self.engine, self.front_end, levels, statistics, clock=self._times.clock)
        reference = profile.reference if profile else None
        step_s = self.settings.step_ms / 1000.0
        spectrum = self._classifier.spectrum_size
        watch = DriftWatch(reference, step_s, spectrum=spectrum) if reference else None
        self.observer = self._given_observer or watch

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
            speech = self._detector.feed(samples)
        self._recent.append(block, speech)
        changes = [first_frame + count for count in self._utterance.changes(speech)]
        events = self._in_order(changes, self._recent.take_due(), began)
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
        self._skipped += count - silence
        return [event, *events]

    def flush(self) -> list[Event]:
        """End the stream: emit the window that ends with its last feature, and the utterance."""
        held = self._adapter.flush()
        rest = self.feed(held) if len(held) else []
        began = self._times.clock()
        last = [self._recent.end] if self._recent.end > self._last_window else []
        events = [*rest, *self._in_order([], last, began), *self._utterance.flush(self.heard_s)]
        self._detector.end()
        return events + self._engine_news()

    def _engine_news(self) -> list[Event]:
        """Report once that the engine has changed its provider."""
        if self.engine.provider == self._provider:
            return []
        self._provider = self.engine.provider
        return [EngineChange(self.heard_s, self._provider, self.engine.reason)]

    def _in_order(self, changes: Sequence[int], ends: Sequence[int], began: float) -> list[Event]:
        """Turn windows, and the frames after which speech begins or ends, into events in order of time."""
        with self._times.measured("classifier"):
            windows = deque(self._classifier.classify(self._recent, ends))
        events: list[Event] = []
        for frame in changes:  # before a window that ends with the same frame
            while windows and self.engine.graphs.frames_in(windows[0].end) < frame:
                events += self._report(windows.popleft(), began, len(ends))
            events += self._begin_or_end(frame, began)
        for window in windows:
            events += self._report(window, began, len(ends))
        if ends:
            self._last_window = ends[-1]
        if ends or not self._last_window:  # do not charge the first window with all blocks before it
            self._times.reset()
        return events

    def _begin_or_end(self, frame: int, began: float) -> list[Event]:
        """Begin or end an utterance after a frame, given by its number from 1.

        One that ends before the first window is full is judged by a shorter window.
        """
        now = self._time(self.front_end.samples_in(frame))
        if not self._utterance.active:
            return self._utterance.begin(now)
        events: list[Event] = []
        end = self.engine.graphs.features_in(frame)
        if not self._utterance.judged and end > 0:
            windows = self._classifier.classify(self._recent, [end])
            events += [self._window(window, began, together=1) for window in windows]
            self._last_window = end
        return events + self._utterance.end(now)

    def _report(self, window: ClassifiedWindow, began: float, together: int) -> list[Event]:
        """Return a window's event, and a drift event that it causes."""
        event = self._window(window, began, together)
        return [event, *self._drift(window, event.end_s)]

    def _window(self, window: ClassifiedWindow, began: float, together: int) -> Window:
        """Decide on a window; the compute time so far is shared by the windows that came together."""
        started = self._times.clock()
        speech = self._is_speech(window.end)
        smoothed, label = self._utterance.decide(window.probs, speech=speech)
        first, last = self.engine.graphs.frames_of(window.end)
        step = self.settings.step_ms // self.front_end.hop_length_ms
        now = self._times.clock()
        return Window(
            start_s=self._time(first * self.front_end.hop_length),
            end_s=self._time(self.front_end.samples_in(last)),
            probs=by_emotion(window.probs),
            smoothed=by_emotion(smoothed),
            label=label,
            speech=speech,
            level_dbfs=_mean_dbfs(self._recent.dbfs(window.end)[-step:]),
            latency_ms=self._times.shared_ms(together) | {"decision": 1000.0 * (now - started)},
            lag_ms=1000.0 * (now - began),
        )

    def _is_speech(self, end: int) -> bool:
        """Return whether a window has enough speech for an emotion."""
        flags = self._recent.speech(end)
        hop_s = self.front_end.hop_length_ms / 1000.0
        needed = min(self.settings.speech_needed_s / hop_s, len(flags) / 3.0)
        return bool(np.count_nonzero(flags) >= needed)

    def _drift(self, window: ClassifiedWindow, time_s: float) -> list[Event]:
        """Show a window to the observer, if there is one, it is full and at least half is speech."""
        if self.observer is None or window.end < self.engine.graphs.window_features:
            return []
        flags = self._recent.speech(window.end)
        if np.count_nonzero(flags) < LEAST_SPEECH * len(flags):
            return []
        level_dbfs = spoken_level(self._recent.dbfs(window.end))
        drift = self.observer.feed(time_s, observe(level_dbfs, window.inputs, window.probs))
        return [drift] if drift else []

    def _time(self, samples: int) -> float:
        return (samples + self._skipped) / self.front_end.sample_rate


def _mean_dbfs(levels: Array) -> float:
    """Average (T,) levels as power."""
    power = math.fsum(10.0 ** (level / 10.0) for level in levels.tolist()) / len(levels)
    return max(QUIETEST_DBFS, 10.0 * math.log10(power))
