"""Who may connect to the server: addresses, tokens, TLS and web pages."""

from __future__ import annotations

import json
import shutil
import socket
import ssl
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edge.errors import UsageError
from edge.server.access import (
    LARGEST_TOKEN_FILE,
    Access,
    Address,
    caution,
    checked_origin,
    load_access,
    parse_address,
    read_token,
    require_protected,
    tls_context,
)
from edge.server.rate_limits import MOST_WAITING, Limits
from tests.cnn_lstm import CNN_LSTM
from tests.edge.schema import checked
from tests.edge.server.clients import (
    END,
    ROOT,
    SOON_S,
    Open,
    connected,
    messages,
    rest,
    said_to,
    serve_process,
    types,
    wait_for,
    websocket,
)

OPENSSL = shutil.which("openssl")
needs_openssl = pytest.mark.skipif(OPENSSL is None, reason="openssl is not installed")

TOKEN = "correct-horse-battery-staple"  # noqa: S105 - only here
GUARDED = Access(token=TOKEN.encode())
SOUND = bytes(3_200)


def line(order: dict[str, object]) -> bytes:
    return json.dumps(order).encode() + b"\n"


# Addresses


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("8765", Address("127.0.0.1", 8765)),
        ("192.168.1.5:80", Address("192.168.1.5", 80)),
        ("[::1]:80", Address("::1", 80)),
        ("localhost:0", Address("localhost", 0)),
    ],
)
def test_an_address_is_on_this_machine_unless_it_says_otherwise(text: str, address: Address) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize("text", ["", "host", "host:", ":80", "65536", "-1", "80.5", "²"])
def test_what_is_no_address_is_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError, match=r"expected \[HOST:\]PORT"):
        parse_address(text)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_a_loopback_address_needs_no_token(host: str) -> None:
    require_protected([Address(host, 80)], Access(), insecure=False)


@pytest.mark.parametrize(
    "host",
    ["0", "::", "192.168.1.5", "10.0.0.1", "fe80::1", "my-machine", "localhost.example.org"],
)
def test_any_other_address_needs_a_token_or_the_users_word(host: str) -> None:
    addresses = [Address("127.0.0.1", 79), Address(host, 80)]
    with pytest.raises(UsageError, match=r"--token-file FILE .*token_urlsafe.*--insecure"):
        require_protected(addresses, Access(), insecure=False)
    require_protected(addresses, Access(), insecure=True)
    require_protected(addresses, GUARDED, insecure=False)


@pytest.mark.parametrize("kind", ["--tcp", "--websocket"])
def test_the_command_refuses_to_serve_everybody_by_accident(kind: str) -> None:
    command = [sys.executable, "-c", "from edge.cli.main import main; main()", "serve", kind, "0.0.0.0:0"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=SOON_S)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "0.0.0.0:0 can be reached from other machines" in done.stderr
    with serve_process(kind, "0.0.0.0:0", "--insecure", "--provider", "cpu") as server:
        assert list(server.ports) == [kind.removeprefix("--")]
        wait_for(lambda: "mmtl: sound and events cross the network unencrypted" in "".join(server.said))


def test_what_is_not_encrypted_is_said_beyond_this_machine() -> None:
    beyond, here = Address("192.168.1.5", 80), Address("127.0.0.1", 80)
    assert caution([here, beyond], GUARDED).startswith("the token, sound and events cross the network")
    assert caution([here], Access()) == ""
    assert caution([beyond], Access(tls=ssl.create_default_context(ssl.Purpose.CLIENT_AUTH))) == ""


# Tokens


@pytest.mark.parametrize("offered", [TOKEN[:-1], TOKEN + "x", TOKEN.upper(), "", "é", "\ud800", None])
def test_only_the_token_is_admitted(offered: str | None) -> None:
    assert GUARDED.admits(TOKEN)
    assert not GUARDED.admits(offered)
    assert Access().admits(offered)


def test_a_token_is_never_printed() -> None:
    assert TOKEN not in repr(GUARDED)


def test_the_token_is_the_one_word_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text(f"  {TOKEN}\r\n")
    assert read_token(path) == TOKEN.encode()
    assert load_access(token_file=path).admits(TOKEN)


@pytest.mark.parametrize("content", [b"", b" \n", b"two words", b"a\nb\n", b"x" * (LARGEST_TOKEN_FILE + 1)])
def test_a_file_without_a_token_is_refused_with_the_remedy(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "token").write_bytes(content)
    with pytest.raises(UsageError, match=r"does not hold a token.*token_urlsafe"):
        read_token(tmp_path / "token")
    for path in (tmp_path / "none", tmp_path, tmp_path / "a\0b"):
        with pytest.raises(UsageError, match=r"cannot read the token file.*token_urlsafe"):
            read_token(path)


def test_a_tcp_client_presents_the_token_on_its_first_line(serving: Open) -> None:
    with serving(access=GUARDED) as running:
        plain = said_to(running, line({"token": TOKEN}) + SOUND)
        assert [event["type"] for event in plain] == ["session", "summary"]
        assert plain[-1]["duration_s"] == 0.1
        for header in (line({"token": TOKEN, "rate": 8_000}), line({"token": TOKEN}) + line({"rate": 8_000})):
            assert said_to(running, header + SOUND)[-1]["duration_s"] == 0.2


