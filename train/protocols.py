"""The protocols of an evaluation: what the recogniser knows of a speaker before a clip is scored.

none       nothing: each clip is a new stream
running    what it heard before: the clips of a speaker follow each other in one stream
ordinary   a profile from about 20 s of the speaker's neutral clips, without other labels
labelled   a profile from labelled clips, `SHOTS` of each emotion
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from calibrate.fitting.ordinary import ordinary_head
from calibrate.quality import measure
from calibrate.take_limits import LEAST_ORDINARY_S
from edge.arrays import SAMPLE_RATE, Array
from edge.audio.sound_file import read_clip
from edge.errors import UsageError
from edge.events import Window
from edge.inference.engine import EngineLike
from edge.model.bundle import Bundle
from edge.model.head import Head
from edge.recognition.recognizer import Recognizer
from train.corpora import Clip
from train.evaluation import (
    ClipWindows,
    CorpusScores,
    answers_by_threshold,
    described,
    score_by_corpus,
)
from train.few_shot import trial_answers
from train.metrics import SelectiveAccuracy

ProtocolName = Literal["none", "running", "ordinary", "labelled"]

PROTOCOLS: Final[tuple[ProtocolName, ...]] = ("none", "running", "ordinary", "labelled")

BASELINE_S: Final = 20.0
"""Speech that is heard before a clip is scored (running), or that a profile is made from (ordinary)."""

PAUSE_S: Final = 1.0
"""Silence between two clips of a stream: enough for speech to end, see `edge.features.vad.VadConfig`."""

DRAWS: Final = 2
"""Random orders of the clips (running), and random choices of neutral clips (ordinary)."""

SHOTS: Final = 2
"""Labelled clips of each emotion (labelled)."""


@dataclass(frozen=True)
class Answers:
    """Posteriors of some of a speaker's clips in one draw."""

    clips: tuple[Clip, ...]
    """The N clips that are scored; none if the speaker has too few."""
    probs: Array
    """(N, C)."""
    generic: Array
    """(N, C), of the same clips without adaptation."""
    speech_s: float | None = None
    """Mean duration of the speech that the baseline rests on."""
    refusal: str = ""
    """Why the adaptation was refused, so that the generic model answers; empty: it was not."""


@dataclass(frozen=True)
class ProtocolScores:
    """Scores of a bundle under one protocol."""

    corpora: dict[str, CorpusScores]
    answers: tuple[SelectiveAccuracy, ...]
    """Of all corpora together, by threshold of "unsure"."""
    left_out: dict[str, tuple[str, ...]]
    """Speakers with too few clips for the protocol, by corpus."""
    refusals: tuple[str, ...] = ()
    """Whose adaptation was refused, and why; the generic model was scored."""


@dataclass(frozen=True)
class EvaluationClips:
    """The clips of an evaluation, and what the recogniser computes for each as a new stream."""

    bundle: Bundle
    engine: EngineLike
    """The bundle's loaded graphs."""
    clips: Sequence[Clip]
    windows: Sequence[ClipWindows]

    @property
    def speakers(self) -> list[NDArray[np.int64]]:
        """Indices of the clips of each speaker."""
        names = np.array([clip.speaker for clip in self.clips])
        return [np.flatnonzero(names == name) for name in np.unique(names)]

    def answers(self, chosen: Sequence[int], probs: Sequence[Array], speech_s: float | None) -> Answers:
        """Put the (C,) posteriors of clips, given by index, beside those without adaptation."""
        generic = [self.windows[index].probs for index in chosen]
        size = len(self.bundle.head.fc3_bias)
        return Answers(
            tuple(self.clips[index] for index in chosen),
            np.array(probs, np.float32).reshape(-1, size),
            np.array(generic, np.float32).reshape(-1, size),
            speech_s,
        )


def supported_protocols(bundle: Bundle) -> tuple[ProtocolName, ...]:
    """Return the protocols that a bundle can be scored by: some need a head that reads a baseline."""
    if bundle.head.baseline_weight is not None:
        return PROTOCOLS
    return tuple(name for name in PROTOCOLS if name not in ("running", "ordinary"))


