"""What may not be imported or called where. Each boundary is shown able to fail by a twin test."""

import ast
import importlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

OURS = ("edge", "train", "calibrate", "export")

MAY_IMPORT = {
    "edge": {"edge"},
    "calibrate": {"calibrate", "edge"},
    "train": {"train", "calibrate", "edge"},
    "export": {"export", "train", "calibrate", "edge"},
}

ON_DEVICE = ("edge", "calibrate")

ON_DEVICE_MAY_IMPORT = {
    *("numpy", "onnxruntime", "platformdirs", "rich", "safetensors"),
    *("sounddevice", "soundfile", "soxr", "typer"),
    *("tensorrt", "pycuda", "paho", "prometheus_client", "pyarrow", "segno", "websockets"),
}
"""The base dependencies of pyproject.toml, and what the extras for the device add."""

PICTURES = {"calibrate/report/figures.py", "calibrate/report/picture.py"}
"""Files, from the root, that may import matplotlib: when a person asks for a picture, and not before."""

IMPORTERS = {"import_module", "importlib.import_module", "__import__"}

UNPICKLERS = {"pickle", "_pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}

NETWORK = {
    *("urllib", "http", "socket", "socketserver", "ssl", "ftplib", "smtplib", "xmlrpc"),
    *("requests", "httpx", "aiohttp", "websockets", "urllib3", "asyncio", "paho"),
}

NETWORK_EXCEPTIONS = {
    *(
        "edge/server/server.py",
        "edge/server/client_session.py",
        "edge/server/transport.py",
        "edge/server/websocket_transport.py",
    ),
    *("edge/server/access.py", "edge/output/mqtt.py", "edge/output/systemd.py"),
    "edge/metrics/endpoint.py",
    *("edge/web/admission.py", "edge/web/hub.py", "edge/web/link.py", "edge/web/site.py"),
    *("edge/web/enrolment_connections.py", "edge/web/start.py"),
}
"""Files, from the root, that may use the network: when a person asks for it, and not before.

`readiness` only has a socket of this machine, systemd's; `test_readiness.py` holds it to that.
"""

SLOW_TO_IMPORT = (
    *("torch", "numpy", "onnxruntime", "sounddevice", "websockets", "paho", "jsonschema", "matplotlib"),
)

OPTIONAL = (
    *(path.removesuffix(".py").replace("/", ".") for path in sorted(NETWORK_EXCEPTIONS)),
    *("websockets", "paho", "prometheus_client"),
)
"""What no run on this device loads unless it was asked for a network."""

# Imports every module below a folder, and prints the names under "torch" and "matplotlib" that any of
# them asked for, also where the failure was caught.
IMPORT_ALL = """
import importlib, importlib.abc, json, pkgutil, sys

absent = ("torch", "torchaudio", "matplotlib")

class Torchless(importlib.abc.MetaPathFinder):
    asked = []
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in absent:
            self.asked.append(name)
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Torchless())
imported = []
for package in sys.argv[1:]:
    module = importlib.import_module(package)
    imported.append(package)
    for found in pkgutil.walk_packages(module.__path__, package + "."):
        if not found.name.endswith(".__main__"):
            importlib.import_module(found.name)
            imported.append(found.name)
loaded = [name for name in sys.modules if name.split(".")[0] in absent]
print(json.dumps({"imported": imported, "asked": Torchless.asked, "loaded": loaded}))
"""

# Runs `mmtl --help`, then prints which of the modules named as arguments were loaded for it.
HELP = """
import sys

slow, sys.argv = sys.argv[1:], ["mmtl", "--help"]
try:
    from edge.cli.main import main
    main()
except SystemExit as stop:
    assert not stop.code, stop.code
print("\\nloaded:", *sorted(set(slow) & set(sys.modules)))
"""


def _sources(root: Path, *packages: str) -> Iterator[tuple[str, ast.Module]]:
    """Yield each Python file of the packages: its path from the root, and its tree."""
    for package in packages:
        for path in sorted((root / package).rglob("*.py")):
            yield path.relative_to(root).as_posix(), ast.parse(path.read_text(encoding="utf-8"))


def _imports(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield the line and top-level name of each absolute import, wherever it stands."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name.split(".")[0]) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.lineno, node.module.split(".")[0]
        elif isinstance(node, ast.Call) and _name(node.func) in IMPORTERS:
            names = [argument.value for argument in node.args[:1] if isinstance(argument, ast.Constant)]
            yield from ((node.lineno, str(name).split(".")[0]) for name in names)


def _name(function: ast.expr) -> str:
    """Return "torch.load" for the expression `torch.load`; "" for one that is not a dotted name."""
    if isinstance(function, ast.Attribute) and _name(function.value):
        return f"{_name(function.value)}.{function.attr}"
    return function.id if isinstance(function, ast.Name) else ""


def wrong_ways(root: Path) -> list[str]:
    """List the imports of ours that go against the direction edge <- calibrate <- train <- export."""
    return [
        f"{path}:{line} imports {name}"
        for package in OURS
        for path, tree in _sources(root, package)
        for line, name in _imports(tree)
        if name in {*OURS, "tests", "benchmarks"} - MAY_IMPORT[package]
    ]


def foreign_imports(root: Path) -> list[str]:
    """List what the device's code imports beyond the standard library and the base dependencies."""
    allowed = {*sys.stdlib_module_names, *ON_DEVICE_MAY_IMPORT, *OURS}
    return [
        f"{path}:{line} imports {name}"
        for path, tree in _sources(root, *ON_DEVICE)
        for line, name in _imports(tree)
        if name not in allowed and not (name == "matplotlib" and path in PICTURES)
    ]


def unsafe_code(root: Path) -> list[str]:
    """List what could run code that a file brings."""
    return [
        f"{path}:{line} {what}"
        for path, tree in _sources(root, *OURS)
        for line, what in (*_unpickling_imports(tree), *_unsafe_calls(tree))
    ]


def _unpickling_imports(tree: ast.Module) -> Iterator[tuple[int, str]]:
    yield from ((line, f"imports {name}") for line, name in _imports(tree) if name in UNPICKLERS)


def _unsafe_calls(tree: ast.Module) -> Iterator[tuple[int, str]]:
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        name, switches = _name(call.func), _switches_on(call)
        unsafe_load = name == "torch.load" and "weights_only" not in switches
        if name in {"eval", "exec", "compile", "torch.save"} or unsafe_load or "allow_pickle" in switches:
            yield call.lineno, f"calls {name}"


def _switches_on(call: ast.Call) -> set[str]:
    """Name the keyword arguments of a call that are not literally False."""
    return {
        keyword.arg
        for keyword in call.keywords
        if keyword.arg and not (isinstance(keyword.value, ast.Constant) and keyword.value.value is False)
    }


def network_imports(root: Path) -> list[str]:
    """List the device's modules that could send something off it."""
    return [
        f"{path}:{line} imports {name}"
        for path, tree in _sources(root, *ON_DEVICE)
        if path not in NETWORK_EXCEPTIONS
        for line, name in _imports(tree)
        if name in NETWORK
    ]


def eager_network_users(root: Path) -> list[str]:
    """List the imports, outside of functions, of the modules that may use the network; not by each other."""
    allowed = {path.removesuffix(".py").replace("/", ".") for path in NETWORK_EXCEPTIONS}
    return [
        f"{path}:{node.lineno} imports {name}"
        for path, tree in _sources(root, *OURS)
        if path not in NETWORK_EXCEPTIONS
        for node in _at_import(tree)
        for name in _modules(node)
        if name in allowed
    ]


def _at_import(node: ast.AST) -> Iterator[ast.Import | ast.ImportFrom]:
    """Yield the imports that run when the module is imported."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child
        elif not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from _at_import(child)


def _modules(node: ast.Import | ast.ImportFrom) -> Iterator[str]:
    """Yield each full name that may be a module's."""
    if isinstance(node, ast.ImportFrom):
        yield str(node.module)
        yield from (f"{node.module}.{alias.name}" for alias in node.names)
    else:
        yield from (alias.name for alias in node.names)


def loaded_by_a_run(root: Path) -> list[str]:
    """Recognise the demo and list what of the optional modules was loaded for it."""
    code = HELP.replace('["mmtl", "--help"]', '["mmtl", "run", "demo"]')
    return _run(root, code, *OPTIONAL).splitlines()[-1].split()[1:]


def torch_imports(root: Path, *packages: str) -> list[str]:
    """Import every module of the packages and list what they asked of torch and matplotlib.

    Even inside a `try`.
    """
    report = json.loads(_run(root, IMPORT_ALL, *packages))
    assert set(packages) <= set(report["imported"])
    return [*report["asked"], *report["loaded"]]


def slow_imports_of_help(root: Path) -> list[str]:
    """Run `mmtl --help` and list the slow modules it loaded."""
    *_help_text, loaded = _run(root, HELP, *SLOW_TO_IMPORT).splitlines()
    assert loaded.startswith("loaded:")
    return loaded.split()[1:]


def unlisted_names(package: str) -> list[str]:
    """List what `__all__` promises and the package lacks, and what it offers of ours unlisted."""
    module = importlib.import_module(package)
    lacking = [f"{package} has no {name}" for name in module.__all__ if not hasattr(module, name)]
    offered = {
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and str(getattr(value, "__module__", "")).split(".")[0] == package
    }
    return lacking + [f"{package} does not list {name}" for name in sorted(offered - set(module.__all__))]


def _run(root: Path, code: str, *arguments: str) -> str:
    command = [sys.executable, "-c", code, *arguments]
    finished = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False, timeout=600)
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


def _write(root: Path, path: str, text: str) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text, encoding="utf-8")