@pytest.mark.parametrize(
    "beginning",
    [
        *(
            SOUND,
            b"",
            line({"token": "wrong"}),
            line({"token": None}),
            line({"token": [TOKEN]}),
            line({"rate": 16_000}),
        ),
        *(
            line({"rate": 16_000}) + line({"token": TOKEN}),
            b'{"token": ',
            b'{"token"\xff\n',
            line({"end": True}),
        ),
    ],
)
def test_without_the_token_a_tcp_client_learns_nothing(serving: Open, beginning: bytes) -> None:
    with serving(access=GUARDED) as running:
        (event,) = said_to(running, beginning)
    assert event["type"] == "error"
    assert event["message"].startswith("this server requires a token")
    assert not any("connected" in said for said in running.said)


def test_a_server_without_a_token_takes_any(serving: Open) -> None:
    with serving() as running:
        assert types(said_to(running, line({"token": "any"}) + SOUND)) == ["session", "summary"]


@pytest.mark.parametrize(
    ("query", "options", "first"),
    [
        ("", {"additional_headers": {"Authorization": f"Bearer {TOKEN}"}}, None),
        ("", {"additional_headers": {"Authorization": f"bearer  {TOKEN}"}}, None),
        (f"?rate=16000&token={TOKEN}", {}, None),
        ("", {}, json.dumps({"token": TOKEN})),
    ],
)
def test_a_websocket_client_presents_the_token_by_header_query_or_message(
    serving: Open, query: str, options: dict[str, Any], first: str | None
) -> None:
    with serving(access=GUARDED) as running, websocket(running, query, **options) as client:
        for message in (first, SOUND, END):
            if message is not None:
                client.send(message)
        assert types(messages(client)) == ["session", "summary"]


@pytest.mark.parametrize(
    ("query", "headers"),
    [
        ("?token=wrong", {}),
        ("?token=", {}),
        ("", {"Authorization": "Bearer wrong"}),
        (f"?token={TOKEN}", {"Authorization": "Bearer wrong"}),
    ],
)
def test_a_wrong_token_fails_the_handshake(serving: Open, query: str, headers: dict[str, str]) -> None:
    from websockets.exceptions import InvalidStatus

    with serving(access=GUARDED) as running:
        for _ in range(3):
            with pytest.raises(InvalidStatus, match="401"):
                websocket(running, query, additional_headers=headers)
    assert sum("its token is wrong" in said for said in running.said) == 1


def test_a_wrong_first_message_is_told_so(serving: Open) -> None:
    with serving(access=GUARDED) as running, websocket(running) as client:
        client.send(SOUND)
        assert types(messages(client)) == ["error"]


def test_a_client_that_says_nothing_has_some_seconds_for_its_token(serving: Open) -> None:
    with serving(Limits(token_s=0.2), access=GUARDED) as running, connected(running) as client:
        assert types(rest(client)) == ["error"]


def test_clients_without_a_token_take_no_place_from_those_with_one(serving: Open) -> None:
    limits = Limits(connections=1, token_s=SOON_S, speed=1e6)
    with serving(limits, access=GUARDED) as running:
        waiting = [connected(running) for _ in range(MOST_WAITING - 1)]
        assert types(said_to(running, line({"token": TOKEN}) + SOUND)) == ["session", "summary"]
        waiting += [connected(running), connected(running)]
        (event,) = rest(waiting[-1])
        assert event["message"] == "too many connections: try again later"
        with websocket(running, additional_headers={"Authorization": f"Bearer {TOKEN}"}) as client:
            client.send(END)
            assert types(messages(client)) == ["session", "summary"]
        for idle in waiting:
            idle.close()


