"""Take the screenshots of the README: `python scripts/docs_screenshot.py` writes docs/page-light.png and -dark.png.

It starts `repvgg serve` on a free port, adds some sample pictures on its page, opens one and points at its label. It
needs Chromium and playwright.
"""

from __future__ import annotations

import io
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, sync_playwright

ROOT = Path(__file__).resolve().parent.parent
SAMPLES = ROOT / "models/samples"
OTHERS = ("mushroom.jpg", "teapot.jpg", "ladybug.jpg", "umbrella.jpg")
OPENED = "school_bus.jpg"
WIDTH, HEIGHT = 1120, 850
CHROMIUM_FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]


def main() -> None:
    with serving() as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=CHROMIUM_FLAGS)
        for theme in ("light", "dark"):
            save(screenshot(browser, url, theme), ROOT / f"docs/page-{theme}.png")
        browser.close()


@contextmanager
def serving() -> Iterator[str]:
    """The address of a service that runs until the block ends."""
    command = [sys.executable, "-m", "service", "serve", "--port", "0", "--engine", "onnxruntime"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as server:
        try:
            yield next(found[0] for line in server.stdout or () if (found := address(line)))
        finally:
            server.send_signal(signal.SIGINT)
            server.communicate()


def address(line: str) -> re.Match[str] | None:
    return re.search(r"http://127\.0\.0\.1:\d+", line) if '"serving ' in line else None


def screenshot(browser: Browser, url: str, theme: str) -> bytes:
    page = browser.new_page(
        viewport={"width": WIDTH, "height": HEIGHT},
        device_scale_factor=2,
        color_scheme="dark" if theme == "dark" else "light",
    )
    page.goto(url)
    page.locator("#state[data-state=ready]").wait_for()
    for _ in range(3):  # the first answers of a process are slow; show those of a warm one
        page.locator("#files").set_input_files([SAMPLES / name for name in OTHERS])
        page.locator(".card[data-state=answered]").nth(len(OTHERS) - 1).wait_for()
        page.locator("#files").set_input_files(SAMPLES / OPENED)
        page.locator(".opened .guess").first.hover()
        page.wait_for_timeout(300)
        shown = page.screenshot()
        page.locator("#clear").click()
    return shown


def save(png: bytes, path: Path) -> None:
    """With 256 colours: a third of the bytes. Dithered, or the heat map would get steps."""
    shown = Image.open(io.BytesIO(png)).convert("RGB")
    # Pillow dithers only to a palette that it is given.
    shown.quantize(palette=shown.quantize(256), dither=Image.Dither.FLOYDSTEINBERG).save(path, optimize=True)


if __name__ == "__main__":
    main()
