"""Inside `edge` and `calibrate`, a folder imports only the folders below it.

Each check is shown able to fail by a twin test.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

ORDER = {
    "edge": (
        ("",),
        ("system",),
        ("file_formats",),
        ("audio", "features", "output"),
        ("model",),
        ("gpu",),
        ("inference",),
        ("recognition", "engine_builder"),
        ("metrics",),
        ("server", "diagnostics", "reports"),
        ("web",),
        ("cli",),
    ),
    "calibrate": (
        ("",),
        ("fitting", "session"),
        ("speaker",),
        ("report",),
        ("web",),
        ("commands",),
    ),
}
"""Floors of each package from the ground up. Folders of one floor do not import each other; "" is the
package's own folder."""

LARGEST_FOLDER = 13
"""Python files of a folder, `__init__` not counted."""

LONGEST_FILE = 400
"""Lines."""


def _room(package: str, module: str) -> str:
    """Return the folder, or the module on a floor of its own, that a dotted name of the package is in."""
    name = module.removeprefix(package).lstrip(".").split(".")[0]
    floors = [room for floor in ORDER[package] for room in floor]
    return name if name in floors else ""


def _imported(tree: ast.Module, package: str) -> Iterator[tuple[int, str]]:
    """Yield the line and dotted name of each import of the package, wherever it stands."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from ((node.lineno, name) for name in names if name.split(".")[0] == package)


def upward_imports(root: Path, package: str) -> list[str]:
    """List the imports that go up a floor, or across one."""
    floor_of = {room: number for number, floor in enumerate(ORDER[package]) for room in floor}
    found = []
    for path in sorted((root / package).rglob("*.py")):
        module = ".".join(path.relative_to(root).with_suffix("").parts)
        here = _room(package, module)
        if module == f"{package}.__init__":  # it names the public surface, which it imports when asked
            continue
        for line, name in _imported(ast.parse(path.read_text("utf-8")), package):
            there = _room(package, name)
            if there != here and floor_of[there] >= floor_of[here]:
                found.append(f"{path.relative_to(root).as_posix()}:{line} imports {name}")
    return found


def folders(root: Path, package: str) -> Iterator[tuple[str, list[Path]]]:
    """Yield each folder of a package that holds Python files, with them."""
    for folder in [root / package, *sorted((root / package).rglob("*/"))]:
        files = [path for path in sorted(folder.glob("*.py")) if path.name != "__init__.py"]
        if files:
            yield folder.relative_to(root).as_posix(), files


def unplaced_folders(root: Path, package: str) -> list[str]:
    """List the folders directly below a package that have no floor."""
    known = {room for floor in ORDER[package] for room in floor}
    return [
        name for name, _ in folders(root, package) if name.count("/") == 1 and name.split("/")[1] not in known
    ]


@pytest.mark.parametrize("package", ORDER)
def test_no_import_goes_upward_or_across(package: str) -> None:
    assert upward_imports(ROOT, package) == []


@pytest.mark.parametrize("package", ORDER)
def test_every_folder_has_a_floor(package: str) -> None:
    assert unplaced_folders(ROOT, package) == []


@pytest.mark.parametrize("package", ORDER)
def test_folders_and_files_stay_small(package: str) -> None:
    sizes = {name: len(files) for name, files in folders(ROOT, package)}
    lines = {
        path.relative_to(ROOT).as_posix(): len(path.read_text("utf-8").splitlines())
        for _, files in folders(ROOT, package)
        for path in files
    }
    assert {name: size for name, size in sizes.items() if size > LARGEST_FOLDER} == {}
    assert {name: count for name, count in lines.items() if count > LONGEST_FILE} == {}


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("edge/errors.py", "from edge.audio.block import Block"),
        ("edge/audio/sources.py", "from edge.features.frontend import FrontEnd"),
        ("edge/features/vad.py", "def late():\n    import edge.inference.engine"),
        ("edge/model/profile.py", "from edge.recognition import drift"),
        ("calibrate/fitting/adapter.py", "from calibrate.session.session import Session"),
        ("calibrate/speaker.py", "from calibrate.report.outcome import print_report"),
        ("calibrate/report/summary.py", "from calibrate.commands import calibrate"),
    ],
)
def test_an_import_upward_or_across_is_found(tmp_path: Path, path: str, code: str) -> None:
    _write(tmp_path, path, code)
    found = upward_imports(tmp_path, path.split("/", maxsplit=1)[0])
    assert [line.partition(":")[0] for line in found] == [path]


def test_an_import_downward_is_let_through(tmp_path: Path) -> None:
    _write(
        tmp_path,
        "edge/recognition/recognizer.py",
        "from edge import errors\nfrom edge.model.head import Head",
    )
    _write(
        tmp_path,
        "calibrate/report/summary.py",
        "from calibrate.fitting.folds import Folds\nimport calibrate.takes",
    )
    assert upward_imports(tmp_path, "edge") == upward_imports(tmp_path, "calibrate") == []


def test_a_folder_without_a_floor_is_found(tmp_path: Path) -> None:
    _write(tmp_path, "edge/helpers/text.py", "")
    assert unplaced_folders(tmp_path, "edge") == ["edge/helpers"]


def _write(root: Path, path: str, text: str) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text, encoding="utf-8")
