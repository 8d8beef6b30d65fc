"""Every call that `edge` makes to CUDA through pycuda: memory, copies, stream, context.

    python benchmarks/gpu/cuda_calls.py [--mb 64]

Random rows are copied to the device and back on the stream, compared, and the copies timed, from and to
page-locked memory. Then the context is closed and opened again. torch, which shares the device's primary
context, must still compute afterwards. No kernel of ours is run: without TensorRT, `edge` only copies.
Exit code 1: a call failed or a number came back changed.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch

from edge.arrays import Array
from edge.errors import EngineError
from edge.gpu.cuda import Cuda, PycudaCuda


def main() -> None:
    """Call everything, and print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--mb", type=int, default=64, help="10^6 bytes of a timed copy")
    rows = parser.parse_args().mb * 1_000_000 // 4_000
    shared = torch.ones(8, device="cuda")  # before pycuda: it must find this context, not make another
    try:
        for line in checked(PycudaCuda, rows):
            print(line)
    except EngineError as error:
        raise SystemExit(f"failed: {error}") from error
    if float((shared + 1).sum()) != 16.0:
        raise SystemExit("failed: torch computes wrongly after pycuda closed its context")
    print("torch computes in the same context after pycuda closed it")


def checked(opened: Callable[[], Cuda], rows: int = 256) -> list[str]:
    """Call everything twice, the second time after a close; return what to say of it.

    Args:
        opened: opens the GPU.
        rows: of 1,000 numbers, that a timed copy moves.

    Raises:
        EngineError: a call failed, or a number came back changed.
    """
    lines = []
    for turn in ("first", "second, after a close"):
        cuda = opened()
        try:
            if cuda.stream == 0:
                raise EngineError("the stream is CUDA's default stream", remedy="see edge/gpu/cuda.py")
            to_s, back_s = round_trip(cuda, rows)
        finally:
            cuda.close()
        size = 4_000 * rows
        lines.append(
            f"{turn} opening: {size / 1e6:g} MB there and back unchanged, "
            f"{size / to_s / 1e9:.1f} GB/s to the device, {size / back_s / 1e9:.1f} GB/s back"
        )
    return lines


def round_trip(cuda: Cuda, rows: int) -> tuple[float, float]:
    """Copy to the device and back, once to prepare and once timed; return the seconds of both ways.

    Raises:
        EngineError: a number came back changed, or rows that were not sent did.
    """
    source, target = cuda.pinned((rows, 1_000)), cuda.pinned((rows, 1_000))
    address = cuda.alloc(source.nbytes)
    times = (0.0, 0.0)
    for turn in range(2):
        source[:] = np.random.default_rng(turn).standard_normal(source.shape, np.float32)
        target.fill(-1.0)
        times = (
            timed(cuda, lambda: cuda.h2d(address, source)),
            timed(cuda, lambda: cuda.d2h(target, address)),
        )
        require_equal(source, target)
    half = rows // 2
    target.fill(-1.0)
    cuda.d2h(target[:half], address)
    cuda.sync()
    require_equal(source[:half], target[:half])
    if (target[half:] != -1.0).any():
        raise EngineError("a copy of the first rows changed others", remedy="see edge/gpu/cuda.py")
    return times


def timed(cuda: Cuda, copy: Callable[[], None]) -> float:
    """Return the seconds of a copy until the stream is idle."""
    began = time.perf_counter()
    copy()
    cuda.sync()
    return time.perf_counter() - began


def require_equal(sent: Array, came: Array) -> None:
    """Check that what came back is what was sent."""
    changed = int((sent != came).sum())
    if changed:
        raise EngineError(
            f"{changed} of {sent.size} numbers came back changed",
            remedy="see the output of nvidia-smi and dmesg",
        )


if __name__ == "__main__":
    main()
