"""The Jetson package: one archive with the program, a model, and the script that installs both.

The same checkout and model give the same bytes: files are sorted and have one time and one owner.
"""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import io
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Final

from edge.errors import MmtlError, UsageError
from edge.model.bundle import Bundle
from edge.model.manifest import MANIFEST
from edge.system.files import atomic_write
from edge.system.outputs import require_free

SUFFIX: Final = ".tar.gz"
TOP: Final = "mmtl-jetson"
"""Folder that the archive unpacks to."""
SUMS: Final = "SHA256SUMS"
"""Checksums of every other file; install.sh checks them first."""
CONSTRAINTS: Final = "constraints.txt"
"""Versions that CI uses and the device installs."""
DEVICE_FILES: Final = Path(__file__).resolve().parent / "device_files"
"""Further files of the archive: installer, service, instructions."""
WRITTEN_S: Final = 1_580_601_600
"""Time of every file, in seconds since 1970, as hatchling sets it in a wheel."""
GUIDE: Final = "jetson.md"
"""Instructions for the owner of a Jetson."""

Files = dict[str, bytes]
"""Contents by path below `TOP`."""


def write_package(bundle: Bundle, out: Path, *, replace: bool = False) -> Path:
    """Write the archive that an owner of a Jetson copies, unpacks and installs.

    Args:
        bundle: the model; the files of its manifest are packed, engines built for this machine are not.
        out: the archive; ".tar.gz" is added where it is missing.
        replace: whether an archive that is there already may go.

    Returns:
        Where it was written.

    Raises:
        UsageError: the archive is in the way, or this mmtl was not installed from a checkout.
        MmtlError: the wheel cannot be built.
    """
    archive = writable_archive(out, replace=replace)
    files = contents(bundle, checkout())
    with atomic_write(archive) as partial:
        partial.write_bytes(packed(files))
    return archive


def contents(bundle: Bundle, source: Path) -> Files:
    """Collect what goes into the archive, its list of checksums included."""
    name, wheel = build_wheel(source)
    files = {
        **{path.name: path.read_bytes() for path in DEVICE_FILES.iterdir()},
        **{
            f"bundle/{path}": (bundle.folder / path).read_bytes()
            for path in (MANIFEST, *bundle.manifest.files)
        },
        f"wheel/{name}": wheel,
        CONSTRAINTS: (source / CONSTRAINTS).read_bytes(),
        GUIDE: (source / "docs" / GUIDE).read_bytes(),
    }
    return files | {SUMS: checksums(files)}


def checksums(files: Files) -> bytes:
    """List the SHA-256 of each file as `sha256sum --check` reads it."""
    lines = (f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in sorted(files.items()))
    return "".join(lines).encode()


def packed(files: Files) -> bytes:
    """Pack files so that the same contents give the same bytes. Files that begin with "#!" are executable."""
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, data in sorted(files.items()):
            entry = tarfile.TarInfo(f"{TOP}/{name}")
            entry.size, entry.mtime = len(data), WRITTEN_S
            entry.mode = 0o755 if data.startswith(b"#!") else 0o644
            archive.addfile(entry, io.BytesIO(data))
    return gzip.compress(plain.getvalue(), mtime=0)


def checkout() -> Path:
    """Return the folder that this program runs from, if its wheel can be built there.

    Raises:
        UsageError: this is an installed copy, without what a wheel is built from.
    """
    folder = Path(__file__).resolve().parents[1]
    if not all((folder / name).is_file() for name in ("pyproject.toml", CONSTRAINTS)):
        raise UsageError(
            "the Jetson package holds mmtl's own wheel, which cannot be built from the installed copy in "
            f"{folder}",
            remedy="export from a checkout (pip install -e '.[export]' in it)",
        )
    return folder


def build_wheel(source: Path) -> tuple[str, bytes]:
    """Build the wheel of a checkout, without a network, and return its name and contents.

    Raises:
        UsageError: hatchling is missing.
        MmtlError: the build failed.
    """
    if importlib.util.find_spec("hatchling") is None:
        raise UsageError("building the wheel needs hatchling", remedy="pip install 'mmtl[export]'")
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder]
        built = subprocess.run(command, cwd=source, capture_output=True, text=True, check=False)
        wheels = list(Path(folder).glob("*.whl"))
        if built.returncode or len(wheels) != 1:
            last = (built.stderr.strip() or "no reason given").splitlines()[-1]
            raise MmtlError(
                f"the wheel of {source} could not be built ({last})", remedy="repair the checkout"
            )
        return wheels[0].name, wheels[0].read_bytes()


def writable_archive(out: Path, *, replace: bool) -> Path:
    """Return the path of the archive, which may be written.

    Raises:
        UsageError: one is there that may not go.
    """
    archive = out if out.name.endswith(SUFFIX) else out.with_name(out.name + SUFFIX)
    require_free(archive, replace=replace)
    return archive
