"""Judgements with distinct figures, so that each can be found where it is shown."""

from __future__ import annotations

from calibrate.fitting.candidates import CANDIDATES
from calibrate.fitting.model_selection import Judgement
from calibrate.fitting.scores import HeldOutScores, Improvement
from edge.model.profile import ADOPTED, REJECTED

GENERIC, BIAS = (next(item for item in CANDIDATES if item.name == name) for name in ("generic", "bias"))

BEFORE = HeldOutScores(0.4375, 1.125, 0.25, ((3, 1, 0, 0), (0, 0, 4, 0), (1, 0, 3, 0), (0, 2, 1, 1)))
AFTER = HeldOutScores(0.875, 0.5, 0.0625, ((4, 0, 0, 0), (0, 3, 1, 0), (0, 0, 3, 1), (0, 0, 0, 4)))

HELPED = Judgement(
    chosen=BIAS,
    verdict=ADOPTED,
    reason="it lowers the log loss of held-out takes by 0.62",
    scores={"generic": BEFORE, "bias": AFTER},
    improvements={"uar": Improvement(0.4375, 0.1875, 0.6875), "log_loss": Improvement(0.625, 0.25, 0.875)},
)

TWO_EMOTIONS = HeldOutScores(0.5, 0.75, 0.125, ((2, 0, 0, 0), (0, 0, 2, 0), (0, 0, 0, 0), (0, 0, 0, 0)))

UNCHANGED = Judgement(
    chosen=GENERIC,
    verdict=REJECTED,
    reason="nothing can be fitted without takes of sad and of angry: record two or more of each",
    scores={"generic": TWO_EMOTIONS},
    improvements={"uar": Improvement(0.0, 0.0, 0.0), "log_loss": Improvement(-0.0, -0.0, -0.0)},
)
