"""The systems of Table 2 by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, Literal

from train.model import Architecture
from train.systems.angular_softmax import AngularCnnLstm
from train.systems.attention_pooling import AttentionPoolingCnn
from train.systems.base import System
from train.systems.capsules import SequentialCapsules
from train.systems.self_attention import SelfAttention

SystemName = Literal["angular", "seqcap", "attention-pooling", "self-attention"]

_MAKERS: Final[Mapping[SystemName, Callable[[], System]]] = {
    "angular": lambda: AngularCnnLstm(Architecture()),
    "seqcap": SequentialCapsules,
    "attention-pooling": AttentionPoolingCnn,
    "self-attention": SelfAttention,
}

SYSTEMS: Final[tuple[SystemName, ...]] = tuple(_MAKERS)
"""In the order of Table 2."""


def make_system(name: SystemName) -> System:
    """Return an untrained system of its default size for this project's 200 bins; trained by `erm`."""
    return _MAKERS[name]()
