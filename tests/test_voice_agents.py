"""The examples for voice agents: sound passes at once and untouched, and is recognised beside the event loop.

Pipecat and LiveKit Agents are tested where they are installed. They are not part of the other tests: an
environment takes 523 MB with the one, whose protobuf is older than ours in constraints.txt, and 394 MB with
the other.

    pip install -e '.[pipecat]' pytest hypothesis jsonschema    # or .[livekit]
    python -m pytest tests/test_voice_agents.py
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soxr

from edge import Event, MmtlError, Recognizer, load_bundle
from edge.audio.sound_file import read_clip
from edge.audio.sources import demo_clip
from edge.errors import ModelError
from edge.events import Overrun, Session, Summary, Utterance, Window
from edge.model.bundle import shipped_bundle
from edge.server.client_stream import ClientStream, shared_engines

EXAMPLES = Path(__file__).parents[1] / "examples"
SOON_S = 60.0
Make = Callable[[], Recognizer]


@pytest.fixture(autouse=True)
def examples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Import the examples as a script beside them does."""
    monkeypatch.syspath_prepend(str(EXAMPLES))


@pytest.fixture(scope="module")
def make() -> Make:
    return shared_engines(load_bundle(shipped_bundle("small")), provider="cpu")


def speech(rate: int, seconds: float = 4.0) -> bytes:
    """The beginning of the demo clip, as 16-bit samples of a rate."""
    samples = soxr.resample(read_clip(demo_clip())[: round(16_000 * seconds)], 16_000, rate)
    return bytes((32_767 * np.clip(samples, -1.0, 1.0)).astype("<i2").tobytes())


def chunks(pcm: bytes, rate: int, channels: int = 1) -> list[bytes]:
    """Cut sound into the 20 ms of voice agents."""
    size = 2 * channels * (rate // 50)
    return [pcm[start : start + size] for start in range(0, len(pcm), size)]


def told(events: list[Event]) -> list[tuple[float, float, str]]:
    """What windows and utterances say, without their timing."""
    return [
        (event.start_s, event.end_s, event.label) for event in events if isinstance(event, Window | Utterance)
    ]


def alone(make: Make, pcm: bytes, rate: int) -> list[tuple[float, float, str]]:
    """What a stream of its own says of the sound."""
    stream = ClientStream(make(), "alone")
    events = [event for chunk in chunks(pcm, rate) for event in stream.feed(chunk, rate, 0.0)]
    return told([*events, *stream.finish()])


@dataclass
class Conversation:
    """Participants, their events and their errors."""

    make: Make
    events: dict[str, list[Event]] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)

    async def emit(self, name: str, event: Event) -> None:
        self.events.setdefault(name, []).append(event)

    async def fail(self, name: str, error: MmtlError) -> None:
        self.errors[name] = str(error)

    def hold(self, talk: Callable[[Any], Coroutine[Any, Any, None]]) -> Conversation:
        """Let them talk, to the end."""
        from participants import Participants

        async def run() -> None:
            participants = Participants(self.emit, self.fail, self.make)
            await talk(participants)
            await participants.close()

        asyncio.run(asyncio.wait_for(run(), SOON_S))
        return self


def piece(pcm: bytes, rate: int, channels: int = 1) -> Any:
    from participants import Piece

    return Piece(pcm, rate, channels)


def test_each_participant_is_a_stream_of_its_own(make: Make) -> None:
    low, high = speech(8_000), speech(48_000, 4.0)
    stereo = np.repeat(np.frombuffer(high, "<i2"), 2).tobytes()

    async def talk(participants: Any) -> None:
        await participants.open()
        for one, other in zip(
            chunks(low, 8_000)[:200], chunks(stereo, 48_000, channels=2)[:200], strict=True
        ):
            participants.hear("anna", piece(one, 8_000))
            participants.hear("ben", piece(other, 48_000, channels=2))
            await asyncio.sleep(0)

    held = Conversation(make).hold(talk)
    assert set(held.events) == {"anna", "ben"}
    for name, events in held.events.items():
        assert isinstance(events[0], Session)
        assert events[0].source == name
        assert isinstance(events[-1], Summary)
        assert sum(isinstance(event, Summary) for event in events) == 1
    assert told(held.events["ben"]) == alone(make, high, 48_000)
    assert told(held.events["anna"]) == alone(make, low[: 2 * 160 * 200], 8_000)


def test_a_participant_whose_sound_cannot_be_used_does_not_disturb_the_others(make: Make) -> None:
    async def talk(participants: Any) -> None:
        for chunk in chunks(speech(16_000), 16_000):
            participants.hear("bad", piece(chunk, 1_000))
            participants.hear("good", piece(chunk, 16_000))
            await asyncio.sleep(0.001)

    held = Conversation(make).hold(talk)
    assert list(held.errors) == ["bad"]
    assert "a rate of 1000 arrived" in held.errors["bad"]
    assert told(held.events["good"]) == alone(make, speech(16_000), 16_000)


