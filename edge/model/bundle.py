"""A bundle: a folder with a model and its manifest. Each file is checked when the bundle is loaded."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path

from safetensors.numpy import save_file

from edge.bounds import one_line, read_tensors, shown
from edge.errors import BundleError, ModelError
from edge.features.frontend import FrontEnd
from edge.features.log_mel import has_mel_bands
from edge.features.normaliser import BinStatistics
from edge.labels import EMOTIONS
from edge.model.head import Head
from edge.model.manifest import HEAD, MANIFEST, SHIPPED, Manifest, file_sha256, read_manifest
from edge.model.onnx_file import require_self_contained
from edge.system.files import atomic_write, is_file


@dataclass(frozen=True)
class Bundle:
    """A model whose files are complete and unchanged."""

    folder: Path
    manifest: Manifest
    head: Head
    statistics: BinStatistics

    @property
    def fingerprint(self) -> str:
        """SHA-256 of everything that affects answers: graphs, head and constants; not card or scores."""
        manifest = self.manifest
        constants = [manifest.front_end.deciding(), asdict(manifest.levels)]
        if self.head.baseline_weight is not None:
            constants.append(manifest.baseline.deciding())
        deciding = [manifest.files[name] for name in (*manifest.graphs.files, HEAD)]
        return hashlib.sha256(json.dumps([*deciding, *constants]).encode()).hexdigest()

    def graph(self, name: str) -> Path:
        """Return the path of one of the graphs."""
        return self.folder / name


def is_bundle(folder: Path) -> bool:
    """Return whether a folder holds a bundle, complete or not."""
    return (folder / MANIFEST).is_file()


def default_bundle() -> Path:
    """Return the folder of the model that ships with the program."""
    return shipped_bundle("default")


def shipped_bundle(name: str) -> Path:
    """Return the folder of one of the `SHIPPED` models."""
    return Path(str(resources.files("edge"))) / "bundles" / name


def find_bundle(name_or_path: str | Path | None) -> Path:
    """Return the folder of a bundle, given by its path or as one of `SHIPPED`; None: the default.

    A bundle in a folder of that name comes before the one that ships.
    """
    path = Path(name_or_path or "default")
    return shipped_bundle(path.name) if str(path) in SHIPPED and not is_bundle(path) else path


def load_bundle(folder: Path) -> Bundle:
    """Read a bundle and check its version, files, hashes and shapes.

    Raises:
        BundleError: a check failed; the message says which, and what to do.
    """
    manifest = read_manifest(folder)
    _check_files(folder, manifest)
    _check_graphs(folder, manifest)
    try:
        tensors, _ = read_tensors(folder / HEAD)
        head, statistics = Head.from_tensors(tensors), BinStatistics.from_tensors(tensors)
    except ModelError as error:
        raise BundleError(f"{folder / HEAD} is damaged ({error})", remedy="export the model again") from error
    bundle = Bundle(folder, manifest, head, statistics)
    _check_emotions(bundle)
    _require_known_spectrum(bundle)
    _check_sizes(bundle)
    return bundle


def write_head(folder: Path, head: Head, statistics: BinStatistics) -> None:
    """Write the head and the bin statistics."""
    with atomic_write(folder / HEAD) as partial:
        save_file(head.tensors() | statistics.tensors(), partial)


def _check_files(folder: Path, manifest: Manifest) -> None:
    outside = [name for name in manifest.files if Path(name).is_absolute() or ".." in Path(name).parts]
    if outside:
        raise BundleError(
            f"the bundle {folder} lists {shown(outside[0])}, which is not in it", remedy="export it again"
        )
    names = dict.fromkeys((*manifest.required, *manifest.files))
    missing = [name for name in names if name not in manifest.files or not is_file(folder / name)]
    if missing:
        raise BundleError(
            f"the bundle {folder} lacks {one_line(', '.join(missing))}",
            remedy="copy it again or export it again",
        )
    try:
        changed = [name for name in names if file_sha256(folder / name) != manifest.files[name]]
    except OSError as error:
        raise BundleError(
            f"cannot read the bundle {folder} ({error.strerror})", remedy="copy it again"
        ) from error
    if changed:
        raise BundleError(
            f"{one_line(', '.join(changed))} in the bundle {folder} is not what was exported (its SHA-256 "
            "differs)",
            remedy="copy it again or export it again",
        )


def _check_graphs(folder: Path, manifest: Manifest) -> None:
    """Refuse graphs that refer to other files, before ONNX Runtime or TensorRT reads them."""
    for name in manifest.files:
        if Path(name).suffix == ".onnx":
            try:
                require_self_contained((folder / name).read_bytes())
            except ModelError as error:
                raise BundleError(f"{folder / name} {error}", remedy="export the model again") from error


def _check_emotions(bundle: Bundle) -> None:
    emotions = bundle.manifest.emotions
    if emotions != EMOTIONS:
        raise BundleError(
            f"the bundle {bundle.folder} has the emotions {one_line(', '.join(map(str, emotions)))}, this "
            f"program has {', '.join(EMOTIONS)}",
            remedy="use the program that wrote it",
        )


def _check_sizes(bundle: Bundle) -> None:
    front_end, graphs = bundle.manifest.front_end, bundle.manifest.graphs
    window = graphs.features_in(front_end.window_frames)
    first = graphs.first_window_features or graphs.window_features
    sizes = {
        "sample rate": (front_end.sample_rate, FrontEnd.sample_rate),
        "number of bins": (front_end.bins, min(front_end.bins, front_end.n_fft // 2 + 1)),
        "number of values of a feature": (graphs.feature_size, _feature_size(bundle)),
        "number of features in a first window": (first, min(first, graphs.window_features)),
        "number of features in a window": (graphs.window_features, window),
        "embedding": (bundle.head.input_size, graphs.embedding_size),
        "number of outputs": (len(bundle.head.fc3_bias), len(EMOTIONS)),
        "number of bin statistics": (len(bundle.statistics.mean), front_end.frame_size),
    }
    for what, (found, wanted) in sizes.items():
        if found != wanted:
            raise BundleError(
                f"the {what} of the bundle {bundle.folder} is {found}, expected {wanted}",
                remedy="export it again",
            )


def _feature_size(bundle: Bundle) -> int:
    """Return the expected P: a feature of a network that runs by windows is the frames that it covers."""
    front_end, graphs = bundle.manifest.front_end, bundle.manifest.graphs
    return (
        graphs.feature_size
        if graphs.execution != "window"
        else graphs.frames_for_first * front_end.frame_size
    )


def _require_known_spectrum(bundle: Bundle) -> None:
    """Refuse mel bands of other frames than those that `edge.features.log_mel` computes."""
    front_end = bundle.manifest.front_end
    if front_end.spectrum != "linear" and not has_mel_bands(front_end):
        raise BundleError(
            f"the bundle {bundle.folder} has mel bands of other frames than this program computes",
            remedy="use the program that wrote it",
        )
