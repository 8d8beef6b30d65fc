"""The `mmtl` program, from its first moment to its exit code.

Nothing slow is imported at the top, so that Ctrl-C is handled before the rest is loaded.
"""

from __future__ import annotations

import os
import signal
import sys

from edge.errors import MmtlError, UsageError

EXTRAS = {
    "torch": "train",
    "torchaudio": "train",
    "sklearn": "train",
    "matplotlib": "pictures",
    "onnx": "export",
    "paho": "mqtt",
    "websockets": "serve",
}
"""Which extra brings a package that the base installation lacks."""

ENDLESS = ("monitor", "run", "serve")
"""Commands that go on until a signal ends them; any other has not done what it was asked for by then."""


def main() -> None:
    """Run the command line and leave with the design's exit code.

    Raises:
        SystemExit: with any code but 0.
    """
    signal.signal(signal.SIGINT, lambda number, frame: os._exit(0))
    from edge.system import signals, standard_streams

    standard_streams.make_robust()
    code = _run()
    signals.exit_on_signal(code)
    if code := code or _stdout_failure() or 0:
        raise SystemExit(code)


def _run() -> int:
    """Run the command; return its exit code, after one line that says why it failed."""
    try:
        return _explained()
    except KeyboardInterrupt as interrupt:
        return _stopped(interrupt)


def _explained() -> int:
    from edge.system import signals

    try:
        return _dispatch()
    except Exception as error:  # noqa: BLE001 - the last resort, which says so
        signals.wait_for_deferred()  # perhaps it failed for that reason
        return _failure(error)


def _failure(error: Exception) -> int:
    if isinstance(error, MmtlError):
        return _failed(str(error), error.exit_code)
    code = _stdout_failure() if isinstance(error, OSError) else None
    return _failed_unexpectedly(error) if code is None else code


def _dispatch() -> int:
    import warnings

    from edge.cli.commands import dispatch
    from edge.output.sinks import ReaderGone, show_warning
    from edge.system import signals

    warnings.showwarning = show_warning
    signals.hide_dropped_interrupts()
    try:
        signals.set_handlers(signals.interrupt_handler())
        return dispatch(sys.argv[1:])
    except ReaderGone:
        return 0
    except SystemExit as error:
        if isinstance(error.__context__, BrokenPipeError):  # rich ends so when `| head` has enough
            return 0
        raise


def _stopped(interrupt: KeyboardInterrupt) -> int:
    """Return the exit code after a signal, having said if a command has not done what it was asked for.

    Ctrl-C is the user's own wish, so its code is 0; SIGTERM and SIGHUP may reach a script that would
    take 0 for success.
    """
    from edge.system import signals

    signals.mark_caught(interrupt)
    command = sys.argv[1] if len(sys.argv) > 1 else "--help"
    done = command in ENDLESS or command.startswith("-")
    wished = getattr(interrupt, "number", signal.SIGINT) == signal.SIGINT
    code = 0 if done or wished else MmtlError.exit_code
    signals.exit_on_signal(code)
    return code if done else _failed(str(interrupt) or "stopped before it was done", code)


def _stdout_failure() -> int | None:
    """Write what stdout still holds; return the exit code if that fails, after saying why.

    A pipe whose reader has gone (`| head`) is no failure: like other programs, this one stops in silence.
    """
    from edge.output.sinks import unwritable
    from edge.system.standard_streams import silence

    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError as error:
        silence(sys.stdout)
        failure = unwritable("stdout", error)
        return 0 if isinstance(error, BrokenPipeError) else _failed(str(failure), failure.exit_code)
    return None


def _failed_unexpectedly(error: Exception) -> int:
    """Say which extra brings a missing package, or else that something unforeseen happened.

    Raises:
        Exception: the error itself, for who asked to see where it comes from.
    """
    missing = error.name if isinstance(error, ModuleNotFoundError) else None
    if missing in EXTRAS:
        needed = f"this command needs {missing}: pip install 'mmtl[{EXTRAS[missing]}]'"
        return _failed(needed, UsageError.exit_code)
    if os.environ.get("MMTL_DEBUG"):
        raise error
    said = f"unexpected: {type(error).__name__}: {error} (MMTL_DEBUG=1 shows where)"
    return _failed(said, MmtlError.exit_code)


def _failed(message: str, exit_code: int) -> int:
    from edge.output.sinks import say

    say(message)
    return exit_code
