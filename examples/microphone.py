"""Print the label of every utterance that the microphone hears.

    python examples/microphone.py [SOURCE]

SOURCE is as for `mmtl run`: the default microphone unless given. Ctrl-C ends it.
"""

from __future__ import annotations

import sys

from edge import Recognizer
from edge.audio.sources import open_source
from edge.events import Event, Utterance
from edge.output.sinks import Sink
from edge.recognition.pipeline import listen


class Printer(Sink):
    """Prints utterances, and passes over all other events."""

    def emit(self, event: Event) -> None:
        """Print one utterance."""
        if isinstance(event, Utterance):
            share = event.probs.get(event.label, 0.0)
            print(f"{event.start_s:8.2f} to {event.end_s:8.2f} s  {event.label}  {share:.0%}", flush=True)


if __name__ == "__main__":
    source = open_source(sys.argv[1] if len(sys.argv) > 1 else "mic")
    listen(source, Recognizer.load(), [Printer()])
