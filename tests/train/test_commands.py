"""`mmtl train`, then `mmtl export` and `mmtl evaluate` of what it made, as a person would type them."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from edge.errors import UsageError
from edge.model.bundle import load_bundle, write_head
from edge.model.manifest import write_manifest
from tests.command_line import exit_code_of
from tests.train.synthetic import SAMPLE_RATE, voice, write_corpus, write_iemocap
from train.checkpoint import load_cnn_lstm
from train.commands import auxiliary_tasks

SMALL = ("--epochs", "1", "--batch-size", "8", "--speakers", "2", "--samples", "4", "--threads", "1")


def mmtl(*arguments: object) -> int:
    """Call the command line and return its exit code."""
    threads = torch.get_num_threads()
    try:
        return exit_code_of(*arguments)
    finally:
        torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus"), takes=2, seconds=0.6)


@pytest.fixture(scope="module")
def run(corpus: Path) -> Path:
    folder = corpus.parent / "mmtl-run"
    assert mmtl("train", corpus, "--out", folder, *SMALL) == 0
    return folder


@pytest.fixture(scope="module")
def exported(run: Path) -> Path:
    folder = run.parent / "bundle"
    assert mmtl("export", run / "best.safetensors", "--out", folder) == 0
    return folder


def make_relative(folder: Path) -> None:
    """Give the head of a bundle weights for the speaker's baseline."""
    bundle = load_bundle(folder)
    shape = bundle.head.fc1_weight.shape
    weight = np.random.default_rng(3).standard_normal(shape).astype(np.float32) / shape[1] ** 0.5
    write_head(folder, replace(bundle.head, baseline_weight=weight), bundle.statistics)
    write_manifest(folder, bundle.manifest)


@pytest.fixture
def bundle(exported: Path, tmp_path: Path) -> Path:
    """A copy, as some tests record scores in it."""
    return Path(shutil.copytree(exported, tmp_path / "bundle"))


