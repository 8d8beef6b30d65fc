from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import pytest
import soundfile
import torch
from safetensors.torch import load_file
from torch import Tensor

from edge.errors import SourceError, UsageError
from tests.train.synthetic import SAMPLE_RATE, TINY, tiny_checkpoint, voice, write_corpus
from train.batches import SamplingConfig
from train.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from train.corpora import Clip, read_corpus
from train.mmtl import MetaRates
from train.model import Architecture
from train.run import RunSetup, frames_for_first, run
from train.run_folder import RunFolder, git_revision
from train.splits import Split, split_by_speaker
from train.training import Algorithm, Options, Training

Item = TypeVar("Item")

OPTIONS = Options(
    algorithm="erm", epochs=2, draw=SamplingConfig(window=297, batch_size=8, speakers=2, samples=4)
)
FILES = {
    *("best.safetensors", "config.json", "confusion.png", "curves.png"),
    *("metrics.jsonl", "scores.json", "state.safetensors"),
}


class Silent:
    """Shows nothing; may interrupt the work when an epoch begins."""

    def __init__(self, interrupted_in: str = "") -> None:
        self.interrupted_in = interrupted_in
        self.lines: list[str] = []

    def __call__(self, items: Iterable[Item], label: str, total: int) -> Iterator[Item]:
        for index, item in enumerate(items):
            if self.interrupted_in and label.startswith(self.interrupted_in) and index == 1:
                raise KeyboardInterrupt
            yield item

    def say(self, line: str) -> None:
        self.lines.append(line)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Clip]:
    return read_corpus(write_corpus(tmp_path_factory.mktemp("corpus"), takes=1, seconds=0.6))


def sides(clips: list[Clip]) -> Split:
    return split_by_speaker(clips, validation=["s2"], test=["s3"])


def plan_for(
    folder: Path, *, resume: bool = False, start: Path | None = None, command: str = "mmtl"
) -> RunSetup:
    return RunSetup(
        RunFolder(folder),
        torch.device("cpu"),
        start=start,
        resume=resume,
        provenance={"command": command, "corpora": [{"name": "synthetic", "licence": "none"}]},
    )


@pytest.fixture
def train(clips: list[Clip], tmp_path: Path) -> Callable[..., Path]:
    def do(  # noqa: PLR0913
        name: str = "run",
        *,
        options: Options = OPTIONS,
        arch: Architecture = TINY,
        split: Split | None = None,
        progress: Silent | None = None,
        resume: bool = False,
        start: Path | None = None,
        command: str = "mmtl",
    ) -> Path:
        folder = tmp_path / name
        setup = plan_for(folder, resume=resume, start=start, command=command)
        run(split or sides(clips), arch, options, setup, progress or Silent())
        return folder

    return do


def state_of(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / "state.safetensors")


