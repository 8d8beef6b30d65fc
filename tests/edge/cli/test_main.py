"""The command line as a person meets it: exit codes, one line of error, events that others can read."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, entry_points
from pathlib import Path

import numpy as np
import pytest
import soundfile

from edge.audio.sound_file import read_clip
from edge.audio.sources import demo_clip
from edge.cli import commands
from edge.cli import main as cli
from edge.events import Event, to_json
from edge.model import profile as profile_module
from edge.model.bundle import Bundle
from edge.model.manifest import ENCODER, MANIFEST
from edge.model.profile import Profile, save_profile
from edge.output.sinks import Sink
from tests.cnn_lstm import CNN_LSTM
from tests.command_line import exit_code_of
from tests.edge.schema import checked

ROOT = Path(__file__).parents[3]

FULL = Path("/dev/full")

PROGRAM = "from edge.cli.main import main; main()"

TORCHLESS = f"import sys; sys.modules['torch'] = None; {PROGRAM}"


@dataclass(frozen=True)
class Outcome:
    """What a command left: its exit code and what it printed."""

    code: int
    out: str
    err: str


Mmtl = Callable[..., Outcome]


@pytest.fixture
def mmtl(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Mmtl:
    """A function that runs the command line in this process."""
    monkeypatch.setattr(profile_module, "profiles_folder", lambda: tmp_path / "profiles")

    def run(*arguments: str) -> Outcome:
        code = exit_code_of(*arguments)
        return Outcome(code, *capfd.readouterr())

    return run


def process(*arguments: str, program: str = PROGRAM) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", program, *arguments],
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def finished(started: subprocess.Popen[str]) -> Outcome:
    with started:
        out, err = started.communicate(timeout=60)
    return Outcome(started.returncode, out, err)


def assert_one_line(outcome: Outcome, code: int, *said: str) -> None:
    """Check for one line of error, which says so much, and nothing else."""
    assert outcome.code == code, outcome.err
    assert outcome.out == ""
    assert outcome.err.count("\n") == 1, outcome.err
    assert outcome.err.startswith("mmtl: ")
    assert "Traceback" not in outcome.err
    for part in said:
        assert part in outcome.err


def events(text: str) -> list[dict[str, object]]:
    """Read JSON Lines, each checked against the schema of events."""
    return [checked(line) for line in text.splitlines()]


def assert_whole(text: str) -> list[dict[str, object]]:
    """Check a run's JSON Lines from the session to the summary."""
    found = events(text)
    types = [event["type"] for event in found]
    assert (types[0], types[-1]) == ("session", "summary")
    assert types.count("session") == types.count("summary") == 1
    assert found[-1]["windows"] == types.count("window")
    return found


def spoil(folder: Path, kind: str) -> None:
    if kind == "changed byte":
        content = bytearray((folder / ENCODER).read_bytes())
        content[1_000] ^= 1
        (folder / ENCODER).write_bytes(content)
    elif kind == "missing file":
        (folder / ENCODER).unlink()
    elif kind == "unknown version":
        described = json.loads((folder / MANIFEST).read_text("utf-8")) | {"schema_version": 99}
        (folder / MANIFEST).write_text(json.dumps(described), "utf-8")
    elif kind == "malformed JSON":
        (folder / MANIFEST).write_text('{"schema_version": 1,', "utf-8")
    elif kind == "wrong size":
        described = json.loads((folder / MANIFEST).read_text("utf-8"))
        described["graphs"]["feature_size"] = 99
        (folder / MANIFEST).write_text(json.dumps(described), "utf-8")
    else:
        (folder / MANIFEST).unlink()


def test_the_demo_gives_events_that_end_in_a_summary(mmtl: Mmtl) -> None:
    outcome = mmtl("run", "demo", "--jsonl", "-", "--provider", "cpu")
    assert (outcome.code, outcome.err) == (0, "")
    found = assert_whole(outcome.out)
    assert {"window", "speech"} <= {event["type"] for event in found}
    assert all(event["v"] == 1 for event in found)


def test_a_file_gives_readable_lines(mmtl: Mmtl, tmp_path: Path) -> None:
    path = tmp_path / "noise.wav"
    soundfile.write(path, np.random.default_rng(0).uniform(-0.1, 0.1, 64_000), 16_000)
    outcome = mmtl("run", str(path), "--provider", "cpu")
    assert (outcome.code, outcome.err) == (0, "")
    first, *_, last = outcome.out.splitlines()
    assert first.startswith("listening to noise.wav")
    assert "end: " in last


