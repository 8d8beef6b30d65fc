"""One source through one recogniser to all sinks, until the sound ends or a signal arrives."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

from edge.audio.block import Block, Source
from edge.errors import MmtlError, RealTimeError
from edge.events import Event, Summary
from edge.output.sinks import ReaderGone, Sink
from edge.recognition.recognizer import Recognizer
from edge.recognition.stream_session import StreamSession
from edge.system import signals
from edge.system.stop_signal import StopSignal


class Stopper(StopSignal):
    """Turns Ctrl-C, SIGTERM and SIGHUP into a clean end: after the current block, not within it."""

    def blocks(self, source: Source) -> Iterator[Block]:
        """Pass on the blocks of a source until it ends or a signal came."""
        blocks = iter(source)
        while True:
            try:
                with self.waiting():
                    block = next(blocks)
            except StopIteration:
                return
            except KeyboardInterrupt as interrupt:
                signals.mark_caught(interrupt)
                return
            yield block


def listen(source: Source, recognizer: Recognizer, sinks: Sequence[Sink], *, strict: bool = False) -> Summary:
    """Recognise a source to its end, or until Ctrl-C, SIGTERM or SIGHUP, and close with a summary.

    After the session event each sink gets every event, also where another one fails.

    Args:
        source: the sound.
        recognizer: in its initial state.
        sinks: where the events go.
        strict: end as soon as sound was lost.

    Raises:
        KeyboardInterrupt: a signal came before the source was open, or a second one.
        RealTimeError: sound was lost, after the summary; only if `strict`.
        SourceError: the source cannot be opened, or broke off; what came before is flushed first.
    """
    with Stopper().listening() as stopper, contextlib.ExitStack() as opened:
        with stopper.waiting():
            opened.enter_context(source)
        session = StreamSession(recognizer, source.name, live=source.live)
        first = session.begin()
        for sink in sinks:
            sink.emit(first)
        try:
            for block in stopper.blocks(source):
                _emit(sinks, session.feed(block))
                for sink in sinks:
                    sink.progress(recognizer.heard_s, recognizer.level_dbfs)
                if strict and session.statistics.dropped:
                    break
        finally:
            events, summary = session.finish()
            _emit(sinks, [*events, summary])
    if strict and session.statistics.dropped:
        raise RealTimeError(
            f"{_amount(session.statistics.lost_s)} sound from {source.name} was lost, expected none",
            remedy=(
                "use a longer --step-ms, stop other programs, or see that the microphone stays plugged in"
            ),
        )
    return summary


def _amount(lost_s: float) -> str:
    return f"{lost_s:.2f} s of" if lost_s > 0 else "the"


def _emit(sinks: Sequence[Sink], events: Sequence[Event]) -> None:
    """Give all sinks all events; raise the first failure after that."""
    failures = [_failure(sink, event) for event in events for sink in sinks]
    for failure in filter(None, failures):
        raise failure


def _failure(sink: Sink, event: Event) -> Exception | None:
    try:
        sink.emit(event)
    except (MmtlError, ReaderGone) as failure:
        return failure
    return None