def parse_protocols(listed: str, bundle: Bundle) -> tuple[ProtocolName, ...]:
    """Parse names of protocols, such as "none,running".

    Raises:
        UsageError: a name is unknown or repeated, or the bundle cannot be scored by that protocol.
    """
    names = [name.strip() for name in listed.split(",")]
    if unknown := [name for name in names if name not in PROTOCOLS]:
        raise UsageError(
            f"--protocols names the unknown protocol {unknown[0]!r}",
            remedy=f"choose from {', '.join(PROTOCOLS)}",
        )
    if len(set(names)) != len(names):
        raise UsageError(f"--protocols {listed!r} names a protocol twice", remedy="name each once")
    supported = supported_protocols(bundle)
    if missing := [name for name in names if name not in supported]:
        raise UsageError(
            f"the bundle's head reads no baseline, which the protocol {missing[0]} measures",
            remedy=f"choose from {', '.join(supported)}",
        )
    return tuple(name for name in PROTOCOLS if name in names)


def unadapted(heard: EvaluationClips) -> ProtocolScores:
    """Score the protocol `none`."""
    probs = np.array([windows.probs for windows in heard.windows])
    scores = score_by_corpus(heard.clips, probs)
    return ProtocolScores(scores, answers_by_threshold(heard.clips, probs), {})


def adapted(clips: Sequence[Clip], parts: Iterable[Answers]) -> ProtocolScores:
    """Score a protocol with adaptation.

    Args:
        clips: all clips, also of speakers that the protocol leaves out.
        parts: answers of each speaker and draw.
    """
    scored = [part for part in parts if part.clips]
    chosen = [clip for part in scored for clip in part.clips]
    with_answers = {clip.speaker for clip in chosen}
    without = sorted({(clip.corpus, clip.speaker) for clip in clips if clip.speaker not in with_answers})
    left_out = {
        corpus: tuple(speaker for other, speaker in without if other == corpus)
        for corpus in sorted({corpus for corpus, _ in without})
    }
    if not chosen:
        return ProtocolScores({}, (), left_out)
    probs = np.concatenate([part.probs for part in scored])
    generic = np.concatenate([part.generic for part in scored])
    scores = score_by_corpus(chosen, probs, generic, _speech_by_corpus(scored))
    refusals = [f"{part.clips[0].speaker}: {part.refusal}" for part in scored if part.refusal]
    answers = answers_by_threshold(chosen, probs)
    return ProtocolScores(scores, answers, left_out, tuple(dict.fromkeys(refusals)))


def mean_uar(scores: ProtocolScores, known: Collection[str]) -> tuple[float, int] | None:
    """Average the UAR over the corpora with training speakers; over all, if none of them is known.

    Returns:
        The mean and the number of corpora; None without any.
    """
    chosen = [item.uar for corpus, item in scores.corpora.items() if corpus in known]
    values = chosen or [item.uar for item in scores.corpora.values()]
    return (float(np.mean(values)), len(values)) if values else None


def described_protocol(scores: ProtocolScores) -> dict[str, Any]:
    """Convert the scores of a protocol to plain JSON values."""
    return {
        "corpora": described(scores.corpora),
        "answers": [asdict(item) for item in scores.answers],
        **({"left_out": scores.left_out} if scores.left_out else {}),
        **({"refusals": scores.refusals} if scores.refusals else {}),
    }


def running_answers(heard: EvaluationClips, draws: int = DRAWS) -> Iterator[Answers]:
    """Recognise the clips of each speaker as one stream, in several random orders.

    Clips are scored that begin after `BASELINE_S` of other clips. A clip's posterior is the mean over the
    windows that hold no sound of another clip.
    """
    recognizer = Recognizer(heard.bundle, engine=heard.engine)
    for own in heard.speakers:
        for number in range(draws):
            order = np.random.default_rng(number).permutation(own).tolist()
            sounds = [read_clip(heard.clips[index].path) for index in order]
            before_s = np.cumsum([0.0, *(len(sound) / SAMPLE_RATE for sound in sounds)])[:-1]
            late = np.flatnonzero(before_s >= BASELINE_S).tolist()
            probs = _in_one_stream(recognizer, sounds, late) if late else []
            speech_s = float(before_s[late].mean()) if late else None
            yield heard.answers([order[place] for place in late], probs, speech_s)


