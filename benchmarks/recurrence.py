"""Cost of the LSTM's repeated input projection, and of an unrolled LSTM that would avoid it.

    python benchmarks/recurrence.py [--rounds 2000]

At each step the LSTM operator projects all features of the window again, although only the newest changed.
It takes features and not projections, so projecting each feature once needs an unrolled LSTM. Both are
timed with features of 128 values, as shipped, and of one value, where the projection is negligible: the
difference is the cost of the projection. Median CPU time of one thread; the four graphs run alternately.
"""

from __future__ import annotations

import argparse
import platform
import time

import edge  # noqa: F401 - before ONNX Runtime, whose telemetry it turns off

# isort: split
import numpy as np
import onnxruntime
import torch
from torch import nn

from edge.onnx_session import session_options
from export.lstm import lstm_operator, unrolled_lstm
from export.onnx_builder import GraphBuilder

STEPS = 32
UNITS = 128


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=2000)
    rounds = parser.parse_args().rounds
    cases = {
        (kind, values): session(kind, values) for kind in ("operator", "unrolled") for values in (128, 1)
    }
    spent: dict[tuple[str, int], list[float]] = {case: [] for case in cases}
    for _ in range(rounds):
        for case, runs in cases.items():
            spent[case].append(cpu_us(runs, case[1]))
    print(f"{platform.machine()}, Python {platform.python_version()}, onnxruntime {onnxruntime.__version__}")
    print(f"{'BiLSTM over 32 features':26}{'128 values':>12}{'1 value':>12}{'difference':>12}")
    for kind in ("operator", "unrolled"):
        shipped, free = (float(np.median(spent[kind, values])) for values in (128, 1))
        print(f"{kind:26}{shipped:9.0f} us{free:9.0f} us{shipped - free:9.0f} us")


def session(kind: str, values: int) -> onnxruntime.InferenceSession:
    """Open a graph that contains only the BiLSTM."""
    torch.manual_seed(0)
    lstm, builder = nn.LSTM(values, UNITS, bidirectional=True), GraphBuilder()
    if kind == "operator":
        output = lstm_operator(builder, "features", lstm, every=True)
    else:
        output = unrolled_lstm(builder, "features", lstm, STEPS, every=True)
    model = builder.model("recurrence", {"features": (STEPS, "B", values)}, {output: (STEPS, 2, "B", UNITS)})
    return onnxruntime.InferenceSession(
        model.SerializeToString(), session_options(), ["CPUExecutionProvider"]
    )


def cpu_us(runs: onnxruntime.InferenceSession, values: int) -> float:
    """Time one run in CPU microseconds of this process."""
    features = np.ones((STEPS, 1, values), np.float32)
    began = time.process_time()
    runs.run(None, {"features": features})
    return 1e6 * (time.process_time() - began)


if __name__ == "__main__":
    main()
