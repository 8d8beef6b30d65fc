"""CARD.md: what a bundle is made of, how good it is, and where it should not be used."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from edge.model.manifest import CARD, Manifest
from edge.system.files import atomic_write
from train.card_scores import trained_corpora, written_scores

LIMITS = """\
- It was trained on acted speech. Expect lower scores on speech that is not acted and on other microphones,
  and calibrate.
- It knows four emotions. Speech in any other is labelled as one of these or as "unsure".
- The sound of a voice does not show what a person feels. Do not judge people by it: not in hiring, policing,
  education, health or insurance.
- Valence, arousal and dominance were derived from the emotions by a table (Russell & Mehrabian 1977)
  wherever the list of recordings says "derived": they then add nothing beyond the emotion.
"""


ALGORITHMS: Final = {
    "mmtl": "Meta Multi-Task Learning (Cai et al. 2020)",
    "mtl": "multi-task learning",
    "erm": "supervised training",
    "reptile": "Reptile (Nichol et al. 2018)",
}


def write_card(folder: Path, manifest: Manifest) -> None:
    """Write the card of a bundle from its manifest."""
    parts = [
        f"# {manifest.name}",
        f"Neutral, happy, sad or angry, from 3 s of speech{_by(manifest.training)}.",
        f"Weights: {manifest.licence}. Attribution: the recordings below." + _encoder(manifest.training),
        "## Recordings\n\n" + _recordings(manifest.training),
        "## Training\n\n" + _training(manifest.training),
        "## Scores\n\n" + written_scores(manifest.metrics, trained_corpora(manifest.training)),
        "## Limits\n\n" + LIMITS,
    ]
    with atomic_write(folder / CARD) as partial:
        partial.write_text("\n\n".join(part.strip() for part in parts) + "\n", "utf-8")


def _by(training: dict[str, Any]) -> str:
    """Name the algorithm of the training."""
    options = training.get("options", {})
    algorithm = options.get("algorithm") or options.get("head", {}).get("algorithm")
    return f", by {ALGORITHMS[algorithm]}" if algorithm in ALGORITHMS else ""


def _encoder(training: dict[str, Any]) -> str:
    """Write where the weights of a pretrained encoder are from; nothing, if there is none."""
    origin = training.get("encoder")
    if not origin:
        return ""
    tuned = origin.get("tuned")
    if tuned:
        weights = (
            f"The encoder's weights are those of {origin['name']}, but for its {tuned}, which was tuned."
        )
    else:
        weights = f"The encoder's weights, which training did not change, are those of {origin['name']}."
    learned = f"its {tuned} and in the head" if tuned else "the head"
    lines = [
        "",
        "",
        weights,
        f"Their licence: {origin['licence']}. What was learned from the recordings is in {learned}.",
    ]
    if "sha256" in origin:
        lines += ["", f"- SHA-256 of the encoder's weights{' before' if tuned else ''}: {origin['sha256']}"]
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
