"""Bundles and profiles whose numbers are changed: each is used, or refused in one line."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from edge.arrays import Array
from edge.bounds import shown
from edge.cli.profile_text import as_json, as_text, listing
from edge.errors import BundleError, MmtlError, ProfileError
from edge.features.long_term_spectrum import SPECTRUM_SIZE
from edge.model import profile as profile_module
from edge.model.bundle import Bundle, load_bundle
from edge.model.manifest import LARGEST_MANIFEST, MANIFEST, read_manifest, write_manifest
from edge.model.profile import Profile, Reference, load_profile, profile_path, save_profile
from edge.recognition.recognizer import Recognizer
from tests.cnn_lstm import CNN_LSTM
from tests.edge.conftest import random_head
from tests.edge.model.hostile import HOSTILE, hostile

EXAMPLES = settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
LONGEST_MESSAGE = 600


def one_line_only(error: MmtlError) -> None:
    message = str(error)
    assert "\n" not in message
    assert message.isprintable()
    assert len(message) < LONGEST_MESSAGE
    assert ": " in message


# Bundles


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle whose model.json is rewritten."""
    return Path(shutil.copytree(CNN_LSTM, tmp_path_factory.mktemp("spoilt") / "bundle"))


@pytest.fixture(scope="module")
def described() -> dict[str, Any]:
    content: dict[str, Any] = json.loads((CNN_LSTM / MANIFEST).read_text("utf-8"))
    return content


PARTS = ("front_end", "levels", "graphs")
PLACES = [
    *((part, key) for part in PARTS for key in json.loads((CNN_LSTM / MANIFEST).read_text())[part]),
    *((key,) for key in ("schema_version", "name", "emotions", *PARTS, "temperature_fitted", "licence")),
    *((key,) for key in ("training", "metrics", "files")),
    *(("graphs", "state_shapes", 0), ("graphs", "state_shapes", 1, 2), ("emotions", 0)),
    *(("files", "head.safetensors"), ("files", "../x"), ("files", "x" * 300), ("files", "a\0b")),
]


def changed(content: dict[str, Any], place: tuple[Any, ...], value: object) -> dict[str, Any]:
    """Return a copy in which one place holds another value."""
    copied = json.loads(json.dumps(content))
    inner = copied
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    return dict(copied)


def use(bundle: Bundle) -> None:
    """Recognise four seconds of noise: what was let through must work."""
    recognizer = Recognizer(bundle, provider="cpu")
    noise = np.random.default_rng(0).uniform(-0.3, 0.3, 64_000).astype(np.float32)
    for event in [*recognizer.feed(noise), *recognizer.flush()]:
        if event.type == "window":
            assert np.isfinite(list(event.probs.values())).all()  # type: ignore[attr-defined]


@EXAMPLES
@given(place=st.sampled_from(PLACES), value=hostile)
def test_a_bundle_with_any_number_anywhere_is_used_or_refused_in_one_line(
    copy: Path, described: dict[str, Any], place: tuple[Any, ...], value: object
) -> None:
    (copy / MANIFEST).write_text(json.dumps(changed(described, place, value)), "utf-8")
    try:
        use(load_bundle(copy))
    except MmtlError as error:
        one_line_only(error)


CONSTANTS = [
    place for place in PLACES if place[0] in PARTS and len(place) == 2 and place[1] != "state_shapes"
]
OPTIONAL = ("graphs", "first_window_features")
"""May be null: the first windows are full ones."""
NO_CONSTANTS = [
    value
    for value in HOSTILE
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= 1e6
]


