"""The gain of calibration: each speaker is fitted on a few clips and scored on the others.

Each trial runs what `mmtl calibrate` runs: if it rejects the fit, the generic model is scored.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calibrate.fitting.embeddings import extract_embeddings
from calibrate.fitting.model_selection import fit_and_judge
from calibrate.takes import FEWEST_TAKES, InputNormalisation, Take
from edge.arrays import Array
from edge.audio.sound_file import read_clip
from edge.inference.engine import EngineLike
from edge.inference.provider import open_engine
from edge.labels import EMOTIONS
from edge.model.bundle import Bundle
from edge.model.head import Head
from edge.model.profile import ADOPTED
from train.corpora import Clip
from train.evaluation import HARM, shortest_clip
from train.metrics import uar


@dataclass(frozen=True)
class TrialAnswers:
    """What one calibration of one speaker changes in the answers."""

    query: tuple[Clip, ...]
    """The Q clips that are scored."""
    shots: int
    """Clips of each emotion in the support."""
    by_sentence: bool
    """Whether support and query share no sentence."""
    adopted: bool
    before: Array
    """(Q, C) posteriors of the generic model ..."""
    after: Array
    """... and of the model after calibration."""


@dataclass(frozen=True)
class CalibrationTrial:
    """The scores of one calibration of one speaker."""

    corpus: str
    speaker: str
    shots: int
    """Clips of each emotion in the support."""
    by_sentence: bool
    """Whether support and query share no sentence."""
    adopted: bool
    before: float
    """UAR of the generic model on the query, in percent ..."""
    after: float
    """... and of the model after calibration."""


@dataclass(frozen=True)
class ShotScores:
    """Mean over the speakers of a corpus at one number of shots, in percent."""

    corpus: str
    shots: int
    speakers: int
    by_sentence: float
    """Share of trials whose support and query share no sentence."""
    adopted: float
    """Share of trials whose fit was adopted."""
    before: float
    """Mean UAR over speakers ..."""
    after: float
    """... and with calibration."""
    worst_before: float
    """UAR of the worst speaker ..."""
    worst_after: float
    """... and of the worst one with calibration."""
    harmed: float
    """Share of speakers who lose more than `HARM`."""
    least_gain: float
    """Smallest gain of a speaker, in points of UAR."""

    @property
    def gain(self) -> float:
        """Points of UAR."""
        return self.after - self.before


@dataclass(frozen=True)
class ClipDivision:
    """A speaker's clips by index: the support is fitted on, the query scored."""

    support: tuple[int, ...]
    query: tuple[int, ...]
    by_sentence: bool


def calibration_trials(
    bundle: Bundle, clips: Sequence[Clip], shots: Sequence[int], draws: int
) -> Iterator[CalibrationTrial]:
    """Score the calibration of each speaker at each number of shots; the arguments of `trial_answers`."""
    for trial in trial_answers(bundle, clips, shots, draws):
        first = trial.query[0]
        yield CalibrationTrial(
            corpus=first.corpus,
            speaker=first.speaker,
            shots=trial.shots,
            by_sentence=trial.by_sentence,
            adopted=trial.adopted,
            before=_uar(trial.query, trial.before),
            after=_uar(trial.query, trial.after),
        )


def trial_answers(
    bundle: Bundle,
    clips: Sequence[Clip],
    shots: Sequence[int],
    draws: int,
    engine: EngineLike | None = None,
) -> Iterator[TrialAnswers]:
    """Calibrate each speaker at each number of shots, on several draws of the clips.

    Args:
        bundle: the generic model, not trained on these speakers.
        clips: of any number of speakers, in the four emotions.
        shots: clips of each emotion in the support; 0: no calibration.
        draws: number of random supports for each speaker and number of shots.
        engine: the bundle's loaded graphs; if None, they are loaded on the CPU.
    """
    engine = engine or open_engine(bundle, "cpu")
    for speaker in sorted({clip.speaker for clip in clips}):
        chosen = [clip for clip in clips if clip.speaker == speaker]
        planned = [
            (count, division)
            for count in shots
            for division in divisions(chosen, count, draws if count else 1)
        ]
        if planned:
            own = _SpeakerClips(bundle, engine, chosen)
            yield from (own.run_trial(division, count) for count, division in planned)


def count_trials(clips: Sequence[Clip], shots: Sequence[int], draws: int) -> int:
    """Return the largest possible number of trials; speakers with too few clips have fewer."""
    return len({clip.speaker for clip in clips}) * sum(draws if count else 1 for count in shots)


def divisions(clips: Sequence[Clip], shots: int, draws: int) -> Iterator[ClipDivision]:
    """Divide a speaker's clips at random into support and query; the seed is fixed.

    Support and query share no sentence if some sentences have `shots` clips of each emotion and the others
    have clips of each emotion too; the support then takes as few sentences as possible. Yields nothing if
    there are too few clips. With 0 shots all clips are in the query.
    """
    labels = np.array([EMOTIONS.index(clip.emotion) for clip in clips])
    if np.bincount(labels, minlength=len(EMOTIONS)).min() <= shots:
        return
    for number in range(draws):
        random = np.random.default_rng([number, shots])
        support_texts = _sentences(clips, labels, shots, random) if shots else set()
        chosen: list[int] = []
        for emotion in range(len(EMOTIONS)):
            free = [
                index
                for index in np.flatnonzero(labels == emotion).tolist()
                if _is_allowed(clips[index], support_texts)
            ]
            chosen += random.choice(free, shots, replace=False).tolist()
        left = set(range(len(clips))) - set(chosen)
        query = sorted(index for index in left if not support_texts or clips[index].text not in support_texts)
        yield ClipDivision(tuple(chosen), tuple(query), bool(support_texts))


