from __future__ import annotations

from collections.abc import Iterator

import pytest
import soundfile
import torch

from edge.model.bundle import Bundle, load_bundle
from tests.train.synthetic import SAMPLE_RATE, tiny_checkpoint, voice


@pytest.fixture(scope="package", autouse=True)
def one_thread() -> Iterator[None]:
    """Keep torch to one thread: numbers are then the same everywhere, and small networks faster."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="package", autouse=True)
def brief_sound(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Check exports on 3.5 s (20 windows with the noise after it) in place of the demo clip."""
    path = tmp_path_factory.mktemp("sound") / "brief.wav"
    soundfile.write(path, voice(1, "angry", 0, 3.5), SAMPLE_RATE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("export.parity_audio.demo_clip", lambda: path)
        yield


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Draw the same numbers in a test whatever ran before it."""
    torch.manual_seed(0)


@pytest.fixture(scope="package")
def bundle(brief_sound: None, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle of an untrained tiny network; tests must not change its folder."""
    from export.bundling import export_bundle

    folder = tmp_path_factory.mktemp("bundles") / "tiny"
    export_bundle(tiny_checkpoint(), folder, "tiny")
    return load_bundle(folder)