@pytest.mark.parametrize("value", NO_CONSTANTS, ids=lambda value: shown(value)[:20])
@pytest.mark.parametrize("place", CONSTANTS, ids=str)
def test_no_constant_is_of_another_type_or_size(
    copy: Path, described: dict[str, Any], place: tuple[Any, ...], value: object
) -> None:
    (copy / MANIFEST).write_text(json.dumps(changed(described, place, value)), "utf-8")
    if place == OPTIONAL and value is None:
        assert load_bundle(copy).manifest.graphs.first_window_features is None
        return
    with pytest.raises(BundleError) as caught:
        load_bundle(copy)
    one_line_only(caught.value)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("front_end", "n_fft"), 8_192),
        (("front_end", "win_length_ms"), 500),
        (("levels", "memory_frames"), 1.0),
        (("levels", "prior_frames"), 1e6),
        (("levels", "reference"), -50.0),
        (("levels", "reference"), 50.0),
        (("levels", "eps"), 1e-10),
        (("levels", "peak_decay_db"), 10.0),
    ],
)
def test_the_ends_of_the_ranges_work_in_bounded_memory(
    copy: Path, described: dict[str, Any], place: tuple[Any, ...], value: object
) -> None:
    (copy / MANIFEST).write_text(json.dumps(changed(described, place, value)), "utf-8")
    tracemalloc.start()
    try:
        use(load_bundle(copy))
        assert tracemalloc.get_traced_memory()[1] < 300e6
    except MmtlError as error:  # fewer frames than the window's features need
        assert place[1] == "win_length_ms"
        one_line_only(error)
    finally:
        tracemalloc.stop()


def test_a_manifest_that_is_too_large_is_not_read(copy: Path) -> None:
    with (copy / MANIFEST).open("wb") as file:
        file.truncate(LARGEST_MANIFEST + 1)
    with pytest.raises(BundleError, match="damaged"):
        load_bundle(copy)


@pytest.mark.parametrize("name", ["head.fc1_weight", "head.temperature", "statistics.mean", "statistics.std"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30, -1.0, 0.0, 1e-45])
def test_a_bundle_with_any_number_in_its_head_is_used_or_refused(
    bundle_folder: Path, name: str, value: float
) -> None:
    tensors = load_file(bundle_folder / "head.safetensors")
    tensors[name].flat[0] = value
    save_file(tensors, bundle_folder / "head.safetensors")
    write_manifest(bundle_folder, read_manifest(bundle_folder))
    harmless = (name, value) in {
        *(("head.fc1_weight", harmless) for harmless in (-1.0, 0.0)),
        *(("statistics.mean", harmless) for harmless in (-1.0, 0.0)),
    } or (value == np.float32(1e-45) and name in {"head.fc1_weight", "statistics.mean"})
    if harmless:
        use(load_bundle(bundle_folder))
        return
    with pytest.raises(BundleError, match="not usable") as caught:
        load_bundle(bundle_folder)
    one_line_only(caught.value)


# Profiles


@pytest.fixture
def profile(bundle: Bundle) -> Profile:
    size = bundle.head.input_size + SPECTRUM_SIZE
    reference = Reference(np.zeros(2 + size, np.float32), np.ones(2 + size, np.float32))
    return Profile(
        name="anna",
        bundle=bundle.fingerprint,
        head=random_head(size=size),
        levels=bundle.manifest.levels,
        statistics=bundle.statistics,
        verdict="adopted",
        report={"clips": {"happy": 2}, "before": 0.5, "after": 0.75},
        reference=reference,
        made=datetime(2026, 1, 2, tzinfo=timezone.utc),
    )


def respell(path: Path, edit: Callable[[dict[str, Any], dict[str, Array]], None]) -> None:
    """Rewrite a profile, with the right sum, as a file from elsewhere might be."""
    with safe_open(path, "numpy") as file:
        content: dict[str, Any] = json.loads(file.metadata()["mmtl"])
    tensors = load_file(path)
    edit(content, tensors)
    text = json.dumps(content)
    save_file(tensors, path, {"mmtl": text, "sha256": profile_module._sha256(text, tensors)})


FIELDS = [
    *(("profile_version",), ("name",), ("bundle",), ("levels",), ("verdict",), ("report",), ("made",)),
    *(("levels", key) for key in json.loads((CNN_LSTM / MANIFEST).read_text())["levels"]),
    *(("report", "before"), ("report", "clips", "happy"), ("report", "gain"), ("levels", "surprise")),
]
DATES = ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "0001-01-01", "2026-13-01", "20260102"]


