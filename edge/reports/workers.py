"""Processes that recognise recordings side by side, one thread each.

A process gets one recording at a time through a pipe, and sends its result back as JSON. One that is killed
(by the system when memory runs out, or by a fault in a decoder) is replaced, and its recording tried again.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import signal
import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from typing import Any, Final

from edge.reports.file_recognition import RecognitionJob, recognized
from edge.reports.results import FileResult

POLL_S: Final = 0.2
"""Longest time until a request to stop is noticed."""
SHARE_S: Final = 0.5
"""Time between two notes of a process on how far it is."""
MOST_DEATHS: Final = 2
"""Processes that a recording may cost before it is given up."""
ONE_THREAD: Final = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"), "1"
)
"""Environment of the processes: the matrix libraries would otherwise start a thread a core in each."""


def core_count() -> int:
    """Return the number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def recognize_side_by_side(
    paths: Iterable[str],
    job: RecognitionJob,
    workers: int,
    *,
    stopped: Callable[[], bool] = lambda: False,
    heard: Callable[[str, float], None] = lambda path, heard_s: None,
) -> Generator[tuple[str, FileResult]]:
    """Yield each path with its result, in the order in which they are done.

    Closing the iterator kills the processes; what they were at is not yielded.

    Args:
        paths: of the recordings, in the order in which they are begun.
        job: how.
        workers: number of processes, >= 1.
        stopped: asked several times a second; True ends the iterator.
        heard: takes a path under way and the seconds of it that are done.
    """
    waiting, deaths = deque(paths), Counter[str]()
    idle: list[_Worker] = []
    busy: dict[Connection, _Worker] = {}
    try:
        while (waiting or busy) and not stopped():
            while waiting and len(busy) < workers:
                worker = idle.pop() if idle else _Worker(job)
                busy[worker.connection] = worker
                worker.begin(waiting.popleft())
            for ready in wait(list(busy), POLL_S):
                worker = busy[ready]  # type: ignore[index]
                answer = worker.answer()
                if isinstance(answer, float):
                    heard(worker.path, answer)
                    continue
                del busy[worker.connection]
                if answer is not None:
                    idle.append(worker)
                    yield worker.path, answer
                    continue
                deaths[worker.path] += 1
                if deaths[worker.path] < MOST_DEATHS:
                    waiting.appendleft(worker.path)
                else:
                    yield worker.path, FileResult(problem=worker.end())
    finally:
        for worker in (*idle, *busy.values()):
            worker.kill()


class _Worker:
    """A process, and the recording that it is at."""

    def __init__(self, job: RecognitionJob) -> None:
        context = multiprocessing.get_context("spawn")  # a fork would copy locks that threads of ours hold
        self.connection, theirs = context.Pipe()
        self.path = ""
        self._process = context.Process(target=_serve, args=(theirs, job), daemon=True)
        resource_tracker.ensure_running()  # its own start would unblock the signals
        with _inherited():
            self._process.start()
        theirs.close()

    def begin(self, path: str) -> None:
        """Give the process a recording; one that has died meanwhile is found by `answer`."""
        self.path = path
        with contextlib.suppress(OSError):
            self.connection.send_bytes(os.fsencode(path))

    def answer(self) -> FileResult | float | None:
        """Return the result, or the seconds that are done so far; None if the process has died."""
        try:
            answer = json.loads(self.connection.recv_bytes())
        except (EOFError, OSError):
            self.kill()
            return None
        return answer if isinstance(answer, float) else FileResult.from_dict(answer)

    def end(self) -> str:
        """Explain why the process has died."""
        code = self._process.exitcode or 0
        how = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
        return f"the process that recognised it {how}, {MOST_DEATHS} times: try it with --workers 1"

    def kill(self) -> None:
        """End the process now."""
        self.connection.close()
        self._process.kill()
        self._process.join()


@contextlib.contextmanager
def _inherited() -> Iterator[None]:
    """Let processes started inside use one thread, and leave Ctrl-C and a closing terminal to this one."""
    before = {name: os.environ.get(name) for name in ONE_THREAD}
    os.environ.update(ONE_THREAD)
    blocked = {signal.SIGINT, signal.SIGHUP}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, blocked)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _serve(connection: Connection, job: RecognitionJob) -> None:
    """Recognise what comes through the pipe until its other end is closed."""
    with contextlib.suppress(EOFError, OSError):
        while True:
            path = os.fsdecode(connection.recv_bytes())
            connection.send_bytes(json.dumps(_answer(path, job, _sender(connection))).encode())


def _answer(path: str, job: RecognitionJob, progress: Callable[[float], None]) -> dict[str, Any]:
    try:
        return recognized(path, job, progress).to_dict()
    except OSError as error:
        if isinstance(error, BrokenPipeError):  # the command has ended
            raise
        return FileResult(problem=f"unexpected: {type(error).__name__}: {error}").to_dict()
    except Exception as error:  # noqa: BLE001 - whatever it is, the other recordings are done
        return FileResult(problem=f"unexpected: {type(error).__name__}: {error}").to_dict()


def _sender(connection: Connection) -> Callable[[float], None]:
    """Return the function that sends, twice a second at most, how far a recording is."""
    sent_s = time.monotonic()

    def send(heard_s: float) -> None:
        nonlocal sent_s
        now_s = time.monotonic()
        if now_s - sent_s >= SHARE_S:
            sent_s = now_s
            connection.send_bytes(json.dumps(float(heard_s)).encode())

    return send
