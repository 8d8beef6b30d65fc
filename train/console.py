"""Progress bars and tables on the terminal."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import TypeVar

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from edge.labels import EMOTIONS
from edge.output.console import plain_console
from edge.output.progress import Tenths, bars
from train.baseline_protocols import BaselineProtocol
from train.evaluation import CorpusScores
from train.few_shot import ShotScores
from train.metrics import SelectiveAccuracy
from train.protocols import ProtocolName, ProtocolScores, mean_uar
from train.scoring_conditions import ConditionName, ConditionScores
from train.speech_claims import LABELS, SpeechClaims

Item = TypeVar("Item")


class ConsoleProgress:
    """Progress bars with the time left, on stderr if it is a terminal."""

    def __init__(self) -> None:
        self._console = plain_console(stderr=True)

    def __call__(self, items: Iterable[Item], label: str, total: int) -> Iterator[Item]:
        """Yield the items, showing a bar that disappears at the end."""
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        tenths = Tenths(label)
        with bars(*columns, console=self._console) as progress:
            for done, item in enumerate(progress.track(items, total=total, description=label), 1):
                yield item
                tenths.show(done / total)

    def show(self, table: Table) -> None:
        """Print a table on stdout."""
        plain_console().print(table)

    def say(self, line: str) -> None:
        """Print a line above the bar."""
        self._console.print(line)


def answer_table(scores: dict[str, CorpusScores], together: Sequence[SelectiveAccuracy]) -> Table:
    """Build a table of coverage and accuracy by threshold of "unsure"."""
    columns = [f"{item.threshold:g}" for item in together]
    table = Table("unsure below", *columns, box=None, caption="% of clips answered / % of answers correct")
    for corpus, item in scores.items():
        table.add_row(corpus, *map(_answer, item.answers))
    table.add_row("together", *map(_answer, together))
    return table


def _answer(item: SelectiveAccuracy) -> str:
    right = "-" if item.accuracy is None else f"{item.accuracy:.0f}"
    return f"{item.coverage:.0f} / {right}"


def score_table(scores: dict[str, CorpusScores]) -> Table:
    """Build a table of the scores of each corpus without adaptation, and the mean over corpora."""
    columns = ("corpus", "speakers", "clips", "UAR", "95 % interval", "worst", "accuracy", "macro F1", "ECE")
    table = Table(*columns, box=None)
    for corpus, item in scores.items():
        figures = [f"{value:.1f}" for value in (item.worst, item.accuracy, item.macro_f1, item.ece)]
        table.add_row(*_uar_cells(corpus, item), *figures)
    mean = sum(item.uar for item in scores.values()) / len(scores)
    table.add_row("mean", "", "", f"{mean:.1f}")
    return table


def adapted_table(protocol: ProtocolName, scores: dict[str, CorpusScores]) -> Table:
    """Build a table of the scores of each corpus with adaptation, and what that changes."""
    columns = ("corpus", "speakers", "answers", "UAR", "95 % interval", "worst", "ECE", "change", "harmed")
    table = Table(*columns, "heard", box=None, title=protocol, title_justify="left")
    for corpus, item in scores.items():
        table.add_row(
            *_uar_cells(corpus, item),
            f"{item.worst:.1f}",
            f"{item.ece:.1f}",
            "-" if item.change is None else f"{item.change:+.1f}",
            "-" if item.harmed is None else f"{item.harmed:.0f}",
            "-" if item.speech_s is None else f"{item.speech_s:.0f} s",
        )
    table.caption = "change against none on the same clips; harmed: % of speakers that lose over 2"
    return table


def _uar_cells(corpus: str, item: CorpusScores) -> tuple[str, ...]:
    interval = f"{item.low:.1f} to {item.high:.1f}"
    return corpus, str(item.speakers), str(item.clips), f"{item.uar:.1f}", interval


def recall_table(protocols: Mapping[ProtocolName, ProtocolScores]) -> Table:
    """Build a table of the recall of each emotion, by protocol and corpus."""
    table = Table("recall", "corpus", *EMOTIONS, box=None)
    for protocol, scores in protocols.items():
        for corpus, item in scores.corpora.items():
            found = [item.recalls[emotion] for emotion in EMOTIONS]
            table.add_row(protocol, corpus, *("-" if value is None else f"{value:.0f}" for value in found))
    return table


def protocol_table(protocols: Mapping[ProtocolName, ProtocolScores], known: Collection[str]) -> Table:
    """Build a table of the UAR by protocol: the mean over known corpora, then each corpus.

    Args:
        protocols: scores.
        known: corpora with training speakers.
    """
    corpora = list(dict.fromkeys(corpus for scores in protocols.values() for corpus in scores.corpora))
    table = Table("protocol", "mean", *corpora, "worst speaker", box=None)
    for protocol, scores in protocols.items():
        mean = mean_uar(scores, known)
        found = [scores.corpora.get(corpus) for corpus in corpora]
        worst = min((item.worst for item in scores.corpora.values()), default=None)
        table.add_row(
            protocol,
            "-" if mean is None else f"{mean[0]:.1f} ({mean[1]})",
            *("-" if item is None else f"{item.uar:.1f}" for item in found),
            "-" if worst is None else f"{worst:.1f}",
        )
    table.caption = "UAR; mean over corpora with training speakers, their number in brackets"
    return table


def held_out_table(scores: Mapping[BaselineProtocol, Mapping[str, CorpusScores]], speakers: str) -> Table:
    """Build a table of the UAR of each corpus by protocol, with its interval, and the mean over corpora."""
    names = sorted({corpus for by_corpus in scores.values() for corpus in by_corpus})
    table = Table("corpus", *scores, box=None, caption=f"UAR of {speakers} by the speaker's baseline")
    for name in names:
        row = [by_corpus.get(name) for by_corpus in scores.values()]
        table.add_row(
            name, *(f"{item.uar:.1f} ({item.low:.1f} to {item.high:.1f})" if item else "-" for item in row)
        )
    means = [sum(item.uar for item in by_corpus.values()) / len(by_corpus) for by_corpus in scores.values()]
    table.add_row("mean", *(f"{mean:.1f}" for mean in means))
    return table


def condition_table(conditions: Mapping[ConditionName, ConditionScores], known: Collection[str]) -> Table:
    """Build a table of the UAR under each recording condition, and the loss against clean sound.

    Args:
        conditions: scores.
        known: corpora with training speakers, which the mean is over.
    """
    corpora = list(dict.fromkeys(corpus for scores in conditions.values() for corpus in scores.uar))
    table = Table("condition", "mean", *corpora, box=None)
    for name, scores in conditions.items():
        mean, loss = scores.mean(known)
        cells = [f"{scores.uar[corpus]:.1f} / {scores.loss[corpus]:.1f}" for corpus in corpora]
        table.add_row(name, f"{mean:.1f} / {loss:.1f}", *cells)
    table.caption = "UAR in percent / points lost against clean; without adaptation"
    return table


def speech_table(claims: Sequence[SpeechClaims]) -> Table:
    """Build a table of what is claimed of ordinary speech."""
    table = Table("speech", "baseline", "windows", *LABELS, "claimed", box=None)
    for item in claims:
        shares = [f"{item.shares[label]:.0f}" for label in LABELS]
        table.add_row(item.corpus, item.baseline, str(item.windows), *shares, f"{item.claimed:.1f}")
    table.caption = "% of windows with speech; claimed: an emotion other than neutral"
    return table


def shot_table(scores: Sequence[ShotScores]) -> Table:
    """Build a table of the UAR before and after calibration, by corpus and number of shots."""
    columns = ("corpus", "shots", "speakers", "UAR", "gain", "worst speaker", "harmed", "adopted")
    table = Table(*columns, box=None, caption="UAR before and after, points, shares in percent")
    for item in scores:
        table.add_row(
            item.corpus,
            str(item.shots),
            str(item.speakers),
            f"{item.before:.1f} > {item.after:.1f}",
            f"{item.gain:+.1f}",
            f"{item.worst_before:.1f} > {item.worst_after:.1f}",
            f"{item.harmed:.0f}",
            f"{item.adopted:.0f}",
        )
    return table
