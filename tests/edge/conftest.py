"""What several tests of the runtime need: a model whose answers vary, and sound with speech in it."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge.arrays import Array
from edge.audio import portaudio_thread
from edge.audio.sound_file import read_clip
from edge.audio.sources import demo_clip
from edge.model.bundle import Bundle, load_bundle
from edge.model.head import Head
from edge.model.profile import Profile
from edge.recognition.recognizer import Recognizer
from edge.server.access import Access
from edge.server.client_session import Service
from edge.server.client_stream import shared_engines
from edge.server.rate_limits import Limits
from tests.cnn_lstm import CNN_LSTM
from tests.edge.audio.portaudio import Frozen
from tests.edge.server.clients import FAST, Open, Running, open_server, raw

EMBEDDING = 256


def random_head(seed: int = 0, size: int = EMBEDDING) -> Head:
    """A head that makes large differences between embeddings."""
    generator = np.random.default_rng(seed)
    shapes = {"fc1": (64, size), "fc2": (4, 64), "fc3": (4, 4)}
    arrays = {}
    for name, shape in shapes.items():
        arrays[f"{name}_weight"] = 2.0 * generator.standard_normal(shape).astype(np.float32) / shape[1] ** 0.5
        arrays[f"{name}_bias"] = 0.1 * generator.standard_normal(shape[0]).astype(np.float32)
    return Head(**arrays)


@pytest.fixture(scope="session")
def bundle() -> Bundle:
    """The shipped graphs under a head of our own: what they were trained for does not matter."""
    loaded = load_bundle(CNN_LSTM)
    return replace(loaded, head=random_head(size=loaded.manifest.graphs.embedding_size))


@pytest.fixture(scope="session")
def window_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle that runs whole windows, on a narrow encoder of random weights. Writing it takes torch."""
    for needed in ("torch", "torchaudio", "onnx"):
        pytest.importorskip(needed, reason="writing a bundle needs mmtl[export]")
    from export.bundling import export_bundle
    from tests.train.synthetic import tiny_pretrained

    folder = tmp_path_factory.mktemp("window") / "tiny"
    export_bundle(tiny_pretrained(), folder, "tiny")
    return load_bundle(folder)


def with_front_end(bundle: Bundle, **constants: Any) -> Bundle:
    """The bundle with other constants of the front end, and as many features in a window as they give."""
    manifest = bundle.manifest
    front_end = replace(manifest.front_end, **constants)
    features = manifest.graphs.features_in(front_end.window_frames)
    graphs = replace(manifest.graphs, window_features=features)
    return replace(bundle, manifest=replace(manifest, front_end=front_end, graphs=graphs))


@pytest.fixture
def bundle_folder(tmp_path: Path) -> Path:
    """A copy of the shipped bundle, to be spoiled."""
    return Path(shutil.copytree(CNN_LSTM, tmp_path / "bundle"))


@pytest.fixture(scope="session")
def head() -> Head:
    """A head that makes large differences between embeddings."""
    return random_head()


@pytest.fixture(scope="session")
def talk() -> Callable[..., Array]:
    """Make sound from (seconds, amplitude) segments: speech without pauses, in a quiet room."""
    spoken = read_clip(demo_clip())[8_000:48_000]
    voice = spoken / np.abs(spoken).max()

    def make(*pieces: tuple[float, float], seed: int = 0) -> Array:
        generator = np.random.default_rng(seed)
        parts = [amplitude * np.resize(voice, round(16_000 * seconds)) for seconds, amplitude in pieces]
        background = 1e-4 * generator.standard_normal(sum(map(len, parts)))
        sound: Array = (np.concatenate(parts) + background).astype(np.float32)
        return sound

    return make


@pytest.fixture(scope="session")
def make(bundle: Bundle) -> Callable[[], Recognizer]:
    """A function that makes recognisers, which share an engine in each thread."""
    return shared_engines(bundle, provider="cpu")


@pytest.fixture
def serving(make: Callable[[], Recognizer]) -> Open:
    """A function that runs a server as a context manager."""

    def run(
        limits: Limits = FAST,
        maker: Callable[[], Recognizer] = make,
        find: Callable[[str], Profile] | None = None,
        access: Access = Access(),  # noqa: B008 - frozen
    ) -> contextlib.AbstractContextManager[Running]:
        return open_server(Service(maker, find, limits, access))

    return run


@pytest.fixture
def sound(talk: Callable[..., Array]) -> bytes:
    """Four seconds, three of them speech."""
    return raw(talk((0.5, 0.0), (3.0, 0.3), (0.5, 0.0)))


@pytest.fixture
def frozen(monkeypatch: pytest.MonkeyPatch) -> Iterator[Frozen]:
    """A call that no sound server answers before the end of the test, and a short time-out once it ends."""
    monkeypatch.setattr(portaudio_thread, "CLOSE_TIMEOUT_S", 0.05)
    call = Frozen()
    yield call
    call.thaw()
