from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.errors import UsageError
from edge.features.frontend import FrontEnd
from edge.inference.window_grid import feature_ms, step_in_features, window_ends
from edge.model.manifest import Graphs

GRAPHS = Graphs((), 128, 256, 8, 49, 32)


@given(features=st.integers(1, 400), step=st.integers(1, 40))
def test_windows_are_a_step_apart_and_the_last_ends_with_the_recording(features: int, step: int) -> None:
    ends = window_ends(features, GRAPHS, step)
    assert ends[-1] == features
    assert ends == sorted(set(ends))
    assert ends[:-1] == list(range(32, features, step))


@pytest.mark.parametrize(("hop_ms", "grid_ms"), [(10, 80), (5, 40), (20, 160)])
def test_the_step_is_counted_by_the_hop_of_the_bundle(hop_ms: int, grid_ms: int) -> None:
    front_end = FrontEnd(hop_length_ms=hop_ms)
    assert feature_ms(GRAPHS, front_end) == grid_ms
    assert step_in_features(480, GRAPHS, front_end) * grid_ms == 480
    with pytest.raises(UsageError, match=f"{grid_ms + 1} ms is not a multiple of {grid_ms} ms: choose"):
        step_in_features(grid_ms + 1, GRAPHS, front_end)