def test_another_rate_begins_another_stream(make: Make) -> None:
    async def talk(participants: Any) -> None:
        for rate in (16_000, 24_000):
            participants.hear("anna", piece(speech(rate, 3.0), rate))

    events = Conversation(make).hold(talk).events["anna"]
    kinds = [type(event) for event in events if isinstance(event, Session | Summary)]
    assert kinds == [Session, Summary, Session, Summary]


def test_sound_waits_beside_the_event_loop_and_not_without_bound(make: Make) -> None:
    release = threading.Event()

    def slow() -> Recognizer:
        assert release.wait(SOON_S)
        return make()

    async def talk(participants: Any) -> None:
        for _ in range(700):  # 14 s, while nothing is recognised
            participants.hear("anna", piece(bytes(640), 16_000))
            await asyncio.sleep(0)
        release.set()

    events = Conversation(slow).hold(talk).events["anna"]
    (lost,) = [event.lost_s for event in events if isinstance(event, Overrun)]
    assert 3.0 < lost < 4.1
    assert isinstance(events[-1], Summary)
    assert events[-1].duration_s == pytest.approx(14.0, abs=0.1)
    assert events[-1].dropped == 1


def pipecat() -> Any:
    """Import the example for Pipecat, where that is installed."""
    if "pipecat" not in sys.modules:
        pytest.importorskip("pipecat", reason="pipecat-ai is not installed")
    import pipecat_emotion

    return pipecat_emotion


def through_pipeline(processor: Any, frames: list[Any]) -> tuple[list[Any], list[Any]]:
    """Push frames through a real pipeline; return what came out of its end, and what went upstream."""
    from pipecat.tests.utils import run_test

    async def run() -> tuple[list[Any], list[Any]]:
        down, up = await run_test(processor, frames_to_send=frames, send_end_frame=True, start_timeout=SOON_S)
        return list(down), list(up)

    return asyncio.run(asyncio.wait_for(run(), SOON_S))


def audio_frames(pcm: bytes, rate: int) -> list[Any]:
    from pipecat.frames.frames import InputAudioRawFrame

    return [InputAudioRawFrame(chunk, rate, 1) for chunk in chunks(pcm, rate)]


pytestmark = pytest.mark.filterwarnings("default")  # Pipecat's own


@pytest.mark.parametrize("rate", [8_000, 16_000, 24_000])
def test_audio_passes_a_pipeline_untouched_and_is_recognised(make: Make, rate: int) -> None:
    example, pcm = pipecat(), speech(rate)
    sent = audio_frames(pcm, rate)
    down, _ = through_pipeline(example.EmotionProcessor(make), sent)
    passed = [frame for frame in down if not isinstance(frame, example.EmotionFrame)]
    assert [frame.id for frame in passed] == [frame.id for frame in sent]
    assert b"".join(frame.audio for frame in passed) == pcm
    events = [frame.event for frame in down if isinstance(frame, example.EmotionFrame)]
    assert isinstance(events[0], Session)
    assert isinstance(events[-1], Summary)
    assert told(events) == alone(make, pcm, rate) != []


def test_each_user_of_a_pipeline_has_a_recognizer(make: Make) -> None:
    example = pipecat()
    from pipecat.frames.frames import UserAudioRawFrame

    pcm = speech(16_000)
    sent = [
        UserAudioRawFrame(chunk, 16_000, 1, user_id=user)
        for chunk in chunks(pcm, 16_000)
        for user in ("anna", "ben")
    ]
    down, _ = through_pipeline(example.EmotionProcessor(make), sent)
    for user in ("anna", "ben"):
        events = [
            frame.event
            for frame in down
            if isinstance(frame, example.EmotionFrame) and frame.participant == user
        ]
        assert told(events) == alone(make, pcm, 16_000)


def test_frames_do_not_wait_for_a_recognizer_that_is_busy(make: Make) -> None:
    example, release, passed = pipecat(), threading.Event(), list[Any]()
    from pipecat.frames.frames import InputAudioRawFrame
    from pipecat.processors.frame_processor import FrameProcessor

    made: list[bool] = []

    def busy() -> Recognizer:
        if made:  # the first is the one that is warmed up
            assert release.wait(SOON_S)
        made.append(True)
        return make()

    class Counting(FrameProcessor):  # type: ignore[misc, unused-ignore]
        async def process_frame(self, frame: Any, direction: Any) -> None:
            await super().process_frame(frame, direction)
            if isinstance(frame, InputAudioRawFrame):
                passed.append(frame)
                if len(passed) == 200:
                    release.set()  # it would wait for ever, if frames waited for it
            await self.push_frame(frame, direction)

    from pipecat.pipeline.pipeline import Pipeline

    sent = audio_frames(speech(16_000), 16_000)
    pipeline = Pipeline([example.EmotionProcessor(busy), Counting()])
    down, _ = through_pipeline(pipeline, sent)
    assert len(passed) == len(sent) == 200
    assert any(isinstance(frame, example.EmotionFrame) for frame in down)


