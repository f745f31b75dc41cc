"""The demo's page as Chromium shows it, without a network: digits drawn, tables dropped, prompts gone on with.

Needs gradio (`pip install 'refzoo[demo]'`), selenium, and Chromium with its driver on the path.
"""

from __future__ import annotations

import base64
import io
import json
import shutil
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pyarrow.csv as pacsv
import pytest
import sklearn.datasets
import torch
from PIL import Image
from support import CHECKOUT, CPU, TINY, free_port, run_command, spawn

import zoo
from zoo.training.demo.command import serve
from zoo.training.demo.images import Sheet, as_bytes, fitted, ink_of
from zoo.training.demo.pages import make_page
from zoo.training.demo.subject import Subject
from zoo.training.demo.texts import going_on

pytestmark = pytest.mark.slow

DRIVER, CHROMIUM = shutil.which("chromedriver"), shutil.which("chromium") or shutil.which("google-chrome")
PATIENCE = 240.0  # seconds that a loaded machine may take for an answer


class Browser:
    """A page in Chromium, and what it asked for over the network."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def find(self, selector: str) -> Any:
        """Return the first element of a CSS selector, once it is there."""
        return self.wait(lambda: next(iter(self.all(selector)), None), f"no {selector}")

    def all(self, selector: str) -> list[Any]:
        """Return the elements of a CSS selector that can be seen."""
        return [e for e in self.driver.find_elements("css selector", selector) if e.is_displayed()]

    def text(self, selector: str) -> str:
        """Return the text of an element, or nothing where it is not there."""
        found = self.driver.find_elements("css selector", selector)
        return found[0].text if found else ""

    def value(self, selector: str) -> str:
        """Return what stands in a text box."""
        return self.find(selector).get_property("value")

    def fill(self, selector: str, text: str) -> None:
        """Type a text in the place of another."""
        from selenium.webdriver.common.keys import Keys

        box = self.find(selector)
        box.send_keys(Keys.CONTROL, "a")
        box.send_keys(text or Keys.DELETE)

    def drop(self, selector: str, file: Path) -> None:
        """Upload a file."""
        self.driver.find_element("css selector", f"{selector} input[type=file]").send_keys(str(file))

    def wait(self, condition: Callable[[], Any], what: str) -> Any:
        """Return the first value of a condition that holds."""
        from selenium.common.exceptions import StaleElementReferenceException

        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            try:
                if value := condition():
                    return value
            except StaleElementReferenceException:
                pass
            time.sleep(0.05)
        raise AssertionError(f"{what} within {PATIENCE:.0f} s: {self.driver.find_element('css selector', 'body').text}")

    def hosts(self) -> set[str]:
        """Return the hosts that the page has asked for anything."""
        events = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        urls = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
        urls += [e["params"]["url"] for e in events if e["method"] == "Network.webSocketCreated"]
        assert urls
        return {urlsplit(url).hostname or "" for url in urls if not url.startswith(("data:", "blob:"))}


@pytest.fixture(scope="module")
def driver() -> Iterator[Any]:
    pytest.importorskip("gradio", reason="gradio is not installed")
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    if not DRIVER or not CHROMIUM:
        pytest.skip("Chromium and its driver are not on the path")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    no_network = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1100,900", no_network):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture
def shown(driver: Any, tmp_path: Path) -> Any:
    """Serve a run's page for the time of a block, and open it; afterwards nothing but 127.0.0.1 has been asked."""

    @contextmanager
    def open_page(run: Path) -> Iterator[tuple[Browser, Subject]]:
        subject = Subject.of(zoo.load_model(run), run, tmp_path)
        page, address = serve(subject, free_port())
        browser = Browser(driver)
        driver.get_log("performance")  # forgets what was before
        try:
            driver.get(address)
            browser.find("#title")
            yield browser, subject
            assert browser.hosts() == {"127.0.0.1"}
        finally:
            driver.get("about:blank")
            page.close(verbose=False)

    return open_page


def trained(folder: Path, *arguments: str) -> Path:
    run = folder / "run"
    assert run_command([*arguments, CPU, f"run_dir={run}"]) == 0
    return run


# -- images -----------------------------------------------------------------------------------------------------------


def draw(browser: Browser, digit: np.ndarray) -> None:
    """Draw the light pixels of an image onto the canvas: across each row from the first to the last of a run."""
    from selenium.webdriver.common.action_chains import ActionChains

    canvas = browser.find("#canvas canvas")
    zoom = canvas.size["width"] / digit.shape[1]
    place = lambda pixel, side: round((pixel + 0.5 - side / 2) * zoom)  # noqa: E731  # from the canvas's middle
    pen = ActionChains(browser.driver, duration=0)
    height, width = digit.shape
    for row in range(height):
        light = np.flatnonzero(np.diff(np.pad(digit[row] > digit.max() / 2, 1).astype(int)))
        for first, last in zip(light[::2], light[1::2] - 1, strict=True):
            pen.move_to_element_with_offset(canvas, place(first, width), place(row, height)).click_and_hold()
            pen.move_to_element_with_offset(canvas, place(last, width), place(row, height)).release()
    pen.perform()


