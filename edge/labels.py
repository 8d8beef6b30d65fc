"""Emotions, and the discrete valence, arousal and dominance classes."""

from __future__ import annotations

import math
from typing import Final, Literal

EMOTIONS: Final = ("neutral", "happy", "sad", "angry")
"""The recogniser's classes, in the order of every probability vector."""

UNSURE: Final = "unsure"
"""The label when no emotion is probable enough. It is not a class."""

DIMENSIONS: Final = ("valence", "arousal", "dominance")

Dimension = Literal["valence", "arousal", "dominance"]

SCALE: Final = (1.0, 5.0)
"""Lowest and highest rating of a dimension."""

DIMENSION_CLASSES: Final = 4
"""[1,2) [2,3) [3,4) [4,5]"""

_NORMS: Final = {
    "neutral": (0.0, 0.0, 0.0),
    "happy": (0.81, 0.51, 0.46),
    "sad": (-0.63, -0.27, -0.33),
    "angry": (-0.51, 0.59, 0.25),
    "fearful": (-0.64, 0.60, -0.43),
    "disgust": (-0.60, 0.35, 0.11),
    "surprised": (0.40, 0.67, -0.13),
    "calm": (0.68, -0.46, 0.06),
}
"""Mean ratings of emotion words on -1..1: Russell & Mehrabian 1977; neutral by convention."""


def dimension_class(rating: float) -> int:
    """Map a rating to its class.

    [1,2) -> 0, [2,3) -> 1, [3,4) -> 2, [4,5] -> 3      Cai et al. 2020, section 3.1.1

    Args:
        rating: valence, arousal or dominance in [1, 5].

    Raises:
        ValueError: the rating is outside [1, 5] or not a number.
    """
    low, high = SCALE
    if not low <= rating <= high:
        raise ValueError(f"invalid rating: {rating:g}, expected {low:g} to {high:g}")
    return min(math.floor(rating) - 1, DIMENSION_CLASSES - 1)


def derived_ratings(emotion: str, intensity: str = "") -> tuple[float, float, float] | None:
    """Derive valence, arousal and dominance in [1, 5] from an emotion.

    They are norms for words and add no information to the emotion; a display must call them "derived".
    A strong intensity moves them 1.5 times as far from the middle.

    Args:
        emotion: the emotion's name.
        intensity: "strong"; any other text is normal.

    Returns:
        The three ratings, or None for an emotion without norms.
    """
    norms = _NORMS.get(emotion)
    if norms is None:
        return None
    reach = 1.5 if intensity == "strong" else 1.0
    valence, arousal, dominance = (3.0 + 2.0 * max(-1.0, min(1.0, reach * norm)) for norm in norms)
    return valence, arousal, dominance
