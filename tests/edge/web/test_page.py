"""The page in a real browser: Chromium without a screen, whose microphone plays a recording."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import soundfile

from edge.audio.sound_file import read_clip
from edge.audio.sources import FileSource, demo_clip
from edge.events import Utterance, Window
from edge.model.bundle import Bundle, load_bundle, shipped_bundle
from edge.output.convert import csv_header
from edge.recognition.recognizer import Recognizer
from edge.server.access import Access, tls_context
from edge.server.client_stream import shared_engines
from tests.browser import CHROMIUM, chromium
from tests.edge.server.test_access import make_key, needs_openssl
from tests.edge.web.sites import RunningSite, open_page, service

pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")

SOON_MS = 60_000
ELSEWHERE = "device.example"
"""A name that the browser takes to this machine."""
SIZES = ((360, 740), (1_280, 800), (3_840, 2_160))
ENDED = "#label:text-is('ended')"
HOSTILE = "<img src=x onerror=document.title=1>"
TOKEN = "correct-horse"  # noqa: S105 - only here


@pytest.fixture(scope="module")
def speech(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three seconds of speech, then silence in which the utterance ends."""
    path = tmp_path_factory.mktemp("page") / f"{HOSTILE}.wav"
    spoken = read_clip(demo_clip())[:48_000]
    soundfile.write(path, np.concatenate([spoken, np.zeros(24_000, np.float32)]), 16_000, subtype="PCM_16")
    return path


@pytest.fixture(scope="module")
def shipped() -> Bundle:
    return load_bundle(shipped_bundle("default"))


@pytest.fixture(scope="module")
def shipped_make(shipped: Bundle) -> Callable[[], Recognizer]:
    return shared_engines(shipped, provider="cpu")


@pytest.fixture(scope="module")
def expected(shipped_make: Callable[[], Recognizer], speech: Path) -> list[Window | Utterance]:
    """What `mmtl run` says of the recording."""
    recognizer = shipped_make()
    with FileSource(speech) as source:
        events = [event for block in source for event in recognizer.feed(block.samples)]
    return [event for event in [*events, *recognizer.flush()] if isinstance(event, Window | Utterance)]


