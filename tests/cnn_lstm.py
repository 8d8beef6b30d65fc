"""A bundle of the paper's CNN-LSTM: incremental, and the quickest to run of all that the tests use."""

from __future__ import annotations

from pathlib import Path
from typing import Final

CNN_LSTM: Final = Path(__file__).parent / "bundles" / "cnn-lstm"
