"""The newest window of a stream: its features, and the level, bands and speech flag of each frame.

A window is named by `end`, the number of the feature after its last, counted from the start of the stream.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edge.arrays import Array
from edge.features.frontend import FrontEnd
from edge.features.long_term_spectrum import BANDS, band_powers, long_term_spectrum
from edge.features.normaliser import DECIBEL
from edge.features.vad import SpeechFlags
from edge.inference.encoder_stream import EncodedBlock
from edge.inference.window_grid import first_window_ends
from edge.model.manifest import Graphs
from edge.stream_buffer import StreamBuffer


class WindowBuffer:
    """Keeps what the windows to come are made of: at most one window, and the newest block."""

    def __init__(
        self, graphs: Graphs, front_end: FrontEnd, *, step_features: int, with_spectra: bool
    ) -> None:
        """Start empty.

        Args:
            graphs: sizes of features and windows.
            front_end: of the bundle.
            step_features: features from one window to the next.
            with_spectra: keep the bands too, for a head that reads the long-term spectrum.
        """
        self._graphs, self._front_end, self._with_spectra = graphs, front_end, with_spectra
        self._step_features = step_features
        self._next_end = min([*first_window_ends(graphs, step_features), graphs.window_features])
        self._full_scale = np.float32(np.log(front_end.full_scale_power))
        self._features = StreamBuffer(np.zeros((0, graphs.feature_size), np.float32))
        self._dbfs = StreamBuffer(np.zeros(0, np.float32))
        self._bands = StreamBuffer(np.zeros((0, BANDS), np.float32))
        self._speech = StreamBuffer(np.zeros(0, bool))
        self._voice = StreamBuffer(np.zeros(0, bool))

    @property
    def end(self) -> int:
        """Features so far: the `end` of the newest window."""
        return self._features.end

    @property
    def frames(self) -> int:
        """Frames so far."""
        return self._speech.end

    @property
    def capacity(self) -> tuple[int, int]:
        """Features and frames that there is memory for."""
        frames = (self._dbfs, self._bands, self._speech, self._voice)
        return self._features.capacity, max(buffer.capacity for buffer in frames)

    def append(self, block: EncodedBlock, flags: SpeechFlags) -> None:
        """Add the features and frames that a block completed, and the flags of the frames."""
        self._features.append(block.features)
        self._dbfs.append((block.levels - self._full_scale) / np.float32(DECIBEL))
        if self._with_spectra:
            self._bands.append(band_powers(block.power, self._front_end))
        self._speech.append(flags.speech)
        self._voice.append(flags.voice)

    def forget(self) -> None:
        """Drop what no window to come can need."""
        first = max(0, self._features.end - self._graphs.window_features)
        self._features.forget(first)
        for frames in (self._dbfs, self._bands, self._speech, self._voice):
            frames.forget(first * self._graphs.frames_per_feature)

    def take_due(self) -> list[int]:
        """Return the ends of the windows that have become complete since the last call.

        They are full, but for those at the start of a stream if the bundle has shorter ones.
        """
        due = list(range(self._next_end, self.end + 1, self._step_features))
        self._next_end += len(due) * self._step_features
        return due

    def features(self, ends: Sequence[int]) -> Array:
        """Return the (B, S, P) features of windows of one length, B > 0."""
        full = self._graphs.window_features
        spans = [self._features[max(0, end - full) : end] for end in ends]
        return spans[0][None] if len(spans) == 1 else np.stack(spans)

    def spectra(self, ends: Sequence[int]) -> Array:
        """Return the (B, SPECTRUM_SIZE) long-term spectra of windows, B > 0."""
        frames = [slice(*self._graphs.frames_of(end)) for end in ends]
        return np.stack([long_term_spectrum(self._bands[span], self._dbfs[span]) for span in frames])

    def dbfs(self, end: int) -> Array:
        """Return the (T,) frame levels of a window; 0 dB is full scale."""
        return self._dbfs[slice(*self._graphs.frames_of(end))]

    def is_speech(self, end: int, needed_s: float) -> bool:
        """Return whether a window has enough speech for an emotion, as `is_speech` says."""
        frames = slice(*self._graphs.frames_of(end))
        return is_speech(SpeechFlags(self._speech[frames], self._voice[frames]), self._front_end, needed_s)

    def speech(self, end: int) -> NDArray[np.bool_]:
        """Return the (T,) speech flags of a window's frames."""
        return self._speech[slice(*self._graphs.frames_of(end))]


def is_speech(flags: SpeechFlags, front_end: FrontEnd, needed_s: float) -> bool:
    """Return whether a window has enough speech for an emotion, up to its last voice.

    Args:
        flags: of its frames.
        front_end: of the bundle.
        needed_s: speech that it needs.
    """
    voiced = np.flatnonzero(flags.voice)
    spoken = np.count_nonzero(flags.speech[: voiced[-1] + 1]) if len(voiced) else 0
    return bool(spoken * front_end.hop_length_ms >= 1000.0 * needed_s)
