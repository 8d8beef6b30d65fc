from __future__ import annotations

from benchmarks.gpu_day import Piece, outcome_of, report


def piece(code: str, obstacle: str | None = None) -> Piece:
    return Piece("a piece", ("-c", code), lambda: obstacle)


def test_a_piece_that_cannot_run_says_why_and_is_not_started() -> None:
    result = outcome_of(piece("raise SystemExit(1)", "no GPU here"))
    assert (result.outcome, result.text) == ("not run", "no GPU here")


def test_the_report_shows_what_ran_and_the_end_of_what_failed() -> None:
    results = [outcome_of(piece("print(6 * 7)")), outcome_of(piece("raise ValueError('broken')"))]
    assert [result.outcome for result in results] == ["ran", "failed"]
    text = report(results)
    assert "a piece: ran" in text
    assert "42" in text
    assert "ValueError: broken" in text


def test_a_piece_that_takes_too_long_has_failed() -> None:
    result = outcome_of(piece("import time; time.sleep(60)"), limit_s=0.5)
    assert (result.outcome, result.text) == ("failed", "took longer than 0.5 s")