@pytest.fixture(scope="module")
def browser(speech: Path) -> Iterator[Browser]:
    flags = [
        *("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"),
        f"--use-file-for-fake-audio-capture={speech}%noloop",
        f"--host-resolver-rules=MAP {ELSEWHERE} 127.0.0.1",
    ]
    with chromium(*flags) as launched:
        yield launched


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page, which may not complain: a violation of the policy is an error of the console."""
    opened = browser.new_page()
    opened.set_default_timeout(SOON_MS)
    errors: list[str] = []
    opened.on("pageerror", lambda error: errors.append(str(error)))
    opened.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    yield opened
    opened.close()
    assert [error for error in errors if "WebSocket" not in error] == []


@pytest.fixture(scope="module")
def site(shipped_make: Callable[[], Recognizer], speech: Path) -> Iterator[RunningSite]:
    access = Access(origins=(f"http://{ELSEWHERE}",))
    served = service(shipped_make, access)
    with open_page(served, lambda: FileSource(speech), profiles=lambda: [HOSTILE]) as running:
        yield running


def opened(page: Page, site: RunningSite, fragment: str = "", host: str = "127.0.0.1") -> None:
    page.goto(f"http://{host}:{site.port}/{fragment}")
    page.wait_for_selector("#start:enabled")


def choose(page: Page, source: str) -> None:
    page.check(f"[name=source][value={source}]")


def utterance_labels(page: Page) -> list[str]:
    page.wait_for_selector("#utterances li")
    return page.locator("#utterances li b").all_inner_texts()


def refusing(reason: str) -> str:
    """Return a script that makes the browser refuse its microphone."""
    return f"navigator.mediaDevices.getUserMedia = async () => {{ throw new DOMException('', '{reason}'); }}"


def labels_of(events: list[Window | Utterance], kind: type) -> list[str]:
    return [event.label for event in events if isinstance(event, kind)]


def test_the_browser_s_microphone_gets_the_label_of_the_recording(
    page: Page, site: RunningSite, expected: list[Window | Utterance]
) -> None:
    opened(page, site)
    choose(page, "browser")
    page.click("#start")
    assert utterance_labels(page) == labels_of(expected, Utterance)
    assert page.inner_text("#lost") == "none"
    assert page.inner_text("#level").endswith("dBFS")
    page.click("#start")
    page.wait_for_selector(ENDED)


def test_a_file_gets_the_events_of_the_program_and_its_name_stays_text(
    page: Page, site: RunningSite, expected: list[Window | Utterance], speech: Path, tmp_path: Path
) -> None:
    opened(page, site)
    page.set_input_files("#file", speech)
    page.wait_for_selector(ENDED)
    assert utterance_labels(page) == labels_of(expected, Utterance)
    assert page.inner_text("#source-name") == speech.name
    assert page.locator("#profile option").all_inner_texts() == ["none", HOSTILE]
    assert page.locator("main img").count() == 0
    assert page.title() == "mmtl"
    events = [json.loads(line) for line in downloaded(page, "#save-events", tmp_path).splitlines()]
    assert [event["label"] for event in events if event["type"] == "window"] == labels_of(expected, Window)
    header, *rows = downloaded(page, "#save-csv", tmp_path).splitlines()
    assert header == csv_header(expected_emotions(expected))
    assert len(rows) == len(labels_of(expected, Window))
    assert downloaded_bytes(page, "#save-png", tmp_path).startswith(b"\x89PNG")


def expected_emotions(events: list[Window | Utterance]) -> list[str]:
    return list(events[0].probs)


def downloaded(page: Page, button: str, folder: Path) -> str:
    return downloaded_bytes(page, button, folder).decode()


def downloaded_bytes(page: Page, button: str, folder: Path) -> bytes:
    with page.expect_download() as download:
        page.click(button)
    path = folder / "download"
    download.value.save_as(path)
    return path.read_bytes()


def test_a_file_without_sound_is_a_sentence(page: Page, site: RunningSite, tmp_path: Path) -> None:
    text = tmp_path / f"{HOSTILE}.txt"
    text.write_text("not sound")
    opened(page, site)
    page.set_input_files("#file", text)
    page.wait_for_selector("#notice:visible")
    assert page.inner_text("#notice") == f"{text.name} holds no sound that this browser can decode."


def test_two_viewers_see_the_device_and_one_of_them_stops_it(
    page: Page, site: RunningSite, browser: Browser, expected: list[Window | Utterance]
) -> None:
    opened(page, site)
    other = browser.new_page()
    opened(other, site)
    page.click("#start")
    for viewer in (page, other):
        assert utterance_labels(viewer) == labels_of(expected, Utterance)
        viewer.wait_for_selector("#viewers:text-is('2')")
    other.close()


def test_a_page_that_is_not_secure_says_why_it_has_no_microphone(page: Page, site: RunningSite) -> None:
    opened(page, site, host=ELSEWHERE)
    choose(page, "browser")
    assert "--tls-cert" in page.inner_text("#notice")
    page.click("#start")
    assert "localhost or over TLS" in page.inner_text("#notice")
    assert page.inner_text("#start") == "Start"


@pytest.mark.parametrize(
    ("missing", "sentence"),
    [
        (refusing("NotAllowedError"), "not permitted"),
        (refusing("NotFoundError"), "finds no microphone"),
        (refusing("NotReadableError"), "Close other programs"),
        ("delete window.AudioWorkletNode", "has no AudioWorklet"),
    ],
)
def test_a_browser_that_gives_no_sound_says_why(
    page: Page, site: RunningSite, missing: str, sentence: str
) -> None:
    page.add_init_script(missing)
    opened(page, site)
    choose(page, "browser")
    page.click("#start")
    page.wait_for_selector(f"#notice:has-text('{sentence}')")
    assert page.inner_text("#start") == "Start"


@needs_openssl
def test_over_tls_a_page_from_elsewhere_may_use_the_microphone_at_96_khz(
    browser: Browser, make: Callable[[], Recognizer], tmp_path: Path
) -> None:
    key = make_key(tmp_path, "own")
    access = Access(origins=(f"https://{ELSEWHERE}",), tls=tls_context(tmp_path / "own.pem", key))
    context = browser.new_context(ignore_https_errors=True)
    page = context.new_page()
    page.add_init_script(
        "const Original = AudioContext;"
        "window.AudioContext = class extends Original { constructor() { super({ sampleRate: 96000 }); } };"
    )
    with open_page(service(make, access)) as guarded:
        page.goto(f"https://{ELSEWHERE}:{guarded.port}/")
        page.wait_for_selector("#start:enabled")
        choose(page, "browser")
        page.click("#start")
        page.wait_for_selector("#lag:has-text('ms')")
        assert page.inner_text("#lost") == "none"
        assert page.is_hidden("#notice")
        context.close()


def test_the_token_is_asked_for_and_kept_in_the_link(page: Page, make: Callable[[], Recognizer]) -> None:
    with open_page(service(make, Access(token=TOKEN.encode()))) as guarded:
        page.goto(f"http://127.0.0.1:{guarded.port}/#token=wrong")
        page.wait_for_selector("#ask:visible")
        assert page.inner_text("#notice") == "The token is wrong."
        assert page.is_disabled("#start")
        page.fill("#token", TOKEN)
        page.click("#ask button")
        page.wait_for_selector("#start:enabled")
        assert page.is_hidden("#ask")
        page.reload()
        page.wait_for_selector("#start:enabled")
        assert page.evaluate("[localStorage.length, sessionStorage.length, document.cookie]") == [0, 0, ""]


def test_the_page_connects_again_after_the_server_was_restarted(
    page: Page, make: Callable[[], Recognizer]
) -> None:
    with open_page(service(make)) as first:
        opened(page, first)
    page.wait_for_selector("#connection[data-state=lost]")
    assert page.is_disabled("#start")
    with open_page(service(make), port=first.port):
        page.wait_for_selector("#start:enabled")


def test_axe_finds_nothing_and_no_size_scrolls_sideways(page: Page, site: RunningSite, speech: Path) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed").Axe()
    opened(page, site)
    page.set_input_files("#file", speech)
    page.wait_for_selector(ENDED)
    for width, height in SIZES:
        page.set_viewport_size({"width": width, "height": height})
        assert page.evaluate("document.documentElement.scrollWidth") == width
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme="dark" if scheme == "dark" else "light", reduced_motion="reduce")
        found = axe.run(page).response["violations"]
        assert [(rule["id"], rule["impact"], rule["help"]) for rule in found] == []


def timeline_drawn(page: Page) -> str:
    """Return the timeline once it stays as it is for more than a second, in which the page draws again."""
    drawn: str = page.evaluate("""async () => {
        const picture = () => document.getElementById("timeline").toDataURL();
        for (let before = null, now = picture(); ; before = now, now = picture()) {
            if (now === before) return now;
            await new Promise((done) => setTimeout(done, 1200));
        }
    }""")
    return drawn


def test_the_timeline_obeys_keys_and_buttons(page: Page, site: RunningSite, speech: Path) -> None:
    opened(page, site)
    page.set_input_files("#file", speech)
    page.wait_for_selector(ENDED)
    before = timeline_drawn(page)
    page.click("#in")
    assert timeline_drawn(page) != before
    page.focus("#timeline")
    page.keyboard.press("-")
    assert timeline_drawn(page) == before
    page.hover("#timeline", position={"x": 30, "y": 60})
    assert re.match(r"\d:\d\d: \w+", page.inner_text("#pointed"))
