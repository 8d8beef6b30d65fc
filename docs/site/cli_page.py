"""Adds the page `cli.md` to the documentation site: the help of every command, as typer prints it."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Final

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

COMMANDS: Final = (
    *("monitor", "run", "devices", "serve", "convert", "verify", "benchmark", "doctor", "build-engine"),
    *("profile list", "profile show", "profile delete", "profile export", "profile import"),
    *("calibrate", "train", "evaluate", "export"),
)
WIDTH: Final = "80"
"""Columns of the help texts."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Append the generated page; mkdocs calls this before it builds."""
    parts = ["# Options of every command\n"]
    parts += [f"## mmtl {command}\n\n```text\n{_help(command)}\n```\n" for command in COMMANDS]
    files.append(File.generated(config, "cli.md", content="\n".join(parts)))
    return files


def _help(command: str) -> str:
    program = [sys.executable, "-c", "from edge.cli.main import main; main()", *command.split(), "--help"]
    environment = {**os.environ, "COLUMNS": WIDTH, "TERM": "dumb", "NO_COLOR": "1"}
    done = subprocess.run(program, env=environment, capture_output=True, text=True, check=True)
    return "\n".join(line.rstrip() for line in done.stdout.strip().splitlines())
