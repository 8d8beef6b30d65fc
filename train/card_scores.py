"""The scores in a bundle's card, from what its manifest records."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any, Final

from edge.labels import EMOTIONS
from train.protocols import PROTOCOLS
from train.scoring_conditions import DESCRIBED
from train.speech_claims import LABELS

NOT_MEASURED: Final = "Not measured yet: run `mmtl evaluate BUNDLE CORPUS --record`."

SUMMARY: Final = """\
UAR in percent by what is known of the speaker. The mean is that of the corpora with training
speakers, their number in brackets.\
"""

HELD_OUT: Final = {
    "cross_fitted": (
        "Cross-validation by speaker",
        "Each training speaker was scored by a head that was trained on other speakers.",
    ),
    "leave_corpus_out": (
        "Held-out corpora",
        "Each corpus was scored by a head that was trained on the others.",
    ),
}
"""Scores of a training run: title, and what was scored."""

KNOWN_OF_SPEAKER: Final = {
    "none": "Each clip is a new stream.",
    "running": "The clips of a speaker follow each other in one stream, in two random orders, with pauses of "
    "1 s; those are scored that begin after 20 s.",
    "ordinary": "Each speaker has a profile from up to 20 s of neutral clips, two random choices; the other "
    "clips are scored.",
    "labelled": "Each speaker is calibrated on two labelled clips of each emotion; the others are scored.",
}

CHANGE: Final = """\
Clips: answers, over all draws. Change: mean over speakers, in points, against `none` on the same clips;
harmed: share of speakers that lose more than 2 points.\
"""


def trained_corpora(training: dict[str, Any]) -> list[str]:
    """Return the names of the corpora with training speakers."""
    return [corpus["name"] for corpus in training.get("corpora", [])]


def written_scores(metrics: dict[str, Any], known: Collection[str]) -> str:
    """Write all that was measured.

    Args:
        metrics: by name of what was measured.
        known: corpora with training speakers.
    """
    writers: dict[str, Callable[[str, dict[str, Any]], str]] = {
        "calibrated": _shots,
        "conditions": _conditions,
        "speech": _speech,
    }
    writers |= dict.fromkeys(HELD_OUT, _held_out)
    rank = {name: place for place, name in enumerate((*PROTOCOLS, *writers))}
    names = sorted(metrics, key=lambda name: rank.get(name, len(rank)))
    by_protocol: dict[str, dict[str, Any]] = {
        name: metrics[name]["corpora"] for name in names if name in PROTOCOLS
    }
    parts = [] if set(metrics) - set(HELD_OUT) else [NOT_MEASURED]
    parts += [SUMMARY + "\n\n" + _by_corpus(by_protocol, known)] if len(by_protocol) > 1 else []
    parts += [writers.get(name, _protocol)(name, metrics[name]) for name in names]
    return "\n\n".join(parts)


def _by_corpus(by_protocol: dict[str, dict[str, Any]], known: Collection[str]) -> str:
    """Write a table of the UAR by protocol and corpus."""
    corpora = sorted({corpus for scores in by_protocol.values() for corpus in scores})
    columns = ["protocol", "mean", *corpora, "worst speaker"]
    lines = ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    for name, scores in by_protocol.items():
        chosen = [corpus for corpus in scores if corpus in known] or list(scores)
        mean = sum(scores[corpus]["uar"] for corpus in chosen) / len(chosen)
        found = [f"{scores[corpus]['uar']:.1f}" if corpus in scores else "-" for corpus in corpora]
        worst = min(item["worst"] for item in scores.values())
        cells = [f"`{name}`", f"{mean:.1f} ({len(chosen)})", *found, f"{worst:.1f}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _held_out(name: str, measured: dict[str, Any]) -> str:
    """Write what the training run measured on speakers that it held out in turn."""
    title, what = HELD_OUT[name]
    by_protocol = {protocol: scores["corpora"] for protocol, scores in measured.items()}
    lines = [
        f"### {title}",
        "",
        what,
        "Measured by the training command, in torch and not by the runtime. UAR in percent by the speaker's",
        "baseline: `none`, `running` (the speech heard before, at least 20 s), `ordinary` (about 20 s of",
        "neutral speech). The mean is over corpora, their number in brackets. Recall is without a baseline.",
        "",
        _by_corpus(by_protocol, ()),
        *_recalls(by_protocol.get("none", {})),
    ]
    return "\n".join(lines)


def _protocol(name: str, measured: dict[str, Any]) -> str:
    corpora = measured["corpora"]
    adapted = any(item.get("change") is not None for item in corpora.values())
    extra = ["change", "harmed"] if adapted else []
    columns = ["corpus", "speakers", "clips", "UAR", "worst speaker", "accuracy", "macro F1", "ECE", *extra]
    lines = [
        f"### Protocol `{name}`",
        "",
        f"    {measured['command']}",
        "",
        f"Percent. {KNOWN_OF_SPEAKER.get(name, KNOWN_OF_SPEAKER['none'])}",
        "A clip's posterior is the mean of its windows'; the speakers were in neither training nor",
        "validation. In brackets: the 95 % interval over speakers.",
        *([CHANGE] if adapted else []),
        "",
        "| " + " | ".join(columns) + " |",
        "|---" * len(columns) + "|",
        *(_row(corpus, scores, extra) for corpus, scores in corpora.items()),
        *_recalls(corpora),
        *_left_out(measured),
    ]
    return "\n".join(lines + (_answers(measured.get("answers", [])) if name == "none" else []))


def _recalls(corpora: dict[str, Any]) -> list[str]:
    """Write the recall of each emotion; a bundle that was measured before has no such figures."""
    rows = {corpus: scores["recalls"] for corpus, scores in corpora.items() if scores.get("recalls")}
    if not rows:
        return []
    return [
        "",
        "| recall | " + " | ".join(EMOTIONS) + " |",
        "|---" * (1 + len(EMOTIONS)) + "|",
        *(
            f"| {corpus} | " + " | ".join(_whole(found.get(emotion)) for emotion in EMOTIONS) + " |"
            for corpus, found in rows.items()
        ),
    ]


def _left_out(measured: dict[str, Any]) -> list[str]:
    """Write which speakers were left out, and whose adaptation was refused."""
    lines = []
    if left_out := measured.get("left_out"):
        named = "; ".join(f"{corpus}: {', '.join(names)}" for corpus, names in left_out.items())
        lines += ["", f"Left out, as they have too few clips: {named}."]
    if refusals := measured.get("refusals"):
        lines += ["", f"Refused, so that the generic model was scored: {'; '.join(refusals)}."]
    return lines


def _whole(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}"


def _shots(name: str, measured: dict[str, Any]) -> str:
    """Write what calibration is worth by corpus and number of shots."""
    lines = [
        f"### Protocol `{name}`",
        "",
        f"    {measured['command']}",
        "",
        f"Mean UAR over speakers in percent, {measured['draws']} draws of the clips to calibrate on; the",
        "speakers were in neither training nor validation. What calibration rejects stays the generic model.",
        "Harmed: share of speakers who lose more than 2 points.",
        "",
        "| corpus | shots | speakers | before | after | worst before | worst after | harmed |",
        "|---|---|---|---|---|---|---|---|",
    ]
    return "\n".join([*lines, *map(_shot_row, measured["shots"])])


def _conditions(name: str, measured: dict[str, Any]) -> str:
    """Write the UAR under changed recording conditions, and what that loses against clean sound."""
    scores = measured["conditions"]
    corpora = list(dict.fromkeys(corpus for item in scores.values() for corpus in item["uar"]))
    lines = [
        "### Recording conditions",
        "",
        f"    {measured['command']}",
        "",
        "UAR in percent / points lost against clean sound, without adaptation, by corpus.",
        "",
        "| condition | what it is | " + " | ".join(corpora) + " |",
        "|---" * (2 + len(corpora)) + "|",
    ]
    for condition, item in scores.items():
        cells = [f"{item['uar'][corpus]:.1f} / {item['loss'][corpus]:.1f}" for corpus in corpora]
        lines.append(f"| `{condition}` | {DESCRIBED[condition]} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _speech(name: str, measured: dict[str, Any]) -> str:
    """Write how often an emotion is claimed in ordinary speech."""
    lines = [
        "### Ordinary speech",
        "",
        f"    {measured['command']}",
        "",
        "Percent of the windows with speech, by label, in readings and commands without an emotion label.",
        "Claimed: an emotion other than neutral.",
        "",
        "| speech | baseline | windows | " + " | ".join(LABELS) + " | claimed |",
        "|---" * (4 + len(LABELS)) + "|",
    ]
    for item in measured["claims"]:
        shares = [f"{item['shares'][label]:.0f}" for label in LABELS]
        cells = [item["corpus"], item["baseline"], str(item["windows"]), *shares, f"{item['claimed']:.1f}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _shot_row(item: dict[str, Any]) -> str:
    figures = [f"{item[key]:.1f}" for key in ("before", "after", "worst_before", "worst_after", "harmed")]
    return "| " + " | ".join([item["corpus"], str(item["shots"]), str(item["speakers"]), *figures]) + " |"


def _answers(answers: list[dict[str, Any]]) -> list[str]:
    """Write what "unsure" costs and gains; a bundle that was measured before has no such figures."""
    if not answers:
        return []
    rows = [
        f"| {item['threshold']:g} | {item['coverage']:.0f} | {_whole(item['accuracy'])} |" for item in answers
    ]
    return [
        "",
        'The same clips together, by the probability below which the answer is "unsure":',
        "",
        "| unsure below | clips answered | of these right |",
        "|---|---|---|",
        *rows,
    ]


def _row(corpus: str, scores: dict[str, Any], extra: Sequence[str]) -> str:
    uar = f"{scores['uar']:.1f} ({scores['low']:.1f} to {scores['high']:.1f})"
    rest = [f"{scores[key]:.1f}" for key in ("worst", "accuracy", "macro_f1", "ece", *extra)]
    return "| " + " | ".join([corpus, str(scores["speakers"]), str(scores["clips"]), uar, *rest]) + " |"
