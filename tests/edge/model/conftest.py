from __future__ import annotations

from pathlib import Path

import pytest

from edge.model import profile as profile_module


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where profiles are kept during a test."""
    monkeypatch.setattr(profile_module, "profiles_folder", lambda: tmp_path / "profiles")
    return tmp_path / "profiles"
