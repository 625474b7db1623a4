"""Reports in a real browser: what is seen, what keys do, and that nothing leaves the page."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ssdd_lightning.report.page import page as html_page
from tests.report.conftest import HOSTILE, Folders

LAPTOP, PHONE = (1280, 800), (390, 844)
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
Open = Callable[..., Any]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """A headless browser, or skip."""
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        pytest.skip("no chromium is installed (Debian: apt-get install chromium)")
    driver = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with driver.sync_playwright() as engine:
        browser = engine.chromium.launch(executable_path=found, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def browse(chromium: Any) -> Iterator[Open]:
    """Open a file; at the end nothing may have been asked of a network, said by `alert`, or gone wrong."""
    contexts, asked, wrong = [], [], []

    def open_file(path: Path, size: tuple[int, int] = LAPTOP, scheme: str = "light", touch: bool = False) -> Any:
        viewport = {"width": size[0], "height": size[1]}
        contexts.append(chromium.new_context(viewport=viewport, color_scheme=scheme, has_touch=touch))
        tab = contexts[-1].new_page()
        tab.on("request", lambda request: asked.append(request.url))
        tab.on("dialog", lambda dialog: (wrong.append(dialog.message), dialog.dismiss()))
        tab.on("pageerror", lambda error: wrong.append(str(error)))
        tab.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
        tab.set_default_timeout(10_000)
        tab.goto(path.as_uri())
        tab.asked = asked
        return tab

    yield open_file
    for context in contexts:
        context.close()
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
    assert wrong == []


def names(tab: Any) -> list[str]:
    return tab.locator(".photos .name").all_inner_texts()


def choose(tab: Any, label: str, value: str) -> None:
    tab.locator(".tools").get_by_label(label, exact=True).select_option(value)


def test_shows_the_table_and_bars(three: Folders, browse: Open) -> None:
    tab = browse(three.job().run(progress=False))
    rows = tab.locator("#scores tbody tr").all_inner_texts()
    assert [row.split("\t")[0].strip() for row in rows] == [
        "knowledge K", "advice A", "oracle merge of K and A", "prediction",
    ]  # fmt: skip
    assert "50.00" in tab.locator("#scores .classes > div").nth(1).inner_text()  # cats: 0.9, 0.1, 0.5
    bars = tab.locator(".classes .row")
    assert bars.count() == 8
    tab.locator(".legend").get_by_text("advice A").click()
    assert bars.count() == 6


def test_orders_and_filters(three: Folders, browse: Open) -> None:
    tab = browse(three.job().run(progress=False))
    assert names(tab) == ["b", "c", "a"]  # the worst first
    choose(tab, "order", "best")
    assert names(tab) == ["a", "c", "b"]
    choose(tab, "order", "changed")
    assert names(tab) == ["a", "c", "b"]
    choose(tab, "order", "name")
    assert names(tab) == ["a", "b", "c"]
    choose(tab, "masks", "knowledge")
    choose(tab, "class", "8")
    assert tab.locator(".count").inner_text() == "3 photos"
    tab.keyboard.press("/")
    tab.keyboard.type("b")
    assert names(tab) == ["b"]
    tab.keyboard.type("bb")
    assert tab.locator(".count").inner_text() == "0 photos"
    assert "No photo fits" in tab.locator(".photos").inner_text()


def test_classes_filter(folders: Folders, browse: Open) -> None:
    import numpy as np

    from ssdd_lightning.storage.masks import write_mask

    for name in "ab":
        folders.add(name)
    for folder in ("truth", "predictions", "knowledge", "advice"):
        write_mask(folders.root / folder / "b.png", np.full((30, 40), 12, np.uint8))
    tab = browse(folders.job().run(progress=False))
    options = tab.locator(".tools").get_by_label("class", exact=True).locator("option").all_inner_texts()
    assert options == ["all classes", "cat", "dog"]
    choose(tab, "class", "12")
    assert names(tab) == ["b"]
    choose(tab, "class", "8")
    assert names(tab) == ["a"]


def test_keys_walk_through_photos_and_layers(three: Folders, browse: Open) -> None:
    tab = browse(three.job().run(progress=False))
    tab.locator(".photos button").first.focus()
    tab.keyboard.press("ArrowRight")
    tab.keyboard.press("Enter")
    heading, left, right = tab.locator("#viewer-name"), tab.locator(".tag.left"), tab.locator(".tag.right")
    assert heading.inner_text() == "c"
    tab.keyboard.press("ArrowRight")
    assert heading.inner_text() == "a"
    tab.keyboard.press("ArrowRight")
    assert heading.inner_text() == "a"  # the last one
    tab.keyboard.press("ArrowLeft")
    tab.keyboard.press("ArrowLeft")
    assert heading.inner_text() == "b"
    assert (left.inner_text(), right.inner_text()) == ("photo", "prediction")
    titles = ["photo", "knowledge K", "advice A", "difference d_K", "difference d_A", "prediction", "ground truth"]
    for number, title in enumerate(titles, start=1):
        tab.keyboard.press(str(number))
        assert right.inner_text() == title
        source = tab.locator(".pane.right img").last
        source.evaluate("image => image.decode()")
        assert source.evaluate("image => image.naturalWidth") == 40
    tab.keyboard.press("Shift+2")
    assert left.inner_text() == "knowledge K"
    tab.keyboard.press("s")
    assert (left.inner_text(), right.inner_text()) == ("ground truth", "knowledge K")
    tab.keyboard.press("Escape")
    assert not tab.locator("#viewer").is_visible()
    assert tab.evaluate("document.activeElement.dataset.id !== undefined")


def test_the_slider_cuts_between_two_layers(three: Folders, browse: Open) -> None:
    tab = browse(three.job().run(progress=False))
    tab.locator(".photos button").first.click()
    stage, pane = tab.locator(".stage"), tab.locator(".pane.right")

    def cut() -> str:
        return pane.evaluate("node => getComputedStyle(node).clipPath")

    assert cut() == "inset(0px 0px 0px 50%)"
    tab.keyboard.press("]")
    assert cut() == "inset(0px 0px 0px 55%)"
    box = stage.bounding_box()
    tab.mouse.move(box["x"] + box["width"] / 2, box["y"] + 20)
    tab.mouse.down()
    tab.mouse.move(box["x"] + box["width"] / 4, box["y"] + 20)
    tab.mouse.up()
    assert cut() == "inset(0px 0px 0px 25%)"
    slider = tab.get_by_label("where the left layer ends and the right one begins")
    slider.focus()
    tab.keyboard.press("ArrowRight")
    assert cut() == "inset(0px 0px 0px 26%)"
    assert tab.locator("#viewer-name").inner_text() == "b"  # the arrow moved the slider alone


@pytest.mark.parametrize(("size", "touch"), [(LAPTOP, False), (PHONE, True), ((320, 600), True)])
def test_fits_its_window(folders: Folders, browse: Open, size: tuple[int, int], touch: bool) -> None:
    folders.add("n" * 240, (30, 90))
    folders.add("tall", (90, 30))
    tab = browse(folders.job().run(progress=False), size, touch=touch)
    assert tab.evaluate("document.documentElement.scrollWidth") <= size[0]
    tab.locator(".photos button").first.click()
    for _ in range(2):
        box = tab.locator(".stage").bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= size[0]
        assert box["height"] < size[1]
        assert tab.evaluate("document.getElementById('viewer').scrollWidth") <= size[0]
        tab.keyboard.press("ArrowRight")


def test_light_and_dark(three: Folders, browse: Open) -> None:
    path = three.job().run(progress=False)

    def brightness(scheme: str, what: str) -> int:
        text = browse(path, scheme=scheme).evaluate(f"getComputedStyle(document.body).{what}")
        return int(text.split("(")[1].split(",")[0])

    assert brightness("light", "backgroundColor") > 200 > 60 > brightness("light", "color")
    assert brightness("dark", "backgroundColor") < 60 < 200 < brightness("dark", "color")


def test_hostile_names_are_shown_as_they_are(folders: Folders, browse: Open) -> None:
    for name in HOSTILE:
        folders.add(name)
    tab = browse(folders.job().run(progress=False))
    choose(tab, "order", "name")
    assert set(names(tab)) == set(HOSTILE)
    tab.locator(".photos button").first.click()
    seen = set()
    for _ in HOSTILE:
        seen.add(tab.locator("#viewer-name").inner_text())
        for picture in tab.locator(".stage img").all():
            picture.evaluate("image => image.decode()")
        tab.keyboard.press("ArrowRight")
    assert seen == set(HOSTILE)
    assert tab.locator("script").count() == 2


def test_a_link_opens_its_photo(three: Folders, browse: Open) -> None:
    tab = browse(three.job().run(progress=False))
    tab.locator(".photos button").nth(2).click()
    address = tab.evaluate("location.href")
    assert "#photo=" in address
    tab.goto("about:blank")
    tab.goto(address)
    assert tab.locator("#viewer-name").inner_text() == "a"


def test_many_photos_are_loaded_when_they_are_seen(three: Folders, browse: Open) -> None:
    job = three.job()
    path = job.run(progress=False)
    content = job.content()
    image = content["images"][0]
    content["images"] = [{**image, "name": f"2009_{number:06d}"} for number in range(1449)]
    path.write_text(html_page("many", content), encoding="utf-8")
    tab = browse(path)
    tab.locator(".count", has_text="1449 photos").wait_for()
    assert tab.locator(".photos li").count() < 200
    for _ in range(60):
        tab.mouse.wheel(0, 20000)
        tab.wait_for_timeout(30)
    tab.locator(".photos li").nth(1448).wait_for()
    tab.get_by_label("filter").fill("001448")
    assert names(tab) == ["2009_001448"]
