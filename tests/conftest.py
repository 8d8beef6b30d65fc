"""What no test may take from where and when it is run."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings

import edge  # noqa: F401 - before ONNX Runtime, whose telemetry it turns off
from tests.edge.audio.pulse import VirtualMicrophone, virtual_microphone
from tests.system_packages import packages_for

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# The same examples in each run, and no clock: a busy machine is no failure.
# pytest --hypothesis-profile=default draws others.
settings.register_profile(
    "steady", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("steady")


def pytest_configure() -> None:
    """Take Ctrl-C and SIGHUP: background jobs and nohup ignore them, and so would what the tests start."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_unconfigure(config: pytest.Config) -> None:
    """End with the system packages that would enable skipped tests."""
    terminal = config.pluginmanager.get_plugin("terminalreporter")
    if terminal is None:
        return
    skipped = [report.longrepr[2] for report in terminal.stats.get("skipped", ())]
    if packages := packages_for(skipped):
        count = sum(bool(packages_for([reason])) for reason in skipped)
        terminal.write_line(f"{count} of the skipped tests would run with: apt install {' '.join(packages)}")


@pytest.hookimpl(hookwrapper=True)
def pytest_fixture_setup() -> Iterator[None]:
    """Give the signals back after a fixture; see `_signals_as_before`."""
    with _signals_as_before():
        yield


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_call() -> Iterator[None]:
    """Give the signals back after a test; see `_signals_as_before`."""
    with _signals_as_before():
        yield


@contextlib.contextmanager
def _signals_as_before() -> Iterator[None]:
    """Restore the handlers after a command that ran in this process, which keeps them to its end."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.getsignal(number) for number in numbers]
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


@pytest.fixture(scope="module")
def pulse() -> Iterator[VirtualMicrophone]:
    """A PulseAudio null sink in the place of a microphone."""
    with virtual_microphone() as microphone:
        yield microphone


@pytest.fixture
def saved(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Collect the matplotlib figures that are saved, to inspect them."""
    from matplotlib.figure import Figure

    figures: list[Figure] = []
    save = Figure.savefig

    def collect(figure: Figure, *args: Any, **options: Any) -> None:
        figures.append(figure)
        save(figure, *args, **options)

    monkeypatch.setattr(Figure, "savefig", collect)
    return figures
