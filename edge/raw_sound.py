"""Raw sound: 16-bit little-endian samples without a header, from a pipe or a client."""

from __future__ import annotations

from typing import Final

import numpy as np

from edge.blocks import Caution
from edge.errors import SourceError
from edge.frontend import Array
from edge.sample_format import SampleFormatCheck
from edge.signatures import LONGEST_BEGINNING, MEDIA, NETWORK, OTHER, READABLE, Signature, recognised

FULL_SCALE: Final = 32_768.0
"""The magnitude of s16le that is 1.0."""
EXPECTED: Final = "raw s16le mono"
DECODE: Final = "decode it first, for example with ffmpeg -i FILE -f s16le -ac 1 -ar 16000 -"
REMEDIES: Final = {
    READABLE: DECODE,
    MEDIA: DECODE,
    OTHER: "send the samples of a recording and nothing else",
    NETWORK: "this is not a web server; send samples, or connect to a port that speaks the protocol",
}
"""By the kind of what arrived."""


class RawSound:
    """Decode a stream of raw 16-bit little-endian mono sound.

    Remembers the odd byte of a sample that is still on its way, the first 4 KiB to recognise what is
    not raw sound, and what the check of the sample format does.
    """

    def __init__(self, origin: str = "", remedies: dict[str, str] | None = None) -> None:
        """Prepare for a stream.

        Args:
            origin: where it comes from, for messages: " on standard input".
            remedies: by a signature's kind, what to do where it differs from `REMEDIES`.
        """
        self._origin = origin
        self._remedies = REMEDIES | (remedies or {})
        self._odd = b""
        self._beginning: bytes | None = b""
        self._format = SampleFormatCheck()
        self._caution: Caution | None = None

    def feed(self, data: bytes) -> Array:
        """Take any number of bytes and return the (N,) float32 samples they complete, in [-1, 1].

        Raises:
            SourceError: the stream began as a file, an archive or a protocol does.
        """
        self._refuse_signature(data)
        if found := self._format.feed(data):
            message = (
                f"the sound{self._origin} looks like {found}, expected {EXPECTED}: convert it to that first"
            )
            self._caution = Caution("format", message)
        data = self._odd + data
        whole = len(data) // 2 * 2
        self._odd = data[whole:]
        return np.frombuffer(data[:whole], "<i2").astype(np.float32) / np.float32(FULL_SCALE)

    def take_caution(self) -> Caution | None:
        """Return, once, that the samples are probably of another format."""
        taken, self._caution = self._caution, None
        return taken

    def _refuse_signature(self, data: bytes) -> None:
        if self._beginning is None:
            return
        self._beginning += data[: LONGEST_BEGINNING - len(self._beginning)]
        if signature := recognised(self._beginning):
            raise SourceError(self._refusal(signature))
        if len(self._beginning) == LONGEST_BEGINNING:
            self._beginning = None

    def _refusal(self, signature: Signature) -> str:
        arrived = f"{signature.kind} arrived{self._origin} ({signature.name})"
        return f"{arrived}, expected {EXPECTED}: {self._remedies[signature.kind]}"
