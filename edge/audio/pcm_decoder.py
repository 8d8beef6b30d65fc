"""Raw PCM: 16-bit little-endian samples without a header, from a pipe or a client."""

from __future__ import annotations

from typing import Final

import numpy as np

from edge.arrays import Array
from edge.audio.block import InputWarning
from edge.audio.downmix import require_channels
from edge.errors import SourceError
from edge.file_formats.sample_format import SampleFormatCheck
from edge.file_formats.signatures import (
    LONGEST_BEGINNING,
    MEDIA,
    NETWORK,
    OTHER,
    READABLE,
    Signature,
    find_signature,
)

FULL_SCALE: Final = 32_768.0
"""The s16le value that corresponds to 1.0."""
EXPECTED: Final = "raw s16le mono"
DECODE: Final = "decode it first, for example with ffmpeg -i FILE -f s16le -ac 1 -ar 16000 -"
REMEDIES: Final = {
    READABLE: DECODE,
    MEDIA: DECODE,
    OTHER: "send the samples of a recording and nothing else",
    NETWORK: "this is not a web server; send samples, or connect to a port that speaks the protocol",
}
"""What to do, by the kind of the recognised signature."""


class PcmDecoder:
    """Decodes a stream of raw 16-bit little-endian samples.

    Remembers the bytes of an incomplete frame, the first 4 KiB to recognise data that is not raw sound, and,
    for one channel, the state of the sample format check.
    """

    def __init__(
        self, origin: str = "", remedies: dict[str, str] | None = None, *, channels: int = 1
    ) -> None:
        """Prepare for a stream.

        Args:
            origin: source named in messages, such as " on standard input".
            remedies: by kind of signature, overrides of `REMEDIES`.
            channels: interleaved, 1 to `MOST_CHANNELS`.

        Raises:
            UsageError: the number of channels is out of range.
        """
        require_channels(channels)
        self._origin = origin
        self._remedies = REMEDIES | (remedies or {})
        self._channels = channels
        self._expected = EXPECTED if channels == 1 else f"raw s16le of {channels} channels"
        self._incomplete = b""
        self._beginning: bytes | None = b""
        self._format = SampleFormatCheck()
        self._warning: InputWarning | None = None

    def feed(self, data: bytes) -> Array:
        """Take any number of bytes and return the (N, channels) float32 frames they complete, in [-1, 1].

        Raises:
            SourceError: the stream begins like a file, an archive or a network protocol.
        """
        self._refuse_signature(data)
        if self._channels == 1 and (found := self._format.feed(data)):
            looks = f"the sound{self._origin} looks like {found}, expected {self._expected}"
            self._warning = InputWarning("format", f"{looks}: convert it, or state how many channels it has")
        data = self._incomplete + data
        whole = len(data) // (2 * self._channels) * 2 * self._channels
        self._incomplete = data[whole:]
        samples = np.frombuffer(data[:whole], "<i2").astype(np.float32) / np.float32(FULL_SCALE)
        return samples.reshape(-1, self._channels)

    def take_warning(self) -> InputWarning | None:
        """Return a new warning that the samples probably have another format, once."""
        taken, self._warning = self._warning, None
        return taken

    def _refuse_signature(self, data: bytes) -> None:
        if self._beginning is None:
            return
        self._beginning += data[: LONGEST_BEGINNING - len(self._beginning)]
        if signature := find_signature(self._beginning):
            raise self._refusal(signature)
        if len(self._beginning) == LONGEST_BEGINNING:
            self._beginning = None

    def _refusal(self, signature: Signature) -> SourceError:
        arrived = f"{signature.kind} arrived{self._origin} ({signature.name})"
        return SourceError(f"{arrived}, expected {self._expected}", remedy=self._remedies[signature.kind])
