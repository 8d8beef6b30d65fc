"""Which names of TensorRT does the project use? Read from its source, so that none is forgotten."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

MODULE = {"trt", "_trt", "tensorrt"}
"""What the module is called, as a variable or an attribute of one."""

OBJECTS = {
    "edge/engine_builder/build.py": {
        "builder": "Builder",
        "network": "INetworkDefinition",
        "parser": "OnnxParser",
        "builder_config": "IBuilderConfig",
        "profile": "IOptimizationProfile",
        "cache": "ITimingCache",
    },
    "edge/gpu/runner.py": {
        "_runtime": "Runtime",
        "engine": "ICudaEngine",
        "_engine": "ICudaEngine",
        "_context": "IExecutionContext",
    },
}
"""What the files that make TensorRT's objects call them, as variables or attributes, and their classes."""

MAKERS = {"Builder", "Runtime"}
"""Where all of those objects come from: a file that uses one of these belongs into the table above."""

RETURNS = {
    "INetworkDefinition.get_input": "ITensor",
    "OnnxParser.get_error": "ParserError",
}
"""Methods whose result is used on the spot, and its class."""


@dataclass(frozen=True)
class Uses:
    """Names below the module, such as "BuilderFlag.TF32" or "Builder.create_network"."""

    needed: frozenset[str]
    guarded: frozenset[str]
    """Asked for with `hasattr` first: they may be missing."""


def uses_of(root: Path, *packages: str) -> Uses:
    """Find the names that the packages below a folder use."""
    found = [item for path, tree in _sources(root, *packages) for item in _File(path).names(tree)]
    guards = {name for name, asked in found if asked}
    guarded = {name for name, _ in found if any(f"{name}.".startswith(f"{guard}.") for guard in guards)}
    return Uses(frozenset({name for name, _ in found} - guarded), frozenset(guarded))


def unlisted_files(root: Path, *packages: str) -> list[str]:
    """List the files that make TensorRT's objects and are not in the table of what they call them."""
    return [
        path
        for path, tree in _sources(root, *packages)
        if path not in OBJECTS and MAKERS & {name for name, _ in _File(path).names(tree)}
    ]


def _sources(root: Path, *packages: str) -> Iterator[tuple[str, ast.Module]]:
    for package in packages:
        for path in sorted((root / package).rglob("*.py")):
            yield path.relative_to(root).as_posix(), ast.parse(path.read_text(encoding="utf-8"))


class _File:
    """Reads the names out of one file."""

    def __init__(self, path: str) -> None:
        self._objects = OBJECTS.get(path, {})

    def names(self, tree: ast.Module) -> Iterator[tuple[str, bool]]:
        """Yield each name, and whether it is only asked for with `hasattr`."""
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and (path := self._path(node)):
                yield path, False
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "hasattr":
                owner, name = node.args
                if isinstance(name, ast.Constant) and (path := self._joined(owner, str(name.value))):
                    yield path, True
            elif isinstance(node, ast.ClassDef):
                yield from ((name, False) for name in self._overridden(node))

    def _overridden(self, node: ast.ClassDef) -> Iterator[str]:
        """Yield what a class of ours defines for TensorRT to call."""
        for base in node.bases:
            if isinstance(base, ast.Attribute) and (path := self._path(base)):
                methods = [item.name for item in node.body if isinstance(item, ast.FunctionDef)]
                yield from (f"{path}.{name}" for name in methods if not name.startswith("_"))

    def _path(self, node: ast.Attribute) -> str:
        """Name what an attribute is, or "" if it is nothing of TensorRT's."""
        return "" if node.attr in MODULE else self._joined(node.value, node.attr)

    def _joined(self, owner: ast.expr, name: str) -> str:
        place = self._place(owner)
        if place is None or (not place and name.startswith("__")):  # any module has those
            return ""
        return f"{place}.{name}" if place else name

    def _place(self, node: ast.expr) -> str | None:
        """Return the class or name that an expression is: "" is the module, None nothing of TensorRT's."""
        if isinstance(node, ast.Name):
            return "" if node.id in MODULE else self._objects.get(node.id)
        if isinstance(node, ast.Attribute):
            return "" if node.attr in MODULE else self._objects.get(node.attr) or self._path(node) or None
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            return RETURNS.get(self._path(node.func))
        return None
