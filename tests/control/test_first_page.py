"""The request of a list's first page, as `plan` and `doctor --ask` send it."""

from types import SimpleNamespace

import requests

from workers import Connector, Limit
from workers.control import first_page
from workers.testing import MemoryLimiter, api


class Heavy(Connector):
    """An API that counts each request twice."""

    def weigh(self, request: requests.Request) -> int:
        return 2


def test_a_request_that_weighs_more_than_the_reserved_permit_waits_for_the_rest(moved_clock):
    # Given a budget with room for one request, and a list page that weighs two
    with api({"/items": {"items": []}}) as fake:
        connector = Heavy("shop", base_url=fake.url, limits=[Limit(2, seconds=10)])
        permits = MemoryLimiter(connector.budget, max_wait_seconds=30.0).permit_client()
        permits.answered(permits.acquire(1.0))

        # When it is requested
        page = first_page.fetch(SimpleNamespace(name="items"), connector, permits, requests.Request("GET", "items"))

    # Then it has waited for the window, because that is less than the client may wait
    assert page.data == {"items": []}
    assert (permits.max_wait_seconds, moved_clock.elapsed_seconds >= 10) == (30.0, True)
