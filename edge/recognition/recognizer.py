"""The recogniser: samples in, events out, with everything between them carried as state.

    samples -> InputFilter -> FeatureStream -> windows of features -> classifier -> head -> Decision -> events

Streaming is exact: the windows are those of the whole recording, and neither they nor the order of
the events depend on how the samples are divided into blocks. A window is the 32 features inside 3 s.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edge.arrays import Array
from edge.audio.downmix import AUTO, MOST_CHANNELS, Channel, Downmix
from edge.audio.ingest import HIGHEST_RATE, LOWEST_RATE, AudioConverter
from edge.errors import UsageError
from edge.events import EngineChange, Event, Overrun, Speech, StreamWarning, Utterance, Window
from edge.features.long_term_spectrum import BANDS, band_powers, long_term_spectrum
from edge.features.normaliser import DECIBEL
from edge.features.vad import SpeechDetector, VadConfig
from edge.inference.encoder_stream import FeatureStream
from edge.inference.engine import EngineLike
from edge.inference.provider import open_engine
from edge.labels import EMOTIONS, UNSURE
from edge.model.bundle import Bundle, default_bundle, load_bundle
from edge.model.profile import Profile, load_profile, require_applicable
from edge.recognition.decision import Decision, DecisionRule
from edge.recognition.drift import LEAST_SPEECH, DriftWatch, Watch, figures, spoken_level
from edge.stream_buffer import StreamBuffer

STAGES: Final = ("front_end", "encoder", "speech", "classifier", "decision")

MOST_AT_ONCE_S: Final = 10.0
"""Longer blocks are taken in pieces: the encoder's maps of an hour would not fit into memory."""

QUIETEST_DBFS: Final = -120.0
"""What digital silence is reported as."""


@dataclass(frozen=True)
class Settings:
    """How the recogniser runs."""

    step_ms: int = 240
    """From one window to the next: a multiple of 80."""
    speech_needed_s: float = 1.0
    """Speech that a window needs before an emotion is claimed; a third of a shorter window."""
    channel: Channel = AUTO
    """Which channel of a waveform to hear, as in `edge.audio.downmix`: a number from 0, "mix" or "auto"."""
    rule: DecisionRule = field(default_factory=DecisionRule)
    gate: VadConfig = field(default_factory=VadConfig)


