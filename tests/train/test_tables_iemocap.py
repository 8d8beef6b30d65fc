"""`mmtl tables` from a release of IEMOCAP to the report, with the irregularities of the real one."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import pytest
import soundfile

from tests.command_line import exit_code_of
from tests.train.synthetic import SAMPLE_RATE, voice
from train.adaptation_curve import PAPER_TUNING

SESSIONS = (1, 2, 4)
"""Sessions 3 and 5 are missing."""

CODES = {"neutral": "neu", "happy": "hap", "sad": "sad", "angry": "ang"}

EVALUATORS = (
    "C-E2:\tNeutral;\t()\nC-E3:\tHappiness; Excited;\t()\nC-E4:\tAnger;\t(lou\xe9der)\n"
    "C-F1:\tNeutral state;\t()\n"
    "A-E3:\tval 3; act 2; dom  2;\t()\nA-E4:\tval 5; act 5; dom  6;\t()\nA-F1:\tval 3; act 3; dom  ;\t()\n\n"
)


def write_dialog(root: Path, dialog: str, turns: list[tuple[str, str, str, str]]) -> None:
    """Write turns of a dialogue: speaker's letter, code, emotion of the sound, ratings."""
    session = root / f"Session{int(dialog[3:5])}"
    evaluation, wav = session / "dialog" / "EmoEvaluation", session / "sentences" / "wav" / dialog
    for folder in (evaluation / "Categorical", evaluation / "Attribute", wav):
        folder.mkdir(parents=True, exist_ok=True)
    lines = ["% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]\n\n"]
    for number, (letter, code, emotion, ratings) in enumerate(turns):
        name = f"{dialog}_{letter}{number:03}"
        lines += [f"[{number}.0100 - {number}.8100]\t{name}\t{code}\t[{ratings}]\n", EVALUATORS]
        speaker = 2 * int(dialog[3:5]) + "FM".index(letter) + 20 * ("script" in dialog)
        soundfile.write(wav / f"{name}.wav", voice(speaker, emotion, number, 0.6), SAMPLE_RATE)
    (evaluation / f"{dialog}.txt").write_bytes("".join(lines).encode("latin-1"))
    (evaluation / f"._{dialog}.txt").write_bytes(b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X [\xff")
    (wav / f"._{dialog}_F000.wav").write_bytes(b"\x00\x05\x16\x07")
    (evaluation / "Categorical" / f"{dialog}_e2_cat.txt").write_text("Ses :Neutral; ()\n")


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("release")
    for session in SESSIONS:
        four = [
            (letter, code, emotion, f"{1.5 + place:.4f}, {5.5 - place:.4f}, 3.3333")
            for letter in "FM"
            for place, (emotion, code) in enumerate(CODES.items())
        ]
        write_dialog(root, f"Ses{session:02}F_impro01", four)
        others = [("F", code, "happy", "4.0000, 4.0000, 3.0000") for code in ("exc", "xxx", "oth", "fru")]
        write_dialog(root, f"Ses{session:02}M_impro02", others)
        write_dialog(root, f"Ses{session:02}F_script01_1", [("M", "ang", "angry", "1.0000, 5.5000, 5.0000")])
    return root


def tables(release: Path, out: Path, *options: str) -> int:
    quick = ("--epochs", "1", "--augment", "0", "--samples", "2")
    return exit_code_of("tables", release, "--out", out, *quick, *options)


@pytest.mark.parametrize(
    ("options", "clips"),
    [
        ((), 24),
        (("--excited-as-happy",), 24 + 3),
        (("--scripted",), 24 + 3),
        (("--scripted", "--excited-as-happy"), 24 + 6),
    ],
)
def test_the_clips_are_those_of_the_variant(
    options: tuple[str, ...], clips: int, release: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    monkeypatch.setattr("train.tables.claim", lambda root, table, found, by: asked.append(len(found)))
    monkeypatch.setattr("train.tables.compute", lambda *_: None)
    assert tables(release, tmp_path / "out", *options) == 0
    assert asked == [clips]


def test_the_report_of_the_papers_folds_has_the_papers_figures(
    release: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = ("--rows", "cnn-lstm,mmtl-va", "--folds", "Ses04_M")
    brief = replace(PAPER_TUNING, inner_steps=1)
    monkeypatch.setattr("train.speaker_protocols.PAPER_TUNING", brief)
    assert tables(release, tmp_path / "out", *rows) == 0
    shown = capsys.readouterr().out
    assert "24 clips of 6 speakers; their valence, arousal and dominance are the annotators'" in shown
    by_protocol = {section.split("\n")[0]: section for section in shown.split("\n## ")[1:]}
    unadapted = next(text for title, text in by_protocol.items() if "without adaptation" in title)
    assert "| CNN-LSTM | 1 x 1 |" in unadapted
    assert "| 56.60 | 65.80 |" in unadapted
    (adapted,) = [text for title, text in by_protocol.items() if "uses test labels" in title]
    assert "Table 3" in adapted
    assert "| 74.61 | 77.74 |" in adapted
    assert not any("74.61" in text for title, text in by_protocol.items() if "test labels" not in title)
    with (tmp_path / "out" / "tables.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [(row["system"], row["protocol"]) for row in lines] == [
        ("cnn-lstm", "none"),
        ("mmtl-va", "none"),
        ("mmtl-va", "paper"),
    ]
    assert (tmp_path / "out" / "confusion.png").stat().st_size > 0


def test_the_folds_are_the_sessions_that_are_there(
    release: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tables(release, tmp_path / "out", "--folds", "Ses03_M") == 2
    assert "choose from Ses01_M, Ses02_M, Ses04_M" in capsys.readouterr().err
    assert tables(release, tmp_path / "out", "--scheme", "sessions-both", "--folds", "Ses05_F") == 2
    assert "Ses01_F, Ses01_M, Ses02_F, Ses02_M, Ses04_F, Ses04_M" in capsys.readouterr().err


def test_a_session_whose_one_speaker_has_no_clips_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_dialog(tmp_path, "Ses01F_impro01", [("F", "neu", "neutral", "3.0, 3.0, 3.0")])
    write_dialog(tmp_path, "Ses02F_impro01", [("F", "neu", "neutral", "3.0, 3.0, 3.0")])
    assert tables(tmp_path, tmp_path / "out") == 2
    assert "session Ses01 has 1 speakers, but one is to be tested" in capsys.readouterr().err
