"""Operations and bytes per window, counted from the graph, and the number of streams they allow.

    python benchmarks/window_work.py [--bundle FOLDER] [--batch 32] [--step-ms 240] [--tflops T --gb-per-s G]

Counts the multiply-adds of Conv, MatMul, Gemm and LSTM as written, padding included; other operators are left
out. Given the peak arithmetic and memory bandwidth of a device, it prints the bound for direct computation
there. A bound is not a forecast; nothing is timed here (see `benchmarks/throughput.py`).
"""

from __future__ import annotations

import argparse
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper, shape_inference

from edge.model.bundle import default_bundle, load_bundle
from edge.model.manifest import WINDOW
from edge.recognition.settings import Settings

FLOAT_BYTES = 4
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Work:
    """Operations and bytes of a graph for one batch."""

    multiply_adds: Counter[str]
    """Number by operator."""
    weights: int
    """Bytes of weights, read at least once per batch."""
    arriving: int
    """Bytes of input."""
    leaving: int
    """Bytes of output."""
    between: int
    """Bytes of intermediate values."""
    held: int
    """Largest number of bytes of intermediate values, input and output that exist at one time."""

    @property
    def operations(self) -> int:
        """Additions and multiplications."""
        return 2 * self.multiply_adds.total()

    def shortest_s(self, operations_per_s: float, bytes_per_s: float) -> float:
        """Return the time at these speeds if intermediate values cost nothing."""
        moved = self.weights + self.arriving + self.leaving
        return max(self.operations / operations_per_s, moved / bytes_per_s)


def main() -> None:
    """Count and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--bundle", type=Path, default=default_bundle())
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--step-ms", type=int, default=Settings().step_ms)
    parser.add_argument("--tflops", type=float, help="peak of the device, 10^12 operations a second")
    parser.add_argument("--gb-per-s", type=float, help="of the device's memory, 10^9 bytes a second")
    options = parser.parse_args()
    bundle = load_bundle(options.bundle)
    front_end = bundle.manifest.front_end
    graphs = [
        sized(bundle.graph(WINDOW), (batch, front_end.window_frames, front_end.frame_size))
        for batch in (1, options.batch)
    ]
    one, many = map(work_of, graphs)
    describe(one, many, options.batch)
    a_stream(one, options.step_ms / 1000.0)
    if options.tflops and options.gb_per_s:
        bound(many, options.batch, options.step_ms / 1000.0, options.tflops * 1e12, options.gb_per_s * 1e9)


def sized(path: Path, shape: Shape) -> onnx.ModelProto:
    """Read a graph of one input, and infer the shapes of all its values from the input's."""
    model = onnx.load(str(path))
    (frames,) = model.graph.input
    for axis, size in zip(frames.type.tensor_type.shape.dim, shape, strict=True):
        axis.dim_value = size
    known = shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    return shape_inference.infer_shapes(with_constants(known), check_type=True, strict_mode=True)


def with_constants(model: onnx.ModelProto) -> onnx.ModelProto:
    """Compute what does not depend on the input, as a runtime does at load: weights in FP32, and sizes."""
    graph = model.graph
    weights = {item.name: item for item in graph.initializer}
    shapes = {value.name: shape_of(value) for value in graph.value_info}
    for node in list(graph.node):
        (source, *_), (output, *_) = node.input, node.output
        if node.op_type == "Cast" and source in weights:
            value = numpy_helper.to_array(weights[source]).astype(np.float32)
            graph.initializer.remove(weights[source])
        elif node.op_type == "Shape":
            ends = {item.name: item.i for item in node.attribute}
            value = np.array(shapes[source][ends.get("start", 0) : ends.get("end")], np.int64)
        else:
            continue
        graph.initializer.append(numpy_helper.from_array(value, output))
        graph.node.remove(node)
    return model


