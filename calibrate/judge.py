"""Does it help? Cross-validation inside a session: every take is judged by what the others taught."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from calibrate.fit import Candidate, candidates, examples, speaker_normalisation, take_shares
from calibrate.takes import Normalisation, Take, listen
from edge.bundle import Bundle
from edge.frontend import Array, power_spectrogram
from edge.head import Head
from edge.labels import EMOTIONS

if TYPE_CHECKING:
    from edge.engine import Engine

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]

MOST_FOLDS: Final = 8

LEAST_GAIN: Final = 0.05
"""Nats of held-out log loss; less is not worth a profile."""

NEAR: Final = 1.0
"""Standard errors within which a simpler candidate is as good as the best."""

CALIBRATION_BINS: Final = 10

ADOPTED: Final = "adopted"
REJECTED: Final = "rejected"


@dataclass(frozen=True)
class Folds:
    """Which takes are held out together."""

    held_out_by: str
    """"sentence": what is judged on was not said in what is fitted on; else "take"."""
    of_take: Integers
    """(N,) fold of each take."""

    def __iter__(self) -> Iterator[NDArray[np.bool_]]:
        """Yield (N,) booleans for each fold: which takes are held out."""
        return (self.of_take == fold for fold in range(self.count))

    @property
    def count(self) -> int:
        """Number of folds."""
        return int(self.of_take.max()) + 1


@dataclass(frozen=True)
class Hearing:
    """What the model hears in each take, (W, D) embeddings, under one choice of statistics."""

    normalisation: Normalisation
    """The choice, made on all takes."""
    fitting: Sequence[Array]
    """Of each take, under that choice: to fit on."""
    scoring: Sequence[Array]
    """Of each take, under the choice that the other folds alone lead to: to be judged on."""


@dataclass(frozen=True)
class Scores:
    """What held-out answers are worth. The emotions count alike in the first two."""

    uar: float
    """Unweighted average recall, in [0, 1]."""
    log_loss: float
    """Nats; log(4) = 1.39 is worth nothing."""
    ece: float
    """Expected calibration error, in [0, 1] (Guo et al. 2017, eq. 3)."""

    def rounded(self) -> dict[str, float]:
        """Return the fields as a report shows them."""
        return {name: round(value, 4) for name, value in asdict(self).items()}


@dataclass(frozen=True)
class Judgement:
    """What came of a session."""

    chosen: Candidate
    verdict: str
    """"adopted" or "rejected"."""
    reason: str
    scores: Mapping[str, Scores]
    """Of each candidate, on held-out takes."""

    @property
    def before(self) -> Scores:
        """Of the generic model."""
        return self.scores["generic"]

    @property
    def after(self) -> Scores:
        """Of the chosen candidate."""
        return self.scores[self.chosen.name]


@dataclass(frozen=True)
class Fitted:
    """What a profile holds, and how it was judged."""

    head: Head
    normalisation: Normalisation
    judgement: Judgement
    folds: Folds

    def report(self) -> dict[str, Any]:
        """Describe the judgement as JSON can hold it."""
        judged = self.judgement
        return {
            "reason": judged.reason,
            "chosen": judged.chosen.name,
            "held_out_by": self.folds.held_out_by,
            "folds": self.folds.count,
            "before": judged.before.rounded(),
            "after": judged.after.rounded(),
            "candidates": {name: scores.rounded() for name, scores in judged.scores.items()},
        }


def fit_and_judge(bundle: Bundle, engine: Engine, takes: Sequence[Take], sounds: Sequence[Array]) -> Fitted:
    """Fit a session in every way it supports, and choose and judge by its held-out takes.

    Deterministic.

    Args:
        bundle: the generic model.
        engine: runs its graphs.
        takes: of one speaker.
        sounds: (N,) samples at 16 kHz of each.
    """
    emotions = [take.emotion for take in takes]
    folds = hold_out(takes)
    tried = candidates(takes, sounds)
    generic = hear(bundle, engine, sounds)
    own = generic
    if any(candidate.own_statistics for candidate in tried):
        own = hear_with_own_statistics(bundle, engine, sounds, emotions, folds)
    hearings = {candidate.name: own if candidate.own_statistics else generic for candidate in tried}
    posteriors = {
        candidate.name: held_out_posteriors(candidate, bundle.head, hearings[candidate.name], emotions, folds)
        for candidate in tried
    }
    judgement = judge(tried, posteriors, emotions)
    hearing = hearings[judgement.chosen.name]
    head = judgement.chosen.head(bundle.head, examples(hearing.fitting, emotions))
    return Fitted(head, hearing.normalisation, judgement, folds)


def hold_out(takes: Sequence[Take]) -> Folds:
    """Divide takes into folds, without chance.

    By sentence where all sentences are known and each emotion has takes left whichever is held out;
    else by take, those of an emotion in different folds as far as they go.
    """
    emotions = np.array([take.emotion for take in takes])
    texts = [" ".join(take.text.casefold().split()) for take in takes]
    if all(texts) and len(set(texts)) > 1:
        folds = Folds("sentence", _deal_groups(texts))
        if all(set(emotions[~held_out]) == set(emotions) for held_out in folds):
            return folds
    places = [int((emotions[:index] == emotion).sum()) for index, emotion in enumerate(emotions)]
    of_take = np.empty(len(takes), np.int64)
    of_take[np.lexsort((emotions, np.array(places)))] = np.arange(len(takes)) % min(MOST_FOLDS, len(takes))
    return Folds("take", of_take)


def hear(bundle: Bundle, engine: Engine, sounds: Sequence[Array]) -> Hearing:
    """Hear the takes as the generic model does."""
    normalisation = Normalisation(bundle.manifest.levels, bundle.statistics)
    heard = listen(engine, bundle.manifest.front_end, normalisation, sounds)
    return Hearing(normalisation, heard, heard)


def hear_with_own_statistics(
    bundle: Bundle, engine: Engine, sounds: Sequence[Array], emotions: Sequence[int], folds: Folds
) -> Hearing:
    """Hear the takes with the speaker's statistics; each to be judged on without its own fold's part."""
    front_end = bundle.manifest.front_end
    powers = [power_spectrogram(sound, front_end) for sound in sounds]
    generic = Normalisation(bundle.manifest.levels, bundle.statistics)

    def of(chosen: NDArray[np.bool_]) -> Normalisation:
        indices = np.flatnonzero(chosen).tolist()
        return speaker_normalisation(
            generic, [powers[index] for index in indices], [emotions[index] for index in indices]
        )

    scoring: list[Array] = [np.zeros(0, np.float32)] * len(sounds)
    for held_out in folds:
        indices = np.flatnonzero(held_out).tolist()
        heard = listen(engine, front_end, of(~held_out), [sounds[index] for index in indices])
        for index, windows in zip(indices, heard, strict=True):
            scoring[index] = windows
    normalisation = of(np.ones(len(sounds), bool))
    return Hearing(normalisation, listen(engine, front_end, normalisation, sounds), scoring)


def held_out_posteriors(
    candidate: Candidate, generic: Head, hearing: Hearing, emotions: Sequence[int], folds: Folds
) -> Floats:
    """Answer for each take by the head that the other folds lead to: (N, C), averaged over windows."""
    posteriors = np.zeros((len(emotions), len(EMOTIONS)))
    for held_out in folds:
        rest = np.flatnonzero(~held_out).tolist()
        head = candidate.head(
            generic, examples([hearing.fitting[index] for index in rest], [emotions[index] for index in rest])
        )
        for index in np.flatnonzero(held_out).tolist():
            posteriors[index] = head.probs(hearing.scoring[index]).mean(axis=0)
    return posteriors


def judge(tried: Sequence[Candidate], posteriors: Mapping[str, Floats], emotions: Sequence[int]) -> Judgement:
    """Choose among candidates by held-out log loss, and adopt the choice only if it helps.

    Chosen is the simplest within one standard error of the best. It is adopted if it lowers the
    loss by `LEAST_GAIN`, recognises no fewer takes, and is worth more than guesses.

    Args:
        tried: simplest first; the first is the generic model.
        posteriors: (N, C) held-out answers of each, by name.
        emotions: (N,) the truth.
    """
    scores = {candidate.name: score(posteriors[candidate.name], emotions) for candidate in tried}
    chosen = _simplest_near_best(tried, posteriors, emotions)
    reason = _objection(scores["generic"], scores[chosen.name], len(tried), len(set(emotions)))
    if reason:
        return Judgement(chosen, REJECTED, reason, scores)
    gain = scores["generic"].log_loss - scores[chosen.name].log_loss
    return Judgement(chosen, ADOPTED, f"it lowers the log loss of held-out takes by {gain:.2f}", scores)


def score(posteriors: Floats, emotions: Sequence[int]) -> Scores:
    """Score (N, C) posteriors."""
    truth, shares = np.asarray(emotions), take_shares(emotions)
    right = posteriors.argmax(axis=1) == truth
    return Scores(
        uar=float(shares @ right),
        log_loss=float(shares @ _log_losses(posteriors, truth)),
        ece=_calibration_error(posteriors.max(axis=1), right),
    )


def _simplest_near_best(
    tried: Sequence[Candidate], posteriors: Mapping[str, Floats], emotions: Sequence[int]
) -> Candidate:
    """Return the simplest candidate within one standard error of the best one's log loss.

    The error is of the mean difference, take by take, for the takes are the same.
    """
    truth, shares = np.asarray(emotions), take_shares(emotions)
    losses = [_log_losses(posteriors[candidate.name], truth) for candidate in tried]
    best = min(losses, key=lambda loss: float(shares @ loss))
    for candidate, loss in zip(tried, losses, strict=True):
        behind = loss - best
        if float(shares @ behind) <= NEAR * _standard_error(behind, shares):
            return candidate
    return tried[0]


def _standard_error(values: Floats, shares: Floats) -> float:
    """Return the standard error of the weighted mean of (N,) values, N > 1."""
    variance = float(shares**2 @ (values - shares @ values) ** 2)
    return math.sqrt(variance * len(values) / (len(values) - 1))


def _objection(before: Scores, after: Scores, tried: int, emotions: int) -> str:
    """Say why a choice is not to be adopted; empty: nothing speaks against it."""
    if tried == 1:
        return "nothing can be fitted: record takes of all four emotions, about as much of each"
    if before.log_loss - after.log_loss < LEAST_GAIN:
        return "nothing helped: the generic model does as well on held-out takes"
    if after.uar < before.uar - 1e-9:  # sums in another order are not a difference
        return f"it would recognise fewer held-out takes ({after.uar:.0%} instead of {before.uar:.0%})"
    if after.log_loss > math.log(emotions) - LEAST_GAIN or after.uar <= 1.0 / emotions + 1e-9:
        return "its answers to held-out takes are worth no more than guesses: check the labels"
    return ""


def _log_losses(posteriors: Floats, truth: Integers) -> Floats:
    losses: Floats = -np.log(np.maximum(posteriors[np.arange(len(truth)), truth], 1e-6))
    return losses


def _calibration_error(confidence: Floats, right: NDArray[np.bool_]) -> float:
    """ECE = sum_b |B_b| / N * |accuracy(B_b) - mean confidence(B_b)|."""
    index = np.clip(np.ceil(confidence * CALIBRATION_BINS).astype(np.int64) - 1, 0, CALIBRATION_BINS - 1)
    gaps = np.bincount(index, weights=right - confidence, minlength=CALIBRATION_BINS)
    return float(np.abs(gaps).sum() / len(right))


def _deal_groups(names: Sequence[str]) -> Integers:
    """Put takes of one name in one fold, the folds as even as the names allow: (N,)."""
    count = min(MOST_FOLDS, len(set(names)))
    sizes, fold_of = [0] * count, dict[str, int]()
    for name in dict.fromkeys(names):
        fold_of[name] = sizes.index(min(sizes))
        sizes[fold_of[name]] += names.count(name)
    return np.array([fold_of[name] for name in names])
