"""A pretrained encoder's first blocks, pooled over time, and the speaker-relative head on them.

    log mel (B, T, 80) -> level of the window -> WhisperEncoder -> mean of the block before the last, mean
    and deviation of the last -> standardised embedding (B, D) -> SpeakerHead

Shapes by letter: B batch, T frames of 10 ms, M mel bands, W width, D = 3 W embedding, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import torch
from torch import Tensor

from edge.bounds import within
from train.speaker_net import SpeakerArchitecture, SpeakerNet, moments
from train.whisper_encoder import WhisperEncoder

DYNAMIC_RANGE: Final = 8.0
"""Decades of mel power kept below the maximum of a window: 80 dB."""

MAXIMUM: Final = 1.5
"""Log10 mel power to which the maximum of a window is shifted: that of clear speech near full scale."""


@dataclass(frozen=True)
class PretrainedArchitecture(SpeakerArchitecture):
    """Sizes of the network."""

    width: int = field(default=384, metadata=within(64, 4_096))
    """W of the encoder: 384 in Whisper tiny, 512 in base."""
    blocks: int = field(default=2, metadata=within(1, 32))

    @property
    def embedding_size(self) -> int:
        """D."""
        return 3 * self.width


class PretrainedNet(SpeakerNet[PretrainedArchitecture, WhisperEncoder]):
    """(B, T, M) log10 mel power of windows to emotion logits."""

    def __init__(self, arch: PretrainedArchitecture) -> None:
        super().__init__(arch, WhisperEncoder(arch.width, arch.blocks))

    def pooled(self, inputs: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Map (B, T, M) frames, T or `lengths` of them valid, to (B, D) before standardisation."""
        states = self.encoder.hidden_states(normalised(inputs, lengths), lengths)
        counts = None if lengths is None else self.encoder.states_in(lengths)
        return pooled_states(states[-2], states[-1], counts)


def pooled_states(before: Tensor, last: Tensor, counts: Tensor | None = None) -> Tensor:
    """Pool the (B, S, W) states of the last two blocks to (B, D); `counts` (B,) are valid, all if None."""
    mean, deviation = moments(last, counts)
    return torch.cat([moments(before, counts)[0], mean, deviation], dim=1)


def normalised(log_mel: Tensor, lengths: Tensor | None = None) -> Tensor:
    """Normalise the level of windows, and scale them to the encoder's range.

    The maximum of a window is shifted to `MAXIMUM`, values more than `DYNAMIC_RANGE` below it are clipped,
    and (x + 4) / 4 is Whisper's own scaling. Frames past an item's end become 0.

    Differs: Whisper cuts 8 decades below the maximum of the whole clip and keeps its level. The maximum of
    the window is known in a stream, and makes the result independent of the microphone's gain.

    Args:
        log_mel: (B, T, M) log10 mel power.
        lengths: (B,) number of valid frames; all if None.
    """
    if lengths is None:
        return _scaled(log_mel - log_mel.amax(dim=(1, 2), keepdim=True))
    valid = (torch.arange(log_mel.shape[1], device=log_mel.device)[None, :] < lengths[:, None])[:, :, None]
    loudest = log_mel.masked_fill(~valid, -torch.inf).amax(dim=(1, 2), keepdim=True)
    return _scaled(log_mel - loudest) * valid


def _scaled(relative: Tensor) -> Tensor:
    return (relative.clamp(min=-DYNAMIC_RANGE) + (MAXIMUM + 4.0)) / 4.0
