"""The Jetson package: what the archive holds, and what its installer does to a clean root folder.

No Jetson is here, and no network: JetPack's packages are a stand-in (a release file, a `dpkg-query`, a
`tensorrt` folder), and the packages that mmtl needs come from this environment. The rest is real: the wheel,
`python -m venv`, pip, bash.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from edge.errors import MmtlError, UsageError
from edge.model.bundle import Bundle, load_bundle
from edge.model.engine_files import engine_graph
from edge.model.manifest import MANIFEST, required_files, write_manifest
from export import jetson
from export.jetson import SUMS, TOP, packed, write_package
from tests.cnn_lstm import CNN_LSTM

ROOT = Path(__file__).parents[2]
DEVICE_FILES = ROOT / "export" / "device_files"
SCRIPTS = [DEVICE_FILES / name for name in ("install.sh", "mmtl-service")]

RELEASE = (
    "# R36 (release), REVISION: 4.4, GCID: 41062509, BOARD: generic, EABI: aarch64, DATE: Mon Jun 16 2025\n"
)

DPKG_QUERY = """#!/bin/sh
for package; do :; done
case $package in
  nvidia-jetpack) printf 6.2.1+b38 ;;
  nvidia-l4t-core) printf 36.4.4-20250616085344 ;;
  *) exit 1 ;;
esac
"""

PYTHON = Path(sys.base_prefix) / "bin" / f"python{sys.version_info[0]}.{sys.version_info[1]}"
"""Stands for the system's."""


@dataclass(frozen=True)
class Outcome:
    """What a command left."""

    code: int
    out: str
    err: str


