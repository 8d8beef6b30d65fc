"""The pictures are whole PNG files that show what they were given."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

from train.plots import plot_confusion, plot_curves

RECORDS: list[dict[str, Any]] = [
    {"epoch": 1, "loss": 1.4, "validation_uar": 30.0, "seconds": 9.0},
    {"epoch": 2, "loss": 1.1, "validation_uar": 62.5},
    {"epoch": 3, "loss": 0.9, "validation_uar": 50.0},
]

MATRIX = [[6, 2, 0, 0], [0, 5, 0, 5], [1, 0, 1, 0], [0, 0, 0, 0]]


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def test_the_curves_show_the_loss_and_the_uar(tmp_path: Path, saved: list[Figure]) -> None:
    plot_curves(RECORDS, tmp_path / "curves.png")
    loss_axes, uar_axes = saved[0].axes
    assert np.asarray(loss_axes.lines[0].get_xydata()).tolist() == [[1, 1.4], [2, 1.1], [3, 0.9]]
    assert np.asarray(uar_axes.lines[0].get_ydata()).tolist() == [30.0, 62.5, 50.0]


def test_the_auxiliary_loss_is_a_second_named_curve_where_there_is_one(
    tmp_path: Path, saved: list[Figure]
) -> None:
    plot_curves([{**record, "auxiliary_loss": 1.2} for record in RECORDS], tmp_path / "with.png")
    plot_curves([{**record, "auxiliary_loss": None} for record in RECORDS], tmp_path / "without.png")
    with_auxiliary, without = (figure.axes[0] for figure in saved)
    assert [line.get_label() for line in with_auxiliary.lines] == ["emotion", "valence, arousal, dominance"]
    assert with_auxiliary.get_legend() is not None
    assert [line.get_label() for line in without.lines] == ["emotion"]
    assert without.get_legend() is None


def test_the_curves_name_the_best_epoch(tmp_path: Path, saved: list[Figure]) -> None:
    plot_curves(RECORDS, tmp_path / "curves.png")
    assert "best 62.5 at epoch 2" in texts(saved[0])


def test_epochs_without_a_validation_are_left_out_of_its_curve(tmp_path: Path, saved: list[Figure]) -> None:
    plot_curves([*RECORDS, {"epoch": 4, "loss": 0.8, "validation_uar": None}], tmp_path / "curves.png")
    loss_axes, uar_axes = saved[0].axes
    assert len(np.asarray(loss_axes.lines[0].get_xydata())) == 4
    assert len(np.asarray(uar_axes.lines[0].get_xydata())) == 3


@pytest.mark.parametrize("records", [[], RECORDS[:1], [{"epoch": 1, "loss": 1.0, "validation_uar": 100.0}]])
def test_a_run_of_hardly_an_epoch_is_drawn_without_a_warning(tmp_path: Path, records: list[Any]) -> None:
    plot_curves(records, tmp_path / "curves.png")
    assert imread(tmp_path / "curves.png").shape[:2] == (900, 1080)


def test_the_confusion_shows_percentages_of_each_true_class_and_counts(
    tmp_path: Path, saved: list[Figure]
) -> None:
    plot_confusion(MATRIX, tmp_path / "confusion.png", "emodb")
    assert texts(saved[0])[:6] == ["75.0 %", "6 clips", "25.0 %", "2 clips", "0.0 %", "0 clips"]
    assert texts(saved[0])[-4:] == ["-"] * 4
    axes = saved[0].axes[0]
    assert axes.get_title(loc="left") == "emodb"
    assert [label.get_text() for label in axes.get_xticklabels()] == ["neutral", "happy", "sad", "angry"]
    assert axes.get_yticklabels()[0].get_text() == "neutral\n8"


def test_the_confusion_takes_other_classes(tmp_path: Path) -> None:
    plot_confusion([[1, 2], [3, 4]], tmp_path / "two.png", "arousal", labels=("low", "high"))
    assert imread(tmp_path / "two.png").ndim == 3


def test_a_matrix_of_another_size_is_refused_and_nothing_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"4 labels need a square matrix of that size, not \(2, 2\)"):
        plot_confusion([[1, 2], [3, 4]], tmp_path / "two.png", "arousal")
    assert list(tmp_path.iterdir()) == []


def test_a_failure_leaves_the_old_picture_and_nothing_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "confusion.png"
    path.write_bytes(b"old")

    def fail(_: Figure, target: Path, **__: Any) -> None:
        target.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(Figure, "savefig", fail)
    with pytest.raises(OSError, match="disk full"):
        plot_confusion(MATRIX, path, "emodb")
    assert [(each.name, each.read_bytes()) for each in tmp_path.iterdir()] == [("confusion.png", b"old")]


def test_a_picture_replaces_the_one_before(tmp_path: Path) -> None:
    path = tmp_path / "curves.png"
    plot_curves(RECORDS[:2], path)
    before = path.read_bytes()
    plot_curves(RECORDS, path)
    assert path.read_bytes() != before
    assert [each.name for each in tmp_path.iterdir()] == ["curves.png"]
