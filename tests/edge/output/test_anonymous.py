"""No name of a person, file or device is left in an event that is to be anonymous."""

from __future__ import annotations

from dataclasses import replace

import pytest

from edge.events import Device, EngineChange, Error, Event, Overrun, Session, Speech, StreamWarning, to_json
from edge.output.anonymous import UNNAMED, AnonymousSink, anonymous, anonymous_session, without_names
from edge.output.sinks import Sink
from tests.edge.schema import checked_event

SESSION = Session(
    "Anna Schmidt.wav",
    "Anna's own",
    "anna",
    "cpu",
    ("neutral", "happy", "sad", "angry"),
    3.0,
    0.24,
    True,
    provider_reason="the engine /home/anna/.cache/mmtl/1.plan cannot be read",
)
EVENTS: list[Event] = [
    SESSION,
    Speech(0.5, True),
    Overrun(1.0, 0.1),
    Device(1.5, "Anna's AirPods", "lost"),
    EngineChange(2.0, "cpu", "the graph C:\\Users\\anna\\window.onnx failed"),
    StreamWarning(3.0, "length", "Anna Schmidt.wav ends early; /home/anna/Anna Schmidt.wav is cut off"),
    StreamWarning(4.0, "channels", "the profile anna; Anna's AirPods cancel"),
]


class Kept(Sink):
    """A sink that keeps what it gets."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.heard_s = 0.0
        self.closed = False

    def emit(self, event: Event) -> None:
        self.events.append(checked_event(event))

    def progress(self, heard_s: float, level_dbfs: float) -> None:
        self.heard_s = heard_s

    def close(self) -> None:
        self.closed = True


def test_what_passes_an_anonymous_sink_names_nobody_and_nothing() -> None:
    kept = Kept()
    with AnonymousSink(kept, speaker_bundle=True) as sink:
        for event in EVENTS:
            sink.emit(event)
        sink.progress(1.25, -20.0)
    assert [event.type for event in kept.events] == [event.type for event in EVENTS]
    text = "\n".join(map(to_json, kept.events))
    for name in ("Anna", "anna", "Schmidt", "home", "Users"):
        assert name not in text
    assert (kept.heard_s, kept.closed) == (1.25, True)
    assert kept.events[1:3] == EVENTS[1:3]


def test_that_there_is_a_profile_and_which_model_stays_known() -> None:
    found = anonymous_session(replace(SESSION, bundle="default"))
    assert (found.source, found.bundle, found.profile) == (UNNAMED, "default", UNNAMED)
    assert anonymous_session(replace(SESSION, profile=None)).profile is None
    assert anonymous_session(replace(SESSION, provider_reason="asked for")).provider_reason == "asked for"


@pytest.mark.parametrize("event", [Speech(0.5, True), Overrun(1.0, 0.1), Error("there are 16 clients")])
def test_an_event_without_names_is_passed_on_as_it_is(event: Event) -> None:
    assert anonymous(event, ["clients"]) is event


def test_names_and_paths_leave_a_message_readable() -> None:
    names = ["tape", "a", "my tape.wav"]
    text = without_names("my tape.wav is 3 s long, the header says 4: see /tmp/my tape.wav", names)
    assert text == "unnamed is 3 s long, the header says 4: see unnamed"
