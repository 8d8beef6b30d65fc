from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge.errors import BundleError
from edge.features.frontend import FrontEnd
from edge.model.bundle import (
    Bundle,
    default_bundle,
    find_bundle,
    is_bundle,
    load_bundle,
    shipped_bundle,
    write_head,
)
from edge.model.manifest import (
    CARD,
    CLASSIFIER,
    ENCODER,
    HEAD,
    MANIFEST,
    SCHEMA_VERSION,
    SHIPPED,
    WINDOW,
    BaselineConfig,
    read_manifest,
    required_files,
    write_manifest,
)
from tests.cnn_lstm import CNN_LSTM

Edit = Callable[[dict[str, Any]], object]


EMPTY_GRAPH = b"\x3a\x00"
"""As ONNX: a model with a graph in which there is nothing."""


def edit(folder: Path, change: Edit) -> None:
    described = json.loads((folder / MANIFEST).read_text("utf-8"))
    change(described)
    (folder / MANIFEST).write_text(json.dumps(described), "utf-8")


def refused(folder: Path, *said: str) -> None:
    """Check that a bundle is refused in one line that says why and what to do."""
    with pytest.raises(BundleError) as caught:
        load_bundle(folder)
    message = str(caught.value)
    assert caught.value.exit_code == 4
    assert "\n" not in message
    assert ": " in message
    assert any(remedy in message for remedy in ("again", "update", "name a folder", "use the program"))
    for part in said:
        assert part in message


def test_the_shipped_bundle_is_whole() -> None:
    bundle = load_bundle(CNN_LSTM)
    assert bundle.manifest.graphs.embedding_size == bundle.head.input_size
    assert set(bundle.manifest.files) == set(required_files("incremental"))


@pytest.mark.parametrize("name", required_files("incremental"))
def test_a_changed_byte_is_noticed(bundle_folder: Path, name: str) -> None:
    content = bytearray((bundle_folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (bundle_folder / name).write_bytes(content)
    refused(bundle_folder, name, "SHA-256")


@pytest.mark.parametrize("name", required_files("incremental"))
def test_a_missing_file_is_named(bundle_folder: Path, name: str) -> None:
    (bundle_folder / name).unlink()
    refused(bundle_folder, name, "lacks")


def test_a_truncated_file_is_noticed(bundle_folder: Path) -> None:
    content = (bundle_folder / ENCODER).read_bytes()
    (bundle_folder / ENCODER).write_bytes(content[: len(content) // 2])
    refused(bundle_folder, ENCODER)


def with_more(folder: Path, name: str = "engine/more.onnx") -> Path:
    """List one more file than a bundle must have."""
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_bytes(EMPTY_GRAPH)
    write_manifest(folder, replace(read_manifest(folder), files={name: ""}))
    return folder / name


def test_more_files_are_kept_in_the_manifest_and_checked_too(bundle_folder: Path) -> None:
    more = with_more(bundle_folder)
    manifest = load_bundle(bundle_folder).manifest
    assert set(manifest.files) == {*required_files("incremental"), "engine/more.onnx"}
    write_manifest(bundle_folder, replace(manifest, name="renamed"))
    assert load_bundle(bundle_folder).manifest.files == manifest.files
    more.write_text("another graph")
    refused(bundle_folder, "engine/more.onnx", "SHA-256")
    more.unlink()
    refused(bundle_folder, "engine/more.onnx", "lacks")


@pytest.mark.parametrize("name", ["../secret", "engine/../../secret", "/etc/hostname"])
def test_a_file_outside_the_bundle_is_never_read(bundle_folder: Path, name: str) -> None:
    edit(bundle_folder, lambda described: described["files"].update({name: "0" * 64}))
    refused(bundle_folder, name, "not in it")


@pytest.mark.parametrize("kind", ["missing", "file", "empty"])
def test_what_is_not_a_bundle_is_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "thing"
    if kind == "file":
        path.write_text("not a folder")
    elif kind == "empty":
        path.mkdir()
    assert not is_bundle(path)
    refused(path, "not a bundle", "or a bundle that ships (default, small)")


@pytest.mark.parametrize("version", [0, 3, "1", None, [1]])
def test_an_unknown_version_is_refused(bundle_folder: Path, version: object) -> None:
    edit(bundle_folder, lambda described: described.update(schema_version=version))
    refused(bundle_folder, f"reads 1 to {SCHEMA_VERSION}", "update mmtl")


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "[1]", "null", "3", '"model"', "{}", '{"name": "x"}', "\x00", "[" * 100_000]
)
def test_malformed_json_is_refused(bundle_folder: Path, text: str) -> None:
    (bundle_folder / MANIFEST).write_text(text, "utf-8")
    refused(bundle_folder, "damaged")


def test_a_manifest_that_is_not_utf8_is_refused(bundle_folder: Path) -> None:
    (bundle_folder / MANIFEST).write_bytes(b"\xff\xfe\x00")
    refused(bundle_folder, "damaged")


@pytest.mark.parametrize("part", ["", "front_end", "levels", "graphs"])
def test_an_unknown_key_is_refused(bundle_folder: Path, part: str) -> None:
    edit(bundle_folder, lambda described: (described[part] if part else described).update(surprise=1))
    refused(bundle_folder, "surprise")


@pytest.mark.parametrize("key", ["name", "emotions", "front_end", "levels", "graphs", "licence"])
def test_a_missing_key_is_refused(bundle_folder: Path, key: str) -> None:
    edit(bundle_folder, lambda described: described.pop(key))
    refused(bundle_folder, key)


@pytest.mark.parametrize(
    ("part", "key", "value"),
    [
        ("front_end", "bins", "200"),
        ("front_end", "bins", 200.0),
        ("front_end", "hop_length_ms", 0),
        ("front_end", "n_fft", -800),
        ("levels", "reference", None),
        ("levels", "reference", float("nan")),
        ("levels", "eps", True),
        ("baseline", "scaled", 1),
        ("baseline", "scaled", "yes"),
        ("baseline", "prior_windows", 0.0),
        ("graphs", "frames_per_feature", 0),
        ("graphs", "window_features", [32]),
        ("graphs", "state_shapes", [[1, "11", 200]]),
        ("graphs", "state_shapes", 7),
    ],
)
def test_a_constant_that_cannot_be_is_refused(
    bundle_folder: Path, part: str, key: str, value: object
) -> None:
    edit(bundle_folder, lambda described: described[part].update({key: value}))
    refused(bundle_folder, MANIFEST)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("files", None),
        ("files", []),
        ("graphs", "ab"),
        ("front_end", 3),
        ("emotions", 5),
        ("name", 7),
        ("temperature_fitted", "no"),
        ("training", []),
    ],
)
def test_a_part_of_the_wrong_kind_is_refused(bundle_folder: Path, key: str, value: object) -> None:
    edit(bundle_folder, lambda described: described.update({key: value}))
    refused(bundle_folder, MANIFEST)