def ordinary_answers(heard: EvaluationClips, draws: int = DRAWS) -> Iterator[Answers]:
    """Make a profile from neutral clips of each speaker, and recognise the speaker's other clips with it.

    Speakers with less voice in their neutral clips than a profile needs are not scored. What
    `mmtl calibrate --ordinary` refuses for another reason is answered by the generic model.
    """
    for own in heard.speakers:
        for number in range(draws):
            order = np.random.default_rng(number).permutation(own).tolist()
            neutral, sounds = _ordinary_speech([heard.clips[index] for index in order])
            if voice_s(sounds) < LEAST_ORDINARY_S:
                yield heard.answers([], [], None)
                continue
            others = [index for place, index in enumerate(order) if place not in neutral]
            head, refusal = _ordinary_head(heard, sounds)
            probs = [_with_head(heard.windows[index], head) for index in others]
            seconds = sum(map(len, sounds)) / SAMPLE_RATE
            yield replace(heard.answers(others, probs, seconds), refusal=refusal)


def voice_s(sounds: Sequence[Array]) -> float:
    """Return the duration of voice in (N,) samples of each sound."""
    return sum(measure(sound).voice_s for sound in sounds)


def labelled_answers(heard: EvaluationClips, draws: int) -> Iterator[Answers]:
    """Calibrate each speaker on `SHOTS` labelled clips of each emotion, and recognise the other clips."""
    for trial in trial_answers(heard.bundle, heard.clips, [SHOTS], draws, heard.engine):
        yield Answers(trial.query, trial.after, trial.before)


def _ordinary_head(heard: EvaluationClips, sounds: Sequence[Array]) -> tuple[Head | None, str]:
    """Return the head of a profile; None and the reason, if it is refused."""
    try:
        return ordinary_head(heard.bundle, heard.engine, sounds).head, ""
    except UsageError as error:
        return None, error.problem


def _with_head(windows: ClipWindows, head: Head | None) -> Array:
    """Return the (C,) posterior of a clip with a speaker's head, or with the generic one."""
    return windows.probs if head is None else head.probs(windows.embeddings).mean(axis=0)


def _ordinary_speech(clips: Sequence[Clip]) -> tuple[set[int], list[Array]]:
    """Take neutral clips until they last `BASELINE_S`, but keep one to be scored: indices and sounds."""
    neutral = [place for place, clip in enumerate(clips) if clip.emotion == "neutral"]
    taken: list[int] = []
    sounds: list[Array] = []
    for place in neutral[:-1]:
        if sum(map(len, sounds)) >= BASELINE_S * SAMPLE_RATE:
            break
        taken.append(place)
        sounds.append(read_clip(clips[place].path))
    return set(taken), sounds


def _in_one_stream(recognizer: Recognizer, sounds: Sequence[Array], scored: Sequence[int]) -> list[Array]:
    """Recognise clips as one stream with pauses between; return (C,) posteriors of some, by index."""
    recognizer.reset()
    pause = np.zeros(round(PAUSE_S * SAMPLE_RATE), np.float32)
    windows: list[Window] = []
    spans: list[tuple[float, float]] = []
    for sound in sounds:
        start_s = recognizer.heard_s
        events = [*recognizer.feed(sound), *recognizer.feed(pause)]
        spans.append((start_s, start_s + len(sound) / SAMPLE_RATE))
        windows += [event for event in events if isinstance(event, Window)]
    windows += [event for event in recognizer.flush() if isinstance(event, Window)]
    starts, ends = (np.array([getattr(item, name) for item in windows]) for name in ("start_s", "end_s"))
    probs = np.array([list(item.probs.values()) for item in windows], np.float32)
    return [probs[_windows_of(spans, place, starts, ends)].mean(axis=0) for place in scored]


def _windows_of(
    spans: Sequence[tuple[float, float]], place: int, starts: NDArray[np.float64], ends: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """Mark the windows of a clip: those without sound of another; else the one with most of the clip."""
    before = spans[place - 1][1] if place else -np.inf
    after = spans[place + 1][0] if place + 1 < len(spans) else np.inf
    start, end = spans[place]
    overlap = np.minimum(ends, end) - np.maximum(starts, start)
    alone: NDArray[np.bool_] = (starts >= before) & (ends <= after) & (overlap > 0)
    if alone.any():
        return alone
    most: NDArray[np.bool_] = np.arange(len(starts)) == overlap.argmax()
    return most


def _speech_by_corpus(parts: Sequence[Answers]) -> dict[str, float]:
    by_corpus: dict[str, list[float]] = {}
    for part in parts:
        if part.speech_s is not None:
            by_corpus.setdefault(part.clips[0].corpus, []).append(part.speech_s)
    return {corpus: float(np.mean(seconds)) for corpus, seconds in by_corpus.items()}
