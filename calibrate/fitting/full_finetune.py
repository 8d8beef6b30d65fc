"""`--full`: the whole network tuned to one speaker, by a package that needs torch and is found by name."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from calibrate.fitting.candidates import CANDIDATES, Candidate
from calibrate.fitting.model_selection import Judgement, judge
from calibrate.fitting.scores import Answers, Scores
from calibrate.takes import Take
from edge.arrays import Array
from edge.errors import UsageError
from edge.model.bundle import Bundle
from edge.model.profile import ADOPTED
from edge.system.shell import quoted

if TYPE_CHECKING:
    from rich.table import Table

GROUP: Final = "mmtl.full"
"""Entry points; its `speaker` is a `NetworkTunerFactory`."""

NEEDED: Final = ("torch", "torchaudio", "onnx")
"""What the extra `export` brings, and the base installation lacks."""

WHOLE: Final = "whole network"

GENERIC: Final = CANDIDATES[0]


class NetworkTuner(Protocol):
    """Ready to tune a network."""

    def fit(self, name: str, takes: Sequence[Take], sounds: Sequence[Array]) -> Judgement:
        """Tune on a session, judge by its held-out takes, and write a bundle if that helps.

        Args:
            name: of the speaker.
            takes: of one speaker.
            sounds: (N,) samples at 16 kHz of each.
        """


class NetworkTunerFactory(Protocol):
    """Checks, before anybody speaks, that a bundle can be tuned and the result be written."""

    def __call__(self, bundle: Bundle, folder: Path, *, replace: bool) -> NetworkTuner:
        """Prepare to tune.

        Args:
            bundle: the generic model.
            folder: where the speaker's bundle goes.
            replace: whether a bundle that is there already may go.
        """


def load_network_tuner(bundle: Bundle, folder: Path, *, replace: bool) -> NetworkTuner:
    """Prepare to tune the whole network of a bundle.

    Raises:
        UsageError: torch is not there, this is a copy that was not installed, the folder is in the
            way, or such a network cannot be tuned.
    """
    entry = next(iter(entry_points(group=GROUP, name="speaker")), None)
    if entry is None:
        raise UsageError("--full needs mmtl to be installed, with torch: pip install 'mmtl[export]'")
    try:
        make: NetworkTunerFactory = entry.load()
    except ModuleNotFoundError as error:
        if error.name not in NEEDED:
            raise
        raise UsageError(f"--full needs {error.name}: pip install 'mmtl[export]'") from error
    return make(bundle, folder, replace=replace)


def judge_tuned(before: Answers, after: Answers | None) -> Judgement:
    """Judge a tuned network as a profile is judged.

    Args:
        before: what the generic network answers to held-out takes.
        after: what the tuned ones do; None if the session does not support any.
    """
    whole = Candidate(WHOLE, own_statistics=False, fit=None)
    if after is None:
        return judge([GENERIC], {GENERIC.name: before})
    return judge([GENERIC, whole], {GENERIC.name: before, WHOLE: after})


def network_table(profile: Judgement, tuned: Judgement) -> Table:
    """Lay out what the profile and the tuned network give on held-out takes."""
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
    """Say what was decided about the tuned network, why, and what to do with it."""
    if tuned.verdict != ADOPTED:
        return f"{WHOLE} {tuned.verdict}: {tuned.reason}. No bundle was written."
    said = f"{WHOLE} {tuned.verdict}: {tuned.reason}\nUse it: mmtl monitor --bundle {quoted(folder)}"
    if profile.verdict == ADOPTED and _better(profile.after, tuned.after):
        said += "\nThe profile does better on held-out takes, and costs less: prefer it."
    return said


def _better(one: Scores, other: Scores) -> bool:
    return one.log_loss < other.log_loss
