"""The pieces of a GPU day on a machine without a GPU: their comparisons, by the CPU against itself."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch  # noqa: TID251 - the training epoch

from benchmarks import throughput
from benchmarks.gpu import cuda_calls, cuda_session, training_epoch
from benchmarks.gpu.day import PIECES, Piece, outcome_of, report
from edge.arrays import Array
from edge.errors import EngineError
from edge.model.bundle import default_bundle, load_bundle
from edge.recognition.recognizer import Recognizer
from tests.edge.gpu.numpy_cuda import NumpyCuda
from tests.train.synthetic import TINY, make_spectra


def piece(code: str, obstacle: str | None = None) -> Piece:
    return Piece("a piece", ("-c", code), lambda: obstacle)


def test_a_piece_that_cannot_run_says_why_and_is_not_started() -> None:
    result = outcome_of(piece("raise SystemExit(1)", "no GPU here"))
    assert (result.outcome, result.text) == ("not run", "no GPU here")


def test_the_report_shows_what_ran_and_the_end_of_what_failed() -> None:
    results = [outcome_of(piece("print(6 * 7)")), outcome_of(piece("raise ValueError('broken')"))]
    assert [result.outcome for result in results] == ["ran", "failed"]
    text = report(results)
    assert "Of 2 pieces: 1 ran, 1 failed, 0 not run" in text
    assert "a piece: ran" in text
    assert "42" in text
    assert "ValueError: broken" in text


def test_the_report_has_neither_colours_nor_absolute_paths() -> None:
    code = "from pathlib import Path; print(f'\\x1b[0;93mwarning\\x1b[m in {Path.cwd()}/train/model.py')"
    assert outcome_of(piece(code)).text == "warning in train/model.py"


def test_a_piece_that_takes_too_long_has_failed_and_its_output_is_kept() -> None:
    slow = "import time; print('half done', flush=True); time.sleep(60)"
    result = outcome_of(piece(slow), limit_s=2.0)
    assert (result.outcome, result.text) == ("failed", "half done\n\ntook longer than 2 s")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_the_pieces_that_need_one_say_so() -> None:
    reasons = [reason for item in PIECES if (reason := item.obstacle())]
    assert len(reasons) == 6
    assert all("torch sees no CUDA device" in reason for reason in reasons)


# A training epoch


@pytest.fixture(scope="module")
def epoch() -> training_epoch.Epoch:
    return tiny_epoch()


def tiny_epoch(disturbance: float = 0.0) -> training_epoch.Epoch:
    net = training_epoch.seeded_net(TINY)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(disturbance * torch.randn_like(parameter))
    return training_epoch.train_epoch(net, make_spectra(takes=4), torch.device("cpu"))


def test_an_epoch_equals_another_from_the_same_weights(epoch: training_epoch.Epoch) -> None:
    assert len(epoch.losses) == 2
    assert training_epoch.largest_difference(epoch, tiny_epoch()) <= 1e-5


def test_an_epoch_from_disturbed_weights_differs(epoch: training_epoch.Epoch) -> None:
    assert training_epoch.largest_difference(epoch, tiny_epoch(0.05)) > 0.001


def test_an_epoch_with_a_missing_or_infinite_step_differs(epoch: training_epoch.Epoch) -> None:
    short = replace(epoch, losses=epoch.losses[:1])
    infinite = replace(epoch, losses=[(float("nan"), 1.0), *epoch.losses[1:]])
    assert training_epoch.largest_difference(epoch, short) == np.inf
    assert training_epoch.largest_difference(epoch, infinite) == np.inf


def test_the_clips_are_all_different_and_of_all_emotions() -> None:
    spectra = training_epoch.made_spectra(takes=1, seconds=0.6)
    assert len({item.logs.tobytes() for item in spectra}) == len(spectra) == 16


# A session of the runtime


def test_a_session_agrees_with_itself() -> None:
    line, agrees = cuda_session.compared("small", "cpu", 1e-6)
    assert agrees
    assert "ms a window (p50)" in line


def test_a_session_that_fell_back_to_the_cpu_does_not_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    fallen = cuda_session.StreamResult("cpu", "the GPU is lost", [], [])
    monkeypatch.setattr(cuda_session, "streamed", lambda recognizer: fallen)
    monkeypatch.setattr(Recognizer, "load", lambda *bundle, provider: None)
    assert cuda_session.compared("small", "cuda", 1.0) == (
        "cuda failed, and the CPU went on: the GPU is lost",
        False,
    )


# Memory, stream and context


class SpoilingCuda(NumpyCuda):
    """Brings one number back changed."""

    def d2h(self, host: Array, address: int) -> None:
        self.memory(address, (1,))[:] += 1.0
        super().d2h(host, address)


def test_every_call_of_cuda_is_made_twice_with_a_close_between() -> None:
    opened: list[NumpyCuda] = []

    def open_one() -> NumpyCuda:
        opened.append(NumpyCuda())
        return opened[-1]

    first, second = cuda_calls.checked(open_one, rows=4)
    assert "0.016 MB there and back unchanged" in first
    assert second.startswith("second, after a close opening")
    assert [cuda.closed for cuda in opened] == [True, True]


def test_a_number_that_comes_back_changed_is_an_error() -> None:
    with pytest.raises(EngineError, match="1 of 4000 numbers came back changed"):
        cuda_calls.checked(SpoilingCuda, rows=4)


# The floor of the throughput


def properties(**changed: Any) -> Any:
    """Return what torch says of an H100 SXM."""
    known = {
        "major": 9,
        "minor": 0,
        "multi_processor_count": 132,
        "clock_rate": 1_980_000,
        "memory_clock_rate": 2_619_000,
        "memory_bus_width": 5120,
    }
    return SimpleNamespace(**{**known, **changed})


def test_the_peaks_of_a_known_gpu_are_those_of_its_data_sheet() -> None:
    peak = throughput.peak_of_properties(properties())
    assert isinstance(peak, throughput.Peak)
    assert peak.operations_per_s == pytest.approx(67e12, rel=0.01)
    assert peak.bytes_per_s == pytest.approx(3.35e12, rel=0.01)
    assert "assumed" in peak.described()


@pytest.mark.parametrize("changed", [{"major": 99}, {"memory_clock_rate": 0}])
def test_peaks_that_are_not_known_are_asked_for(changed: dict[str, int]) -> None:
    assert "give --tflops" in str(throughput.peak_of_properties(properties(**changed)))


def test_the_floor_is_the_longer_of_operations_and_bytes() -> None:
    bundle = load_bundle(default_bundle())
    by_operations = throughput.floor_s(bundle, 1, throughput.Peak(1e9, 1e15, "given"))
    by_bytes = throughput.floor_s(bundle, 1, throughput.Peak(1e18, 1e6, "given"))
    assert throughput.floor_s(bundle, 1, throughput.Peak(1e9, 1e6, "given")) == max(by_operations, by_bytes)
    assert throughput.floor_s(bundle, 2, throughput.Peak(1e9, 1e15, "given")) == pytest.approx(
        2 * by_operations, rel=1e-6
    )
