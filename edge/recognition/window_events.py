"""Complete windows, and the beginnings and ends of speech, to events in order of time."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from typing import Final

import numpy as np

from edge.arrays import Array
from edge.events import Event, Window
from edge.features.frontend import FrontEnd
from edge.model.manifest import Graphs
from edge.recognition.drift import LEAST_SPEECH, WindowObserver, observe, spoken_level
from edge.recognition.latency import StageTimes
from edge.recognition.settings import Settings
from edge.recognition.utterance import UtteranceTracker, by_emotion
from edge.recognition.window_buffer import WindowBuffer
from edge.recognition.window_classifier import EmbeddedWindow, WindowClassifier

QUIETEST_DBFS: Final = -120.0
"""Level reported for digital silence; levels are never lower."""


class WindowEvents:
    """Classifies the windows of a stream and decides on them.

    Remembers the utterance under way, what the classifier and the observer remember, the end of the newest
    window and the samples that were skipped; `reset` forgets them.
    """

    def __init__(
        self,
        graphs: Graphs,
        front_end: FrontEnd,
        settings: Settings,
        classifier: WindowClassifier,
        observer: WindowObserver | None,
        times: StageTimes,
    ) -> None:
        self._graphs, self._front_end, self._settings = graphs, front_end, settings
        self._classifier, self._observer, self._times = classifier, observer, times
        self.utterance = UtteranceTracker(settings.rule, settings.gate, settings.step_ms / 1000.0)
        self.skipped = 0
        """Samples of the stream that were never seen: time goes on without them."""
        self.last_window = 0
        """The end of the newest window."""

    def reset(self) -> None:
        """Forget the stream."""
        self._classifier.reset()
        self.utterance.reset()
        self.skipped = 0
        self.last_window = 0
        if self._observer:
            self._observer.reset()

    def in_order(
        self, recent: WindowBuffer, changes: Sequence[int], ends: Sequence[int], began: float
    ) -> list[Event]:
        """Turn windows, and the frames after which speech begins or ends, into events in order of time.

        Args:
            recent: holds the windows.
            changes: frames after which speech begins or ends, by number from 1.
            ends: number of the feature after the last of each window.
            began: when the block arrived, seconds of the clock.
        """
        with self._times.measured("classifier"):
            windows = deque(self._classifier.embed(recent, ends))
        events: list[Event] = []
        for frame in changes:  # before a window that ends with the same frame
            while windows and self._graphs.frames_in(windows[0].end) < frame:
                events += self._report(recent, windows.popleft(), began, len(ends))
            events += self._begin_or_end(recent, frame, began)
        for window in windows:
            events += self._report(recent, window, began, len(ends))
        if ends:
            self.last_window = ends[-1]
        if ends or not self.last_window:  # do not charge the first window with all blocks before it
            self._times.reset()
        return events

    def time_s(self, samples: int) -> float:
        """Return the stream time after a number of samples that were seen."""
        return (samples + self.skipped) / self._front_end.sample_rate

    def _begin_or_end(self, recent: WindowBuffer, frame: int, began: float) -> list[Event]:
        """Begin or end an utterance after a frame, given by its number from 1.

        One that ends before the first window is full is judged by a shorter window.
        """
        now = self.time_s(self._front_end.samples_in(frame))
        if not self.utterance.active:
            return self.utterance.begin(now)
        events: list[Event] = []
        end = self._graphs.features_in(frame)
        if not self.utterance.judged and end > 0:
            windows = self._classifier.embed(recent, [end])
            events += [self._window(recent, window, began, together=1) for window in windows]
            self.last_window = end
        return events + self.utterance.end(now)

    def _report(
        self, recent: WindowBuffer, window: EmbeddedWindow, began: float, together: int
    ) -> list[Event]:
        """Return a window's event, and a drift event that it causes."""
        event = self._window(recent, window, began, together)
        return [event, *self._drift(recent, window, event)]

    def _window(self, recent: WindowBuffer, window: EmbeddedWindow, began: float, together: int) -> Window:
        """Decide on a window; the compute time so far is shared by the windows that came together."""
        started = self._times.clock()
        speech = recent.is_speech(window.end, self._settings.speech_needed_s)
        probs = self._classifier.probs(window, speech=speech)
        full = window.end >= self._graphs.window_features
        smoothed, label = self.utterance.decide(probs, speech=speech, full=full)
        first, last = self._graphs.frames_of(window.end)
        step = self._settings.step_ms // self._front_end.hop_length_ms
        now = self._times.clock()
        return Window(
            start_s=self.time_s(first * self._front_end.hop_length),
            end_s=self.time_s(self._front_end.samples_in(last)),
            probs=by_emotion(probs),
            smoothed=by_emotion(smoothed),
            label=label,
            speech=speech,
            level_dbfs=_mean_dbfs(recent.dbfs(window.end)[-step:]),
            latency_ms=self._times.shared_ms(together) | {"decision": 1000.0 * (now - started)},
            lag_ms=1000.0 * (now - began),
        )

    def _drift(self, recent: WindowBuffer, window: EmbeddedWindow, event: Window) -> list[Event]:
        """Show a window to the observer, if there is one, it is full and at least half is speech."""
        if self._observer is None or window.end < self._graphs.window_features:
            return []
        flags = recent.speech(window.end)
        if flags.sum() < LEAST_SPEECH * len(flags):
            return []
        level_dbfs = spoken_level(recent.dbfs(window.end))
        probs = np.array(list(event.probs.values()), np.float32)
        drift = self._observer.feed(event.end_s, observe(level_dbfs, window.inputs, probs))
        return [drift] if drift else []


def _mean_dbfs(levels: Array) -> float:
    """Average (T,) levels as power."""
    power = math.fsum(10.0 ** (level / 10.0) for level in levels.tolist()) / len(levels)
    return max(QUIETEST_DBFS, 10.0 * math.log10(power))
