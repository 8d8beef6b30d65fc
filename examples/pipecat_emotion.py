"""Hear the emotion of the participants of a Pipecat pipeline.

    pip install 'mmtl[pipecat]'
    python examples/pipecat_emotion.py FILE

`EmotionProcessor` passes every frame on untouched, at once, and adds an `EmotionFrame` for each event of
`edge`. It belongs behind the transport's input:

    class Empathy(FrameProcessor):
        async def process_frame(self, frame, direction):
            await super().process_frame(frame, direction)
            if isinstance(frame, EmotionFrame) and isinstance(frame.event, Utterance):
                text = f"(The user sounds {frame.event.label}.)"
                message = {"role": "developer", "content": text}
                await self.push_frame(LLMMessagesAppendFrame([message]))
            await self.push_frame(frame, direction)

    pipeline = Pipeline([transport.input(), EmotionProcessor(), Empathy(), stt, ...])

The program sends a sound file through a pipeline, in real time, and prints the utterances.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from participants import Participants, Piece
from pipecat.frames.frames import CancelFrame, EndFrame, Frame, InputAudioRawFrame, SystemFrame
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor

from edge import Event, MmtlError, Recognizer
from edge.events import Utterance


@dataclass
class EmotionFrame(SystemFrame):  # type: ignore[misc, unused-ignore]
    """An event of `edge` about a participant. A system frame: an interruption does not drop it."""

    event: Event
    participant: str
    """`user_id` of the audio frames, or the name of the transport's track; empty if the frames have none."""


class EmotionProcessor(FrameProcessor):  # type: ignore[misc, unused-ignore]
    """Recognises each participant's audio in a thread; frames never wait for it.

    `EndFrame` waits for the last events. An error ends the recognition of one participant, and is pushed
    upstream; the audio goes on.
    """

    def __init__(self, make: Callable[[], Recognizer] | None = None, **options: Any) -> None:
        """Prepare.

        Args:
            make: makes a recogniser, in the thread; by default one of the default model.
            options: Pipecat's own.
        """
        super().__init__(**options)
        self._participants = Participants(self._emit, self._fail, make)

    async def setup(self, setup: Any) -> None:
        """Load the model, while other processors connect."""
        await super().setup(setup)
        with contextlib.suppress(MmtlError):  # the first audio meets it again, and then it can be pushed
            await self._participants.open()

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Pass the frame on, and hear its audio."""
        await super().process_frame(frame, direction)
        if isinstance(frame, EndFrame):
            await self._participants.close()
        await self.push_frame(frame, direction)
        if isinstance(frame, InputAudioRawFrame) and frame.audio:
            name = getattr(frame, "user_id", "") or frame.transport_source or ""
            self._participants.hear(name, Piece(frame.audio, frame.sample_rate, frame.num_channels))
        elif isinstance(frame, CancelFrame):
            self._participants.abort()

    async def leave(self, participant: str) -> None:
        """Forget a participant who has left, after their last events."""
        await self._participants.leave(participant)

    async def cleanup(self) -> None:
        """End the thread."""
        await super().cleanup()
        self._participants.abort()

    async def _emit(self, participant: str, event: Event) -> None:
        await self.push_frame(EmotionFrame(event, participant))

    async def _fail(self, participant: str, error: MmtlError) -> None:
        await self.push_error(f"{participant or 'the user'} is not recognised: {error}", exception=error)


class Printer(FrameProcessor):  # type: ignore[misc, unused-ignore]
    """Prints utterances."""

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Print one utterance."""
        await super().process_frame(frame, direction)
        if isinstance(frame, EmotionFrame) and isinstance(frame.event, Utterance):
            print(f"{frame.event.end_s:.1f} s: {frame.event.label}", flush=True)
        await self.push_frame(frame, direction)


async def main(path: str) -> None:
    """Send a file through a pipeline."""
    import soundfile
    from pipecat.pipeline.pipeline import Pipeline
    from pipecat.pipeline.worker import PipelineWorker
    from pipecat.workers.runner import WorkerRunner

    worker = PipelineWorker(Pipeline([EmotionProcessor(), Printer()]), cancel_on_idle_timeout=False)

    async def speak() -> None:
        samples, rate = soundfile.read(path, dtype="int16", always_2d=True)
        for start in range(0, len(samples), rate // 50):
            block = samples[start : start + rate // 50]
            frame = InputAudioRawFrame(block.tobytes(), rate, block.shape[1])
            await worker.queue_frame(frame)
            await asyncio.sleep(0.02)
        await worker.queue_frame(EndFrame())

    runner = WorkerRunner()
    await runner.add_workers(worker)
    await asyncio.gather(runner.run(), speak())


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
