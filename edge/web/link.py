"""The link to the page: what a person opens, or scans from the terminal."""

from __future__ import annotations

import ipaddress
import socket
import sys
from collections.abc import Iterator
from typing import Final, TextIO
from urllib.parse import quote

from edge.server.access import Access, Address

_SIOCGIFADDR: Final = 0x8915
"""Linux's request for the address of a network interface."""


def page_link(address: Address, access: Access, *, with_token: bool) -> str:
    """Return the link to a page that listens on an address.

    The token is in the fragment, which a browser sends to no server and writes into no header.
    """
    scheme = "https" if access.tls else "http"
    token = f"#token={quote(access.token.decode())}" if access.token and with_token else ""
    return f"{scheme}://{Address(_reachable(address.host), address.port)}/{token}"


def print_qr_code(link: str, stream: TextIO) -> None:
    """Draw a link as a QR code of half-block characters."""
    import segno

    segno.make(link, micro=False, error="l").terminal(out=stream, compact=True, border=2)


def _reachable(host: str) -> str:
    """Return the host, or an address of this machine if it listens on all of them."""
    try:
        if not ipaddress.ip_address(host).is_unspecified:
            return host
    except ValueError:
        return host
    return next(_addresses(), socket.gethostname())


def _addresses() -> Iterator[str]:
    """Yield the IPv4 addresses of this machine's interfaces, the loopback left out. Nothing is sent."""
    if sys.platform != "linux":
        return
    import fcntl
    import struct

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            try:
                answer = fcntl.ioctl(probe, _SIOCGIFADDR, struct.pack("256s", name.encode()[:15]))
            except OSError:  # an interface without an address
                continue
            address = socket.inet_ntoa(answer[20:24])
            if not ipaddress.ip_address(address).is_loopback:
                yield address
