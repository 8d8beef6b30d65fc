from __future__ import annotations

import io
import itertools
import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from edge.audio.dead_input import ZEROS
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
)
from edge.labels import EMOTIONS, UNSURE
from edge.output.monitor import GLYPHS, LiveMonitor, big_rows, farewell, frame
from edge.output.monitor_state import CLIP_DBFS, MonitorState, timeline_cells

SESSION = Session("demo", "base", "anna", "cpu", EMOTIONS, 3.0, 0.24, True)
SHARES = {"neutral": 0.07, "happy": 0.62, "sad": 0.11, "angry": 0.2}
LATENCY = {"queue": 50.0, "frontend": 0.5, "encoder": 1.5}
ENTER, LEAVE = "\x1b[?1049h", "\x1b[?1049l"
HIDE, SHOW = "\x1b[?25l", "\x1b[?25h"


def window(end_s: float, label: str = "happy", speech: bool = True) -> Window:
    return Window(end_s - 3.0, end_s, SHARES, SHARES, label, speech, -20.0, LATENCY, 12.0)


def after(*events: Event) -> MonitorState:
    state = MonitorState()
    for event in events:
        state = state.after(event)
    return state


def text(state: MonitorState, width: int = 80, height: int = 24) -> str:
    return frame(state, width, height).plain


def terminal() -> Console:
    return Console(record=True, width=80, height=24, force_terminal=True, file=io.StringIO(), _environ={})


def written(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


times = st.floats(0.0, 1e5)
levels = st.floats(allow_nan=True, allow_infinity=True)
names = st.text(max_size=200)
labels = st.sampled_from((*EMOTIONS, UNSURE))
shares = st.dictionaries(st.sampled_from(EMOTIONS), st.floats(0.0, 1.0))
sessions = st.builds(
    Session, names, names, st.none() | names, names, st.just(EMOTIONS), times, times, st.booleans()
)
windows = st.builds(
    Window,
    times,
    times,
    shares,
    shares,
    labels,
    st.booleans(),
    levels,
    st.dictionaries(st.sampled_from(["queue", "encoder"]), times),
    times,
)
events = st.one_of(
    sessions,
    windows,
    st.builds(Utterance, times, times, shares, labels, st.integers(0, 99)),
    st.builds(Speech, times, st.booleans()),
    st.builds(Overrun, times, times),
    st.builds(Device, times, names, st.sampled_from(["lost", "back", "silent", "active"]), names),
    st.builds(Drift, times, st.sampled_from(["level", "features"]), levels, levels, st.just("dB"), names),
    st.builds(StreamWarning, times, st.just("lag"), names),
    st.builds(Summary, times, st.just(1), st.just(1), st.just(0), st.just({}), times),
)
states = st.builds(
    lambda happened, heard: after(*happened).hearing(*heard),
    st.lists(events, max_size=12),
    st.tuples(times, levels),
)


@given(states)
@settings(max_examples=60, deadline=None)
def test_a_frame_fits_a_terminal_of_80_by_24_as_rich_draws_it(state: MonitorState) -> None:
    console = terminal()
    console.print(frame(state, 80, 24))
    lines = console.export_text().rstrip("\n").split("\n")
    assert len(lines) <= 24
    assert all(Console(width=500).measure(line).maximum <= 80 for line in lines)


@given(states, st.integers(1, 200), st.integers(1, 60))
@settings(max_examples=150, deadline=None)
def test_a_frame_fits_any_terminal(state: MonitorState, width: int, height: int) -> None:
    lines = frame(state, width, height).split("\n")
    assert len(lines) <= height
    assert all(line.cell_len <= width for line in lines)


@pytest.mark.parametrize(("width", "height"), [(60, 20), (80, 24), (120, 40)])
def test_nothing_that_matters_is_left_out_at_usual_sizes(width: int, height: int) -> None:
    shown = text(after(SESSION, Overrun(1.0, 0.5), window(3.0)).hearing(3.1, -20.0), width, height)
    for part in ("62%", "-20 dBFS", "● yes", "step 2.0 ms", "real-time factor 0.001", "lag 12 ms", "now"):
        assert part in shown
    for part in ("overruns 1 (0.5 s lost)", "source demo", "bundle base", "profile anna", "provider cpu"):
        assert part in shown


@pytest.mark.parametrize("fitted", [True, False])
def test_percentages_are_shown_only_when_the_temperature_was_fitted(fitted: bool) -> None:
    shown = text(after(replace(SESSION, temperature_fitted=fitted), window(3.0)))
    assert ("%" in shown) == fitted
    assert ("no percentages" in shown) == (not fitted)
    assert "━━━" in shown


def test_bars_grow_with_the_smoothed_posterior() -> None:
    state = after(SESSION, replace(window(3.0), probs=dict.fromkeys(EMOTIONS, 0.25)))
    rows = [line for line in text(state).splitlines() if line.rstrip().endswith("%")]
    lengths = {row.split()[1]: row.count("━") for row in rows}
    assert sorted(lengths, key=lengths.__getitem__) == ["neutral", "sad", "angry", "happy"]


def test_listening_fills_up_until_the_first_window() -> None:
    early, late = (after(SESSION).hearing(heard_s, -30.0) for heard_s in (1.2, 2.7))
    assert "listening 1.2 / 3.0 s" in text(early)
    assert text(early).splitlines()[3].count("━") < text(late).splitlines()[3].count("━")
    assert "listening" not in text(late.after(window(3.0)))


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (window(3.0, "sad"), "SAD"),
        (window(3.0, UNSURE), "UNSURE"),
        (window(3.0, "sad", speech=False), "SILENCE"),
    ],
)
def test_the_label_is_spelt_out_and_large_where_there_is_room(shown: Window, expected: str) -> None:
    state = after(SESSION, shown)
    assert expected in text(state, height=16)
    assert all(row.rstrip() in text(state) for row in big_rows(expected, 1))
    assert all(row.rstrip() in text(state, height=40) for row in big_rows(expected, 2))


