"""`calibrate_speaker` from Python: what it returns, refuses and writes."""

from __future__ import annotations

import dataclasses
import inspect
import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile

import calibrate
from calibrate import Take, calibrate_ordinary, calibrate_speaker, read_takes
from calibrate.fitting.full_finetune import judge_tuned
from calibrate.fitting.model_selection import Judgement
from calibrate.fitting.ordinary import ordinary_windows
from calibrate.fitting.scores import HeldOutPredictions
from calibrate.speaker import Calibration
from edge.arrays import Array
from edge.audio.sound_file import read_clip
from edge.errors import ProfileError, UsageError
from edge.events import Window
from edge.model.bundle import Bundle, load_bundle
from edge.model.profile import load_profile, profile_path, read_profile
from edge.recognition.recognizer import Recognizer
from tests.calibrate.labelled_takes import TWELVE, much_the_same, session, voice
from tests.calibrate.ordinary_speech import ordinary, with_baseline
from tests.cnn_lstm import CNN_LSTM


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write profiles to a folder of the test."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A session whose sounds tell the emotions apart."""
    sounds = [voice(emotion, seed) for seed, emotion in enumerate(TWELVE)]
    return session(tmp_path_factory.mktemp("session"), TWELVE, sounds)


@pytest.fixture(scope="module")
def adopted(manifest: Path) -> Calibration:
    return calibrate_speaker("anna", manifest)


def test_it_returns_a_profile_that_a_recognizer_applies(adopted: Calibration, home: Path) -> None:
    assert adopted.adopted
    assert adopted.profile.verdict == adopted.judgement.verdict == "adopted"
    assert adopted.network is None
    assert not home.exists()
    Recognizer(adopted.bundle, profile=adopted.profile, provider="cpu")


def test_takes_may_be_given_in_place_of_their_manifest(adopted: Calibration, manifest: Path) -> None:
    again = calibrate_speaker("anna", read_takes(manifest), load_bundle(CNN_LSTM))
    assert again.profile.report | {"fit_s": 0} == adopted.profile.report | {"fit_s": 0}


def example(documented: object) -> str:
    """Return the code of a docstring's example: from its import to its last call."""
    lines = (inspect.getdoc(documented) or "").splitlines()
    first = next(
        index for index, line in enumerate(lines) if line.lstrip().startswith("from calibrate import")
    )
    last = next(index for index, line in enumerate(lines) if line.lstrip().startswith("calibration.save"))
    return textwrap.dedent("\n".join(lines[first : last + 1]))


