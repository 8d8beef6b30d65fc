"""Signatures: the first bytes of files, archives and network protocols that are not raw sound.

Decoded as 16-bit samples they would be noise, so a stream that begins with a signature is refused. A pattern
fixes at least 20 bits, most patterns 32, so that sound does not match by accident. A format with a shorter
mark is recognised by several frames in a row.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from edge.file_formats.mpeg import FRAMES_IN_A_ROW, HEADER_BYTES, frame_header

LONGEST_BEGINNING: Final = 4_096
"""Bytes from the start of a stream within which a signature is recognised."""
TEXT_BYTES: Final = 64
"""Printable characters at the start of a stream that make it text."""
TRANSPORT_PACKET: Final = 188
"""Bytes of a packet of an MPEG transport stream."""

READABLE: Final = "a sound file"
MEDIA: Final = "compressed sound"
OTHER: Final = "data that is not sound"
NETWORK: Final = "a network protocol"


@dataclass(frozen=True)
class Signature:
    """A recognised format."""

    name: str
    """The format's usual name."""
    kind: str
    """`READABLE` (as a file, by `edge.audio.sound_file.SoundFile`), `MEDIA`, `OTHER` or `NETWORK`."""


_PATTERNS: Final[tuple[tuple[str, str, bytes], ...]] = (
    (READABLE, "WAV", rb"RIF[FX]|RF64|BW64"),
    (READABLE, "Wave64", rb"riff\x2e\x91\xcf\x11"),
    (READABLE, "AIFF", rb"FORM"),
    (READABLE, "AU", rb"\.snd|dns\."),
    (READABLE, "CAF", rb"caff\0"),
    (READABLE, "FLAC", rb"fLaC"),
    (READABLE, "Ogg", rb"OggS"),
    (READABLE, "MP3 with an ID3 tag", rb"ID3[\x02-\x04][^\xff]"),
    (READABLE, "NIST SPHERE", rb"NIST_1A\n"),
    (READABLE, "VOC", rb"Creative Voice File"),
    (READABLE, "IRCAM", rb"\x64\xa3[\x01-\x04]\0|\0[\x01-\x04]\xa3\x64"),
    (READABLE, "AVR, PAF, PVF or XI", rb"2BIT| paf|fap |PVF1\n|Extended Instrument: "),
    (MEDIA, "WebM or Matroska", rb"\x1a\x45\xdf\xa3|\x1f\x43\xb6\x75"),
    (MEDIA, "MP4, M4A or QuickTime", rb"\0...(ftyp|styp|moov|moof|mdat|free|wide|skip)"),
    (MEDIA, "AMR", rb"#!AMR"),
    (MEDIA, "EVS, SILK or iLBC", rb"#!EVS_MC|\x02?#!SILK_V3|#!iLBC[23]0"),
    (MEDIA, "WavPack", rb"wvpk"),
    (MEDIA, "Monkey's Audio", rb"MAC [\x80-\xff]"),
    (MEDIA, "Musepack", rb"MPCK|MP\+[\x07\x17\x27]"),
    (MEDIA, "TTA, Shorten, OptimFROG or TAK", rb"TTA[12]|ajkg|OFR |tBaK"),
    (MEDIA, "DSD", rb"DSD \x1c\0|FRM8\0"),
    (MEDIA, "WMA or ASF", rb"\x30\x26\xb2\x75\x8e\x66\xcf\x11"),
    (MEDIA, "AC-3 or E-AC-3", rb"\x0b\x77(..[\x00-\x25\x40-\x65\x80-\xa5][\x30-\x57]|...[\x80-\x87])"),
    (MEDIA, "DTS", rb"\x7f\xfe\x80\x01|\xfe\x7f\x01\x80"),
    (MEDIA, "FLV or NUT", rb"FLV\x01|nut/multimedia"),
    (MEDIA, "RealMedia", rb"\.RMF\0|\.ra\xfd\0"),
    (MEDIA, "MPEG program stream", rb"\0\0\x01\xba"),
    (MEDIA, "MIDI", rb"MThd\0\0\0\x06"),
    (OTHER, "gzip", rb"\x1f\x8b\x08[\x00-\x1f]"),
    (OTHER, "ZIP", rb"PK(\x03\x04|\x05\x06|\x07\x08)"),
    (
        OTHER,
        "bzip2, xz, Zstandard, 7z or RAR",
        rb"BZh[1-9]1AY&SY|\xfd7zXZ\0|\x28\xb5\x2f\xfd|7z\xbc\xaf|Rar!\x1a",
    ),
    (OTHER, "a picture", rb"\x89PNG\r\n|\xff\xd8\xff[\xc0-\xfe]|GIF8[79]a"),
    (OTHER, "PDF", rb"%PDF-"),
    (OTHER, "a NumPy array", rb"\x93NUMPY"),
    (OTHER, "a program", rb"\x7fELF[\x01\x02]"),
    (
        NETWORK,
        "HTTP",
        rb"(GET|POST|PUT|HEAD|OPTIONS|DELETE|PATCH|CONNECT|SOURCE) [/*hr]|PRI \* HTTP/2|HTTP/\d|ICY 200",
    ),
    (NETWORK, "TLS", rb"\x16\x03[\x00-\x04]..[\x01\x02]\0"),
    (NETWORK, "SSH", rb"SSH-\d"),
    (OTHER, "JSON", rb"(\xef\xbb\xbf)?[\s\[{]{1,16}\"\w+\"\s*[:,]"),
    (OTHER, "XML or HTML", rb"(\xef\xbb\xbf)?<(\?xml|!DOCTYPE|html)"),
)
_TABLE: Final = tuple(
    (Signature(name, kind), re.compile(pattern, re.DOTALL)) for kind, name, pattern in _PATTERNS
)
_TEXT: Final = re.compile(rb"[\t\n\r\x20-\x7e]{%d}" % TEXT_BYTES)
_SYNC: Final = re.compile(rb"\xff(?=[\xe0-\xff])")
"""Sync bits of an MPEG audio or ADTS frame."""
_TRANSPORT: Final = re.compile(
    rb"(?=(\x47[\x00-\x7f].[\x10-\x3f\x50-\x7f\x90-\xbf\xd0-\xff].{184}){4}\x47)", re.DOTALL
)


