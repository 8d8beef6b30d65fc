"""Power spectra to the frames that a network reads, by the kind of its front-end."""

from __future__ import annotations

from typing import Protocol

from edge.arrays import Array
from edge.features.frontend import FrontEnd
from edge.features.log_mel import LogMel
from edge.features.mel_power import MelPower
from edge.features.normaliser import BinStatistics, GainConfig, Normaliser


class NetworkInput(Protocol):
    """Maps the power spectra of a stream to frames, one each."""

    def reset(self) -> None:
        """Forget the stream."""

    def __call__(self, power: Array, levels: Array | None = None) -> Array:
        """Map the next (T, bins) power spectra to (T, frame_size) float32 frames.

        Args:
            power: (T, bins).
            levels: their `frame_levels`, (T,), if already computed.
        """


def network_input(front_end: FrontEnd, levels: GainConfig, statistics: BinStatistics) -> NetworkInput:
    """Prepare a stream.

    Args:
        front_end: of the bundle.
        levels: the gain control; without effect on a log mel spectrum, whose network normalises each window.
        statistics: (frame_size,) of the bundle or of a speaker.
    """
    match front_end.spectrum:
        case "linear":
            return Normaliser(levels, statistics)
        case "log_mel":
            return LogMel(statistics)
        case "mel_power":
            return MelPower(levels, statistics)