@pytest.mark.parametrize("samples", [1, 639, 8_319])
def test_a_clip_too_short_for_a_window_is_heard_all_the_same(
    mmtl: Mmtl, tmp_path: Path, samples: int
) -> None:
    path = tmp_path / "short.wav"
    soundfile.write(path, np.full(samples, 0.1), 16_000)
    outcome = mmtl("run", str(path), "--jsonl", "-", "--provider", "cpu", "--bundle", str(CNN_LSTM))
    assert (outcome.code, outcome.err) == (0, "")
    assert [event["type"] for event in assert_whole(outcome.out)] == ["session", "summary"]


def test_events_go_to_a_file_and_lines_to_the_screen(mmtl: Mmtl, tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    outcome = mmtl("run", "demo", "--jsonl", str(path), "--step-ms", "800")
    assert outcome.code == 0
    found = assert_whole(path.read_text())
    assert found[0]["step_s"] == 0.8
    assert "listening to demo" in outcome.out


def test_windows_go_to_a_table_as_convert_would_make_it_and_events_to_stdout(
    mmtl: Mmtl, tmp_path: Path
) -> None:
    log, table = tmp_path / "events.jsonl", tmp_path / "windows.csv"
    outcome = mmtl("run", "demo", "--jsonl", str(log), "--csv", str(table), "--provider", "cpu")
    assert (outcome.code, outcome.err) == (0, "")
    assert "listening to demo" in outcome.out
    assert_whole(log.read_text("utf-8"))
    assert mmtl("convert", str(log), "--to", "csv").out == table.read_text("utf-8")
    assert len(table.read_text("utf-8").splitlines()) > 10


def test_a_table_on_stdout_has_it_to_itself(mmtl: Mmtl, tmp_path: Path) -> None:
    path = tmp_path / "noise.wav"
    soundfile.write(path, np.random.default_rng(0).uniform(-0.1, 0.1, 64_000), 16_000)
    outcome = mmtl("run", str(path), "--csv", "-", "--provider", "cpu")
    assert (outcome.code, outcome.err) == (0, "")
    header, *rows = outcome.out.splitlines()
    assert header.startswith("start_s,end_s,label,speech,level_dbfs,neutral,")
    assert rows
    assert {row.count(",") for row in rows} == {header.count(",")}


def test_the_monitor_writes_lines_where_there_is_no_terminal(mmtl: Mmtl, tmp_path: Path) -> None:
    path = tmp_path / "short.wav"
    soundfile.write(path, np.full(1_000, 0.1), 16_000)
    outcome = mmtl("monitor", str(path))
    assert (outcome.code, outcome.out) == (0, "")
    assert "listening to short.wav" in outcome.err


@pytest.mark.parametrize(
    ("content", "said"),
    [(None, "does not exist"), (b"", "is empty"), (b"Dear diary\n" * 99, "cannot be read as sound")],
)
def test_a_file_without_sound_is_one_line_and_code_3(
    mmtl: Mmtl, tmp_path: Path, content: bytes | None, said: str
) -> None:
    path = tmp_path / "clip.wav"
    if content is not None:
        path.write_bytes(content)
    assert_one_line(mmtl("run", str(path), "--jsonl", "-"), 3, "clip.wav", said)


def test_a_folder_is_one_line_and_code_3(mmtl: Mmtl, tmp_path: Path) -> None:
    assert_one_line(mmtl("run", str(tmp_path)), 3, "is a folder")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "demo", "--provider", "gpu"], "auto, cpu, cuda or tensorrt"),
        (["run", "demo", "--step-ms", "100"], "a multiple of 80 ms"),
        (["run", "demo", "--step-ms", "0"], "a multiple of 80 ms"),
        (["run", "demo", "--step-ms", "often"], "mmtl run --help"),
        (["run", "demo", "--rat", "3"], "mmtl run --help"),
        (["run", "-", "--rate", "1"], "expected 4000 to 192000"),
        (["run", "demo", "--jsonl"], "requires an argument"),
        (["run", "demo", "--mqtt", "localhost"], "expected HOST[:PORT]/TOPIC"),
        (
            ["run", "demo", "--mqtt", "anna:secret@localhost/mmtl"],
            "set MMTL_MQTT_PASSWORD in the environment",
        ),
        (["run", "demo", "--mqtt", "localhost/mmtl", "--mqtt-ca", "gone.pem"], "certificate from gone.pem"),
        (["run", "demo", "--mqtt-ca", "own.pem"], "without --mqtt"),
        (["run", "demo", "--mqtt-discovery"], "--mqtt-discovery was given without --mqtt"),
        (["run", "demo", "--mqtt-password-file", "word"], "--mqtt-password-file was given without --mqtt"),
        (
            ["run", "demo", "--mqtt", "anna@localhost/mmtl", "--mqtt-password-file", "gone"],
            "cannot read the password file gone (No such file",
        ),
        (["run", "demo", "--csv", ""], "--csv names nothing"),
        (["monitor", "demo", "--jsonl", ""], "--jsonl names nothing"),
        (["run", "demo", "--mqtt-names"], "--mqtt-names needs --mqtt"),
        (["run", "demo", "--jsonl", "/dev/stdout", "--csv", "-"], "--jsonl and --csv both name /dev/stdout"),
        (["run", "demo", "--jsonl", "-", "--csv", "-"], "--jsonl and --csv both name -"),
        (["run", "demo", "--jsonl", "both", "--csv", "./both"], "--jsonl and --csv both name both"),
        (["serve"], "give --tcp PORT"),
        (["serve", "--tcp", "here"], "expected [HOST:]PORT"),
        (["serve", "--web", "here"], "expected [HOST:]PORT"),
        (["serve", "--web", "0", "--source", "-"], "a browser can send its own sound"),
        (["serve", "--web", "0", "--source", ""], "the name of the source is empty"),
        (["serve", "--tcp", "0", "--step-ms", "100"], "a multiple of 80 ms"),
        (["serve", "--tcp", "0", "--clients", "0"], "mmtl serve --help"),
        (["convert", "events.jsonl"], "mmtl convert --help"),
        (["run", ""], "name of the source is empty"),
        (["run"], "mmtl run --help"),
        (["sing"], "No such command 'sing': see mmtl --help"),
        (["profile", "sing"], "No such command 'sing': see mmtl profile --help"),
        (["--loud"], "mmtl --help"),
    ],
)
def test_wrong_usage_is_one_line_and_code_2(mmtl: Mmtl, arguments: list[str], said: str) -> None:
    assert_one_line(mmtl(*arguments), 2, said)


