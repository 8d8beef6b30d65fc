"""Sessions run with the CNN-LSTM unless a test names another bundle: its windows are the quickest."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.model import bundle
from tests.cnn_lstm import CNN_LSTM


@pytest.fixture(autouse=True, scope="module")
def cnn_lstm_by_default() -> Iterator[None]:
    def folder(name: str) -> Path:
        return CNN_LSTM

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(bundle, "shipped_bundle", folder)
        yield
