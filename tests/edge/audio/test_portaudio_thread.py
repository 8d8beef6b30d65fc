from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
from types import SimpleNamespace

import pytest

from edge.audio.portaudio_thread import FrozenServerError, call, submit
from tests.edge.audio.portaudio import Frozen

WAIT_S = 60.0


def test_a_call_returns_its_result_from_a_thread_that_does_not_outlive_the_program() -> None:
    thread = call(threading.current_thread)
    assert thread is not threading.current_thread()
    assert thread.daemon
    assert call(threading.current_thread) is thread


def test_a_call_raises_what_it_fails_with_and_the_next_goes_well() -> None:
    with pytest.raises(ZeroDivisionError):
        call(lambda: 1 // 0)
    assert call(lambda: 1) == 1


def test_a_call_may_make_another() -> None:
    assert call(lambda: call(lambda: 1)) == 1


def test_a_server_that_does_not_answer_is_an_error_with_a_remedy(frozen: Frozen) -> None:
    with pytest.raises(FrozenServerError, match=r"does not answer: restart it") as caught:
        call(frozen, 0.05)
    assert caught.value.exit_code == 3


def test_what_was_given_up_before_its_turn_is_never_called(frozen: Frozen) -> None:
    called: list[int] = []
    for work in (frozen, lambda: called.append(1)):
        with pytest.raises(FrozenServerError):
            call(work, 0.05)
    submit(lambda: called.append(2))
    frozen.thaw()
    assert called == [2]


def test_a_signal_shortens_the_wait_for_a_server_that_does_not_answer(frozen: Frozen) -> None:
    threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(FrozenServerError):
        call(frozen, WAIT_S)


def test_a_signal_while_the_server_is_slow_is_a_signal() -> None:
    answered = threading.Event()

    def slow() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        answered.wait(0.1)
        answered.set()

    with pytest.raises(KeyboardInterrupt):
        call(slow, WAIT_S)
    assert answered.is_set()


def test_the_exit_of_the_program_does_not_wait_for_a_frozen_server(
    frozen: Frozen, monkeypatch: pytest.MonkeyPatch
) -> None:
    def terminate() -> None: ...

    forgotten: list[object] = []
    monkeypatch.setitem(sys.modules, "sounddevice", SimpleNamespace(_exit_handler=terminate))
    monkeypatch.setattr(atexit, "unregister", forgotten.append)
    with pytest.raises(FrozenServerError):
        call(frozen, 0.05)
    assert forgotten == [terminate]
