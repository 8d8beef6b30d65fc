"""`mmtl calibrate` as a command: output, files, exit codes and refusals."""

from __future__ import annotations

import json
import shutil
import stat
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

import calibrate.takes
from calibrate.fitting.session_reference import session_reference
from calibrate.session.session import Session
from calibrate.session.session_folder import SessionFolder
from calibrate.session.session_lock import session_lock
from calibrate.takes import Take
from edge.arrays import Array
from edge.audio.downmix import Channel
from edge.audio.sound_file import read_clip
from edge.errors import ProfileError
from edge.inference.engine import Engine
from edge.model.bundle import load_bundle, write_head
from edge.model.manifest import write_manifest
from edge.model.profile import load_profile, profile_path, read_profile, save_profile
from edge.recognition.drift import DriftWatch
from edge.recognition.recognizer import Recognizer
from tests.calibrate.labelled_takes import TWELVE, much_the_same, session, voice
from tests.calibrate.ordinary_speech import ordinary, with_baseline
from tests.calibrate.session.synthetic_voices import speech
from tests.cnn_lstm import CNN_LSTM
from tests.command_line import exit_code_of
from tests.tolerances import float32_tolerance, largest, network_terms

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write profiles to a folder of the test."""
    folder = tmp_path / "home"
    monkeypatch.setenv("XDG_DATA_HOME", str(folder))
    return folder


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the command; return its exit code, stdout and stderr."""

    def command(*arguments: object) -> tuple[int, str, str]:
        code = exit_code_of("calibrate", *arguments)
        out, err = capsys.readouterr()
        return code, out, err

    return command


@pytest.fixture
def telling(tmp_path: Path) -> Path:
    """A session whose sounds tell the emotions apart."""
    return session(tmp_path, TWELVE, [voice(emotion, seed) for seed, emotion in enumerate(TWELVE)])


@pytest.fixture
def misleading(tmp_path: Path) -> Path:
    """A session of nearly the same sound for every label."""
    return session(tmp_path, TWELVE, much_the_same(voice(0, 0)))


def test_a_session_that_helps_becomes_a_profile_that_can_be_applied(run: Run, telling: Path) -> None:
    code, out, _ = run("anna", "--from", telling)
    assert code == 0, out
    profile = load_profile(profile_path("anna"), load_bundle(CNN_LSTM))
    assert (profile.name, profile.verdict) == ("anna", "adopted")
    assert "before" in out
    assert "Held out by take" in out
    assert "adopted" in out
    assert profile.report["reason"] in " ".join(out.split())
    assert profile.report["takes"] == {"neutral": 3, "happy": 3, "sad": 3, "angry": 3}
    assert profile.report["sound_s"] == 12.0
    assert profile.report["after"]["log_loss"] < profile.report["before"]["log_loss"]


def test_a_session_with_wrong_labels_becomes_a_profile_that_is_never_applied(
    run: Run, misleading: Path
) -> None:
    code, out, _ = run("anna", "--from", misleading)
    assert code == 0
    assert "rejected" in out
    assert "The generic model stays in use" in out
    assert read_profile(profile_path("anna")).verdict == "rejected"
    with pytest.raises(ProfileError, match="was rejected"):
        load_profile(profile_path("anna"), load_bundle(CNN_LSTM))


def test_a_profile_is_readable_by_its_owner_only_and_holds_no_sound(run: Run, telling: Path) -> None:
    run("anna", "--from", telling)
    path = profile_path("anna")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [item.name for item in path.parent.iterdir()] == ["anna.safetensors"]
    profile = read_profile(path)
    tensors = profile.head.tensors() | profile.statistics.tensors()
    numbers = sum(array.size for array in tensors.values())
    assert path.stat().st_size < 4 * numbers + 8_000
    assert numbers < 12 * 16_000 / 8, "far fewer than the samples that were recorded"