def identical(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


def records_of(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_a_run_folder_holds_all_that_was_asked_and_found(train: Callable[..., Path]) -> None:
    folder = train()
    assert {path.name for path in folder.iterdir()} == FILES
    config = json.loads((folder / "config.json").read_text())
    assert config["options"]["seed"] == 0
    assert config["speakers"] == {"train": ["s0", "s1"], "validation": ["s2"], "test": ["s3"]}
    assert config["clips"] == {"train": 8, "validation": 4, "test": 4}
    assert config["git_revision"] == git_revision()
    assert [record["epoch"] for record in records_of(folder)] == [0, 1]
    for picture in ("curves.png", "confusion.png"):
        assert (folder / picture).read_bytes()[:4] == b"\x89PNG"
    scores = json.loads((folder / "scores.json").read_text())
    assert scores["test"]["synthetic"]["per_speaker"].keys() == {"s3"}
    assert scores["validation"]["synthetic"]["per_speaker"].keys() == {"s2"}
    best = load_checkpoint(folder / "best.safetensors")
    assert best.temperature == scores["temperature"]
    assert best.training == config


def test_a_run_without_test_speakers_is_scored_on_the_validation_speakers(
    train: Callable[..., Path], clips: list[Clip]
) -> None:
    few = [clip for clip in clips if clip.speaker != "s3"]
    folder = train(split=split_by_speaker(few, validation=["s2"], test=[]))
    assert json.loads((folder / "scores.json").read_text()).keys() == {"temperature", "validation"}


def test_a_run_without_validation_speakers_is_refused_and_leaves_no_folder(
    train: Callable[..., Path], clips: list[Clip], tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="training speakers and validation speakers"):
        train(split=split_by_speaker(clips, validation=[], test=["s3"]))
    assert not (tmp_path / "run").exists()


def test_the_epoch_that_is_best_on_the_validation_speakers_is_kept(
    train: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[Path] = []

    def save(path: Path, model: Checkpoint) -> None:
        kept.append(path)
        save_checkpoint(path, model)

    monkeypatch.setattr("train.run.save_checkpoint", save)
    folder = train(options=replace(OPTIONS, epochs=4))
    best, rises = -1.0, 0
    for record in records_of(folder):
        uar = float(str(record["validation_uar"]))
        rises, best = (rises + 1, uar) if uar > best else (rises, best)
    assert len(kept) == rises + 1  # and once more with the temperature


def test_a_second_run_in_the_folder_is_refused(train: Callable[..., Path]) -> None:
    before = state_of(train())
    with pytest.raises(UsageError, match="already holds a run: add --resume"):
        train()
    assert identical(before, state_of(train(resume=True)))


@pytest.mark.parametrize("name", sorted(FILES - {"config.json"}))
def test_a_file_that_a_run_would_overwrite_is_refused_and_stays(
    train: Callable[..., Path], tmp_path: Path, name: str
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / name).write_text("mine")
    (tmp_path / "run" / "notes.txt").write_text("mine too")
    with pytest.raises(UsageError, match=rf"there is .*{re.escape(name)} already"):
        train()
    assert (tmp_path / "run" / name).read_text() == "mine"


def test_a_folder_that_cannot_be_written_to_is_refused(train: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file in the way")
    with pytest.raises(UsageError, match=r"cannot write to .*run: name a folder"):
        train()
    assert (tmp_path / "run").read_text() == "a file in the way"


def test_two_runs_do_not_write_to_one_folder(train: Callable[..., Path]) -> None:
    folder = train()
    before = records_of(folder)
    with (
        RunFolder(folder).locked(),
        pytest.raises(UsageError, match=r"another run is using .*run: wait until it"),
    ):
        train(resume=True)
    assert records_of(folder) == before
    train(resume=True)


@pytest.mark.parametrize(
    "change",
    [{"options": replace(OPTIONS, seed=1)}, {"arch": replace(TINY, hidden=4)}],
    ids=["options", "layers"],
)
def test_going_on_with_another_configuration_is_refused(
    train: Callable[..., Path], change: dict[str, object]
) -> None:
    train()
    with pytest.raises(UsageError, match=f"different {'options' if 'options' in change else 'architecture'}"):
        train(resume=True, **change)


@pytest.mark.parametrize("algorithm", ["erm", "mmtl"])
def test_an_interrupted_run_goes_on_to_the_same_end(train: Callable[..., Path], algorithm: Algorithm) -> None:
    draw = replace(OPTIONS.draw, batch_size=4, samples=2)
    options = replace(OPTIONS, algorithm=algorithm, epochs=3, draw=draw)
    arch = replace(TINY, dropout=0.2)
    whole = train("whole", options=options, arch=arch)
    with pytest.raises(KeyboardInterrupt):
        train("parts", options=options, arch=arch, progress=Silent("epoch 2"))
    silent = Silent()
    parts = train("parts", options=options, arch=arch, resume=True, progress=silent, command="mmtl --resume")
    assert silent.lines[0] == "resuming after epoch 1"
    assert identical(state_of(whole), state_of(parts))
    assert records_of(whole) == records_of(parts)
    assert (whole / "best.safetensors").read_bytes() == (parts / "best.safetensors").read_bytes()


def test_an_epoch_whose_state_was_not_written_is_done_again(
    train: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train("whole")

    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Training, "save", crash)
        with pytest.raises(KeyboardInterrupt):
            train("parts")
    assert len(records_of(whole.parent / "parts")) == 1
    parts = train("parts", resume=True)
    assert identical(state_of(whole), state_of(parts))
    assert records_of(whole) == records_of(parts)


def test_training_never_touches_the_validation_and_test_speakers(
    train: Callable[..., Path], clips: list[Clip], tmp_path: Path
) -> None:
    changed = []
    for clip in clips:
        path = tmp_path / f"other-{clip.path.name}"
        if clip.speaker in ("s2", "s3"):
            soundfile.write(path, 0.2 * voice(9, "angry", 9, 0.9), SAMPLE_RATE)
        changed.append(replace(clip, path=path) if path.exists() else clip)
    first, second = train("first"), train("second", split=sides(changed))
    assert identical(state_of(first), state_of(second))
    assert (first / "scores.json").read_text() != (second / "scores.json").read_text()


def test_the_training_speakers_do_decide_the_weights(
    train: Callable[..., Path], clips: list[Clip], tmp_path: Path
) -> None:
    """The twin of the test above."""
    soundfile.write(tmp_path / "other.wav", 0.2 * voice(9, "angry", 9, 0.9), SAMPLE_RATE)
    changed = [replace(clips[0], path=tmp_path / "other.wav"), *clips[1:]]
    assert not identical(state_of(train("first")), state_of(train("second", split=sides(changed))))


def test_a_clip_that_cannot_be_read_leaves_no_folder(
    train: Callable[..., Path], clips: list[Clip], tmp_path: Path
) -> None:
    (tmp_path / "broken.wav").write_bytes(b"not sound")
    broken = [*clips[:-1], replace(clips[-1], path=tmp_path / "broken.wav")]
    with pytest.raises(SourceError):
        train(split=sides(broken))
    assert not (tmp_path / "run").exists()


def test_a_run_takes_up_the_layers_and_the_normalisation_of_another(
    train: Callable[..., Path],
) -> None:
    first = train("first", command="mmtl first")
    second = train(
        "second", start=first / "best.safetensors", arch=replace(TINY, hidden=3), command="mmtl second"
    )
    before, after = (load_checkpoint(folder / "best.safetensors") for folder in (first, second))
    assert after.net.arch == before.net.arch
    assert after.normalisation.levels == before.normalisation.levels
    assert after.training["before"] == "mmtl first"


def started(tmp_path: Path, arch: Architecture = TINY, **training: object) -> Path:
    path = tmp_path / "start.safetensors"
    model = tiny_checkpoint(arch)
    save_checkpoint(path, replace(model, training={**model.training, **training}))
    return path


def test_a_run_owes_the_recordings_and_speakers_of_the_one_it_starts_from(
    train: Callable[..., Path], tmp_path: Path
) -> None:
    start = started(tmp_path, speakers={"train": ["a", "s0"], "validation": ["b", "s1"], "test": ["c"]})
    training = load_checkpoint(train(start=start) / "best.safetensors").training
    assert [corpus["name"] for corpus in training["corpora"]] == ["synthetic", "made"]
    assert training["speakers"] == {
        "train": ["a", "s0", "s1"],
        "validation": ["b", "s2"],
        "test": ["s3"],
    }


@pytest.mark.parametrize(
    "heard", [{"train": ["s2"]}, {"train": ["s3"]}, {"train": [], "validation": ["s3"]}], ids=str
)
def test_speakers_that_the_start_has_heard_cannot_be_held_out(
    train: Callable[..., Path], tmp_path: Path, heard: dict[str, list[str]]
) -> None:
    with pytest.raises(UsageError, match=r"trained or chosen with speaker s[23]"):
        train(start=started(tmp_path, speakers=heard))
    assert not (tmp_path / "run").exists()


def test_mmtl_cannot_start_from_a_network_without_a_transfer_learner(
    train: Callable[..., Path], tmp_path: Path
) -> None:
    start = started(tmp_path, replace(TINY, heads="separate", emotions="direct"))
    with pytest.raises(UsageError, match="start from a checkpoint of erm or mmtl"):
        train(start=start, options=replace(OPTIONS, algorithm="mmtl"))


def test_separate_heads_take_as_many_tasks_as_they_have(train: Callable[..., Path], tmp_path: Path) -> None:
    start = started(tmp_path, replace(TINY, heads="separate", dimensions=2))
    with pytest.raises(UsageError, match="outputs for 2 auxiliary tasks"):
        train(start=start, options=replace(OPTIONS, algorithm="mmtl"))


def test_a_disjoint_query_takes_two_clips_of_each_speaker(
    train: Callable[..., Path], clips: list[Clip]
) -> None:
    few = [clip for clip in clips if clip.speaker != "s0" or clip.emotion == "sad"]
    options = replace(OPTIONS, algorithm="mmtl", rates=MetaRates(query="disjoint"))
    with pytest.raises(UsageError, match="speaker s0 has only one clip"):
        train(split=sides(few), options=options)
    train(split=sides(few), options=replace(options, rates=MetaRates(query="same")))


def test_the_first_feature_takes_49_frames_and_of_the_papers_network_8() -> None:
    assert frames_for_first(Architecture()) == 49
    assert frames_for_first(Architecture.paper()) == 8