def test_imports_go_one_way() -> None:
    assert wrong_ways(ROOT) == []


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("edge/cli/main.py", "from calibrate import fit"),
        ("edge/deep/er.py", "def late():\n    import train.model"),
        ("calibrate/fitting/candidates.py", "import train"),
        ("train/model.py", "import importlib\nimportlib.import_module('export.bundle')"),
        ("export/graph.py", "from tests import make_demo"),
    ],
)
def test_an_import_the_wrong_way_is_found(tmp_path: Path, path: str, code: str) -> None:
    _write(tmp_path, path, code)
    assert [found.partition(":")[0] for found in wrong_ways(tmp_path)] == [path]


def test_an_import_the_right_way_is_let_through(tmp_path: Path) -> None:
    _write(tmp_path, "export/graph.py", "import train.model\nfrom edge import labels\nfrom . import parity")
    assert wrong_ways(tmp_path) == []


def test_the_device_needs_only_the_base_dependencies() -> None:
    assert foreign_imports(ROOT) == []


@pytest.mark.parametrize(
    "code", ["import torch.nn", "from torchaudio import load", "try:\n    import scipy\nfinally:\n    pass"]
)
@pytest.mark.parametrize("package", ON_DEVICE)
def test_a_foreign_import_on_the_device_is_found(tmp_path: Path, package: str, code: str) -> None:
    _write(tmp_path, f"{package}/fit.py", f"import math\nimport numpy\n{code}\n")
    assert len(foreign_imports(tmp_path)) == 1


