"""The `mmtl` program: signal handling, error messages and exit codes.

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
    "prometheus_client": "metrics",
    "websockets": "serve",
    "pyarrow": "parquet",
    "segno": "web",
}
"""The extra that installs a package missing from the base installation."""

ENDLESS = ("monitor", "run", "serve")
"""Commands that run until a signal ends them; a signal stops any other before it is done."""


def main() -> None:
    """Run the command line and exit with the code of its error, 0 without one.

    Raises:
        SystemExit: the exit code is not 0.
    """
    signal.signal(signal.SIGINT, lambda number, frame: os._exit(0))
    from edge.system import signals, standard_streams

    standard_streams.make_robust()
    code = _run()
    signals.exit_on_signal(code)
    if code := code or _stdout_failure() or 0:
        raise SystemExit(code)


def _run() -> int:
    """Run the command; return its exit code, after one line on stderr if it failed."""
    try:
        return _explained()
    except KeyboardInterrupt as interrupt:
        return _stopped(interrupt)


def _explained() -> int:
    from edge.system import signals

    try:
        return _dispatch()
    except Exception as error:  # noqa: BLE001 - an unforeseen error is reported, too
        signals.wait_for_deferred()  # a deferred interrupt may have caused it
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
        if isinstance(error.__context__, BrokenPipeError):  # what rich does when `| head` has closed the pipe
            return 0
        raise


def _stopped(interrupt: KeyboardInterrupt) -> int:
    """Return the exit code after a signal; report a command that was stopped before it was done.

    Ctrl-C is the user's own request, so its code is 0. SIGTERM and SIGHUP may reach a script that would
    read 0 as success.
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
    """Flush stdout; return the exit code if that fails, after reporting why.

    A pipe whose reader has gone (`| head`) is not a failure: the program stops without a message.
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
    """Report which extra installs a missing package, or that an unexpected error occurred.

    Raises:
        Exception: the error itself, if MMTL_DEBUG is set.
    """
    missing = error.name if isinstance(error, ModuleNotFoundError) else None
    if missing in EXTRAS:
        needed = f"this command needs {missing}: pip install 'mmtl[{EXTRAS[missing]}]'"
        return _failed(needed, UsageError.exit_code)
    if os.environ.get("MMTL_DEBUG"):
        raise error
    said = f"unexpected: {type(error).__name__}: {error} (MMTL_DEBUG=1 shows the traceback)"
    return _failed(said, MmtlError.exit_code)


def _failed(message: str, exit_code: int) -> int:
    from edge.output.sinks import say

    say(message)
    return exit_code
