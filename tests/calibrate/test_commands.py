"""`mmtl calibrate` from the outside: what it writes, prints and refuses."""

from __future__ import annotations

import json
import stat
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile

from edge.bundle import default_bundle, load_bundle
from edge.cli import main
from edge.errors import ProfileError
from edge.frontend import Array
from edge.labels import EMOTIONS
from edge.profile import load_profile, profile_path, read_profile

pytestmark = pytest.mark.skipif(
    not (default_bundle() / "model.json").is_file(), reason="the default bundle is not in this checkout"
)

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep profiles where the test ends."""
    folder = tmp_path / "home"
    monkeypatch.setenv("XDG_DATA_HOME", str(folder))
    return folder


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run the command; return its exit code, stdout and stderr."""

    def command(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["mmtl", "calibrate", *map(str, arguments)])
        code = 0
        try:
            main()
        except SystemExit as leaving:
            code = int(leaving.code or 0)
        out, err = capsys.readouterr()
        return code, out, err

    return command


def voice(emotion: int, seed: int) -> Array:
    """A second of something that is not speech, but of a colour and rhythm for each emotion."""
    draw = np.random.default_rng(seed)
    time_s = np.arange(16_000) / 16_000
    pitch = (120, 300, 700, 2000)[emotion] * (1.0 + 0.05 * draw.random())
    hiss = (0.0, 0.3, 0.1, 1.0)[emotion] * draw.standard_normal(16_000)
    buzz = np.sign(np.sin(2.0 * np.pi * pitch * time_s)) + hiss
    rhythm = 0.6 + 0.4 * np.sin(2.0 * np.pi * (1, 6, 2, 4)[emotion] * time_s)
    return (0.1 * rhythm * buzz).clip(-1, 1).astype(np.float32)


def session(folder: Path, labels: Sequence[int], sounds: Sequence[Array]) -> Path:
    """Write sounds and their manifest."""
    lines = ["path,emotion"]
    for index, (label, sound) in enumerate(zip(labels, sounds, strict=True)):
        soundfile.write(folder / f"{index}.wav", sound, 16_000)
        lines.append(f"{index}.wav,{EMOTIONS[label]}")
    (folder / "session.csv").write_text("\n".join(lines) + "\n")
    return folder / "session.csv"


TWELVE = [0, 1, 2, 3] * 3


@pytest.fixture
def telling(tmp_path: Path) -> Path:
    """A session whose sounds tell the emotions apart."""
    return session(tmp_path, TWELVE, [voice(emotion, seed) for seed, emotion in enumerate(TWELVE)])


@pytest.fixture
def misleading(tmp_path: Path) -> Path:
    """A session of one and the same sound, whatever the label."""
    return session(tmp_path, TWELVE, [voice(0, 0)] * 12)


def test_a_session_that_helps_becomes_a_profile_that_can_be_applied(run: Run, telling: Path) -> None:
    code, out, _ = run("anna", "--from", telling)
    assert code == 0, out
    profile = load_profile(profile_path("anna"), load_bundle(default_bundle()))
    assert (profile.name, profile.verdict) == ("anna", "adopted")
    assert "before" in out
    assert "adopted" in out
    assert profile.report["reason"] in " ".join(out.split())
    assert profile.report["takes"] == {"neutral": 3, "happy": 3, "sad": 3, "angry": 3}
    assert profile.report["sound_s"] == 12.0
    assert profile.report["after"]["log_loss"] < profile.report["before"]["log_loss"]


def test_a_session_that_misleads_becomes_a_profile_that_is_never_applied(run: Run, misleading: Path) -> None:
    code, out, _ = run("anna", "--from", misleading)
    assert code == 0
    assert "rejected" in out
    assert "The generic model stays" in out
    assert read_profile(profile_path("anna")).verdict == "rejected"
    with pytest.raises(ProfileError, match="was rejected"):
        load_profile(profile_path("anna"), load_bundle(default_bundle()))


def test_a_profile_is_its_owner_s_alone_and_holds_no_sound(run: Run, telling: Path) -> None:
    run("anna", "--from", telling)
    path = profile_path("anna")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [item.name for item in path.parent.iterdir()] == ["anna.safetensors"]
    head = load_bundle(default_bundle()).head
    numbers = sum(array.size for array in head.tensors().values()) + 2 * 200
    assert path.stat().st_size < 4 * numbers + 8_000


def test_an_existing_profile_is_replaced_only_when_asked(run: Run, telling: Path) -> None:
    run("anna", "--from", telling)
    before = profile_path("anna").read_bytes()
    code, _, err = run("anna", "--from", telling)
    assert (code, profile_path("anna").read_bytes()) == (2, before)
    assert "--replace" in err
    profile_path("anna").write_bytes(b"an old one")
    assert run("anna", "--from", telling, "--replace")[0] == 0
    assert read_profile(profile_path("anna")).name == "anna"


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
