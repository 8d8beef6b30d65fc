"""`--full`: tune the whole network to one speaker, with a package that needs torch and is an entry point."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from calibrate.fitting.candidates import CANDIDATES, Candidate
from calibrate.fitting.model_selection import Judgement, judge
from calibrate.fitting.scores import HeldOutPredictions, HeldOutScores
from calibrate.takes import Take
from edge.arrays import Array
from edge.errors import UsageError
from edge.model.bundle import Bundle
from edge.model.profile import ADOPTED
from edge.system.shell import quoted

if TYPE_CHECKING:
    from rich.table import Table

GROUP: Final = "mmtl.full"
"""Group of entry points; its `speaker` is a `NetworkTunerFactory`."""

NEEDED: Final = ("torch", "torchaudio", "onnx")
"""Packages of the extra `export` that the base installation lacks."""

WHOLE: Final = "whole network"

GENERIC: Final = CANDIDATES[0]


class NetworkTuner(Protocol):
    """Tunes the network of a bundle to one speaker."""

    def fit(self, name: str, takes: Sequence[Take], sounds: Sequence[Array]) -> Judgement:
        """Tune on a session, judge by its held-out takes, and write a bundle if it helps.

        Args:
            name: of the speaker.
            takes: of one speaker.
            sounds: (N,) samples at 16 kHz of each.
        """


class NetworkTunerFactory(Protocol):
    """Checks before the session that a bundle can be tuned and the result written."""

    def __call__(self, bundle: Bundle, folder: Path, *, replace: bool) -> NetworkTuner:
        """Prepare to tune.

        Args:
            bundle: the generic model.
            folder: of the speaker's bundle.
            replace: whether an existing bundle may be overwritten.
        """


def load_network_tuner(bundle: Bundle, folder: Path, *, replace: bool) -> NetworkTuner:
    """Prepare to tune the whole network of a bundle.

    Raises:
        UsageError: torch is missing, this copy of the program is not installed, the folder exists, or
            the network cannot be tuned.
    """
    entry = next(iter(entry_points(group=GROUP, name="speaker")), None)
    if entry is None:
        raise UsageError("--full needs an installed mmtl with torch", remedy="pip install 'mmtl[export]'")
    try:
        make: NetworkTunerFactory = entry.load()
    except ModuleNotFoundError as error:
        if error.name not in NEEDED:
            raise
        raise UsageError(f"--full needs {error.name}", remedy="pip install 'mmtl[export]'") from error
    return make(bundle, folder, replace=replace)


def judge_tuned(before: HeldOutPredictions, after: HeldOutPredictions | None) -> Judgement:
    """Judge a tuned network by the rule for profiles.

    Args:
        before: predictions of the generic network for held-out takes.
        after: those of the tuned networks; None if the session does not support tuning.
    """
    whole = Candidate(WHOLE, own_statistics=False, fit=None)
    if after is None:
        return judge([GENERIC], {GENERIC.name: before})
    return judge([GENERIC, whole], {GENERIC.name: before, WHOLE: after})


def network_table(profile: Judgement, tuned: Judgement) -> Table:
    """Lay out the held-out scores of the generic model, the profile and the tuned network."""
    from rich.table import Table

    columns = {GENERIC.name: tuned.before, f"profile ({profile.chosen.name})": profile.after}
    columns |= {WHOLE: tuned.scores[WHOLE]} if WHOLE in tuned.scores else {}
    table = Table("held-out takes", box=None)
    for column in columns:
        table.add_column(column, justify="right")
    table.add_row("recognised (UAR)", *(f"{scores.uar:.0%}" for scores in columns.values()))
    table.add_row("log loss (nats)", *(f"{scores.log_loss:.2f}" for scores in columns.values()))
    table.add_row("calibration error", *(f"{scores.ece:.2f}" for scores in columns.values()))
    return table


def network_conclusion(profile: Judgement, tuned: Judgement, folder: Path) -> str:
    """Say the verdict on the tuned network, its reason, and the next step."""
    if tuned.verdict != ADOPTED:
        return f"{WHOLE} {tuned.verdict}: {tuned.reason}. No bundle was written."
    said = f"{WHOLE} {tuned.verdict}: {tuned.reason}\nUse it: mmtl monitor --bundle {quoted(folder)}"
    if profile.verdict == ADOPTED and _better(profile.after, tuned.after):
        said += "\nThe profile does better on held-out takes and needs less computation: prefer it."
    return said


def _better(one: HeldOutScores, other: HeldOutScores) -> bool:
    return one.log_loss < other.log_loss
