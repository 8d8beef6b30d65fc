"""Draw the pictures of the README and the documentation: `make pictures`.

    python docs/site/pictures.py

`monitor.svg` is the live monitor during the demo clip, drawn by the program itself; `web.png` is the web page
then, in Debian's Chromium; `pipeline.svg` shows the stages from sound to events.

`calibration.png` and `report.png` need recordings, in the folder that MMTL_DATA names or ../shared/data:
`calibration.png` is `mmtl calibrate` of the corpus's first speaker in the order of names, from six clips of
each emotion; `report.png` shows the report of clips of the first three speakers, strung together.
"""

from __future__ import annotations

import csv
import io
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Final

import numpy as np
import soundfile
from PIL import Image
from rich.console import Console

from edge.arrays import SAMPLE_RATE
from edge.audio.sound_file import read_clip
from edge.audio.sources import open_source
from edge.events import Event
from edge.labels import EMOTIONS
from edge.output.monitor import frame
from edge.output.monitor_state import MonitorState
from edge.output.sinks import Sink, say
from edge.recognition.pipeline import listen
from edge.recognition.recognizer import Recognizer

DATA: Final = Path(os.environ.get("MMTL_DATA", "../shared/data"))
CORPUS: Final = "emotale"
"""The corpus that the default model has not learned from."""
CLIPS: Final = 6
"""Clips of each emotion for the calibration."""
COLOURS: Final = 128
PAUSE_S: Final = 1.5
MMTL: Final = (sys.executable, "-c", "from edge.cli.main import main; main()")
HERE: Final = Path(__file__).parents[1] / "pictures"
WIDTH, HEIGHT = 80, 24
EARLIEST_S: Final = 10.0
"""Seconds of the stream, so that the timeline shows some of it."""

PAGE_S: Final = 10
"""Seconds of the stream in the picture of the page."""


class Snapshot(Sink):
    """Follows the stream as the live monitor does, and keeps the state of its clearest answer."""

    def __init__(self) -> None:
        self.state = MonitorState()
        self.kept = MonitorState()
        self._clearest = 0.0

    def emit(self, event: Event) -> None:
        """Take an event."""
        self.state = self.state.after(event)

    def progress(self, heard_s: float, level_dbfs: float) -> None:
        """Take the level, and keep the state if no answer so far was clearer."""
        self.state = self.state.hearing(heard_s, level_dbfs)
        window = self.state.window
        clearness = window.smoothed.get(window.label, 0.0) if window and self.state.speaking else 0.0
        if heard_s > EARLIEST_S and clearness > self._clearest:
            self.kept, self._clearest = self.state, clearness


def draw_monitor(path: Path) -> None:
    """Hear the demo clip in real time, and draw the monitor as it looks then."""
    snapshot = Snapshot()
    listen(open_source("demo", paced=True), Recognizer.load(provider="cpu"), [snapshot])
    console = Console(record=True, width=WIDTH, height=HEIGHT, file=io.StringIO(), force_terminal=True)
    console.print(frame(snapshot.kept, WIDTH, HEIGHT))
    drawn = re.sub(r"@font-face \{.*?\}", "", console.export_svg(title="mmtl monitor"), flags=re.DOTALL)
    path.write_text(drawn, encoding="utf-8")  # with the reader's own font: a picture fetches nothing


@dataclass(frozen=True)
class Box:
    """A stage of the pipeline."""

    title: str
    lines: tuple[str, ...]
    folder: str


STAGES: Final = (
    Box("sound", ("microphone, file,", "pipe or network", "to 16 kHz mono"), "edge/audio"),
    Box("front-end", ("offset and hum filter", "log mel spectrum", "voice activity"), "edge/features"),
    Box("encoder", ("Whisper, 2 blocks", "over 3 s of sound", "every 240 ms"), "edge/inference"),
    Box("classifier", ("embedding, relative", "to the speaker's", "baseline"), "edge/model"),
    Box("decision", ("smoothing, “unsure”", "utterance: mean of", "its windows"), "edge/recognition"),
    Box("events", ("monitor, JSON Lines,", "CSV, MQTT, TCP,", "WebSocket"), "edge/output"),
)
BOX_WIDTH, BOX_HEIGHT, GAP, MARGIN = 158, 116, 26, 12


def draw_pipeline(path: Path) -> None:
    """Write the stages as boxes from left to right, each with the folder of its code."""
    width = 2 * MARGIN + len(STAGES) * BOX_WIDTH + (len(STAGES) - 1) * GAP
    height = 2 * MARGIN + BOX_HEIGHT
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" '
        'aria-label="From sound to events" font-family="system-ui, sans-serif" font-size="13">',
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
    ]
    for number, box in enumerate(STAGES):
        left = MARGIN + number * (BOX_WIDTH + GAP)
        parts += _box(box, left)
        if number:
            parts.append(_arrow(left - GAP, left))
    path.write_text("\n".join([*parts, "</svg>", ""]), encoding="utf-8")


