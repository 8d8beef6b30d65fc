from __future__ import annotations

import contextlib
import csv
import io
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.errors import MmtlError, UsageError
from edge.events import Device, Event, Session, Speech, Summary, Utterance, Window, to_json
from edge.output.convert import FORMATS, converted, lines_of, read_log

PROBS = {"happy": 0.625, "sad": 0.375}
SMOOTHED = {"happy": 0.5, "sad": 0.5}

EVENTS: list[Event] = [
    Session("my clip.wav", "default", None, "cpu", tuple(PROBS), 3.0, 0.24, False),
    Speech(0.75, True),
    Window(0.0, 3.0, PROBS, SMOOTHED, "happy", True, -20.5, {"encoder": 1.0}, 1.0),
    Utterance(0.5, 3.25, PROBS, "happy", 1),
    Window(0.24, 3.24, PROBS, PROBS, "unsure", False, float("-inf"), {"encoder": 1.0}, 1.0),
    Device(4.0, "USB microphone", "lost"),
    Utterance(3661.5, 3662.0625, PROBS, "unsure", 2),
    Summary(3700.0, 2, 2, 0, {}, 0.01),
]
LOG = [to_json(event) for event in EVENTS]

GOLDEN = {
    "csv": """\
start_s,end_s,label,speech,level_dbfs,happy,sad,happy_smoothed,sad_smoothed
0.0,3.0,happy,true,-20.5,0.625,0.375,0.5,0.5
0.24,3.24,unsure,false,,0.625,0.375,0.625,0.375
""",
    "rttm": """\
SPEAKER my_clip.wav 1 0.500 2.750 <NA> <NA> happy <NA> <NA>
SPEAKER my_clip.wav 1 3661.500 0.562 <NA> <NA> unsure <NA> <NA>
""",
    "srt": """\
1
00:00:00,500 --> 00:00:03,250
happy

2
01:01:01,500 --> 01:01:02,062
unsure
""",
    "textgrid": """\
File type = "ooTextFile"
Object class = "TextGrid"

xmin = 0
xmax = 3700.000000
tiers? <exists>
size = 1
item []:
    item [1]:
        class = "IntervalTier"
        name = "emotion"
        xmin = 0
        xmax = 3700.000000
        intervals: size = 5
        intervals [1]:
            xmin = 0.000000
            xmax = 0.500000
            text = ""
        intervals [2]:
            xmin = 0.500000
            xmax = 3.250000
            text = "happy"
        intervals [3]:
            xmin = 3.250000
            xmax = 3661.500000
            text = ""
        intervals [4]:
            xmin = 3661.500000
            xmax = 3662.062500
            text = "unsure"
        intervals [5]:
            xmin = 3662.062500
            xmax = 3700.000000
            text = ""
""",
}


def utterance(**changes: Any) -> str:
    return json.dumps(json.loads(LOG[3]) | changes)


def window(**changes: Any) -> str:
    return json.dumps(json.loads(LOG[2]) | changes)


@pytest.mark.parametrize("form", FORMATS)
def test_a_log_becomes_exactly_this(form: str) -> None:
    assert converted(LOG, "log", form) == GOLDEN[form]


def test_every_format_has_its_golden_text() -> None:
    assert set(GOLDEN) == set(FORMATS)


@pytest.mark.parametrize("form", FORMATS)
def test_types_and_fields_to_come_and_empty_lines_change_nothing(form: str) -> None:
    strange = '{"v": 1, "type": "drift", "start_s": "whenever"}'
    lines = [json.dumps(json.loads(line) | {"mood_of_the_cat": [1]}) for line in LOG]
    assert converted([strange, "", *lines, " \n", strange], "log", form) == GOLDEN[form]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("happy", "not JSON"),
        (LOG[3][:20], "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[]", "not an event"),
        ('{"v": 1}', "not an event"),
        ('{"v": 1, "type": ["window"]}', "not an event"),
        (utterance(v=2), "version 2, this mmtl reads version 1"),
        (utterance(start_s=None), "field start_s is not a time in seconds"),
        (utterance(start_s=-1.0), "field start_s is not a time in seconds"),
        (utterance(end_s="3"), "end_s is not a number"),
        (utterance(end_s=True), "end_s is not a number"),
        (utterance(end_s=10**400), "end_s is not a number"),
        ('{"v": 1, "type": "utterance", "start_s": 0, "end_s": NaN}', "end_s is not a number"),
        (utterance(end_s=0.25), "ends at 0.25 s, before it starts at 0.5 s"),
        (utterance(label=3), "field label is not a string"),
        (window(probs=[0.5]), "field probs does not map emotions to numbers"),
        (window(smoothed={"happy": "much"}), "happy is not a number"),
        (window(speech=1), "field speech is not true or false"),
        ('{"v": 1, "type": "summary"}', "duration_s is not a number"),
    ],
)
def test_a_bad_line_is_one_error_with_its_number(line: str, said: str) -> None:
    with pytest.raises(UsageError, match=rf"^log, line 2: .*{said}.*correct or remove") as raised:
        read_log([LOG[0], line, "worse"], "log")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "end", [LOG[3][:1], LOG[3][:20], LOG[3][:-1], LOG[3][:20] + "\n", "\0" * 64, "\n\n{"]
)
def test_a_last_line_that_was_cut_off_is_left_out_with_a_warning(end: str) -> None:
    warnings: list[str] = []
    lines = io.StringIO("".join(f"{line}\n" for line in LOG) + end)
    assert converted(lines, "log", "srt", warn=warnings.append) == GOLDEN["srt"]
    (warning,) = warnings
    assert re.match(r"log, line (9|11) is truncated", warning)


