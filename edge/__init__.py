"""The runtime: sound in, emotions out, on the device. NumPy and ONNX Runtime, never torch.

from edge import Recognizer

recognizer = Recognizer.load()
for event in recognizer.feed(samples):  # float32, mono, 16 kHz, any number of them
    print(event)
print(recognizer.flush())

Importing this package turns ONNX Runtime's telemetry off, for this process and those it starts: whatever
ORT_DISABLE_TELEMETRY was, an empty or unknown value would leave the telemetry on. ONNX Runtime reads the
variable when it is imported, so a program that imports both imports this package first.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False  # typing's constant: loading that module takes longer than all else that is done here
if TYPE_CHECKING:
    from typing import Any

    from edge.audio.sources import demo_clip
    from edge.errors import MmtlError
    from edge.events import Event
    from edge.labels import EMOTIONS, UNSURE
    from edge.model.bundle import Bundle, load_bundle
    from edge.model.profile import Profile, load_profile
    from edge.recognition.recognizer import Recognizer
    from edge.recognition.settings import Settings
    from edge.reports.file_recognition import recognize_file
    from edge.reports.results import UtteranceRow

__all__ = [
    "EMOTIONS",
    "UNSURE",
    "Bundle",
    "Event",
    "MmtlError",
    "Profile",
    "Recognizer",
    "Settings",
    "UtteranceRow",
    "demo_clip",
    "load_bundle",
    "load_profile",
    "recognize_file",
]

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

_HOMES = {
    "EMOTIONS": "labels",
    "UNSURE": "labels",
    "Bundle": "model.bundle",
    "Event": "events",
    "MmtlError": "errors",
    "Profile": "model.profile",
    "Recognizer": "recognition.recognizer",
    "Settings": "recognition.settings",
    "demo_clip": "audio.sources",
    "load_bundle": "model.bundle",
    "load_profile": "model.profile",
    "recognize_file": "reports.file_recognition",
    "UtteranceRow": "reports.results",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that `mmtl --help` loads no NumPy."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
