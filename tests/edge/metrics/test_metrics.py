"""What Prometheus is told of a stream, and when a process says that it is ready."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from pathlib import Path

import pytest

from edge.errors import UsageError
from edge.events import (
    Device,
    Drift,
    EngineChange,
    Error,
    Event,
    Overrun,
    Session,
    StreamWarning,
    Summary,
    Utterance,
    Window,
)
from edge.recognition.recognizer import Recognizer
from edge.server.client_session import Service
from tests.edge.server.clients import FAST, connected, open_server, said_to, wait_for

parser = pytest.importorskip("prometheus_client.parser", reason="prometheus_client is not installed")

from edge.metrics.endpoint import serve_metrics  # noqa: E402 - needs the package
from edge.metrics.registry import Metrics  # noqa: E402

ROOT = Path(__file__).parents[3]
DASHBOARD = ROOT / "examples" / "grafana_dashboard.json"
SOON_S = 60.0
SESSION = Session("anna's microphone", "default", "anna", "tensorrt", ("happy",), 3.0, 0.24, False)
SUMMARY = Summary(9.0, 30, 2, 0, {}, 0.1)
PROBS = {"neutral": 0.1, "happy": 0.7, "sad": 0.1, "angry": 0.1}


def window(lag_ms: float = 40.0, *, speech: bool = True) -> Window:
    spent = {"queue": 3.0, "front_end": 1.0, "encoder": 12.0, "classifier": 0.4}
    return Window(0.0, 3.0, PROBS, PROBS, "happy", speech, -20.0, spent, lag_ms)


def told(metrics: Metrics) -> dict[str, float]:
    """Return each sample as Prometheus names it, without the process's own."""
    response = metrics.respond("/metrics")
    assert response
    samples = {}
    for family in parser.text_string_to_metric_families(response.body.decode()):
        for sample in family.samples:
            labels = ",".join(f"{key}={value}" for key, value in sorted(sample.labels.items()))
            samples[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return samples


def after(*events: Event) -> dict[str, float]:
    metrics = Metrics("1.0")
    stream = metrics.stream()
    for event in events:
        stream.emit(event)
    return told(metrics)


def test_windows_are_counted_with_their_lag_and_the_time_of_each_stage() -> None:
    seen = after(SESSION, window(), window(1_500.0), window(speech=False))
    assert (seen["mmtl_windows_total{speech=true}"], seen["mmtl_windows_total{speech=false}"]) == (2, 1)
    assert seen["mmtl_lag_seconds_count"] == 3
    assert seen["mmtl_lag_seconds_sum"] == pytest.approx(1.58)
    assert seen["mmtl_lag_seconds_bucket{le=1.0}"] == 2
    assert seen["mmtl_compute_seconds_sum{stage=encoder}"] == pytest.approx(0.036)
    assert seen["mmtl_queue_seconds_sum"] == pytest.approx(0.009)
    assert "mmtl_compute_seconds_sum{stage=queue}" not in seen, "waiting is not compute"


def test_a_loss_is_counted_once_with_its_cause() -> None:
    lost, back = Device(2.0, "usb", "lost"), Device(5.0, "usb", "back")
    seen = after(SESSION, Overrun(1.0, 0.1), lost, Overrun(2.0, 3.0), back, Overrun(6.0, 0.2))
    assert seen["mmtl_losses_total{cause=overrun}"] == 2
    assert seen["mmtl_lost_seconds_total{cause=overrun}"] == pytest.approx(0.3)
    assert seen["mmtl_losses_total{cause=device}"] == 1
    assert seen["mmtl_lost_seconds_total{cause=device}"] == pytest.approx(3.0)


def test_losses_begin_at_zero_so_that_the_first_is_an_increase() -> None:
    assert after()["mmtl_losses_total{cause=overrun}"] == 0


def test_a_stream_is_counted_where_it_is_computed_until_it_ends() -> None:
    change = EngineChange(4.0, "cpu", "the GPU is lost")
    assert after(SESSION)["mmtl_streams{provider=tensorrt}"] == 1
    moved = after(SESSION, SESSION, change)
    assert (moved["mmtl_streams{provider=tensorrt}"], moved["mmtl_streams{provider=cpu}"]) == (0, 1)
    assert (moved["mmtl_streams_begun_total"], moved["mmtl_engine_changes_total"]) == (1, 1)
    assert after(SESSION, change, SUMMARY)["mmtl_streams{provider=cpu}"] == 0


def test_a_stream_that_breaks_off_without_a_summary_is_no_longer_counted() -> None:
    metrics = Metrics("1.0")
    with metrics.stream() as stream:
        stream.emit(SESSION)
        stream.emit(Error("gone"))
    seen = told(metrics)
    assert (seen["mmtl_streams{provider=tensorrt}"], seen["mmtl_streams_failed_total"]) == (0, 1)


def test_nothing_says_what_was_recognised_or_whose_sound_it_was() -> None:
    metrics = Metrics("1.0")
    stream = metrics.stream()
    drift = Drift(3.0, "level", 9.0, 6.0, "dB", "calibrate anna again")
    utterance = Utterance(0.0, 3.0, PROBS, "happy", 3)
    for event in (SESSION, window(), utterance, drift, StreamWarning(1.0, "lag", "anna is late"), SUMMARY):
        stream.emit(event)
    response = metrics.respond("/metrics")
    assert response
    assert re.findall(b"anna|happy|sad|angry|neutral", response.body) == []
    seen = told(metrics)
    assert (seen["mmtl_warnings_total{subject=lag}"], seen["mmtl_drifts_total{subject=level}"]) == (1, 1)


def get(port: int, path: str, method: str = "GET") -> tuple[int, str]:
    connection = HTTPConnection("127.0.0.1", port, timeout=SOON_S)
    with contextlib.closing(connection):
        connection.request(method, path)
        response = connection.getresponse()
        return response.status, response.read().decode()


@pytest.fixture
def metrics() -> Metrics:
    return Metrics("1.0")


@pytest.fixture
def port(metrics: Metrics) -> Iterator[int]:
    with serve_metrics(metrics, "127.0.0.1", 0) as port:
        yield port


def test_a_process_is_healthy_while_it_is_ready(metrics: Metrics, port: int) -> None:
    assert get(port, "/healthz") == (503, "starting\n")
    sink = metrics.readiness()
    sink.emit(SESSION)
    assert get(port, "/healthz?why") == (200, "ready\n")
    assert "mmtl_ready 1.0" in get(port, "/metrics")[1]
    sink.emit(SUMMARY)
    assert get(port, "/healthz") == (503, "the sound has ended\n")


def test_memory_is_reported_and_other_paths_are_not_found(port: int) -> None:
    assert "process_resident_memory_bytes" in get(port, "/metrics")[1]
    assert get(port, "/metrics", "HEAD") == (200, "")
    assert get(port, "/")[0] == get(port, "/../etc/passwd")[0] == 404
    assert get(port, "/metrics", "POST")[0] == 501


def test_clients_that_say_nothing_do_not_keep_others_waiting(port: int) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(20):
            stack.enter_context(socket.create_connection(("127.0.0.1", port)))
        began_s = time.monotonic()
        assert get(port, "/healthz")[0] == 503
        assert time.monotonic() - began_s < SOON_S / 2


def test_a_port_in_use_is_a_usage_error(metrics: Metrics, port: int) -> None:
    with pytest.raises(UsageError, match=rf"cannot listen on 127.0.0.1:{port} for --metrics"):
        serve_metrics(metrics, "127.0.0.1", port).__enter__()


def test_streams_counted_in_several_threads_add_up(metrics: Metrics) -> None:
    def follow() -> None:
        with metrics.stream() as stream:
            stream.emit(SESSION)
            for _ in range(500):
                stream.emit(window())

    threads = [threading.Thread(target=follow) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seen = told(metrics)
    assert seen["mmtl_windows_total{speech=true}"] == seen["mmtl_lag_seconds_count"] == 2_000
    assert (seen["mmtl_streams_begun_total"], seen["mmtl_streams{provider=tensorrt}"]) == (4, 0)


def test_the_streams_of_a_server_are_counted_also_of_a_client_that_hangs_up(
    make: Callable[[], Recognizer], sound: bytes, metrics: Metrics
) -> None:
    with open_server(Service(make, limits=FAST, observe=metrics.stream)) as running:
        events = said_to(running, sound)
        with connected(running) as client:
            client.sendall(sound)
            wait_for(lambda: told(metrics).get("mmtl_streams{provider=cpu}") == 1)
        wait_for(lambda: told(metrics)["mmtl_streams{provider=cpu}"] == 0)
    seen = told(metrics)
    assert seen["mmtl_streams_begun_total"] == 2
    assert seen["mmtl_windows_total{speech=true}"] >= sum(event.get("speech") is True for event in events) > 0


@pytest.mark.parametrize(("command", "source"), [("run", ("-",)), ("serve", ("--tcp", "0"))])
def test_a_command_serves_its_metrics_from_before_the_model_is_loaded(
    command: str, source: tuple[str, ...]
) -> None:
    model = ("--bundle", "small", "--provider", "cpu", "--metrics", "0")
    program = [sys.executable, "-c", "from edge.cli.main import main; main()", command, *source, *model]
    pipes = {"stdin": subprocess.PIPE, "stderr": subprocess.PIPE, "stdout": subprocess.DEVNULL}
    with subprocess.Popen(program, cwd=ROOT, text=True, **pipes) as process:  # type: ignore[call-overload]
        try:
            found = re.search(r"http://127\.0\.0\.1:(\d+)/metrics", process.stderr.readline())
            assert found
            port = int(found[1])
            assert get(port, "/healthz") == (503, "starting\n")
            wait_for(lambda: get(port, "/healthz") == (200, "ready\n"))
            assert "mmtl_ready 1.0" in get(port, "/metrics")[1]
        finally:
            process.stdin.close()
            process.terminate()
            process.stderr.read()
    assert process.returncode == 0


def test_every_metric_of_the_dashboard_is_one_that_is_served() -> None:
    panels = json.loads(DASHBOARD.read_text("utf-8"))["panels"]
    queries = [target["expr"] for panel in panels for target in panel.get("targets", ())]
    named = {name for query in queries for name in re.findall(r"(?:mmtl|process)_\w+", query)}
    served = {sample.partition("{")[0] for sample in after(SESSION, window())}
    assert len(named) > 8
    assert named - served == set()
