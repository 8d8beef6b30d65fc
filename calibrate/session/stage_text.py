"""What a session says at each stage, for the terminal and the web page."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Literal

from calibrate.quality import setup_advice
from calibrate.session.controller import SessionController, Stage
from calibrate.session.recording import ORDINARY_TARGET_S, OrdinaryRecorder, Recorder, RecorderState
from calibrate.take_limits import LEAST_SPEECH_DBFS, SOME_VOICE_S
from edge.labels import EMOTIONS, derived_ratings
from edge.output.monitor_state import CLIP_DBFS

MANNERS: Final = {
    "neutral": "plainly, as you would read out a timetable",
    "happy": "happily, as if it were the best news of the week",
    "sad": "sadly, as if you had just said goodbye to a friend",
    "angry": "angrily, as if you had to say it for the third time",
}

CHECK: Final = "Microphone check: say a few words, as loudly and as close as in the rest of the session."
ORDINARY_SPEECH: Final = "ORDINARY SPEECH: talk as you usually do, in any language, about anything"
TOPICS: Final = (
    "What you did today, the way to work, what you see from the window, a film, what you will eat ..."
)

Tone = Literal["plain", "waiting", "speak", "recording", "good", "warning", "refused"]


@dataclass(frozen=True)
class Status:
    """A sentence about the microphone or the recording, and its tone."""

    text: str
    tone: Tone = "plain"


def status(controller: SessionController, record: str) -> Status:
    """Say what happens, or what is to be done, while something is recorded or reviewed.

    Args:
        controller: in any stage but `RATING` and `SKIPPED`.
        record: label of the key or button that records.
    """
    match controller.stage:
        case Stage.MICROPHONE_CHECK:
            return _microphone(controller)
        case Stage.READY if controller.asks_ordinary:
            return Status(f"Press {record}, then talk for about half a minute. The recording ends by itself.")
        case Stage.READY:
            return Status(f"Press {record}, then say it in that manner. A pause ends the recording.")
        case Stage.RECORDING:
            return _recording(controller.recorder)
    return _reviewed(controller)


def _microphone(controller: SessionController) -> Status:
    quality = controller.quality
    if quality is None or quality.voice_s < SOME_VOICE_S:
        return Status("Waiting for your voice ...", "waiting")
    if reason := setup_advice(quality):
        return Status(reason, "warning")
    above = f"{quality.level_dbfs:.0f} dBFS, {quality.snr_db:.0f} dB above the noise"
    return Status(f"Good: your voice is at {above}.", "good")


def _recording(recorder: Recorder | OrdinaryRecorder | None) -> Status:
    assert recorder
    if recorder.state is RecorderState.WAITING:
        return Status("Speak now ...", "speak")
    if isinstance(recorder, OrdinaryRecorder):
        return Status(f"{recorder.voice_s:.0f} s of speech heard, of {ORDINARY_TARGET_S:.0f} s", "recording")
    return Status(f"Recording {recorder.seconds:.1f} s", "recording")


def _reviewed(controller: SessionController) -> Status:
    if controller.refusal:
        return Status(f"Not usable. {controller.refusal}", "refused")
    quality = controller.quality
    assert quality
    return Status(
        f"Good: {quality.voice_s:.1f} s of speech, {quality.snr_db:.0f} dB above the noise.", "good"
    )


def recorded_share(controller: SessionController) -> float | None:
    """Return how much of the ordinary speech is recorded, in [0, 1]; None unless it is being recorded."""
    recorder = controller.recorder
    if controller.stage is Stage.RECORDING and isinstance(recorder, OrdinaryRecorder):
        return min(1.0, recorder.voice_s / ORDINARY_TARGET_S)
    return None


def manner(controller: SessionController) -> str:
    """Say in which manner the sentence is to be said."""
    emotion = EMOTIONS[controller.prompt.emotion]
    return f"{emotion.upper()}: {MANNERS[emotion]}"


def if_skipped(controller: SessionController) -> str:
    """Say which rating is taken if the question is skipped."""
    derived = derived_ratings(EMOTIONS[controller.prompt.emotion])
    assert derived
    return f"If skipped, the usual value of the emotion is taken: {derived[len(controller.ratings)]:.1f}."


def end_of_prompts(controller: SessionController) -> list[str]:
    """Say how many takes there are once all prompts were shown, and whether they are enough."""
    session = controller.session
    counted = [f"{name} {session.counts.get(index, 0)}" for index, name in enumerate(EMOTIONS)]
    told = [
        "That was the last sentence. Takes so far: " + ", ".join(counted) + ".",
        f"{len(session.skipped)} skipped.",
    ]
    if not session.enough:
        told.append("That is not enough: at least two takes each of two emotions are needed.")
    elif len(session.usable) < len(session.done):
        told.append("Emotions with a single take are left out.")
    return told


def progress(controller: SessionController) -> str:
    """Say how much is done, and the remaining time."""
    session = controller.session
    skipped = f", {len(session.skipped)} skipped" if session.skipped else ""
    done, steps = session.steps
    return f"{done} of {steps} done{skipped}, {time_left(session.seconds_left(controller.spent_s))}"


def time_left(seconds: float) -> str:
    """Say the remaining time, in whole minutes."""
    if seconds < 45.0:
        return "less than a minute left"
    minutes = math.ceil(seconds / 60.0)
    return f"about {minutes} minute{'s' if minutes > 1 else ''} left"


def level_word(level_dbfs: float) -> str:
    """Say whether a level is usable."""
    return "too loud" if level_dbfs >= CLIP_DBFS else "quiet" if level_dbfs < LEAST_SPEECH_DBFS else "ok"