def test_an_existing_profile_is_replaced_only_when_asked(run: Run, telling: Path) -> None:
    run("anna", "--from", telling)
    before = profile_path("anna").read_bytes()
    code, _, err = run("anna", "--from", telling)
    assert (code, profile_path("anna").read_bytes()) == (2, before)
    assert "--replace" in err
    profile_path("anna").write_bytes(b"an old one")
    assert run("anna", "--from", telling, "--replace")[0] == 0
    assert read_profile(profile_path("anna")).name == "anna"


def test_a_session_that_does_not_help_keeps_the_profile_in_use(
    run: Run, telling: Path, tmp_path: Path
) -> None:
    run("anna", "--from", telling)
    before = profile_path("anna").read_bytes()
    made = read_profile(profile_path("anna")).made
    assert made is not None
    (tmp_path / "new").mkdir()
    misleading = session(tmp_path / "new", TWELVE, much_the_same(voice(0, 0)))
    code, out, _ = run("anna", "--from", misleading, "--replace")
    assert (code, profile_path("anna").read_bytes()) == (0, before)
    assert "rejected" in out
    assert f"The earlier profile anna of {made:%Y-%m-%d %H:%M} UTC stays in use" in out
    assert "can be inspected" not in out


def test_a_session_that_helps_replaces_a_profile_in_use(run: Run, telling: Path) -> None:
    run("anna", "--from", telling)
    rows = telling.read_text().splitlines()
    telling.write_text("\n".join([f"{rows[0]},text", *(f"{row},The lid." for row in rows[1:])]))
    _, out, _ = run("anna", "--from", telling, "--replace")
    assert "stays in use" not in out
    assert read_profile(profile_path("anna")).report["one_sentence"] is True


@pytest.mark.parametrize("change", [{"verdict": "rejected"}, {"bundle": "another model's"}])
def test_a_rejected_profile_replaces_one_that_cannot_be_applied(
    run: Run, telling: Path, misleading: Path, change: dict[str, str]
) -> None:
    run("anna", "--from", telling)
    save_profile(profile_path("anna"), replace(read_profile(profile_path("anna")), **change))  # type: ignore[arg-type]
    _, out, _ = run("anna", "--from", misleading, "--replace")
    assert "The rejected profile anna can be inspected" in out
    kept = read_profile(profile_path("anna"))
    assert (kept.verdict, kept.bundle) == ("rejected", load_bundle(CNN_LSTM).fingerprint)


def test_a_take_that_sounds_like_another_person_s_is_named_before_the_judgement(
    run: Run, telling: Path, tmp_path: Path
) -> None:
    run("anna", "--from", telling)
    assert read_profile(profile_path("anna")).report["doubtful_takes"] == []
    (tmp_path / "mixed").mkdir()
    sounds = much_the_same(speech())
    sounds[4] = sounds[4][::2]
    code, out, _ = run("anne", "--from", session(tmp_path / "mixed", TWELVE, sounds))
    assert code == 0
    assert out.startswith("Take 5 (neutral) does not sound like the other takes: listen to ")
    assert "4.wav, and record it again if another person spoke.\n" in out
    report = read_profile(profile_path("anne")).report
    assert report["doubtful_takes"] == [{"take": 5, "emotion": "neutral"}]


def test_a_dangling_link_counts_as_an_existing_profile(run: Run, telling: Path, tmp_path: Path) -> None:
    profile_path("anna").parent.mkdir(parents=True)
    profile_path("anna").symlink_to(tmp_path / "nowhere")
    code, _, err = run("anna", "--from", telling)
    assert (code, profile_path("anna").is_symlink()) == (2, True)
    assert "--replace" in err
    assert run("anna", "--from", telling, "--replace")[0] == 0
    assert not profile_path("anna").is_symlink()
    assert not (tmp_path / "nowhere").exists()


def in_the_manner_of(emotion: int, seed: int) -> Array:
    """Speech, of a pitch, pace and loudness for each emotion."""
    pace, loudness = ((1.0, 0.5), (1.4, 0.7), (0.8, 0.2), (1.2, 0.95))[emotion]
    spoken = speech(peak=loudness)
    places = np.arange(0.0, len(spoken) - 1.0, pace)
    sound: Array = np.interp(places, np.arange(len(spoken)), spoken).astype(np.float32)
    return np.roll(sound, 400 * seed)