def _box(box: Box, left: int) -> list[str]:
    x, y = left + 12, MARGIN + 24
    rows = [
        f'<text x="{x}" y="{y + 24 + 18 * row}" fill="#333">{escape(line)}</text>'
        for row, line in enumerate(box.lines)
    ]
    return [
        f'<rect x="{left}" y="{MARGIN}" width="{BOX_WIDTH}" height="{BOX_HEIGHT}" rx="8" fill="#eef3f9" '
        'stroke="#7d93ab"/>',
        f'<text x="{x}" y="{y}" font-weight="600" fill="#16324f">{escape(box.title)}</text>',
        *rows,
        f'<text x="{x}" y="{MARGIN + BOX_HEIGHT - 10}" font-family="monospace" font-size="11" '
        f'fill="#5b6b7b">{escape(box.folder)}</text>',
    ]


def _arrow(start: int, end: int) -> str:
    y = MARGIN + BOX_HEIGHT // 2
    line = f"M{start + 4} {y} H{end - 6} m-6 -5 l6 5 l-6 5"
    return f'<path d="{line}" fill="none" stroke="#16324f" stroke-width="2"/>'


def draw_page(path: Path) -> None:
    """Play the demo clip to the web page, and keep a picture of it."""
    from playwright.sync_api import sync_playwright

    program = [*MMTL, "serve", "--web", "0", "--source", "demo"]
    with subprocess.Popen(program, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr
        link = next(line.split()[-1] for line in server.stderr if "open http" in line)
        try:
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(
                    executable_path=shutil.which("chromium"), args=["--no-sandbox"]
                )
                page = browser.new_page(viewport={"width": 1_280, "height": 860})
                page.goto(link)
                page.click("#start")
                page.click("#in")
                page.wait_for_selector(f"#heard:text-is('0:{PAGE_S}')", timeout=60_000)
                page.evaluate("scrollTo(0, 0)")
                page.screenshot(path=path)
                browser.close()
        finally:
            server.terminate()


def rows_of_corpus() -> dict[str, list[dict[str, str]]]:
    """Return the manifest's rows of the four emotions by speaker, in the order of the names."""
    with (DATA / "manifest.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["corpus"] == CORPUS and row["emotion"] in EMOTIONS]
    return {
        name: [row for row in rows if row["speaker"] == name]
        for name in sorted({row["speaker"] for row in rows})
    }


def draw_calibration(path: Path, rows: Sequence[dict[str, str]]) -> None:
    """Calibrate to a speaker from labelled clips, and keep the picture of before and after."""
    with tempfile.TemporaryDirectory() as folder:
        manifest = Path(folder, "clips.csv")
        with manifest.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["path", "emotion"])
            for emotion in EMOTIONS:
                named = [row for row in rows if row["emotion"] == emotion][:CLIPS]
                writer.writerows([(DATA / row["path"]).resolve(), emotion] for row in named)
        command = [*MMTL, "calibrate", rows[0]["speaker"], "--from", manifest, "--picture", path, "--replace"]
        subprocess.run(list(map(str, command)), check=True, env={**os.environ, "XDG_DATA_HOME": folder})
    compact(path)


def compact(path: Path) -> None:
    """Write a PNG file with a palette: a third of the bytes."""
    with Image.open(path) as picture:
        picture.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)


def string_together(path: Path, rows: Sequence[dict[str, str]], seed: int) -> None:
    """Write eight of a speaker's clips, in an order drawn by a seed, with pauses."""
    chosen = np.random.default_rng(seed).permutation(len(rows))[:8]
    silence = np.zeros(round(PAUSE_S * SAMPLE_RATE), np.float32)
    clips = [piece for number in chosen for piece in (read_clip(DATA / rows[number]["path"]), silence)]
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.concatenate([silence, *clips]), SAMPLE_RATE, subtype="PCM_16")


def draw_report(path: Path, recordings: Path) -> None:
    """Write a report of the recordings, and take its picture."""
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        subprocess.run([*MMTL, "run", str(recordings), "--out", str(Path(folder, "report"))], check=True)
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1_080, "height": 900}, color_scheme="light")
        page.goto(Path(folder, "report", "report.html").as_uri())
        page.wait_for_selector("svg.curve")
        page.screenshot(path=path)
        browser.close()
    compact(path)


def draw_recorded() -> None:
    """Draw the pictures that need recordings."""
    if not (DATA / "manifest.csv").is_file():
        say(f"left out: no recordings in {DATA}: set MMTL_DATA")
        return
    corpus = rows_of_corpus()
    speakers = list(corpus)[:3]
    draw_calibration(HERE / "calibration.png", corpus[speakers[0]])
    with tempfile.TemporaryDirectory() as folder:
        for seed, speaker in enumerate(speakers):
            string_together(Path(folder, speaker, "session.wav"), corpus[speaker], seed)
        draw_report(HERE / "report.png", Path(folder))


if __name__ == "__main__":
    draw_page(HERE / "web.png")
    draw_monitor(HERE / "monitor.svg")
    draw_pipeline(HERE / "pipeline.svg")
    draw_recorded()
