"""A real `mmtl serve` process for the benchmarks of the server."""

from __future__ import annotations

import contextlib
import itertools
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def serving(*arguments: str, listeners: int = 1) -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
    """Run `mmtl serve`, and stop it at the end.

    Args:
        arguments: of the command.
        listeners: number of ports that it listens on.

    Yields:
        The process, and its ports in the order in which it names them.
    """
    command = [sys.executable, "-c", "from edge.cli.main import main; main()", "serve", *arguments]
    root = Path(__file__).parents[1]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=root) as process:
        assert process.stderr
        try:
            said = (line for line in process.stderr if "listening for" in line)
            ports = [int(line.rpartition(":")[2]) for line in itertools.islice(said, listeners)]
            threading.Thread(target=process.stderr.read).start()  # a full pipe would stop the server
            yield process, ports
        finally:
            process.terminate()
