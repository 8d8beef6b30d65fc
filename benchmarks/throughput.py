"""Throughput of the whole-window network by batch size, in windows per second.

    python benchmarks/throughput.py [--device cuda] [--batches 1,8,32,128] [--seconds 2]

With torch, ONNX Runtime and, if an engine was built, TensorRT; a runtime that cannot run here is left out,
and the reason printed. Wall time of whole batches including transfers, after a warm-up.
`benchmarks/window_work.py --tflops T --gb-per-s G` prints the bound that operations and bytes set.
"""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from edge.arrays import Array
from edge.errors import MmtlError
from edge.inference.engine import PROVIDER_OPTIONS, PROVIDERS
from edge.inference.provider import open_engine
from edge.inference.window_engine import WindowwiseEngine
from edge.model.bundle import WEIGHTS, WINDOW, Bundle, default_bundle, load_bundle
from train.checkpoint import load_checkpoint

Runs = Callable[[Array], object]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--bundle", type=Path, default=default_bundle())
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--batches", default="1,8,32,128")
    parser.add_argument("--seconds", type=float, default=2.0, help="measured for each figure")
    options = parser.parse_args()
    bundle = load_bundle(options.bundle)
    runners = available(bundle, options.device)
    name = torch.cuda.get_device_name() if options.device == "cuda" else platform.machine()
    print(f"{name}; torch {torch.__version__}, Python {platform.python_version()}; windows a second")
    print(f"{'batch':>6}" + "".join(f"{name:>16}" for name in runners))
    for batch in map(int, options.batches.split(",")):
        figures = [windows_per_s(runs, bundle, batch, options.seconds) for runs in runners.values()]
        print(f"{batch:6}" + "".join(f"{figure:16.0f}" for figure in figures))


def available(bundle: Bundle, device: str) -> dict[str, Runs]:
    """Prepare the runtimes that are available, and print why the others are not."""
    runners = {"torch": torch_runner(bundle, device)}
    try:
        runners["onnxruntime"] = onnx_runner(bundle, device)
    except MmtlError as error:
        print(f"not run: {error}")
    try:
        runners["tensorrt"] = tensorrt_runner(bundle)
    except MmtlError as error:
        print(f"not run: tensorrt: {error}")
    return runners


def torch_runner(bundle: Bundle, device: str) -> Runs:
    """Run the trained network in float32, as the runtime does: without TF32."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    net = load_checkpoint(bundle.folder / WEIGHTS).net.eval().to(device)

    def run(frames: Array) -> object:
        with torch.inference_mode():
            return net(torch.from_numpy(frames).to(device)).cpu()

    return run


def onnx_runner(bundle: Bundle, device: str) -> Runs:
    """Run the window graph."""
    import onnxruntime

    provider = PROVIDERS[device]
    if provider not in onnxruntime.get_available_providers():
        raise MmtlError(f"this onnxruntime has no {provider}: install onnxruntime-gpu")
    chosen = (provider, PROVIDER_OPTIONS[device])
    session = onnxruntime.InferenceSession(str(bundle.graph(WINDOW)), providers=[chosen], enable_fallback=0)
    if provider not in session.get_providers():
        raise MmtlError(f"onnxruntime fell back to the CPU: {provider} cannot start here")
    return lambda frames: session.run(None, {"frames": frames})


def tensorrt_runner(bundle: Bundle) -> Runs:
    """Run the engine that `mmtl build-engine` built; its largest batch limits the batch size."""
    engine = open_engine(bundle, "tensorrt")
    assert isinstance(engine, WindowwiseEngine)
    return engine.window


def windows_per_s(runs: Runs, bundle: Bundle, batch: int, seconds: float) -> float:
    """Run batches for a duration and return the windows per second."""
    front_end = bundle.manifest.front_end
    shape = (batch, front_end.window_frames, front_end.frame_size)
    frames = np.random.default_rng(0).standard_normal(shape, np.float32)
    for _ in range(3):
        runs(frames)
    began, count = time.perf_counter(), 0
    while (spent := time.perf_counter() - began) < seconds:
        runs(frames)
        count += batch
    return count / spent


if __name__ == "__main__":
    main()
