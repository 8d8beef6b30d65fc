"""The manifest of a bundle, model.json: what the model is, and the SHA-256 of every other file."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from edge.bounds import UNREADABLE, build, one_line, require_shallow, require_size, shown, within
from edge.errors import BundleError
from edge.features.frontend import FrontEnd
from edge.features.normaliser import GainConfig
from edge.system.files import atomic_write, is_file, read_text

SCHEMA_VERSION: Final = 2
"""Written; version 1, which is read too, has no `execution`, `spectrum` and `baseline`."""
READABLE_VERSIONS: Final = (1, SCHEMA_VERSION)
MANIFEST: Final = "model.json"
HEAD: Final = "head.safetensors"
ENCODER: Final = "encoder.onnx"
CLASSIFIER: Final = "classifier.onnx"
WINDOW: Final = "window.onnx"
WEIGHTS: Final = "weights.safetensors"
CARD: Final = "CARD.md"
Execution = Literal["incremental", "recurrent", "window"]
GRAPHS: Final[dict[Execution, tuple[str, ...]]] = {
    "incremental": (ENCODER, CLASSIFIER, WINDOW),
    "recurrent": (ENCODER, CLASSIFIER),
    "window": (WINDOW,),
}
"""The graphs of a bundle: features computed once each as the sound arrives, of a few frames or of all sound
before, or whole windows only."""
SHIPPED: Final = ("default", "small")
"""The models that ship with the program: their names, and their folders in `bundles`."""
LARGEST_MANIFEST: Final = 2**24
"""Bytes."""
READ_AT_ONCE: Final = 2**20


@dataclass(frozen=True)
class Graphs:
    """Sizes of the graphs' inputs and outputs."""

    state_shapes: tuple[tuple[int, ...], ...] = field(metadata=within(1, 4_096))
    """Shape of each of the encoder's states for one stream, without the batch axis."""
    feature_size: int = field(metadata=within(1, 2**16))
    """P: values of one feature."""
    embedding_size: int = field(metadata=within(1, 2**16))
    """D."""
    frames_per_feature: int = field(metadata=within(1, 1_000))
    """Frames from one feature to the next: 8, which is 80 ms."""
    frames_for_first: int = field(metadata=within(1, 3_000))
    """Frames that a feature covers."""
    window_features: int = field(metadata=within(1, 3_000))
    """Features of a full window."""
    execution: Execution = "incremental"
    """How the network runs. If by windows, a feature is the frames that it covers. If recurrent, the state is
    carried over from window to window, and there is no graph of whole windows."""
    first_window_features: int | None = field(default=None, metadata=within(1, 3_000))
    """Features of the shortest window at the start of a stream; None: streams begin with a full window."""

    @property
    def files(self) -> tuple[str, ...]:
        """Names of the graphs' files."""
        return GRAPHS[self.execution]

    def frames_of(self, end: int) -> tuple[int, int]:
        """Return the first frame, and the one after the last, of the window that ends before a feature."""
        first = max(0, end - self.window_features)
        return first * self.frames_per_feature, self.frames_in(end)

    def frames_in(self, features: int) -> int:
        """Return the number of frames that a number of consecutive features covers, > 0."""
        return (features - 1) * self.frames_per_feature + self.frames_for_first

    def features_in(self, frames: int) -> int:
        """Return the number of features that a number of frames completes."""
        return max(0, (frames - self.frames_for_first) // self.frames_per_feature + 1)


@dataclass(frozen=True)
class BaselineConfig:
    """How the speaker's baseline is estimated while listening, in windows of speech that do not overlap."""

    prior_windows: float = field(default=2.0, metadata=within(0.1, 1e4))
    """Weight of the training speakers' mean, 0, and of their deviation, 1."""
    memory_windows: float = field(default=20.0, metadata=within(1.0, 1e4))
    """Largest weight of what was heard before: 60 s of speech with windows of 3 s. Older speech fades."""
    scaled: bool = False
    """Whether the relative inputs are divided by the speaker's deviation too: the same in training."""

    def deciding(self) -> dict[str, Any]:
        """Return the constants by name, as a bundle's fingerprint and model.json have them.

        `scaled` is left out where it is off: bundles without it stay what they were.
        """
        named = asdict(self)
        if not self.scaled:
            del named["scaled"]
        return named


@dataclass(frozen=True)
class Manifest:
    """The contents of model.json."""

    name: str
    emotions: tuple[str, ...]
    front_end: FrontEnd
    levels: GainConfig
    graphs: Graphs
    temperature_fitted: bool
    licence: str
    """Of the weights."""
    baseline: BaselineConfig = field(default_factory=BaselineConfig)
    """Only for a head that reads the baseline."""
    training: dict[str, Any] = field(default_factory=dict)
    """Algorithm, command, corpora with their licences, speakers, git revision."""
    metrics: dict[str, Any] = field(default_factory=dict)
    """Scores by protocol and corpus."""
    files: dict[str, str] = field(default_factory=dict)
    """SHA-256 of every other file, by its path from the folder: the required ones, then any more."""

    @property
    def required(self) -> tuple[str, ...]:
        """Names of the files that the bundle cannot do without."""
        return required_files(self.graphs.execution)


def required_files(execution: Execution) -> tuple[str, ...]:
    """Return the names of the files that a bundle cannot do without, besides the manifest."""
    return (HEAD, *GRAPHS[execution], WEIGHTS, CARD)


def read_manifest(folder: Path) -> Manifest:
    """Read model.json alone.

    Raises:
        BundleError: it is missing, damaged or has another version.
    """
    path = folder / MANIFEST
    if not is_file(path):
        raise BundleError(
            f"{folder} is not a bundle (it has no {MANIFEST})",
            remedy=f"name a folder that mmtl export wrote, or a bundle that ships ({', '.join(SHIPPED)})",
        )
    try:
        require_size(path, LARGEST_MANIFEST)
        described = json.loads(read_text(path))
        version = described.pop("schema_version")
    except (*UNREADABLE, KeyError, TypeError, AttributeError) as error:
        raise BundleError(f"{path} is damaged", remedy="copy it again or export the model again") from error
    if version not in READABLE_VERSIONS or type(version) is not int:
        raise BundleError(
            f"{path} has schema version {shown(version)}, this program reads 1 to {SCHEMA_VERSION}",
            remedy="update mmtl, or export the model again",
        )
    try:
        return _manifest(described)
    except (TypeError, KeyError, ValueError) as error:
        raise BundleError(
            f"{path} does not describe a model ({one_line(error)})", remedy="export the model again"
        ) from error


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write model.json, as the last file, for the required files and others that the manifest lists."""
    names = dict.fromkeys((*manifest.required, *manifest.files))
    described = asdict(manifest) | {
        "baseline": manifest.baseline.deciding(),
        "files": {name: file_sha256(folder / name) for name in names},
    }
    text = json.dumps({"schema_version": SCHEMA_VERSION, **described}, indent=2, ensure_ascii=False)
    with atomic_write(folder / MANIFEST) as partial:
        partial.write_text(text + "\n", "utf-8")


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file, read piece by piece."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(READ_AT_ONCE):
            digest.update(piece)
    return digest.hexdigest()


def _manifest(described: dict[str, Any]) -> Manifest:
    """Build the manifest; raise a KeyError, TypeError or ValueError if it is invalid."""
    graphs = dict(described["graphs"])
    graphs["state_shapes"] = tuple(
        _tuple("state_shapes", shape) for shape in _tuple("state_shapes", graphs["state_shapes"])
    )
    manifest = Manifest(
        **described
        | {
            "emotions": _tuple("emotions", described["emotions"]),
            "front_end": build(FrontEnd, described["front_end"]),
            "levels": build(GainConfig, described["levels"]),
            "graphs": build(Graphs, graphs),
            "baseline": build(BaselineConfig, described.get("baseline", {})),
        }
    )
    for name, kind in _KINDS.items():
        if not isinstance(getattr(manifest, name), kind):
            raise TypeError(f"{name} is not a {kind.__name__}")
    for name in ("training", "metrics"):
        require_shallow(name, getattr(manifest, name))
    return manifest


def _tuple(name: str, value: Any) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise TypeError(f"{name} cannot be {shown(value)}, expected a list")
    return tuple(value)


_KINDS: Final = {
    **dict.fromkeys(("name", "licence"), str),
    "temperature_fitted": bool,
    **dict.fromkeys(("training", "metrics", "files"), dict),
}
