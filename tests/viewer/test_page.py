"""The page in a real browser."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from exports.results import make_result
from viewer.serving import Client, serving, write_result, write_slide
from viewer.test_following import Run

import wsi_unet

CHROMIUM = shutil.which("chromium")
sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium (apt install chromium)")

SHAPE = (1300, 1700)
EVIL = "<img src=x onerror=alert(1)>"
RED = (230, 0, 0)


def make_labels() -> np.ndarray[Any, np.dtype[np.uint8]]:
    labels = np.zeros(SHAPE, np.uint8)
    labels[100:400, 200:700] = 1
    labels[600:1100, 900:1500] = 2
    for y in range(700, 1000, 60):
        labels[y : y + 30, 200:240] = 1
    return labels


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    folder = tmp_path_factory.mktemp("page")
    slide = write_slide(folder / "slide.png", SHAPE)
    tissue = np.ones((13, 17), np.bool_)
    tissue[:, 16] = False
    result = write_result(
        folder / "a.ome.zarr", make_labels(), slide, classes=("background", EVIL, "tumour"),
        tissue=tissue, color="#e60000",
    )  # fmt: skip
    wsi_unet.find_objects(result)
    with serving(result, slide) as client:
        yield client


def until(page: Any, condition: str) -> None:
    """Wait until a condition holds on a page, whose policy forbids Playwright's own way to."""
    deadline = time.monotonic() + 60
    while not page.evaluate(condition):
        assert time.monotonic() < deadline, condition
        time.sleep(0.05)


READY = "document.body && document.body.dataset.ready === 'yes'"


class Tab:
    """A tab with the page of a slide."""

    def __init__(self, browser: Any, client: Client, **options: Any) -> None:
        size = {"width": 1200, "height": 800}
        self.page = browser.new_context(viewport=size, **options).new_page()
        self.said: list[str] = []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.goto(client.serving.address)
        until(self.page, READY)

    def go(self, x: float, y: float, zoom: float) -> None:
        self.page.evaluate(f"window.page.view.go({{x: {x}, y: {y}, zoom: {zoom}}}, true)")
        self.settle()

    def settle(self) -> None:
        """Wait until all tiles are there and drawn."""
        until(
            self.page,
            "window.page.layers.layers.every((layer) => !layer.next && "
            "(!layer.image || !layer.visible || layer.image.getFullyLoaded()))",
        )
        self.page.wait_for_timeout(120)

    def colour_at(self, x: float, y: float) -> tuple[int, ...]:
        """Return the colour that is drawn over a point of the slide."""
        script = f"""() => {{
            const {{ zoom, left, top }} = window.page.view.transform;
            const canvas = window.page.viewer.drawer.canvas;
            const ratio = canvas.width / document.querySelector("#stage").clientWidth;
            const at = [left + {x} * zoom, top + {y} * zoom].map((v) => Math.floor(v * ratio));
            const single = document.createElement("canvas");
            const context = single.getContext("2d", {{ willReadFrequently: true }});
            context.drawImage(canvas, ...at, 1, 1, 0, 0, 1, 1);
            return [...context.getImageData(0, 0, 1, 1).data];
        }}"""
        return tuple(self.page.evaluate(script))[:3]


@pytest.fixture
def tab(browser: Any, client: Client) -> Iterator[Tab]:
    opened = Tab(browser, client)
    yield opened
    opened.page.context.close()
    assert opened.said == []


def is_red(colour: tuple[int, ...]) -> bool:
    return colour[0] > 200 and max(colour[1:]) < 60


def test_labels_lie_over_the_slide_at_every_zoom(tab: Tab) -> None:
    page = tab.page
    page.evaluate("window.page.groups[0].opacity.value = 1")
    page.evaluate("window.page.panel.changeOpacity(0)")
    for zoom in (0.45, 1, 6):
        for x, y in ((200, 100), (700, 400), (900, 600)):
            tab.go(x, y, zoom)
            off = max(2.5 / zoom, 0.5)
            inward = (1, 1) if (x, y) != (700, 400) else (-1, -1)
            assert is_red(tab.colour_at(x + off * inward[0], y + off * inward[1])), (zoom, x, y)
            assert not is_red(tab.colour_at(x - off * inward[0], y - off * inward[1])), (zoom, x, y)


def test_classes_opacity_and_styles(tab: Tab) -> None:
    page = tab.page
    tab.go(800, 600, 0.5)
    covered = tab.colour_at(1200, 800)
    page.locator(".classes tbody input").nth(1).uncheck()
    page.wait_for_timeout(300)
    tab.settle()
    bare = tab.colour_at(1200, 800)
    assert covered[0] > bare[0] + 20 or covered != bare
    page.locator(".classes tbody input").nth(1).check()
    page.locator("input[aria-label=Opacity]").fill("1")
    page.wait_for_timeout(300)
    tab.settle()
    assert is_red(tab.colour_at(1200, 800))
    page.locator("select[aria-label='Areas or outlines']").select_option("outline")
    page.wait_for_timeout(300)
    tab.settle()
    assert not is_red(tab.colour_at(1200, 800))
    page.keyboard.press("Escape")
    page.locator(".group h2").click()
    page.wait_for_timeout(200)
    assert tab.colour_at(1200, 800) == bare


def test_what_the_model_did_not_look_at_is_hatched(tab: Tab) -> None:
    tab.go(1600, 300, 1)
    seen = {tab.colour_at(1620 + n, 300) for n in range(16)}
    tab.page.keyboard.press("w")
    tab.page.wait_for_timeout(200)
    bare = {tab.colour_at(1620 + n, 300) for n in range(16)}
    assert seen.isdisjoint(bare)


