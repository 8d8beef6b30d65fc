"""What `mmtl serve --web` starts: the site of a device, and the link that its operator is shown."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from edge.audio.block import Source
from edge.audio.sources import open_source
from edge.errors import ProfileError, UsageError
from edge.model.bundle import Bundle
from edge.model.profile import kept_profiles, load_profile
from edge.model.profile_names import name_of
from edge.server.access import Access, Address
from edge.server.client_session import Service
from edge.server.client_stream import kept_for_clients
from edge.web.enrolment import find_enrolment
from edge.web.link import page_link, print_qr_code
from edge.web.site import Profiles, Site


def open_site(address: Address, service: Service, source: str, bundle: Bundle) -> Site:
    """Return the site of this device; it neither listens nor records yet.

    Args:
        address: to listen on.
        service: what clients are offered, and the rules of access.
        source: the device's source, as `mmtl run` names it; a file is played in real time.
        bundle: the model, for which profiles are offered.

    Raises:
        UsageError: the source has no name, or is standard input, which cannot be opened twice.
    """
    if source == "-":
        raise UsageError(
            "standard input cannot be the source of the page, which starts and stops it",
            remedy="name a microphone or a file; a browser can send its own sound",
        )
    recognizer = service.make()
    channel, profile = recognizer.settings.channel, recognizer.profile

    def make_source() -> Source:
        return open_source(source, paced=True, channel=channel)

    make_source()
    return Site(
        address,
        service,
        make_source,
        source=source if source.startswith("mic") else Path(source).name,
        profiles=Profiles(
            kept_for_clients(bundle),
            lambda: usable_profiles(bundle),
            profile.name if profile else None,
            find_enrolment(bundle),
        ),
    )


def usable_profiles(bundle: Bundle) -> list[str]:
    """Name the kept profiles that can be applied with a bundle."""
    names = []
    try:
        paths = kept_profiles()
    except (ProfileError, UsageError):  # their folder cannot be read, or there is no home folder
        return []
    for path in paths:
        try:
            load_profile(path, bundle)
        except ProfileError:
            continue
        names.append(name_of(path))
    return names


def show_link(address: Address, access: Access, say: Callable[[str], None], *, generated: bool) -> None:
    """Show the link to the page; in a terminal also as a QR code, if other devices can open it.

    A log gets the token only if no file has it.
    """
    terminal = sys.stderr is not None and sys.stderr.isatty()
    link = page_link(address, access, with_token=terminal or generated)
    say(f"open {link}")
    if terminal and not address.loopback:
        print_qr_code(link, sys.stderr)
