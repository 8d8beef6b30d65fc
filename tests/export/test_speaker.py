from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from calibrate.takes import Take
from edge.arrays import Array
from edge.cli.main import main
from edge.errors import BundleError, ModelError, UsageError
from edge.events import Window
from edge.labels import EMOTIONS
from edge.model.bundle import Bundle, load_bundle
from edge.model.manifest import WEIGHTS, read_manifest
from edge.model.profile import ADOPTED, REJECTED, find_profile, load_profile, profile_path, read_profile
from edge.recognition.recognizer import Recognizer
from export import bundling, speaker
from export.bundling import export_bundle
from export.speaker import SpeakerBundle
from tests.train.synthetic import SAMPLE_RATE, TINY, tiny_checkpoint, voice
from train.checkpoint import load_cnn_lstm
from train.speaker_finetune import Tuning, answer, speaker_samples

STRONG = Tuning(inner_lr=0.03, inner_steps=10, transfer_steps=300)
"""Enough for a network that was never trained."""

Session = tuple[list[Take], list[Array]]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep profiles where the test ends."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture(scope="module")
def generic(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("generic") / "tiny"
    export_bundle(tiny_checkpoint(seed=1), folder, "tiny")
    return load_bundle(folder)


def session(emotions: Sequence[str] = EMOTIONS) -> Session:
    """Three takes of each emotion by one speaker, whose sounds tell the emotions apart."""
    said = [(emotion, number) for number in range(3) for emotion in emotions]
    takes = [Take(Path(f"secret-{emotion}-{n}.wav"), EMOTIONS.index(emotion)) for emotion, n in said]
    return takes, [voice(1, emotion, number, 1.0) for emotion, number in said]


def misleading() -> Session:
    """As good as one and the same sound, whatever the label: the very same would be refused."""
    takes, sounds = session()
    return takes, [np.float32(1.0 - 0.01 * index) * sounds[0] for index in range(len(takes))]


@pytest.fixture(scope="module")
def tuned(generic: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("tuned") / "anna"
    assert SpeakerBundle(generic, folder, tuning=STRONG).fit("anna", *session()).verdict == ADOPTED
    return load_bundle(folder)


def test_the_speakers_bundle_is_for_its_owner_only(generic: Bundle, tuned: Bundle) -> None:
    assert tuned.folder.stat().st_mode & 0o077 == 0
    assert generic.folder.stat().st_mode & 0o055 == 0o055


def test_the_speakers_bundle_runs_and_says_something_else(generic: Bundle, tuned: Bundle) -> None:
    assert tuned.fingerprint != generic.fingerprint
    said = []
    for bundle in (generic, tuned):
        with Recognizer(bundle) as recognizer:
            heard = recognizer.accept_waveform(SAMPLE_RATE, voice(1, "happy", 7, 4.0))
            (*_, last) = (event for event in heard if isinstance(event, Window))
            said.append([last.probs[emotion] for emotion in EMOTIONS])
    assert np.ptp(said, axis=0).max() > 0.01


def test_every_layer_differs_but_the_front_end_and_the_norms_are_the_generic_ones(
    generic: Bundle, tuned: Bundle
) -> None:
    assert tuned.manifest.front_end == generic.manifest.front_end
    assert tuned.manifest.levels == generic.manifest.levels
    np.testing.assert_array_equal(tuned.statistics.mean, generic.statistics.mean)
    assert tuned.head.temperature == generic.head.temperature
    before, after = (load_cnn_lstm(bundle.folder / WEIGHTS).net.state_dict() for bundle in (generic, tuned))
    same = {name for name, value in before.items() if value.equal(after[name])}
    assert same == {name for name in before if "norm" in name}


def test_the_bundle_says_whose_it_is_and_from_what(generic: Bundle, tuned: Bundle) -> None:
    manifest = tuned.manifest
    assert manifest.name == "anna"
    made = manifest.training["speaker"]
    assert made["name"] == "anna"
    assert made["from"] == {"bundle": "tiny", "fingerprint": generic.fingerprint}
    assert made["takes"] == dict.fromkeys(EMOTIONS, 3)
    assert made["ratings"] == {"given": 0, "derived": 36}
    assert made["after"]["log_loss"] < made["before"]["log_loss"]
    assert manifest.training["speakers"]["train"] == ["s0", "s1", "anna"]
    assert manifest.training["corpora"][-1] == {
        "name": "takes of anna",
        "licence": "the speaker's own",
        "clips": 12,
        "ratings": "derived",
    }
    assert manifest.licence == generic.manifest.licence
    card = (tuned.folder / "CARD.md").read_text("utf-8")
    assert "tuned to one speaker, anna, by `mmtl calibrate --full`" in card
    assert generic.fingerprint in card
    assert "3 neutral, 3 happy, 3 sad, 3 angry; of their ratings 0 were given, 36 derived" in card


def test_no_name_of_a_sound_file_is_in_the_bundle(tuned: Bundle) -> None:
    assert not [path for path in tuned.folder.iterdir() if b"secret" in path.read_bytes()]


def test_ratings_that_were_given_are_counted(generic: Bundle, tmp_path: Path) -> None:
    takes, sounds = session()
    takes = [replace(take, ratings=(2.0, None, 3.0)) for take in takes]
    longer = replace(STRONG, transfer_steps=600)  # ratings that are all alike teach the meta learner little
    fit = SpeakerBundle(generic, tmp_path / "anna", tuning=longer).fit("anna", takes, sounds)
    assert fit.verdict == ADOPTED
    training = read_manifest(tmp_path / "anna").training
    assert training["speaker"]["ratings"] == {"given": 24, "derived": 12}
    assert training["corpora"][-1]["ratings"] == "human and derived"


def test_a_session_gives_the_same_bundle_every_time(generic: Bundle, tuned: Bundle, tmp_path: Path) -> None:
    again = SpeakerBundle(generic, tmp_path / "anna", tuning=STRONG).fit("anna", *session())
    assert load_bundle(tmp_path / "anna").fingerprint == tuned.fingerprint
    assert tuned.manifest.training["speaker"]["after"] == again.after.described()


def test_what_does_not_help_is_not_written(generic: Bundle, tmp_path: Path) -> None:
    judgement = SpeakerBundle(generic, tmp_path / "anna", tuning=STRONG).fit("anna", *misleading())
    assert judgement.verdict == REJECTED
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_tuned_to_a_session_that_lacks_an_emotion(
    generic: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(speaker, "tune", None)
    judgement = SpeakerBundle(generic, tmp_path / "anna").fit("anna", *session(EMOTIONS[:3]))
    assert judgement.verdict == REJECTED
    assert judgement.reason.startswith("nothing can be fitted without takes of angry")
    assert list(tmp_path.iterdir()) == []


def test_no_take_is_judged_by_a_network_that_has_heard_it(
    generic: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tuned_on: list[set[Path]] = []
    judged: list[set[Path]] = []
    by_frames: dict[int, Path] = {}

    def spied_samples(frames: Any, takes: Sequence[Take], graphs: Any, auxiliary: Any) -> Any:
        by_frames.update({id(item): take.path for item, take in zip(frames, takes, strict=True)})
        tuned_on.append({take.path for take in takes})
        judged.append(set())
        return speaker_samples(frames, takes, graphs, auxiliary)

    def spied_answer(net: Any, frames: Array, manifest: Any, temperature: float) -> Array:
        if judged:  # before the first it is the generic network that answers
            judged[-1].add(by_frames.get(id(frames), Path("heard by none so far")))
        return answer(net, frames, manifest, temperature)

    monkeypatch.setattr(speaker, "speaker_samples", spied_samples)
    monkeypatch.setattr(speaker, "answer", spied_answer)
    takes, sounds = session()
    SpeakerBundle(generic, tmp_path / "anna", tuning=replace(STRONG, inner_steps=1)).fit("x", takes, sounds)
    assert len(tuned_on) >= 3
    for heard, asked in zip(tuned_on[:3], judged[:3], strict=True):
        assert (len(heard), len(asked & heard)) == (8, 0)
        assert asked


@pytest.mark.parametrize("when", ["judging", "writing"])
def test_being_stopped_leaves_nothing(
    generic: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(*{"judging": (speaker, "answer"), "writing": (bundling, "write_card")}[when], stop)
    tuning = SpeakerBundle(generic, tmp_path / "anna", tuning=STRONG)
    with pytest.raises(KeyboardInterrupt):
        tuning.fit("anna", *session())
    assert list(tmp_path.iterdir()) == []


def test_what_is_in_the_way_is_found_before_anything_is_tuned(generic: Bundle, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    with pytest.raises(UsageError, match="is not a bundle"):
        SpeakerBundle(generic, tmp_path / "photos", replace=True)
    export_bundle(tiny_checkpoint(), tmp_path / "anna", "anna")
    with pytest.raises(UsageError, match="add --replace"):
        SpeakerBundle(generic, tmp_path / "anna")
    SpeakerBundle(generic, tmp_path / "anna", replace=True)
    with pytest.raises(UsageError, match="cannot write"):
        SpeakerBundle(generic, tmp_path / "anna" / "model.json" / "below")


def test_the_generic_model_is_never_replaced_by_a_speakers(generic: Bundle) -> None:
    with pytest.raises(UsageError, match="holds the generic model"):
        SpeakerBundle(generic, generic.folder, replace=True)


def test_a_network_without_a_transfer_learner_is_refused(tmp_path: Path) -> None:
    direct = tiny_checkpoint(replace(TINY, heads="separate", emotions="direct"))
    export_bundle(direct, tmp_path / "mtl", "mtl")
    with pytest.raises(UsageError, match="no transfer learner"):
        SpeakerBundle(load_bundle(tmp_path / "mtl"), tmp_path / "anna")


def test_weights_that_are_damaged_are_refused(generic: Bundle, tmp_path: Path) -> None:
    (tmp_path / WEIGHTS).write_bytes(b"")
    with pytest.raises(ModelError, match="damaged"):
        SpeakerBundle(replace(generic, folder=tmp_path), tmp_path / "anna")


# From the outside.


def written(folder: Path, content: Session) -> Path:
    """Write a session's sounds and their manifest."""
    folder.mkdir()
    lines = ["path,emotion"]
    for take, sound in zip(*content, strict=True):
        soundfile.write(folder / take.path, sound, SAMPLE_RATE)
        lines.append(f"{take.path},{EMOTIONS[take.emotion]}")
    (folder / "session.csv").write_text("\n".join(lines) + "\n", "utf-8")
    return folder / "session.csv"


def calibrate(*arguments: object) -> int:
    """Call `mmtl calibrate` and return its exit code."""
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("sys.argv", ["mmtl", "calibrate", *map(str, arguments)])
            patch.setattr("export.speaker.Tuning", lambda: STRONG)
            main()
    except SystemExit as left:
        return int(left.code or 0)
    return 0


def test_the_profile_and_the_bundle_are_written_and_compared(
    generic: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest, out = written(tmp_path / "takes", session()), tmp_path / "anna"
    arguments = ("anna", "--from", manifest, "--bundle", generic.folder, "--full", "--out", out)
    assert calibrate(*arguments) == 0
    told = capsys.readouterr().out
    assert "whole network adopted: it lowers the log loss" in told
    assert f"mmtl monitor --bundle {out}" in told
    header = next(line for line in told.splitlines() if "whole network" in line).split()
    assert header[:3] == ["held-out", "takes", "generic"]
    assert read_manifest(out).name == "anna"
    assert read_profile(profile_path("anna")).bundle == generic.fingerprint
    assert calibrate(*arguments, "--replace") == 0


def test_the_profile_is_of_the_generic_model_and_not_for_the_speakers_own(
    generic: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest, out = written(tmp_path / "takes", session()), tmp_path / "anna"
    assert calibrate("anna", "--from", manifest, "--bundle", generic.folder, "--full", "--out", out) == 0
    capsys.readouterr()
    with pytest.raises(ModelError):
        load_profile(find_profile("anna"), load_bundle(out))


def test_a_bundle_that_does_not_help_is_not_written_and_the_reason_told(
    generic: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest, out = written(tmp_path / "takes", misleading()), tmp_path / "anna"
    assert calibrate("anna", "--from", manifest, "--bundle", generic.folder, "--full", "--out", out) == 0
    told = capsys.readouterr().out
    assert "whole network rejected: " in told
    assert "No bundle was written." in told
    assert not out.exists()
    with pytest.raises(BundleError):
        load_bundle(out)


@pytest.mark.parametrize("options", [("--full",), ("--out", "anna")])
def test_full_and_out_go_together(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, ...]
) -> None:
    manifest = written(tmp_path / "takes", session())
    assert calibrate("anna", "--from", manifest, *options) == 2
    assert "--full and --out FOLDER go together" in capsys.readouterr().err
    assert not home.exists()


@pytest.mark.parametrize("missing", ["torch", "onnx"])
def test_a_missing_package_is_one_line_before_anything_is_done(
    generic: Bundle, home: Path, tmp_path: Path, missing: str
) -> None:
    manifest = written(tmp_path / "takes", session())
    without = f"import sys; sys.modules[{missing!r}] = None; from edge.cli.main import main; main()"
    options = ["--from", manifest, "--bundle", generic.folder, "--full", "--out", tmp_path / "anna"]
    command = [sys.executable, "-c", without, "calibrate", "anna", *map(str, options)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"mmtl: --full needs {missing}: pip install 'mmtl[export]'\n"
    assert not home.exists()