def test_a_log_is_converted_to_stdout_or_a_file(mmtl: Mmtl, tmp_path: Path) -> None:
    log, out = tmp_path / "events.jsonl", tmp_path / "made" / "windows.csv"
    mmtl("run", "demo", "--jsonl", str(log))
    rttm = mmtl("convert", str(log), "--to", "rttm")
    assert (rttm.code, rttm.err) == (0, "")
    assert rttm.out.startswith("SPEAKER demo 1 ")
    assert mmtl("convert", str(log), "--to", "csv", "--out", str(out)) == Outcome(0, "", "")
    windows = sum(event["type"] == "window" for event in events(log.read_text()))
    assert out.read_text().count("\n") == 1 + windows > 10


def test_a_log_is_converted_to_where_a_link_leads_which_stays(mmtl: Mmtl, tmp_path: Path) -> None:
    log, link = tmp_path / "events.jsonl", tmp_path / "link"
    log.write_text("", "utf-8")
    (tmp_path / "real").write_text("old")
    link.symlink_to("real")
    refused = mmtl("convert", str(log), "--to", "csv", "--out", str(link))
    assert_one_line(refused, 2, "give --replace to overwrite it")
    assert (tmp_path / "real").read_text() == "old"
    assert mmtl("convert", str(log), "--to", "csv", "--out", str(link), "--replace").code == 0
    assert link.is_symlink()
    assert (tmp_path / "real").read_text().startswith("start_s,")


def test_a_bad_line_of_a_log_is_one_line_and_code_2_and_leaves_no_file(mmtl: Mmtl, tmp_path: Path) -> None:
    log, out = tmp_path / "events.jsonl", tmp_path / "out.srt"
    log.write_text('{"v": 1, "type": "device"}\n\nnonsense\n', "utf-8")
    assert_one_line(mmtl("convert", str(log), "--to", "srt", "--out", str(out)), 2, "events.jsonl, line 3: ")
    assert not out.exists()
    assert_one_line(mmtl("convert", str(tmp_path / "gone"), "--to", "srt"), 2, "No such file")
    assert_one_line(mmtl("convert", str(log), "--to", "docx"), 2, "choose csv, rttm, textgrid, srt")


