"""What all of the runtime's signal processing shares: the array type and the sample rate."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

SAMPLE_RATE: Final = 16_000
"""Hz: of the front-ends, the voice-activity model and everything between them."""
