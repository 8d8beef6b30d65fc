"""Fit the recogniser to one speaker, judge whether it helps, and write a profile. NumPy only."""

import edge  # noqa: F401 - before ONNX Runtime, whose telemetry it turns off
from calibrate.examples import Examples
from calibrate.fit import CANDIDATES, Candidate
from calibrate.folds import Folds
from calibrate.judge import Fitted, Hearing, Judgement, fit_and_judge
from calibrate.scores import Scores
from calibrate.takes import Normalisation, Take, read_sounds, read_takes

__all__ = [
    "CANDIDATES",
    "Candidate",
    "Examples",
    "Fitted",
    "Folds",
    "Hearing",
    "Judgement",
    "Normalisation",
    "Scores",
    "Take",
    "fit_and_judge",
    "read_sounds",
    "read_takes",
]
