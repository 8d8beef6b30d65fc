"""Small heads, examples and sessions for tests of fitting and judging."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from calibrate.fitting.examples import Examples, examples
from calibrate.fitting.gradient_descent import Floats, Objective
from calibrate.fitting.ordinary import StartingHeads
from calibrate.takes import InputNormalisation, Ratings, Take
from edge.arrays import Array
from edge.features.normaliser import BinStatistics, GainConfig
from edge.model.head import Head
from edge.model.manifest import BaselineConfig

SIZE = 8
"""Length of an embedding."""

HIDDEN = 6

EIGHT = [0, 0, 1, 1, 2, 2, 3, 3]
SIXTEEN = EIGHT * 2

PLAIN = InputNormalisation(GainConfig(), BinStatistics(np.zeros(200, np.float32), np.ones(200, np.float32)))


def toy_head(seed: int = 0, temperature: float = 1.7) -> Head:
    """A head with random weights."""
    draw = np.random.default_rng(seed).standard_normal
    shapes = [(HIDDEN, SIZE), (HIDDEN,), (4, HIDDEN), (4,), (4, 4), (4,)]
    fc1, bias1, fc2, bias2, fc3, bias3 = (draw(shape).astype(np.float32) for shape in shapes)
    return Head(fc1, bias1, fc2, bias2, fc3, bias3, temperature)


def starting_at(head: Head) -> StartingHeads:
    """The start of fits for a head that reads no baseline."""
    return StartingHeads(head, [], [], [], BaselineConfig())


def toy_examples(seed: int = 1, takes: int = 12) -> Examples:
    """Random windows, the emotions in turn, with random ratings."""
    draw = np.random.default_rng(seed)
    windows = [draw.standard_normal((draw.integers(1, 4), SIZE)).astype(np.float32) for _ in range(takes)]
    ratings = draw.uniform(1.0, 5.0, (takes, 3)).tolist()
    return examples(windows, [take(index % 4, ratings=tuple(rated)) for index, rated in enumerate(ratings)])


def take(emotion: int, text: str = "", ratings: Ratings = (None, None, None)) -> Take:
    """A take without a file."""
    return Take(Path("take.wav"), emotion, text, ratings)


def takes_of(emotions: Sequence[int], texts: Sequence[str] = ()) -> list[Take]:
    """A session without files."""
    return [take(emotion, texts[index] if texts else "") for index, emotion in enumerate(emotions)]


def knowing_head(scale: float = 2.0) -> Head:
    """A head that recognises `embeddings_of`: each emotion has a direction of the embedding."""
    eye, nothing = np.eye(SIZE, dtype=np.float32), np.zeros(4, np.float32)
    return Head(
        eye, np.zeros(SIZE, np.float32), eye[:4], nothing, scale * np.eye(4, dtype=np.float32), nothing
    )


def embeddings_of(emotions: Sequence[int], seed: int, noise: float = 0.35) -> list[Array]:
    """Embeddings of takes, in the directions that `knowing_head` recognises."""
    draw = np.random.default_rng(seed)
    takes = []
    for emotion in emotions:
        direction = np.eye(SIZE)[emotion] + noise * draw.standard_normal(SIZE)
        windows = direction + 0.1 * draw.standard_normal((draw.integers(1, 4), SIZE))
        takes.append(windows.astype(np.float32))
    return takes


def loss(head: Head, data: Examples) -> float:
    """Cross entropy of the emotions, as the recogniser would answer."""
    probs = head.probs(data.inputs)[np.arange(len(data.emotions)), data.emotions]
    return float(data.weights @ -np.log(probs))


def numeric_gradient(objective: Objective, point: Floats, width: float = 1e-5) -> Floats:
    """Central differences of the loss alone."""

    def slope(direction: Floats) -> float:
        return (objective(point + direction)[0] - objective(point - direction)[0]) / (2.0 * width)

    return np.array([slope(row) for row in width * np.eye(len(point))])