def test_large_letters_exist_for_all_that_is_shown_large() -> None:
    assert set("".join((*EMOTIONS, UNSURE, "silence")).upper()) == set(GLYPHS)
    assert big_rows("tall", 1) == ["▀█▀  ▄▀▀▄ █    █   ", " █   █▀▀█ █    █   ", " ▀   ▀  ▀ ▀▀▀▀ ▀▀▀▀"]
    assert big_rows("fear", 1) == []


def test_overruns_are_counted_with_what_was_lost() -> None:
    state = after(SESSION, *(Overrun(float(second), 0.25) for second in range(3)))
    assert (state.overruns, state.lost_s) == (3, 0.75)
    assert "overruns 3 (0.8 s lost)" in text(state)


def test_waiting_in_the_queue_is_not_step_time() -> None:
    state = after(SESSION, window(3.0), window(4.0))
    assert state.step_ms == pytest.approx(2.0)
    assert state.real_time_factor == pytest.approx(2 * 0.002 / 4.0)


def test_the_timeline_keeps_only_the_last_minute() -> None:
    old = [window(3.0 + step, "angry") for step in range(10)]
    new = [window(13.0 + step, "sad") for step in range(60)]
    state = after(replace(SESSION, step_s=1.0), *old, *new)
    assert len(state.history) == 60
    assert {moment.label for moment in state.history} == {"sad"}
    lines = text(state).splitlines()
    ribbon = lines[next(index for index, line in enumerate(lines) if "last minute" in line) + 1]
    assert set(ribbon.strip()) == {"S"}


def test_the_timeline_shows_letters_dots_and_gaps_where_they_happened() -> None:
    heard = ["happy"] * 10 + [UNSURE] * 10 + [""] * 10 + ["neutral"] * 10
    happened = [window(second + 0.5, label or UNSURE, bool(label)) for second, label in enumerate(heard)]
    cells = timeline_cells(after(replace(SESSION, step_s=1.0), *happened), 60)
    assert cells == [""] * 20 + heard
    shown = text(after(SESSION, *happened), width=64)
    assert " " * 20 + "H" * 10 + "·" * 10 + " " * 10 + "N" * 10 in shown