@pytest.mark.parametrize(
    ("part", "key", "value", "said"),
    [
        ("front_end", "sample_rate", 8_000, "sample rate"),
        ("front_end", "bins", 100, "bin statistics"),
        ("front_end", "bins", 500, "bins"),
        ("front_end", "window_ms", 2_000, "features in a window"),
        ("graphs", "window_features", 31, "features in a window"),
        ("graphs", "embedding_size", 128, "embedding"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(
    bundle_folder: Path, part: str, key: str, value: int, said: str
) -> None:
    edit(bundle_folder, lambda described: described[part].update({key: value}))
    refused(bundle_folder, said)


def test_other_emotions_are_refused(bundle_folder: Path) -> None:
    edit(bundle_folder, lambda described: described["emotions"].reverse())
    refused(bundle_folder, "angry, sad, happy, neutral")


def test_a_head_that_is_no_safetensors_is_refused(bundle_folder: Path) -> None:
    manifest = read_manifest(bundle_folder)
    (bundle_folder / HEAD).write_text("weights")
    write_manifest(bundle_folder, manifest)
    refused(bundle_folder, HEAD, "damaged")


def test_a_head_that_does_not_fit_is_refused(bundle_folder: Path, bundle: Bundle) -> None:
    narrow = replace(bundle.head, fc3_bias=np.zeros(3, np.float32))
    write_head(bundle_folder, narrow, bundle.statistics)
    write_manifest(bundle_folder, bundle.manifest)
    refused(bundle_folder, HEAD, "fit together")


def test_statistics_that_would_divide_by_zero_are_refused(bundle_folder: Path, bundle: Bundle) -> None:
    flat = replace(bundle.statistics, std=np.zeros_like(bundle.statistics.std))
    write_head(bundle_folder, bundle.head, flat)
    write_manifest(bundle_folder, bundle.manifest)
    refused(bundle_folder, HEAD, "not usable")


def test_the_manifest_is_read_back_as_it_was_written(bundle_folder: Path) -> None:
    manifest = replace(
        read_manifest(bundle_folder),
        name="Zoë's model",
        training={"seed": 3, "corpora": [{"name": "x", "licence": "CC0"}]},
        metrics={"none": {"x": {"uar": 55.5}}},
    )
    write_manifest(bundle_folder, manifest)
    assert read_manifest(bundle_folder) == manifest
    assert load_bundle(bundle_folder).manifest == manifest


def test_what_was_written_is_loaded(bundle_folder: Path, bundle: Bundle) -> None:
    write_head(bundle_folder, bundle.head, bundle.statistics)
    write_manifest(bundle_folder, bundle.manifest)
    again = load_bundle(bundle_folder)
    for name, array in bundle.head.tensors().items():
        assert (again.head.tensors()[name] == array).all()
    assert (again.statistics.std == bundle.statistics.std).all()


def test_the_fingerprint_changes_with_what_decides_and_not_with_the_card(
    bundle_folder: Path, bundle: Bundle
) -> None:
    before = load_bundle(bundle_folder)
    (bundle_folder / CARD).write_text("another card")
    write_manifest(bundle_folder, replace(before.manifest, metrics={"none": {}}, name="renamed"))
    assert load_bundle(bundle_folder).fingerprint == before.fingerprint
    write_head(bundle_folder, bundle.head, bundle.statistics)
    write_manifest(bundle_folder, before.manifest)
    assert load_bundle(bundle_folder).fingerprint != before.fingerprint
    levels = replace(before.manifest.levels, eps=1e-4)
    assert replace(before, manifest=replace(before.manifest, levels=levels)).fingerprint != before.fingerprint


def test_a_bundle_that_records_no_input_filter_has_the_default_one_and_keeps_its_fingerprint(
    bundle_folder: Path,
) -> None:
    described = json.loads((bundle_folder / MANIFEST).read_text("utf-8"))
    for name in ("high_pass_hz", "hum_notch_q"):
        described["front_end"].pop(name, None)
    (bundle_folder / MANIFEST).write_text(json.dumps(described), "utf-8")
    before = load_bundle(bundle_folder)
    assert before.manifest.front_end == FrontEnd()
    constants = [
        {
            "sample_rate": 16_000,
            "win_length_ms": 40,
            "hop_length_ms": 10,
            "n_fft": 800,
            "bins": 200,
            "window_ms": 3_000,
        },
        asdict(before.manifest.levels),
    ]
    deciding = [before.manifest.files[name] for name in (ENCODER, CLASSIFIER, WINDOW, HEAD)]
    assert before.fingerprint == hashlib.sha256(json.dumps([*deciding, *constants]).encode()).hexdigest()
    write_manifest(bundle_folder, before.manifest)
    assert json.loads((bundle_folder / MANIFEST).read_text("utf-8"))["front_end"]["high_pass_hz"] == 30.0
    assert load_bundle(bundle_folder).fingerprint == before.fingerprint


@pytest.mark.parametrize("name", SHIPPED)
def test_a_bundle_without_a_deviation_has_the_fingerprint_that_profiles_name(name: str) -> None:
    shipped = load_bundle(shipped_bundle(name))
    bundle = replace(shipped, manifest=replace(shipped.manifest, baseline=BaselineConfig(4.0, 20.0)))
    constants = [
        bundle.manifest.front_end.deciding(),
        asdict(bundle.manifest.levels),
        {"prior_windows": 4.0, "memory_windows": 20.0},
    ]
    deciding = [bundle.manifest.files[name] for name in (*bundle.manifest.graphs.files, HEAD)]
    assert bundle.fingerprint == hashlib.sha256(json.dumps([*deciding, *constants]).encode()).hexdigest()


def test_a_deviation_makes_another_fingerprint_and_is_recorded_only_where_it_is_on(
    bundle_folder: Path,
) -> None:
    bundle = load_bundle(bundle_folder)
    head = replace(bundle.head, baseline_weight=np.zeros_like(bundle.head.fc1_weight))
    write_head(bundle_folder, head, bundle.statistics)
    write_manifest(bundle_folder, bundle.manifest)
    before = load_bundle(bundle_folder)
    assert "scaled" not in json.loads((bundle_folder / MANIFEST).read_text("utf-8"))["baseline"]
    edit(bundle_folder, lambda described: described["baseline"].update({"scaled": False}))
    assert load_bundle(bundle_folder).fingerprint == before.fingerprint
    scaled = replace(before.manifest, baseline=replace(before.manifest.baseline, scaled=True))
    write_manifest(bundle_folder, scaled)
    after = load_bundle(bundle_folder)
    assert after.manifest.baseline.scaled
    assert after.fingerprint != before.fingerprint


@pytest.mark.parametrize(("name", "value"), [("high_pass_hz", 80.0), ("high_pass_hz", 0), ("hum_notch_q", 0)])
def test_another_input_filter_is_kept_and_makes_another_fingerprint(
    bundle_folder: Path, name: str, value: float
) -> None:
    before = load_bundle(bundle_folder)
    edit(bundle_folder, lambda described: described["front_end"].update({name: value}))
    after = load_bundle(bundle_folder)
    assert getattr(after.manifest.front_end, name) == value
    assert after.fingerprint != before.fingerprint


@pytest.mark.parametrize(
    ("name", "value"), [("high_pass_hz", 8_000.0), ("high_pass_hz", -5.0), ("hum_notch_q", -1.0)]
)
def test_an_input_filter_that_leaves_no_speech_is_refused(
    bundle_folder: Path, name: str, value: float
) -> None:
    edit(bundle_folder, lambda described: described["front_end"].update({name: value}))
    refused(bundle_folder, name, f"{value:g}")


def test_a_shipped_bundle_is_found_by_its_name_unless_a_folder_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_bundle(None) == find_bundle("default") == default_bundle()
    assert find_bundle("small") == shipped_bundle("small")
    (tmp_path / "small").mkdir()
    assert find_bundle("small") == shipped_bundle("small")
    (tmp_path / "small" / MANIFEST).touch()
    assert find_bundle("small") == Path("small")
    assert find_bundle("other") == Path("other")