@EXAMPLES
@given(place=st.sampled_from(FIELDS), value=st.one_of(hostile, st.sampled_from(DATES)))
def test_a_profile_with_any_content_is_used_or_refused_in_one_line(
    profile: Profile, bundle: Bundle, place: tuple[Any, ...], value: object
) -> None:
    path = profile_path("anna")
    save_profile(path, profile)
    respell(path, lambda content, _: content.update(changed(content, place, value)))
    assert [line.split()[0] for line in listing([path], bundle).splitlines()] == ["anna"]
    try:
        kept = load_profile(path, bundle)
        json.dumps(as_json(kept))
        as_text(kept, bundle)
        Recognizer(bundle, profile=kept, provider="cpu").flush()
    except ProfileError as error:
        one_line_only(error)


TENSORS = ["head.fc1_weight", "head.fc3_bias", "head.temperature", "statistics.mean", "statistics.std"]


@EXAMPLES
@given(
    name=st.sampled_from([*TENSORS, "reference.mean", "reference.spread"]),
    value=st.one_of(st.floats(width=32), st.sampled_from([1e-45, -1e-45, 1e30, -1e30])),
    every=st.booleans(),
)
def test_a_profile_with_any_number_in_its_tensors_is_used_or_refused(
    profile: Profile, bundle: Bundle, name: str, value: float, every: bool
) -> None:
    path = profile_path("anna")
    save_profile(path, profile)

    def spoil(_: dict[str, Any], tensors: dict[str, Array]) -> None:
        tensors[name].flat[: tensors[name].size if every else 1] = value

    respell(path, spoil)
    try:
        recognizer = Recognizer(bundle, profile=load_profile(path, bundle), provider="cpu")
    except ProfileError as error:
        one_line_only(error)
        return
    noise = np.random.default_rng(0).uniform(-0.3, 0.3, 16_000).astype(np.float32)
    for event in [*recognizer.feed(noise), *recognizer.flush()]:
        if event.type == "window":
            assert np.isfinite(list(event.probs.values())).all()  # type: ignore[attr-defined]


@pytest.mark.parametrize("dtype", [np.float64, np.float16, np.int32, np.bool_])
@pytest.mark.parametrize("name", TENSORS)
def test_a_profile_with_tensors_of_another_type_is_refused(
    profile: Profile, bundle: Bundle, name: str, dtype: type
) -> None:
    path = profile_path("anna")
    save_profile(path, profile)
    respell(path, lambda _, tensors: tensors.update({name: tensors[name].astype(dtype)}))
    with pytest.raises(ProfileError, match="is not a profile, or is damaged") as caught:
        load_profile(path, bundle)
    one_line_only(caught.value)


SPOILERS: dict[str, Callable[[dict[str, Any], dict[str, Array]], None]] = {
    "date": lambda content, _: content.update(made="0001-01-01T00:00:00+14:00"),
    "huge": lambda content, _: content["levels"].update(reference=10**400),
    "deep": lambda content, _: content.update(report={"a": json.loads("[" * 300 + "]" * 300)}),
    "nan": lambda _, tensors: tensors["statistics.mean"].fill(np.nan),
    "type": lambda _, tensors: tensors.update({"head.fc1_bias": np.zeros(64, np.float64)}),
}


def test_a_bad_profile_does_not_hide_the_others_from_the_list(
    profile: Profile, folder: Path, tmp_path: Path
) -> None:
    data = tmp_path / "data" / "mmtl" / "profiles"
    data.mkdir(parents=True)
    for name in (*SPOILERS, "anna", "zoe"):
        save_profile(data / f"{name}.safetensors", profile)
    for name, spoil in SPOILERS.items():
        respell(data / f"{name}.safetensors", spoil)
    (data / "folder.safetensors").mkdir()
    (data / "text.safetensors").write_text("hello")
    command = [sys.executable, "-c", "from edge.cli.main import main; main()", "profile", "list"]
    environment = {"XDG_DATA_HOME": str(tmp_path / "data"), "PATH": "", "PYTHONPATH": str(Path.cwd())}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    verdicts = {line.split()[0]: line.split()[1] for line in done.stdout.splitlines()}
    assert verdicts == dict.fromkeys((*SPOILERS, "folder", "text"), "damaged") | dict.fromkeys(
        ("anna", "zoe"), "adopted"
    )