def test_a_click_shows_the_row_of_an_object(tab: Tab) -> None:
    tab.go(450, 250, 1)
    stage = tab.page.locator("#stage").bounding_box()
    tab.page.mouse.click(stage["x"] + stage["width"] / 2, stage["y"] + stage["height"] / 2)
    tab.page.wait_for_selector("#selected dl")
    shown = tab.page.locator("#selected").inner_text()
    assert "area_um2" in shown
    assert f"{300 * 500 * 0.25:,.0f}" in shown


def test_names_are_text(tab: Tab) -> None:
    assert tab.page.locator(".classes td.name").first.inner_text().strip() == EVIL
    assert tab.page.locator("#panel img").count() == 0


def test_the_address_restores_the_place(tab: Tab, browser: Any, client: Client) -> None:
    tab.go(1000, 700, 2)
    until(tab.page, "location.hash.includes('zoom=2')")
    again = tab.page.context.new_page()
    again.goto(tab.page.url)
    until(again, READY)
    view = again.evaluate("({...window.page.view.centre, zoom: window.page.view.zoom})")
    assert (view["x"], view["y"], view["zoom"]) == pytest.approx((1000, 700, 2), rel=1e-2)
    bar = again.evaluate("document.querySelector('#scale-bar').clientWidth * 0.5 / 2")
    assert float(again.locator("#scale-text").inner_text().split()[0]) == pytest.approx(
        bar, abs=1.2
    )


def test_a_region_is_measured_and_saved(tab: Tab) -> None:
    tab.go(450, 250, 1)
    stage = tab.page.locator("#stage").bounding_box()
    middle = stage["x"] + stage["width"] / 2, stage["y"] + stage["height"] / 2
    tab.page.keyboard.press("r")
    tab.page.mouse.move(middle[0] - 50, middle[1] - 40)
    tab.page.mouse.down()
    tab.page.mouse.move(middle[0] + 50, middle[1] + 40)
    tab.page.mouse.up()
    tab.page.wait_for_selector(".measured td")
    shown = tab.page.locator(".measured").inner_text()
    assert "100 %" in shown
    with tab.page.expect_download() as download:
        tab.page.locator("#save-regions").click()
    assert download.value.suggested_filename == "a-regions.geojson"


def test_keys_and_help(tab: Tab) -> None:
    tab.page.keyboard.press("?")
    assert tab.page.locator("#help").is_visible()
    tab.page.keyboard.press("Escape")
    with tab.page.expect_download() as download:
        tab.page.keyboard.press("s")
    assert download.value.suggested_filename == "a.png"
    tab.page.keyboard.press("h")
    assert not tab.page.locator("#panel").is_visible()


def test_dark_and_small_screens(browser: Any, client: Client) -> None:
    tab = Tab(browser, client, color_scheme="dark")
    assert "rgb(28, 31, 36)" in tab.page.evaluate(
        "getComputedStyle(document.querySelector('#panel')).backgroundColor"
    )
    tab.page.set_viewport_size({"width": 700, "height": 900})
    assert tab.page.evaluate("document.documentElement.scrollWidth") <= 700
    tab.page.context.close()
    assert tab.said == []


def test_the_page_says_when_the_server_has_ended(browser: Any, tmp_path: Path) -> None:
    slide = write_slide(tmp_path / "slide.png", (600, 600))
    with serving(slide) as client:
        tab = Tab(browser, client)
        tab.settle()
        assert not tab.page.locator("#hint").is_visible()
    tab.page.locator("#hint").wait_for(state="visible")
    assert "has ended" in tab.page.locator("#hint").inner_text()
    tab.page.context.close()


def test_the_gallery_leads_to_slides(browser: Any, tmp_path: Path) -> None:
    make_result(tmp_path / "b.ome.zarr")
    make_result(tmp_path / "c.ome.zarr")
    with serving(tmp_path) as client:
        page = browser.new_page()
        said: list[str] = []
        page.on("console", lambda message: said.append(message.text))
        page.goto(client.serving.address)
        page.wait_for_selector(".card")
        assert page.locator(".card").count() == 2
        page.locator("#sort").select_option("objects nucleus")
        page.locator(".card").first.click()
        until(page, f"location.pathname.startsWith('/slides/') && {READY}")
        page.close()
        assert said == []


def test_blocks_appear_without_reloading(browser: Any, tmp_path: Path) -> None:
    run = Run(tmp_path / "a.ome.zarr")
    with serving(run.path) as client:
        tab = Tab(browser, client)
        tab.page.evaluate("window.loaded = 'once'")
        assert "0 of 30 blocks" in tab.page.locator("#progress").inner_text()
        tab.settle()
        point = 512 + 256, 256
        waiting = tab.colour_at(*point)
        run.compute((0, 1))
        run.fail((1, 0), "tile 7 <b>broke</b>")
        deadline = time.monotonic() + 60
        while tab.colour_at(*point) == waiting:
            assert time.monotonic() < deadline
            tab.page.wait_for_timeout(100)
        assert "1 of 30 blocks · 1 failed" in tab.page.locator("#progress").inner_text()
        x, y = tab.page.evaluate(
            "(({zoom, left, top}) => [left + 256 * zoom, top + 768 * zoom])"
            "(window.page.view.transform)"
        )
        tab.page.mouse.click(x, y)
        tab.page.wait_for_selector("#selected .note")
        assert tab.page.locator("#selected .note").inner_text() == "tile 7 <b>broke</b>"
        assert tab.page.evaluate("window.loaded") == "once"
        tab.page.context.close()
        assert tab.said == []
