"""Enrolment on the page in a real browser: Chromium without a screen, whose microphone plays speech."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import soundfile

from calibrate.web.service import EnrolmentOffer
from edge.model.bundle import Bundle, load_bundle
from edge.server.access import Access
from edge.server.client_stream import kept_for_clients, shared_engines
from edge.web.start import usable_profiles
from tests.calibrate.ordinary_speech import ordinary, with_baseline
from tests.cnn_lstm import CNN_LSTM
from tests.edge.web.sites import RunningSite, open_page, service

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")

SOON_MS = 40_000
SOON_S = 10.0
SIZES = ((360, 740), (1_280, 800), (3_840, 2_160))


@pytest.fixture(scope="module")
def data_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("data")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("XDG_DATA_HOME", str(folder))
        yield folder


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return with_baseline(load_bundle(CNN_LSTM))


@pytest.fixture(scope="module")
def site(bundle: Bundle, data_home: Path) -> Iterator[RunningSite]:
    served = service(shared_engines(bundle, provider="cpu"), Access())
    find, offer = kept_for_clients(bundle), EnrolmentOffer(bundle)
    with open_page(served, find=find, profiles=lambda: usable_profiles(bundle), enrolment=offer) as running:
        yield running


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    spoken = tmp_path_factory.mktemp("speech") / "speech.wav"
    soundfile.write(spoken, ordinary(29.0), 16_000, subtype="PCM_16")
    flags = [
        *("--no-sandbox", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"),
        *("--mute-audio", f"--use-file-for-fake-audio-capture={spoken}"),
    ]
    with playwright.sync_playwright() as started:
        launched = started.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield launched
        launched.close()


@pytest.fixture
def page(browser: Browser, site: RunningSite) -> Iterator[Page]:
    """A page, which may not complain: a violation of the policy is an error of the console."""
    opened = browser.new_page()
    opened.set_default_timeout(SOON_MS)
    errors: list[str] = []
    opened.on("pageerror", lambda error: errors.append(str(error)))
    opened.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    opened.goto(f"http://127.0.0.1:{site.port}/")
    opened.click("#enrol:enabled")
    yield opened
    opened.close()
    assert errors == []


def begin(page: Page, name: str, kind: str = "ordinary", **options: str) -> None:
    page.fill("#enrol-name", name)
    page.check(f"[name=kind][value={kind}]")
    for field, value in options.items():
        page.fill(f"#enrol-{field}", value)
    page.check("#enrol-agreed")
    page.click("#enrol-begin")


def press(page: Page, key: str) -> None:
    page.click(f"#enrol-actions [data-key={key}]")


def recordings(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.suffix in (".wav", ".json", ".lock"))


def gone(folder: Path) -> bool:
    """Wait until no recording is left."""
    late_s = time.monotonic() + SOON_S
    while recordings(folder) and time.monotonic() < late_s:
        time.sleep(0.05)
    return recordings(folder) == []


def test_ordinary_speech_becomes_a_profile_of_the_page(page: Page, bundle: Bundle, data_home: Path) -> None:
    begin(page, "Zoë")
    page.wait_for_selector("#enrol-status[data-tone=good]")
    page.keyboard.press("Enter")
    page.wait_for_selector("#enrol-heading:text-is('Ordinary speech')")
    page.keyboard.press("Space")
    page.wait_for_selector("#enrol-status:has-text('9 s of speech')")
    page.keyboard.press("Space")
    page.wait_for_selector("#enrol-status:has-text('Good')")
    page.keyboard.press("Enter")
    page.wait_for_selector("#enrol-outcome:text-is('Zoë is ready')")
    assert page.inner_text("#enrol-recordings") == "The recordings are deleted."
    assert gone(data_home)
    assert usable_profiles(bundle) == ["Zoë"]
    assert "Zoë" in page.locator("#profile option").all_inner_texts()
    page.click("#enrol-use")
    page.wait_for_selector("#enrolment", state="hidden")
    assert page.input_value("#profile") == "Zoë"
