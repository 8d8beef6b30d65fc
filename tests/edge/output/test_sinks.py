from __future__ import annotations

import io
import json
import math
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.errors import MmtlError, UsageError
from edge.events import (
    Device,
    Drift,
    EngineChange,
    Event,
    Overrun,
    Session,
    Speech,
    StreamWarning,
    Summary,
    Utterance,
    Window,
    to_json,
)
from edge.output.convert import converted, read_log
from edge.output.sinks import CsvRows, JsonLines, PlainLines, ProviderNote, ReaderGone, Sink
from tests.edge.schema import checked, checked_event

ROOT = Path(__file__).resolve().parents[3]
FULL = Path("/dev/full")
OVERRUN = Overrun(start_s=1.0, lost_s=0.25)

needs_full = pytest.mark.skipif(not FULL.exists(), reason="this system has no /dev/full")


def session(fitted: bool = True) -> Session:
    return Session("demo", "base", None, "cpu", ("neutral", "happy", "sad", "angry"), 3.0, 0.24, fitted)


def window(end_s: float, label: str, speech: bool = True) -> Window:
    probs = {"neutral": 0.1, "happy": 0.62, "sad": 0.08, "angry": 0.2}
    return Window(end_s - 3.0, end_s, probs, probs, label, speech, -20.0, {"encoder": 1.0}, 5.0)


def plain(*events: Event) -> list[str]:
    stream = io.StringIO()
    sink = PlainLines(stream)
    for event in events:
        sink.emit(checked_event(event))
    return stream.getvalue().splitlines()


def run_script(body: str) -> list[str]:
    script = f"import sys\nsys.path.insert(0, {str(ROOT)!r})\nfrom edge.output.sinks import *\n{body}"
    return [sys.executable, "-E", "-c", script]  # -E: PYTHONUNBUFFERED would hide the flush at exit


EMIT_FOR_EVER = """
from edge.events import Overrun, Session, Window
sink = SINK
try:
    sink.emit(Session("demo", "base", None, "cpu", ("sad",), 3.0, 0.24, True))
    for number in range(1_000_000):
        sink.emit(Overrun(float(number), 0.1))
        sink.emit(Window(0.0, 3.0, {"sad": 1.0}, {"sad": 1.0}, "sad", True, -20.0, {}, 5.0))
except ReaderGone:
    sys.exit(0)
sys.exit(9)
"""


def test_a_plain_sink_takes_everything_and_closes_at_the_end_of_the_block() -> None:
    class Closing(Sink):
        closed = 0

        def close(self) -> None:
            self.closed += 1

    sink = Closing()
    with sink:
        sink.emit(OVERRUN)
        sink.progress(0.1, -20.0)
        assert sink.closed == 0
    assert sink.closed == 1


