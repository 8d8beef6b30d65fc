"""Recognise recordings on a Dask cluster: python dask_cluster.py FOLDER TABLE.csv [SCHEDULER [BUNDLE]].

Without the address of a scheduler (tcp://HOST:8786), two processes on this machine are the cluster. What a
lost process was at is done again by another. Needs pip install 'dask[distributed]'.
"""

from __future__ import annotations

import csv
import functools
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from distributed import Client, LocalCluster, as_completed

from edge import UtteranceRow, recognize_file
from edge.reports.results import COLUMNS


def recognize_on(
    client: Client, paths: Sequence[str], bundle: str = "default"
) -> Iterator[tuple[str, list[UtteranceRow]]]:
    """Yield each path with its rows, in the order in which they are done."""
    futures = client.map(functools.partial(recognize_file, bundle=bundle), paths)
    path_of = dict(zip(futures, paths, strict=True))
    for future, rows in as_completed(futures, with_results=True):
        yield path_of[future], rows


def main(folder: str, table: str, scheduler: str = "", bundle: str = "default") -> None:
    """Write a row an utterance to a table."""
    paths = sorted(str(path) for path in Path(folder).rglob("*") if path.suffix in {".flac", ".mp3", ".wav"})
    cluster = scheduler or LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None)
    with Client(cluster) as client:
        found: dict[str, list[UtteranceRow]] = {}
        for path, rows in recognize_on(client, paths, bundle):
            found[path] = rows
            print(f"{len(found)} of {len(paths)}: {path}", flush=True)
    if isinstance(cluster, LocalCluster):
        cluster.close()
    with Path(table).open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        for path in paths:
            writer.writerows(row.cells() for row in found[path])


if __name__ == "__main__":
    main(*sys.argv[1:])
