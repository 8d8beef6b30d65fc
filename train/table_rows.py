"""The rows of the paper's tables: which network, trained by what, on which auxiliary tasks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, cast

from edge.labels import DIMENSIONS, Dimension
from train.model import Architecture, EmotionNet
from train.systems.angular_softmax import AngularCnnLstm
from train.systems.attention_pooling import AttentionPoolingCnn
from train.systems.base import System
from train.systems.capsules import SequentialCapsules
from train.systems.self_attention import SelfAttention
from train.training import Algorithm


@dataclass(frozen=True)
class HeadVariant:
    """Encoder and form of a head (`train.speaker_head`)."""

    encoder: Path
    """File of the encoder."""
    digest: str
    """Of its weights: cells of two encoders never mix."""
    cache: Path
    """Folder of its features."""
    heads: Literal["shared", "separate"] = "separate"
    query: Literal["same", "disjoint"] = "disjoint"


@dataclass(frozen=True)
class Row:
    """A system of the tables."""

    key: str
    """By which the command names it."""
    name: str
    """In the tables."""
    paper: tuple[float, float] | None
    """UA and WA that the paper states for IEMOCAP, in percent."""
    network: Callable[[Architecture], EmotionNet | System] = EmotionNet
    """Makes the network; of no meaning with `head`."""
    algorithm: Algorithm = "erm"
    auxiliary: tuple[Dimension, ...] = DIMENSIONS
    head: HeadVariant | None = None
    """Trained on a pretrained encoder, which stays as it is."""

    @property
    def folder(self) -> str:
        """Name of the folder of its cells."""
        return f"{self.key}-{self.head.digest[:8]}" if self.head else self.key

    @property
    def has_auxiliary(self) -> bool:
        """Whether it is trained on auxiliary tasks."""
        return self.algorithm in ("mtl", "mmtl")


def _attention_pooling(_: Architecture) -> System:
    return AttentionPoolingCnn()


def _capsules(arch: Architecture) -> System:
    return SequentialCapsules(arch.bins)


def _self_attention(arch: Architecture) -> System:
    return SelfAttention(arch.bins)


def _mmtl(letters: str, ua: float, wa: float) -> Row:
    named = [name for name in DIMENSIONS if name[0] in letters]
    return Row(
        f"mmtl-{letters}",
        f"MMTL({'+'.join(name[0].upper() for name in named)})",
        (ua, wa),
        EmotionNet,
        "mmtl",
        cast(tuple[Dimension, ...], tuple(named)),
    )


TABLE_2: Final = (
    Row("cnn-lstm", "CNN-LSTM", (56.60, 65.80), EmotionNet),
    Row("angular", "CNN-LSTM+angular softmax loss", (64.16, 68.74), AngularCnnLstm),
    Row("seqcap", "CNN+GRU+SeqCap", (59.71, 72.23), _capsules),
    Row("gap-attention", "CNN+GAP+Attention", (68.06, 71.75), _attention_pooling),
    Row("self-attention", "Self Attention", (63.80, 68.10), _self_attention),
    Row("cnn-lstm-mtl", "CNN-LSTM+MTL", (64.31, 68.84), EmotionNet, "mtl"),
    _mmtl("vad", 70.32, 76.64),
)
TABLE_3: Final = (
    _mmtl("v", 65.60, 71.99),
    _mmtl("a", 58.28, 65.71),
    _mmtl("d", 54.25, 66.98),
    _mmtl("vd", 73.22, 75.83),
    _mmtl("ad", 55.26, 67.25),
    _mmtl("va", 74.61, 77.74),
    TABLE_2[-1],
)
FIGURE_3: Final = (TABLE_2[0], TABLE_2[-2], TABLE_2[-1])
"""Rows whose confusion matrices the paper shows."""

PAPER_ROWS: Final = {row.key: row for row in (*TABLE_2, *TABLE_3)}

ENCODER_KEYS: Final = ("ear-erm", "ear-mtl", "ear-mmtl", "ear-mmtl-paper")


def encoder_rows(encoder: Path, digest: str, cache: Path) -> dict[str, Row]:
    """Return the rows beside the paper's: heads on the features of a pretrained encoder, by key."""
    usual = HeadVariant(encoder, digest, cache)
    paper = HeadVariant(encoder, digest, cache, "shared", "same")
    rows = (
        Row("ear-erm", "encoder + head", None, algorithm="erm", head=usual),
        Row("ear-mtl", "encoder + head, MTL", None, algorithm="mtl", head=usual),
        Row(
            "ear-mmtl",
            "encoder + head, MMTL, separate heads, disjoint query",
            None,
            algorithm="mmtl",
            head=usual,
        ),
        Row(
            "ear-mmtl-paper",
            "encoder + head, MMTL, shared head, same query",
            None,
            algorithm="mmtl",
            head=paper,
        ),
    )
    return {row.key: row for row in rows}
