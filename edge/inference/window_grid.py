"""The grid of windows in time: features at multiples of the hop, windows at multiples of the step."""

from __future__ import annotations

from edge.errors import UsageError
from edge.features.frontend import FrontEnd
from edge.model.manifest import Graphs


def feature_ms(graphs: Graphs, front_end: FrontEnd) -> int:
    """Return the time from one feature to the next: 80 ms with a hop of 10 ms."""
    return graphs.frames_per_feature * front_end.hop_length_ms


def step_in_features(step_ms: int, graphs: Graphs, front_end: FrontEnd) -> int:
    """Return the number of features from one window to the next.

    Raises:
        UsageError: the step is not a multiple of the time from one feature to the next.
    """
    grid_ms = feature_ms(graphs, front_end)
    if step_ms < grid_ms or step_ms % grid_ms:
        raise UsageError(
            f"invalid step: {step_ms} ms is not a multiple of {grid_ms} ms",
            remedy=f"choose {grid_ms}, {2 * grid_ms}, {3 * grid_ms} or more",
        )
    return step_ms // grid_ms


def window_ends(features: int, graphs: Graphs, step_features: int) -> list[int]:
    """List where the windows of a recording end: the number of the feature after the last.

    Full windows at a step, then the one that ends with the last feature, which is shorter in a recording
    shorter than a window. The shorter windows at the start of a stream are those of `first_window_ends`.

    Args:
        features: of the recording, > 0.
        graphs: tell how long a window is.
        step_features: features from one window to the next.
    """
    ends = list(range(graphs.window_features, features + 1, step_features))
    return ends if ends and ends[-1] == features else [*ends, features]


def first_window_ends(graphs: Graphs, step_features: int) -> list[int]:
    """List where the shorter windows at the start of a stream end, on the grid of the full ones."""
    full, first = graphs.window_features, graphs.first_window_features or graphs.window_features
    return list(range(full - (full - first) // step_features * step_features, full, step_features))
