"""A page without a connection says so within seconds, blocks its buttons, and performs no press that arrives late."""

import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, expect

from tests.helpers.machine import ROOT, free_port
from tests.helpers.monitor_process import run_workers, served
from workers.monitor.actions.stale_clicks import Liveness


class Network:
    """A proxy whose connections stall while it is `dead`: nothing is refused, and nothing comes."""

    def __init__(self, url: str) -> None:
        self.target = urlsplit(url).port
        self.port = free_port()
        self.alive = threading.Event()
        self.alive.set()
        self.listener = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self.listener.accept()
                far = socket.create_connection(("127.0.0.1", self.target))
                for one, other in ((near, far), (far, near)):
                    threading.Thread(target=self._carry, args=(one, other), daemon=True).start()

    def _carry(self, one: socket.socket, other: socket.socket) -> None:
        with suppress(OSError), one, other:
            while data := one.recv(65_536):
                self.alive.wait()
                other.sendall(data)


@contextmanager
def network(url: str) -> Iterator[Network]:
    made = Network(url)
    yield made
    made.alive.set()
    made.listener.close()


def test_a_dead_network_is_marked_the_buttons_are_off_and_a_late_press_starts_nothing(
    variables: dict[str, str], browser: Browser
) -> None:
    run_workers(variables, "migrate", "--create-models").wait(30)
    with served(ROOT, **variables) as (url, _, _), network(url) as way:
        page = browser.new_page()
        page.goto(f"http://127.0.0.1:{way.port}")
        go = page.get_by_role("button", name="Import now")
        expect(go).to_be_enabled(timeout=20_000)
        page.wait_for_function("document.querySelector('.sl-as-of')")

        # When the network fails, and a button is pressed before the page has noticed
        way.alive.clear()
        go.click()
        died = time.monotonic()
        expect(page.locator(".sl-stale")).to_contain_text("No connection", timeout=8_000)
        noticed = time.monotonic() - died
        expect(page.locator(".sl-stale-age")).to_contain_text(re.compile(r"Last update \d+ s ago"))
        expect(go).to_be_disabled()
        time.sleep(max(0.0, 9.5 - (time.monotonic() - died)))

        # And comes back
        way.alive.set()
        expect(page.locator(".sl-stale")).to_have_count(0, timeout=8_000)
        expect(page.locator("body")).to_contain_text("the connection was lost", timeout=5_000)
        expect(page.locator(".sl-now")).to_have_count(0)

        # Then a press from now on is performed, once, even after a double click
        time.sleep(2.2)
        go.dblclick()
        expect(page.locator("#run-1")).to_be_visible(timeout=10_000)
        expect(page.locator("body")).to_contain_text("Run 1 is running")
        time.sleep(1.5)
        rows = page.locator("tr[id^=run-]").count()
        page.close()

    assert noticed < 6
    assert rows == 1


@pytest.mark.parametrize(
    ("gaps", "stale"),
    [
        ([1, 1, 1], False),
        ([1, 7, 1], False),
        ([1, 9], True),
        ([1, 37], True),
        ([37, 1], True),
        ([37, 3], False),
    ],
)
def test_a_press_is_stale_after_a_gap_and_for_two_seconds_after_it(gaps: list[float], stale: bool) -> None:
    liveness, now = Liveness(), 100.0
    liveness.ask(now)
    for gap in gaps:
        now += gap
        liveness.ask(now)

    assert liveness.is_stale(now) == stale
