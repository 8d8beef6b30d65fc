"""Which requests reach the page: the Host header against DNS rebinding, the Origin against other pages."""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from edge.server.access import Access, Address

_HOST: Final = re.compile(r"(?P<name>\[[0-9a-f:.]+\]|[a-z0-9_.-]+)(:\d{1,5})?", re.IGNORECASE)


@dataclass(frozen=True)
class Admission:
    """The rules for Host and Origin.

    A page of another site that resolves its own name to this machine (DNS rebinding) sends that name as the
    Host; an address cannot be rebound. So a Host is an address, a name of this machine, or that of an allowed
    origin.
    """

    names: Collection[str]
    """Host names in lower case, without ports."""
    origins: Collection[str]
    """Origins that are allowed besides the page's own."""
    scheme: str
    """Of the page: "http" or "https"."""

    @staticmethod
    def of(address: Address, access: Access) -> Admission:
        """Return the rules of a server at an address."""
        machine = socket.gethostname().lower()
        allowed = {urlsplit(origin).hostname or "" for origin in access.origins}
        names = {"localhost", address.host.lower(), machine, f"{machine}.local", *allowed} - {""}
        return Admission(frozenset(names), access.origins, "https" if access.tls else "http")

    def admits_host(self, hosts: Sequence[str]) -> bool:
        """Tell whether a request with these Host headers is for this machine."""
        match = _HOST.fullmatch(hosts[0]) if len(hosts) == 1 else None
        if match is None:
            return False
        name = match["name"].strip("[]").lower().removesuffix(".")
        return name in self.names or _is_address(name)

    def admits_origin(self, origins: Sequence[str], host: str) -> bool:
        """Tell whether a page of these Origin headers may connect; programs other than browsers send none."""
        return not origins or (
            len(origins) == 1 and origins[0].lower() in {f"{self.scheme}://{host.lower()}", *self.origins}
        )


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
