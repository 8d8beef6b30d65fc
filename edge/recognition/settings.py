"""How a recogniser runs."""

from __future__ import annotations

from dataclasses import dataclass, field

from edge.audio.downmix import AUTO, Channel
from edge.features.vad import VadConfig
from edge.recognition.decision import DecisionRule


@dataclass(frozen=True)
class Settings:
    """How a recogniser runs."""

    step_ms: int = 240
    """Time from one window to the next: a multiple of 80 with the bundles that ship."""
    speech_needed_s: float = 0.75
    """Speech that a window needs for an emotion, from where the speech flag rises to the last voice. The flag
    rises after 0.25 s of voice, so a word of half a second is "unsure"."""
    channel: Channel = AUTO
    """Channel of a waveform, as in `edge.audio.downmix`: a number from 0, "mix" or "auto"."""
    rule: DecisionRule = field(default_factory=DecisionRule)
    gate: VadConfig = field(default_factory=VadConfig)
