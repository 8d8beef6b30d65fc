"""The picture scale: how a take sounds, in three questions answered with the keys 1 to 5.

After the Self-Assessment Manikin (Bradley & Lang 1994), which asks the same three things with five
pictures each. These are drawn anew, of characters that every terminal has; the words are those of
the IEMOCAP ratings (Busso et al. 2008).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from edge.labels import SCALE

CELL: Final = 15
"""Columns of a picture, with the space around it."""


@dataclass(frozen=True)
class Scale:
    """One question."""

    dimension: str
    question: str
    words: tuple[str, ...]
    """What the answers 1 to 5 mean."""
    pictures: tuple[str, ...]
    """One for each answer: lines, none wider than `CELL`."""


def rating_of(key: str) -> float | None:
    """Return the rating that a key gives, in [1, 5]; None for another key."""
    low, high = map(int, SCALE)
    return float(key) if key in map(str, range(low, high + 1)) else None


def drawn(scale: Scale, width: int) -> list[str]:
    """Draw the answers: pictures with their numbers and words below, or a word a line if it is narrow.

    Args:
        scale: the question.
        width: columns there are.
    """
    if width < CELL * len(scale.words):
        return [f"{number} {word}" for number, word in enumerate(scale.words, 1)]
    numbers = [str(number) for number in range(1, len(scale.words) + 1)]
    columns = [picture.strip("\n").split("\n") for picture in scale.pictures]
    height = max(map(len, columns))
    # A picture is centred as a whole, and stands on the ground.
    blocks = [_block(column, height) for column in columns]
    rows = [[block[row] for block in blocks] for row in range(height)]
    return ["".join(cell.center(CELL) for cell in row).rstrip() for row in [*rows, numbers, scale.words]]


def _block(lines: list[str], height: int) -> list[str]:
    width = max(map(len, lines))
    return [" " * width] * (height - len(lines)) + [line.ljust(width) for line in lines]


SCALES: Final = (
    Scale(
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
    Scale(
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
    Scale(
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
