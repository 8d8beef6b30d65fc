from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edge.features.frontend import FrontEnd
from edge.features.normaliser import GainConfig
from edge.labels import EMOTIONS
from edge.model.manifest import Graphs, Manifest
from train.model_card import write_card

TRAINING = {
    "command": "mmtl train data --out second --start first",
    "before": "mmtl train data --out first",
    "corpora": [
        {"name": "one", "licence": "CC BY-NC-SA 4.0", "clips": 12, "ratings": "derived"},
        {"name": "two", "licence": "CC0 1.0", "clips": 7, "ratings": "human"},
    ],
    "speakers": {"train": ["a", "b"], "validation": ["c"], "test": []},
    "git_revision": "0123abc",
}
SCORES = {
    "speakers": 4,
    "clips": 44,
    "uar": 61.26,
    "low": 50.0,
    "high": 70.04,
    "worst": 41.0,
    "accuracy": 62.0,
    "macro_f1": 60.0,
    "ece": 5.5,
}


def card(folder: Path, training: dict[str, Any], metrics: dict[str, Any]) -> str:
    manifest = Manifest(
        name="a model",
        emotions=EMOTIONS,
        front_end=FrontEnd(),
        levels=GainConfig(),
        graphs=Graphs(((1, 11, 200),), 128, 256, 8, 49, 32),
        temperature_fitted=True,
        licence="CC BY-NC-SA 4.0 (not for commercial use)",
        training=training,
        metrics=metrics,
    )
    write_card(folder, manifest)
    return (folder / "CARD.md").read_text("utf-8")


def test_a_card_names_a_known_fault_of_the_training(tmp_path: Path) -> None:
    text = card(tmp_path, TRAINING | {"fault": "Two labels were exchanged."}, {})
    assert "**Known fault:** Two labels were exchanged." in text
    assert "Known fault" not in card(tmp_path, TRAINING, {})


def test_a_card_names_recordings_licences_commands_and_speakers(tmp_path: Path) -> None:
    text = card(tmp_path, TRAINING, {})
    assert text.startswith("# a model\n")
    assert "Weights: CC BY-NC-SA 4.0 (not for commercial use)." in text
    assert "| one | 12 | derived | CC BY-NC-SA 4.0 |" in text
    assert "| two | 7 | human | CC0 1.0 |" in text
    first, second = (text.index(f"    {TRAINING[key]}\n") for key in ("before", "command"))
    assert first < second
    assert "- train speakers (2): a, b\n- validation speakers (1): c\n- test speakers (0): none\n" in text
    assert "- git revision: 0123abc" in text
    assert "## Limits" in text


def test_a_card_names_the_algorithm(tmp_path: Path) -> None:
    assert "3 s of speech, by Meta Multi" in card(tmp_path, TRAINING | {"options": {"algorithm": "mmtl"}}, {})
    tuned = {"options": {"head": {"algorithm": "mtl"}}}
    assert "3 s of speech, by multi-task learning." in card(tmp_path, TRAINING | tuned, {})
    assert "from 3 s of speech.\n" in card(tmp_path, TRAINING, {})


def test_a_card_shows_the_scores_of_held_out_training_speakers(tmp_path: Path) -> None:
    held_out = {
        "none": {"mean_uar": 60.0, "corpora": {"one": adapted_scores(uar=58.0), "two": SCORES}},
        "ordinary": {"mean_uar": 65.0, "corpora": {"one": SCORES | {"uar": 65.0}}},
    }
    text = card(tmp_path, TRAINING, {"cross_fitted": held_out})
    assert "### Cross-validation by speaker" in text
    assert "| `none` | 59.6 (2) | 58.0 | 61.3 | 41.0 |\n| `ordinary` | 65.0 (1) | 65.0 | - | 41.0 |" in text
    assert "| one | 50 | 75 | - | 100 |" in text
    assert "Not measured yet" in text  # by the runtime
    measured = {"none": {"command": "mmtl evaluate", "corpora": {"one": SCORES}}}
    assert "Not measured yet" not in card(tmp_path, TRAINING, measured | {"cross_fitted": held_out})


def test_a_card_names_the_origin_and_licence_of_a_pretrained_encoder(tmp_path: Path) -> None:
    encoder = {"name": "tiny.safetensors", "sha256": "0a1b", "licence": "MIT (OpenAI Whisper)"}
    text = card(tmp_path, TRAINING | {"encoder": encoder}, {})
    assert "which training did not change, are those of tiny.safetensors." in text
    assert "Their licence: MIT (OpenAI Whisper)." in text
    assert "- SHA-256 of the encoder's weights: 0a1b" in text
    assert text.index("0a1b") < text.index("## Recordings")
    assert "encoder" not in card(tmp_path, TRAINING, {})
    tuned = card(tmp_path, TRAINING | {"encoder": {**encoder, "tuned": "block 2"}}, {})
    assert "are those of tiny.safetensors, but for its block 2, which was tuned." in tuned
    assert "What was learned from the recordings is in its block 2 and in the head." in tuned
    assert "- SHA-256 of the encoder's weights before: 0a1b" in tuned