@pytest.fixture
def spoken(tmp_path: Path) -> Path:
    """A session of speech that tells the emotions apart."""
    return session(tmp_path, TWELVE, [in_the_manner_of(emotion, seed) for seed, emotion in enumerate(TWELVE)])


def test_an_adopted_profile_has_a_drift_reference(run: Run, spoken: Path) -> None:
    run("anna", "--from", spoken)
    bundle = load_bundle(CNN_LSTM)
    profile = load_profile(profile_path("anna"), bundle)
    sounds = [read_clip(spoken.parent / f"{index}.wav") for index in range(12)]
    optimism = profile.report["optimism"]
    expected = session_reference(bundle, profile, sounds, engine=Engine(bundle, "cpu"), optimism=optimism)
    assert optimism > 0.0
    assert expected is not None
    assert profile.reference is not None
    terms = network_terms(bundle, steps=bundle.manifest.graphs.window_features)
    for found, wanted in (
        (profile.reference.mean, expected.mean),
        (profile.reference.spread, expected.spread),
    ):
        np.testing.assert_allclose(found, wanted, rtol=0, atol=float32_tolerance(terms, largest(wanted)))
    assert isinstance(Recognizer(bundle, profile=profile, provider="cpu").observer, DriftWatch)


def test_a_rejected_profile_has_no_drift_reference(run: Run, tmp_path: Path) -> None:
    run("anna", "--from", session(tmp_path, TWELVE, much_the_same(speech())))
    profile = read_profile(profile_path("anna"))
    assert (profile.verdict, profile.reference) == ("rejected", None)


def test_a_session_of_one_sentence_is_told_the_limit_of_its_judgement(run: Run, telling: Path) -> None:
    rows = telling.read_text().splitlines()
    telling.write_text("\n".join([f"{rows[0]},text", *(f"{row},The lid." for row in rows[1:])]))
    _, out, _ = run("anna", "--from", telling)
    assert "all takes are of one sentence: other sentences may be recognised less well" in out
    assert read_profile(profile_path("anna")).report["one_sentence"] is True


