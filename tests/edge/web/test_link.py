"""The link that the operator is shown."""

from __future__ import annotations

import io
import ipaddress
from urllib.parse import urlsplit

import pytest

from edge.server.access import Access, Address, with_token
from edge.web import start
from edge.web.link import page_link, print_qr_code

EVERYWHERE = "0.0.0.0"  # noqa: S104 - nothing listens


def test_the_token_is_in_the_fragment_which_no_browser_sends() -> None:
    link = page_link(Address("192.168.1.5", 8_080), Access(token=b"a/b+c"), with_token=True)
    assert link == "http://192.168.1.5:8080/#token=a/b%2Bc"
    assert page_link(Address("::1", 80), Access(token=b"x"), with_token=False) == "http://[::1]:80/"


def test_a_page_on_all_addresses_is_linked_by_one_that_others_can_open() -> None:
    host = urlsplit(page_link(Address(EVERYWHERE, 8_080), Access(), with_token=True)).hostname or ""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        pytest.skip("this machine has no address but the loopback")
    assert not address.is_unspecified
    assert not address.is_loopback


def test_a_page_for_others_gets_a_token_of_its_own() -> None:
    exposed, local = Address(EVERYWHERE, 80), Address("127.0.0.1", 80)
    made = [with_token(exposed, Access()).token for _ in range(2)]
    assert made[0] != made[1]
    assert min(len(token or b"") for token in made) >= 20
    assert with_token(local, Access()).token is None
    assert with_token(exposed, Access(token=b"mine")).token == b"mine"


def test_the_code_fits_a_terminal_of_80_columns() -> None:
    access = with_token(Address(EVERYWHERE, 80), Access())
    drawn = io.StringIO()
    print_qr_code(page_link(Address("192.168.100.100", 65_535), access, with_token=True), drawn)
    lines = drawn.getvalue().splitlines()
    assert len(lines) > 10
    assert (
        max(len(line.replace("\x1b[7m", "").replace("\x1b[49m", "").replace("\x1b[0m", "")) for line in lines)
        <= 80
    )


@pytest.mark.parametrize(("generated", "shown"), [(True, True), (False, False)])
def test_a_log_gets_the_token_only_if_no_file_has_it(generated: bool, shown: bool) -> None:
    said: list[str] = []
    start.show_link(Address("10.0.0.1", 80), Access(token=b"secret"), said.append, generated=generated)
    assert ("secret" in said[0]) == shown