def test_the_command_requires_the_token(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text(TOKEN)
    arguments = ("--tcp", "0.0.0.0:0", "--token-file", str(path), "--bundle", str(CNN_LSTM))
    with serve_process(*arguments) as server:
        assert types(said_to(server, SOUND)) == ["error"]
        assert types(said_to(server, line({"token": TOKEN}) + SOUND)) == ["session", "summary"]


# TLS


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A self-signed certificate of 127.0.0.1, and its key."""
    folder = tmp_path_factory.mktemp("tls")
    return folder / "own.pem", make_key(folder, "own")


def make_key(folder: Path, name: str, *options: str) -> Path:
    """Make a certificate and its key; return the path of the key."""
    assert OPENSSL
    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1")
    subject = ("-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1")
    out = ("-keyout", str(folder / f"{name}.key"), "-out", str(folder / f"{name}.pem"))
    command = [OPENSSL, "req", "-x509", "-days", "2", *curve, *subject, *(options or ("-nodes",)), *out]
    subprocess.run(command, check=True, capture_output=True)
    return folder / f"{name}.key"


@needs_openssl
def test_both_kinds_of_port_are_encrypted(serving: Open, certificate: tuple[Path, Path]) -> None:
    access = Access(tls=tls_context(*certificate))
    trusting = ssl.create_default_context(cafile=certificate[0])
    with serving(access=access) as running:
        with trusting.wrap_socket(connected(running), server_hostname="127.0.0.1") as client:
            client.sendall(line({"rate": 8_000}) + SOUND + bytes(1_000))
            with client.makefile("r") as lines:
                assert checked(lines.readline())["type"] == "session"
        address = f"wss://127.0.0.1:{running.ports['websocket']}/"
        with websocket(running, address=address, ssl=trusting) as client:
            client.send(SOUND)
            client.send(END)
            assert messages(client)[-1]["duration_s"] == 0.1
        for kind in ("tcp", "websocket"):
            with socket.create_connection(("127.0.0.1", running.ports[kind]), SOON_S) as plain:
                plain.sendall(b"GET / HTTP/1.1\r\n\r\n" + SOUND)
                assert b"session" not in plain.recv(1_000)
        with trusting.wrap_socket(connected(running), server_hostname="127.0.0.1") as client:
            assert b"session" in client.recv(1_000)


@needs_openssl
def test_a_certificate_and_key_that_cannot_be_used_are_refused(
    certificate: tuple[Path, Path], tmp_path: Path
) -> None:
    own, key = certificate
    locked = make_key(tmp_path, "locked", "-passout", "pass:secret")
    (tmp_path / "text.pem").write_text("no certificate")
    for pair in (
        *((own, make_key(tmp_path, "other")), (tmp_path / "text.pem", key), (own, tmp_path / "text.pem")),
        *((locked.with_suffix(".pem"), locked), (key, own)),
    ):
        with pytest.raises(UsageError, match=r"cannot be used for TLS \(.*PEM, the key without a password"):
            tls_context(*pair)
    for one in ((own, None), (None, key)):
        with pytest.raises(UsageError, match="give both, or neither"):
            tls_context(*one)
    for pair in ((tmp_path / "none", key), (own, tmp_path)):
        with pytest.raises(UsageError, match=r"cannot read .*: name a file in PEM"):
            tls_context(*pair)


@needs_openssl
def test_the_command_serves_over_tls(certificate: tuple[Path, Path]) -> None:
    own, key = map(str, certificate)
    trusting = ssl.create_default_context(cafile=own)
    with serve_process("--tcp", "0", "--tls-cert", own, "--tls-key", key, "--provider", "cpu") as server:
        with trusting.wrap_socket(connected(server), server_hostname="127.0.0.1") as client:
            assert b"session" in client.recv(1_000)
            server.process.terminate()
            with client.makefile("r") as lines:
                assert types([checked(line) for line in lines])[-1] == "summary"
        assert server.process.wait(SOON_S) == 0


# Web pages


def test_a_strange_web_page_may_not_connect_unless_it_is_named_and_a_local_one_may(serving: Open) -> None:
    from websockets.exceptions import InvalidStatus

    refusals: list[int] = []

    def connects(origin: str) -> bool:
        try:
            with websocket(running, origin=origin) as client:
                client.send(END)
                return types(messages(client)) == ["session", "summary"]
        except InvalidStatus as error:
            refusals.append(error.response.status_code)
            return False

    with serving(access=load_access(origins=["https://Example.org/", "null"])) as running:
        assert all(map(connects, ["http://localhost:8000", "http://127.0.0.1", "https://[::1]:1"]))
        assert all(map(connects, ["https://example.org", "null"]))
        assert not any(
            map(connects, ["https://example.org.evil", "http://example.org", "http://localhost.x"])
        )
    assert refusals == [403, 403, 403]
    (said,) = [said for said in running.said if "web page" in said]
    assert said.endswith("was refused: --origin https://example.org.evil would allow it")


def test_two_origins_are_none(serving: Open) -> None:
    assert not Access().admits_page(["http://localhost", "http://localhost"])
    assert Access().admits_page([])


@pytest.mark.parametrize(
    "text", ["", "example.org", "*", "https://", "https://a/b", "https://a b", "a://b?c"]
)
def test_what_is_no_origin_is_a_usage_error(text: str) -> None:
    assert checked_origin(" https://Example.ORG:8443/ ") == "https://example.org:8443"
    with pytest.raises(UsageError, match=r"expected SCHEME://HOST\[:PORT\]"):
        checked_origin(text)


def test_the_command_says_that_a_web_page_was_refused_and_what_to_do() -> None:
    from websockets.exceptions import InvalidStatus

    with serve_process("--websocket", "0", "--provider", "cpu") as server:
        for _ in range(3):
            with pytest.raises(InvalidStatus, match="403"):
                websocket(server, origin="null")
        wait_for(lambda: any("web page" in said for said in server.said))
    (said,) = [said for said in server.said if "web page" in said]
    assert said == "mmtl: a web page from null was refused: --origin null would allow it\n"
    options = ("--websocket", "0", "--provider", "cpu", "--origin", "null")
    with serve_process(*options) as server, websocket(server, origin="null") as client:
        client.send(END)
        assert types(messages(client)) == ["session", "summary"]
