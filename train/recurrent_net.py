"""A speaker encoder's causal LSTM layers, pooled over a window, and the speaker-relative head on them.

    mel power (B, T, 40) -> RecurrentEncoder -> mean of each 8 frames -> features (B, S, P)
    features of a window -> mean over its speech, and deviation of the last layer -> standardised embedding
    (B, D) -> SpeakerHead

The state of the layers is carried over from one window to the next, so each frame is computed once. Pauses
have little weight in the pooling: what the layers hold in them says nothing of the speech in the window.
Shapes by letter: B batch, T frames of 10 ms, M mel bands, W units, S features of 80 ms, P = 2 W + 1 values
of the last two layers and the level, D = 3 W embedding, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import torch
from torch import Tensor, nn

from edge.bounds import within
from edge.errors import ModelError
from edge.features.frontend import MEL_POWER_BANDS
from train.encoder_file import filled, read_encoder_file
from train.speaker_net import SpeakerArchitecture, SpeakerNet, valid, weighted_moments

FRAMES_PER_FEATURE: Final = 8
"""Frames whose outputs are averaged: 80 ms."""

POOLED_LAYERS: Final = 2
"""Last layers whose outputs are features."""

FAINTEST_SPEECH: Final = -9.5
"""Level of a feature that has half its weight, in nats: 25 dB below the loudest quarter of speech."""

LEVEL_SLOPE: Final = 2.0
"""Of the weight's logistic function, in 1/nat."""

LEAST_WEIGHT: Final = 0.001
"""Of a feature of silence: a window without speech has a mean too."""

POOLING: Final = (FAINTEST_SPEECH, LEVEL_SLOPE, LEAST_WEIGHT)

SILENCE: Final = 1e-9
"""Added to the mel power, whose logarithm is the level."""

LayerState = tuple[Tensor, Tensor]
"""Hidden and cell state of one layer, (1, B, W) each."""


@dataclass(frozen=True)
class RecurrentArchitecture(SpeakerArchitecture):
    """Sizes of the network."""

    units: int = field(default=256, metadata=within(1, 4_096))
    """W."""
    layers: int = field(default=3, metadata=within(2, 16))

    @property
    def feature_size(self) -> int:
        """P."""
        return POOLED_LAYERS * self.units + 1

    @property
    def embedding_size(self) -> int:
        """D."""
        return (POOLED_LAYERS + 1) * self.units


class RecurrentEncoder(nn.Module):
    """Causal LSTM layers, one on the other."""

    def __init__(self, units: int, layers: int) -> None:
        super().__init__()
        self.layer = nn.ModuleList(
            nn.LSTM(units if index else MEL_POWER_BANDS, units, batch_first=True) for index in range(layers)
        )

    def hidden_states(
        self, mel_power: Tensor, state: Sequence[LayerState] | None = None
    ) -> tuple[list[Tensor], list[LayerState]]:
        """Return the (B, T, W) outputs of each layer, and the state of each after the last frame.

        Args:
            mel_power: (B, T, M) frames.
            state: of each layer before the first frame; zeros if None.
        """
        outputs, after = [mel_power], []
        for index, layer in enumerate(self.layer):
            hidden, last = layer(outputs[-1], state[index] if state else None)
            outputs.append(hidden)
            after.append(last)
        return outputs[1:], after

    def forward(
        self, mel_power: Tensor, state: Sequence[LayerState] | None = None
    ) -> tuple[Tensor, list[LayerState]]:
        """Map (B, T, M), T a multiple of 8, to (B, T / 8, P) features, and return the new state."""
        outputs, after = self.hidden_states(mel_power, state)
        joined = torch.cat([*outputs[-POOLED_LAYERS:], mel_power.mean(dim=2, keepdim=True)], dim=2)
        batch, frames, values = joined.shape
        grouped = joined.view(batch, frames // FRAMES_PER_FEATURE, FRAMES_PER_FEATURE, values).mean(dim=2)
        level = (grouped[:, :, -1:] + SILENCE).log()
        return torch.cat([grouped[:, :, :-1], level], dim=2), after


class RecurrentNet(SpeakerNet[RecurrentArchitecture, RecurrentEncoder]):
    """(B, S, P) features of windows to emotion logits; `encoder` makes them of the mel power of a stream."""

    def __init__(self, arch: RecurrentArchitecture) -> None:
        super().__init__(arch, RecurrentEncoder(arch.units, arch.layers))

    def pooled(self, inputs: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Map (B, S, P) features, S or `lengths` of them valid, to (B, D) before standardisation."""
        states, level = inputs[:, :, :-1], inputs[:, :, -1]
        weights = torch.sigmoid(LEVEL_SLOPE * (level - FAINTEST_SPEECH)) + LEAST_WEIGHT
        if lengths is not None:
            weights = weights * valid(states, lengths)
        mean, deviation = weighted_moments(states, weights)
        return torch.cat([mean, deviation[:, -self.arch.units :]], dim=1)


def load_recurrent_encoder(path: Path) -> RecurrentEncoder:
    """Read the published LSTM layers, in float32 and evaluation mode.

    Raises:
        ModelError: the file is missing, damaged or of another model, or holds numbers that are not finite.
    """
    tensors = read_encoder_file(path, _REMEDY)
    layers = len([name for name in tensors if name.startswith("lstm.weight_ih_l")])
    if layers == 0 or tensors.get("lstm.weight_hh_l0", torch.zeros(0)).dim() != 2:
        raise ModelError(
            f"{path} is not a recurrent speaker encoder (it has no lstm.weight_hh_l0)", remedy=_REMEDY
        )
    units = int(tensors["lstm.weight_hh_l0"].shape[1])

    def make() -> RecurrentEncoder:
        return RecurrentEncoder(units, layers)

    def stored(name: str) -> str:
        index, kind = name.removeprefix("layer.").split(".")
        return f"lstm.{kind.removesuffix('_l0')}_l{index}"

    state = filled(make, tensors, stored, path, _REMEDY)
    encoder = make()
    encoder.load_state_dict(state)
    return encoder.eval()


_REMEDY: Final = "give the file of the recurrent encoder, complete and unchanged"
