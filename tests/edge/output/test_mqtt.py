"""Publishing against a real broker, on the loopback, and against none."""

from __future__ import annotations

import contextlib
import gc
import getpass
import secrets
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.errors import UsageError
from edge.events import Overrun, Session
from edge.output import mqtt
from edge.output.mqtt import Mqtt, MqttDestination, disconnect_client, parse_destination
from tests.edge.schema import checked

client_module = pytest.importorskip("paho.mqtt.client", reason="paho-mqtt is not installed")

BROKER = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")

PASSWORDS = shutil.which("mosquitto_passwd")

OPENSSL = shutil.which("openssl")

needs_broker = pytest.mark.skipif(BROKER is None, reason="mosquitto is not installed")

needs_passwords = pytest.mark.skipif(
    BROKER is None or PASSWORDS is None, reason="mosquitto or mosquitto_passwd is not installed"
)

needs_certificates = pytest.mark.skipif(
    BROKER is None or OPENSSL is None, reason="mosquitto or openssl is not installed"
)

SESSION = Session("demo", "default", None, "cpu", ("happy",), 3.0, 0.24, False)

SOON_S = 60.0
"""No test waits for this long, unless it fails."""


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a busy machine take its time to shake hands."""
    monkeypatch.setattr(mqtt, "CONNECT_S", SOON_S)


@pytest.fixture
def collected() -> Iterator[None]:
    """Collect what a test leaves to the garbage collector, or its complaint would meet a later test."""
    yield
    gc.collect()


def leaves_a_connection(test: Callable[..., None]) -> Any:
    """Mark a test of TLS that fails: the client closes no such connection itself."""
    unclosed = pytest.mark.filterwarnings("ignore:unclosed <ssl.SSLSocket:ResourceWarning")
    return pytest.mark.usefixtures("collected")(unclosed(test))


def free_port() -> int:
    """Find a port below those that are lent to whoever asks for any, so that nobody takes it meanwhile."""
    while True:
        port = 20_000 + secrets.randbelow(12_000)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


def wait_for(truth: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SOON_S
    while not truth():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1.0):
        return True
    return False


def target(port: int, topic: str = "mmtl", login: str = "", **options: Any) -> MqttDestination:
    """Name a broker on this machine; the login is USER:PASSWORD."""
    user, _, password = login.partition(":")
    environment = {"MMTL_MQTT_USER": user, "MMTL_MQTT_PASSWORD": password}
    return parse_destination(f"127.0.0.1:{port}/{topic}", environment=environment, **options)


@contextlib.contextmanager
def broker(folder: Path, port: int, *settings: str, anybody: bool = True) -> Iterator[None]:
    """Run a broker for this machine, which takes anybody unless told otherwise."""
    assert BROKER
    configuration = folder / "broker.conf"
    # Started by root, mosquitto would become a user who cannot read the test's files.
    common = [f"user {getpass.getuser()}", f"allow_anonymous {str(anybody).lower()}"]
    lines = [*common, f"listener {port} 127.0.0.1", *settings]
    configuration.write_text("\n".join(lines) + "\n", "utf-8")
    command = [BROKER, "-c", str(configuration)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            wait_for(lambda: answers(port))
            yield
        finally:
            process.terminate()


@contextlib.contextmanager
def reader(
    port: int, topic: str, login: str = "", authority: Path | None = None
) -> Iterator[list[tuple[str, str]]]:
    """Collect (topic, payload) of what is published."""
    heard: list[tuple[str, str]] = []
    subscribed = threading.Event()
    client = client_module.Client(client_module.CallbackAPIVersion.VERSION2)

    def on_connect(client: Any, *_: Any) -> None:
        client.subscribe(topic)

    client.on_connect = on_connect
    client.on_subscribe = lambda *_: subscribed.set()
    client.on_message = lambda _client, _data, message: heard.append(
        (message.topic, message.payload.decode())
    )
    if login:
        client.username_pw_set(*login.split(":"))
    if authority:
        client.tls_set(str(authority))
    client.connect_async("127.0.0.1", port)
    client.loop_start()
    try:
        assert subscribed.wait(SOON_S)
        yield heard
    finally:
        disconnect_client(client)


@pytest.fixture
def passwords(tmp_path: Path) -> str:
    """Make a file of passwords; return the setting of a broker that knows anna alone."""
    assert PASSWORDS
    path = tmp_path / "passwords"
    subprocess.run([PASSWORDS, "-b", "-c", path, "anna", "secret"], check=True, stderr=subprocess.DEVNULL)
    return f"password_file {path}"


@dataclass(frozen=True)
class Certificates:
    """An authority, a broker that it vouches for as 127.0.0.1, and another authority."""

    authority: Path
    other: Path
    settings: tuple[str, ...]


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    folder = tmp_path_factory.mktemp("certificates")
    own, other = (self_signed(folder, name) for name in ("own", "other"))
    request, extension = folder / "broker.csr", folder / "broker.ext"
    extension.write_text("subjectAltName=IP:127.0.0.1\n", "utf-8")
    openssl("req", *new_key(folder, "broker"), "-out", request)
    signing = ("-req", "-in", request, "-CA", own, "-CAkey", own.with_suffix(".key"), "-CAcreateserial")
    openssl("x509", *signing, "-days", "2", "-extfile", extension, "-out", folder / "broker.pem")
    settings = (f"certfile {folder / 'broker.pem'}", f"keyfile {folder / 'broker.key'}")
    return Certificates(own, other, (f"cafile {own}", *settings))


def self_signed(folder: Path, name: str) -> Path:
    path = folder / f"{name}.pem"
    openssl("req", "-x509", "-days", "2", *new_key(folder, name), "-out", path)
    return path


def new_key(folder: Path, name: str) -> tuple[str | Path, ...]:
    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    return (*curve, "-subj", f"/CN={name}", "-keyout", folder / f"{name}.key")


def openssl(*arguments: str | Path) -> None:
    assert OPENSSL
    subprocess.run([OPENSSL, *arguments], check=True, capture_output=True)


@needs_broker
def test_every_event_is_published_under_its_type_in_order(tmp_path: Path) -> None:
    port, said = free_port(), list[str]()
    with broker(tmp_path, port), reader(port, "home/kitchen/#") as heard:
        with Mqtt(target(port, "home/kitchen"), said.append) as sink:
            sink.emit(SESSION)
            for number in range(200):
                sink.emit(Overrun(float(number), 0.1))
        wait_for(lambda: len(heard) == 201)
    events = [checked(payload) for _, payload in heard]
    assert [topic for topic, _ in heard[:2]] == ["home/kitchen/session", "home/kitchen/overrun"]
    assert [event["start_s"] for event in events[1:]] == list(range(200))
    assert said == []


@needs_broker
def test_a_broker_that_comes_late_gets_what_waited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mqtt, "MOST_WAITING", 3)
    monkeypatch.setattr(mqtt, "CLOSE_S", SOON_S)
    port, said = free_port(), list[str]()
    sink = Mqtt(target(port), said.append)
    for number in range(5):
        sink.emit(Overrun(float(number), 0.1))
    wait_for(lambda: bool(said))
    with contextlib.ExitStack() as stack:
        with sink._changed:  # it may connect meanwhile, but not publish
            stack.enter_context(broker(tmp_path, port))
            heard = stack.enter_context(reader(port, "mmtl/overrun"))
        sink.close()
        wait_for(lambda: len(heard) >= 3)
    assert [checked(payload)["start_s"] for _, payload in heard] == [2.0, 3.0, 4.0]
    assert said[-1] == f"2 events were not delivered to the MQTT broker at 127.0.0.1:{port}"


@needs_broker
def test_a_broker_that_restarts_is_found_again(tmp_path: Path) -> None:
    port, said = free_port(), list[str]()
    with contextlib.ExitStack() as stack:
        with broker(tmp_path, port):
            sink = Mqtt(target(port), said.append)
            stack.callback(sink.close)
            sink.emit(SESSION)
            wait_for(lambda: sink.undelivered == 0)
        wait_for(lambda: len(said) == 1)
        sink.emit(Overrun(1.0, 0.1))
        with broker(tmp_path, port):
            wait_for(lambda: sink.undelivered == 0)
            stack.close()
    assert "retrying" in said[0]
    assert len(said) == 1


@needs_passwords
def test_a_broker_that_asks_for_a_password_gets_it(tmp_path: Path, passwords: str) -> None:
    port, said = free_port(), list[str]()
    with broker(tmp_path, port, passwords, anybody=False), reader(port, "mmtl/#", "anna:secret") as heard:
        with Mqtt(target(port, login="anna:secret"), said.append) as sink:
            sink.emit(SESSION)
        wait_for(lambda: len(heard) == 1)
    assert said == []


@needs_passwords
@pytest.mark.parametrize(
    ("login", "whom"),
    [("anna:wr0ng", "user anna"), ("bob:wr0ng", "user bob"), ("", "clients without a user name")],
)
def test_a_broker_that_refuses_us_is_said_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, passwords: str, login: str, whom: str
) -> None:
    monkeypatch.setattr(mqtt, "CLOSE_S", 0.0)
    port, said = free_port(), list[str]()
    with contextlib.ExitStack() as stack:
        stack.enter_context(broker(tmp_path, port, passwords, anybody=False))
        sink = stack.enter_context(Mqtt(target(port, login=login), said.append))
        sink.emit(SESSION)
        wait_for(lambda: bool(said))
    assert said == [
        f"the MQTT broker at 127.0.0.1:{port} refuses {whom} (Not authorized): "
        "check the user name and MMTL_MQTT_PASSWORD; retrying",
        f"1 events were not delivered to the MQTT broker at 127.0.0.1:{port}",
    ]


@needs_passwords
def test_a_broker_that_goes_on_refusing_us_is_said_once(tmp_path: Path, passwords: str) -> None:
    refusals, port, said = list[object](), free_port(), list[str]()

    class Counting(Mqtt):
        def _on_connect(self, *arguments: Any) -> None:
            super()._on_connect(*arguments)
            refusals.append(arguments)

    with contextlib.ExitStack() as stack:
        stack.enter_context(broker(tmp_path, port, passwords, anybody=False))
        stack.enter_context(Counting(target(port), said.append))
        wait_for(lambda: len(refusals) == 2)
    assert len(said) == 1


@needs_passwords
def test_a_broker_that_comes_back_and_now_refuses_us_is_said_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, passwords: str
) -> None:
    monkeypatch.setattr(mqtt, "CLOSE_S", 0.1)
    port, said = free_port(), list[str]()
    with contextlib.ExitStack() as stack:
        with broker(tmp_path, port):
            sink = Mqtt(target(port), said.append)
            stack.callback(sink.close)
            wait_for(lambda: sink._connected)
        wait_for(lambda: len(said) == 1)
        with broker(tmp_path, port, passwords, anybody=False):
            wait_for(lambda: len(said) == 2)
    assert "retrying until there is one" in said[0]
    assert "refuses clients without a user name" in said[1]


@needs_certificates
def test_a_broker_that_its_authority_vouches_for_is_published_to_over_tls(
    tmp_path: Path, certificates: Certificates
) -> None:
    port, said, authority = free_port(), list[str](), certificates.authority
    with broker(tmp_path, port, *certificates.settings), reader(port, "mmtl/#", "", authority) as heard:
        with Mqtt(target(port, authority=authority), said.append) as sink:
            sink.emit(SESSION)
        wait_for(lambda: len(heard) == 1)
    assert said == []


@needs_certificates
@leaves_a_connection
@pytest.mark.parametrize("wrong", ["authority", "system", "host"])
def test_a_broker_that_nobody_vouches_for_gets_nothing_and_is_said_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, certificates: Certificates, wrong: str
) -> None:
    monkeypatch.setattr(mqtt, "CLOSE_S", 0.0)
    port, said = free_port(), list[str]()
    known = {"authority": certificates.other, "system": None, "host": certificates.authority}[wrong]
    host = "localhost" if wrong == "host" else "127.0.0.1"
    where = parse_destination(f"mqtts://{host}:{port}/mmtl", authority=known)
    with broker(tmp_path, port, *certificates.settings), Mqtt(where, said.append) as sink:
        sink.emit(SESSION)
        wait_for(lambda: bool(said))
    assert len(said) == 2
    assert said[0].startswith(f"the MQTT broker at {host}:{port} cannot be trusted (")
    assert "name the certificate of its CA with --mqtt-ca" in said[0]
    assert ("not valid for 'localhost'" in said[0]) == (wrong == "host")
    assert said[1].startswith("1 events were not delivered")


@needs_passwords
@needs_certificates
def test_a_broker_with_tls_and_a_password_that_restarts_is_found_again(
    tmp_path: Path, certificates: Certificates, passwords: str
) -> None:
    port, said, authority = free_port(), list[str](), certificates.authority
    settings = (*certificates.settings, passwords)
    with contextlib.ExitStack() as stack:
        with broker(tmp_path, port, *settings, anybody=False):
            sink = Mqtt(target(port, login="anna:secret", authority=authority), said.append)
            stack.callback(sink.close)
            sink.emit(SESSION)
            wait_for(lambda: sink.undelivered == 0)
        wait_for(lambda: len(said) == 1)
        with broker(tmp_path, port, *settings, anybody=False), contextlib.ExitStack() as meanwhile:
            with sink._changed:  # it may connect meanwhile, but not publish
                heard = meanwhile.enter_context(reader(port, "mmtl/overrun", "anna:secret", authority))
            sink.emit(Overrun(1.0, 0.1))
            wait_for(lambda: len(heard) == 1)
            stack.close()
    assert len(said) == 1
    assert said[0].startswith(f"no MQTT broker at 127.0.0.1:{port} (")


@needs_certificates
@leaves_a_connection
def test_a_broker_that_expects_tls_or_does_not_is_guessed_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, certificates: Certificates
) -> None:
    monkeypatch.setattr(mqtt, "CLOSE_S", 0.0)
    port, plain, said = free_port(), free_port(), list[str]()
    settings = (*certificates.settings, f"listener {plain} 127.0.0.1")
    with broker(tmp_path, port, *settings), contextlib.ExitStack() as stack:
        stack.enter_context(Mqtt(target(port), said.append))
        wait_for(lambda: len(said) == 1)
        stack.enter_context(Mqtt(target(plain, authority=certificates.authority), said.append))
        wait_for(lambda: len(said) == 2)
    assert "does it expect mqtts://?" in said[0]
    assert "no answer over TLS" in said[1]


@leaves_a_connection
def test_a_broker_that_never_shakes_hands_is_given_up_for_the_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mqtt, "CLOSE_S", 0.0)
    monkeypatch.setattr(mqtt, "CONNECT_S", 0.2)
    said: list[str] = []
    with contextlib.ExitStack() as stack:
        silent = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        where = parse_destination(f"mqtts://127.0.0.1:{silent.getsockname()[1]}/mmtl")
        stack.enter_context(Mqtt(where, said.append))
        wait_for(lambda: bool(said))
    assert "(no answer over TLS)" in said[0]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("nowhere.pem", None, "No such file"),
        ("empty.pem", "", "it holds none"),
        ("text.pem", "Dear diary\n", "it holds none"),
        (".", None, "Is a directory"),
    ],
)
def test_a_file_without_certificates_is_a_usage_error(
    tmp_path: Path, name: str, content: str | None, said: str
) -> None:
    if content is not None:
        (tmp_path / name).write_text(content, "utf-8")
    with pytest.raises(UsageError, match=f"cannot read a certificate from .*{said}.*name the file"):
        Mqtt(target(1883, authority=tmp_path / name), print)


def test_no_broker_never_holds_up_the_recognizer_and_is_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mqtt, "CLOSE_S", 0.1)
    port, said, emitted = free_port(), list[str](), threading.Event()
    connect = client_module.Client._create_socket_connection

    def slow(client: Any) -> Any:
        emitted.wait(SOON_S)
        return connect(client)

    monkeypatch.setattr(client_module.Client, "_create_socket_connection", slow)
    sink = Mqtt(target(port), said.append)
    for _ in range(3_000):
        sink.emit(SESSION)
    assert said == [], "it has waited for the network"
    assert len(sink._waiting) == mqtt.MOST_WAITING
    emitted.set()
    wait_for(lambda: bool(said))
    sink.close()
    sink.close()
    sink.emit(SESSION)
    assert len(said) == 2
    assert said[0].startswith(f"no MQTT broker at 127.0.0.1:{port} (no answer)")
    assert said[1].startswith("3000 events were not delivered")


def test_a_client_whose_thread_ends_before_it_is_joined_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    sink = Mqtt(target(free_port()), list[str]().append)
    client, this = sink._client, threading.current_thread()

    def late() -> threading.Thread:  # loop_stop asks once it has seen that there is a thread
        wait_for(lambda: client._thread is None)
        return this

    slow = SimpleNamespace(**{**vars(threading), "current_thread": late})
    monkeypatch.setattr(client_module, "threading", slow)
    sink.close()
    assert client._thread is None


def test_a_broker_that_never_answers_bounds_what_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mqtt, "CLOSE_S", 0.1)
    said: list[str] = []
    with contextlib.ExitStack() as stack:
        silent = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        sink = Mqtt(target(silent.getsockname()[1]), said.append)
        stack.callback(sink.close)
        for _ in range(2_000):
            sink.emit(SESSION)
        assert len(sink._waiting) <= mqtt.MOST_WAITING
    assert said[-1].startswith("2000 events were not delivered")


def test_a_broker_that_takes_nothing_more_bounds_what_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mqtt, "CLOSE_S", 0.1)
    monkeypatch.setattr(mqtt, "MOST_WAITING", 10)
    said: list[str] = []
    large = replace(SESSION, source=1_000_000 * "a")
    with contextlib.ExitStack() as stack:
        stuck = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        sink = Mqtt(target(stuck.getsockname()[1]), said.append)
        stack.callback(sink.close)
        connection = stack.enter_context(stuck.accept()[0])
        connection.sendall(b"\x20\x02\0\0")  # CONNACK, and nothing is read ever after
        wait_for(lambda: sink._connected)
        for _ in range(100):
            sink.emit(large)
        assert len(sink._waiting) == 10
        assert sink._in_flight <= mqtt.AT_ONCE
    assert "events were not delivered" in said[-1]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("localhost/mmtl", MqttDestination("localhost", 1883, "mmtl")),
        ("192.168.1.5:8883/home/kitchen/", MqttDestination("192.168.1.5", 8883, "home/kitchen")),
        ("[::1]:1884/mmtl", MqttDestination("::1", 1884, "mmtl")),
        ("[::1]/mmtl", MqttDestination("::1", 1883, "mmtl")),
        ("mqtt://localhost/mmtl", MqttDestination("localhost", 1883, "mmtl")),
        ("mqtts://localhost/mmtl", MqttDestination("localhost", 8883, "mmtl", tls=True)),
        ("anna@localhost/a@b", MqttDestination("localhost", 1883, "a@b", "anna")),
        ("mqtts://anna@home@[::1]:99/mmtl", MqttDestination("::1", 99, "mmtl", "anna@home", tls=True)),
    ],
)
def test_a_target_names_host_port_and_topic(text: str, expected: MqttDestination) -> None:
    assert parse_destination(text) == expected


def test_a_login_comes_from_the_environment_and_a_user_who_is_named_first_of_all() -> None:
    environment = {"MMTL_MQTT_USER": "bob:1", "MMTL_MQTT_PASSWORD": "s3cret"}
    found = parse_destination("localhost/mmtl", environment=environment)
    assert (found.user, found.password) == ("bob:1", "s3cret")
    assert parse_destination("anna@localhost/mmtl", environment=environment).user == "anna"
    assert parse_destination("localhost/mmtl", environment={"MMTL_MQTT_USER": ""}).user is None
    assert "s3cret" not in repr(found)


def test_a_password_without_a_user_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="no user name") as raised:
        parse_destination("localhost/mmtl", environment={"MMTL_MQTT_PASSWORD": "s3cret"})
    assert "s3cret" not in str(raised.value)


@pytest.mark.parametrize("content", [b"s3cret word", b"s3cret word\n", b"s3cret word\r\n"])
def test_a_password_comes_from_a_file_before_the_environment(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "password"
    path.write_bytes(content)
    environment = {"MMTL_MQTT_PASSWORD": "another"}
    found = parse_destination("anna@localhost/mmtl", password_file=path, environment=environment)
    assert found.password == content.decode().splitlines()[0]


@pytest.mark.parametrize("content", [b"", b"\n", b"s3cret\nmore\n", b"\xff", b"s" * 5_000])
def test_a_file_without_a_password_is_a_usage_error_that_does_not_repeat_it(
    tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "password"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=r"password.*its only line") as raised:
        parse_destination("anna@localhost/mmtl", password_file=path)
    assert "s3cret" not in str(raised.value)


def test_a_password_file_without_a_user_is_a_usage_error(tmp_path: Path) -> None:
    path = tmp_path / "password"
    path.write_text("s3cret\n", "utf-8")
    with pytest.raises(UsageError, match="--mqtt-password-file is set, but no user name"):
        parse_destination("localhost/mmtl", password_file=path)


def test_an_authority_asks_for_tls() -> None:
    authority = Path("own.pem")
    found = parse_destination("localhost/mmtl", authority=authority)
    assert (found.tls, found.port, found.authority) == (True, 8883, authority)


@given(st.text(st.characters(exclude_characters="/"), max_size=8))
def test_a_password_on_the_command_line_is_refused_and_not_repeated(password: str) -> None:
    for place in ("localhost/mmtl", "localhost", ":x/#", ""):
        with pytest.raises(UsageError) as raised:
            parse_destination(f"anna:s3{password}cr3t@{place}")
        assert "cr3t" not in str(raised.value)


@pytest.mark.parametrize(
    "text",
    [
        *("", "localhost", "localhost/", "/mmtl", "localhost:/mmtl", "localhost:0/mmtl", "localhost:x/mmtl"),
        *("localhost:65536/mmtl", "localhost/#", "localhost/a/+/b", "[::1]x/mmtl", "localhost//", "::1/mmtl"),
        *("http://localhost/mmtl", "mqtts:///mmtl", "anna@/mmtl", "@localhost/mmtl", "[/mmtl", "[]/mmtl"),
        *("a..b/mmtl", ".localhost/mmtl", f"{'a' * 64}/mmtl", "localhost/\udce9"),
    ],
)
def test_what_is_no_place_to_publish_to_is_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError, match=r"expected HOST\[:PORT\]/TOPIC"):
        parse_destination(text)