def test_audio_passes_where_the_model_cannot_be_used() -> None:
    example = pipecat()
    from pipecat.frames.frames import ErrorFrame, InputAudioRawFrame

    def broken() -> Recognizer:
        raise ModelError("the bundle has no graphs", remedy="name another")

    sent = audio_frames(speech(16_000, 1.0), 16_000)
    down, up = through_pipeline(example.EmotionProcessor(broken), sent)
    assert sum(isinstance(frame, InputAudioRawFrame) for frame in down) == len(sent)
    (error,) = [frame for frame in up if isinstance(frame, ErrorFrame)]
    assert "the bundle has no graphs" in error.error


def livekit() -> Any:
    """Import the example for LiveKit Agents, where that is installed."""
    if "livekit.agents" not in sys.modules:
        pytest.importorskip("livekit.agents", reason="livekit-agents is not installed")
    import livekit_emotion

    return livekit_emotion


@pytest.mark.parametrize("rate", [8_000, 16_000, 24_000])
def test_audio_of_a_livekit_session_reaches_its_transcription_untouched_and_is_recognised(
    make: Make, rate: int
) -> None:
    """A session without a server or a room: its microphone and its speech recognition are the test's."""
    example, pcm = livekit(), speech(rate)
    from livekit import rtc
    from livekit.agents import AgentSession, stt
    from livekit.agents.voice import io

    transcribed, events, expected = list[bytes](), list[Event](), alone(make, pcm, rate)[:-4]

    class Stream(stt.RecognizeStream):  # type: ignore[misc, unused-ignore]
        async def _run(self) -> None:
            async for frame in self._input_ch:
                if isinstance(frame, rtc.AudioFrame):
                    transcribed.append(bytes(frame.data))

    class Transcription(stt.STT):  # type: ignore[misc, unused-ignore]
        async def _recognize_impl(self, *_: Any, **options: Any) -> Any:
            raise NotImplementedError

        def stream(self, *, conn_options: Any, **options: Any) -> Any:
            return Stream(stt=self, conn_options=conn_options)

    class Microphone(io.AudioInput):  # type: ignore[misc, unused-ignore]
        async def __anext__(self) -> Any:
            await asyncio.sleep(0.002)
            return waiting.pop(0) if waiting else await asyncio.Event().wait()

    class Listener(example.EmotionAgent):  # type: ignore[misc, name-defined, unused-ignore]
        async def on_emotion(self, participant: str, event: Event) -> None:
            assert participant == "user"
            events.append(event)

    waiting = [rtc.AudioFrame(chunk, rate, 1, len(chunk) // 2) for chunk in chunks(pcm, rate)]

    async def run() -> None:
        able = stt.STTCapabilities(streaming=True, interim_results=False)
        session = AgentSession(stt=Transcription(capabilities=able), vad=None)
        session.input.audio = Microphone(label="test")
        await session.start(Listener(instructions="listen", make=make))
        while len(told(events)) < len(expected) or sum(map(len, transcribed)) < len(pcm):
            await asyncio.sleep(0.02)
        await session.aclose()

    asyncio.run(asyncio.wait_for(run(), SOON_S))
    assert b"".join(transcribed).startswith(pcm)  # then LiveKit sends silence
    assert told(events)[: len(expected)] == expected != []


def test_an_error_of_recognition_leaves_the_audio_of_livekit_alone() -> None:
    example, errors = livekit(), list[str]()
    from livekit import rtc

    def broken() -> Recognizer:
        raise ModelError("the bundle has no graphs", remedy="name another")

    class Listener(example.EmotionAgent):  # type: ignore[misc, name-defined, unused-ignore]
        async def on_emotion_error(self, participant: str, error: MmtlError) -> None:
            errors.append(error.problem)

    async def run() -> list[Any]:
        async def speak() -> Any:
            for chunk in chunks(speech(16_000, 1.0), 16_000):
                await asyncio.sleep(0)
                yield rtc.AudioFrame(chunk, 16_000, 1, len(chunk) // 2)

        listener = Listener(instructions="listen", make=broken)
        return [frame async for frame in listener.heard(speak())]

    assert len(asyncio.run(asyncio.wait_for(run(), SOON_S))) == 50
    assert errors == ["the bundle has no graphs"]