def test_only_the_picture_may_import_matplotlib(tmp_path: Path) -> None:
    for path in ("calibrate/report/picture.py", "calibrate/deep/picture.py", "edge/output/monitor.py"):
        _write(tmp_path, path, "import matplotlib.figure")
    found = [line.partition(":")[0] for line in foreign_imports(tmp_path)]
    assert found == ["edge/output/monitor.py", "calibrate/deep/picture.py"]


def test_the_device_runs_without_torch_and_matplotlib() -> None:
    assert torch_imports(ROOT, *ON_DEVICE) == []


@pytest.mark.parametrize("package", ["torch", "matplotlib"])
def test_asking_for_torch_is_found_even_where_its_absence_is_caught(tmp_path: Path, package: str) -> None:
    _write(tmp_path, "edge/__init__.py", "")
    _write(tmp_path, "edge/deep/__init__.py", "")
    _write(tmp_path, "edge/deep/er.py", f"try:\n    import {package}\nexcept ImportError:\n    pass\n")
    assert torch_imports(tmp_path, "edge") == [package]


def test_no_file_can_bring_code_that_runs() -> None:
    assert unsafe_code(ROOT) == []


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "from joblib import load",
        "import torch\ntorch.load('weights')",
        "import torch\ntorch.load('weights', weights_only=False)",
        "import torch\ntorch.save({}, 'weights')",
        "import numpy as np\nnp.load('statistics', allow_pickle=True)",
        "eval('1')",
        "exec('pass')",
    ],
)
@pytest.mark.parametrize("package", OURS)
def test_a_way_to_bring_code_is_found(tmp_path: Path, package: str, code: str) -> None:
    _write(tmp_path, f"{package}/files.py", code)
    assert len(unsafe_code(tmp_path)) == 1


