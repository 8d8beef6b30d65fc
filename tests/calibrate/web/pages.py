"""A page that makes a profile, without a browser."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from calibrate.web.enrolment import BrowserEnrolment
from edge.arrays import Array
from edge.model.bundle import Bundle
from tests.edge.server.clients import raw

BLOCK = 1_280
"""Samples of a message: 80 ms."""


class Page:
    """Sends requests and sound, and remembers what it was told."""

    def __init__(self, bundle: Bundle) -> None:
        self.saved = 0
        self.told: list[dict[str, Any]] = []
        self.data: list[bytes] = []
        self.enrolment = BrowserEnrolment(bundle, ("ordinary", "labelled"), self._note)

    def _note(self) -> None:
        self.saved += 1

    def _take(self, replies: Iterable[str | bytes]) -> list[dict[str, Any]]:
        told = []
        for reply in replies:
            if isinstance(reply, bytes):
                self.data.append(reply)
            else:
                told.append(json.loads(reply))
        self.told += told
        return told

    def ask(self, **request: Any) -> list[dict[str, Any]]:
        return self._take(self.enrolment.take(json.dumps(request)))

    def begin(self, name: str = "anna", kind: str = "ordinary", **options: Any) -> list[dict[str, Any]]:
        return self.ask(do="begin", name=name, kind=kind, rate=16_000, agreed=True, **options)

    def press(self, *keys: str) -> None:
        for key in keys:
            self.ask(do="press", key=key)

    def hear(self, sound: Array) -> None:
        for start in range(0, len(sound), BLOCK):
            self._take(self.enrolment.take(raw(sound[start : start + BLOCK])))

    def newest(self, kind: str) -> dict[str, Any]:
        return next(message for message in reversed(self.told) if message["page"] == kind)

    @property
    def view(self) -> dict[str, Any]:
        return self.newest("view")