def test_the_judgement_is_drawn_where_that_is_asked_for(run: Run, telling: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    picture = tmp_path / "new" / "anna.png"
    code, out, _ = run("anna", "--from", telling, "--picture", picture)
    assert code == 0
    assert f"Wrote {picture}" in out.replace("\n", " ")
    drawn = picture.read_bytes()
    assert drawn.startswith(b"\x89PNG")
    code, _, err = run("anne", "--from", telling, "--picture", picture)
    assert (code, picture.read_bytes(), profile_path("anne").exists()) == (2, drawn, False)
    assert "anna.png already: give --replace to overwrite it" in err
    assert run("anna", "--from", telling, "--picture", picture, "--replace")[0] == 0
    assert picture.read_bytes() == drawn


def test_a_picture_is_drawn_over_nothing_that_is_read_or_written(
    run: Run, telling: Path, tmp_path: Path
) -> None:
    pytest.importorskip("matplotlib")
    assert run("anna", "--from", telling)[0] == 0
    picture = tmp_path / "picture.png"
    model, takes = CNN_LSTM / "model.json", telling.parent / "0.wav"
    for read in (telling, takes, profile_path("anna"), model):
        picture.symlink_to(read)
        before = read.read_bytes()
        code, _, err = run("anna", "--from", telling, "--picture", picture, "--replace")
        assert (code, read.read_bytes()) == (2, before)
        assert "would overwrite" in err or "both name" in err
        picture.unlink()


@pytest.mark.parametrize("manifest", [True, False], ids=["from a manifest", "guided"])
def test_an_impossible_picture_is_refused_before_anything_is_done(
    run: Run, telling: Path, home: Path, tmp_path: Path, *, manifest: bool
) -> None:
    pytest.importorskip("matplotlib")
    source = ("--from", telling) if manifest else ()
    (tmp_path / "file").write_text("in the way")
    for name, said in (("anna.pdf", "ends with .png"), ("file/anna.png", "cannot write to")):
        code, out, err = run("anna", *source, "--picture", tmp_path / name)
        assert (code, out) == (2, "")
        assert said in err
        assert err.count("\n") == 1
    assert not home.exists()


def test_without_matplotlib_it_says_what_to_install(
    run: Run, telling: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    code, _, err = run("anna", "--from", telling, "--picture", "anna.png")
    assert code == 2
    assert err == "mmtl: this command needs matplotlib: pip install 'mmtl[pictures]'\n"
    assert not home.exists()
    assert run("anna", "--from", telling)[0] == 0


def test_a_session_gives_the_same_profile_every_time(run: Run, telling: Path) -> None:
    profiles = []
    for name in ("anna", "anne"):
        run(name, "--from", telling)
        profiles.append(read_profile(profile_path(name)))
    first, second = profiles
    same = [first.head.tensors()[name] == second.head.tensors()[name] for name in first.head.tensors()]
    assert all(equal.all() for equal in same)
    assert json.dumps(first.report | {"fit_s": 0}) == json.dumps(second.report | {"fit_s": 0})


def test_without_a_manifest_it_says_what_to_give(run: Run, home: Path) -> None:
    code, _, err = run("anna")
    assert code == 2
    assert "--from MANIFEST.csv" in err
    assert not home.exists()


def break_nothing(_: Path) -> None: ...


def lose_a_sound(manifest: Path) -> None:
    (manifest.parent / "3.wav").unlink()


def spoil_a_sound(manifest: Path) -> None:
    (manifest.parent / "3.wav").write_text("not sound")


def cut_a_sound(manifest: Path) -> None:
    soundfile.write(manifest.parent / "3.wav", np.full(8_000, 0.1), 16_000)


def misspell(manifest: Path) -> None:
    manifest.write_text(manifest.read_text().replace("happy", "hapy"))


@pytest.mark.parametrize(
    ("name", "spoil", "code", "said"),
    [
        ("../anna", break_nothing, 4, "cannot name a profile"),
        ("anna", lose_a_sound, 2, "no sound file"),
        ("anna", spoil_a_sound, 3, "3.wav cannot be read as sound"),
        ("anna", cut_a_sound, 2, "3.wav lasts 0.50 s"),
        ("anna", misspell, 2, "unknown emotion 'hapy'"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing_behind(
    run: Run, telling: Path, home: Path, name: str, spoil: Callable[[Path], None], code: int, said: str
) -> None:
    spoil(telling)
    left, out, err = run(name, "--from", telling)
    assert (left, out) == (code, "")
    assert said in err
    assert err.startswith("mmtl: ")
    assert err.count("\n") == 1
    assert not home.exists()


def test_a_folder_that_is_no_bundle_is_refused(run: Run, telling: Path, tmp_path: Path, home: Path) -> None:
    code, _, err = run("anna", "--from", telling, "--bundle", tmp_path)
    assert code == 4
    assert "is not a bundle" in err
    assert not home.exists()


def test_what_only_a_session_can_do_is_refused_with_a_manifest(
    run: Run, telling: Path, home: Path, tmp_path: Path
) -> None:
    code, _, err = run("anna", "--from", telling, "--resume", "--keep-recordings", tmp_path / "kept")
    assert code == 2
    assert "--resume, --keep-recordings and --from do not go together" in err
    assert not home.exists()


def test_a_profile_says_how_many_ratings_were_given_and_how_many_are_derived(run: Run, telling: Path) -> None:
    rows = telling.read_text().splitlines()
    rated = [f"{rows[0]},valence,arousal", f"{rows[1]},3,4", *(f"{row},," for row in rows[2:])]
    telling.write_text("\n".join(rated))
    run("anna", "--from", telling)
    assert read_profile(profile_path("anna")).report["ratings"] == {"given": 2, "derived": 34}


def test_an_existing_profile_stops_a_session_before_it_begins(run: Run, telling: Path) -> None:
    run("anna", "--from", telling)
    code, _, err = run("anna")
    assert code == 2
    assert "give --replace to overwrite it" in err


def test_a_profile_written_during_the_session_is_not_overwritten(
    run: Run, telling: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = calibrate.takes.read_takes

    def meanwhile(manifest: Path, *others: Channel) -> list[Take]:
        profile_path("anna").parent.mkdir(parents=True)
        profile_path("anna").write_text("somebody else's")
        return read(manifest, *others)

    monkeypatch.setattr(calibrate.takes, "read_takes", meanwhile)
    code, _, err = run("anna", "--from", telling)
    assert code == 2
    assert "give --replace to overwrite it" in err
    assert profile_path("anna").read_text() == "somebody else's"


def test_a_place_that_cannot_be_written_is_refused_before_anything_is_done(
    run: Run, tmp_path: Path, home: Path
) -> None:
    home.write_text("a file where the folder should be")
    code, _, err = run("anna", "--from", tmp_path / "never read.csv")
    assert code == 4
    assert "cannot write the profile" in err
    assert "XDG_DATA_HOME" in err


def test_two_sessions_of_a_name_at_once_are_refused(run: Run) -> None:
    with session_lock("anna"):
        code, _, err = run("anna")
    assert code == 2
    assert "a session of anna is already running" in err


@pytest.fixture
def relative(tmp_path: Path) -> Path:
    """The folder of a bundle whose head reads a speaker's baseline."""
    bundle = with_baseline(load_bundle(CNN_LSTM), 0.3)
    folder = tmp_path / "relative"
    shutil.copytree(bundle.folder, folder)
    write_head(folder, bundle.head, bundle.statistics)
    write_manifest(folder, bundle.manifest)
    return folder


def test_recordings_of_ordinary_speech_become_a_profile(run: Run, relative: Path, tmp_path: Path) -> None:
    names = [tmp_path / "one.wav", tmp_path / "two.wav", tmp_path / "three.wav"]
    for seed, name in enumerate(names):
        soundfile.write(name, ordinary(6.0, seed=seed), 16_000)
    code, out, err = run("anna", "--bundle", relative, "--ordinary", "--from", *names)
    assert code == 0, err
    assert "Fitted to 18 s of ordinary speech. It has no labels, so the gain is not measured." in out
    assert "Apply it: mmtl monitor --profile anna" in out
    profile = load_profile(profile_path("anna"), load_bundle(relative))
    assert (profile.report["kind"], profile.report["recordings"]) == ("ordinary", 3)
    code, _, err = run("anna", "--bundle", relative, "--ordinary", "--from", *names)
    assert (code, "--replace" in err) == (2, True)


def test_a_profile_from_ordinary_speech_is_shown_as_such(
    run: Run,
    relative: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    soundfile.write(tmp_path / "one.wav", ordinary(), 16_000)
    run("anna", "--bundle", relative, "--ordinary", "--from", tmp_path / "one.wav")

    def show(*arguments: object) -> str:
        assert exit_code_of("profile", *arguments, "--bundle", relative) == 0
        return " ".join(capsys.readouterr().out.split())

    kept = json.loads(show("show", "anna"))
    assert (kept["kind"], kept["verdict"]) == ("ordinary", "adopted")
    assert kept["speech_s"] == pytest.approx(14.0, abs=0.5)
    said = show("show", "anna", "--text")
    assert f"fitted to {kept['speech_s']:g} s of ordinary speech, without labels" in said
    assert "made 20" in said
    assert "anna adopted, from ordinary speech" in show("list")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--ordinary"], "does not read a speaker's baseline: leave --ordinary out"),
        (["--ordinary", "--from", "one.wav"], "does not read a speaker's baseline: leave --ordinary out"),
        (["--ordinary", "--takes", 3, "--resume"], "--takes, --resume and --ordinary do not go together"),
        (["--ordinary", "--picture", "p.png"], "--picture and --ordinary do not go together"),
        (["--ordinary", "--from", "one.wav", "--yes"], "--yes and --from do not go together"),
        (["--from", "s.csv", "two.wav"], "two.wav is one argument too many"),
        (["two.wav", "--ordinary"], "two.wav is one argument too many"),
    ],
)
def test_options_without_effect_on_ordinary_speech_are_refused(
    run: Run, home: Path, arguments: list[object], said: str
) -> None:
    code, _, err = run("anna", "--bundle", str(CNN_LSTM), *arguments)
    assert code == 2
    assert said in " ".join(err.split())
    assert not home.exists()


def test_ordinary_speech_that_cannot_be_used_leaves_no_profile(
    run: Run, relative: Path, tmp_path: Path
) -> None:
    soundfile.write(tmp_path / "short.wav", ordinary(4.0), 16_000)
    code, _, err = run("anna", "--bundle", relative, "--ordinary", "--from", tmp_path / "short.wav")
    assert code == 2
    assert "only 4 s of speech was heard" in err
    assert not profile_path("anna").exists()


@pytest.fixture
def at_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run guided sessions without a terminal and a microphone."""
    monkeypatch.setattr("calibrate.session.workflow.require_terminal", lambda *_: None)
    monkeypatch.setattr("calibrate.session.workflow.require_microphone", lambda *_: None)


def says(monkeypatch: pytest.MonkeyPatch, sound: Array, asked: list[Session]) -> None:
    """Let guided sessions record ordinary speech, and two takes of each emotion where they are asked for."""

    def run_session(session: Session, folder: SessionFolder, *_: object) -> tuple[Session, bool]:
        asked.append(session)
        if session.ordinary == "open":
            session = folder.keep_ordinary(session, sound)
        for prompt in session.open:
            take = voice(prompt.emotion, prompt.index)
            session = folder.keep(session, prompt, take, (None, None, None))
        return session, True

    monkeypatch.setattr("calibrate.session.workflow.run_session", run_session)


@pytest.mark.usefixtures("at_a_terminal")
def test_a_guided_session_of_ordinary_speech_alone_writes_a_profile_and_deletes_the_recording(
    run: Run, relative: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Session] = []
    says(monkeypatch, ordinary(), asked)
    code, out, err = run("anna", "--bundle", relative, "--ordinary", "--yes")
    assert code == 0, err
    assert (asked[0].takes, asked[0].ordinary) == (0, "open")
    assert "Fitted to 14 s of ordinary speech" in out
    assert "The session's recordings are deleted." in err
    assert read_profile(profile_path("anna")).report["kind"] == "ordinary"
    assert [item.name for item in home.rglob("*") if item.is_file()] == ["anna.safetensors"]


@pytest.mark.usefixtures("at_a_terminal")
def test_a_guided_session_of_two_people_leaves_neither_a_profile_nor_a_recording(
    run: Run, relative: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    says(monkeypatch, np.concatenate([ordinary(9.0), ordinary(9.0, faster=1.5)]), [])
    code, _, err = run("anna", "--bundle", relative, "--ordinary", "--yes")
    assert (code, "more than one person seems to speak" in err) == (2, True)
    assert [item for item in home.rglob("*") if item.is_file()] == []


@pytest.mark.usefixtures("at_a_terminal")
@pytest.mark.parametrize("reads_baseline", [True, False])
def test_a_guided_session_begins_with_ordinary_speech_where_the_model_uses_it(
    run: Run, relative: Path, monkeypatch: pytest.MonkeyPatch, reads_baseline: bool
) -> None:
    asked: list[Session] = []
    says(monkeypatch, ordinary(), asked)
    monkeypatch.setattr("typer.confirm", lambda *_, **__: False)
    code, _, err = run("anna", "--yes", "--bundle", relative if reads_baseline else str(CNN_LSTM))
    assert code == 0, err
    assert (asked[0].takes, asked[0].ordinary) == (2, "open" if reads_baseline else "none")
    report = read_profile(profile_path("anna")).report
    assert ("ordinary" in report, "baseline" in report["candidates"]) == (reads_baseline, reads_baseline)
