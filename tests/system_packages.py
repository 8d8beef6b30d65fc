"""Which packages of Debian and Ubuntu the tests use, and which of them would enable a skipped test."""

from __future__ import annotations

import re
from collections.abc import Iterable

PACKAGES = {
    "pulseaudio|pactl|paplay|libasound2-plugins|libportaudio2": "libasound2-plugins libportaudio2 pulseaudio",
    "chromium": "chromium",
    "espeak-ng": "espeak-ng",
    "mosquitto": "mosquitto",
    "openssl": "openssl",
    "C compiler": "gcc libc6-dev",
    "strace": "strace",
    "systemd": "systemd",
}
"""By words in the reason why a test is skipped: all packages that such tests need."""


def packages_for(reasons: Iterable[str]) -> list[str]:
    """Return the packages that would enable tests skipped for the reasons, by name."""
    needed = {
        package
        for reason in reasons
        for words, packages in PACKAGES.items()
        if re.search(rf"\b(no|not)\b.*\b({words})\b|\b({words})\b.*\b(no|not)\b", reason)
        for package in packages.split()
    }
    return sorted(needed)