@pytest.mark.skipif(not FULL.exists(), reason="this system has no /dev/full")
def test_a_full_disk_is_one_line_and_code_1(mmtl: Mmtl, tmp_path: Path) -> None:
    for option in ("--jsonl", "--csv"):
        outcome = mmtl("run", "demo", option, str(FULL), "--provider", "cpu")
        assert_one_line(outcome, 1, "/dev/full", "free some space")
    log = tmp_path / "events.jsonl"
    mmtl("run", "demo", "--jsonl", str(log))
    program = [sys.executable, "-c", PROGRAM, "convert", str(log), "--to", "csv"]
    with FULL.open("w") as full:
        done = subprocess.run(program, cwd=ROOT, stdout=full, stderr=subprocess.PIPE, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stderr.count(b"\n") == 1
    assert b"free some space" in done.stderr


def test_the_login_of_a_broker_is_taken_from_the_environment(
    mmtl: Mmtl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MMTL_MQTT_PASSWORD", "s3cret")
    assert_one_line(mmtl("run", "demo", "--mqtt", "127.0.0.1:1/mmtl"), 2, "but no user name")


def test_a_broker_that_is_not_there_is_said_and_the_run_goes_well(mmtl: Mmtl, tmp_path: Path) -> None:
    pytest.importorskip("paho.mqtt.client", reason="paho-mqtt is not installed")
    path = tmp_path / "short.wav"
    soundfile.write(path, np.full(1_000, 0.1), 16_000)
    outcome = mmtl("run", str(path), "--jsonl", "-", "--mqtt", "127.0.0.1:1/mmtl", "--provider", "cpu")
    assert outcome.code == 0
    assert_whole(outcome.out)
    assert outcome.err.splitlines() == [
        "mmtl: no MQTT broker at 127.0.0.1:1 (no answer): retrying until there is one",
        "mmtl: 2 events were not delivered to the MQTT broker at 127.0.0.1:1",
    ]


@pytest.mark.parametrize(("options", "source"), [([], "unnamed"), (["--mqtt-names"], "short.wav")])
def test_a_broker_is_told_names_only_where_that_is_asked_for(
    mmtl: Mmtl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], source: str
) -> None:
    published: list[dict[str, object]] = []

    class Broker(Sink):
        def __init__(self, target: object, report: object, device: object) -> None:
            """Take what the publisher takes."""

        def emit(self, event: Event) -> None:
            published.append(checked(to_json(event)))

    monkeypatch.setattr("edge.output.mqtt.Mqtt", Broker)
    path = tmp_path / "short.wav"
    soundfile.write(path, np.full(1_000, 0.1), 16_000)
    outcome = mmtl("run", str(path), "--mqtt", "127.0.0.1:1/mmtl", "--jsonl", "-", *options)
    assert outcome.code == 0
    assert assert_whole(outcome.out)[0]["source"] == "short.wav"
    assert [event["type"] for event in published] == ["session", "summary"]
    assert published[0]["source"] == source


def test_a_closed_stdout_is_one_line_and_code_2(mmtl: Mmtl, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    assert_one_line(mmtl("run", "demo", "--provider", "cpu"), 2, "stdout is closed")


def test_a_closed_stdout_is_no_loss_where_the_events_go_to_a_file(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    arguments = ["run", "demo", "--jsonl", str(path), "--provider", "cpu"]
    closing = ["sh", "-c", '"$@" >&-', "sh", sys.executable, "-c", PROGRAM, *arguments]
    done = subprocess.run(closing, cwd=ROOT, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert_whole(path.read_text("utf-8"))


@pytest.mark.parametrize("option", ["--jsonl", "--csv"])
@pytest.mark.parametrize("by", ["name", "symbolic link", "hard link"])
def test_a_recording_named_as_output_is_refused_and_stays_as_it_was(
    mmtl: Mmtl, tmp_path: Path, option: str, by: str
) -> None:
    path, other = tmp_path / "mine.wav", tmp_path / "other"
    soundfile.write(path, np.full(1_000, 0.1), 16_000)
    before = path.read_bytes()
    if by == "symbolic link":
        other.symlink_to(path)
    if by == "hard link":
        other.hardlink_to(path)
    out = str(path if by == "name" else other)
    for command in ["run", "monitor"] if option == "--jsonl" else ["run"]:
        for existing in ([], ["--replace"], ["--append"]):
            outcome = mmtl(command, str(path), option, out, *existing)
            assert_one_line(outcome, 2, f"{option} would overwrite {path}, which is an input")
    assert path.read_bytes() == before


def test_what_else_a_run_reads_is_no_output_either(mmtl: Mmtl, bundle_folder: Path, bundle: Bundle) -> None:
    profile = keep(bundle, "anna", fingerprint=bundle.fingerprint)
    ours = ["--bundle", str(bundle_folder), "--profile", "anna", "--replace"]
    for path in (bundle_folder / MANIFEST, bundle_folder / ENCODER, profile, demo_clip()):
        before = path.read_bytes()
        assert_one_line(mmtl("run", "demo", "--jsonl", str(path), *ours), 2, "--jsonl would overwrite")
        assert path.read_bytes() == before


def test_a_log_is_not_converted_over_itself(mmtl: Mmtl, tmp_path: Path) -> None:
    log, link = tmp_path / "events.jsonl", tmp_path / "link"
    log.write_text('{"v": 1, "type": "device"}\n', "utf-8")
    link.hardlink_to(log)
    for out in (log, link):
        outcome = mmtl("convert", str(log), "--to", "srt", "--out", str(out), "--replace")
        assert_one_line(outcome, 2, "--out would overwrite")
    with log.open("ab") as appended:
        command = [sys.executable, "-c", PROGRAM, "convert", str(log), "--to", "csv"]
        done = subprocess.run(
            command, cwd=ROOT, stdout=appended, stderr=subprocess.PIPE, text=True, timeout=60, check=False
        )
    assert done.returncode == 2
    assert "stdout would overwrite" in done.stderr
    assert log.read_text("utf-8") == '{"v": 1, "type": "device"}\n'


def test_a_log_in_use_is_refused_to_a_second_run_and_the_first_goes_on(mmtl: Mmtl, tmp_path: Path) -> None:
    sound, log = tmp_path / "long.wav", tmp_path / "events.jsonl"
    soundfile.write(sound, np.tile(read_clip(demo_clip()), 30), 16_000)
    running = process("run", str(sound), "--paced", "--jsonl", str(log), "--provider", "cpu")
    assert running.stdout
    running.stdout.readline()
    for option in ([], ["--replace"], ["--append"]):
        outcome = mmtl("run", "demo", "--jsonl", str(log), *option, "--provider", "cpu")
        assert_one_line(outcome, 2, "another program writes to")
    running.send_signal(signal.SIGTERM)
    assert finished(running).code == 0
    assert assert_whole(log.read_text("utf-8"))[0]["source"] == "long.wav"


def test_a_log_that_is_there_is_kept_unless_told_what_to_do(mmtl: Mmtl, tmp_path: Path) -> None:
    log = tmp_path / "events.jsonl"
    run = ["run", "demo", "--jsonl", str(log), "--provider", "cpu"]
    assert mmtl(*run).code == 0
    assert log.stat().st_mode & 0o777 == 0o600
    first = log.read_text("utf-8")
    assert_one_line(mmtl(*run), 2, "--replace to overwrite it, --append to add to it")
    assert_one_line(mmtl(*run, "--replace", "--append"), 2, "do not go together")
    assert log.read_text("utf-8") == first
    assert mmtl(*run, "--append").code == 0
    assert log.read_text("utf-8").startswith(first)
    assert_one_line(
        mmtl("convert", str(log), "--to", "srt"), 2, "2 sessions: choose one with --session 1 to 2"
    )
    assert mmtl("convert", str(log), "--to", "srt", "--session", "2").code == 0
    assert mmtl(*run, "--replace").code == 0
    assert_whole(log.read_text("utf-8"))


def test_a_log_that_was_cut_off_is_converted_with_a_warning(mmtl: Mmtl, tmp_path: Path) -> None:
    log = tmp_path / "events.jsonl"
    assert mmtl("run", "demo", "--jsonl", str(log), "--provider", "cpu").code == 0
    whole = mmtl("convert", str(log), "--to", "srt")
    lines = log.read_text("utf-8").count("\n")
    log.write_bytes(log.read_bytes()[:-30])
    cut = mmtl("convert", str(log), "--to", "srt")
    assert (cut.code, cut.out) == (0, whole.out)
    assert cut.err == f"mmtl: {log}, line {lines} is truncated: it is ignored\n"


def test_an_anonymous_run_names_neither_file_nor_profile(mmtl: Mmtl, tmp_path: Path, bundle: Bundle) -> None:
    keep(bundle, "anna", fingerprint=bundle.fingerprint)
    sound, log = tmp_path / "Anna Schmidt.wav", tmp_path / "events.jsonl"
    soundfile.write(sound, np.full(1_000, 0.1), 16_000)
    run = ["run", str(sound), "--jsonl", str(log), "--profile", "anna", "--bundle", str(CNN_LSTM)]
    assert mmtl(*run).code == 0
    named = assert_whole(log.read_text("utf-8"))[0]
    assert (named["source"], named["profile"]) == ("Anna Schmidt.wav", "anna")
    hidden = mmtl(*run, "--anonymous", "--replace")
    assert hidden.code == 0
    assert not re.search(r"\b[Aa]nna\b|Schmidt", log.read_text("utf-8") + hidden.out + hidden.err)
    unnamed = assert_whole(log.read_text("utf-8"))[0]
    assert (unnamed["source"], unnamed["profile"]) == ("unnamed", "unnamed")


def test_events_that_cannot_be_written_are_one_line_and_code_2(mmtl: Mmtl, tmp_path: Path) -> None:
    assert_one_line(mmtl("run", "demo", "--jsonl", str(tmp_path)), 2, "name a file")


@pytest.mark.parametrize(
    "kind", ["changed byte", "missing file", "unknown version", "malformed JSON", "wrong size", "no manifest"]
)
def test_a_spoilt_bundle_is_one_line_and_code_4(mmtl: Mmtl, bundle_folder: Path, kind: str) -> None:
    spoil(bundle_folder, kind)
    assert_one_line(mmtl("run", "demo", "--bundle", str(bundle_folder)), 4, str(bundle_folder))


def test_an_unknown_profile_is_one_line_and_code_4(mmtl: Mmtl) -> None:
    assert_one_line(mmtl("run", "demo", "--profile", "nobody"), 4, "there is no profile nobody")
    assert_one_line(mmtl("run", "demo", "--profile", "../x"), 4, "cannot name a profile")


def keep(
    bundle: Bundle, name: str, verdict: profile_module.Verdict = "adopted", fingerprint: str = "0" * 64
) -> Path:
    manifest = bundle.manifest
    path = profile_module.profile_path(name)
    profile = Profile(
        name, fingerprint, bundle.head, manifest.levels, bundle.statistics, verdict, {"clips": 8}
    )
    save_profile(path, profile)
    return path


def test_a_profile_for_another_bundle_is_one_line_and_code_4(mmtl: Mmtl, bundle: Bundle) -> None:
    keep(bundle, "anna")
    assert_one_line(mmtl("run", "demo", "--profile", "anna"), 4, "another model")


def test_profiles_are_listed_shown_and_deleted(mmtl: Mmtl, bundle: Bundle) -> None:
    assert "No profiles yet" in mmtl("profile", "list").out
    path, damaged = keep(bundle, "anna", "rejected"), keep(bundle, "bob")
    damaged.write_bytes(b"damaged")
    lines = mmtl("profile", "list").out.splitlines()
    assert re.fullmatch(r"anna  rejected  \d{4}-\d\d-\d\d \d\d:\d\d UTC  for another model", lines[0])
    assert lines[1:] == ["bob   damaged"]
    assert json.loads(mmtl("profile", "show", "anna").out)["clips"] == 8
    assert mmtl("profile", "show", "anna", "--text").out.startswith("anna\n  verdict      rejected\n")
    assert_one_line(mmtl("profile", "show", "bob"), 4, "damaged")
    assert mmtl("profile", "delete", "anna").out == "Deleted the profile anna.\n"
    assert mmtl("profile", "delete", "bob").code == 0
    assert not path.exists()
    assert_one_line(mmtl("profile", "delete", "anna"), 4, "there is no profile anna")


def test_deleting_says_that_recordings_went_too(mmtl: Mmtl, bundle: Bundle) -> None:
    recordings = keep(bundle, "anna").parents[1] / "sessions" / "anna"
    recordings.mkdir(parents=True)
    expected = "Deleted the profile anna.\nDeleted the recordings of the unfinished session of anna.\n"
    assert mmtl("profile", "delete", "anna").out == expected
    assert not recordings.exists()
    recordings.mkdir()
    assert mmtl("profile", "delete", "anna").out == expected.partition("\n")[2]


def test_a_profile_goes_out_and_comes_in(mmtl: Mmtl, bundle: Bundle, tmp_path: Path) -> None:
    path, out = keep(bundle, "anna", fingerprint=bundle.fingerprint), tmp_path / "my anna.safetensors"
    assert "mmtl profile import" in mmtl("profile", "export", "anna", str(out)).out
    assert_one_line(mmtl("profile", "export", "anna", str(out)), 2, "give --replace")
    assert mmtl("profile", "export", "anna", str(out), "--replace").code == 0
    assert_one_line(
        mmtl("profile", "import", "--bundle", str(CNN_LSTM), str(out)), 4, "cannot name a profile"
    )
    assert_one_line(
        mmtl("profile", "import", "--bundle", str(CNN_LSTM), str(out), "--name", "anna"), 2, "give --replace"
    )
    imported = mmtl("profile", "import", "--bundle", str(CNN_LSTM), str(out), "--name", "bob")
    assert imported.out == "Imported the profile bob: mmtl monitor --profile bob\n"
    assert path.with_name("bob.safetensors").read_bytes() == path.read_bytes()
    keep(bundle, "anna", "rejected", fingerprint=bundle.fingerprint)
    mmtl("profile", "export", "anna", str(out), "--replace")
    assert (
        "did not help"
        in mmtl("profile", "import", "--bundle", str(CNN_LSTM), str(out), "--name", "anna", "--replace").out
    )


def test_a_profile_for_another_model_does_not_come_in(mmtl: Mmtl, bundle: Bundle, tmp_path: Path) -> None:
    keep(bundle, "anna")
    out = tmp_path / "anna.safetensors"
    assert mmtl("profile", "export", "anna", str(out)).code == 0
    assert_one_line(mmtl("profile", "import", str(out), "--name", "bob"), 4, "name that one with --bundle")


def test_only_a_profile_can_be_deleted(mmtl: Mmtl, bundle_folder: Path) -> None:
    victim = bundle_folder / "head.safetensors"
    assert_one_line(mmtl("profile", "delete", str(victim)), 4, "cannot name a profile")
    assert victim.exists()


def test_what_nobody_foresaw_is_one_line_and_code_1(mmtl: Mmtl, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("first line\nsecond line")

    monkeypatch.setattr("edge.audio.sources.open_source", fail)
    assert_one_line(mmtl("run", "demo"), 1, "unexpected: RuntimeError: first line second line", "MMTL_DEBUG")
    monkeypatch.setenv("MMTL_DEBUG", "1")
    with pytest.raises(RuntimeError, match="first line"):
        mmtl("run", "demo")


@pytest.mark.parametrize(("package", "extra"), sorted(cli.EXTRAS.items()))
def test_a_missing_package_of_an_extra_is_one_line_and_code_2(
    mmtl: Mmtl, monkeypatch: pytest.MonkeyPatch, package: str, extra: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ModuleNotFoundError(f"No module named {package!r}", name=package)

    monkeypatch.setattr("edge.audio.sources.open_source", fail)
    assert_one_line(mmtl("run", "demo"), 2, package, f"pip install 'mmtl[{extra}]'")


@pytest.mark.parametrize("package", ["nowhere", "edge.nowhere"])
def test_a_missing_package_of_no_extra_is_unexpected(
    mmtl: Mmtl, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ModuleNotFoundError(f"No module named {package!r}", name=package)

    monkeypatch.setattr("edge.audio.sources.open_source", fail)
    assert_one_line(mmtl("run", "demo"), 1, package)


def test_help_lists_every_command(mmtl: Mmtl) -> None:
    outcome = mmtl("--help")
    assert (outcome.code, outcome.err) == (0, "")
    names = {"monitor", "run", "verify", "benchmark", "devices", "profile"}
    names |= {entry.name for entry in entry_points(group=commands.COMMAND_GROUP)}
    assert all(re.search(rf"\b{name}\b", outcome.out) for name in names)


@pytest.mark.parametrize("command", ["monitor", "run", "verify", "benchmark", "devices", "profile"])
def test_every_command_has_help(mmtl: Mmtl, command: str) -> None:
    outcome = mmtl(command, "--help")
    assert (outcome.code, outcome.err) == (0, "")
    assert f"mmtl {command}" in outcome.out


@pytest.mark.parametrize("command", ["build-engine", "run", "monitor", "serve", "export"])
def test_help_says_of_what_needs_a_gpu_that_it_has_not_been_run_on_one(mmtl: Mmtl, command: str) -> None:
    if command == "export" and command not in {
        entry.name for entry in entry_points(group=commands.COMMAND_GROUP)
    }:
        pytest.skip("mmtl is not installed here, so it has no export command")
    if command == "export":
        pytest.importorskip("torch", reason="torch is not installed")
    outcome = mmtl(command, "--help")
    assert (outcome.code, outcome.err) == (0, "")
    said = " ".join(outcome.out.replace("│", " ").split())
    assert "not yet run on a gpu" in said.lower()


def test_no_command_at_all_shows_the_help(mmtl: Mmtl) -> None:
    outcome = mmtl()
    assert (outcome.code, outcome.err) == (2, "")
    assert "monitor" in outcome.out


def test_the_version_is_one_line_and_with_verbose_names_the_licence(mmtl: Mmtl) -> None:
    assert re.fullmatch(r"mmtl \S.*\n", mmtl("--version").out)
    verbose = mmtl("--version", "--verbose").out
    assert "weights under" in verbose


def test_a_copy_that_was_not_installed_still_has_a_version(
    mmtl: Mmtl, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(commands, "version", fail)
    assert mmtl("--version").out == "mmtl (not installed)\n"


def test_a_missing_extra_is_one_line_that_says_what_to_install() -> None:
    if "train" not in {entry.name for entry in entry_points(group=commands.COMMAND_GROUP)}:
        pytest.skip("mmtl is not installed here, so it has no train command")
    outcome = finished(process("train", "corpus", "--out", "nowhere", program=TORCHLESS))
    assert_one_line(outcome, 2, "pip install 'mmtl[train]'")


def test_a_reader_who_leaves_early_is_no_error() -> None:
    running = process("run", "demo", "--jsonl", "-", "--step-ms", "80", "--provider", "cpu")
    assert running.stdout
    assert events(running.stdout.readline())[0]["type"] == "session"
    running.stdout.close()
    assert running.stderr
    with running:
        assert running.stderr.read() == ""
        assert running.wait(timeout=60) == 0


def test_a_reader_of_a_conversion_who_leaves_early_is_no_error(mmtl: Mmtl, tmp_path: Path) -> None:
    log = tmp_path / "events.jsonl"
    mmtl("run", "demo", "--jsonl", str(log))
    lines = log.read_text().splitlines(keepends=True)
    log.write_text("".join([*(line for line in lines if '"window"' in line)] * 200), "utf-8")
    running = process("convert", str(log), "--to", "csv")
    assert running.stdout
    assert running.stdout.readline().startswith("start_s,")
    running.stdout.close()
    assert running.stderr
    with running:
        assert running.stderr.read() == ""
        assert running.wait(timeout=60) == 0


@pytest.mark.parametrize("arguments", [["--help"], ["verify", "default", "demo"]], ids=" ".join)
def test_a_reader_of_what_a_command_prints_may_be_gone_before_it_begins(arguments: list[str]) -> None:
    running = process(*arguments)
    assert running.stdout
    running.stdout.close()
    assert running.stderr
    with running:
        assert running.stderr.read() == ""
        assert running.wait(timeout=60) == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_flushes_and_ends_in_a_summary_and_code_0(number: signal.Signals, tmp_path: Path) -> None:
    path = tmp_path / "long.wav"
    soundfile.write(path, np.tile(read_clip(demo_clip()), 30), 16_000)
    running = process("run", str(path), "--paced", "--jsonl", "-", "--provider", "cpu")
    assert running.stdout
    first = running.stdout.readline()
    running.stdout.readline()
    running.send_signal(number)
    outcome = finished(running)
    assert (outcome.code, outcome.err) == (0, "")
    found = events(first + outcome.out)
    assert found[0]["type"] == "session"
    assert found[-1]["type"] == "summary"
    assert 0.0 < float(str(found[-1]["duration_s"])) < 120.0
