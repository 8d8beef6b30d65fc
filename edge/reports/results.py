"""What is known of one recording: its utterances, its curve, and the rows of a table made from them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from edge.events import Utterance, Window
from edge.labels import DIMENSIONS, EMOTIONS, derived_ratings

PROBABILITY_DIGITS: Final = 4
SECONDS_DIGITS: Final = 3


def expected_ratings(probs: Mapping[str, float]) -> dict[str, float]:
    """Return the mean valence, arousal and dominance, in [1, 5], of the emotions' norms; empty without probs.

    They are derived from the probabilities and add no information to them; a display calls them "derived".

    Args:
        probs: by emotion, adding up to 1.
    """
    norms = {emotion: derived_ratings(emotion) for emotion in probs}
    return {
        name: round(
            math.fsum(prob * norm[number] for emotion, prob in probs.items() if (norm := norms[emotion])), 3
        )
        for number, name in enumerate(DIMENSIONS)
        if probs
    }


@dataclass(frozen=True)
class UtteranceRow:
    """One utterance of a recording as a row of a table.

    A recording without an utterance has one row, whose label is empty; so does one that cannot be read, whose
    `problem` says why. A recording that is damaged further in has the rows of what could be read, and one
    more with the problem.
    """

    file: str
    speaker: str
    """Empty if nothing names the speaker."""
    start_s: float
    end_s: float
    label: str
    """An emotion, "unsure", or empty: no utterance."""
    probs: Mapping[str, float]
    """Mean posterior of the utterance's windows, by emotion; empty without an utterance."""
    windows: int
    """Windows of the utterance."""
    duration_s: float
    """Of the recording."""
    speech_share: float
    """Share of the recording's duration that is speech, in [0, 1]."""
    engine: str
    """The provider that computed: "cpu", "cuda" or "tensorrt"; empty if nothing was computed."""
    bundle: str
    profile: str
    warning: str
    problem: str

    def cells(self) -> dict[str, str | float | None]:
        """Return the row's cells by column, in the order of `COLUMNS`; None is an empty cell."""
        ratings = expected_ratings(self.probs)
        return {
            "file": self.file,
            "speaker": self.speaker,
            "start_s": self.start_s,
            "end_s": self.end_s,
            "label": self.label,
            **{emotion: self.probs.get(emotion) for emotion in EMOTIONS},
            **{f"derived_{name}": ratings.get(name) for name in DIMENSIONS},
            "windows": self.windows,
            "duration_s": self.duration_s,
            "speech_share": self.speech_share,
            "engine": self.engine,
            "bundle": self.bundle,
            "profile": self.profile,
            "warning": self.warning,
            "problem": self.problem,
        }


COLUMNS: Final = tuple(UtteranceRow("", "", 0.0, 0.0, "", {}, 0, 0.0, 0.0, "", "", "", "", "").cells())
TEXT_COLUMNS: Final = ("file", "speaker", "label", "engine", "bundle", "profile", "warning", "problem")


@dataclass(frozen=True)
class Curve:
    """The windows of a recording: when each ended, and its smoothed posterior."""

    end_s: tuple[float, ...] = ()
    smoothed: tuple[tuple[float, ...], ...] = ()
    """(C,) probabilities of each window, in the order of `EMOTIONS`."""
    speech: tuple[bool, ...] = ()

    @staticmethod
    def of(windows: Sequence[Window]) -> Curve:
        """Take what the curve needs from the events."""
        return Curve(
            tuple(round(window.end_s, SECONDS_DIGITS) for window in windows),
            tuple(tuple(_rounded(window.smoothed).values()) for window in windows),
            tuple(window.speech for window in windows),
        )


@dataclass(frozen=True)
class Span:
    """An utterance of a recording."""

    start_s: float
    end_s: float
    label: str
    probs: dict[str, float]
    windows: int

    @staticmethod
    def of(utterance: Utterance) -> Span:
        """Take the fields of an event, rounded."""
        return Span(
            round(utterance.start_s, SECONDS_DIGITS),
            round(utterance.end_s, SECONDS_DIGITS),
            utterance.label,
            _rounded(utterance.probs),
            utterance.windows,
        )


@dataclass(frozen=True)
class FileResult:
    """A recording as it was recognised. Equal sound, model and settings give an equal result."""

    duration_s: float = 0.0
    speech_s: float = 0.0
    """Time between the beginnings and the ends of speech."""
    utterances: tuple[Span, ...] = ()
    curve: Curve = field(default_factory=Curve)
    engine: str = ""
    bundle: str = ""
    profile: str = ""
    warnings: tuple[str, ...] = ()
    problem: str = ""
    """Why the recording, or the rest of it, could not be recognised."""

    @property
    def speech_share(self) -> float:
        """Share of the duration that is speech, in [0, 1]."""
        share = self.speech_s / self.duration_s if self.duration_s > 0 else 0.0
        return round(min(1.0, share), PROBABILITY_DIGITS)

    def rows(self, file: str, speaker: str = "") -> list[UtteranceRow]:
        """Return at least one row.

        Args:
            file: the recording's name in the table.
            speaker: who speaks; empty if that is not known.
        """
        spans = [*self.utterances]
        if self.problem or not spans:
            spans.append(Span(self.duration_s if spans else 0.0, self.duration_s, "", {}, 0))
        problems = [""] * (len(spans) - 1) + [self.problem]
        return [
            UtteranceRow(
                file=file,
                speaker=speaker,
                start_s=span.start_s,
                end_s=span.end_s,
                label=span.label,
                probs=span.probs,
                windows=span.windows,
                duration_s=self.duration_s,
                speech_share=self.speech_share,
                engine=self.engine,
                bundle=self.bundle,
                profile=self.profile,
                warning="; ".join(self.warnings),
                problem=problem,
            )
            for span, problem in zip(spans, problems, strict=True)
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return the result as JSON values."""
        return asdict(self)

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> FileResult:
        """Read what `to_dict` returned, also after JSON made lists of its tuples.

        Raises:
            KeyError, TypeError, ValueError: the values are not a result.
        """
        curve = values["curve"]
        return FileResult(
            **{
                **values,
                "utterances": tuple(Span(**span) for span in values["utterances"]),
                "curve": Curve(
                    tuple(curve["end_s"]), tuple(map(tuple, curve["smoothed"])), tuple(curve["speech"])
                ),
                "warnings": tuple(values["warnings"]),
            }
        )


def _rounded(probs: Mapping[str, float]) -> dict[str, float]:
    return {emotion: round(prob, PROBABILITY_DIGITS) for emotion, prob in probs.items()}