def refusal(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert mmtl(*arguments) == 2
    message = capsys.readouterr().err
    assert message.startswith("mmtl: ")
    assert message.count("\n") == 1
    return message


@pytest.mark.parametrize(
    ("letters", "tasks"),
    [
        ("v,a,d", ("valence", "arousal", "dominance")),
        ("d", ("dominance",)),
        ("A, v", ("arousal", "valence")),
    ],
)
def test_auxiliary_tasks_are_named_by_letters(letters: str, tasks: tuple[str, ...]) -> None:
    assert auxiliary_tasks(letters) == tasks


@pytest.mark.parametrize("letters", ["", "x", "v,v", "vad", "v,", "valence"])
def test_other_names_of_auxiliary_tasks_are_refused(letters: str) -> None:
    with pytest.raises(UsageError, match=r"--auxiliary .* is invalid: give one or more of v,a,d, each once"):
        auxiliary_tasks(letters)


def test_mmtl_trains_on_a_manifest_end_to_end(run: Path) -> None:
    training = load_cnn_lstm(run / "best.safetensors").training
    assert training["options"]["algorithm"] == "mmtl"
    assert training["command"].startswith("mmtl train ")
    assert training["corpora"] == [
        {"name": "synthetic", "licence": "unknown", "clips": 32, "ratings": "derived"}
    ]
    assert sorted(map(len, training["speakers"].values())) == [1, 1, 2]


@pytest.mark.parametrize("algorithm", ["erm", "mtl", "reptile"])
def test_the_baselines_train_on_a_manifest_end_to_end(corpus: Path, tmp_path: Path, algorithm: str) -> None:
    arguments = ("--algorithm", algorithm, "--auxiliary", "a,d", *SMALL)
    assert mmtl("train", corpus, "--out", tmp_path / "run", *arguments) == 0
    arch = load_cnn_lstm(tmp_path / "run" / "best.safetensors").net.arch
    assert arch.dimensions == 2
    assert (arch.heads, arch.emotions) == {
        "erm": ("shared", "transferred"),
        "mtl": ("separate", "direct"),
        "reptile": ("shared", "transferred"),
    }[algorithm]


def test_mmtl_trains_on_the_folders_of_iemocap_with_every_variant(tmp_path: Path) -> None:
    release = write_iemocap(tmp_path / "release")
    variants = ("--heads", "separate", "--query", "disjoint", "--inner-steps", "2", "--double-softmax")
    out = tmp_path / "run"
    assert mmtl("train", release, "--out", out, "--augment", "0", *variants, *SMALL) == 0
    training = load_cnn_lstm(out / "best.safetensors").training
    assert training["corpora"][0]["ratings"] == "human"
    assert training["architecture"]["heads"] == "separate"
    assert training["options"]["rates"] == {
        "inner_lr": 0.01,
        "transfer_lr": 0.01,
        "inner_steps": 2,
        "query": "disjoint",
        "loss": {"label_smoothing": 0.0, "double_softmax": True},
    }


def test_a_run_is_gone_on_with_by_adding_resume_to_its_command(
    corpus: Path, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (run / "best.safetensors").read_bytes()
    arguments = ("train", corpus, "--out", run, *SMALL)
    assert "already holds a run" in refusal(capsys, *arguments)
    assert "different options" in refusal(capsys, *arguments, "--seed", 3, "--resume")
    assert mmtl(*arguments, "--resume") == 0
    assert (run / "best.safetensors").read_bytes() == before


def test_a_corpus_that_the_split_leaves_out_is_not_among_the_recordings(corpus: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.csv"
    rows = (corpus / "manifest.csv").read_text().replace(",synthetic,s", ",other,o").splitlines()
    other.write_text("\n".join([rows[0], *(f"{corpus}/{row}" for row in rows[1:])]))
    sides = {"validation": ["s2"], "test": ["s3"], "exclude_corpora": ["other"]}
    (tmp_path / "split.json").write_text(json.dumps(sides))
    arguments = ("--split", tmp_path / "split.json", "--algorithm", "erm", *SMALL)
    assert mmtl("train", corpus, other, "--out", tmp_path / "run", *arguments) == 0
    training = load_cnn_lstm(tmp_path / "run" / "best.safetensors").training
    assert [item["name"] for item in training["corpora"]] == ["synthetic"]


@pytest.mark.parametrize("device", ["abacus", "cuda:99"])
def test_a_device_that_cannot_be_used_is_refused(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], device: str
) -> None:
    arguments = ("train", corpus, "--out", tmp_path / "run", "--device", device)
    assert "name cpu or cuda" in refusal(capsys, *arguments)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--auxiliary", "v,x"), "give one or more of v,a,d"),
        (("--exclude", "other"), "choose from synthetic"),
        (("--algorithm", "reptile", "--inner-lr", "0"), "--inner-lr 0 does not move a speaker's weights"),
        (("--split", "none.json"), "there is no split file"),
    ],
)
def test_options_that_cannot_be_used_are_refused_before_anything_is_written(
    corpus: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    message: str,
) -> None:
    assert message in refusal(capsys, "train", corpus, "--out", tmp_path / "run", *arguments)
    assert not (tmp_path / "run").exists()