def test_an_old_file_is_kept_until_there_is_an_event(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_text("an old session\n", "utf-8")
    path.chmod(0o644)
    with JsonLines(str(path), "replace"):
        pass
    assert path.read_text("utf-8") == "an old session\n"
    assert path.stat().st_mode & 0o777 == 0o644
    with JsonLines(str(path), "replace") as sink:
        sink.emit(Overrun(1.0, 0.1))
        sink.emit(Overrun(2.0, 0.1))
    assert [checked(line)["start_s"] for line in path.read_text("utf-8").splitlines()] == [1.0, 2.0]
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("kind", [JsonLines, CsvRows])
def test_an_old_file_is_refused_unless_told_what_to_do(
    tmp_path: Path, kind: type[JsonLines] | type[CsvRows]
) -> None:
    path = tmp_path / "old"
    path.write_text("an old session\n", "utf-8")
    with pytest.raises(UsageError, match=r"old already.* --replace to overwrite it, --append to add to it"):
        kind(str(path))
    assert path.read_text("utf-8") == "an old session\n"
    path.write_text("", "utf-8")
    kind(str(path)).close()


def test_events_are_added_to_a_log_below_a_line_that_was_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    for _ in range(2):
        with JsonLines(str(path), "append") as sink:
            sink.emit(session())
            sink.emit(OVERRUN)
        path.write_bytes(path.read_bytes() + b'{"v": 1, "ty')
    types = [json.loads(line)["type"] for line in path.read_text("utf-8").splitlines() if line[-1] == "}"]
    assert types == ["session", "overrun"] * 2
    assert read_log(path.read_text("utf-8").splitlines(), "log", session=2).source == "demo"


def test_rows_are_added_to_a_table_of_the_same_columns_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "windows.csv"
    for _ in range(2):
        with CsvRows(str(path), "append") as sink:
            sink.emit(session())
            sink.emit(window(3.0, "happy"))
    header, *rows = path.read_text("utf-8").splitlines()
    assert header.startswith("start_s,")
    assert rows[0] == rows[1]
    assert len(rows) == 2
    path.write_text("time,mood\n", "utf-8")
    with (
        CsvRows(str(path), "append") as sink,
        pytest.raises(UsageError, match="other columns, expected start_s,"),
    ):
        sink.emit(session())
    assert path.read_text("utf-8") == "time,mood\n"


def test_each_event_is_a_line_that_can_be_read_before_the_file_is_closed(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    with JsonLines(str(path)) as sink:
        for seen, event in enumerate((session(), window(3.0, "happy"), OVERRUN), start=1):
            sink.emit(event)
            lines = path.read_text(encoding="utf-8").splitlines()
            assert len(lines) == seen
            assert checked(lines[-1])["type"] == event.type


def test_each_window_is_a_row_that_can_be_read_before_the_file_is_closed(tmp_path: Path) -> None:
    path, happy = tmp_path / "windows.csv", window(3.0, "happy")
    with CsvRows(str(path)) as sink:
        for event, seen in ((session(), 1), (OVERRUN, 1), (happy, 2), (window(3.24, "sad", speech=False), 3)):
            sink.emit(event)
            assert len(path.read_text("utf-8").splitlines()) == seen
    assert path.read_text("utf-8") == (
        "start_s,end_s,label,speech,level_dbfs,neutral,happy,sad,angry,"
        "neutral_smoothed,happy_smoothed,sad_smoothed,angry_smoothed\n"
        "0.0,3.0,happy,true,-20.0,0.1,0.62,0.08,0.2,0.1,0.62,0.08,0.2\n"
        "0.24,3.24,sad,false,-20.0,0.1,0.62,0.08,0.2,0.1,0.62,0.08,0.2\n"
    )


shares = st.fixed_dictionaries(dict.fromkeys(("neutral", "happy", "sad", "angry"), st.floats(0.0, 1.0)))


@given(st.lists(st.tuples(st.floats(0, 1e6), shares, shares, st.floats(-120, 0) | st.just(-math.inf))))
def test_rows_are_those_that_convert_makes_of_the_log(found: list[tuple[Any, ...]]) -> None:
    events: list[Event] = [session(), OVERRUN]
    for end_s, probs, smoothed, level in found:
        events.append(Window(end_s, end_s + 3.0, probs, smoothed, "sad", True, level, {}, 5.0))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "windows.csv"
        with CsvRows(str(path)) as sink:
            for event in events:
                sink.emit(event)
        assert path.read_text("utf-8") == converted(map(to_json, events), "log", "csv")


def test_an_old_table_is_kept_until_there_is_an_event(tmp_path: Path) -> None:
    path = tmp_path / "windows.csv"
    path.write_text("an old table\n", "utf-8")
    with CsvRows(str(path), "replace"):
        pass
    assert path.read_text("utf-8") == "an old table\n"
    with CsvRows(str(path), "replace") as sink:
        sink.emit(session())
    assert path.read_text("utf-8").startswith("start_s,")
    assert "old" not in path.read_text("utf-8")


def test_a_dash_means_stdout_which_stays_open(capsys: pytest.CaptureFixture[str]) -> None:
    sink = JsonLines("-")
    sink.emit(OVERRUN)
    sink.close()
    print("still here")  # noqa: T201
    first, second = capsys.readouterr().out.splitlines()
    assert checked(first)["lost_s"] == 0.25
    assert second == "still here"


@pytest.mark.parametrize("name", ["", "missing/events.jsonl", "bad\0name"])
def test_a_target_that_cannot_be_opened_is_a_usage_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match=r"cannot write events to .* name a file"):
        JsonLines(f"{tmp_path}/{name}")
    assert list(tmp_path.iterdir()) == []


def test_a_closed_stdout_is_a_usage_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    with pytest.raises(UsageError, match="name a file"):
        JsonLines("-")


@needs_full
@pytest.mark.parametrize("kind", [JsonLines, CsvRows])
def test_a_full_disk_is_an_error_with_a_remedy_and_closing_then_is_quiet(
    kind: type[JsonLines] | type[CsvRows],
) -> None:
    sink = kind(str(FULL))
    with pytest.raises(MmtlError, match=r"/dev/full \(No space left.*free some space") as raised:
        sink.emit(session())
    assert not isinstance(raised.value, UsageError)
    sink.close()
    sink.close()


@needs_full
def test_a_full_disk_behind_stdout_leaves_no_complaint_at_exit() -> None:
    body = "from edge.events import Overrun\nfrom edge.errors import MmtlError\ntry:\n"
    body += " JsonLines('-').emit(Overrun(1.0, 0.1))\nexcept MmtlError as error:\n sys.exit(error.exit_code)"
    with FULL.open("w") as full:
        done = subprocess.run(run_script(body), stdout=full, stderr=subprocess.PIPE, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (1, b"")


@pytest.mark.parametrize("sink", ["JsonLines('-')", "CsvRows('-')", "PlainLines(sys.stdout)"])
def test_a_reader_that_leaves_ends_the_program_quietly(sink: str) -> None:
    command = run_script(EMIT_FOR_EVER.replace("SINK", sink))
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().strip()
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(timeout=60) == 0


def test_a_reader_of_stderr_that_leaves_does_not_change_the_exit_code() -> None:
    command = run_script(EMIT_FOR_EVER.replace("SINK", "PlainLines(sys.stderr)"))
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        assert b"listening" in process.stderr.readline()
        process.stderr.close()
        assert process.wait(timeout=60) == 0


def test_a_reader_that_leaves_is_not_an_error_of_ours() -> None:
    assert not issubclass(ReaderGone, MmtlError)


def test_a_label_is_written_when_it_changes_and_not_again() -> None:
    labels = ["happy", "happy", "unsure", "unsure", "happy"]
    lines = plain(session(), *(window(3.0 + index, label) for index, label in enumerate(labels)))
    assert [line.split()[:2] for line in lines[1:]] == [
        ["0:03.0", "happy"],
        ["0:05.0", "unsure"],
        ["0:07.0", "happy"],
    ]


def test_silence_changes_no_label() -> None:
    lines = plain(session(), window(3.0, "happy"), window(4.0, "sad", speech=False), window(5.0, "happy"))
    assert len(lines) == 2


@pytest.mark.parametrize("fitted", [True, False])
def test_percentages_are_written_only_when_the_temperature_was_fitted(fitted: bool) -> None:
    probs = {"happy": 0.62}
    lines = plain(session(fitted), window(3.0, "happy"), Utterance(1.0, 3.5, probs, "happy", 4))
    assert ["62%" in line for line in lines] == [False, fitted, fitted]


def test_every_kind_of_news_has_its_line_and_the_rest_has_none() -> None:
    summary = Summary(61.04, 1, 2, 1, {"p50": 2.51, "p95": 3.0, "p99": 4.0}, 0.0123)
    device = Device(9.0, "USB microphone", "lost")
    drift = Drift(42.0, "level", -12.14, 8.0, "dB", "speak closer")
    engine = EngineChange(9.5, "cpu", "the GPU is gone")
    warning = StreamWarning(9.75, "lag", "events are late")
    late = replace(summary, lag_ms={"p50": 5.0, "max": 7_940.0})
    lines = plain(session(), Speech(1.0, True), OVERRUN, device, drift, engine, warning, summary, late)
    assert lines == [
        "listening to demo: base, no profile, cpu",
        "0:01.0  overrun: 0.25 s of sound lost",
        "0:09.0  device USB microphone: lost",
        "0:42.0  drift: level -12.1 dB: speak closer",
        "0:09.5  engine: cpu from here on (the GPU is gone)",
        "0:09.8  warning: events are late",
        "1:01.0  end: 1 window, 2 utterances, step p50 2.5 ms, p95 3.0 ms, p99 4.0 ms, "
        "real-time factor 0.012, sound lost 1 time",
        "1:01.0  end: 1 window, 2 utterances, step p50 2.5 ms, p95 3.0 ms, p99 4.0 ms, "
        "real-time factor 0.012, events up to 7.9 s late, sound lost 1 time",
    ]


def test_what_runs_the_model_and_why_is_said_once_and_in_one_line() -> None:
    said: list[str] = []
    note = ProviderNote(said.append)
    for event in (replace(session(), provider_reason="no GPU\nhere"), window(3.0, "happy"), OVERRUN):
        note.emit(event)
    assert said == ["runs on cpu: no GPU?here"]


def test_a_stream_that_cannot_write_a_character_gets_a_question_mark() -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    PlainLines(stream).emit(Device(1.0, "マイク", "back"))
    assert raw.getvalue() == b"0:01.0  device ???: back\n"
