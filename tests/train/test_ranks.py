from __future__ import annotations

import multiprocessing
import os
import socket
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from edge.errors import UsageError
from tests.train.synthetic import TINY, make_spectra
from train.batches import SamplingConfig
from train.model import EmotionNet
from train.ranks import Ranks, torchrun_ranks
from train.run import require_shareable
from train.segments import fit_normalisation
from train.splits import Split
from train.training import Algorithm, Computing, Options, Training

CPU = torch.device("cpu")
OPTIONS = Options(epochs=2, draw=SamplingConfig(window=80, speakers=3, samples=6), learning_rate=0.01)
STATE = "state.safetensors"


def train_one_epoch(folder: Path, ranks: Ranks) -> None:
    spectra = make_spectra(4, takes=2)
    torch.manual_seed(0)
    training = Training(
        EmotionNet(replace(TINY, dropout=0.2)),
        spectra,
        fit_normalisation(spectra),
        OPTIONS,
        CPU,
        computing=Computing("float32", ranks),
    )
    losses = list(training.epoch())
    training.save(folder / f"{ranks.rank}-of-{ranks.size}-{STATE}")
    (folder / f"{ranks.rank}-of-{ranks.size}.txt").write_text(repr(losses[-1]))


def train_as(rank: int, port: int, folder: Path) -> None:
    torch.set_num_threads(1)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "RANK": str(rank), "WORLD_SIZE": "2"}
    with torchrun_ranks(CPU) as ranks:
        assert ranks == Ranks(rank, 2)
        train_one_epoch(folder, ranks)


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port: int = listening.getsockname()[1]
        return port


def largest_difference(first: dict[str, Tensor], second: dict[str, Tensor]) -> float:
    assert first.keys() == second.keys()
    return max(float((first[key].double() - second[key].double()).abs().max()) for key in first)


def test_two_processes_learn_the_weights_of_one(tmp_path: Path) -> None:
    """Running statistics and the optimiser's state too, with dropout, one speaker and two."""
    context, port = multiprocessing.get_context("spawn"), free_port()
    workers = [context.Process(target=train_as, args=(rank, port, tmp_path)) for rank in (0, 1)]
    for worker in workers:
        worker.start()
    with torchrun_ranks(CPU) as alone:
        train_one_epoch(tmp_path, alone)
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0]

    one = load_file(tmp_path / f"0-of-1-{STATE}")
    two = [load_file(tmp_path / f"{rank}-of-2-{STATE}") for rank in (0, 1)]
    assert largest_difference(two[0], two[1]) == 0.0
    assert largest_difference(one, two[0]) < 1e-5
    torch.manual_seed(0)
    untrained = EmotionNet(replace(TINY, dropout=0.2)).state_dict()
    assert largest_difference(untrained, {key: one[f"net.{key}"] for key in untrained}) > 1e-3
    after, auxiliary = eval((tmp_path / "0-of-1.txt").read_text())  # noqa: S307
    assert eval((tmp_path / "0-of-2.txt").read_text()) == pytest.approx((after, auxiliary), abs=1e-5)  # noqa: S307


@pytest.mark.parametrize(("count", "size"), [(4, 1), (4, 2), (5, 3), (3, 3), (16, 5)])
def test_every_speaker_is_one_ranks_and_no_rank_is_idle(count: int, size: int) -> None:
    shares = [Ranks(rank, size).share(count) for rank in range(size)]
    assert [index for share in shares for index in share] == list(range(count))
    assert all(shares)


def refused(algorithm: Algorithm, size: int, speakers: Sequence[int] = (0, 1, 2, 3)) -> str:
    clips = [item.clip for item in make_spectra(4, takes=1) if item.clip.speaker[-1] in map(str, speakers)]
    with pytest.raises(UsageError) as caught:
        require_shareable(Split(tuple(clips), (), ()), replace(OPTIONS, algorithm=algorithm), Ranks(0, size))
    return str(caught.value)


def test_an_algorithm_that_is_not_divided_by_speaker_is_refused() -> None:
    assert "erm is not divided" in refused("erm", 2)


def test_more_processes_than_speakers_of_a_step_are_refused() -> None:
    assert "4 processes share a step of 3 speakers" in refused("mmtl", 4)
    assert "3 processes share a step of 2 speakers" in refused("mmtl", 3, speakers=(0, 1))