class Recognizer:
    """Recognises one stream of sound.

    Remembers the states of the input filter and of the feature stream; the features, levels, bands and
    speech flags of one window; the newest samples; and the current utterance. `flush` ends the stream:
    it emits the window that ends with the last feature, and the utterance under way. `reset` returns to
    the initial state exactly. `use` changes the speaker, and costs no reload.
    """

    watch: Watch | None
    """What full windows of speech are shown to: a `DriftWatch` where the profile has a reference."""

    def __init__(
        self,
        bundle: Bundle,
        *,
        profile: Profile | None = None,
        settings: Settings | None = None,
        provider: str = "auto",
        engine: EngineLike | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Prepare a stream.

        Args:
            bundle: the model.
            profile: a speaker's own head, level and statistics.
            settings: how to run.
            provider: where the graphs run: "auto", "cpu", "cuda" or "tensorrt".
            engine: the graphs of this bundle, loaded already: streams that take turns can share one. Who
                loaded it closes it; one that is loaded here is closed at the latest when the program ends.
            clock: seconds, for the compute times of events; `time.process_time` counts CPU time.

        Raises:
            UsageError: the step is not a multiple of 80 ms, or there is no such provider.
            EngineError: the provider is not to be had here.
            ModelError: the bundle's graphs, or the profile with this bundle, cannot be used.
        """
        if profile:
            require_applicable(profile, bundle)
        self.bundle = bundle
        self.settings = settings or Settings()
        self._clock = clock
        self.engine = engine or open_engine(bundle, provider)
        self.front_end = bundle.manifest.front_end
        self.step_features = _step_features(self.settings.step_ms, self.feature_ms)
        self._detector = SpeechDetector(
            self.settings.gate,
            frame_length=self.front_end.win_length,
            hop_length=self.front_end.hop_length,
        )
        self._decision = Decision(self.settings.rule, self.settings.step_ms / 1000.0)
        self._filter = self.front_end.input_filter()
        self._speak_as(profile)
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
        """Load a bundle's folder (the one that ships, if None) and a profile's file."""
        loaded = load_bundle(Path(bundle) if bundle else default_bundle())
        speaker = load_profile(Path(profile), loaded) if profile else None
        return cls(loaded, profile=speaker, settings=settings, provider=provider)

    @property
    def feature_ms(self) -> int:
        """Time from one feature to the next: 80."""
        return self.engine.graphs.frames_per_feature * self.front_end.hop_length_ms

    @property
    def window_s(self) -> float:
        """Sound that a full window covers."""
        return self.front_end.window_ms / 1000.0

    @property
    def heard_s(self) -> float:
        """Time of the stream so far, lost sound included."""
        return (self._samples + self._skipped) / self.front_end.sample_rate

    @property
    def level_dbfs(self) -> float:
        """Root mean square of the newest sound fed, as the input filter leaves it."""
        power = float(np.mean(np.square(self._newest, dtype=np.float64))) if len(self._newest) else 0.0
        return max(QUIETEST_DBFS, 10.0 * math.log10(power)) if power > 0 else QUIETEST_DBFS

    def reset(self) -> None:
        """Forget the stream."""
        self._filter.reset()
        self._newest = np.zeros(0, np.float32)
        self._stream.reset()
        self._detector.reset()
        self._decision.reset()
        self._features = StreamBuffer(np.zeros((0, self.engine.graphs.feature_size), np.float32))
        self._dbfs = StreamBuffer(np.zeros(0, np.float32))
        self._bands = StreamBuffer(np.zeros((0, BANDS), np.float32))
        self._speech = StreamBuffer(np.zeros(0, bool))
        self._samples = 0
        self._skipped = 0
        self._windows_due = 0
        self._last_window = 0
        self._utterance_from: float | None = None
        self._provider = self.engine.provider
        self._spent = dict.fromkeys(STAGES, 0.0)
        self._intake: AudioConverter | None = None
        if self.watch:
            self.watch.reset()

    def warm_up(self) -> None:
        """Run all graphs once, on a window of silence, and reset: the first sound then does not wait."""
        self.feed(np.zeros(self.front_end.samples_in(self.front_end.window_frames), np.float32))
        self.reset()

    def use(self, profile: Profile | None) -> list[Event]:
        """Go on with another speaker, or with none: another person is another stream.

        The stream is flushed, and a new one begins in which only time goes on: what is fed from now on
        gives what a new recogniser with that profile would say. The engine stays.

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
        self._speak_as(profile)
        self.reset()
        self._skipped = heard
        return events

    def _speak_as(self, profile: Profile | None) -> None:
        """Take the head, the level, the statistics and the reference of a speaker, or the bundle's."""
        self.profile = profile
        self._head = profile.head if profile else self.bundle.head
        self._spectrum_size = self._head.input_size - self.engine.graphs.embedding_size
        levels = profile.levels if profile else self.bundle.manifest.levels
        statistics = profile.statistics if profile else self.bundle.statistics
        self._stream = FeatureStream(self.engine, self.front_end, levels, statistics, clock=self._clock)
        reference = profile.reference if profile else None
        step_s = self.settings.step_ms / 1000.0
        self.watch = DriftWatch(reference, step_s, spectrum=self._spectrum_size) if reference else None

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
            UsageError: the rate is not to be had, or is not the one the stream began with; or the
                waveform is of another shape or type, or has no such channel as the settings ask for.
        """
        if not LOWEST_RATE <= sample_rate <= HIGHEST_RATE:
            raise UsageError(f"{sample_rate:g} Hz arrived, expected {LOWEST_RATE} to {HIGHEST_RATE} Hz")
        if self._intake is None:
            self._intake = AudioConverter(sample_rate, Downmix(sample_rate, self.settings.channel))
        if self._intake.rate != sample_rate:
            raise UsageError(
                f"the stream began at {self._intake.rate:g} Hz and goes on at {sample_rate:g} Hz: "
                "flush and reset before another rate"
            )
        events = self.feed(self._intake.feed(_as_floats(waveform)))
        if caution := self._intake.take_caution():
            events.append(StreamWarning(self.heard_s, caution.what, caution.message))
        return events

    def feed(self, samples: Array) -> list[Event]:
        """Take samples and return the events they complete.

        Args:
            samples: (N,) floats in [-1, 1], mono at 16 kHz; N may be 0. What is beyond is cut off,
                and what is not finite is heard as silence, as the sources do.

        Raises:
            UsageError: these are not mono samples, or are integers.
        """
        clean, most = _clean(samples), round(MOST_AT_ONCE_S * self.front_end.sample_rate)
        self._newest = np.zeros(0, np.float32)
        pieces = [clean[start : start + most] for start in range(0, len(clean), most)]
        return [event for piece in pieces for event in self._feed(piece)]

    def _feed(self, samples: Array) -> list[Event]:
        began = self._clock()
        self._newest = self._filter.feed(samples)
        self._spent["front_end"] += self._clock() - began
        return self._feed_filtered(self._newest, began)

    def _feed_filtered(self, samples: Array, began: float) -> list[Event]:
        progress = self._stream.feed(samples)
        self._samples += len(samples)
        self._spent["front_end"] += progress.front_end_s
        self._spent["encoder"] += progress.encoder_s
        first_frame = self._speech.end
        self._features.append(progress.features)
        self._dbfs.append(self._in_dbfs(progress.levels))
        if self._spectrum_size:
            self._bands.append(band_powers(progress.power, self.front_end))
        began_speech = self._clock()
        self._speech.append(self._detector.feed(samples))
        self._spent["speech"] += self._clock() - began_speech
        events = self._in_order(first_frame, self._due_windows(), began)
        self._forget()
        return events + self._engine_news()

    def lose(self, count: int) -> list[Event]:
        """Note that so many samples were lost: time goes on, and they are heard as silence.

        The silence does not pass the input filter, which starts again after it: next to an offset, zeros
        would be a step. Two windows of silence are computed; whatever is lost beyond only advances the time.

        Args:
            count: samples at 16 kHz, >= 0.
        """
        event = Overrun(start_s=self.heard_s, lost_s=count / self.front_end.sample_rate)
        silence = min(count, 2 * self.front_end.samples_in(self.front_end.window_frames))
        self._filter.reset()
        events = self._feed_filtered(np.zeros(silence, np.float32), self._clock())
        self._skipped += count - silence
        return [event, *events]

    def flush(self) -> list[Event]:
        """End the stream: emit the window that ends with its last feature, and the utterance."""
        rest = self.feed(self._intake.flush()) if self._intake else []
        self._intake = None
        began = self._clock()
        last = [self._features.end] if self._features.end > self._last_window else []
        events = [*rest, *self._in_order(self._speech.end, last, began)]
        if self._utterance_from is not None:
            events += self._end_utterance(self.heard_s, self.heard_s)
        self._detector.end()
        return events + self._engine_news()

    def _engine_news(self) -> list[Event]:
        """Say once that the engine went on with another provider."""
        if self.engine.provider == self._provider:
            return []
        self._provider = self.engine.provider
        return [EngineChange(self.heard_s, self._provider, self.engine.reason)]

    def _due_windows(self) -> list[int]:
        """List the windows that are complete, each by the number of the feature after its last."""
        full, step = self.engine.graphs.window_features, self.step_features
        due = []
        while full + self._windows_due * step <= self._features.end:
            due.append(full + self._windows_due * step)
            self._windows_due += 1
        return due

    def _in_order(self, first_frame: int, windows: list[int], began: float) -> list[Event]:
        """Turn windows, and changes of the speech flag since a frame, into events in order of time."""
        started = self._clock()
        inputs, probs = self._judged(windows)
        self._spent["classifier"] += self._clock() - started
        happenings = [(frame, False, 0) for frame in self._changes(first_frame)]
        graphs = self.engine.graphs
        happenings += [(graphs.frames_in(end), True, index) for index, end in enumerate(windows)]
        events: list[Event] = []
        for frame, is_window, index in sorted(happenings):
            if is_window:
                window = self._window(windows[index], probs[index], began, len(windows))
                events += [
                    window,
                    *self._drift(windows[index], window.end_s, inputs[index], probs[index]),
                ]
            else:
                events += self._turn(frame, began)
        if windows:
            self._last_window = windows[-1]
        if windows or not self._last_window:  # the first window costs its last block, not all before
            self._spent = dict.fromkeys(STAGES, 0.0)
        return events

    def _judged(self, windows: list[int]) -> tuple[Array, Array]:
        """Classify windows of one length: what the head reads of them, (n, X), and their (n, C) probs."""
        full = self.engine.graphs.window_features
        if not windows:
            return np.zeros((0, self._head.input_size), np.float32), np.zeros((0, len(EMOTIONS)), np.float32)
        spans = [self._features[max(0, end - full) : end] for end in windows]
        batch = spans[0][None] if len(spans) == 1 else np.stack(spans)
        inputs = self._with_spectra(self.engine.classify(batch), windows)
        return inputs, self._head.probs(inputs)

    def _with_spectra(self, embeddings: Array, windows: list[int]) -> Array:
        """Put the spectra of windows behind their (n, D) embeddings, where the head reads them."""
        if not self._spectrum_size:
            return embeddings
        frames = [slice(*self.engine.graphs.frames_of(end)) for end in windows]
        spectra = [long_term_spectrum(self._bands[span], self._dbfs[span]) for span in frames]
        return np.concatenate([embeddings, np.stack(spectra)], axis=1)

    def _changes(self, first_frame: int) -> Iterator[int]:
        """Yield the number of frames after which speech has just begun or ended."""
        flags = self._speech[first_frame : self._speech.end]
        before = self._utterance_from is not None
        for offset, flag in enumerate(flags.tolist()):
            if flag != before:
                yield first_frame + offset + 1
            before = flag

    def _turn(self, frame: int, began: float) -> list[Event]:
        """Begin or end an utterance after so many frames.

        One that ends before the first window is full is judged by a window of what there is.
        """
        now = self._time(self.front_end.samples_in(frame))
        if self._utterance_from is None:
            self._utterance_from = max(0.0, now - self.settings.gate.memory_ms / 1000.0)
            self._decision.reset()
            return [Speech(time_s=now, active=True)]
        events: list[Event] = []
        end = self.engine.graphs.features_in(frame)
        if not self._decision.windows and end > 0:
            events.append(self._window(end, self._judged([end])[1][0], began, together=1))
            self._last_window = end
        return events + self._end_utterance(now, now - self.settings.gate.leave_ms / 1000.0)

    def _end_utterance(self, now: float, end: float) -> list[Event]:
        events: list[Event] = [Speech(time_s=now, active=False)]
        if self._decision.windows and self._utterance_from is not None:
            average, label = self._decision.average()
            events.append(
                Utterance(
                    start_s=self._utterance_from,
                    end_s=max(end, self._utterance_from),
                    probs=by_emotion(average),
                    label=label,
                    windows=self._decision.windows,
                )
            )
        self._utterance_from = None
        return events

    def _window(self, end: int, probs: Array, began: float, together: int) -> Window:
        """Decide on a window; the compute time so far is shared by the windows that came together."""
        started = self._clock()
        first, last = self.engine.graphs.frames_of(end)
        flags = self._speech[first:last]
        hop_s = self.front_end.hop_length_ms / 1000.0
        needed = min(self.settings.speech_needed_s / hop_s, len(flags) / 3.0)
        speech = bool(np.count_nonzero(flags) >= needed)
        label = self._decision.update(probs) if speech else UNSURE
        smoothed = self._decision.smoothed if speech and self._decision.smoothed is not None else probs
        step = self.settings.step_ms // self.front_end.hop_length_ms
        now = self._clock()
        spent = {stage: 1000.0 * spent_s / together for stage, spent_s in self._spent.items()}
        spent["decision"] = 1000.0 * (now - started)
        return Window(
            start_s=self._time(first * self.front_end.hop_length),
            end_s=self._time(self.front_end.samples_in(last)),
            probs=by_emotion(probs),
            smoothed=by_emotion(smoothed),
            label=label,
            speech=speech,
            level_dbfs=_mean_dbfs(self._dbfs[max(first, last - step) : last]),
            latency_ms=spent,
            lag_ms=1000.0 * (now - began),
        )

    def _drift(self, end: int, time_s: float, inputs: Array, probs: Array) -> list[Event]:
        """Show a window to the watch, if there is one, where it is full and enough of it is speech."""
        if self.watch is None or end < self.engine.graphs.window_features:
            return []
        first, last = self.engine.graphs.frames_of(end)
        if np.count_nonzero(self._speech[first:last]) < LEAST_SPEECH * (last - first):
            return []
        seen = figures(spoken_level(self._dbfs[first:last]), inputs, probs)
        drift = self.watch.feed(time_s, seen)
        return [drift] if drift else []

    def _in_dbfs(self, levels: Array) -> Array:
        full_scale = np.float32(np.log(self.front_end.full_scale_power))
        dbfs: Array = (levels - full_scale) / np.float32(DECIBEL)
        return dbfs

    def _time(self, samples: int) -> float:
        return (samples + self._skipped) / self.front_end.sample_rate

    def _forget(self) -> None:
        """Drop what no window to come can need."""
        graphs = self.engine.graphs
        first = max(0, self._features.end - graphs.window_features)
        self._features.forget(first)
        self._dbfs.forget(first * graphs.frames_per_feature)
        self._bands.forget(first * graphs.frames_per_feature)
        self._speech.forget(first * graphs.frames_per_feature)


def by_emotion(probs: Array) -> dict[str, float]:
    """Name (C,) probabilities."""
    return {emotion: float(prob) for emotion, prob in zip(EMOTIONS, probs, strict=True)}


def _as_floats(waveform: NDArray[Any]) -> Array:
    """Bring integers of any width to floats in [-1, 1].

    Raises:
        UsageError: these are other things than sound, or lie the wrong way round.
    """
    given = np.asarray(waveform)
    channels = given.shape[1] if given.ndim == 2 else 1
    known = given.dtype.kind == "f" or (given.dtype.kind == "i" and given.dtype.itemsize <= 4)
    if (
        given.ndim not in (1, 2) or not known or not 1 <= channels <= MOST_CHANNELS
    ):  # a waveform with more is (channels, N)
        raise UsageError(
            f"a waveform of shape {given.shape} and type {given.dtype} arrived, expected (N,) or "
            "(N, channels) floats in [-1, 1] or signed integers of 8 to 32 bits: transpose or convert it"
        )
    scale = 2.0 ** (8 * given.dtype.itemsize - 1) if given.dtype.kind == "i" else 1.0
    scaled: Array = (given / np.float32(scale)).astype(np.float32, copy=False)
    return scaled


def _clean(samples: Array) -> Array:
    """Return (N,) float32 samples in [-1, 1]: one that is not finite would never leave the state."""
    given = np.asarray(samples)
    if given.dtype == np.float32 and given.ndim == 1 and _within_full_scale(given):
        return given  # as the sources deliver it
    if given.ndim != 1 or not np.issubdtype(given.dtype, np.floating):
        raise UsageError(
            f"samples of shape {given.shape} and type {given.dtype} arrived, expected (N,) floats in "
            "[-1, 1]: average the channels, and divide 16-bit integers by 32768"
        )
    clean: Array = np.clip(np.nan_to_num(given, posinf=0.0, neginf=0.0), -1.0, 1.0).astype(np.float32)
    return clean


def _within_full_scale(samples: Array) -> bool:
    return len(samples) > 0 and bool(samples.min() >= -1.0 and samples.max() <= 1.0)


def _mean_dbfs(levels: Array) -> float:
    """Average (T,) levels as power."""
    power = math.fsum(10.0 ** (level / 10.0) for level in levels.tolist()) / len(levels)
    return max(QUIETEST_DBFS, 10.0 * math.log10(power))


def _step_features(step_ms: int, feature_ms: int) -> int:
    if step_ms < feature_ms or step_ms % feature_ms:
        raise UsageError(f"a step of {step_ms} ms cannot be: choose a multiple of {feature_ms} ms")
    return step_ms // feature_ms
