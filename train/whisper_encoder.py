"""The stem and first blocks of the OpenAI Whisper encoder (Radford et al. 2022), pretrained.

Shapes by letter: B batch, T frames of 10 ms, M mel bands, S hidden states of 20 ms, W width.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from edge.errors import ModelError
from edge.features.frontend import MEL_BANDS
from train.encoder_file import filled, read_encoder_file

HEAD_SIZE: Final = 64
"""Width of an attention head, the same in all of Whisper's sizes."""

WIDEST: Final = 4_096
"""Largest width that is read; Whisper's largest is 1280."""

POSITIONS: Final = 1500
"""Hidden states of 20 ms in the 30 s that Whisper was trained on."""

STRIDE: Final = 2
"""Frames in a hidden state."""


class Attention(nn.Module):
    """Multi-head self-attention after a layer norm."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, states: Tensor, mask: Tensor | None) -> Tensor:
        """Map (B, S, W) to (B, S, W); a (B, 1, 1, S) mask is true where a state may be attended to."""
        batch, length, width = states.shape
        projected = self.qkv(self.norm(states)).view(batch, length, 3, width // HEAD_SIZE, HEAD_SIZE)
        query, key, value = projected.permute(2, 0, 3, 1, 4)  # each (B, heads, S, 64)
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        summary: Tensor = self.out(mixed.transpose(1, 2).reshape(batch, length, width))
        return summary


class FeedForward(nn.Module):
    """Two linear layers with a GELU between, after a layer norm."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, 4 * width)
        self.down = nn.Linear(4 * width, width)

    def forward(self, states: Tensor) -> Tensor:
        """Map (B, S, W) to (B, S, W)."""
        output: Tensor = self.down(F.gelu(self.up(self.norm(states))))
        return output


class EncoderBlock(nn.Module):
    """One residual block."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.attention = Attention(width)
        self.mlp = FeedForward(width)

    def forward(self, states: Tensor, mask: Tensor | None = None) -> Tensor:
        """Map (B, S, W) to (B, S, W)."""
        states = states + self.attention(states, mask)
        output: Tensor = states + self.mlp(states)
        return output


class WhisperEncoder(nn.Module):
    """Log mel spectrogram to hidden states; the modules carry the names of the published file."""

    def __init__(self, width: int, blocks: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(MEL_BANDS, width, 3, padding=1)
        self.conv2 = nn.Conv1d(width, width, 3, stride=STRIDE, padding=1)
        self.positions = nn.Parameter(torch.zeros(POSITIONS, width), requires_grad=False)
        self.block = nn.ModuleList(EncoderBlock(width) for _ in range(blocks))

    @staticmethod
    def states_in(frames: Tensor) -> Tensor:
        """Return the number of hidden states of `frames` frames."""
        return (frames + STRIDE - 1) // STRIDE

    def stem(self, log_mel: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Map (B, T, M) to (B, S, W), with the first positions added."""
        maps = F.gelu(self.conv1(log_mel.transpose(1, 2)))  # (B, W, T)
        if lengths is not None:  # conv2 then sees zeros past each item's end
            maps = maps * _within(lengths, maps.shape[2])[:, None, :]
        states = F.gelu(self.conv2(maps)).transpose(1, 2)  # (B, S, W)
        return states + self.positions[: states.shape[1]]

    def hidden_states(
        self, log_mel: Tensor, lengths: Tensor | None = None, blocks: int | None = None
    ) -> list[Tensor]:
        """Return the (B, S, W) states after the stem and after each block.

        Args:
            log_mel: (B, T, M) normalised frames, zero past each item's end.
            lengths: (B,) valid frames, all if None; states past the end are invalid.
            blocks: how many are applied; all if None.
        """
        states = [self.stem(log_mel, lengths)]
        mask = None
        if lengths is not None:
            mask = _within(self.states_in(lengths), states[0].shape[1])[:, None, None, :]
        for block in self.block[:blocks]:
            states.append(block(states[-1], mask))
        return states

    def forward(self, log_mel: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Map (B, T, M) to the (B, S, W) states after the last block."""
        return self.hidden_states(log_mel, lengths)[-1]


def load_whisper_encoder(path: Path, blocks: int) -> WhisperEncoder:
    """Read the stem and the first blocks of a published encoder, in float32 and evaluation mode.

    Raises:
        ModelError: the file is missing, damaged or of another model, has fewer blocks, or holds numbers that
            are not finite.
    """
    tensors = read_encoder_file(path, _REMEDY)
    width = int(next(iter(tensors["conv1.weight"].shape), 0)) if "conv1.weight" in tensors else 0
    if not 0 < width <= WIDEST or width % HEAD_SIZE:
        raise ModelError(
            f"{path} is not a Whisper encoder (it has no conv1.weight of a known width)", remedy=_REMEDY
        )
    present = len({name.split(".")[1] for name in tensors if name.startswith("block.")})
    if not 0 <= blocks <= present:
        raise ModelError(f"{path} holds {present} blocks, not {blocks}", remedy=f"ask for at most {present}")

    def make() -> WhisperEncoder:
        return WhisperEncoder(width, blocks)

    state = filled(make, tensors, lambda name: name, path, _REMEDY)
    encoder = make()
    encoder.load_state_dict(state)
    return encoder.eval()


_REMEDY: Final = "give the file of a Whisper encoder, complete and unchanged"


def _within(lengths: Tensor, size: int) -> Tensor:
    """Return (B, size), true at the places below each length."""
    places: Tensor = torch.arange(size, device=lengths.device)[None, :] < lengths[:, None]
    return places
