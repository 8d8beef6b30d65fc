"""A bundle for one speaker: the whole network tuned, judged by held-out takes, and written if it helps."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calibrate.fitting.folds import Folds, hold_out
from calibrate.fitting.full_finetune import judge_tuned
from calibrate.fitting.gradient_descent import Floats
from calibrate.fitting.model_selection import Judgement
from calibrate.fitting.scores import HeldOutPredictions
from calibrate.takes import Take, count_ratings, count_takes
from edge.arrays import Array
from edge.errors import UsageError
from edge.features.network_input import network_input
from edge.inference.offline import normalised_frames
from edge.labels import DIMENSIONS, EMOTIONS
from edge.model.bundle import Bundle
from edge.model.manifest import WEIGHTS
from edge.model.profile import ADOPTED
from edge.system.files import require_writable
from export.bundling import export_bundle, require_writable_bundle
from train.checkpoint import Checkpoint, load_cnn_lstm
from train.console import ConsoleProgress
from train.model import EmotionNet
from train.speaker_finetune import Tuning, answer, speaker_samples, tune

LICENCE = "the speaker's own"
"""Licence of the takes: the speaker decides."""


class SpeakerBundle:
    """Tunes a bundle's network to one speaker: the entry point of `calibrate.fitting.full_finetune`."""

    def __init__(
        self, bundle: Bundle, folder: Path, *, replace: bool = False, tuning: Tuning | None = None
    ) -> None:
        """Check everything that can be checked before recording starts.

        Args:
            bundle: the generic model.
            folder: where the speaker's bundle goes.
            replace: whether a bundle that is there already may go.
            tuning: how far; `Tuning`'s choice if not given.

        Raises:
            ModelError: the bundle's weights cannot be read.
            UsageError: the folder is in the way or cannot be written, or the network cannot be tuned.
        """
        require_writable_bundle(folder, replace=replace)
        _require_another(folder, bundle)
        self._checkpoint = load_cnn_lstm(bundle.folder / WEIGHTS)
        _require_transfer_learner(self._checkpoint, bundle)
        require_writable(folder.parent)
        self._bundle, self._folder, self._replace = bundle, folder, replace
        self._tuning = tuning or Tuning()
        self._progress = ConsoleProgress()

    def fit(self, name: str, takes: Sequence[Take], sounds: Sequence[Array]) -> Judgement:
        """Tune on a session, judge by its held-out takes, and write a bundle if that helps.

        Deterministic. Stopped at any moment it leaves nothing behind.

        Args:
            name: of the speaker.
            takes: of one speaker.
            sounds: (N,) samples at 16 kHz of each.

        Raises:
            VerificationError: the exported graphs differ from the tuned network.
        """
        frames = self._normalised(sounds)
        folds = hold_out(takes).first_round()
        judgement = self._judged(takes, frames, folds)
        if judgement.verdict == ADOPTED:
            net = copy.deepcopy(self._checkpoint.net)
            steps = self._tuned(net, takes, frames)
            self._run(steps, "tuning to all takes", 1)
            training = self._provenance(name, takes, folds, judgement)
            checkpoint = dataclasses.replace(self._checkpoint, net=net, training=training)
            export_bundle(checkpoint, self._folder, name, replace=self._replace)
        return judgement

    def _normalised(self, sounds: Sequence[Array]) -> list[Array]:
        """Return the (T, F) frames of each take, heard as a new stream by the generic model."""
        manifest, front_end = self._bundle.manifest, self._bundle.manifest.front_end
        normaliser = network_input(front_end, manifest.levels, self._bundle.statistics)
        return [normalised_frames(sound, front_end, normaliser) for sound in sounds]

    def _judged(self, takes: Sequence[Take], frames: Sequence[Array], folds: Folds) -> Judgement:
        """Judge by held-out takes; nothing is tuned to a session that lacks an emotion, as in a profile."""
        truth = np.array([take.emotion for take in takes])
        generic = np.array([self._answer(self._checkpoint.net, item) for item in frames], float)
        before = HeldOutPredictions(generic[None], truth)
        if len(set(truth.tolist())) < len(EMOTIONS):
            return judge_tuned(before, None)
        after = np.zeros_like(before.posteriors)
        self._run(self._held_out(takes, frames, folds, after), "judging by held-out takes", len(list(folds)))
        return judge_tuned(before, HeldOutPredictions(after, truth))

    def _held_out(
        self, takes: Sequence[Take], frames: Sequence[Array], folds: Folds, posteriors: Floats
    ) -> Iterator[float]:
        """Tune to the takes of the other folds and answer for each fold's own, step by step."""
        for index, held_out in folds:
            net = copy.deepcopy(self._checkpoint.net)
            yield from self._tuned(net, _chosen(takes, ~held_out), _chosen(frames, ~held_out))
            for take in np.flatnonzero(held_out).tolist():
                posteriors[index, take] = self._answer(net, frames[take])

    def _tuned(self, net: EmotionNet, takes: Sequence[Take], frames: Sequence[Array]) -> Iterator[float]:
        draw = self._checkpoint.training.get("options", {}).get("draw", {})
        auxiliary = draw.get("auxiliary", DIMENSIONS)
        samples = speaker_samples(frames, takes, self._bundle.manifest.graphs, auxiliary)
        return tune(net, samples, self._tuning)

    def _answer(self, net: EmotionNet, frames: Array) -> Array:
        return answer(net, frames, self._bundle.manifest, self._bundle.head.temperature)

    def _run(self, steps: Iterator[object], label: str, fits: int) -> None:
        for _ in self._progress(steps, label, fits * self._tuning.inner_steps):
            pass

    def _provenance(
        self, name: str, takes: Sequence[Take], folds: Folds, judgement: Judgement
    ) -> dict[str, Any]:
        """Say how the speaker's bundle came to be: nothing of the person but the name."""
        training, ratings = self._checkpoint.training, count_ratings(takes)
        own = {
            "name": f"takes of {name}",
            "licence": LICENCE,
            "clips": len(takes),
            "ratings": " and ".join(_origins(ratings)),
        }
        speakers = training.get("speakers", {})
        return {
            **training,
            "corpora": [*training.get("corpora", []), own],
            "speakers": {**speakers, "train": [*speakers.get("train", []), name]},
            "speaker": {
                "name": name,
                "from": {"bundle": self._bundle.manifest.name, "fingerprint": self._bundle.fingerprint},
                "takes": count_takes(takes),
                "ratings": ratings,
                "tuning": dataclasses.asdict(self._tuning),
                "held_out_by": folds.held_out_by,
                "before": judgement.before.described(),
                "after": judgement.after.described(),
                "gain": {key: item.described() for key, item in judgement.improvements.items()},
            },
        }


def _require_another(folder: Path, bundle: Bundle) -> None:
    if folder.resolve() == bundle.folder.resolve():
        raise UsageError(f"{folder} holds the generic model, which others use", remedy="name another folder")


def _require_transfer_learner(checkpoint: Checkpoint[EmotionNet], bundle: Bundle) -> None:
    if checkpoint.net.arch.emotions == "direct":
        raise UsageError(
            f"the network of {bundle.folder} was trained by mtl and has no transfer learner to tune",
            remedy="leave --full out, or name a bundle of erm or mmtl",
        )


def _chosen(items: Sequence[Any], chosen: NDArray[np.bool_]) -> list[Any]:
    return [item for item, wanted in zip(items, chosen.tolist(), strict=True) if wanted]


def _origins(ratings: dict[str, int]) -> list[str]:
    """Name where the ratings are from, as the recordings of a corpus say it."""
    return [word for word, kind in (("human", "given"), ("derived", "derived")) if ratings[kind]]