def run(command: Sequence[str | Path], environment: Mapping[str, str] | None = None) -> Outcome:
    done = subprocess.run(
        [str(part) for part in command],
        cwd="/",  # not the checkout, whose packages Python would find first
        env={**os.environ, **(environment or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    return Outcome(done.returncode, done.stdout, done.stderr)


def write(path: Path, text: str, mode: int = 0o644) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
    return path


def needed(name: str, *extras: str) -> set[str]:
    """Name the distributions that an installation of this one brings, itself aside."""
    found: set[str] = set()
    for wanted in map(Requirement, metadata.requires(name) or []):
        if wanted.marker is None or any(wanted.marker.evaluate({"extra": extra}) for extra in ("", *extras)):
            found |= {wanted.name, *needed(wanted.name, *wanted.extras)}
    return found


class Device:
    """A clean root folder, with what Debian and JetPack would have put there."""

    def __init__(self, root: Path, package: Path) -> None:
        self.root = root
        self.package = package
        self.home = root / "opt" / "mmtl"
        self.packages = root / "usr" / "lib" / "python3" / "dist-packages"
        self.packages.mkdir(parents=True)
        self.pip_log = root / "pip.log"
        self.environment = {
            "PATH": f"{root / 'bin'}:{os.environ['PATH']}",
            "PYTHONPATH": str(self.packages),
            "PIP_LOG": str(self.pip_log),
            "PIP_NO_INDEX": "1",
            "PIP_CONFIG_FILE": os.devnull,
            "HOME": str(root / "home"),
        }

    def bring(self, names: set[str]) -> None:
        """Install distributions as the system's packages: links to those of this environment."""
        for distribution in map(metadata.distribution, names):
            tops = {path.parts[0] for path in distribution.files or []} - {"..", "__pycache__"}
            for top in tops:
                (self.packages / top).symlink_to(Path(str(distribution.locate_file(top))))

    def become_a_jetson(self) -> None:
        write(self.root / "etc" / "nv_tegra_release", RELEASE)
        write(self.root / "bin" / "dpkg-query", DPKG_QUERY, 0o755)
        self.bring_tensorrt(self.packages)

    def bring_tensorrt(self, packages: Path) -> None:
        write(packages / "tensorrt" / "__init__.py", '__version__ = "10.3.0"\n')

    def install(self, *options: str) -> Outcome:
        script = self.package / "install.sh"
        return run([script, "--root", self.root, "--python", PYTHON, *options], self.environment)

    def mmtl(self, *arguments: str) -> Outcome:
        return run([self.root / "usr" / "local" / "bin" / "mmtl", *arguments], self.environment)

    def python(self, code: str) -> str:
        return run([self.home / "venv" / "bin" / "python", "-c", code], self.environment).out.strip()

    def files(self) -> set[str]:
        """List what was put into the root since it was made, with the system's packages aside."""
        ours = (path for path in self.root.rglob("*") if not path.is_relative_to(self.root / "usr" / "lib"))
        return {str(path.relative_to(self.root)) for path in ours if path.is_file() or path.is_symlink()}


def unpacked(archive: Path, folder: Path) -> Path:
    with tarfile.open(archive) as opened:
        opened.extractall(folder, filter="data")
    return folder / TOP


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return load_bundle(CNN_LSTM)


def no_wheel(source: Path) -> tuple[str, bytes]:
    """Stand for the wheel's build where it does not matter."""
    return "mmtl-0-py3-none-any.whl", b"a wheel"


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jetson, "build_wheel", no_wheel)


@pytest.fixture(scope="module")
def archive(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jetson, "build_wheel", no_wheel)
        return write_package(bundle, tmp_path_factory.mktemp("archive") / "package")


@pytest.fixture(scope="module")
def package(archive: Path) -> Path:
    """The package as an owner unpacks it, with a wheel that cannot be installed."""
    return unpacked(archive, archive.parent)


@pytest.fixture
def device(package: Path, tmp_path: Path) -> Device:
    return Device(tmp_path / "root", package)


@pytest.fixture(scope="module")
def real_package(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("package")
    return unpacked(write_package(bundle, folder / "package.tar.gz"), folder)


@pytest.fixture(scope="module")
def jetson_root(real_package: Path, tmp_path_factory: pytest.TempPathFactory) -> Device:
    """A stand-in for a Jetson, with the Python packages that the program needs."""
    device = Device(tmp_path_factory.mktemp("jetson"), real_package)
    device.bring(needed("mmtl", "mqtt"))
    device.become_a_jetson()
    return device


@pytest.fixture
def installed(jetson_root: Device) -> Device:
    """The same after install.sh has run; run again where a test uninstalled the program."""
    if not (jetson_root.root / "usr/local/bin/mmtl").exists():
        outcome = jetson_root.install()
        assert outcome.code == 0, outcome
    return jetson_root


# The archive


@pytest.mark.usefixtures("quick")
def test_the_same_model_gives_the_same_bytes(archive: Path, bundle: Bundle, tmp_path: Path) -> None:
    assert write_package(bundle, tmp_path / "again.tar.gz").read_bytes() == archive.read_bytes()


def test_files_have_neither_time_nor_owner_of_this_machine(archive: Path) -> None:
    with tarfile.open(archive) as opened:
        entries = opened.getmembers()
    assert {(entry.uid, entry.gid, entry.uname, entry.gname) for entry in entries} == {(0, 0, "", "")}
    assert {entry.mtime for entry in entries} == {jetson.WRITTEN_S}
    assert [entry.name for entry in entries] == sorted(entry.name for entry in entries)


def test_only_scripts_can_be_executed(package: Path) -> None:
    executable = {path.name for path in package.rglob("*") if path.is_file() and os.access(path, os.X_OK)}
    assert executable == {script.name for script in SCRIPTS}


def test_the_sums_name_every_other_file(package: Path) -> None:
    lines = (package / SUMS).read_text().splitlines()
    listed = {name: told for told, name in (line.split("  ", 1) for line in lines)}
    files = {str(path.relative_to(package)) for path in package.rglob("*") if path.is_file()}
    assert listed.keys() == files - {SUMS}
    assert all(
        hashlib.sha256((package / name).read_bytes()).hexdigest() == sum_ for name, sum_ in listed.items()
    )


def test_the_model_goes_along_whole_with_the_graphs_for_engines(
    quick: None, bundle_copy: Bundle, tmp_path: Path
) -> None:
    graph = engine_graph("lstm", "fp16")
    write(bundle_copy.folder / graph, ":\0")  # as ONNX: an empty graph
    write(bundle_copy.folder / "engine" / "window.plan", "an engine of this machine")
    write_manifest(bundle_copy.folder, replace(bundle_copy.manifest, files={graph: ""}))
    bundle = load_bundle(bundle_copy.folder)
    folder = unpacked(write_package(bundle, tmp_path / "package"), tmp_path) / "bundle"
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert files == {MANIFEST, *required_files("incremental"), graph}
    assert load_bundle(folder).fingerprint == bundle.fingerprint


@pytest.fixture
def bundle_copy(tmp_path: Path) -> Bundle:
    return load_bundle(Path(shutil.copytree(CNN_LSTM, tmp_path / "model")))


@pytest.mark.usefixtures("quick")
def test_a_package_that_is_there_is_kept_unless_asked(bundle: Bundle, tmp_path: Path) -> None:
    archive = write(tmp_path / "package.tar.gz", "precious")
    with pytest.raises(UsageError, match="give --replace"):
        write_package(bundle, tmp_path / "package")
    assert archive.read_text() == "precious"
    assert write_package(bundle, tmp_path / "package", replace=True) == archive
    assert tarfile.is_tarfile(archive)


def test_an_installed_copy_says_to_use_a_checkout(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jetson, "__file__", str(tmp_path / "site-packages" / "export" / "jetson.py"))
    with pytest.raises(UsageError, match=r"site-packages: export from a checkout"):
        write_package(bundle, tmp_path / "package")
    assert list(tmp_path.iterdir()) == []


def test_a_checkout_that_does_not_build_is_one_line(tmp_path: Path) -> None:
    write(tmp_path / "pyproject.toml", "[project]\nname = 'mmtl'\n")
    with pytest.raises(MmtlError, match="could not be built") as caught:
        jetson.build_wheel(tmp_path)
    assert "\n" not in str(caught.value)


def test_without_hatchling_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install 'mmtl\[export\]'"):
        jetson.build_wheel(tmp_path)


def test_packing_marks_scripts_by_their_first_line(tmp_path: Path) -> None:
    (tmp_path / "some.tar.gz").write_bytes(packed({"b/run": b"#!/bin/sh\n", "a": b"text"}))
    with tarfile.open(tmp_path / "some.tar.gz") as archive:
        modes = {entry.name: entry.mode for entry in archive.getmembers()}
    assert modes == {f"{TOP}/a": 0o644, f"{TOP}/b/run": 0o755}


# The scripts


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: str(script.name))
def test_shellcheck_has_nothing_to_say(script: Path) -> None:
    shellcheck = shutil.which("shellcheck", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if shellcheck is None:
        pytest.skip("shellcheck is not installed (pip install -e '.[dev]')")
    assert run([shellcheck, script]) == Outcome(0, "", "")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--preffix"], "there is no option --preffix"),
        (["--prefix"], "--prefix needs a path"),
        (["--prefix", "opt"], "--prefix needs a path that begins with /, not 'opt'"),
        (["--prefix", "/"], "--prefix cannot be '/'"),
        (["--prefix", "/opt/../etc"], "--prefix cannot be"),
        (["--prefix", "/opt/my mmtl"], "letters, digits"),
        (["--wheels", "/nowhere"], "--wheels needs a folder, and '/nowhere' is not one"),
        (["--purge"], "--purge goes with --uninstall"),
        (["--uninstall"], "is not installed in"),
    ],
)
def test_a_wrong_option_is_one_line_and_changes_nothing(
    device: Device, options: list[str], said: str
) -> None:
    before = device.files()
    outcome = device.install(*options)
    assert outcome.code == 1
    assert outcome.err.startswith("install.sh: ")
    assert outcome.err.count("\n") == 1
    assert said in outcome.err
    assert device.files() == before


def test_the_help_names_every_option() -> None:
    told = run([SCRIPTS[0], "--help"])
    accepted = [
        line.split(")")[0].strip() for line in SCRIPTS[0].read_text().splitlines() if "      --" in line[:8]
    ]
    assert told.code == 0
    assert accepted
    assert all(option in told.out for option in accepted)


@pytest.mark.parametrize("damage", ["change", "remove"])
def test_a_damaged_package_is_refused_before_anything_is_done(
    device: Device, tmp_path: Path, damage: str
) -> None:
    device.package = Path(shutil.copytree(device.package, tmp_path / "copied"))
    head = device.package / "bundle" / "head.safetensors"
    if damage == "change":
        head.write_bytes(head.read_bytes()[:-1] + b"!")
    else:
        head.unlink()
    outcome = device.install()
    assert outcome.code == 1
    assert "missing or damaged: unpack the archive again" in outcome.err
    assert "head.safetensors" in outcome.err
    assert not device.home.exists()


def test_a_folder_with_other_things_is_not_filled(device: Device) -> None:
    write(device.home / "thesis.txt", "unrelated")
    outcome = device.install()
    assert outcome.code == 1
    assert outcome.err.endswith("name an empty or a new folder with --prefix\n")
    assert {path.name for path in device.home.iterdir()} == {"thesis.txt"}


def test_a_jetson_is_recognised_with_its_tensorrt(device: Device) -> None:
    device.become_a_jetson()
    outcome = device.install("--look")
    assert outcome.code == 0
    assert "a Jetson with Jetson Linux 36.4.4, JetPack 6.2.1+b38\n" in outcome.out
    assert f"tensorrt: 10.3.0 ({device.packages}/tensorrt/__init__.py)\n" in outcome.out
    assert "not JetPack's" not in outcome.err


def test_a_jetson_whose_release_file_reads_otherwise_is_still_one(device: Device) -> None:
    device.become_a_jetson()
    write(device.root / "etc" / "nv_tegra_release", "something new\n")
    assert "Jetson Linux 36.4.4," in device.install("--look").out


def test_any_other_machine_is_said_to_be_none(device: Device) -> None:
    outcome = device.install("--look")
    assert outcome.code == 0
    assert "not a Jetson: mmtl will use the CPU" in outcome.out
    assert "tensorrt: none" in outcome.out


def test_a_tensorrt_of_pip_on_a_jetson_is_warned_of(device: Device, tmp_path: Path) -> None:
    device.become_a_jetson()
    device.bring_tensorrt(tmp_path / "local")
    device.environment["PYTHONPATH"] = f"{tmp_path / 'local'}:{device.packages}"
    assert "that is not JetPack's TensorRT" in device.install("--look").err


def test_a_python_that_is_too_old_is_refused(device: Device, tmp_path: Path) -> None:
    old = write(tmp_path / "python3.8", "#!/bin/sh\nexit 1\n", 0o755)
    outcome = device.install("--python", str(old))
    assert outcome.code == 1
    assert "is not Python 3.10 or newer, which mmtl needs: JetPack 6 and 7 bring it" in outcome.err
    assert not device.home.exists()


# The service


@pytest.fixture
def service(tmp_path: Path) -> Path:
    """mmtl-service beside an mmtl that prints its arguments, one a line."""
    write(tmp_path / "venv" / "bin" / "mmtl", "#!/bin/sh\nprintf '%s\\n' \"$@\"\n", 0o755)
    return Path(shutil.copy(SCRIPTS[1], tmp_path))


def test_settings_become_options(service: Path) -> None:
    settings = {
        "MMTL_BUNDLE": "/opt/mmtl/bundle",
        "MMTL_SOURCE": "mic:USB PnP",
        "MMTL_PROVIDER": "tensorrt",
        "MMTL_PROFILE": "anna",
        "MMTL_JSONL": "/var/lib/mmtl/%Y.jsonl",
        "MMTL_MQTT": "localhost/mmtl",
        "MMTL_MQTT_NAMES": "yes",
        "MMTL_MQTT_DISCOVERY": "yes",
    }
    words = run([service, "listen"], settings).out.splitlines()
    assert words[:6] == ["run", "mic:USB PnP", "--bundle", "/opt/mmtl/bundle", "--provider", "tensorrt"]
    words.remove("--append")
    words.remove("--mqtt-names")
    words.remove("--mqtt-discovery")
    options = dict(zip(words[6::2], words[7::2], strict=True))
    assert re.fullmatch(r"/var/lib/mmtl/20\d\d\.jsonl", options.pop("--jsonl"))
    assert options == {"--profile": "anna", "--mqtt": "localhost/mmtl"}


def test_without_settings_it_hears_the_default_microphone_on_the_best_provider(service: Path) -> None:
    words = run([service, "listen"], {"MMTL_BUNDLE": "b"}).out.split()
    assert words == ["run", "mic", "--bundle", "b", "--provider", "auto"]


@pytest.mark.parametrize(
    ("provider", "built"), [("auto", True), ("tensorrt", True), ("cpu", False), ("cuda", False)]
)
def test_an_engine_is_built_only_for_who_may_use_it(service: Path, provider: str, built: bool) -> None:
    outcome = run([service, "prepare"], {"MMTL_BUNDLE": "b", "MMTL_PROVIDER": provider})
    assert outcome == Outcome(0, "build-engine\nb\n" if built else "", "")


def test_the_power_mode_is_logged_where_there_is_one(service: Path, tmp_path: Path) -> None:
    write(tmp_path / "bin" / "nvpmodel", "#!/bin/sh\nprintf 'NV Power Mode: 15W\\n0\\n'\n", 0o755)
    path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
    outcome = run([service, "listen"], {"MMTL_BUNDLE": "b", "PATH": path})
    assert outcome.out.splitlines()[:2] == ["power mode: 15W", "run"]


def test_the_settings_file_explains_every_setting_and_no_other() -> None:
    explained = set(re.findall(r"^#?(MMTL_\w+)=", (DEVICE_FILES / "mmtl.env").read_text(), re.MULTILINE))
    read = set(re.findall(r"MMTL_\w+", SCRIPTS[1].read_text()))
    assert explained == read - {"MMTL_BUNDLE"}  # which mmtl.service sets


# The installation


@pytest.mark.slow
def test_the_command_and_the_service_hear_the_demo(installed: Device) -> None:
    outcome = installed.mmtl("run", "demo", "--jsonl", "-", "--provider", "cpu")
    events = [json.loads(line) for line in outcome.out.splitlines()]
    assert (outcome.code, outcome.err) == (0, "")
    assert events[-1]["windows"] > 0
    served = run(
        [installed.home / "mmtl-service", "listen"],
        {
            **installed.environment,
            "MMTL_BUNDLE": str(installed.home / "bundle"),
            "MMTL_PROVIDER": "cpu",
            "MMTL_SOURCE": "demo",
        },
    )
    assert (served.code, served.err) == (0, "")
    assert served.out.startswith("listening to demo: cnn-lstm")


@pytest.mark.slow
def test_what_runs_is_the_whole_wheel_beside_the_systems_packages(installed: Device) -> None:
    assert Path(installed.python("import edge; print(edge.__file__)")).is_relative_to(installed.home / "venv")
    assert installed.python("import tensorrt; print(tensorrt.__version__)") == "10.3.0"
    assert "include-system-site-packages = true" in (installed.home / "venv" / "pyvenv.cfg").read_text()
    (brought,) = (installed.home / "venv").glob("lib/python*/site-packages/export/device_files")
    assert {path.name for path in brought.iterdir()} == {path.name for path in DEVICE_FILES.iterdir()}
    assert installed.python("import importlib.util as u; print(u.find_spec('torch'))") == "None"


@pytest.mark.slow
def test_pip_is_never_asked_for_tensorrt(installed: Device) -> None:
    asked = installed.pip_log.read_text().lower()
    assert "onnxruntime" in asked
    assert "tensorrt" not in asked


@pytest.mark.slow
def test_systemd_accepts_the_unit(installed: Device) -> None:
    if shutil.which("systemd-analyze") is None or not Path("/lib/systemd/system").is_dir():
        pytest.skip("systemd is not installed")
    units = installed.root / "usr" / "lib" / "systemd" / "system"
    units.mkdir(parents=True)
    for target in Path("/lib/systemd/system").glob("*.target"):
        shutil.copy(target, units)
    verified = run(["systemd-analyze", "verify", "--man=no", f"--root={installed.root}", "mmtl.service"])
    assert verified == Outcome(0, "", "")


@pytest.mark.slow
def test_an_update_repairs_the_program_and_keeps_state_and_settings(installed: Device) -> None:
    (cli,) = (installed.home / "venv").glob("lib/python*/site-packages/edge/cli/main.py")
    write(cli, "raise SystemExit('broken')\n")
    write(installed.home / "bundle" / MANIFEST, "{}")
    settings = write(installed.root / "etc" / "mmtl" / "mmtl.env", "MMTL_SOURCE=mic:room\n")
    profile = write(installed.root / "var" / "lib" / "mmtl" / "profiles" / "anna.safetensors", "anna")
    before = installed.files()
    write(installed.root / "usr" / "local" / "cuda" / "bin" / "nvcc", "#!/bin/sh\n", 0o755)
    older = "mmtl-0.0.1-py3-none-any.whl"  # the new package was unpacked over the one before
    write(installed.package / "wheel" / older, "no wheel")
    outcome = installed.install("--with-pycuda")
    assert outcome.code == 0, outcome
    assert f"kept {settings}" in outcome.out
    assert "warning: pycuda did not build, so mmtl will use the CPU" in outcome.err
    assert "pycuda" in (installed.home / "pycuda.log").read_text()
    assert (settings.read_text(), profile.read_text()) == ("MMTL_SOURCE=mic:room\n", "anna")
    assert installed.files() - before == {"opt/mmtl/pycuda.log", "usr/local/cuda/bin/nvcc"}
    assert installed.mmtl("run", "demo").code == 0


@pytest.mark.slow
def test_it_goes_as_it_came_and_profiles_only_when_told(installed: Device) -> None:
    write(installed.home / "note.txt", "not ours")
    kept = write(installed.root / "var" / "lib" / "mmtl" / "profiles" / "anna.safetensors", "anna")
    copy = installed.home / "install.sh"
    assert run([copy, "--root", installed.root, "--uninstall"], installed.environment).code == 0
    assert kept.is_file()
    assert [path.name for path in installed.home.iterdir()] == ["note.txt"]
    left = {path for path in installed.files() if "mmtl" in path}
    assert left == {"opt/mmtl/note.txt", "etc/mmtl/mmtl.env", "var/lib/mmtl/profiles/anna.safetensors"}
    assert installed.install("--uninstall", "--purge").code == 0
    assert {path for path in installed.files() if "mmtl" in path} == {"opt/mmtl/note.txt"}
    (installed.home / "note.txt").unlink()  # the next test may install again
