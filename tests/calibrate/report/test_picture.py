"""The picture of a judgement: its content, and that it is written atomically."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

pytest.importorskip("matplotlib", reason="matplotlib is not installed")

from matplotlib.figure import Figure
from matplotlib.image import imread
from matplotlib.text import Text

from calibrate.fitting.folds import Folds
from calibrate.report.figures import ACCENT
from calibrate.report.picture import BEFORE, draw_judgement, require_picture
from edge.errors import UsageError
from tests.calibrate.report.judgements import HELPED, UNCHANGED

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BY_SENTENCE = Folds("sentence", (np.array([0, 1]),))
ONE_SENTENCE = Folds("take", (np.array([0, 1]),), one_sentence=True)


def words(figure: Figure) -> str:
    """All texts of a figure."""
    found = figure.findobj(Text)
    return "\n".join(text.get_text() for text in found if isinstance(text, Text))


def counts(axes: Axes) -> list[str]:
    """The counts in the cells of a confusion matrix, row by row."""
    return [text.get_text() for text in axes.texts if text.get_text().isdigit()]


def widths(axes: Axes) -> list[float]:
    """Lengths of the bars from top to bottom."""
    return [patch.get_width() for patch in axes.patches]  # type: ignore[attr-defined]


def test_it_shows_the_answers_the_scores_and_what_was_tried(tmp_path: Path, saved: list[Figure]) -> None:
    draw_judgement("anna", HELPED, BY_SENTENCE, tmp_path / "anna.png")
    before, after, recall, error, tried = saved[0].axes
    assert counts(before) == [str(count) for row in HELPED.before.confusion for count in row]
    assert counts(after) == [str(count) for row in HELPED.after.confusion for count in row]
    assert widths(recall) == [0.4375, 0.875]
    assert widths(error) == [0.25, 0.0625]
    assert widths(tried) == [1.125, 0.5]


@pytest.mark.parametrize("name", ["Jürgen", "Ольга", "민수", "美咲", "प्रिया", "محمد"])
def test_a_name_of_any_script_is_drawn_if_a_font_has_it(
    tmp_path: Path, saved: list[Figure], name: str
) -> None:
    path = tmp_path / f"{name}.png"
    draw_judgement(name, HELPED, BY_SENTENCE, path)  # a warning of a missing glyph would be an error
    drawn = words(saved[0])
    assert f"{name}: adopted" in drawn or f"{'?' * len(name)}: adopted" in drawn
    assert path.stat().st_mode & 0o777 == 0o600


def test_it_says_the_verdict_the_reason_and_how_it_was_judged(tmp_path: Path, saved: list[Figure]) -> None:
    draw_judgement("anna", HELPED, BY_SENTENCE, tmp_path / "anna.png")
    draw_judgement("bob", UNCHANGED, ONE_SENTENCE, tmp_path / "bob.png")
    helped, unchanged = map(words, saved)
    for said in ("anna: adopted", "It lowers the log loss of held-out takes by 0.62.", "by sentence"):
        assert said in helped
    for said in ("+44 (+19 to +69) points", "44 %", "88 %", "Answers after: bias"):
        assert said in helped
    for said in ("bob: rejected", "without takes of sad and of angry", "of one sentence", "as before"):
        assert said in unchanged


def test_a_whisker_shows_the_interval_of_the_improvement(tmp_path: Path, saved: list[Figure]) -> None:
    draw_judgement("anna", HELPED, BY_SENTENCE, tmp_path / "anna.png")
    draw_judgement("bob", UNCHANGED, BY_SENTENCE, tmp_path / "bob.png")
    certain = saved[1].axes[2].lines
    ends = np.asarray(saved[0].axes[2].lines[0].get_xdata(), float)
    np.testing.assert_allclose(ends, [0.4375 + 0.1875, 0.4375 + 0.6875])
    assert len(certain) < len(saved[0].axes[2].lines)


def test_nothing_is_written_beyond_its_edges(tmp_path: Path, saved: list[Figure]) -> None:
    """With the longest name and all candidates."""
    names = ("generic", "bias", "dimensions", "adapter", "statistics + adapter")
    full = replace(HELPED, scores=dict.fromkeys(names, HELPED.before) | {"bias": HELPED.after})
    for judgement, folds in ((full, ONE_SENTENCE), (UNCHANGED, BY_SENTENCE)):
        draw_judgement("W" * 64, judgement, folds, tmp_path / "anna.png")
    for figure in saved:
        figure.canvas.draw()  # it was saved at another resolution
        page = figure.bbox
        for text in figure.findobj(Text):
            assert isinstance(text, Text)
            box = text.get_window_extent()
            if text.get_visible() and text.get_text():
                assert page.x0 <= box.x0, text.get_text()
                assert box.x1 <= page.x1, text.get_text()


def test_light_and_dark_bars_differ_in_grey_too() -> None:
    def lightness(colour: str) -> float:
        red, green, blue = (int(colour[start : start + 2], 16) for start in (1, 3, 5))
        return (0.2126 * red + 0.7152 * green + 0.0722 * blue) / 255.0

    assert lightness(BEFORE) > lightness(ACCENT) + 0.3


def test_the_same_judgement_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("first.png", "second.png"):
        draw_judgement("anna", HELPED, BY_SENTENCE, tmp_path / name)
    assert (tmp_path / "first.png").read_bytes() == (tmp_path / "second.png").read_bytes()
    assert imread(tmp_path / "first.png").shape == (1140, 1440, 4)


def test_a_picture_that_fails_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "anna.png"
    path.write_bytes(b"the old one")

    def fail(_: Figure, target: Path, **__: object) -> None:
        target.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Figure, "savefig", fail)
    with pytest.raises(UsageError, match=r"anna.png \(No space left on device\): make room"):
        draw_judgement("anna", HELPED, BY_SENTENCE, path)
    assert path.read_bytes() == b"the old one"
    assert list(tmp_path.iterdir()) == [path]


def test_no_window_system_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MPLBACKEND", "tkagg")
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delitem(sys.modules, "matplotlib.pyplot", raising=False)
    draw_judgement("anna", HELPED, BY_SENTENCE, tmp_path / "anna.png")
    assert "matplotlib.pyplot" not in sys.modules


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("anna", "ends with .png"),
        ("anna.pdf", "ends with .png"),
        (".png", "ends with .png"),
        ("old.png", "give --replace"),
        ("link.png", "give --replace"),
        ("folder.png", "is a folder: give the name of a file"),
        ("old.png/anna.png", "cannot write to"),
    ],
)
def test_a_file_that_is_not_png_or_exists_is_refused(tmp_path: Path, name: str, said: str) -> None:
    (tmp_path / "old.png").write_bytes(b"the old one")
    (tmp_path / "link.png").symlink_to(tmp_path / "nowhere")
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(UsageError, match=said):
        require_picture(tmp_path / name, overwrite=False)


def test_checking_a_picture_file_does_not_create_it(tmp_path: Path) -> None:
    (tmp_path / "old.png").write_bytes(b"the old one")
    require_picture(tmp_path / "old.png", overwrite=True)
    require_picture(tmp_path / "new" / "anna.PNG", overwrite=False)
    assert (tmp_path / "old.png").read_bytes() == b"the old one"
    assert list((tmp_path / "new").iterdir()) == []
    with pytest.raises(UsageError):
        require_picture(tmp_path / "new", overwrite=True)