def seen_by_the_model(browser: Browser, shape: tuple[int, int]) -> np.ndarray:
    """The pixels of the picture "what the model sees", (H, W) bytes."""
    found = browser.all("#seen img")
    if not found:
        return np.zeros(0)
    source = found[0].get_attribute("src")
    script = """
        const done = arguments[1];
        fetch(arguments[0]).then(r => r.blob()).then(b => {
            const reader = new FileReader(); reader.onload = () => done(reader.result); reader.readAsDataURL(b);
        });"""
    content = base64.b64decode(browser.driver.execute_async_script(script, source).partition(",")[2])
    pixels = np.array(Image.open(io.BytesIO(content)).convert("L"))
    zoom = pixels.shape[0] // shape[0]
    return pixels[zoom // 2 :: zoom, zoom // 2 :: zoom]


def answer_of(browser: Browser) -> str:
    return browser.text("#answer [data-testid=label-output-value]") or browser.text("#answer h2")


def check_digits(browser: Browser, subject: Subject, digits: np.ndarray, labels: list[int], folder: Path) -> int:
    """Draw digits; each answer is that of `zoo predict` of what the model saw. Return how many are the label."""
    assert subject.raw is not None
    sheet = Sheet.of(subject.spec.shape, subject.model.preprocessing.white, subject.raw)  # type: ignore[union-attr]
    files, answers = [], []
    for number, digit in enumerate(digits):
        draw(browser, digit)
        url = browser.driver.execute_script("return document.querySelector('#canvas canvas').toDataURL()")
        drawn = np.array(as_bytes(fitted(ink_of(url), sheet), sheet.white))[0]  # of the last stroke
        browser.wait(lambda d=drawn: np.array_equal(seen_by_the_model(browser, d.shape), d), "it is not seen")
        files.append(folder / f"{number:02}.png")
        Image.fromarray(drawn).save(files[-1])
        row = torch.from_numpy(drawn)[None, None] * (sheet.white / 255)
        answers.append(str(int(subject.model.predict(row))))
        browser.wait(lambda: answer_of(browser) == answers[-1], f"no {answers[-1]}")
        browser.find("#canvas button").click()
        browser.wait(lambda: not browser.all("#seen img"), "the canvas is not cleared")
    output = folder / "answers.csv"
    arguments = [f"run={subject.run}", f"data.path={folder}/*.png", f"output={output}", "accelerator=cpu"]
    assert run_command(arguments, "predict") == 0
    table = pacsv.read_csv(output).to_pydict()
    assert [Path(path).name for path in table["path"]] == [file.name for file in files]
    assert answers == [str(label) for label in table["prediction"]]
    return sum(answer == str(label) for answer, label in zip(answers, labels, strict=True))


def test_twenty_digits_drawn_in_the_page_are_answered_as_by_predict(shown: Any, tmp_path: Path) -> None:
    run = trained(tmp_path, "model=cnn", "data=digits", "trainer.max_epochs=15")
    digits = sklearn.datasets.load_digits()
    (tmp_path / "drawn").mkdir()
    with shown(run) as (browser, subject):
        right = check_digits(browser, subject, digits.images[:20], digits.target[:20].tolist(), tmp_path / "drawn")
    assert right >= 17  # a pen knows no grey


def test_an_image_that_is_dropped_is_answered_and_what_is_none_is_refused(shown: Any, tmp_path: Path) -> None:
    run = trained(tmp_path, "model=cnn", "data=digits", "trainer.max_epochs=2")
    file = tmp_path / "five.png"
    digit = sklearn.datasets.load_digits().images[5]
    Image.fromarray((digit * 255 / 16).round().astype(np.uint8)).save(file)
    (tmp_path / "note.png").write_text("no image")
    with shown(run) as (browser, subject):
        browser.drop("#image", file)
        browser.wait(lambda: browser.all("#seen img"), "no answer")
        expected = subject.model.predict(torch.from_numpy((digit * 255 / 16).round() * 16 / 255)[None])
        assert answer_of(browser) == str(int(expected))
        assert np.array_equal(seen_by_the_model(browser, (8, 8)), np.array(Image.open(file)))
    with shown(run) as (browser, _):
        browser.drop("#image", tmp_path / "note.png")
        assert_one_line(browser, "note.png cannot be read (it is no image)")


def assert_one_line(browser: Browser, expected: str) -> None:
    message = browser.wait(lambda: browser.text(".toast-body"), "no error")
    assert expected in message
    assert "Traceback" not in browser.text("body")
    assert "/tmp" not in message


# -- tables -----------------------------------------------------------------------------------------------------------


def test_a_row_is_filled_in_and_a_table_dropped(shown: Any, tmp_path: Path) -> None:
    run = trained(tmp_path, "model=logistic_regression", "data=iris")
    x = sklearn.datasets.load_iris(as_frame=True).data
    x[x.columns[::-1]].to_csv(tmp_path / "new.csv", index=False)
    x.drop(columns=[x.columns[2]]).to_csv(tmp_path / "short.csv", index=False)
    output = tmp_path / "answers.csv"
    assert run_command([f"run={run}", f"data.path={tmp_path}/new.csv", f"output={output}"], "predict") == 0
    with shown(run) as (browser, subject):
        assert float(browser.value("#field_2 input")) == pytest.approx(4.35, abs=0.2)
        row = [5.0, 3.4, 1.5, 0.2]
        for number, value in enumerate(row):
            browser.fill(f"#field_{number} input", str(value))
        names = subject.spec.class_names
        assert names is not None
        expected = names[int(subject.model.predict([row]))]
        browser.wait(lambda: answer_of(browser) == expected, f"no {expected}")
        browser.wait(lambda: next(t for t in browser.all("button[role=tab]") if "table" in t.text), "no tab").click()
        browser.drop("#rows", tmp_path / "new.csv")
        browser.wait(lambda: browser.text("#count") == "150 answers.", "no answers")
        link = browser.find("#download a").get_attribute("href")
        script = "const done = arguments[1]; fetch(arguments[0]).then(r => r.text()).then(done);"
        assert browser.driver.execute_async_script(script, link) == output.read_text()
        assert "setosa" in browser.text("#answers")
    with shown(run) as (browser, _):
        browser.wait(lambda: next(t for t in browser.all("button[role=tab]") if "table" in t.text), "no tab").click()
        browser.drop("#rows", tmp_path / "short.csv")
        assert_one_line(browser, f"no column '{x.columns[2]}'")


# -- texts ------------------------------------------------------------------------------------------------------------


# Notes all that is ever written into a text box.
NOTED = """
    const of = Object.getOwnPropertyDescriptor(HTMLTextAreaElement.prototype, 'value');
    window.noted = [];
    Object.defineProperty(arguments[0], 'value', {
        get() { return of.get.call(this); }, set(text) { window.noted.push(text); of.set.call(this, text); },
    });"""


def test_a_prompt_is_gone_on_with_token_by_token(shown: Any, tmp_path: Path) -> None:
    run = trained(
        tmp_path, "model=gpt", "model.hidden_size=32", "model.num_heads=2", "model.num_layers=2",
        "data.sequence_length=64", "trainer.max_epochs=1", "trainer.limit_train_batches=8",
        "trainer.limit_val_batches=2", "trainer.limit_test_batches=2",
    )  # fmt: skip
    with shown(run) as (browser, subject):
        box = browser.find("#text textarea")
        browser.driver.execute_script(NOTED, box)
        browser.fill("#prompt textarea", "def ")
        browser.find("#go").click()
        *_, expected = going_on(subject.model, "def ")
        browser.wait(lambda: browser.value("#text textarea") == expected, "the text is not that of generate")
        states = browser.driver.execute_script("return window.noted")
    assert expected == subject.model.generate("def ", steps=200)
    grown = [state for state in states if state not in ("", expected)]
    assert len(grown) >= 2
    assert all(expected.startswith(state) for state in grown)


# -- the plane --------------------------------------------------------------------------------------------------------


def test_a_click_moves_the_clusters(shown: Any, tmp_path: Path) -> None:
    from selenium.webdriver.common.action_chains import ActionChains

    run = trained(tmp_path, "model=kmeans", "data=blobs", "model.num_clusters=3")
    with shown(run) as (browser, _):
        image = browser.find("#plane img")
        before = image.get_attribute("src")
        ActionChains(browser.driver).move_to_element_with_offset(image, 20, -30).click().perform()
        browser.wait(lambda: browser.find("#plane img").get_attribute("src") != before, "nothing moves")


# -- the command ------------------------------------------------------------------------------------------------------


def test_the_command_serves_until_a_signal_ends_it_and_leaves_nothing(tmp_path: Path) -> None:
    pytest.importorskip("gradio", reason="gradio is not installed")
    run = trained(tmp_path, "model=kmeans", "data=iris")
    port = free_port()
    environment = {"TMPDIR": str(tmp_path / "temporary")}
    (tmp_path / "temporary").mkdir()
    arguments = [f"run={run}", f"port={port}", "browser=false"]
    process = spawn(arguments, CHECKOUT, "demo", env=environment)
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == f"kmeans on iris: http://127.0.0.1:{port}/ (Ctrl-C ends it)\n"
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/") as page:
            assert b"kmeans on iris" in page.read()
        with pytest.raises(zoo.ZooError, match=f"port={port} is taken: pass another, such as port={port + 1}"):
            serve(Subject.of(zoo.load_model(run), run, tmp_path), port)
    finally:
        process.terminate()
        out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 143
    assert (out, err) == ("", "")
    assert not list((tmp_path / "temporary").glob("zoo-demo-*"))


# -- every model ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", zoo.list_models())
def test_every_model_has_a_page(name: str, tmp_path: Path) -> None:
    pytest.importorskip("gradio", reason="gradio is not installed")
    short = ["trainer.max_epochs=1", *(f"trainer.limit_{split}_batches=4" for split in ("train", "val", "test"))]
    run = trained(tmp_path, f"model={name}", *TINY.get(name, []), *([] if zoo.create_model(name).streaming else short))
    assert make_page(Subject.of(zoo.load_model(run), run, tmp_path)).fns
