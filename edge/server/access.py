"""Access control of the server: addresses, the token, TLS and the origins of web pages."""

from __future__ import annotations

import hmac
import ipaddress
import re
import secrets
import ssl
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from edge.errors import UsageError

HOST: Final = "127.0.0.1"
LOCAL_PAGES: Final = re.compile(r"https?://(localhost|127\.0\.0\.1|\[::1\])(:\d+)?")
"""Origins of this machine's web pages, which are always allowed; other pages are not."""
MAKE_TOKEN: Final = 'python3 -c "import secrets; print(secrets.token_urlsafe())" > FILE'  # noqa: S105 - a command
TOKEN_BYTES: Final = 16
"""Random bytes of a token made for one run: short enough for a QR code in 80 columns."""
LARGEST_TOKEN_FILE: Final = 4_096
"""Largest token file, in bytes."""
_ORIGIN: Final = re.compile(r"null|[a-z][a-z0-9+.-]*://[^/?#@\s]+", re.IGNORECASE)


@dataclass(frozen=True)
class Address:
    """An address to listen on."""

    host: str
    port: int

    @property
    def loopback(self) -> bool:
        """Whether only programs on this machine can connect. False for any host name but localhost."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True)
class Access:
    """The rules for connections. The defaults admit every program that can reach the port."""

    token: bytes | None = field(default=None, repr=False)
    """Token that a client must present; None: no token is required."""
    origins: tuple[str, ...] = ()
    """Origins of web pages that may connect besides those of this machine, such as "https://example.org"."""
    tls: ssl.SSLContext | None = None
    """Certificate and key; None: unencrypted."""

    def admits(self, offered: str | None) -> bool:
        """Tell whether a token is correct, by a comparison in constant time."""
        if self.token is None:
            return True
        return offered is not None and hmac.compare_digest(
            offered.encode("utf-8", "surrogatepass"), self.token
        )

    def admits_page(self, origins: Sequence[str]) -> bool:
        """Tell whether a web page may connect, by its Origin headers; other programs send none."""
        if not origins:
            return True
        (origin,) = origins if len(origins) == 1 else ("",)
        return origin in self.origins or LOCAL_PAGES.fullmatch(origin) is not None


def parse_address(text: str) -> Address:
    """Parse [HOST:]PORT; without a host, only programs on this machine can connect.

    Raises:
        UsageError: the text has another form.
    """
    host, colon, port = text.rpartition(":")
    if not (port.isascii() and port.isdigit()) or int(port) > 65_535 or (colon and not host):
        raise UsageError(
            f"{text!r} is not an address, expected [HOST:]PORT", remedy="for example 8765 or 0.0.0.0:8765"
        )
    return Address(host.strip("[]") or HOST, int(port))


def load_access(
    *,
    token_file: Path | None = None,
    certificate: Path | None = None,
    key: Path | None = None,
    origins: Iterable[str] = (),
) -> Access:
    """Load the files that the options name.

    Raises:
        UsageError: a file is unusable, only one of certificate and key is given, or an origin is invalid.
    """
    return Access(
        token=read_token(token_file) if token_file else None,
        origins=tuple(checked_origin(origin) for origin in origins),
        tls=tls_context(certificate, key),
    )


def with_token(address: Address, access: Access) -> Access:
    """Return rules that require a token, one made for this run, if others can reach the address without."""
    if address.loopback or access.token is not None:
        return access
    return replace(access, token=secrets.token_urlsafe(TOKEN_BYTES).encode())


def require_protected(addresses: Iterable[Address], access: Access, *, insecure: bool) -> None:
    """Check that clients on other machines need a token, or that the user waived it.

    Raises:
        UsageError: an address is reachable from other machines and no token is required.
    """
    exposed = [address for address in addresses if not address.loopback]
    if exposed and access.token is None and not insecure:
        raise UsageError(
            f"{exposed[0]} can be reached from other machines",
            remedy=(
                f"require a token with --token-file FILE (create one: {MAKE_TOKEN}), or allow all "
                "clients with --insecure"
            ),
        )


def caution(addresses: Iterable[Address], access: Access) -> str:
    """Return a warning about these rules for the operator; empty without one."""
    exposed = [address for address in addresses if not address.loopback]
    if not exposed or access.tls is not None:
        return ""
    what = "sound and events" if access.token is None else "the token, sound and events"
    return f"{what} cross the network unencrypted: --tls-cert and --tls-key encrypt them"


def read_token(path: Path) -> bytes:
    """Read the token that clients must present: the only line of a file.

    Raises:
        UsageError: the file cannot be read, is empty or holds more than a line.
    """
    try:
        with path.open("rb") as file:
            token = file.read(LARGEST_TOKEN_FILE + 1).strip()
    except (OSError, ValueError) as error:
        raise UsageError(
            f"cannot read the token file {path} ({_reason(error)})", remedy=f"create one with {MAKE_TOKEN}"
        ) from error
    if not token or len(token) > LARGEST_TOKEN_FILE or len(token.split()) != 1:
        raise UsageError(
            f"{path} does not hold a token, expected one word", remedy=f"create one with {MAKE_TOKEN}"
        )
    return token


def tls_context(certificate: Path | None, key: Path | None) -> ssl.SSLContext | None:
    """Load a certificate chain and its key; None if neither is given.

    Raises:
        UsageError: one of the two is missing, or they are unusable.
    """
    if certificate is None and key is None:
        return None
    if certificate is None or key is None:
        raise UsageError("--tls-cert and --tls-key need each other", remedy="give both, or neither")
    for path in (certificate, key):
        _require_readable(path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(certificate, key, password="")
    except (ssl.SSLError, ValueError) as error:
        raise UsageError(
            f"{certificate} and {key} cannot be used for TLS ({_reason(error)})",
            remedy="give a certificate chain and its own key, both PEM, the key without a password",
        ) from error
    return context


def checked_origin(text: str) -> str:
    """Return an origin of web pages in the form that browsers send.

    Raises:
        UsageError: the text is not an origin.
    """
    origin = text.strip().removesuffix("/")
    if not _ORIGIN.fullmatch(origin):
        raise UsageError(
            f"{text!r} is not an origin, expected SCHEME://HOST[:PORT]",
            remedy="for example https://example.org",
        )
    return origin.lower()


def _require_readable(path: Path) -> None:
    try:
        path.open("rb").close()
    except (OSError, ValueError) as error:
        raise UsageError(
            f"cannot read {path} ({_reason(error)})", remedy="name a file in PEM format"
        ) from error


def _reason(error: Exception) -> str:
    return getattr(error, "reason", None) or getattr(error, "strerror", None) or str(error)
