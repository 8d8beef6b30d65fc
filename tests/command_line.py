"""Runs the command line in this process."""

from __future__ import annotations

import pytest

from edge.cli.main import main


def exit_code_of(*arguments: object) -> int:
    """Run `mmtl` with these arguments, and return its exit code."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["mmtl", *map(str, arguments)])
        try:
            main()
        except SystemExit as leaving:
            return int(leaving.code or 0)
    return 0
