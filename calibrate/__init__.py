"""Fit the recogniser to one speaker, judge whether it helps, and write a profile. NumPy only."""

from calibrate.fit import CANDIDATES, Candidate, Examples
from calibrate.judge import Fitted, Folds, Hearing, Judgement, Scores, fit_and_judge
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
