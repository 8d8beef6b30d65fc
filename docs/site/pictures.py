"""Draw the pictures of the README and the documentation: `make pictures`.

    python docs/site/pictures.py

`monitor.svg` is the live monitor during the demo clip, drawn by the program itself; `web.png` is the web page
then, in Debian's Chromium; `pipeline.svg` shows the stages from sound to events.
"""

from __future__ import annotations

import io
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Final

from rich.console import Console

from edge.audio.sources import open_source
from edge.events import Event
from edge.output.monitor import frame
from edge.output.monitor_state import MonitorState
from edge.output.sinks import Sink
from edge.recognition.pipeline import listen
from edge.recognition.recognizer import Recognizer

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

    program = [sys.executable, "-c", "from edge.cli.main import main; main()", "serve", "--web", "0"]
    with subprocess.Popen([*program, "--source", "demo"], stderr=subprocess.PIPE, text=True) as server:
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
                page.screenshot(path=path)
                browser.close()
        finally:
            server.terminate()


if __name__ == "__main__":
    draw_page(HERE / "web.png")
    draw_monitor(HERE / "monitor.svg")
    draw_pipeline(HERE / "pipeline.svg")
