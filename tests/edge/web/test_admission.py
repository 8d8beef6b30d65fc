"""Which Host and Origin a request may have."""

from __future__ import annotations

import socket

import pytest

from edge.server.access import Access, Address
from edge.web.admission import Admission

HERE = Admission.of(Address("192.168.1.5", 8_443), Access(origins=("https://home.example",)))


@pytest.mark.parametrize(
    "host",
    [
        *("localhost:8443", "127.0.0.1", "192.168.1.5:8443", "[::1]:8443", "10.1.2.3"),
        *(socket.gethostname(), f"{socket.gethostname()}.local:8443", "LOCALHOST", "home.example"),
    ],
)
def test_an_address_and_a_name_of_this_machine_are_admitted(host: str) -> None:
    assert HERE.admits_host([host])


@pytest.mark.parametrize(
    "hosts",
    [
        *([], ["evil.example"], ["localhost", "localhost"], ["localhost.evil.example:8443"]),
        *(
            ["127.0.0.1.evil.example"],
            ["localhost:8443@evil.example"],
            ["a b"],
            [""],
            ["[::1"],
            ["home.example/x"],
        ),
    ],
)
def test_another_name_is_refused(hosts: list[str]) -> None:
    assert not HERE.admits_host(hosts)


def test_a_page_s_own_origin_and_the_allowed_ones_are_admitted() -> None:
    assert HERE.admits_origin([], "192.168.1.5:8443")
    assert HERE.admits_origin(["http://192.168.1.5:8443"], "192.168.1.5:8443")
    assert HERE.admits_origin(["https://home.example"], "192.168.1.5:8443")


@pytest.mark.parametrize(
    "origin",
    [
        *("null", "http://evil.example", "https://192.168.1.5:8443", "http://192.168.1.5"),
        *("http://192.168.1.5:9000", "http://localhost:8443"),
    ],
)
def test_another_origin_is_refused(origin: str) -> None:
    assert not HERE.admits_origin([origin], "192.168.1.5:8443")
    assert not HERE.admits_origin(["http://192.168.1.5:8443", origin], "192.168.1.5:8443")