def shot_scores(trials: Iterable[CalibrationTrial]) -> list[ShotScores]:
    """Summarise trials by corpus and number of shots."""
    groups: dict[tuple[str, int], dict[str, list[CalibrationTrial]]] = {}
    for trial in trials:
        speakers = groups.setdefault((trial.corpus, trial.shots), {})
        speakers.setdefault(trial.speaker, []).append(trial)
    return [_summarised(corpus, shots, groups[corpus, shots]) for corpus, shots in sorted(groups)]


def over_corpora(scores: Sequence[ShotScores]) -> list[ShotScores]:
    """Average over corpora for each number of shots; the worst is that of all corpora."""
    return [
        _averaged([item for item in scores if item.shots == count])
        for count in sorted({item.shots for item in scores})
    ]


class _SpeakerClips:
    """One speaker's clips, and their embeddings under the generic model."""

    def __init__(self, bundle: Bundle, engine: EngineLike, clips: Sequence[Clip]) -> None:
        self.clips = clips
        self._bundle, self._engine = bundle, engine
        shortest = shortest_clip(bundle)
        sounds = [read_clip(clip.path) for clip in clips]
        self._sounds = [np.pad(sound, (0, max(0, shortest - len(sound)))) for sound in sounds]
        self._generic = InputNormalisation(bundle.manifest.levels, bundle.statistics)
        self._embeddings = self._embed(self._generic, range(len(clips)))

    def run_trial(self, division: ClipDivision, shots: int) -> TrialAnswers:
        """Calibrate on the support and answer the query."""
        before = self._probs(division.query, self._bundle.head, self._generic)
        after, adopted = before, False
        if shots >= FEWEST_TAKES:
            takes = [_take(self.clips[index]) for index in division.support]
            sounds = [self._sounds[index] for index in division.support]
            fitted = fit_and_judge(self._bundle, self._engine, takes, sounds)
            adopted = fitted.judgement.verdict == ADOPTED
            if adopted:
                after = self._probs(division.query, fitted.head, fitted.normalisation)
        query = tuple(self.clips[index] for index in division.query)
        return TrialAnswers(query, shots, division.by_sentence, adopted, before, after)

    def _probs(self, query: Sequence[int], head: Head, normalisation: InputNormalisation) -> Array:
        embeddings = [self._embeddings[index] for index in query]
        if normalisation != self._generic:
            embeddings = self._embed(normalisation, query)
        return np.array([head.probs(windows).mean(axis=0) for windows in embeddings], np.float32)

    def _embed(self, normalisation: InputNormalisation, indices: Iterable[int]) -> list[Array]:
        sounds = [self._sounds[index] for index in indices]
        return extract_embeddings(self._engine, self._bundle.manifest.front_end, normalisation, sounds)


def _uar(clips: Sequence[Clip], probs: Array) -> float:
    return 100.0 * uar([EMOTIONS.index(clip.emotion) for clip in clips], probs.argmax(axis=1))


def _take(clip: Clip) -> Take:
    return Take(
        clip.path, EMOTIONS.index(clip.emotion), clip.text, (clip.valence, clip.arousal, clip.dominance)
    )


def _sentences(
    clips: Sequence[Clip], labels: NDArray[np.int64], shots: int, random: np.random.Generator
) -> set[str]:
    """Draw the sentences of the support; an empty set if the clips cannot be divided by sentence."""
    texts = np.array([clip.text for clip in clips])
    names = sorted(set(texts.tolist()))
    if not all(names):
        return set()
    order = [names[index] for index in random.permutation(len(names))]
    for count in range(1, len(order)):
        within = np.isin(texts, order[:count])
        inside, outside = (np.bincount(labels[part], minlength=len(EMOTIONS)) for part in (within, ~within))
        if inside.min() >= shots and outside.min() > 0:
            return set(order[:count])
    return set()


def _is_allowed(clip: Clip, support_texts: set[str]) -> bool:
    return not support_texts or clip.text in support_texts


def _summarised(corpus: str, shots: int, speakers: dict[str, list[CalibrationTrial]]) -> ShotScores:
    every = [trial for trials in speakers.values() for trial in trials]
    before = [float(np.mean([trial.before for trial in trials])) for trials in speakers.values()]
    after = [float(np.mean([trial.after for trial in trials])) for trials in speakers.values()]
    gains = np.array(after) - np.array(before)
    return ShotScores(
        corpus=corpus,
        shots=shots,
        speakers=len(speakers),
        by_sentence=100.0 * float(np.mean([trial.by_sentence for trial in every])),
        adopted=100.0 * float(np.mean([trial.adopted for trial in every])),
        before=float(np.mean(before)),
        after=float(np.mean(after)),
        worst_before=min(before),
        worst_after=min(after),
        harmed=100.0 * float(np.mean(gains < -HARM)),
        least_gain=float(gains.min()),
    )


def _averaged(scores: Sequence[ShotScores]) -> ShotScores:
    def mean(name: str) -> float:
        return float(np.mean([getattr(item, name) for item in scores]))

    return ShotScores(
        corpus="mean",
        shots=scores[0].shots,
        speakers=sum(item.speakers for item in scores),
        by_sentence=mean("by_sentence"),
        adopted=mean("adopted"),
        before=mean("before"),
        after=mean("after"),
        worst_before=min(item.worst_before for item in scores),
        worst_after=min(item.worst_after for item in scores),
        harmed=mean("harmed"),
        least_gain=min(item.least_gain for item in scores),
    )
