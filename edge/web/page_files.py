"""The page's files and the headers they are sent with."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from typing import Final

TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}
"""Media types by suffix; other files are not served."""

CONTENT_SECURITY_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; "
    "trusted-types 'none'"
)
"""Scripts, styles and connections of this server only; text never becomes markup."""

HEADERS: Final = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "Permissions-Policy": "microphone=(self), camera=(), geolocation=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
"""Headers of every answer."""


@dataclass(frozen=True)
class PageFile:
    """A file of the page."""

    media_type: str
    body: bytes


def load_page() -> dict[str, PageFile]:
    """Return the files of the page by their path on the server."""
    folder = resources.files("edge.web") / "page"
    files = {
        f"/{entry.name}": PageFile(TYPES[suffix], entry.read_bytes())
        for entry in folder.iterdir()
        if (suffix := "." + entry.name.rpartition(".")[2]) in TYPES
    }
    return {"/": files["/index.html"], **files}
