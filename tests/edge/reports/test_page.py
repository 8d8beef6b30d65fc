from __future__ import annotations

import base64
import hashlib
import html
import json
import shutil
from collections.abc import Iterator
from datetime import datetime, timezone
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from edge import demo_clip
from edge.errors import UsageError
from edge.labels import EMOTIONS
from edge.reports.page import MOST_EMBEDDED, report_page, require_embeddable, thinned
from edge.reports.recordings import Recording
from edge.reports.results import Curve, FileResult, Span
from edge.reports.summaries import by_speaker, summarize
from tests.browser import chromium

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

HOSTILE = "</script><img src=x onerror=alert(1)><!--"
MADE = datetime(2026, 11, 29, tzinfo=timezone.utc)
SURE = {"neutral": 0.0, "happy": 0.1, "sad": 0.0, "angry": 0.9}


def result(problem: str = "") -> FileResult:
    if problem:
        return FileResult(problem=problem)
    return FileResult(
        duration_s=10.0,
        speech_s=4.0,
        utterances=(Span(1.0, 5.0, "angry", SURE, 3),),
        curve=Curve((3.0, 4.0, 5.0), (tuple(SURE.values()),) * 3, (False, True, True)),
        engine="cpu",
        bundle="small",
    )


def page(folder: Path, *recordings: Recording, problem: str = "", embed: bool = False) -> str:
    finished = [(recording, result()) for recording in recordings]
    if problem:
        finished.append((Recording(folder / "broken.wav"), result(problem)))
    return report_page(finished, folder, version="1", made=MADE, embed=embed)


class Elements(HTMLParser):
    """Collects the elements of a page, and the text of those that are scripts or styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.inside = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        self.inside = tag in {"script", "style"}
        if self.inside:
            self.texts.append("")

    def handle_endtag(self, tag: str) -> None:
        self.inside = False

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.texts[-1] += data

    @property
    def data(self) -> dict[str, Any]:
        read: dict[str, Any] = json.loads(self.texts[1])
        return read


def test_the_page_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    elements = Elements(page(tmp_path, Recording(tmp_path / "a.wav")))
    policy = next(str(attrs["content"]) for tag, attrs in elements.found if attrs.get("http-equiv"))
    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy
    assert "http" not in policy
    for text in (elements.texts[0], elements.texts[2]):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy
    assert [attrs for _, attrs in elements.found if {"src", "href", "style", "onclick"} & set(attrs)] == []


def test_names_are_text_and_links_are_relative(tmp_path: Path) -> None:
    recording = Recording(tmp_path / "in" / "50% <b>#é?.wav", HOSTILE)
    plain, hostile = page(tmp_path / "out"), page(tmp_path / "out", recording, problem=HOSTILE)
    elements = Elements(hostile)
    assert [tag for tag, _ in elements.found] == [tag for tag, _ in Elements(plain).found]
    first, broken = elements.data["files"]
    assert (first["name"], first["speaker"]) == ("in/50% <b>#é?.wav", HOSTILE)
    assert first["url"] == "../in/50%25%20%3Cb%3E%23%C3%A9%3F.wav"
    assert broken["problem"] == HOSTILE
    assert HOSTILE not in hostile


def test_recordings_can_be_put_into_the_page(tmp_path: Path) -> None:
    shutil.copy(demo_clip(), tmp_path / "a.flac")
    elements = Elements(page(tmp_path, Recording(tmp_path / "a.flac"), embed=True))
    kind, _, content = elements.data["files"][0]["url"].partition(";base64,")
    assert (kind, base64.b64decode(content)) == ("data:audio/flac", demo_clip().read_bytes())
    with pytest.raises(UsageError, match="--embed"):
        require_embeddable([MOST_EMBEDDED, 1])


def test_speakers_are_summarised_by_the_length_of_their_utterances() -> None:
    sad = Span(0.0, 1.0, "sad", {**SURE, "sad": 0.9, "angry": 0.0}, 1)
    finished = [
        (Recording(Path("a.wav"), "anna"), result()),
        (Recording(Path("b.wav"), "anna"), FileResult(duration_s=2.0, utterances=(sad,), speech_s=1.0)),
        (Recording(Path("c.wav")), result("broken")),
    ]
    speakers = by_speaker(finished)
    anna = speakers["anna"]
    assert [*speakers] == ["anna"]
    assert (anna.recordings, anna.problems, anna.speech_s) == (2, 0, 5.0)
    assert (anna.seconds["angry"], anna.seconds["sad"]) == (4.0, 1.0)
    assert anna.probs["angry"] == pytest.approx(0.9 * 3 / 4)
    everything = summarize(found for _, found in finished)
    assert (everything.recordings, everything.problems) == (3, 1)


def test_a_curve_is_thinned_to_its_means() -> None:
    ends = tuple(float(number) for number in range(1, 9))
    probs = ((1.0, 0.0, 0.0, 0.0),) * 4 + ((0.0, 1.0, 0.0, 0.0),) * 4
    full = Curve(ends, probs, (True,) * 3 + (False,) + (True,) * 4)
    assert thinned(full, 8.0, 100) == "1.00 1.0000 " + "_AAA" * 3 + "." + "A_AA" * 4
    assert thinned(full, 8.0, 3) == "1.00 3.5000 _AAAVqAAA_AA"
    assert thinned(Curve(), 8.0, 3) == ""


CURVES = "article path.angry"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as launched:
        yield launched


def shown(browser: Browser, folder: Path, text: str) -> Page:
    """Open a page as a reader does, from a file."""
    (folder / "report.html").write_text(text, encoding="utf-8")
    opened = browser.new_page()
    opened.goto((folder / "report.html").as_uri())
    return opened


def test_a_browser_shows_every_recording(browser: Browser, tmp_path: Path) -> None:
    recording = Recording(tmp_path / "<b>first.wav", HOSTILE)
    report = shown(browser, tmp_path, page(tmp_path, recording, problem="not sound"))
    report.wait_for_selector(CURVES)  # drawn when the card comes into view
    assert "<b>first.wav" in report.locator("article h3").all_inner_texts()
    assert f"<h3>{html.escape(HOSTILE)}</h3>" in report.content()
    assert "not sound" in report.inner_text("body")
    assert report.locator("article path[d^=M]").count() == len(EMOTIONS)
    assert report.locator("img").count() == 0


def test_a_printed_report_holds_the_curves_that_were_out_of_view(browser: Browser, tmp_path: Path) -> None:
    recordings = [Recording(tmp_path / f"{number}.wav") for number in range(40)]
    report = shown(browser, tmp_path, page(tmp_path, *recordings))
    report.wait_for_selector(CURVES)
    assert report.locator(CURVES).count() < report.locator("article").count() > 1
    report.pdf()
    assert report.locator(CURVES).count() == report.locator("article").count()