def test_a_card_shows_recording_conditions_and_ordinary_speech(tmp_path: Path) -> None:
    conditions = {
        "clean": {"uar": {"one": 60.0, "two": 50.0}, "loss": {"one": 0.0, "two": 0.0}},
        "noise20": {"uar": {"one": 55.5, "two": 51.0}, "loss": {"one": 4.5, "two": -1.0}},
    }
    claim = {
        "corpus": "reading",
        "baseline": "running",
        "windows": 1234,
        "shares": {"neutral": 60.0, "happy": 5.0, "sad": 4.0, "angry": 1.0, "unsure": 30.0},
        "claimed": 10.0,
    }
    measured = {
        "speech": {"command": "mmtl evaluate x --speech there", "claims": [claim]},
        "conditions": {"command": "mmtl evaluate x y --conditions noise20", "conditions": conditions},
    }
    text = card(tmp_path, TRAINING, measured)
    assert "    mmtl evaluate x y --conditions noise20\n" in text
    assert "| condition | what it is | one | two |\n|---|---|---|---|\n" in text
    row = "noise of kinds kept out of training, at 20 dB"
    assert f"| `noise20` | {row} | 55.5 / 4.5 | 51.0 / -1.0 |" in text
    assert "    mmtl evaluate x --speech there\n" in text
    assert "| reading | running | 1234 | 60 | 5 | 4 | 1 | 30 | 10.0 |" in text
    assert "| protocol |" not in text


def test_a_card_without_scores_says_how_to_get_them(tmp_path: Path) -> None:
    assert "Not measured yet: run `mmtl evaluate BUNDLE CORPUS --record`." in card(tmp_path, TRAINING, {})


def test_a_card_shows_the_scores_and_the_command_that_reproduces_them(tmp_path: Path) -> None:
    measured = {"none": {"command": "mmtl evaluate here there --record", "corpora": {"one": SCORES}}}
    text = card(tmp_path, TRAINING, measured)
    assert "### Protocol `none`" in text
    assert "    mmtl evaluate here there --record\n" in text
    assert "| one | 4 | 44 | 61.3 (50.0 to 70.0) | 41.0 | 62.0 | 60.0 | 5.5 |" in text
    assert "Not measured yet" not in text
    assert "unsure below" not in text


def test_a_card_shows_what_unsure_costs_and_gains(tmp_path: Path) -> None:
    answers = [
        {"threshold": 0.3, "coverage": 100.0, "accuracy": 61.4},
        {"threshold": 0.8, "coverage": 0.0, "accuracy": None},
    ]
    measured = {"none": {"command": "mmtl evaluate", "corpora": {"one": SCORES}, "answers": answers}}
    text = card(tmp_path, TRAINING, measured)
    assert "| unsure below | clips answered | of these right |\n|---|---|---|\n" in text
    assert "| 0.3 | 100 | 61 |\n| 0.8 | 0 | - |\n" in text


def adapted_scores(**changed: Any) -> dict[str, Any]:
    recalls = {"neutral": 50.0, "happy": 75.4, "sad": None, "angry": 100.0}
    return SCORES | {"recalls": recalls, "change": 3.25, "harmed": 25.0} | changed


def test_a_card_compares_the_protocols(tmp_path: Path) -> None:
    none = {"command": "mmtl evaluate a", "corpora": {"one": SCORES, "unheard": SCORES | {"uar": 40.0}}}
    ordinary = {
        "command": "mmtl evaluate b",
        "corpora": {"one": adapted_scores(uar=70.0, worst=33.0)},
        "left_out": {"unheard": ["x", "y"]},
        "refusals": ["z: more than one person seems to speak"],
    }
    text = card(tmp_path, TRAINING, {"ordinary": ordinary, "none": none})
    assert "| protocol | mean | one | unheard | worst speaker |" in text
    assert "| `none` | 61.3 (1) | 61.3 | 40.0 | 41.0 |\n| `ordinary` | 70.0 (1) | 70.0 | - | 33.0 |" in text
    assert text.index("### Protocol `none`") < text.index("### Protocol `ordinary`")
    assert "| one | 4 | 44 | 70.0 (50.0 to 70.0) | 33.0 | 62.0 | 60.0 | 5.5 | 3.2 | 25.0 |" in text
    assert (
        "| recall | neutral | happy | sad | angry |\n|---|---|---|---|---|\n| one | 50 | 75 | - | 100 |"
        in text
    )
    assert "Left out, as they have too few clips: unheard: x, y." in text
    assert "the generic model was scored: z: more than one person seems to speak." in text
    assert "in two random orders" not in text


def test_the_mean_is_over_all_corpora_if_none_was_trained_on(tmp_path: Path) -> None:
    corpora = {"p": adapted_scores(uar=50.0), "q": adapted_scores(uar=60.0)}
    measured = {name: {"command": "mmtl evaluate", "corpora": corpora} for name in ("none", "running")}
    assert "| `running` | 55.0 (2) | 50.0 | 60.0 | 41.0 |" in card(tmp_path, TRAINING, measured)


@pytest.mark.parametrize("missing", ["before", "speakers", "git_revision", "corpora", "command"])
def test_a_card_can_be_written_of_a_model_with_less_of_a_record(tmp_path: Path, missing: str) -> None:
    text = card(tmp_path, {key: value for key, value in TRAINING.items() if key != missing}, {})
    assert "## Training" in text
    assert "None" not in text


def test_writing_a_card_leaves_nothing_else(tmp_path: Path) -> None:
    card(tmp_path, TRAINING, {})
    assert [path.name for path in tmp_path.iterdir()] == ["CARD.md"]
