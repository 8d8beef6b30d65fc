"""Judgements with figures that can be told apart wherever they are shown."""

from __future__ import annotations

from calibrate.fitting.candidates import CANDIDATES
from calibrate.fitting.model_selection import Judgement
from calibrate.fitting.scores import Gain, Scores
from edge.model.profile import ADOPTED, REJECTED

GENERIC, BIAS, *_ = CANDIDATES

BEFORE = Scores(0.4375, 1.125, 0.25, ((3, 1, 0, 0), (0, 0, 4, 0), (1, 0, 3, 0), (0, 2, 1, 1)))
AFTER = Scores(0.875, 0.5, 0.0625, ((4, 0, 0, 0), (0, 3, 1, 0), (0, 0, 3, 1), (0, 0, 0, 4)))

HELPED = Judgement(
    chosen=BIAS,
    verdict=ADOPTED,
    reason="it lowers the log loss of held-out takes by 0.62",
    scores={"generic": BEFORE, "bias": AFTER},
    gains={"uar": Gain(0.4375, 0.1875, 0.6875), "log_loss": Gain(0.625, 0.25, 0.875)},
)

TWO_EMOTIONS = Scores(0.5, 0.75, 0.125, ((2, 0, 0, 0), (0, 0, 2, 0), (0, 0, 0, 0), (0, 0, 0, 0)))

UNCHANGED = Judgement(
    chosen=GENERIC,
    verdict=REJECTED,
    reason="nothing can be fitted without takes of sad and of angry: record some of each",
    scores={"generic": TWO_EMOTIONS},
    gains={"uar": Gain(0.0, 0.0, 0.0), "log_loss": Gain(-0.0, -0.0, -0.0)},
)
