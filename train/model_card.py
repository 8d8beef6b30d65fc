"""CARD.md: what a bundle is made of, how good it is, and where it should not be used."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, Final

from edge.labels import EMOTIONS
from edge.model.bundle import CARD, Manifest
from edge.system.files import atomic_write
from train.protocols import PROTOCOLS
from train.scoring_conditions import DESCRIBED
from train.speech_claims import LABELS

LIMITS = """\
- It hears acted speech only. How people sound when nobody acts differs, and so does every microphone: on
  speech of another kind expect less than these figures, and calibrate.
- Four emotions are far from all there are; anything else is pressed into them or called "unsure".
- How somebody sounds is not what they feel. Do not use it to judge people: not for hiring, policing,
  education, health or insurance.
- Valence, arousal and dominance were derived from the emotions by a table (Russell & Mehrabian 1977)
  wherever the list of recordings says "derived": they then add nothing beyond the emotion.
"""


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


def write_card(folder: Path, manifest: Manifest) -> None:
    """Write the card of a bundle from its manifest."""
    parts = [
        f"# {manifest.name}",
        "Neutral, happy, sad or angry, from 3 s of speech, by Meta Multi-Task Learning (Cai et al. 2020).",
        f"Weights: {manifest.licence}. Attribution: the recordings below." + _encoder(manifest.training),
        "## Recordings\n\n" + _recordings(manifest.training),
        "## Training\n\n" + _training(manifest.training),
        "## Scores\n\n" + _scores(manifest.metrics, trained_corpora(manifest.training)),
        "## Limits\n\n" + LIMITS,
    ]
    with atomic_write(folder / CARD) as partial:
        partial.write_text("\n\n".join(part.strip() for part in parts) + "\n", "utf-8")


def _encoder(training: dict[str, Any]) -> str:
    """Write where the weights of a pretrained encoder are from; nothing, if there is none."""
    origin = training.get("encoder")
    if not origin:
        return ""
    lines = [
        "",
        "",
        f"The encoder's weights, which training did not change, are those of {origin['name']}.",
        f"Their licence: {origin['licence']}. What was learned from the recordings is in the head.",
    ]
    if "sha256" in origin:
        lines += ["", f"- SHA-256 of the encoder's weights: {origin['sha256']}"]
    return "\n".join(lines)


def _recordings(training: dict[str, Any]) -> str:
    rows = [
        f"| {corpus['name']} | {corpus['clips']} | {corpus['ratings']} | {corpus['licence']} |"
        for corpus in training.get("corpora", [])
    ]
    return "\n".join(
        ["| corpus | clips | valence, arousal, dominance | licence |", "|---|---|---|---|", *rows]
    )


def _training(training: dict[str, Any]) -> str:
    speakers = training.get("speakers", {})
    lines = [f"    {training.get('command', 'unknown')}", ""]
    if training.get("before"):
        lines = [f"    {training['before']}", *lines]
    lines += [
        f"- {side} speakers ({len(names)}): {', '.join(names) or 'none'}" for side, names in speakers.items()
    ]
    lines.append(f"- git revision: {training.get('git_revision') or 'unknown'}")
    lines += ["", f"**Known fault:** {training['fault']}"] if training.get("fault") else []
    lines += _speaker(training["speaker"]) if "speaker" in training else []
    return "\n".join(lines)


def _speaker(tuned: dict[str, Any]) -> list[str]:
    """Write whom a network was tuned to, from what, and what that is worth."""
    origin, ratings, before, after = (tuned[key] for key in ("from", "ratings", "before", "after"))
    takes = ", ".join(f"{count} {emotion}" for emotion, count in tuned["takes"].items())
    return [
        "",
        f"Then the whole network was tuned to one speaker, {tuned['name']}, by `mmtl calibrate --full`:",
        "",
        f"- from the bundle `{origin['bundle']}` with the fingerprint {origin['fingerprint']}",
        f"- takes: {takes}; of their ratings {ratings['given']} were given, {ratings['derived']} derived",
        f"- held out by {tuned['held_out_by']}, UAR {before['uar']:.0%} before and {after['uar']:.0%} after, "
        f"log loss {before['log_loss']:.2f} and {after['log_loss']:.2f} nats",
    ]


def _scores(metrics: dict[str, Any], known: Collection[str]) -> str:
    """Write all that was measured.

    Args:
        metrics: by name of what was measured.
        known: corpora with training speakers.
    """
    if not metrics:
        return "Not measured yet: run `mmtl evaluate BUNDLE CORPUS --record`."
    writers = {"calibrated": _shots, "conditions": _conditions, "speech": _speech}
    rank = {name: place for place, name in enumerate((*PROTOCOLS, *writers))}
    names = sorted(metrics, key=lambda name: rank.get(name, len(rank)))
    by_protocol: dict[str, dict[str, Any]] = {
        name: metrics[name]["corpora"] for name in names if name in PROTOCOLS
    }
    parts = [_summary(by_protocol, known)] if len(by_protocol) > 1 else []
    parts += [writers.get(name, _protocol)(name, metrics[name]) for name in names]
    return "\n\n".join(parts)


def _summary(by_protocol: dict[str, dict[str, Any]], known: Collection[str]) -> str:
    """Write the UAR by protocol and corpus."""
    corpora = sorted({corpus for scores in by_protocol.values() for corpus in scores})
    columns = ["protocol", "mean", *corpora, "worst speaker"]
    lines = [
        "UAR in percent by what is known of the speaker. The mean is that of the corpora with training",
        "speakers, their number in brackets.",
        "",
        "| " + " | ".join(columns) + " |",
        "|---" * len(columns) + "|",
    ]
    for name, scores in by_protocol.items():
        chosen = [corpus for corpus in scores if corpus in known] or list(scores)
        mean = sum(scores[corpus]["uar"] for corpus in chosen) / len(chosen)
        found = [f"{scores[corpus]['uar']:.1f}" if corpus in scores else "-" for corpus in corpora]
        worst = min(item["worst"] for item in scores.values())
        cells = [f"`{name}`", f"{mean:.1f} ({len(chosen)})", *found, f"{worst:.1f}"]
        lines.append("| " + " | ".join(cells) + " |")
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
