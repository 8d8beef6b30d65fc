"""`mmtl train --encoder`, and `--start` of what it made, as a person would type them."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from edge.diagnostics.verification import verify
from edge.features.mel_power import MEL_POWER
from edge.features.normaliser import GainConfig
from edge.model.bundle import load_bundle, shipped_bundle
from edge.model.manifest import WEIGHTS
from export.parity_audio import shipped_sound
from tests.train.synthetic import write_corpus, write_encoder, write_recurrent_encoder
from tests.train.test_commands import mmtl, refusal
from train import last_block
from train.checkpoint import load_checkpoint, load_pretrained
from train.last_block import BlockTuning
from train.pretrained_command import starting_point
from train.pretrained_net import PretrainedArchitecture
from train.recurrent_net import RecurrentNet, load_recurrent_encoder

SMALL = (
    "--steps",
    "3",
    "--speakers",
    "2",
    "--samples",
    "4",
    "--copies",
    "1",
    "--folds",
    "2",
    "--threads",
    "1",
)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus"), speakers=3, takes=1, seconds=0.6)


@pytest.fixture(scope="module")
def encoder(corpus: Path) -> Path:
    return write_encoder(corpus.parent / "encoder.safetensors")


@pytest.fixture(scope="module")
def run(corpus: Path, encoder: Path) -> Path:
    folder = corpus.parent / "encoder-run"
    assert mmtl("train", corpus, "--encoder", encoder, "--out", folder, *SMALL) == 0
    return folder


def test_a_head_is_trained_on_an_encoder_end_to_end(run: Path, encoder: Path) -> None:
    training = load_pretrained(run / "best.safetensors").training
    assert training["command"].startswith("mmtl train ")
    assert training["corpora"][0]["ratings"] == "derived"
    assert training["encoder"]["name"] == encoder.name
    assert training["encoder"]["licence"].startswith("MIT (OpenAI Whisper")
    assert training["speakers"] == {"train": ["s0", "s1", "s2"], "validation": [], "test": []}
    options = training["options"]
    assert (options["head"]["algorithm"], options["head"]["learning_rate"]) == ("mtl", 0.003)
    assert options["head"]["rates"]["loss"]["label_smoothing"] == 0.1
    assert (options["episodes"]["speakers"], options["copies"]) == (2, 1)
    assert (run / "features" / "copy-1-0.npy").is_file()
    assert "cross_fitted" in json.loads((run / "scores.json").read_text())


def test_the_options_of_the_algorithms_reach_the_head(corpus: Path, encoder: Path, tmp_path: Path) -> None:
    options = (
        "--algorithm",
        "mmtl",
        "--inner-lr",
        "0.02",
        "--label-smoothing",
        "0",
        "--learning-rate",
        "0.001",
    )
    arguments = ("--encoder", encoder, "--cache", tmp_path / "kept", *options, *SMALL)
    assert mmtl("train", corpus, "--out", tmp_path / "run", *arguments) == 0
    head = load_pretrained(tmp_path / "run" / "best.safetensors").training["options"]["head"]
    assert (head["algorithm"], head["learning_rate"]) == ("mmtl", 0.001)
    assert (head["rates"]["inner_lr"], head["rates"]["transfer_lr"]) == (0.02, 0.05)
    assert head["rates"]["loss"]["label_smoothing"] == 0.0
    assert (tmp_path / "kept" / "copy-0-0.npy").is_file()


def test_a_checkpoint_is_tuned_to_another_corpus_at_a_lower_rate(
    corpus: Path, run: Path, tmp_path: Path
) -> None:
    rows = (corpus / "manifest.csv").read_text().replace(",synthetic,s", ",mine,m").splitlines()
    mine = tmp_path / "mine.csv"
    mine.write_text("\n".join([rows[0], *(f"{corpus}/{row}" for row in rows[1:])]))
    assert mmtl("train", mine, "--start", run, "--out", tmp_path / "tuned", *SMALL) == 0
    training = load_pretrained(tmp_path / "tuned" / "best.safetensors").training
    assert training["options"]["head"]["learning_rate"] == pytest.approx(0.0003)
    assert training["speakers"]["train"] == ["m0", "m1", "m2", "s0", "s1", "s2"]
    assert [item["name"] for item in training["corpora"]] == ["mine", "synthetic"]
    assert training["encoder"] == load_pretrained(run / "best.safetensors").training["encoder"]


def test_a_start_is_a_file_a_run_folder_a_bundles_folder_or_a_name(run: Path, tmp_path: Path) -> None:
    best = run / "best.safetensors"
    assert starting_point(None) is None
    assert starting_point(best) == starting_point(run) == best
    assert starting_point(tmp_path) == tmp_path / WEIGHTS
    assert starting_point(Path("small")) == shipped_bundle("small") / WEIGHTS


@pytest.mark.parametrize("start", ["small", shipped_bundle("small"), shipped_bundle("small") / WEIGHTS])
def test_a_start_with_a_recurrent_encoder_is_refused_by_its_kind(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], start: str | Path
) -> None:
    said = refusal(capsys, "train", corpus, "--start", start, "--out", tmp_path / "run")
    assert "a network on a recurrent encoder" in said
    assert "train a new head with --encoder FILE, or start from default or from a CNN-LSTM" in said
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--epochs", "3"), "--epochs has no effect on a pretrained encoder: leave it out"),
        (("--paper",), "--paper has no effect on a pretrained encoder"),
        (("--folds", "9"), "3 training speakers are too few for 9 folds by speaker: give --folds 2 to 3"),
        (("--leave-corpus-out", "--folds", "2"), "needs two corpora or more, and there is only synthetic"),
        (("--noise", "nowhere"), "there is no list of noises"),
        (("--split", "none.json"), "there is no split file"),
    ],
)
def test_options_that_cannot_be_used_are_refused_and_nothing_is_written(
    corpus: Path,
    encoder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: tuple[str, ...],
    message: str,
) -> None:
    out = tmp_path / "run"
    assert message in refusal(capsys, "train", corpus, "--encoder", encoder, "--out", out, *options)
    assert not out.exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--folds", "2"), "--folds has no effect without --encoder: add --encoder or leave it out"),
        (("--leave-corpus-out",), "--leave-corpus-out has no effect without --encoder"),
        (("--baseline", "mean"), "--baseline has no effect without --encoder"),
        (("--members", "5"), "--members has no effect without --encoder"),
    ],
)
def test_options_of_an_encoder_are_refused_without_one(
    corpus: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: tuple[str, ...],
    message: str,
) -> None:
    assert message in refusal(capsys, "train", corpus, "--out", tmp_path / "run", *options)


def test_a_checkpoint_has_its_own_encoder_and_corpora(
    corpus: Path, encoder: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("train", corpus, "--out", tmp_path / "run", "--start", run)
    assert "--encoder and --start cannot be combined" in refusal(capsys, *arguments, "--encoder", encoder)
    assert "cannot be combined with --start" in refusal(capsys, *arguments, "--leave-corpus-out")
    assert "--blocks cannot be combined with --start" in refusal(capsys, *arguments, "--blocks", "2")
    assert "--tune-block cannot be combined with --start" in refusal(capsys, *arguments, "--tune-block")
    assert "--baseline cannot be combined with --start" in refusal(capsys, *arguments, "--baseline", "mean")
    assert "--members cannot be combined with --start" in refusal(capsys, *arguments, "--members", "2")


def test_a_head_that_divides_by_the_deviation_is_trained_exported_and_trained_on(
    corpus: Path, encoder: Path, run: Path, tmp_path: Path
) -> None:
    own, bundle = tmp_path / "run", tmp_path / "bundle"
    speech = tmp_path / "speech.csv"
    others = write_corpus(tmp_path / "speech", speakers=2, takes=1, seconds=0.7)
    lines = [f"{path},reading,{path.name[0]}" for path in sorted(others.glob("*.wav"))]
    speech.write_text("\n".join(["path,corpus,speaker", *lines]))
    options = ("--encoder", encoder, "--unlabelled", speech, "--out", own, *SMALL)
    assert mmtl("train", corpus, *options, "--baseline", "deviation") == 0
    scaled, plain = (load_pretrained(folder / "best.safetensors").net for folder in (own, run))
    assert (scaled.arch.baseline, plain.arch.baseline) == ("deviation", "mean")
    assert mmtl("export", own / "best.safetensors", "--out", bundle) == 0
    assert load_bundle(bundle).manifest.baseline.scaled
    assert mmtl("train", corpus, "--start", bundle, "--out", tmp_path / "more", *SMALL, "--folds", "0") == 0
    assert load_pretrained(tmp_path / "more" / "best.safetensors").net.arch.baseline == "deviation"


def test_a_head_on_a_recurrent_encoder_divides_by_the_deviation_too(corpus: Path, tmp_path: Path) -> None:
    file, run, bundle = (
        write_recurrent_encoder(tmp_path / "lstm.safetensors"),
        tmp_path / "run",
        tmp_path / "b",
    )
    options = ("--encoder", file, "--baseline", "deviation", "--out", run, *SMALL, "--folds", "0")
    assert mmtl("train", corpus, *options) == 0
    assert mmtl("export", run / "best.safetensors", "--out", bundle) == 0
    loaded = load_bundle(bundle)
    assert (loaded.manifest.graphs.execution, loaded.manifest.baseline.scaled) == ("recurrent", True)
    assert verify(loaded, shipped_sound()).passed


def test_a_network_of_more_blocks_is_trained_and_exported(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, run, bundle = write_encoder(tmp_path / "deep.safetensors", 3), tmp_path / "run", tmp_path / "bundle"
    assert mmtl("train", corpus, "--encoder", file, "--blocks", "3", "--out", run, *SMALL) == 0
    assert load_pretrained(run / "best.safetensors").net.arch.blocks == 3
    assert mmtl("export", run / "best.safetensors", "--out", bundle) == 0, capsys.readouterr().err
    assert load_bundle(bundle).manifest.graphs.execution == "window"


@pytest.mark.parametrize("option", [("--blocks", "3"), ("--tune-block",)])
def test_options_of_a_whisper_encoder_are_refused_with_a_recurrent_one(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], option: tuple[str, ...]
) -> None:
    recurrent = write_recurrent_encoder(tmp_path / "lstm.safetensors")
    arguments = ("train", corpus, "--encoder", recurrent, "--out", tmp_path / "run", *option)
    assert f"{option[0]} has no effect on {recurrent}" in refusal(capsys, *arguments)
    assert not (tmp_path / "run").exists()


def test_a_network_with_a_tuned_block_and_joined_heads_is_trained_exported_and_trained_on(
    corpus: Path, encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(last_block, "BlockTuning", partial(BlockTuning, steps=2, windows=4))
    run, bundle = tmp_path / "run", tmp_path / "bundle"
    recipe = ("--tune-block", "--members", "2")
    assert mmtl("train", corpus, "--encoder", encoder, *recipe, "--out", run, *SMALL) == 0
    tuned = load_pretrained(run / "best.safetensors")
    assert tuned.training["encoder"]["tuned"] == "block 2"
    assert tuned.net.arch.fully_connected == 2 * PretrainedArchitecture.fully_connected
    assert mmtl("export", run / "best.safetensors", "--out", bundle) == 0
    assert "but for its block 2, which was tuned." in (bundle / "CARD.md").read_text()
    assert mmtl("train", corpus, "--start", bundle, "--out", tmp_path / "more", *SMALL, "--folds", "0") == 0
    more = load_pretrained(tmp_path / "more" / "best.safetensors")
    assert more.training["encoder"] == tuned.training["encoder"]
    assert more.net.arch == tuned.net.arch
    for name, tensor in tuned.net.encoder.state_dict().items():
        assert torch.equal(more.net.encoder.state_dict()[name], tensor), name


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda tensors: {"weight": torch.zeros(3)},
            "holds neither a Whisper encoder (conv1.weight) nor a recurrent",
        ),
        (lambda tensors: tensors | {"conv1.weight": torch.zeros(())}, "is not a Whisper encoder"),
        (lambda tensors: tensors | {"conv1.weight": torch.zeros(640_000, 1)}, "is not a Whisper encoder"),
        (lambda tensors: tensors | {"conv1.bias": torch.full((64,), torch.nan)}, "not finite"),
        (
            lambda tensors: {name: value for name, value in tensors.items() if "block.1." not in name},
            "holds 1 blocks, not 2",
        ),
    ],
)
def test_an_encoder_of_another_kind_is_refused(
    corpus: Path,
    encoder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    change: Callable[[dict[str, Tensor]], dict[str, Tensor]],
    message: str,
) -> None:
    other = tmp_path / "other.safetensors"
    save_file(change(load_file(encoder)), other)
    assert mmtl("train", corpus, "--encoder", other, "--out", tmp_path / "run") == 4
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_recurrent_encoder_is_recognised_and_its_network_exported(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write_recurrent_encoder(tmp_path / "lstm.safetensors")
    run, bundle = tmp_path / "run", tmp_path / "bundle"
    assert mmtl("train", corpus, "--encoder", file, "--out", run, *SMALL) == 0
    found = load_checkpoint(run / "best.safetensors")
    assert isinstance(found.net, RecurrentNet)
    assert found.front_end == MEL_POWER
    assert found.normalisation.levels.reference != GainConfig().reference
    assert found.training["encoder"]["licence"].startswith("Apache 2.0")
    for name, tensor in load_recurrent_encoder(file).state_dict().items():
        torch.testing.assert_close(found.net.encoder.state_dict()[name], tensor, rtol=0, atol=0)
    assert mmtl("export", run / "best.safetensors", "--out", bundle) == 0, capsys.readouterr().err
    assert load_bundle(bundle).manifest.graphs.execution == "recurrent"


def test_a_list_of_noises_without_its_columns_is_refused(
    corpus: Path, encoder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "manifest.csv").write_text("file,kind\na.wav,rain\n")
    arguments = ("--encoder", encoder, "--noise", tmp_path, "--out", tmp_path / "run")
    assert "has no column path" in refusal(capsys, "train", corpus, *arguments)


def test_a_run_never_overwrites_the_checkpoint_it_starts_from(
    run: Path, corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (run / "best.safetensors").read_bytes()
    assert "would overwrite" in refusal(capsys, "train", corpus, "--start", run, "--out", run)
    assert (run / "best.safetensors").read_bytes() == before
