"""Hear the emotion of the user of a LiveKit agent.

    pip install 'mmtl[livekit]'

`EmotionAgent` passes the user's audio on to speech recognition untouched, at once, and calls `on_emotion`
for each event of `edge`:

    class Assistant(EmotionAgent):
        async def on_emotion(self, participant, event):
            if isinstance(event, Utterance):
                context = self.chat_ctx.copy()
                context.add_message(role="system", content=f"The user sounds {event.label}.")
                await self.update_chat_ctx(context)

    await session.start(agent=Assistant(instructions="..."), room=ctx.room)
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Callable
from typing import Any

from livekit import rtc
from livekit.agents import Agent
from participants import Participants, Piece

from edge import Event, MmtlError, Recognizer


class EmotionAgent(Agent):  # type: ignore[misc, unused-ignore]
    """An agent that hears emotion in a thread, beside the session's own speech recognition.

    An error ends the recognition of emotion, and is passed to `on_emotion_error`; the audio goes on.
    """

    def __init__(
        self, *, participant: str = "user", make: Callable[[], Recognizer] | None = None, **options: Any
    ) -> None:
        """Prepare.

        Args:
            participant: the name of the user in the events.
            make: makes a recogniser, in the thread; by default one of the default model.
            options: LiveKit's own, such as `instructions`.
        """
        super().__init__(**options)
        self._participant = participant
        self._make = make

    async def on_emotion(self, participant: str, event: Event) -> None:
        """Take an event; subclasses do something with it."""

    async def on_emotion_error(self, participant: str, error: MmtlError) -> None:
        """Take the error that ended the recognition of emotion."""

    async def stt_node(self, audio: AsyncIterable[rtc.AudioFrame], model_settings: Any) -> AsyncIterator[Any]:
        """Let LiveKit transcribe the audio, and hear its emotion on the way."""
        async for speech in Agent.default.stt_node(self, self.heard(audio), model_settings):
            yield speech

    async def heard(self, audio: AsyncIterable[rtc.AudioFrame]) -> AsyncIterator[rtc.AudioFrame]:
        """Pass the frames on, and have them recognised; the last events follow the last frame."""
        participants = Participants(self.on_emotion, self.on_emotion_error, self._make)
        try:
            async for frame in audio:
                yield frame
                piece = Piece(bytes(frame.data), frame.sample_rate, frame.num_channels)
                participants.hear(self._participant, piece)
            await participants.close()
        finally:
            participants.abort()
