"""Fit the recogniser to one speaker, judge whether it helps, and write a profile. NumPy only.

from calibrate import calibrate_speaker

calibration = calibrate_speaker("anna", "session.csv")  # a manifest with the columns path and emotion
print(calibration.judgement.verdict, calibration.judgement.reason)
calibration.save()  # mmtl monitor --profile anna
"""

import edge  # noqa: F401 - before ONNX Runtime, whose telemetry it turns off
from calibrate.fitting.candidates import CANDIDATES, Candidate
from calibrate.fitting.examples import Examples
from calibrate.fitting.folds import Folds
from calibrate.fitting.model_selection import Fitted, HeadInputs, Judgement, fit_and_judge
from calibrate.fitting.ordinary import OrdinaryFit, ordinary_head
from calibrate.fitting.scores import HeldOutScores
from calibrate.speaker import Calibration, OrdinaryCalibration, calibrate_ordinary, calibrate_speaker
from calibrate.takes import InputNormalisation, Take, read_sounds, read_takes

__all__ = [
    "CANDIDATES",
    "Calibration",
    "Candidate",
    "Examples",
    "Fitted",
    "Folds",
    "HeadInputs",
    "Judgement",
    "InputNormalisation",
    "HeldOutScores",
    "OrdinaryCalibration",
    "OrdinaryFit",
    "Take",
    "calibrate_ordinary",
    "calibrate_speaker",
    "fit_and_judge",
    "ordinary_head",
    "read_sounds",
    "read_takes",
]
