"""The state of a session as the page shows it: an object for JSON."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from calibrate.session.controller import SessionController, Stage
from calibrate.session.sam_scale import SCALES
from calibrate.session.stage_text import (
    CHECK,
    ORDINARY_SPEECH,
    TOPICS,
    Status,
    end_of_prompts,
    if_skipped,
    manner,
    progress,
    recorded_share,
    status,
)

OTHER_DEVICE = "d"
"""Key that the page does not offer: the browser chooses the microphone."""


def view(controller: SessionController) -> dict[str, Any]:
    """Describe what is shown, what can be pressed, and what a screen reader says.

    The key `say` changes with the stage and the verdict, not with each second that was recorded.
    """
    heading, lines, said = _asked(controller)
    now = _status(controller)
    done, steps = controller.session.steps
    return {
        "page": "view",
        "stage": controller.stage.name.lower(),
        "heading": heading,
        "lines": lines,
        "sentence": said,
        "status": asdict(now),
        "share": recorded_share(controller),
        "question": _question(controller),
        "notice": controller.notice,
        "progress": progress(controller),
        "done": done,
        "steps": steps,
        "actions": [{"key": action.key, "does": action.does} for action in offered(controller)],
        "say": _spoken(controller, heading, said, now),
    }


def offered(controller: SessionController) -> list[Any]:
    """Return the actions that a page may ask for."""
    return [action for action in controller.actions if action.key != OTHER_DEVICE]


def may_press(controller: SessionController, key: object) -> bool:
    """Tell whether a key has a meaning now."""
    if controller.stage is Stage.RATING and key in {"1", "2", "3", "4", "5"}:
        return True
    return any(action.key == key for action in offered(controller))


def _asked(controller: SessionController) -> tuple[str, list[str], str]:
    """Return the heading, further lines, and the sentence to say."""
    match controller.stage:
        case Stage.MICROPHONE_CHECK:
            heading, _, text = CHECK.partition(": ")
            return heading, [_sentence_case(text)], ""
        case Stage.RATING:
            heading, _, text = manner(controller).partition(": ")
            return _sentence_case(heading), [], ""
        case Stage.SKIPPED:
            return "Finished?", end_of_prompts(controller), ""
        case _ if controller.asks_ordinary:
            heading, _, text = ORDINARY_SPEECH.partition(": ")
            return _sentence_case(heading), [f"{_sentence_case(text)}.", TOPICS], ""
    heading, _, text = manner(controller).partition(": ")
    return _sentence_case(heading), [f"{_sentence_case(text)}."], controller.prompt.sentence


def _status(controller: SessionController) -> Status:
    if controller.stage in (Stage.RATING, Stage.SKIPPED):
        return Status("")
    return status(controller, "Record")


def _question(controller: SessionController) -> dict[str, Any] | None:
    if controller.stage is not Stage.RATING:
        return None
    number = len(controller.ratings)
    scale = SCALES[number]
    return {
        "text": scale.question,
        "number": number + 1,
        "of": len(SCALES),
        "words": scale.words,
        "pictures": [picture.strip("\n") for picture in scale.pictures],
        "if_skipped": if_skipped(controller),
    }


def _spoken(controller: SessionController, heading: str, said: str, now: Status) -> str:
    question = _question(controller)
    if question:
        return str(question["text"])
    match controller.stage:
        case Stage.RECORDING:
            return now.text if now.tone == "speak" else "Recording."
        case Stage.MICROPHONE_CHECK if now.tone == "good":
            return "Your voice is loud enough."
        case Stage.READY:
            return " ".join(filter(None, [f"{heading}.", said]))
        case Stage.SKIPPED:
            return " ".join(end_of_prompts(controller))
    return now.text


def _sentence_case(text: str) -> str:
    """Begin with a capital; a heading in capitals of the terminal is lowered."""
    lowered = text.lower() if text.isupper() else text
    return lowered[:1].upper() + lowered[1:]
