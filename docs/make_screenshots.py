"""Make docs/images/view.png: the page of `wsi-unet view`, in a real browser, on a result.

    python docs/make_screenshots.py [RESULT]     # default: what `make demo` writes, with objects

It needs playwright (the group `test`) and Debian's chromium.
"""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import sync_playwright

ROOT = Path(__file__).resolve().parents[1]
DEMO = ROOT / "demo" / "CMU-1-Small-Region.ome.zarr"
PICTURE = ROOT / "docs" / "images" / "view.png"
PLACE = "x=1180&y=1180&zoom=1.6"
WIDTH, HEIGHT = 1200, 810
COLOURS = 192  # of the palette: enough for a picture in the documentation, and small
READY = "document.body && document.body.dataset.ready === 'yes'"


def main() -> None:
    """Serve a result, take a picture of its page, and save it."""
    result = Path(sys.argv[1]) if len(sys.argv) > 1 else DEMO
    command = [sys.executable, "-c", "from wsi_unet_cli.main import main; main()"]
    subprocess.run([*command, "objects", result], check=True, stdout=subprocess.DEVNULL)
    with subprocess.Popen(
        [*command, "view", result, "--no-open"], stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        try:
            picture = take_picture(server.stdout.readline().split()[1])
        finally:
            server.terminate()
    image = Image.open(io.BytesIO(picture)).convert("RGB")
    image.quantize(COLOURS, dither=Image.Dither.NONE).save(PICTURE, optimize=True)
    print(f"{PICTURE}: {PICTURE.stat().st_size / 1e3:.0f} kB")


def take_picture(address: str) -> bytes:
    """Return the page with an object and a histogram, as a PNG file."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
        page.goto(address)
        wait_until(page, READY)
        page.evaluate(f"location.hash = '{PLACE}'")
        page.locator("select[aria-label=Measurement]").select_option(label="area_um2")
        page.wait_for_timeout(3000)
        page.mouse.click(*find_object(page))
        page.wait_for_selector("#selected dl")
        page.mouse.move(420, 600)
        picture: bytes = page.screenshot()
        browser.close()
    return picture


def find_object(page: Any) -> tuple[float, float]:
    """Return where on the screen a rather large object in view is."""
    script = """async () => {
        const { view } = window.page;
        const [x0, y0, x1, y1] = view.box;
        const [w, h] = [(x1 - x0) / 3, (y1 - y0) / 3];
        const near = [x0 + w, y0 + h, x1 - w, y1 - h].map((v) => v.toFixed(1));
        const { objects } = await (await fetch(`objects/0?box=${near}`)).json();
        const round = objects.filter(({ rings }) => rings.length === 1 && rings[0].length < 120);
        round.sort((a, b) => b.rings[0].length - a.rings[0].length);
        const { zoom, left, top } = view.transform;
        const middle = (v) => (Math.min(...v) + Math.max(...v)) / 2;
        for (const { rings: [ring] } of round) {
            const x = middle(ring.filter((_, i) => i % 2 === 0));
            const y = middle(ring.filter((_, i) => i % 2 === 1));
            const at = [x, y].map((v) => v.toFixed(2));
            const found = await (await fetch(`object/0?at=${at}`)).json();
            if (found) return [left + x * zoom, top + y * zoom];
        }
        throw new Error("no object is in view");
    }"""
    x, y = page.evaluate(script)
    return x, y


def wait_until(page: Any, condition: str) -> None:
    """Wait until a condition holds; the page's policy forbids Playwright's own way to."""
    while not page.evaluate(condition):
        time.sleep(0.1)


if __name__ == "__main__":
    main()
