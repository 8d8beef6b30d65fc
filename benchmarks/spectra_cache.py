"""Start of a training run with and without `mmtl train --cache`: seconds and memory to read the clips.

    python benchmarks/spectra_cache.py [--data ../shared/data] [--only emodb]

The clips of the default split are read as by `mmtl train`, training clips at three speeds: without a cache,
with an empty one, and with a full one, in a process each. Memory of the process itself (anonymous) cannot be
freed by the system; mapped files can, and processes that map the same file share it.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from edge.features.frontend import FrontEnd
from train.augment import Augmentation
from train.corpora import four_emotions, read_corpus
from train.model import Architecture
from train.run import frames_for_first
from train.segments import read_spectra
from train.spectra_cache import SpectraCache
from train.splits import default_split


def main() -> None:
    """Measure in three processes, or in this one if `--cache` says how."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("MMTL_DATA", "../shared/data")))
    parser.add_argument("--only", default="emodb", help="corpus; all: every one")
    parser.add_argument("--cache", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if not (options.data / "manifest.csv").is_file():
        print(f"skipped: no recordings in {options.data}: set MMTL_DATA, or give --data FOLDER")
        return
    if options.cache is not None:
        measure(options.data, options.only, options.cache)
        return
    with tempfile.TemporaryDirectory() as folder:
        for name, cache in (("no cache", ""), ("empty cache", folder), ("full cache", folder)):
            print(f"{name:12}", end="", flush=True)
            arguments = ["--data", str(options.data), "--only", options.only, "--cache", cache]
            subprocess.run([sys.executable, __file__, *arguments], check=True)


def measure(data: Path, only: str, cache: str) -> None:
    """Read the clips, and print what it took."""
    clips = [clip for clip in four_emotions(read_corpus(data)) if only in ("all", clip.corpus)]
    split, read = default_split(clips), SpectraCache(Path(cache)) if cache else read_spectra
    shortest, speeds = frames_for_first(Architecture()), Augmentation().speeds
    before, began = memory_mb(), time.perf_counter()
    kept = read(split.train, FrontEnd(), shortest, speeds=speeds)
    kept += read(split.validation, FrontEnd(), shortest) + read(split.test, FrontEnd(), shortest)
    seconds, after = time.perf_counter() - began, memory_mb()
    own, mapped = (after[name] - before[name] for name in ("RssAnon", "RssFile"))
    size = sum(item.logs.nbytes for item in kept) / 1e6
    print(
        f"{seconds:7.1f} s, {own:6.0f} MB of its own, {mapped:6.0f} MB mapped; {len(clips)} clips, "
        f"spectra of {size:.0f} MB"
    )


def memory_mb() -> dict[str, float]:
    """Return the resident memory of this process by kind, as Linux counts it."""
    lines = Path("/proc/self/status").read_text("utf-8").splitlines()
    return {line.split(":")[0]: int(line.split()[1]) / 1e3 for line in lines if line.startswith("Rss")}


if __name__ == "__main__":
    main()
