"""Enrolment on the page in a real browser: Chromium without a screen, whose microphone plays speech."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pytest
import soundfile

from calibrate.web.service import EnrolmentOffer
from edge.model.bundle import Bundle, load_bundle
from edge.server.access import Access
from edge.server.client_stream import kept_for_clients, shared_engines
from edge.web.start import usable_profiles
from tests.browser import CHROMIUM, chromium
from tests.calibrate.ordinary_speech import ordinary, with_baseline
from tests.cnn_lstm import CNN_LSTM
from tests.edge.web.sites import RunningSite, open_page, service

pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

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
        *("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"),
        *("--mute-audio", f"--use-file-for-fake-audio-capture={spoken}"),
    ]
    with chromium(*flags) as launched:
        yield launched


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


def problems(page: Page, schemes: Sequence[Literal["light", "dark"]] = ("light",)) -> list[tuple[str, str]]:
    """Let axe inspect the page as it is."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed").Axe()
    found = []
    for scheme in schemes:
        page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
        found += [(rule["id"], rule["help"]) for rule in axe.run(page).response["violations"]]
    return found


def sideways(page: Page) -> list[int]:
    """List the widths at which the dialog is wider than the window or scrolls sideways."""
    wide = "(box) => box.scrollWidth > box.clientWidth || box.getBoundingClientRect().right > innerWidth"
    found = []
    for width, height in SIZES:
        page.set_viewport_size({"width": width, "height": height})
        if page.eval_on_selector("#enrolment", wide):
            found.append(width)
    page.set_viewport_size({"width": 1_280, "height": 800})
    return found


def begin_labelled(page: Page, name: str) -> None:
    """Begin a labelled session, and go to its first sentence."""
    begin(page, name, "labelled")
    page.wait_for_selector("#enrol-status[data-tone=good]")
    press(page, "enter")
    page.click("#enrol-actions [data-key=s]:has-text('Skip this one')")
    page.wait_for_selector("#enrol-heading:text-is('Neutral')")


def record(page: Page, key: str = "space") -> None:
    """Record a take of about a second."""
    press(page, key)
    page.wait_for_selector(r"#enrol-status:text-matches('Recording (1\.[1-9]|[2-9])')")
    press(page, "space")
    page.wait_for_selector("#enrol-status:has-text('Good')")


def rate(page: Page) -> None:
    press(page, "enter")
    for number, answer in enumerate("324", 1):
        page.wait_for_selector(f"#enrol-rated:has-text('{number} of 3')")
        page.keyboard.press(answer)


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


def test_a_labelled_session_is_judged_and_every_stage_is_usable(
    page: Page, bundle: Bundle, data_home: Path
) -> None:
    assert problems(page, ("light", "dark")) == []
    assert sideways(page) == []
    begin_labelled(page, "ben")
    record(page)
    press(page, "p")
    page.wait_for_selector("#enrol-actions[data-playing=yes]")
    record(page, "r")
    assert problems(page, ("dark",)) == []
    press(page, "enter")
    page.wait_for_selector("#enrol-rated")
    assert problems(page) == []
    assert sideways(page) == []
    press(page, "backspace")
    rate(page)
    for heading in ("Happy", "Sad", "Angry", "Neutral", "Happy"):
        page.wait_for_selector(f"#enrol-heading:text-is('{heading}')")
        if heading in ("Sad", "Angry"):
            press(page, "s")
        else:
            record(page)
            rate(page)
    for heading in ("Sad", "Angry"):
        page.wait_for_selector(f"#enrol-heading:text-is('{heading}')")
        press(page, "s")
    page.click("#enrol-actions :text('Finish')")
    page.wait_for_selector("#enrol-outcome:text-is('ben is not used')")
    assert "Rejected" in page.inner_text("#enrol-reasons")
    assert page.locator("#enrol-tables table").count() == 3
    assert page.is_hidden("#enrol-use")
    assert problems(page) == []
    assert sideways(page) == []
    page.click("#enrol-keep-no")
    page.wait_for_selector("#enrol-recordings:text-is('The recordings are deleted.')")
    assert gone(data_home)
    assert "ben" not in usable_profiles(bundle)


def test_a_tab_that_is_closed_leaves_no_recording(
    browser: Browser, site: RunningSite, data_home: Path
) -> None:
    page = browser.new_page()
    page.goto(f"http://127.0.0.1:{site.port}/")
    page.click("#enrol:enabled")
    begin_labelled(page, "carl")
    record(page)
    rate(page)
    page.wait_for_selector("#enrol-heading:text-is('Happy')")
    assert "00-neutral.wav" in recordings(data_home)
    page.close()
    assert gone(data_home)


def test_a_bad_name_is_a_sentence_and_an_existing_one_a_question(page: Page, data_home: Path) -> None:
    hostile = "<img src=x onerror=document.title=1>"
    begin(page, hostile)
    page.wait_for_selector("#enrol-error:has-text('cannot name a profile')")
    assert hostile in page.inner_text("#enrol-error")
    assert page.locator("main img, dialog img").count() == 0
    assert page.title() == "mmtl"
    kept = data_home / "mmtl" / "profiles" / "dora.safetensors"
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_text("kept")
    begin(page, "dora")
    page.wait_for_selector("#enrol-asked:has-text('There is a profile dora already')")
    assert problems(page) == []
    page.click("#enrol-answers :text('Choose another name')")
    assert page.evaluate("document.activeElement.id") == "enrol-name"
    page.keyboard.press("Escape")
    page.wait_for_selector("#enrolment", state="hidden")
    assert kept.read_text() == "kept"


def test_a_microphone_that_is_refused_is_a_sentence(browser: Browser, site: RunningSite) -> None:
    page = browser.new_page()
    page.add_init_script(
        "navigator.mediaDevices.getUserMedia = async () => { throw new DOMException('', 'NotAllowedError'); }"
    )
    page.goto(f"http://127.0.0.1:{site.port}/")
    page.click("#enrol:enabled")
    begin(page, "eva")
    page.wait_for_selector("#enrol-error:has-text('not permitted')")
    page.close()