def find_signature(beginning: bytes) -> Signature | None:
    """Find the signature at the beginning of a stream; None for raw sound, and while too few bytes are there.

    Args:
        beginning: the first bytes of the stream, at most `LONGEST_BEGINNING`.
    """
    for signature, pattern in _TABLE:
        if pattern.match(beginning):
            return signature
    if _TEXT.match(beginning):
        return Signature("text", OTHER)
    return _framed(beginning) if len(beginning) >= LONGEST_BEGINNING else None


def _framed(beginning: bytes) -> Signature | None:
    if _frames_follow(beginning, _mpeg_length):
        return Signature("MP3", READABLE)
    if _frames_follow(beginning, _adts_length):
        return Signature("AAC", MEDIA)
    if (found := _TRANSPORT.search(beginning)) and found.start() < TRANSPORT_PACKET:
        return Signature("MPEG transport stream", MEDIA)
    return None


def _frames_follow(data: bytes, length: Callable[[bytes], int]) -> bool:
    """Tell whether `FRAMES_IN_A_ROW` frames follow each other anywhere: a stream may begin inside a frame."""
    for sync in _SYNC.finditer(data):
        at = sync.start()
        for _ in range(FRAMES_IN_A_ROW):
            step = length(data[at : at + 8])
            if not step:
                break
            at += step
        else:
            return True
    return False


def _mpeg_length(data: bytes) -> int:
    header = frame_header(data[:HEADER_BYTES])
    return header.length if header else 0


def _adts_length(data: bytes) -> int:
    """Return the bytes of an AAC frame with its ADTS header (ISO/IEC 13818-7, 6.2); 0 if it is none."""
    if len(data) < 7 or data[0] != 0xFF or data[1] & 0xF6 != 0xF0 or data[2] >> 2 & 15 > 12:
        return 0
    length = (data[3] & 3) << 11 | data[4] << 3 | data[5] >> 5
    return length if length > 7 else 0
