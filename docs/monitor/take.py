"""Takes the pictures of all pages, light and dark: python docs/monitor/take.py --help. Needs Chromium."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

if not __package__:  # run by its path, not imported
    sys.path[0] = str(Path(__file__).resolve().parent.parent.parent)

import click
from PIL import Image
from playwright.sync_api import Browser, sync_playwright

from benchmarks.fleet import Fleet
from benchmarks.loopback import _free_port, end, python

HERE = Path(__file__).resolve().parent
PAGES = {"run": "run?id={run}", "runs": "", "schedule": "schedule", "budgets": "budgets", "system": "system"}
_NARROW = ("run", "runs")
_CHROMIUM = "/usr/bin/chromium"
_WIDE_PIXELS, _NARROW_PIXELS, _LEAST_HEIGHT, _MOST_HEIGHT = 1280, 400, 900, 1300
_SETTLE_MS, _GROWN_MS = 3_000, 700
#: What is scrolled is the page's main part: the window is made about as high as what it holds.
_HEIGHT = "document.querySelector('[data-testid=stMain]').scrollHeight"


@click.command()
@click.argument("states", nargs=-1, type=click.Choice(["empty", "busy", "failing"]))
@click.option("--into", type=click.Path(path_type=Path), default=HERE, show_default=True)
def main(states: tuple[str, ...], into: Path) -> None:
    """Take the pictures of all pages in these STATES, or in all three."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=_CHROMIUM, args=["--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
        )
        for state in states or ("empty", "busy", "failing"):
            with {"empty": _empty, "busy": _busy, "failing": _failing}[state]() as (url, run):
                pictures = _shoot(browser, url, run, state, into)
            print(f"{state}: {pictures} pictures in {into}", file=sys.stderr)


def _shoot(browser: Browser, url: str, run: int, state: str, into: Path) -> int:
    pictures = 0
    for name, address in PAGES.items():
        for theme, width in (("light", _WIDE_PIXELS), ("dark", _WIDE_PIXELS), ("light", _NARROW_PIXELS)):
            if width == _WIDE_PIXELS or (state == "busy" and name in _NARROW):
                kind = theme if width == _WIDE_PIXELS else "narrow"
                _take(browser, f"{url}/{address.format(run=run)}", theme, width, into / f"{name}-{state}-{kind}.png")
                pictures += 1
    return pictures


def _take(browser: Browser, url: str, theme: Any, width: int, path: Path) -> None:
    page = browser.new_page(
        color_scheme=theme, viewport={"width": width, "height": _LEAST_HEIGHT}, timezone_id="Europe/Paris"
    )
    page.goto(url)
    page.wait_for_selector(".sl-top")
    page.wait_for_timeout(_SETTLE_MS)
    height = min(max(_LEAST_HEIGHT, page.evaluate(_HEIGHT)), _MOST_HEIGHT)
    page.set_viewport_size({"width": width, "height": height})
    page.wait_for_timeout(_GROWN_MS)
    page.screenshot(path=path)
    page.close()
    with Image.open(path) as picture:  # 256 colours are as good, in a third of the bytes
        small = picture.convert("RGB").quantize(256, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    small.save(path, optimize=True)


@contextmanager
def _empty() -> Iterator[tuple[str, int]]:
    with _fleet() as fleet, _page(fleet) as url:
        yield url, 1


@contextmanager
def _busy() -> Iterator[tuple[str, int]]:
    """Two runs are active, one is paused, one is pending; the run of the products has used several windows."""
    with _fleet(items=6000, processes=2) as fleet, _page(fleet) as url:
        _remember(fleet)
        orders = fleet.start_run("orders")
        fleet.wait_until(lambda: fleet.run_row(orders).succeeded, 60, "the first orders are in")
        fleet.command("pause", str(orders))
        fleet.start_run("customers")
        run = fleet.start_run("products")
        time.sleep(60)
        fleet.command("adjust", str(run), "--priority", "10")
        fleet.start_run("products")
        time.sleep(60)
        yield url, run


@contextmanager
def _failing() -> Iterator[tuple[str, int]]:
    """The API answers with errors, and allows fewer requests than it states; then the workers are killed."""
    faults = [*("--fault", "500:0.22"), *("--fault", "malformed:0.1"), *("--fault", "reset:0.05")]
    backoff = {"SLUICE_BACKOFF_SECONDS": "0.2,0.2"}
    with _fleet(items=420, limits="400/20", mock_options=faults, settings=backoff) as fleet, _page(fleet) as url:
        _remember(fleet)
        run = fleet.start_run("orders")
        # Where its list could not be read, a retry continues at the same page.
        while fleet.wait_for_run(run, 240).status == "failed":
            fleet.command("retry", str(run))
        fleet.start_run("products")
        time.sleep(25)
        _kill_workers(fleet)
        time.sleep(60)
        yield url, run


def _kill_workers(fleet: Fleet) -> None:
    children, supervisor = fleet.worker_children(), fleet._started.pop("worker")
    for process_id in (supervisor.pid, *children):
        os.kill(process_id, signal.SIGKILL)
    supervisor.wait()


def _fleet(**more: Any) -> Fleet:
    settings = {"SLUICE_SOURCES": "docs.monitor.shop:SOURCES", **more.pop("settings", {})}
    limits = more.pop("limits", "500/20,2000/100")
    return Fleet(limits=limits, processes=more.pop("processes", 1), settings=settings, **more)


def _remember(fleet: Fleet) -> None:
    """Give the installation a past."""
    code = "from docs.monitor.shop import remember; remember()"
    subprocess.run([sys.executable, "-c", code], env=fleet.environment, cwd=fleet.folder, check=True)


@contextmanager
def _page(fleet: Fleet) -> Iterator[str]:
    port, path = _free_port(), fleet.folder / "monitor.log"
    with path.open("w") as log:
        process = python(
            *("-m", "workers", "monitor"), env=fleet.environment | {"SLUICE_MONITOR_PORT": str(port)}, stderr=log
        )
    try:
        fleet.wait_until(lambda: "Sluice is ready" in path.read_text(), 60, "the monitor is ready")
        yield f"http://127.0.0.1:{port}"
    finally:
        end(process)


if __name__ == "__main__":
    main()
