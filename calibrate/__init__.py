"""Fit the recogniser to one speaker, judge whether it helps, and write a profile. NumPy only."""

import edge  # noqa: F401 - before ONNX Runtime, whose telemetry it turns off
from calibrate.fitting.candidates import CANDIDATES, Candidate
from calibrate.fitting.examples import Examples
from calibrate.fitting.folds import Folds
from calibrate.fitting.model_selection import Fitted, HeadInputs, Judgement, fit_and_judge
from calibrate.fitting.scores import Scores
from calibrate.takes import InputNormalisation, Take, read_sounds, read_takes

__all__ = [
    "CANDIDATES",
    "Candidate",
    "Examples",
    "Fitted",
    "Folds",
    "HeadInputs",
    "Judgement",
    "InputNormalisation",
    "Scores",
    "Take",
    "fit_and_judge",
    "read_sounds",
    "read_takes",
]
