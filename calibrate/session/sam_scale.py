"""Picture scales for valence, arousal and dominance, answered with the keys 1 to 5.

Modelled on the Self-Assessment Manikin (Bradley & Lang 1994), which has the same three scales with five
pictures each. These pictures are original and use only ASCII characters; the words are those of the
IEMOCAP ratings (Busso et al. 2008).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from edge.labels import SCALE, Dimension

CELL: Final = 15
"""Columns of a picture, with the space around it."""


@dataclass(frozen=True)
class RatingScale:
    """One question and its five answers."""

    dimension: Dimension
    question: str
    words: tuple[str, ...]
    """The meaning of the answers 1 to 5."""
    pictures: tuple[str, ...]
    """One for each answer: lines, none wider than `CELL`."""


def rating_of(key: str) -> float | None:
    """Return the rating that a key gives, in [1, 5]; None for another key."""
    low, high = map(int, SCALE)
    return float(key) if key in map(str, range(low, high + 1)) else None


def draw_scale(scale: RatingScale, width: int) -> list[str]:
    """Draw the answers: pictures with numbers and words below, or one word per line if it is narrow.

    Args:
        scale: the question.
        width: available columns.
    """
    if width < CELL * len(scale.words):
        return [f"{number} {word}" for number, word in enumerate(scale.words, 1)]
    numbers = [str(number) for number in range(1, len(scale.words) + 1)]
    columns = [picture.strip("\n").split("\n") for picture in scale.pictures]
    height = max(map(len, columns))
    # Each picture is centred as a block and aligned at the bottom.
    blocks = [_block(column, height) for column in columns]
    rows = [[block[row] for block in blocks] for row in range(height)]
    return ["".join(cell.center(CELL) for cell in row).rstrip() for row in [*rows, numbers, scale.words]]


def _block(lines: list[str], height: int) -> list[str]:
    width = max(map(len, lines))
    return [" " * width] * (height - len(lines)) + [line.ljust(width) for line in lines]


SCALES: Final = (
    RatingScale(
        "valence",
        "How did that sound: negative or positive?",
        ("negative", "a bit negative", "neither", "a bit positive", "positive"),
        (
            r"""
 .-----.
/  o o  \
|  .-.  |
\ /   \ /
 '-----'
""",
            r"""
 .-----.
/  o o  \
|       |
\  .-.  /
 '-----'
""",
            r"""
 .-----.
/  o o  \
|       |
\  ---  /
 '-----'
""",
            r"""
 .-----.
/  o o  \
|       |
\  '-'  /
 '-----'
""",
            r"""
 .-----.
/  o o  \
| \   / |
\  '-'  /
 '-----'
""",
        ),
    ),
    RatingScale(
        "arousal",
        "How did that sound: calm or excited?",
        ("calm", "rather calm", "in between", "rather lively", "excited"),
        (
            " \n.\n ",
            " \n(o)\n ",
            "  |\n- o -\n  |",
            "\\ | /\n- O -\n/ | \\",
            "\\\\ | //\n-- O --\n// | \\\\",
        ),
    ),
    RatingScale(
        "dominance",
        "How did that sound: weak or strong?",
        ("weak", "rather weak", "in between", "rather strong", "strong"),
        (
            ".",
            "o\n|",
            " o\n/|\\\n/ \\",
            " O\n/|\\\n |\n/ \\",
            " ( )\n/|||\\\n |||\n |||\n / \\",
        ),
    ),
)
"""In the order of `edge.labels.DIMENSIONS`."""