def work_of(model: onnx.ModelProto) -> Work:
    """Count the work of a graph whose values have known shapes."""
    graph = model.graph
    weights = {item.name: numpy_helper.to_array(item) for item in graph.initializer}
    shapes = {name: value.shape for name, value in weights.items()}
    shapes |= {value.name: shape_of(value) for value in (*graph.input, *graph.value_info, *graph.output)}
    assert all(map(all, shapes.values())), "a value has no size"
    counted: Counter[str] = Counter()
    for node in graph.node:
        counted[node.op_type] += multiply_adds(node, shapes)
    ends = {value.name for value in (*graph.input, *graph.output)}
    inner = [name for node in graph.node for name in node.output if name and name not in ends]
    return Work(
        multiply_adds=+counted,
        weights=sum(value.nbytes for value in weights.values()),
        arriving=sum(bytes_of(shapes[value.name]) for value in graph.input),
        leaving=sum(bytes_of(shapes[value.name]) for value in graph.output),
        between=sum(bytes_of(shapes[name]) for name in inner),
        held=max(held_at_each_node(graph, shapes)),
    )


def multiply_adds(node: onnx.NodeProto, shapes: dict[str, Shape]) -> int:
    """Count the multiply-adds of one node.

    Conv: outputs * (channels in * kernel); MatMul and Gemm: outputs * inner size;
    LSTM: directions * steps * batch * 4 * units * (inputs + units).
    """
    made = math.prod(shapes[node.output[0]]) if node.output[0] else 0
    if node.op_type == "Conv":
        return made * math.prod(shapes[node.input[1]][1:])
    if node.op_type in {"MatMul", "Gemm"}:
        return made * shapes[node.input[0]][-1]
    if node.op_type == "LSTM":
        (steps, batch, inputs), (directions, gates, units) = shapes[node.input[0]], shapes[node.input[2]]
        return directions * steps * batch * gates * (inputs + units)
    return 0


def held_at_each_node(graph: onnx.GraphProto, shapes: dict[str, Shape]) -> Iterator[int]:
    """Yield the bytes of all values that exist while each node runs, without weights."""
    last = {name: index for index, node in enumerate(graph.node) for name in node.input}
    last |= {value.name: len(graph.node) for value in graph.output}
    alive = {value.name for value in graph.input}
    for index, node in enumerate(graph.node):
        alive |= {name for name in node.output if name}
        yield sum(bytes_of(shapes[name]) for name in alive)
        alive = {name for name in alive if last.get(name, -1) > index}


def shape_of(value: onnx.ValueInfoProto) -> Shape:
    """Return the sizes of a value; 0 for one that is not known."""
    return tuple(axis.dim_value for axis in value.type.tensor_type.shape.dim)


def bytes_of(shape: Shape) -> int:
    """Return the size of a float32 tensor."""
    return FLOAT_BYTES * math.prod(shape)


def describe(one: Work, many: Work, batch: int) -> None:
    """Print the work of a window and of a batch."""
    total = one.multiply_adds.total()
    print(f"one window: {total / 1e6:.1f} million multiply-adds, {one.operations / 1e9:.3f} GFLOP")
    for operator, count in one.multiply_adds.most_common():
        print(f"  {operator:8}{count / 1e6:8.1f} million  {100 * count / total:5.1f} %")
    print(f"  bytes: {one.arriving} in, {one.leaving} out, weights {one.weights}")
    print(f"  between operators {one.between / 1e6:.1f} MB, of these at one time {one.held / 1e6:.1f} MB")
    print(f"{batch} windows: at one time {many.held / 1e6:.1f} MB besides the weights")


def a_stream(one: Work, step_s: float) -> None:
    """Print the work of a live stream."""
    print(f"a stream, a window every {1000 * step_s:g} ms: {1 / step_s:.2f} windows/s")
    print(f"  {one.operations / step_s / 1e9:.2f} GFLOP/s")
    to_server, back = (8 * size / step_s for size in (one.arriving, one.leaving))
    print(f"  {to_server / 1e6:.2f} Mbit/s to the server, {back / 1e3:.1f} kbit/s back")


def bound(many: Work, batch: int, step_s: float, operations_per_s: float, bytes_per_s: float) -> None:
    """Print the bound for direct computation on a device."""
    shortest = many.shortest_s(operations_per_s, bytes_per_s)
    print(f"{operations_per_s / 1e12:g} TFLOP/s and {bytes_per_s / 1e9:g} GB/s at most, batches of {batch}:")
    print(f"  no batch under {1e6 * shortest:.1f} us, no more than {batch / shortest:,.0f} windows/s")
    print(f"  no more than {step_s * batch / shortest:,.0f} streams; how near one comes must be measured")


if __name__ == "__main__":
    main()
