"""A bundle: one folder that holds a model and says what it is. Checked file by file when it is loaded."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, Final, TypeVar

from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from edge.errors import BundleError
from edge.files import replacing
from edge.frontend import Array, FrontEnd
from edge.head import Head
from edge.labels import EMOTIONS
from edge.normaliser import BinStatistics, Levels

SCHEMA_VERSION: Final = 1
MANIFEST: Final = "model.json"
HEAD: Final = "head.safetensors"
ENCODER: Final = "encoder.onnx"
CLASSIFIER: Final = "classifier.onnx"
WINDOW: Final = "window.onnx"
WEIGHTS: Final = "weights.safetensors"
CARD: Final = "CARD.md"
REQUIRED: Final = (HEAD, ENCODER, CLASSIFIER, WINDOW, WEIGHTS, CARD)

Constants = TypeVar("Constants", FrontEnd, Levels)


@dataclass(frozen=True)
class Graphs:
    """What goes into and comes out of the graphs."""

    state_shapes: tuple[tuple[int, ...], ...]
    """Shape of each of the encoder's states for one stream, without the batch axis."""
    feature_size: int
    """P: values of one feature."""
    embedding_size: int
    """D."""
    frames_per_feature: int
    """Frames that one more feature takes: 8, which is 80 ms."""
    frames_for_first: int
    """Frames that the first feature takes."""
    window_features: int
    """Features of a full window."""


@dataclass(frozen=True)
class Manifest:
    """The contents of model.json."""

    name: str
    emotions: tuple[str, ...]
    front_end: FrontEnd
    levels: Levels
    graphs: Graphs
    temperature_fitted: bool
    licence: str
    """Of the weights."""
    training: dict[str, Any] = field(default_factory=dict)
    """Algorithm, command, corpora with their licences, speakers, git revision."""
    metrics: dict[str, Any] = field(default_factory=dict)
    """Scores by protocol and corpus."""
    files: dict[str, str] = field(default_factory=dict)
    """SHA-256 of every other file."""


@dataclass(frozen=True)
class Bundle:
    """A model that was found complete and unchanged."""

    folder: Path
    manifest: Manifest
    head: Head
    statistics: BinStatistics

    @property
    def fingerprint(self) -> str:
        """SHA-256 over all that decides: graphs, head and constants; not the card, nor scores."""
        constants = [asdict(self.manifest.front_end), asdict(self.manifest.levels)]
        deciding = [self.manifest.files[name] for name in (ENCODER, CLASSIFIER, WINDOW, HEAD)]
        return hashlib.sha256(json.dumps([*deciding, *constants]).encode()).hexdigest()

    def graph(self, name: str) -> Path:
        """Return the path of one of the graphs."""
        return self.folder / name


def is_bundle(folder: Path) -> bool:
    """Tell whether a folder holds a bundle, whole or not."""
    return (folder / MANIFEST).is_file()


def default_bundle() -> Path:
    """Return the folder of the model that ships with the program."""
    return Path(str(resources.files("edge"))) / "bundles" / "default"


def load_bundle(folder: Path) -> Bundle:
    """Read a bundle and check its version, files, hashes and shapes.

    Raises:
        BundleError: what is wrong, and what to do about it.
    """
    manifest = read_manifest(folder)
    _check_files(folder, manifest)
    try:
        tensors: dict[str, Array] = load_file(folder / HEAD)
        statistics = BinStatistics(tensors["statistics.mean"], tensors["statistics.std"])
    except (SafetensorError, KeyError) as error:
        raise BundleError(f"{folder / HEAD} is damaged ({error}): export the model again") from error
    bundle = Bundle(folder, manifest, Head.from_tensors(tensors), statistics)
    _check_shapes(bundle)
    return bundle


def read_manifest(folder: Path) -> Manifest:
    """Read model.json alone.

    Raises:
        BundleError: it is missing, damaged or of another version.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise BundleError(
            f"{folder} is not a bundle (it has no {MANIFEST}): name a folder that mmtl export wrote"
        )
    try:
        described = json.loads(path.read_text("utf-8"))
        version = described.pop("schema_version")
    except (ValueError, KeyError, AttributeError) as error:
        raise BundleError(f"{path} is damaged: export the model again") from error
    if version != SCHEMA_VERSION:
        raise BundleError(
            f"{path} has schema version {version}, this program reads {SCHEMA_VERSION}: "
            "update mmtl, or export the model again"
        )
    try:
        return _manifest(described)
    except (TypeError, KeyError) as error:
        raise BundleError(f"{path} does not describe a model ({error}): export the model again") from error


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write model.json for the files that are in the folder, last of all."""
    described = asdict(manifest) | {"files": {name: _sha256(folder / name) for name in REQUIRED}}
    text = json.dumps({"schema_version": SCHEMA_VERSION, **described}, indent=2, ensure_ascii=False)
    with replacing(folder / MANIFEST) as partial:
        partial.write_text(text + "\n", "utf-8")


def write_head(folder: Path, head: Head, statistics: BinStatistics) -> None:
    """Write the head and the bin statistics."""
    arrays = {"statistics.mean": statistics.mean, "statistics.std": statistics.std}
    with replacing(folder / HEAD) as partial:
        save_file(head.tensors() | arrays, partial)


def _manifest(described: dict[str, Any]) -> Manifest:
    graphs = dict(described["graphs"])
    graphs["state_shapes"] = tuple(tuple(shape) for shape in graphs["state_shapes"])
    return Manifest(
        **described
        | {
            "emotions": tuple(described["emotions"]),
            "front_end": FrontEnd(**described["front_end"]),
            "levels": Levels(**described["levels"]),
            "graphs": Graphs(**graphs),
        }
    )


def _check_files(folder: Path, manifest: Manifest) -> None:
    missing = [name for name in REQUIRED if name not in manifest.files or not (folder / name).is_file()]
    if missing:
        raise BundleError(f"the bundle {folder} lacks {', '.join(missing)}: copy it again or export it again")
    changed = [name for name in REQUIRED if _sha256(folder / name) != manifest.files[name]]
    if changed:
        raise BundleError(
            f"{', '.join(changed)} in the bundle {folder} is not what was exported (its SHA-256 differs): "
            "copy it again or export it again"
        )


def _check_shapes(bundle: Bundle) -> None:
    manifest, head = bundle.manifest, bundle.head
    if manifest.emotions != EMOTIONS:
        raise BundleError(
            f"the bundle {bundle.folder} tells {', '.join(manifest.emotions)} apart, this program "
            f"{', '.join(EMOTIONS)}: use the program that wrote it"
        )
    expected: Mapping[str, tuple[int, int]] = {
        "embedding": (head.embedding_size, manifest.graphs.embedding_size),
        "output": (len(head.fc3_bias), len(EMOTIONS)),
        "bin mean": (len(bundle.statistics.mean), manifest.front_end.bins),
        "bin deviation": (len(bundle.statistics.std), manifest.front_end.bins),
    }
    for what, (found, wanted) in expected.items():
        if found != wanted:
            raise BundleError(
                f"the {what} in {bundle.folder / HEAD} has size {found}, the manifest says {wanted}: "
                "export it again"
            )


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