def test_what_only_looks_unsafe_is_let_through(tmp_path: Path) -> None:
    calls = ["torch.load('weights', weights_only=True)", "np.load('statistics', allow_pickle=False)"]
    code = "\n".join(["import re", "re.compile('a')", "model.eval()", *calls])
    _write(tmp_path, "train/files.py", code)
    assert unsafe_code(tmp_path) == []


def styled_consoles(root: Path) -> list[str]:
    """List the consoles on which a name in brackets would be taken for markup."""
    return [
        f"{path}:{node.lineno}"
        for path, tree in _sources(root, *OURS)
        if path != "edge/output/console.py"
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and _name(node.func).rpartition(".")[2] in {"Console", "get_console"}
    ]


def test_every_console_writes_names_as_they_are() -> None:
    assert styled_consoles(ROOT) == []


def test_a_console_that_reads_markup_is_found(tmp_path: Path) -> None:
    _write(tmp_path, "edge/cli/machine.py", "from rich.console import Console\nConsole().print('[x]')\n")
    _write(tmp_path, "train/console.py", "import rich\nrich.get_console()\n")
    assert [found.partition(":")[0] for found in styled_consoles(tmp_path)] == [
        "edge/cli/machine.py",
        "train/console.py",
    ]


def test_nothing_on_the_device_can_reach_a_network() -> None:
    assert network_imports(ROOT) == []


@pytest.mark.parametrize(
    "code", ["import socket", "from urllib.request import urlopen", "import http.client", "import requests"]
)
@pytest.mark.parametrize("package", ON_DEVICE)
def test_a_way_to_a_network_is_found(tmp_path: Path, package: str, code: str) -> None:
    _write(tmp_path, f"{package}/files.py", code)
    assert len(network_imports(tmp_path)) == 1


def test_only_the_server_and_the_publisher_may_use_the_network(tmp_path: Path) -> None:
    for path in ("edge/server/server.py", "edge/output/mqtt.py", "calibrate/server.py", "edge/deep/mqtt.py"):
        _write(tmp_path, path, "import asyncio")
    found = [line.partition(":")[0] for line in network_imports(tmp_path)]
    assert found == ["edge/deep/mqtt.py", "calibrate/server.py"]


def test_nothing_loads_a_user_of_the_network_before_it_is_asked_to() -> None:
    assert eager_network_users(ROOT) == []
    assert loaded_by_a_run(ROOT) == []


@pytest.mark.parametrize(
    "code",
    [
        "import edge.server.server",
        "from edge.output import mqtt",
        "from edge.server.server import serve",
        "try:\n    from edge.output.mqtt import Mqtt\nfinally:\n    pass",
        "class Command:\n    import edge.server.server",
    ],
)
def test_an_eager_user_of_the_network_is_found(tmp_path: Path, code: str) -> None:
    _write(
        tmp_path, "edge/cli/main.py", f"{code}\n\ndef serve():\n    from edge.server.server import serve\n"
    )
    assert len(eager_network_users(tmp_path)) == 1


def test_a_run_that_loads_a_user_of_the_network_is_found(tmp_path: Path) -> None:
    _write(tmp_path, "edge/__init__.py", "")
    _write(tmp_path, "edge/server/server.py", "")
    _write(tmp_path, "edge/cli/main.py", "def main():\n    import edge.server.server\n    print('demo')")
    assert loaded_by_a_run(tmp_path) == ["edge.server.server"]


def test_help_loads_nothing_slow() -> None:
    assert slow_imports_of_help(ROOT) == []


def test_a_slow_import_for_help_is_found(tmp_path: Path) -> None:
    _write(tmp_path, "edge/__init__.py", "")
    _write(tmp_path, "edge/cli/main.py", "def main():\n    import numpy\n    print('Usage: mmtl')")
    assert slow_imports_of_help(tmp_path) == ["numpy"]


@pytest.mark.parametrize("package", OURS)
def test_a_package_offers_what_it_lists(package: str) -> None:
    if package not in ON_DEVICE:
        pytest.importorskip("torch", reason=f"{package} needs torch")
    assert unlisted_names(package) == []


def test_a_package_whose_list_is_wrong_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = "__all__ = ['kept', 'lost']\n\ndef kept(): ...\n\ndef stray(): ...\n"
    _write(tmp_path, "wrongly_listed/__init__.py", code)
    monkeypatch.syspath_prepend(tmp_path)
    assert unlisted_names("wrongly_listed") == [
        "wrongly_listed has no lost",
        "wrongly_listed does not list stray",
    ]
