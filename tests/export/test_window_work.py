"""The counts of `benchmarks/window_work.py`, against torch's own, and against what docs/scale.md says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.window_work import Work, sized, work_of
from edge.model.bundle import shipped_bundle
from edge.model.manifest import WEIGHTS, WINDOW
from export.onnx_builder import write_graph
from export.pretrained_graph import pretrained_window_graph
from tests.cnn_lstm import CNN_LSTM
from tests.train.synthetic import tiny_pretrained
from train.checkpoint import load_cnn_lstm

SCALE = (Path(__file__).parents[2] / "docs" / "scale.md").read_text("utf-8")


@pytest.fixture(scope="module")
def window() -> Work:
    return work_of(sized(CNN_LSTM / WINDOW, (1, 297, 200)))


def test_convolutions_and_products_are_counted_as_torch_counts_them(window: Work) -> None:
    net = load_cnn_lstm(CNN_LSTM / WEIGHTS).net.eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net.meta.features(torch.zeros(1, 297, 200))
    counted = window.multiply_adds["Conv"] + window.multiply_adds["MatMul"]
    assert 2 * counted == counter.get_total_flops()


def test_the_lstm_is_counted_by_its_gates(window: Work) -> None:
    directions, steps, inputs, units = 2, 32, 128, 128
    assert window.multiply_adds["LSTM"] == directions * steps * 4 * units * (inputs + units)


def test_a_network_on_an_encoder_is_counted_as_torch_counts_it_with_weights_in_fp32(tmp_path: Path) -> None:
    net = tiny_pretrained().net
    write_graph(pretrained_window_graph(net), tmp_path / "window.onnx")
    work = work_of(sized(tmp_path / "window.onnx", (1, 296, 80)))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net.encoder(torch.zeros(1, 296, 80))
    attention = 2 * 2 * 148 * 148 * 64  # two products in each of two blocks, which torch does not count
    counted = work.multiply_adds["Conv"] + work.multiply_adds["MatMul"] - attention
    assert 2 * counted == counter.get_total_flops()
    encoder = sum(value.numel() for name, value in net.encoder.named_parameters() if name != "positions")
    positions, rest = 148 * 64, 12 * net.arch.embedding_size
    assert 4 * (encoder + positions) < work.weights < 4 * (encoder + positions + rest)


def test_a_batch_is_so_many_windows_with_one_set_of_weights(window: Work) -> None:
    batch = work_of(sized(CNN_LSTM / WINDOW, (5, 297, 200)))
    assert batch.weights == window.weights
    for name in ("operations", "arriving", "leaving", "between", "held"):
        assert getattr(batch, name) == 5 * getattr(window, name)


def test_what_is_held_at_a_time_is_more_than_the_largest_value_and_less_than_all(window: Work) -> None:
    first_maps = 4 * int(np.prod((16, 286, 200)))
    assert first_maps < window.held < window.between


def test_the_shortest_time_is_that_of_the_slower_of_computing_and_moving(window: Work) -> None:
    assert window.shortest_s(1.0, 1e30) == window.operations
    assert window.shortest_s(1e30, 1.0) == window.weights + window.arriving + window.leaving


def test_the_page_on_scale_gives_the_counts_of_the_default_model() -> None:
    window = work_of(sized(shipped_bundle("default") / WINDOW, (1, 296, 80)))
    assert f"{window.multiply_adds.total() / 1e6:.1f} million" in SCALE
    assert f"{window.operations / 1e9:.3f} GFLOP " in SCALE
    assert f"**{window.operations / 0.240 / 1e9:.2f} GFLOP/s**" in SCALE
    assert f"**{8 * window.arriving / 0.240 / 1e6:.2f} Mbit/s** to the server" in SCALE
    assert f"{8 * window.leaving / 0.240 / 1e3:.1f} kbit/s back" in SCALE
    assert f"{window.arriving:,} B" in SCALE
    assert f"{window.leaving:,} B" in SCALE
    assert f"{window.weights / 1e6:.2f} MB" in SCALE
    assert f"{window.held / 1e6:.1f} MB; {32 * window.held / 1e6:.1f} MB for 32 windows" in SCALE
    assert f"{1e12 / window.operations:.0f} windows/s" in SCALE
