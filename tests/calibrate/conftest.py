"""Sessions run with the bundle `small` unless a test names another: its windows are the quickest."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.model import bundle

SMALL = bundle.shipped_bundle("small")


@pytest.fixture(autouse=True, scope="module")
def small_by_default() -> Iterator[None]:
    def folder(name: str) -> Path:
        return SMALL

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(bundle, "shipped_bundle", folder)
        yield
