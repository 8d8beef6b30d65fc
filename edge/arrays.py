"""The array type and the sample rate of all signal processing."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

SAMPLE_RATE: Final = 16_000
"""Hz, of the front end, the voice activity model and all samples between them."""
