"""Values that a file may hold where a number is expected."""

from __future__ import annotations

import json

from hypothesis import strategies as st

HOSTILE = [
    *(10**400, -(10**400), -1, 0, 1, 2, 2**31, 2**31 - 1, 2**63, 1e-45, 1e308, -0.0, 0.5, 1e4),
    *(float("nan"), float("inf"), float("-inf"), True, False, None, "", "16000", "a\n\x1b[2J", [], [1], {}),
    *([[]], [[1, 2**31, 1]], {"a": 1}, "x" * 100_000, json.loads("[" * 200 + "]" * 200)),
]
hostile = st.one_of(
    st.sampled_from(HOSTILE), st.integers(), st.floats(), st.text(max_size=20), st.integers(1, 100_000)
)
