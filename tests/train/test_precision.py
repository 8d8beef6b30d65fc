from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from edge.errors import UsageError
from tests.train.synthetic import TINY, write_corpus
from tests.train.test_run import OPTIONS, Silent
from train import precision as precision_module
from train import run as run_module
from train.corpora import Clip, read_corpus
from train.model import EmotionNet
from train.precision import Precision, autocast, comparison, faster, measured_precisions, supported_precisions
from train.run import RunSetup, run
from train.run_folder import RunFolder
from train.splits import split_by_speaker

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Clip]:
    return read_corpus(write_corpus(tmp_path_factory.mktemp("corpus"), takes=1, seconds=0.6))


def trained(clips: list[Clip], folder: Path, precision: Precision | None, *, resume: bool = False) -> Silent:
    split, shown = split_by_speaker(clips, validation=["s2"], test=["s3"]), Silent()
    run(split, TINY, OPTIONS, RunSetup(RunFolder(folder), CPU, resume=resume, precision=precision), shown)
    return shown


def written(folder: Path) -> str:
    precision: str = json.loads((folder / "config.json").read_text())["precision"]
    return precision


def test_measuring_leaves_the_network_and_the_random_numbers_alone() -> None:
    torch.manual_seed(0)
    net = EmotionNet(TINY)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    expected = torch.random.get_rng_state()
    seconds = measured_precisions(net, 60, CPU, segments=2)
    assert tuple(seconds) == supported_precisions(CPU)
    assert min(seconds.values()) > 0
    assert torch.equal(torch.random.get_rng_state(), expected)
    assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())
    assert all(parameter.grad is None for parameter in net.parameters())


def test_the_faster_is_that_of_fewer_seconds() -> None:
    assert faster({"bfloat16": 2.0, "float32": 1.0}) == "float32"
    assert faster({"bfloat16": 1.0, "float32": 2.0}) == "bfloat16"


DTYPES: dict[Precision, torch.dtype] = {"bfloat16": torch.bfloat16, "float32": torch.float32}


@pytest.mark.parametrize("precision", supported_precisions(CPU))
def test_forward_passes_are_of_the_precision(precision: Precision) -> None:
    with autocast(CPU, precision):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == DTYPES[precision]


def no_bfloat16(*_: object) -> None:
    raise RuntimeError("could not create a primitive descriptor for the LSTM forward propagation primitive")


def test_a_processor_without_bfloat16_trains_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(torch.nn.LSTM, "forward", no_bfloat16)
        assert supported_precisions.__wrapped__(CPU) == ("float32",)
    monkeypatch.setattr(precision_module, "supported_precisions", lambda _: ("float32",))
    seconds = measured_precisions(EmotionNet(TINY), 60, CPU, segments=2)
    assert list(seconds) == ["float32"]
    assert comparison(seconds) == "training in float32: this processor cannot train in bfloat16"


def test_a_precision_that_the_processor_lacks_is_a_usage_error(
    clips: list[Clip], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision_module, "supported_precisions", lambda _: ("float32",))
    with pytest.raises(UsageError, match="this cpu cannot train in bfloat16"):
        trained(clips, tmp_path / "run", "bfloat16")


def test_a_measured_precision_is_said_kept_and_resumed_with(
    clips: list[Clip], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        run_module, "measured_precisions", lambda *_: {"bfloat16": 0.2, "float32": 0.1}, raising=True
    )
    shown = trained(clips, tmp_path / "run", None)
    assert (
        "training in float32, the faster here: a pass of 8 segments takes 200 ms in bfloat16, 100 ms"
        in (shown.lines[0])
    )
    assert written(tmp_path / "run") == "float32"
    monkeypatch.setattr(run_module, "measured_precisions", None)
    assert not [
        line for line in trained(clips, tmp_path / "run", None, resume=True).lines if "faster" in line
    ]
    with pytest.raises(UsageError, match="different precision"):
        trained(clips, tmp_path / "run", "bfloat16", resume=True)
