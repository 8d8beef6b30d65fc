from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from edge.audio.sound_file import read_clip
from edge.audio.sources import demo_clip
from edge.diagnostics import benchmark as benchmarking
from edge.diagnostics.benchmark import (
    Benchmark,
    Percentiles,
    benchmark,
    costly_profile,
    table,
)
from edge.diagnostics.machine import resident_mb, this_machine
from edge.diagnostics.verification import TOLERANCE
from edge.events import Window
from edge.features.long_term_spectrum import SPECTRUM_SIZE
from edge.model.bundle import Bundle
from edge.model.profile import Profile, require_applicable
from edge.recognition.latency import STAGES
from edge.recognition.recognizer import Recognizer
from tests.command_line import exit_code_of
from tests.edge.conftest import with_front_end


@pytest.fixture(scope="module")
def figures(bundle: Bundle) -> Benchmark:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(benchmarking, "START_REPEATS", 1)
        return benchmark(bundle, seconds=1.0)


def test_every_figure_is_measured(figures: Benchmark) -> None:
    assert set(figures.stages) == set(STAGES)
    steps = (figures.step, figures.step_with_profile, figures.recognition)
    for spent in (*steps, figures.window, figures.window_with_speech, *figures.stages.values()):
        assert 0.0 < spent.p50 <= spent.p95 <= spent.p99
    assert figures.seconds == pytest.approx(1.0, abs=0.08)
    assert min(figures.help_s, figures.first_window_s, figures.cpu_per_second) > 0.0


def test_a_bundle_of_another_hop_is_measured_on_its_own_shortest_step(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(benchmarking, "start_s", lambda *arguments: 0.1)
    figures = benchmark(with_front_end(bundle, hop_length_ms=5), seconds=1.0)
    assert figures.step_ms == 40
    assert figures.seconds == pytest.approx(1.0, abs=0.04)
    assert set(figures.stages) == set(STAGES)


def test_the_stages_are_part_of_the_step(figures: Benchmark) -> None:
    assert figures.recognition.p50 < figures.step.p50
    assert figures.window.p50 < figures.window_with_speech.p50
    assert all(spent.p50 < figures.step.p50 for spent in figures.stages.values())


def test_what_is_derived_follows_from_what_is_measured(figures: Benchmark) -> None:
    known = replace(
        figures,
        step=Percentiles(0.8, 1.5, 2.5),
        recognition=Percentiles(0.5, 1.0, 2.0),
        window=Percentiles(10.0, 11.0, 12.0),
        window_with_speech=Percentiles(16.0, 17.0, 18.0),
        cpu_per_second=0.02,
        default_cpu_per_second=0.01,
    )
    assert (known.ratio, known.ratio_with_speech, known.ratio_of_all_to_window) == (20.0, 20.0, 12.5)
    assert known.real_time_factor == 0.01
    assert (known.streams_per_core, known.streams_per_core_every_step) == (100, 50)


def test_the_profile_it_measures_reads_the_spectrum_and_changes_nothing(bundle: Bundle) -> None:
    profile, sound = costly_profile(bundle), read_clip(demo_clip())
    assert profile.head.input_size == bundle.head.input_size + SPECTRUM_SIZE
    require_applicable(profile, bundle)

    def windows(of: Profile | None) -> list[dict[str, float]]:
        events = Recognizer(bundle, profile=of, provider="cpu").feed(sound)
        return [event.probs for event in events if isinstance(event, Window)]

    own = windows(profile)
    assert own
    assert own == [pytest.approx(probs, rel=0, abs=TOLERANCE) for probs in windows(None)]


def test_percentiles_are_those_of_the_values() -> None:
    spent = Percentiles.of(list(map(float, range(101))))
    assert (spent.p50, spent.p95, spent.p99) == (50.0, 95.0, 99.0)


def test_the_machine_is_named(figures: Benchmark) -> None:
    machine = this_machine()
    assert machine == figures.machine
    assert machine.processor
    assert machine.cores >= 1


def test_resident_memory_sees_an_array() -> None:
    if not resident_mb():
        pytest.skip("this system does not tell a process's memory")
    assert any(grown_mb() == pytest.approx(80.0, rel=0.2) for _ in range(10))


def grown_mb() -> float:
    """Return what an array of 80 MB adds; a system short of memory may take other pages away meanwhile."""
    before, kept = resident_mb(), np.ones(10_000_000)
    return resident_mb() - before if kept.nbytes == 80_000_000 else 0.0


def test_the_table_shows_every_figure_in_its_unit(figures: Benchmark) -> None:
    shown = table(figures)
    for said in ("times cheaper", "real-time factor", "streams per core", "derived", "MB", "p99", *STAGES):
        assert said in shown
    assert figures.machine.processor in shown


def test_the_command_writes_one_json_object(
    figures: Benchmark, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def measured(bundle: Bundle, **options: Any) -> Benchmark:
        assert options["seconds"] == 3.0
        return figures

    monkeypatch.setattr(benchmarking, "benchmark", measured)
    assert exit_code_of("benchmark", "--seconds", "3", "--json") == 0
    described = json.loads(capfd.readouterr().out)
    assert described["streams_per_core"] == figures.streams_per_core
    assert described["step"]["p50"] == figures.step.p50