@given(st.integers(20, 200), st.sampled_from([0.08, 0.24, 0.96, 2.0]))
@settings(max_examples=40, deadline=None)
def test_steady_speech_leaves_no_hole_in_the_timeline(count: int, step_s: float) -> None:
    ends = [3.0 + step_s * index for index in range(int(70 / step_s))]
    state = after(replace(SESSION, step_s=step_s), *(window(end_s) for end_s in ends))
    cells = timeline_cells(state, count)
    oldest = math.ceil((step_s + 60.0 / count) / (60.0 / count))
    assert len(cells) == count
    assert set(cells[oldest:]) == {"happy"}


def test_what_the_timeline_drew_moves_but_does_not_change() -> None:
    happened = [window(3.0 + 0.24 * index, EMOTIONS[index // 7 % 4]) for index in range(200)]
    before, later = after(SESSION, *happened[:150]), after(SESSION, *happened)
    moved = math.floor(later.heard_s) - math.floor(before.heard_s)
    assert timeline_cells(before, 60)[moved:-1] == timeline_cells(later, 60)[: -moved - 1]


def test_clipping_is_said_in_words_and_for_a_while() -> None:
    loud = after(SESSION).hearing(1.0, CLIP_DBFS + 1.0)
    assert "CLIPPING" in text(loud)
    assert "CLIPPING" in text(loud.hearing(2.5, -20.0))
    assert "CLIPPING" not in text(loud.hearing(3.5, -20.0))
    assert "CLIPPING" not in text(after(SESSION).hearing(1.0, CLIP_DBFS - 1.0))


@pytest.mark.parametrize("level", [-math.inf, math.nan])
def test_digital_silence_has_a_level(level: float) -> None:
    assert "-99 dBFS" in text(after(SESSION).hearing(1.0, level))


def test_a_lost_device_is_said_until_it_is_back() -> None:
    lost = after(SESSION, window(3.0), Device(4.0, "USB mic", "lost"))
    assert "USB mic is lost since 0:04.0" in text(lost)
    assert "USB mic" in text(lost, height=2)
    assert "USB mic" not in text(lost.after(Device(9.0, "USB mic", "back")))


def test_a_silent_device_is_said_with_what_to_do_until_it_is_active() -> None:
    silent = after(SESSION, window(3.0), Device(4.0, "USB mic", "silent", ZEROS))
    assert f"USB mic is silent since 0:04.0: {ZEROS}" in " ".join(text(silent).split())
    assert "USB mic" not in text(silent.after(Device(9.0, "USB mic", "active")))


@pytest.mark.parametrize(
    "event", [Device(4.0, "USB mic", "lost"), Device(4.0, "USB mic", "silent", ZEROS), Speech(4.0, False)]
)
def test_no_percentages_of_an_emotion_are_shown_in_silence_or_without_a_microphone(event: Event) -> None:
    spoken = after(SESSION, Speech(1.0, True), window(3.0, "happy"))
    assert "62%" in text(spoken)
    for silent in (spoken.after(event), spoken.after(event).after(window(4.2, "happy"))):
        assert "%" not in text(silent)
        assert "━" not in "".join(line for line in text(silent).splitlines() if "happy" in line)
        assert all(row.rstrip() in text(silent) for row in big_rows("silence", 1))
        assert "○ no" in text(silent)


def test_percentages_return_with_speech_and_the_microphone() -> None:
    lost = after(SESSION, Speech(1.0, True), window(3.0), Device(4.0, "USB mic", "lost"))
    assert "62%" in text(lost.after(Device(9.0, "USB mic", "back")).after(window(9.2)))
    paused = after(SESSION, Speech(1.0, True), window(3.0), Speech(4.0, False), window(4.2))
    assert "62%" in text(paused.after(Speech(5.0, True)).after(window(5.2)))


def test_a_warning_is_shown_whole_for_a_minute() -> None:
    message = "the channels cancel each other: channel 0 is used alone; name another with --channel " * 2
    warned = after(SESSION, window(9.0), StreamWarning(9.0, "channels", message))
    assert message.strip() in " ".join(text(warned).split())
    assert message.strip() in " ".join(text(warned.after(window(60.0))).split())
    assert "warning" not in text(warned.after(window(69.1)))


def test_a_drift_is_advice_for_a_minute() -> None:
    drift = Drift(9.0, "level", -12.1, 8.0, "dB", "speak closer to the microphone, or calibrate again")
    drifted = after(SESSION, window(9.0), drift)
    said = "drift: level -12.1 dB: speak closer to the microphone, or calibrate again\n"
    assert said in text(drifted.after(Device(9.5, "USB mic", "lost")))
    assert said in text(drifted.after(window(60.0))) + "\n"
    assert "drift" not in text(drifted.after(window(69.1)))
    assert "drift" not in text(drifted.after(SESSION))


def test_a_lost_gpu_is_shown_with_the_provider_for_the_rest_of_the_session() -> None:
    session = replace(SESSION, provider="tensorrt")
    state = after(session, window(3.0), EngineChange(12.3, "cpu", "the GPU is gone"), window(13.0))
    assert "provider cpu (tensorrt failed at 0:12.3)" in text(state)
    assert after(EngineChange(12.3, "cpu", "the GPU is gone")).session is None


def test_the_terminal_is_given_back_after_an_error() -> None:
    console = terminal()

    def interrupted() -> None:
        with LiveMonitor(console) as monitor:
            monitor.emit(SESSION)
            assert written(console).count(ENTER) == written(console).count(HIDE) == 1
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    after_frame = written(console).rpartition(HIDE)[2]
    assert after_frame.count(LEAVE) == after_frame.count(SHOW) == 1


def test_nothing_is_drawn_before_the_first_event() -> None:
    console = terminal()
    with LiveMonitor(console):
        pass
    assert written(console) == ""


def test_frames_are_at_most_eight_a_second() -> None:
    console, ticks = terminal(), itertools.count()
    monitor = LiveMonitor(console, clock=lambda: next(ticks) / 100.0)
    for block in range(1000):
        monitor.progress(block / 100.0, -20.0)
    frames = written(console).count("Ctrl-C ends")
    monitor.close()
    assert 70 <= frames <= 81


@pytest.mark.parametrize(
    ("event", "said"),
    [
        (Device(3.1, "USB mic", "lost"), "USB mic is lost"),
        (Drift(3.1, "level", 12.0, 8.0, "dB", "move away"), "level +12.0 dB: move away"),
        (StreamWarning(3.1, "lag", "events are late"), "warning: events are late"),
    ],
)
def test_what_may_be_the_last_for_a_while_is_drawn_at_once(event: Event, said: str) -> None:
    console = terminal()
    monitor = LiveMonitor(console, clock=lambda: 0.0)
    for happened in (SESSION, window(3.0), event):
        monitor.emit(happened)
    assert said in written(console)
    monitor.close()


def test_a_summary_stays_on_the_screen() -> None:
    console = terminal()
    with LiveMonitor(console) as monitor:
        for event in (SESSION, window(61.0), Summary(61.0, 240, 9, 0, {"p50": 2.0}, 0.01)):
            monitor.emit(event)
    monitor.close()
    left = written(console).rpartition(LEAVE)[2]
    assert "heard 1:01 of demo" in left
    assert "240 windows, 9 utterances, step p50 2.0 ms" in left
    assert written(console).count(LEAVE) == 1


def test_an_interrupted_session_still_says_what_was_heard() -> None:
    assert [line.plain for line in farewell(after(SESSION).hearing(2.0, -20.0))] == [
        "mmtl heard 0:02 of demo"
    ]


def test_a_terminal_without_unicode_gets_plain_characters() -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    console = Console(width=80, height=24, force_terminal=True, file=stream, _environ={})
    monitor = LiveMonitor(console, clock=itertools.count().__next__)
    for event in (replace(SESSION, bundle="bündel"), window(3.0), Speech(3.0, False)):
        monitor.emit(event)
    assert b"b?ndel" in raw.getvalue()
    assert b"#####" in raw.getvalue()
    assert b"-----" in raw.getvalue()
    monitor.close()


def test_a_frame_needs_no_colour_to_be_read() -> None:
    steady = [window(3.0 + 0.24 * index) for index in range(9)]
    state = after(SESSION, *steady, window(5.6, "angry"), window(6.4, UNSURE)).hearing(6.4, -3.0)
    for part in ("HHA·", "CLIPPING", "● yes", "62%"):
        assert part in text(state)
