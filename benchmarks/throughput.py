"""Throughput of the whole-window network by batch size, beside the floor that operations and bytes set.

    python benchmarks/throughput.py [--device cuda] [--batches 1,8,32,128] [--seconds 2]
                                    [--tflops T --gb-per-s G]

With torch, ONNX Runtime and, if an engine was built, TensorRT; a runtime that cannot run here is left out,
and the reason printed. Wall time of whole batches including transfers, after a warm-up.

The floor of a batch is the longer of two times: its additions and multiplications, counted from the graph by
`benchmarks/window_work.py`, at the device's FP32 peak; and its weights, input and output at the bandwidth of
its memory. Intermediate values, transfers from and to the host and launches are left out. It is a floor of
direct FP32 computation without tensor cores.

The peaks are given, or on CUDA computed from what torch says of the device: multiprocessors x FP32 lanes of
each (by compute capability) x 2 x clock, and memory clock x 2 x bus width. For a CPU, give them.
"""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import numpy as np
import torch

from benchmarks.window_work import sized, work_of
from edge.arrays import Array
from edge.errors import MmtlError
from edge.inference.engine import PROVIDER_OPTIONS, PROVIDERS
from edge.inference.provider import open_engine
from edge.inference.window_engine import WindowwiseEngine
from edge.model.bundle import Bundle, default_bundle, load_bundle
from edge.model.manifest import WEIGHTS, WINDOW
from train.checkpoint import load_checkpoint

FP32_LANES: Final = {
    (7, 0): 64,
    (7, 2): 64,
    (7, 5): 64,
    (8, 0): 64,
    (8, 6): 128,
    (8, 7): 128,
    (8, 9): 128,
    (9, 0): 128,
    (10, 0): 128,
    (12, 0): 128,
}
"""FP32 units of a multiprocessor by compute capability; CUDA C++ Programming Guide."""

Runs = Callable[[Array], object]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--bundle", type=Path, default=default_bundle())
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--batches", default="1,8,32,128")
    parser.add_argument("--seconds", type=float, default=2.0, help="measured for each figure")
    parser.add_argument("--tflops", type=float, help="FP32 peak of the device, 10^12 operations a second")
    parser.add_argument("--gb-per-s", type=float, help="of the device's memory, 10^9 bytes a second")
    options = parser.parse_args()
    bundle = load_bundle(options.bundle)
    runners = available(bundle, options.device)
    name = torch.cuda.get_device_name() if options.device == "cuda" else platform.machine()
    print(f"{name}; torch {torch.__version__}, Python {platform.python_version()}")
    peak = peak_of(options.device, options.tflops, options.gb_per_s)
    print(f"floor: {peak}" if isinstance(peak, str) else peak.described())
    print(
        f"{'':6}" + f"{'seconds a batch':>{16 * (1 + len(runners))}}{'windows a second':>{16 * len(runners)}}"
    )
    print(f"{'batch':>6}{'floor':>16}" + 2 * "".join(f"{name:>16}" for name in runners))
    for batch in map(int, options.batches.split(",")):
        figures = [windows_per_s(runs, bundle, batch, options.seconds) for runs in runners.values()]
        floor = "not known" if isinstance(peak, str) else f"{floor_s(bundle, batch, peak):.3g}"
        print(
            f"{batch:6}{floor:>16}"
            + "".join(f"{batch / figure:16.3g}" for figure in figures)
            + "".join(f"{figure:16.0f}" for figure in figures)
        )


class DeviceProperties(Protocol):
    """What torch says of a CUDA device."""

    major: int
    minor: int
    multi_processor_count: int
    clock_rate: int
    """kHz, of the multiprocessors, at most."""
    memory_clock_rate: int
    """kHz."""
    memory_bus_width: int
    """Bits."""


@dataclass(frozen=True)
class Peak:
    """What a device can do at most."""

    operations_per_s: float
    """FP32 additions and multiplications."""
    bytes_per_s: float
    """Of its memory."""
    source: str
    """Where the two come from."""

    def described(self) -> str:
        """Return a line on what the floor assumes."""
        return (
            f"floor: {self.operations_per_s / 1e12:.3g} TFLOP/s FP32 and {self.bytes_per_s / 1e9:.4g} GB/s, "
            f"{self.source}"
        )


def peak_of(device: str, tflops: float | None, gb_per_s: float | None) -> Peak | str:
    """Return the peaks as given or as computed of the device's properties; or why they are not known."""
    if tflops and gb_per_s:
        return Peak(tflops * 1e12, gb_per_s * 1e9, "as given")
    if not device.startswith("cuda"):
        return "not known, since torch does not give the peaks of a CPU: give --tflops and --gb-per-s"
    return peak_of_properties(torch.cuda.get_device_properties(device))


def peak_of_properties(found: DeviceProperties) -> Peak | str:
    """Compute the peaks of a CUDA device; or say what is missing."""
    capability = (found.major, found.minor)
    lanes = FP32_LANES.get(capability)
    if lanes is None:
        return (
            f"not known, since the FP32 lanes of compute capability {found.major}.{found.minor} are not in "
            "the table: give --tflops and --gb-per-s"
        )
    if not (found.clock_rate and found.memory_clock_rate and found.memory_bus_width):
        return "not known, since the driver gives no clocks: give --tflops and --gb-per-s"
    return Peak(
        operations_per_s=found.multi_processor_count * lanes * 2 * 1e3 * found.clock_rate,
        bytes_per_s=2 * 1e3 * found.memory_clock_rate * found.memory_bus_width / 8,
        source=(
            f"computed: {found.multi_processor_count} multiprocessors x {lanes} lanes (assumed of compute "
            f"capability {found.major}.{found.minor}) x 2 x {found.clock_rate / 1e3:g} MHz; "
            f"2 (double data rate, assumed) x {found.memory_clock_rate / 1e3:g} MHz x "
            f"{found.memory_bus_width} bits"
        ),
    )


def floor_s(bundle: Bundle, batch: int, peak: Peak) -> float:
    """Return the shortest time of a batch at these peaks, in seconds."""
    front_end = bundle.manifest.front_end
    shape = (batch, front_end.window_frames, front_end.frame_size)
    work = work_of(sized(bundle.graph(WINDOW), shape))
    return work.shortest_s(peak.operations_per_s, peak.bytes_per_s)


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
