"""What no test may take from where and when it is run."""

from __future__ import annotations

import signal

from hypothesis import HealthCheck, settings

import edge  # noqa: F401 - before ONNX Runtime, whose telemetry it turns off

# The same examples in each run, and no clock: a busy machine is no failure.
# pytest --hypothesis-profile=default draws others.
settings.register_profile(
    "steady", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("steady")


def pytest_configure() -> None:
    """Take Ctrl-C: a shell's background job starts with it ignored, and so would what the tests start."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