def test_what_is_no_log_at_all_is_not_one_that_was_cut_off() -> None:
    with pytest.raises(UsageError, match="line 1: it is not JSON"):
        read_log(["{Dear diary"], "log")


@pytest.mark.parametrize("line", ["nonsense", "nonsense\n", "[1, 2", '"text'])
def test_a_last_line_that_no_event_begins_with_is_an_error(line: str) -> None:
    with pytest.raises(UsageError, match="line 9: it is not JSON"):
        read_log([*LOG, line], "log")


def test_two_bad_lines_at_the_end_are_an_error_in_the_first() -> None:
    with pytest.raises(UsageError, match="line 9: it is not JSON"):
        read_log([*LOG, LOG[3][:20], LOG[3][:20]], "log")


@pytest.mark.parametrize("torn", [[], [LOG[3][:20]]])
def test_a_log_of_several_sessions_is_read_one_by_one(torn: list[str]) -> None:
    warnings: list[str] = []
    lines = [LOG[0].replace("my clip.wav", "other.wav"), LOG[3], *torn, *LOG]
    with pytest.raises(UsageError, match="log holds 2 sessions: choose one with --session 1 to 2"):
        read_log(lines, "log")
    first = read_log(lines, "log", session=1, warn=warnings.append)
    assert (first.source, len(first.segments), len(first.rows)) == ("other.wav", 1, 0)
    assert len(warnings) == len(torn)
    assert converted(lines, "log", "textgrid", session=2) == GOLDEN["textgrid"]
    with pytest.raises(UsageError, match="log has no session 3: choose one with --session 1 to 2"):
        read_log(lines, "log", session=3)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_a_byte_order_mark_does_no_harm(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes("\r\n".join(LOG).encode(encoding))
    assert converted(lines_of(str(path)), "log", "csv") == GOLDEN["csv"]


def test_a_character_that_was_cut_off_is_no_reason_to_refuse_a_log(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes("\n".join([*LOG, '{"v": 1, "type": "device", "name": "Jürgen']).encode()[:-5])
    assert converted(lines_of(str(path)), "log", "csv") == GOLDEN["csv"]


def test_a_session_whose_emotions_are_no_texts_is_a_bad_line() -> None:
    for emotions in ("happy", [1], None):
        with pytest.raises(UsageError, match="line 1: its field emotions is not a list of strings"):
            read_log([json.dumps(json.loads(LOG[0]) | {"emotions": emotions})], "log")


def test_a_table_without_windows_has_its_columns_all_the_same() -> None:
    assert converted(LOG[:1], "log", "csv") == GOLDEN["csv"].partition("\n")[0] + "\n"


def test_a_table_of_a_log_without_its_beginning_is_the_same() -> None:
    assert converted(LOG[1:], "log", "csv") == GOLDEN["csv"]


def test_a_format_that_does_not_exist_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="choose csv, rttm, textgrid, srt"):
        converted(LOG, "log", "docx")


@pytest.mark.parametrize("form", FORMATS)
def test_a_log_without_speech_is_no_error(form: str) -> None:
    text = converted([LOG[0], to_json(Summary(2.0, 0, 0, 0, {}, 0.0))], "log", form)
    assert ("size = 1" in text) == (form == "textgrid")
    assert converted([], "log", form) is not None


def test_a_label_cannot_break_out_of_its_place() -> None:
    lines = [LOG[0], utterance(label='so "sad"\nand, tired'), window(label="sad, very")]
    assert 'text = "so ""sad"" and, tired"' in converted(lines, "log", "textgrid")
    assert len(converted(lines, "log", "rttm").split()) == 10
    assert converted(lines, "log", "srt").count("\n") == 3
    rows = list(csv.reader(io.StringIO(converted(lines, "log", "csv"))))
    assert rows[1][2] == "sad, very"
    assert len(rows[1]) == len(rows[0])


spans = st.tuples(st.floats(0, 100), st.floats(0, 100)).map(sorted)


@given(st.lists(spans, max_size=6))
def test_the_intervals_of_a_textgrid_have_no_gaps_and_do_not_overlap(pairs: list[list[float]]) -> None:
    lines = [to_json(Utterance(start, end, PROBS, "sad", 1)) for start, end in pairs]
    text = converted([*lines, to_json(Summary(120.0, 0, 0, 0, {}, 0.0))], "log", "textgrid")
    numbers = [line.split() for line in text.splitlines() if line.startswith("            x")]
    starts = [float(words[2]) for words in numbers if words[0] == "xmin"]
    ends = [float(words[2]) for words in numbers if words[0] == "xmax"]
    assert [0.0, *ends] == [*starts, 120.0]
    assert all(start < end for start, end in zip(starts, ends, strict=True))


@given(st.binary(max_size=60))
def test_no_line_does_worse_than_an_error(data: bytes) -> None:
    with contextlib.suppress(MmtlError):
        read_log([data.decode("utf-8", "replace")], "log")


def test_a_log_is_read_from_a_file_or_stdin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "events.jsonl"
    path.write_text("\n".join(LOG), "utf-8")
    assert converted(lines_of(str(path)), "log", "srt") == GOLDEN["srt"]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(path.read_bytes())))
    assert converted(lines_of("-"), "log", "srt") == GOLDEN["srt"]


def test_a_log_that_cannot_be_read_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "sound").write_bytes(b"RIFF\xa4\xbc\x01\x00WAVE")
    reasons = {"gone": "No such file", ".": "directory", "sound": "not text", "a\0b": "not text"}
    for name, said in reasons.items():
        with pytest.raises(UsageError, match=said):
            list(lines_of(f"{tmp_path}/{name}"))


def test_a_closed_stdin_is_a_usage_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(UsageError, match="stdin is closed"):
        list(lines_of("-"))
