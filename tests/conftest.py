"""What no test may take from where it was started."""

from __future__ import annotations

import signal


def pytest_configure() -> None:
    """Take Ctrl-C: a shell's background job starts with it ignored, and so would what the tests start."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