def test_a_missing_start_is_refused(corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert mmtl("train", corpus, "--out", tmp_path / "run", "--start", tmp_path / "none") == 4
    assert capsys.readouterr().err.startswith("mmtl: there is no checkpoint")


def test_an_exported_run_is_scored_and_its_scores_are_kept(
    corpus: Path, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = load_bundle(bundle)
    assert "Not measured yet" in (bundle / "CARD.md").read_text()
    assert mmtl("evaluate", bundle, corpus, "--record", "--json") == 0
    captured = capsys.readouterr()
    assert "labelled: too few clips in synthetic of s" in captured.err
    printed = json.loads(captured.out)["none"]["corpora"]
    after = load_bundle(bundle)
    assert after.fingerprint == before.fingerprint
    recorded = after.manifest.metrics["none"]
    assert recorded["corpora"]["synthetic"]["uar"] == printed["synthetic"]["uar"]
    assert recorded["command"].startswith("mmtl evaluate ")
    (test_speaker,) = after.manifest.training["speakers"]["test"]
    assert list(printed["synthetic"]["per_speaker"]) == [test_speaker]
    card = (bundle / "CARD.md").read_text()
    assert f"| synthetic | 1 | 8 | {printed['synthetic']['uar']:.1f} (" in card


def test_a_table_is_shown_to_people(corpus: Path, bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert mmtl("evaluate", bundle, corpus, "--heard") == 0
    shown = capsys.readouterr().out
    assert "synthetic" in shown
    assert "UAR" in shown


def test_the_shots_curve_is_shown_drawn_and_kept(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus = write_corpus(tmp_path / "corpus", speakers=4, takes=3, seconds=0.7)
    picture = tmp_path / "shots.png"
    options = ["--shots", "0,2", "--draws", "1", "--picture", picture, "--record", "--json"]
    assert mmtl("evaluate", bundle, corpus, *options) == 0
    printed = json.loads(capsys.readouterr().out)
    assert [(item["corpus"], item["shots"]) for item in printed] == [("synthetic", 0), ("synthetic", 2)]
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert load_bundle(bundle).manifest.metrics["calibrated"]["shots"] == printed
    assert f"| synthetic | 2 | 1 | {printed[1]['before']:.1f} |" in (bundle / "CARD.md").read_text()
    assert mmtl("evaluate", bundle, corpus, "--shots", "0") == 0
    assert "worst speaker" in capsys.readouterr().out


def test_what_train_and_evaluate_read_is_not_what_they_write(
    corpus: Path, bundle: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    out.mkdir()
    start = out / "best.safetensors"
    start.write_bytes((run / "best.safetensors").read_bytes())
    said = refusal(capsys, "train", corpus, "--out", out, "--start", start, *SMALL)
    assert f"--out (best.safetensors) would overwrite {start}" in said
    assert start.read_bytes() == (run / "best.safetensors").read_bytes()
    recording = next(path for path in corpus.rglob("*") if path.suffix in {".wav", ".flac"})
    for read in (corpus / "manifest.csv", recording, bundle / "model.json"):
        picture, before = tmp_path / "shots.png", read.read_bytes()
        picture.hardlink_to(read)
        options = ("--shots", "0", "--picture", picture)
        assert "already: give --replace" in refusal(capsys, "evaluate", bundle, corpus, *options)
        said = refusal(capsys, "evaluate", bundle, corpus, *options, "--replace")
        assert "--picture would overwrite" in said
        assert read.read_bytes() == before
        picture.unlink()


def test_more_shots_than_anybody_has_clips_are_refused_and_nothing_is_recorded(
    corpus: Path, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (bundle / "model.json").read_bytes()
    said = refusal(capsys, "evaluate", bundle, corpus, "--shots", "99", "--record")
    assert "more than 99 clips of each emotion" in said
    assert (bundle / "model.json").read_bytes() == before


def test_a_curve_that_cannot_be_drawn_is_refused_before_anything_is_done(
    corpus: Path, bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("in the way")
    picture = tmp_path / "file" / "shots.png"
    said = refusal(capsys, "evaluate", tmp_path / "no bundle", corpus, "--shots", "2", "--picture", picture)
    assert "cannot write to" in said


@pytest.mark.parametrize("shots", ["", "two", "1,1", "-1", "1.5"])
def test_other_numbers_of_shots_are_refused(
    corpus: Path, bundle: Path, capsys: pytest.CaptureFixture[str], shots: str
) -> None:
    assert "is invalid: give distinct numbers" in refusal(
        capsys, "evaluate", bundle, corpus, "--shots", shots
    )


def test_speakers_are_chosen_by_name(corpus: Path, bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert mmtl("evaluate", bundle, corpus, "--heard", "--speakers", "s0,s2", "--json") == 0
    scores = json.loads(capsys.readouterr().out)["none"]["corpora"]["synthetic"]
    assert list(scores["per_speaker"]) == ["s0", "s2"]
    assert "--speakers names the unknown speaker s9: choose from s0" in refusal(
        capsys, "evaluate", bundle, corpus, "--speakers", "s9"
    )


def test_protocols_are_scored_in_one_command_and_kept(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("train.protocols.BASELINE_S", 6.0)
    monkeypatch.setattr("train.protocols.LEAST_ORDINARY_S", 0.0)
    corpus = write_corpus(tmp_path / "corpus", speakers=4, takes=3, seconds=0.8)
    make_relative(bundle)
    before = load_bundle(bundle)
    assert mmtl("evaluate", bundle, corpus, "--draws", "1", "--record") == 0
    shown = capsys.readouterr().out
    for protocol in ("none", "running", "ordinary", "labelled"):
        assert f"\n {protocol} " in shown
    assert "harmed" in shown
    after = load_bundle(bundle)
    assert after.fingerprint == before.fingerprint
    recorded = after.manifest.metrics
    assert sorted(recorded) == ["labelled", "none", "ordinary", "running"]
    clips = {name: measured["corpora"]["synthetic"]["clips"] for name, measured in recorded.items()}
    assert clips == {"none": 12, "running": 2 * 4, "ordinary": 2 * 10, "labelled": 4}
    card = (bundle / "CARD.md").read_text()
    for name in recorded:
        assert f"### Protocol `{name}`" in card
        assert f"| `{name}` | {recorded[name]['corpora']['synthetic']['uar']:.1f} (1) |" in card


def test_conditions_and_ordinary_speech_are_measured_in_the_same_command(
    corpus: Path, bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    soundfile.write(tmp_path / "rain.wav", voice(5, "sad", 0, 1.0), SAMPLE_RATE)
    (tmp_path / "manifest.csv").write_text("path,kind\nrain.wav,Rain\n")
    options = ["--protocols", "none", "--conditions", "noise10,quiet", "--noise", tmp_path, "--record"]
    assert mmtl("evaluate", bundle, corpus, *options, "--speech", tmp_path, "--json") == 0
    printed = json.loads(capsys.readouterr().out)
    assert list(printed) == ["none", "conditions", "speech"]
    assert list(printed["conditions"]["conditions"]) == ["clean", "noise10", "quiet"]
    clean, noisy, quiet = printed["conditions"]["conditions"].values()
    assert clean["uar"] == {"synthetic": printed["none"]["corpora"]["synthetic"]["uar"]}
    assert noisy["loss"]["synthetic"] == clean["uar"]["synthetic"] - noisy["uar"]["synthetic"]
    assert printed["speech"]["claims"][0]["recordings"] == 1
    card = (bundle / "CARD.md").read_text()
    assert "| `quiet` | 20 dB lower, in 16 bits | " + f"{quiet['uar']['synthetic']:.1f} / " in card
    assert "### Ordinary speech" in card
    assert mmtl("evaluate", bundle, corpus, *options[:-1], "--speech", tmp_path) == 0
    shown = capsys.readouterr().out
    assert "noise10" in shown
    assert "claimed" in shown


def test_ordinary_speech_is_measured_without_a_corpus(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    soundfile.write(tmp_path / "a.wav", voice(5, "sad", 0, 1.0), SAMPLE_RATE)
    (tmp_path / "manifest.csv").write_text("path\na.wav\n")
    assert mmtl("evaluate", bundle, "--speech", tmp_path, "--json") == 0
    assert list(json.loads(capsys.readouterr().out)) == ["speech"]
    assert "name a corpus after the bundle" in refusal(capsys, "evaluate", bundle)
    said = refusal(capsys, "evaluate", bundle, "--speech", tmp_path, "--conditions", "mp3")
    assert "name a corpus after the bundle" in said


def test_protocols_that_cannot_be_scored_are_refused(
    corpus: Path, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = refusal(capsys, "evaluate", bundle, corpus, "--protocols", "running")
    assert "the bundle's head reads no baseline" in said
    said = refusal(capsys, "evaluate", bundle, corpus, "--protocols", "none", "--shots", "2")
    assert "leave out --protocols" in said
    said = refusal(capsys, "evaluate", bundle, corpus, "--protocols", "labelled")
    assert "every speaker has too few clips for labelled" in said


def test_a_picture_of_no_curve_is_refused(
    corpus: Path, bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "add --shots" in refusal(capsys, "evaluate", bundle, corpus, "--picture", tmp_path / "a.png")


def test_scores_of_speakers_it_was_trained_on_are_not_kept(
    corpus: Path, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "leave out --heard" in refusal(capsys, "evaluate", bundle, corpus, "--heard", "--record")


def test_a_corpus_of_heard_speakers_only_is_refused(
    corpus: Path, bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (heard, *_) = load_bundle(bundle).manifest.training["speakers"]["train"]
    rows = (corpus / "manifest.csv").read_text().splitlines()
    kept = [rows[0], *(f"{corpus}/{row}" for row in rows[1:] if f",{heard}," in row)]
    (tmp_path / "heard.csv").write_text("\n".join(kept))
    assert "add --heard" in refusal(capsys, "evaluate", bundle, tmp_path / "heard.csv")
