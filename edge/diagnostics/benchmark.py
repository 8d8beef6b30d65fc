"""Benchmark of the recogniser on this machine: time by stage, start-up, memory, and whole-window inference.

Times are CPU times of one thread unless stated otherwise, so that other programs do not count.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from edge.arrays import SAMPLE_RATE, Array
from edge.audio.sound_file import read_clip
from edge.audio.sources import demo_clip
from edge.diagnostics.machine import Machine, resident_mb, this_machine
from edge.events import Window
from edge.features.frontend import FrontEnd
from edge.features.long_term_spectrum import SPECTRUM_SIZE
from edge.features.network_input import network_input
from edge.features.vad import SpeechDetector, VadConfig
from edge.inference.engine import Engine, WindowEngine
from edge.inference.offline import full_windows, normalised_frames
from edge.inference.window_grid import feature_ms
from edge.model.bundle import Bundle
from edge.model.manifest import Execution
from edge.model.profile import ADOPTED, Profile, Reference
from edge.recognition.latency import STAGES
from edge.recognition.recognizer import Recognizer
from edge.recognition.settings import Settings

WARM_UP_S: Final = 1.0
"""Sound after the first window and before the measurement."""
ROUND_STEPS: Final = 25
"""Steps in a round: 2 s of sound in steps of 80 ms."""
ROUND_WINDOWS: Final = 3
"""Whole windows computed after the steps of a round."""
RANKS: Final = (50, 95, 99)
START_REPEATS: Final = 3
START_LIMIT_S: Final = 120.0

PROGRAM: Final = "from edge.cli.main import main; main()"
FIRST_WINDOW: Final = """
import sys
from pathlib import Path
import numpy as np
from edge.model.bundle import load_bundle
from edge.recognition.recognizer import Recognizer
recognizer = Recognizer(load_bundle(Path(sys.argv[1])), provider="cpu")
front_end = recognizer.front_end
window = np.zeros(front_end.samples_in(front_end.window_frames), np.float32)
assert recognizer.feed(window), "no window came"
"""


@dataclass(frozen=True)
class Percentiles:
    """Percentiles of times in milliseconds."""

    p50: float
    p95: float
    p99: float

    @staticmethod
    def of(values_ms: list[float]) -> Percentiles:
        """Summarise at least one value."""
        return Percentiles(*(float(np.percentile(values_ms, rank)) for rank in RANKS))


@dataclass(frozen=True)
class Benchmark:
    """The figures of one bundle on one machine."""

    machine: Machine
    bundle: str
    execution: Execution
    """How the network runs: features computed once as the sound arrives, or a whole window at each step."""
    seconds: float
    """Duration of the sound that was measured."""
    step_ms: int
    """Duration of a step; each step completes a window. The shortest, or the default step if whole windows
    run."""
    step: Percentiles
    """CPU time of a whole step."""
    step_with_profile: Percentiles
    """CPU time of a step with a profile whose head also reads the long-term spectrum."""
    recognition: Percentiles
    """CPU time of a step without voice activity."""
    stages: dict[str, Percentiles]
    """CPU time of a step by stage; `speech` is voice activity. The rest of a step is bookkeeping."""
    window: Percentiles
    """CPU time of offline inference of one window: its spectra, and the window graph."""
    window_with_speech: Percentiles
    """CPU time of whole-window inference, with voice activity of its 3 s."""
    cpu_per_second: float
    """CPU seconds per second of sound, with a window every `step_ms`."""
    default_step_ms: int
    default_cpu_per_second: float
    """CPU seconds per second of sound at the default step."""
    help_s: float
    """Wall time of `mmtl --help` as a process."""
    first_window_s: float
    """Wall time of a process that loads the bundle and classifies its first window."""
    memory_before_mb: float
    """Resident memory with the program and its libraries loaded, before the model; 0 if unknown."""
    memory_loaded_mb: float
    """Resident memory with a model loaded and warm."""
    memory_after_mb: float
    """Resident memory after all the sound."""

    @property
    def ratio(self) -> float:
        """Median time of a whole window over that of a step, both without voice activity."""
        return self.window.p50 / self.recognition.p50

    @property
    def ratio_with_speech(self) -> float:
        """Median time of a whole window over that of a step, both with voice activity."""
        return self.window_with_speech.p50 / self.step.p50

    @property
    def ratio_of_all_to_window(self) -> float:
        """Median time of a whole window over that of a step with voice activity: a lower bound."""
        return self.window.p50 / self.step.p50

    @property
    def real_time_factor(self) -> float:
        """CPU time divided by the duration of the sound, at the default step; below 1 keeps up."""
        return self.default_cpu_per_second

    @property
    def streams_per_core(self) -> int:
        """Live streams per core at the default step, derived from the CPU time."""
        return int(1.0 / self.default_cpu_per_second)

    @property
    def streams_per_core_every_step(self) -> int:
        """Live streams per core with a window every `step_ms`, derived from the CPU time."""
        return int(1.0 / self.cpu_per_second)

    def described(self) -> dict[str, Any]:
        """Return all figures, including the derived ones, for JSON."""
        derived = (
            *("ratio", "ratio_with_speech", "ratio_of_all_to_window", "real_time_factor"),
            *("streams_per_core", "streams_per_core_every_step"),
        )
        return asdict(self) | {name: getattr(self, name) for name in derived}


def benchmark(
    bundle: Bundle,
    *,
    seconds: float = 20.0,
    progress: Callable[[float], None] = lambda share: None,
) -> Benchmark:
    """Measure the bundle on this machine.

    Rounds of steps and of whole windows alternate, so that a change of the CPU's clock affects both.

    Args:
        bundle: the model.
        seconds: duration of sound to measure on, >= 1; the demo clip is repeated.
        progress: called with the share of the work done, in [0, 1].
    """
    before = resident_mb()
    spent = _take_turns(bundle, seconds, progress)
    after = resident_mb()
    return Benchmark(
        machine=this_machine(),
        bundle=bundle.manifest.name,
        execution=bundle.manifest.graphs.execution,
        seconds=spent.heard_s,
        step_ms=spent.step_ms,
        step=Percentiles.of(spent.steps_ms),
        step_with_profile=Percentiles.of(spent.steps_with_profile_ms),
        recognition=Percentiles.of(spent.recognition_ms),
        stages={stage: Percentiles.of(values) for stage, values in spent.stages_ms.items() if values},
        window=Percentiles.of(spent.windows_ms),
        window_with_speech=Percentiles.of(spent.windows_with_speech_ms),
        cpu_per_second=sum(spent.steps_ms) / 1000.0 / spent.heard_s,
        default_step_ms=Settings().step_ms,
        default_cpu_per_second=spent.usual_s / spent.heard_s,
        help_s=start_s("-c", PROGRAM, "--help"),
        first_window_s=start_s("-c", FIRST_WINDOW, str(bundle.folder.resolve())),
        memory_before_mb=before,
        memory_loaded_mb=spent.memory_loaded_mb,
        memory_after_mb=after,
    )


def _take_turns(bundle: Bundle, seconds: float, progress: Callable[[float], None]) -> _Measurements:
    """Alternate steps with a window each, steps at the default step, and whole windows."""
    front_end, step_ms = bundle.manifest.front_end, _step_ms(bundle)
    often = Recognizer(bundle, settings=Settings(step_ms=step_ms), provider="cpu", clock=time.process_time)
    usual = Recognizer(bundle, provider="cpu")
    own = Recognizer(bundle, profile=costly_profile(bundle), settings=often.settings, provider="cpu")
    window, sound, spent = whole_window(bundle), read_clip(demo_clip()), _Measurements(front_end, step_ms)
    warm_up_s = often.window_s + WARM_UP_S
    blocks = _blocks(sound, seconds + warm_up_s, step_ms)
    warm = round(1000.0 * warm_up_s / step_ms)
    window_sound = np.resize(sound, SAMPLE_RATE * front_end.window_ms // 1000)
    for block in blocks[:warm]:
        often.feed(block)
        usual.feed(block)
        own.feed(block)
    window(window_sound)
    spent.memory_loaded_mb = resident_mb()
    spent.heard_s = (len(blocks) - warm) * step_ms / 1000.0
    for start in range(warm, len(blocks), ROUND_STEPS):
        turn = blocks[start : start + ROUND_STEPS]
        for block in turn:
            spent.step(often, block)
        for block in turn:
            spent.usual_s += cpu_s(usual.feed, block)
        spent.steps_with_profile_ms += [1000.0 * cpu_s(own.feed, block) for block in turn]
        for _ in range(ROUND_WINDOWS):
            spent.window(window, window_sound)
        progress(start / len(blocks))
    return spent


def _step_ms(bundle: Bundle) -> int:
    """Return the duration of a step: where whole windows run at each, the default; else the shortest."""
    graphs = bundle.manifest.graphs
    return (
        Settings().step_ms if graphs.execution == "window" else feature_ms(graphs, bundle.manifest.front_end)
    )


def table(figures: Benchmark) -> str:
    """Format the figures as a table for people."""
    machine, step = figures.machine, figures.step_ms
    timed = {f"step of {step} ms, all of it": figures.step}
    timed |= {f"  {stage}": spent for stage, spent in figures.stages.items()}
    timed |= {
        "step with a speaker's profile": figures.step_with_profile,
        "step without voice activity": figures.recognition,
        "window from all its samples": figures.window,
        "  with voice activity": figures.window_with_speech,
    }
    lines = [
        f"{machine.processor}, {machine.cores} cores; {machine.platform}",
        f"Python {machine.python}, onnxruntime {machine.onnxruntime}, one thread; model {figures.bundle}, "
        f"{figures.seconds:.0f} s of sound",
        "",
        f"{'CPU time, ms':34}{'p50':>9}{'p95':>9}{'p99':>9}",
        *(f"{name:34}{t.p50:9.3f}{t.p95:9.3f}{t.p99:9.3f}" for name, t in timed.items()),
        "",
    ]
    often = f", {figures.cpu_per_second:.4f} (a window every {step} ms)"
    often_streams = f", {figures.streams_per_core_every_step} (a window every {step} ms)"
    if step == figures.default_step_ms:
        often = often_streams = ""
    usual = f"a window every {figures.default_step_ms} ms, the default"
    rows = {
        **_step_against_window(figures),
        "real-time factor": f"{figures.real_time_factor:.4f} ({usual}){often}",
        "live streams per core": f"{figures.streams_per_core} ({usual}){often_streams}; "
        "derived: 1 / CPU seconds per second of sound",
        "start": f"help after {figures.help_s:.2f} s, "
        f"first window after {figures.first_window_s:.2f} s (wall)",
        "memory": f"{figures.memory_before_mb:.0f} MB resident before the model, "
        f"{figures.memory_loaded_mb:.0f} MB warm, {figures.memory_after_mb:.0f} MB at the end",
    }
    return "\n".join([*lines, *(f"{name:26}{said}" for name, said in rows.items())])


def _step_against_window(figures: Benchmark) -> dict[str, str]:
    """Say what a step saves against whole windows, of a network that runs on new frames only."""
    if figures.execution == "window":
        return {"execution": "the network runs on the whole window at each step; spectra are computed once"}
    return {
        "step against whole window": f"{figures.ratio:.1f} times cheaper (medians, measured alternately); "
        f"{figures.ratio_with_speech:.1f} times with voice activity in both, "
        f"{figures.ratio_of_all_to_window:.1f} with it in the step only"
    }


class _Measurements:
    """Collects the measurements."""

    def __init__(self, front_end: FrontEnd, step_ms: int) -> None:
        self.step_ms = step_ms
        self.steps_ms: list[float] = []
        self.steps_with_profile_ms: list[float] = []
        self.recognition_ms: list[float] = []
        self.stages_ms: dict[str, list[float]] = {stage: [] for stage in STAGES}
        self.windows_ms: list[float] = []
        self.windows_with_speech_ms: list[float] = []
        self.usual_s = 0.0
        self.heard_s = 0.0
        self.memory_loaded_mb = 0.0
        self._detector = SpeechDetector(VadConfig(), front_end)

    def window(self, compute: Callable[[Array], object], sound: Array) -> None:
        """Compute a whole window, then its voice activity; record the CPU time of each."""
        window_ms = 1000.0 * cpu_s(compute, sound)
        self.windows_ms.append(window_ms)
        self.windows_with_speech_ms.append(window_ms + 1000.0 * cpu_s(self._detector.feed, sound))

    def step(self, recognizer: Recognizer, block: Array) -> None:
        """Feed one step; record its CPU time, and those of its stages from the window event."""
        began = time.process_time()
        events = recognizer.feed(block)
        step_ms = 1000.0 * (time.process_time() - began)
        self.steps_ms.append(step_ms)
        windows = [event for event in events if isinstance(event, Window)]
        for window in windows:
            for stage, spent_ms in window.latency_ms.items():
                self.stages_ms[stage].append(spent_ms)
        speech_ms = sum(window.latency_ms.get("speech", 0.0) for window in windows)
        self.recognition_ms.append(step_ms - speech_ms)


def whole_window(bundle: Bundle) -> Callable[[Array], object]:
    """Return a function that computes the first window of a sound: spectra, graph and head."""
    embed, manifest = _window_embedding(bundle), bundle.manifest
    front_end = manifest.front_end
    samples = front_end.samples_in(front_end.window_frames)

    def compute(sound: Array) -> object:
        normaliser = network_input(front_end, manifest.levels, bundle.statistics)
        frames = normalised_frames(sound[:samples], front_end, normaliser)
        return bundle.head.probs(embed(full_windows(frames, front_end, step_frames=1)))

    return compute


def _window_embedding(bundle: Bundle) -> Callable[[Array], Array]:
    """Return a function from (B, T, F) frames of full windows to (B, D) embeddings, without earlier sound."""
    if bundle.manifest.graphs.execution == "recurrent":
        engine = Engine(bundle, "cpu")
        return lambda frames: engine.classify(engine.encode(frames, engine.initial_state(len(frames)))[0])
    window = WindowEngine(bundle)
    return lambda frames: window(frames)[0]


def costly_profile(bundle: Bundle) -> Profile:
    """Return a profile with the cost of a speaker's, drift watch included, that changes no result."""
    head = bundle.head.for_baseline(np.zeros(bundle.head.input_size, np.float32))
    wide = replace(head, fc1_weight=np.pad(head.fc1_weight, ((0, 0), (0, SPECTRUM_SIZE))))
    figures = np.ones(2 + wide.input_size, np.float32)
    return Profile(
        name="benchmark",
        bundle=bundle.fingerprint,
        head=wide,
        levels=bundle.manifest.levels,
        statistics=bundle.statistics,
        verdict=ADOPTED,
        reference=Reference(mean=0.0 * figures, spread=1e6 * figures),
    )


def cpu_s(work: Callable[[Array], object], sound: Array) -> float:
    """Time one call in CPU seconds of this process."""
    began = time.process_time()
    work(sound)
    return time.process_time() - began


def start_s(*arguments: str) -> float:
    """Return the median wall time of a few runs of this Python with the arguments, in seconds."""
    spent = []
    for _ in range(START_REPEATS):
        began = time.perf_counter()
        subprocess.run(
            [sys.executable, *arguments],
            check=True,
            stdout=subprocess.DEVNULL,
            cwd=Path(__file__).parents[2],
            timeout=START_LIMIT_S,
            start_new_session=True,  # Ctrl-C reaches this process, which ends the other
        )
        spent.append(time.perf_counter() - began)
    return statistics.median(spent)


def _blocks(sound: Array, seconds: float, step_ms: int) -> list[Array]:
    """Repeat a sound to a duration, divided into steps."""
    step = SAMPLE_RATE * step_ms // 1000
    count = max(1, round(1000.0 * seconds / step_ms))
    return list(np.resize(sound, count * step).reshape(count, step))