def test_the_example_of_the_docstring_writes_a_profile(
    manifest: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(manifest.parent)
    exec(example(calibrate_speaker), {})  # noqa: S102
    assert capsys.readouterr().out.startswith("adopted it lowers the log loss")
    assert load_profile(profile_path("anna"), load_bundle(CNN_LSTM)).name == "anna"


def test_the_example_of_the_package_is_that_of_the_function() -> None:
    package = [line.partition("  #")[0] for line in example(calibrate).splitlines() if line]
    assert package == [line for line in example(calibrate_speaker).splitlines() if line]


def test_a_rejected_profile_does_not_replace_one_that_can_be_applied(
    adopted: Calibration, tmp_path: Path
) -> None:
    assert adopted.save() is None
    before = profile_path("anna").read_bytes()
    rejected = calibrate_speaker("anna", session(tmp_path, TWELVE, much_the_same(voice(0, 0))))
    assert not rejected.adopted
    with pytest.raises(UsageError, match="give --replace"):
        rejected.save()
    kept = rejected.save(replace=True)
    assert kept is not None
    assert kept.verdict == "adopted"
    assert profile_path("anna").read_bytes() == before
    assert rejected.save(tmp_path / "other.safetensors") is None
    assert read_profile(tmp_path / "other.safetensors").verdict == "rejected"


class Tuner:
    """Stands for the package that tunes the whole network."""

    def __init__(self) -> None:
        self.given: list[Sequence[Array]] = []

    def fit(self, name: str, takes: Sequence[Take], sounds: Sequence[Array]) -> Judgement:
        self.given.append(sounds)
        answers = HeldOutPredictions(
            np.full((1, len(takes), 4), 0.25), np.array([take.emotion for take in takes])
        )
        return judge_tuned(answers, None)


def test_the_takes_are_decoded_once_also_where_the_network_is_tuned(
    manifest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[Path] = []

    def spy(path: Path, *others: object, **options: object) -> Array:
        decoded.append(path)
        return read_clip(path, *others, **options)  # type: ignore[arg-type]

    monkeypatch.setattr("calibrate.takes.read_clip", spy)
    tuner = Tuner()
    calibration = calibrate_speaker("anna", manifest, network=tuner)
    assert len(decoded) == len(set(decoded)) == len(TWELVE)
    assert len(tuner.given[0]) == len(TWELVE)
    assert calibration.network is not None


@pytest.mark.parametrize(
    ("emotions", "said"),
    [
        ([], "the session has no takes"),
        ([0, 0], "the session has only neutral takes"),
        ([0, 0, 3], "the session has a single take of angry"),
    ],
)
def test_takes_that_are_too_few_are_refused_before_they_are_read(emotions: list[int], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        calibrate_speaker("anna", [Take(Path("never read.wav"), emotion) for emotion in emotions])


@pytest.fixture(scope="module")
def relative() -> Bundle:
    """A bundle whose head reads a speaker's baseline."""
    return with_baseline(load_bundle(CNN_LSTM), 0.3)


def test_ordinary_speech_becomes_a_profile_that_a_recognizer_applies(relative: Bundle, home: Path) -> None:
    sounds = [ordinary(12.0), ordinary(6.0, seed=1)]
    calibration = calibrate_ordinary("anna", sounds, relative)
    assert not home.exists()
    calibration.save()
    profile = load_profile(profile_path("anna"), relative)
    assert profile.made is not None
    assert profile.head.baseline_weight is None
    np.testing.assert_array_equal(profile.head.fc1_bias, calibration.fit.head.fc1_bias)
    report = profile.report
    assert (report["kind"], report["recordings"], report["sound_s"], report["warnings"]) == (
        "ordinary",
        2,
        18.0,
        [],
    )
    assert report["speech_s"] == pytest.approx(18.0, abs=0.5)
    assert report["windows"] == pytest.approx(4.0 + 2.0, abs=1.0)
    recognizer = Recognizer(relative, profile=profile, provider="cpu")
    window = next(event for event in recognizer.feed(sounds[0]) if isinstance(event, Window))
    (windows,) = ordinary_windows(relative, recognizer.engine, sounds[:1])
    expected = calibration.fit.head.probs(windows[:1])[0]
    np.testing.assert_allclose(list(window.probs.values()), expected, rtol=0, atol=1e-4)


@pytest.fixture(scope="module")
def scaled(relative: Bundle) -> Bundle:
    """The same with a head that reads the speaker's deviation too."""
    config = dataclasses.replace(relative.manifest.baseline, scaled=True)
    return dataclasses.replace(relative, manifest=dataclasses.replace(relative.manifest, baseline=config))


def test_a_profile_from_ordinary_speech_holds_the_deviation_in_its_head(
    relative: Bundle, scaled: Bundle
) -> None:
    sounds = [ordinary(12.0)]
    calibration = calibrate_ordinary("anna", sounds, scaled)
    level = calibration.fit.level
    assert level.deviation is not None
    calibration.save()
    profile = load_profile(profile_path("anna"), scaled)
    assert profile.head.baseline_weight is None
    recognizer = Recognizer(scaled, profile=profile, provider="cpu")
    window = next(event for event in recognizer.feed(sounds[0]) if isinstance(event, Window))
    (windows,) = ordinary_windows(scaled, recognizer.engine, sounds)
    expected = scaled.head.for_baseline(level.mean, level.deviation).probs(windows[:1])[0]
    np.testing.assert_allclose(list(window.probs.values()), expected, rtol=0, atol=1e-4)
    without = calibrate_ordinary("anna", sounds, relative).fit.head.probs(windows[:1])[0]
    assert np.abs(expected - without).max() > 1e-3
    with pytest.raises(ProfileError):
        load_profile(profile_path("anna"), relative)


def test_a_labelled_session_starts_from_the_deviation_too(
    relative: Bundle, scaled: Bundle, manifest: Path
) -> None:
    plain, own = (calibrate_speaker("anna", manifest, bundle) for bundle in (relative, scaled))
    assert own.judgement.before == plain.judgement.before
    losses = [item.judgement.scores["baseline"].log_loss for item in (plain, own)]
    assert abs(losses[0] - losses[1]) > 0.001


def test_a_profile_from_ordinary_speech_replaces_another_only_when_asked(relative: Bundle) -> None:
    calibration = calibrate_ordinary("anna", [ordinary()], relative)
    calibration.save()
    with pytest.raises(UsageError, match="give --replace"):
        calibration.save()
    calibration.save(replace=True)


def test_recordings_may_be_given_by_their_paths(relative: Bundle, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "one.wav", ordinary(), 16_000, subtype="FLOAT")
    by_path = calibrate_ordinary("anna", [tmp_path / "one.wav"], relative)
    given = calibrate_ordinary("anna", [ordinary()], relative)
    np.testing.assert_array_equal(by_path.profile.head.fc1_bias, given.profile.head.fc1_bias)
    with pytest.raises(UsageError, match="no sound file"):
        calibrate_ordinary("anna", [tmp_path / "two.wav"], relative)


def test_ordinary_speech_is_of_no_use_to_a_model_without_a_baseline() -> None:
    with pytest.raises(UsageError, match="does not read a speaker's baseline"):
        calibrate_ordinary("anna", [ordinary()], load_bundle(CNN_LSTM))


def test_a_labelled_session_starts_from_ordinary_speech(
    relative: Bundle, manifest: Path, tmp_path: Path
) -> None:
    soundfile.write(tmp_path / "ordinary.wav", ordinary(), 16_000, subtype="FLOAT")
    without = calibrate_speaker("anna", manifest, relative)
    start = calibrate_speaker("anna", manifest, relative, ordinary=tmp_path / "ordinary.wav")
    assert "ordinary" not in without.profile.report
    assert start.profile.report["kind"] == "labelled"
    assert start.profile.report["ordinary"]["speech_s"] == pytest.approx(14.0, abs=0.5)
    losses = [item.judgement.scores["baseline"].log_loss for item in (without, start)]
    assert abs(losses[0] - losses[1]) > 0.001
    assert without.judgement.before == start.judgement.before


def test_ordinary_speech_that_cannot_be_used_is_left_out_of_a_labelled_session(
    relative: Bundle, manifest: Path, tmp_path: Path
) -> None:
    soundfile.write(tmp_path / "ordinary.wav", ordinary(5.0), 16_000, subtype="FLOAT")
    calibration = calibrate_speaker("anna", manifest, relative, ordinary=tmp_path / "ordinary.wav")
    said = calibration.profile.report["ordinary"]["not_used"]
    assert said == "only 5 s of speech was heard, and at least 8 s are needed"
    without = calibrate_speaker("anna", manifest, relative)
    assert calibration.judgement.scores == without.judgement.scores


def test_a_name_that_no_profile_can_have_is_refused(manifest: Path) -> None:
    with pytest.raises(ProfileError, match="cannot name a profile"):
        calibrate_speaker("../anna", manifest)
