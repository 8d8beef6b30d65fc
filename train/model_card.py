"""CARD.md: what a bundle is made of, how good it is, and where it should not be used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edge.model.bundle import CARD, Manifest
from edge.system.files import atomic_write

LIMITS = """\
- It hears acted speech only. How people sound when nobody acts differs, and so does every microphone: on
  speech of another kind expect less than these figures, and calibrate.
- Four emotions are far from all there are; anything else is pressed into them or called "unsure".
- How somebody sounds is not what they feel. Do not use it to judge people: not for hiring, policing,
  education, health or insurance.
- Valence, arousal and dominance were derived from the emotions by a table (Russell & Mehrabian 1977)
  wherever the list of recordings says "derived": they then add nothing beyond the emotion.
"""


def write_card(folder: Path, manifest: Manifest) -> None:
    """Write the card of a bundle from its manifest."""
    parts = [
        f"# {manifest.name}",
        "Neutral, happy, sad or angry, from 3 s of speech, by Meta Multi-Task Learning (Cai et al. 2020).",
        f"Weights: {manifest.licence}. Attribution: the recordings below.",
        "## Recordings\n\n" + _recordings(manifest.training),
        "## Training\n\n" + _training(manifest.training),
        "## Scores\n\n" + _scores(manifest.metrics),
        "## Limits\n\n" + LIMITS,
    ]
    with atomic_write(folder / CARD) as partial:
        partial.write_text("\n\n".join(part.strip() for part in parts) + "\n", "utf-8")


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


def _scores(metrics: dict[str, Any]) -> str:
    if not metrics:
        return "Not measured yet: run `mmtl evaluate BUNDLE CORPUS --record`."
    writers = {"calibrated": _shots}
    return "\n\n".join(writers.get(name, _protocol)(name, measured) for name, measured in metrics.items())


def _protocol(name: str, measured: dict[str, Any]) -> str:
    head = [
        f"### Protocol `{name}`",
        "",
        f"    {measured['command']}",
        "",
        "Percent. Each clip is a new stream, its windows' posteriors averaged; the speakers were in neither",
        "training nor validation. In brackets: the 95 % interval over speakers.",
        "",
        "| corpus | speakers | clips | UAR | worst speaker | accuracy | macro F1 | ECE |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines = [*head, *(_row(corpus, scores) for corpus, scores in measured["corpora"].items())]
    return "\n".join(lines + _answers(measured.get("answers", [])))


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


def _shot_row(item: dict[str, Any]) -> str:
    figures = [f"{item[key]:.1f}" for key in ("before", "after", "worst_before", "worst_after", "harmed")]
    return "| " + " | ".join([item["corpus"], str(item["shots"]), str(item["speakers"]), *figures]) + " |"


def _answers(answers: list[dict[str, Any]]) -> list[str]:
    """Write what "unsure" costs and gains; a bundle that was measured before has no such figures."""
    if not answers:
        return []
    rows = [
        f"| {item['threshold']:g} | {item['coverage']:.0f} | "
        + ("-" if item["accuracy"] is None else f"{item['accuracy']:.0f}")
        + " |"
        for item in answers
    ]
    return [
        "",
        'The same clips together, by the probability below which the answer is "unsure":',
        "",
        "| unsure below | clips answered | of these right |",
        "|---|---|---|",
        *rows,
    ]


def _row(corpus: str, scores: dict[str, Any]) -> str:
    uar = f"{scores['uar']:.1f} ({scores['low']:.1f} to {scores['high']:.1f})"
    rest = [f"{scores[key]:.1f}" for key in ("worst", "accuracy", "macro_f1", "ece")]
    return "| " + " | ".join([corpus, str(scores["speakers"]), str(scores["clips"]), uar, *rest]) + " |"
