"""The HTTP server of /metrics and /healthz: a thread of its own, so that it answers while a model loads."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socket import AF_INET6
from typing import Any, Final

from edge.errors import UsageError
from edge.metrics.registry import PLAIN_TEXT, Metrics, Response

REQUEST_S: Final = 5.0
"""Longest wait for a client's request, and for it to read the answer."""
NOT_FOUND: Final = Response(HTTPStatus.NOT_FOUND, PLAIN_TEXT, b"see /metrics and /healthz\n")


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64
    metrics: Metrics

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: a client has gone, or sent no HTTP."""


class _Server6(_Server):
    address_family = AF_INET6


class _Handler(BaseHTTPRequestHandler):
    timeout = REQUEST_S
    server: _Server
    server_version = "mmtl"
    sys_version = ""

    def do_GET(self) -> None:
        """Answer with the body."""
        self._answer(body=True)

    def do_HEAD(self) -> None:
        """Answer without the body."""
        self._answer(body=False)

    def _answer(self, *, body: bool) -> None:
        response = self.server.metrics.respond(self.path.partition("?")[0]) or NOT_FOUND
        self.send_response(response.status)
        self.send_header("Content-Type", response.content_type)
        self.send_header("Content-Length", str(len(response.body)))
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()
        if body:
            self.wfile.write(response.body)

    def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002 - the name in the base class
        """Keep no log: Prometheus asks several times a minute."""


@contextlib.contextmanager
def serve_metrics(metrics: Metrics, host: str, port: int) -> Iterator[int]:
    """Serve in a thread of its own; yield the port, which is a free one if 0 is given.

    Raises:
        UsageError: the address cannot be listened on.
    """
    try:
        server = (_Server6 if ":" in host else _Server)((host, port), _Handler)
    except OSError as error:
        raise UsageError(
            f"cannot listen on {host}:{port} for --metrics ({error.strerror or type(error).__name__})",
            remedy="choose another address or port",
        ) from error
    server.metrics = metrics
    thread = threading.Thread(target=server.serve_forever, name="metrics", daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
